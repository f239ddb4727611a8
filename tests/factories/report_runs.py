"""A run folder without a run, and predictions with known cases: tables, scores and settings as training leaves them."""

from pathlib import Path
from typing import Any

import numpy as np
import yaml

from histo_lightning.data.breakhis.names import SUBTYPE_CLASS
from histo_lightning.evaluation import Table, make_table, score_predictions, write_predictions
from histo_lightning.evaluation.calibration import fit_temperature, operating_point
from histo_lightning.runs import write_atomic, write_json

HISTORY = (
    "epoch,lr,train_loss,train_accuracy,val_loss,val_accuracy,val_balanced_accuracy,val_auroc,val_case_auroc"
)

# (subtype, slide number with section letters): the cases of each part; 22549AB and 22549CD are one case.
CASES = {
    "train": "A-22549AB A-22549CD F-14134 F-21998AB F-21998CD PT-22704 TA-16184 TA-3411F DC-2523 DC-2773 DC-3909 "
    "DC-4364 DC-5287 LC-12204 LC-15570 MC-10147 MC-12773 PC-15687B PC-9146 DC-11031 DC-13993",
    "val": "A-29960AB F-23222AB TA-15275 DC-14926 DC-15696 DC-16716 DC-17614 DC-17915 MC-13418DE PC-15704 LC-16196",
    "test": "F-9133 PT-29315EF TA-19854C DC-20629 DC-20636 DC-8168 DC-9461 MC-16456 MC-18842 MC-19979C PC-190EF "
    "LC-13412 DC-16448 DC-16875",
}


def made_up_table(
    part: str, task: str = "binary", *, named: bool = True, only: str = "", seed: int = 0
) -> Table:
    """Predictions of a part with case-wise difficulty; ``named=False``: names outside the grammar."""
    random = np.random.default_rng([seed, len(part)])
    rows: list[dict[str, Any]] = []
    logits = []
    classes = ("benign", "malignant") if task == "binary" else tuple(SUBTYPE_CLASS)
    for text in CASES[part].split():
        subtype, number = text.split("-")
        class_name = SUBTYPE_CLASS[subtype]
        if only and class_name != only:
            continue
        shift = random.normal(2.0 if part == "train" else 0.7, 1.4)
        for sequence in range(1, int(random.integers(8, 34))):
            name = f"SOB_{class_name[0].upper()}_{subtype}-14-{number}-100-{sequence:03d}.png"
            slide, case = f"{subtype}-14-{number}", "14-" + "".join(c for c in number if c.isdigit())
            rows.append(
                {
                    "image": name if named else f"picture {len(rows)}.png",
                    "path": f"some/{name}",
                    "class_name": class_name,
                    "subtype": subtype if named or task != "binary" else "",
                    "slide": slide if named else "",
                    "case": case if named else "",
                    "magnification": 100 if named else 0,
                }
            )
            right = classes.index(class_name if task == "binary" else subtype)
            row = random.normal(0, 1, len(classes))
            row[right] += shift
            logits.append(row)
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    return make_table(task, part=part, logits=np.array(logits), **columns)


def made_up_run(
    folder: Path,
    *,
    task: str = "binary",
    test: bool = True,
    named: bool = True,
    only: str = "",
    label: str = "",
    epochs: int = 20,
    kind: str = "case_kfold",
    notes: tuple[str, ...] = (),
    draws: int = 200,
    **more: Any,
) -> Path:
    """A run folder without a run: every table that the report reads; ``more`` are further keys of ``metrics.json``."""
    parts = ("train", "val", "test") if test else ("train", "val")
    tables = {
        part: made_up_table(part, task, named=named, only="" if part == "train" else only)
        for part in ("train", "val", "test")
    }
    scores = {
        part: score_predictions(
            tables[part],
            intervals=part != "train",
            draws=draws,
            threshold=0.4 if part != "train" and draws > 300 else None,
        )
        if part in parts
        else None
        for part in tables
    }
    for part in parts[1:]:
        write_predictions(folder / "predictions" / f"{part}.csv", tables[part])
    random = np.random.default_rng(7)
    best = int(epochs * 0.6)
    lines = [f"{HISTORY},images_per_second"]
    for epoch in range(epochs):
        fall = np.exp(-epoch / 6)
        train, val = (
            0.15 + 0.5 * fall,
            0.33 + 0.3 * fall + 0.012 * max(0, epoch - best) + random.normal(0, 0.02),
        )
        cells = [
            epoch,
            1e-3 * fall,
            train,
            0.97 - 0.3 * fall,
            val,
            0.86 - 0.2 * fall + random.normal(0, 0.015),
        ]
        cells += [0.8, "" if only else 0.9, "" if only else 0.88, 412.5]
        lines.append(",".join(str(cell) for cell in cells))
    write_atomic(folder / "history.csv", "\n".join(lines) + "\n")
    facts = {
        "schema": 1,
        "best_epoch": best,
        "epochs": epochs,
        "train_seconds": 93.2,
        "monitor": "val_case_log_loss",
    }
    point = operating_point(tables["val"]) if only != "benign" else {"threshold": None, "reason": "none"}
    facts |= {"operating_point": point, "temperature": fit_temperature(tables["val"])}
    monitored = {"monitored": [0.7 * float(np.exp(-e / 9)) + 0.3 for e in range(epochs)]}
    write_json(folder / "metrics.json", facts | monitored | {"split": label} | scores | more)
    split = {"kind": kind, "label": label, "seed": 0, "fold": 1, "folds": 5, "repeat": 0, "group": "case"}
    split |= {"hash": "9f" * 32, "notes": list(notes)}
    images = {part: table.image.tolist() for part, table in tables.items()}
    cases = {part: sorted(set(table.case.tolist()) - {""}) for part, table in tables.items()}
    write_json(folder / "split.json", split | {"parts": images, "cases": cases})
    status = {
        "state": "finished",
        "error": None,
        "started": "2025-11-22T20:41:07+00:00",
        "seconds": 118.4,
        "versions": {"histo_lightning": "0.1.0", "python": "3.11.7", "torch": "2.15.0", "numpy": "2.3.5"},
        "git_commit": "2a13439c0ffee",
        "test_read": 1 if test else 0,
    }
    write_json(folder / "status.json", status)
    config = {
        "model": {"name": "resnet18", "stem": "standard"},
        "magnification": "100x",
        "task": task,
        "seed": 0,
    }
    config |= {"split": {"name": kind, "fold": 1, "folds": 5}, "batch_size": 32, "image_size": 224}
    config |= {"optimizer": {"name": "adamw", "lr": 1e-3}, "epochs": epochs, "dataset": {"name": "breakhis"}}
    write_atomic(folder / "config.yaml", yaml.safe_dump(config, sort_keys=False))
    return folder


def many_cases(malignant: int = 54, benign: int = 16, images: int = 9) -> Table:
    """A table of many cases, as large as the real set's."""
    random = np.random.default_rng(3)
    rows = [
        (
            "malignant" if k < malignant else "benign",
            ("DC", "LC", "MC", "PC") if k < malignant else ("A", "F", "PT", "TA"),
            k,
        )
        for k in range(malignant + benign)
        for _ in range(images)
    ]
    hard = {k: random.normal(1, 1.4) for _, _, k in rows}
    shift = np.array([hard[k] * (1 if name == "malignant" else -1) for name, _, k in rows])
    return make_table(
        "binary",
        image=[f"{i}.png" for i in range(len(rows))],
        path=[f"{i}.png" for i in range(len(rows))],
        class_name=[name for name, _, _ in rows],
        subtype=[kinds[k % 4] for _, kinds, k in rows],
        slide=[f"{kinds[k % 4]}-14-{20000 + k}" for _, kinds, k in rows],
        case=[f"14-{20000 + k}" for _, _, k in rows],
        magnification=[(40, 100, 200)[i % 3] for i in range(len(rows))],
        part="test",
        logits=np.column_stack([np.zeros(len(rows)), shift + random.normal(0, 1.2, len(rows))]),
    )
