"""Damaged files: every command that reads one says so, or does not need it; nothing wrong is used without a word."""

import json
import os
import random
import re
import shutil
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from pytorch_lightning import Callback
from safetensors.torch import load_file

from factories.damage import GOOD, copy_folder, damage, files_of, judged, trials
from factories.kills import narrow
from factories.runs import main_here, run_folder, train_here
from histo_lightning.runs.manifest import read_manifest

TINY = (
    "experiment=smoke",
    "dataset.images_per_slide=1",
    "dataset.image_size=140",
    "trainer=cpu",
    "trainer.progress=none",
)


RUN = "outputs/runs"


class Interrupt(Callback):
    """Ctrl-C at the beginning of the second epoch."""

    def on_train_epoch_start(self, trainer, pl_module) -> None:
        if trainer.current_epoch == 1:
            raise KeyboardInterrupt


def training(root: Path, cache_dir: Path) -> list[str]:
    own = (f"output_dir={root / 'outputs'}", f"cache_dir={cache_dir / 'histo_lightning'}")
    return ["train", *TINY, "trainer.threads=1", *own, f"json={root / 'm.json'}"]


@pytest.fixture(scope="module", autouse=True)
def narrow_networks() -> Iterator[None]:
    with narrow():
        yield


@pytest.fixture(scope="module")
def whole(tmp_path_factory, cache_dir: Path) -> Path:
    """A finished run, below ``outputs/``."""
    root = tmp_path_factory.mktemp("whole")
    assert main_here(*training(root, cache_dir)) == 0
    return root


@pytest.fixture(scope="module")
def halted(tmp_path_factory, cache_dir: Path) -> Path:
    """A run that was interrupted after its first epoch, below ``outputs/``."""
    root = tmp_path_factory.mktemp("halted")
    with pytest.raises(KeyboardInterrupt):
        train_here(root, cache_dir, "trainer.progress=none", base=TINY, callbacks=[Interrupt()])
    return root


@pytest.fixture(scope="module")
def swept(tmp_path_factory, cache_dir: Path) -> Path:
    """A finished sweep of two runs, below ``outputs/``."""
    root = tmp_path_factory.mktemp("swept")
    assert main_here(*sweeping(root, cache_dir)) == 0
    return root


def sweeping(root: Path, cache_dir: Path) -> list[str]:
    return [*training(root, cache_dir), "-m", "seed=0,1", "sweep_name=s", "epochs=1"]


class Lines:
    """The commands that read a run, and what of their output depends on its files."""

    def __init__(self, cache_dir: Path) -> None:
        self.cache_dir = cache_dir
        self.image = next((cache_dir / "histo_lightning" / "synthetic").rglob("*.png"))

    def arguments(self, command: str, root: Path) -> list[str]:
        if command == "sweep":
            return sweeping(root, self.cache_dir)
        (run,) = (root / RUN).iterdir()
        checkpoint = [
            f"checkpoint={run / 'checkpoints' / 'best.ckpt'}",
            f"output_dir={root / 'out'}",
            "run_name=x",
        ]
        quiet = ["trainer=cpu", "trainer.progress=none"]
        cache = f"cache_dir={self.cache_dir / 'histo_lightning'}"
        drawn = ["dataset=synthetic", "dataset.images_per_slide=1", "dataset.image_size=140"]
        return {
            "train": training(root, self.cache_dir),
            "resume": training(root, self.cache_dir),
            "predict": ["predict", *checkpoint, f"input={self.image}", *quiet],
            "evaluate": ["evaluate", *checkpoint, *drawn, "part=test", cache, *quiet],
            "export": ["export", *checkpoint, "format=safetensors"],
            "compare": ["compare", f"runs={root / 'outputs'}", f"output_dir={root / 'out'}"],
            "split": ["audit", f"split_file={run / 'split.json'}", f"json={root / 'out' / 'split.json'}"],
            "prepare": [
                "prepare",
                *drawn,
                "split=file",
                f"split.path={run / 'split.json'}",
                f"output_dir={root / 'out'}",
                cache,
                "trainer.progress=none",
            ],
            "report": [
                "report.__main__",
                f"output_dir={root / 'outputs'}",
                f"json={root / 'out' / 'i.json'}",
            ],
        }[command]

    def content(self, command: str, root: Path) -> object:
        """What a command leaves, as far as it is the same at every call."""
        tables = [*(root / "out").rglob("*.csv"), *(root / "outputs").glob("sweeps/s/results.csv")]
        texts = {path.name: path.read_text().replace(str(root), "") for path in tables}
        for path in [*(root / "out").rglob("*.json"), *root.glob("m.json")]:
            if path.name not in ("manifest.json",):
                texts[path.name] = path.read_text().replace(str(root), "")
        tables = [*(root / RUN).glob("*/predictions/*.csv")] if command in ("train", "resume") else []
        texts |= {path.name: path.read_text() for path in tables}
        if command in ("resume", "sweep"):  # seconds, and the plan's time, differ
            texts = {name: text for name, text in texts.items() if name != "m.json"}
        # The order of the header of a safetensors file is drawn anew each time.
        texts = {name: re.sub(r'"sha256": "\w+"', "", text) for name, text in texts.items()}
        models = [load_file(path) for path in (root / "out").rglob("model.*")]
        return texts, [{name: tensor.numpy().tobytes() for name, tensor in one.items()} for one in models]


READERS = {  # what reads a file, at least
    "checkpoints/": ("predict", "evaluate", "export"),
    "split.json": ("split", "prepare", "evaluate", "compare"),
    "predictions/": ("compare",),
    "": ("compare", "train", "report"),
}


def readers(name: str) -> tuple[str, ...]:
    return next(commands for start, commands in READERS.items() if start in name)


def attempt(lines: Lines, source: Path, root: Path, command: str, wanted, trial, capsys) -> dict[str, object]:
    """Damage a copy of a folder, run a command on it, and judge what came of it."""
    kind, name, draw = trial
    copy_folder(source, root)
    (root / "out").mkdir()
    done = damage(root / "outputs", kind, name, draw) if kind else None
    capsys.readouterr()
    begun = time.monotonic()
    status, said = main_here(*lines.arguments(command, root)), "".join(capsys.readouterr())
    seconds = round(time.monotonic() - begun, 2)
    if command == "report":  # it lists a damaged folder with what is wrong
        entries = json.loads((root / "out" / "i.json").read_text())
        said += "".join(entry["title"] for entry in entries if entry["state"] == "damaged")
    content = lines.content(command, root) if status in (0, 3) else None
    if done is None:
        return {"content": content, "status": status, "said": said}
    outcome = judged(done, status, said, same=content == wanted)
    if outcome == "said" and command == "resume" and content != wanted:
        outcome = "wrong"
    shutil.rmtree(root)
    return {
        "kind": kind,
        "file": name,
        "with": done.names[1:],
        "command": command,
        "outcome": outcome,
        "said": said[-400:],
        "seconds": seconds,
    }


def test_every_file_is_listed_and_audited(whole: Path, tmp_path: Path, capsys) -> None:
    run = run_folder(whole)
    assert set(read_manifest(run)) == set(files_of(run)) - {"manifest.json"}
    assert main_here("audit", f"run={whole}", f"json={tmp_path / 'a.json'}") == 0
    assert json.loads((tmp_path / "a.json").read_text())["damaged"] == []
    capsys.readouterr()
    for kind, name, draw in trials(28, files_of(run), seed=1):
        copy = copy_folder(run, tmp_path / "copy")
        done = damage(copy, kind, name, draw)
        status, said = main_here("audit", f"run={copy}"), "".join(capsys.readouterr())
        assert (status, judged(done, status, said, same=False)) == (2, "refused"), (done, said)
        shutil.rmtree(copy)


@pytest.mark.parametrize(
    ("command", "kind", "file", "outcome"),
    [
        ("predict", "bit", "checkpoints/best.ckpt", "refused"),
        ("export", "swap", "checkpoints/best.ckpt", "refused"),
        ("compare", "byte", "predictions/test.csv", "said"),
        ("train", "byte", "metrics.json", "refused"),
        ("train", "cut", "plots/loss.png", "said"),
        ("report", "zero", "status.json", "said"),
        ("split", "swap", "split.json", "refused"),
        ("resume", "bit", "checkpoints/last.ckpt", "said"),
    ],
)
def test_a_damaged_file_is_named_or_mended(
    whole: Path,
    request,
    cache_dir: Path,
    tmp_path: Path,
    capsys,
    command: str,
    kind: str,
    file: str,
    outcome: str,
) -> None:
    source, lines = request.getfixturevalue("halted") if command == "resume" else whole, Lines(cache_dir)
    name = f"runs/{run_folder(source).name}/{file}"
    wanted = None
    if command == "resume":
        first = attempt(lines, source, tmp_path / "first", command, None, ("", "", random), capsys)
        wanted = first["content"]
    trial = (kind, name, random.Random(1))
    judged = attempt(lines, source, tmp_path / "damaged", command, wanted, trial, capsys)
    assert judged["outcome"] == outcome, judged


@pytest.mark.long
@pytest.mark.timeout(7200)
def test_no_damage_is_used_without_a_word(
    whole: Path, halted: Path, swept: Path, cache_dir: Path, tmp_path: Path, capsys
) -> None:
    """As many trials as ``HISTO_TRIALS`` says, begun within ``HISTO_SECONDS``; ``HISTO_SOAK`` names the folder for ``damage.json``."""
    end = time.monotonic() + float(os.environ.get("HISTO_SECONDS", "inf"))
    lines, outcomes = Lines(cache_dir), []
    wanted: dict[str, object] = {}
    sources = {"resume": halted, "sweep": swept}
    names = {command: files_of(source / "outputs") for command, source in sources.items()}
    count = int(os.environ.get("HISTO_TRIALS", "200"))
    for number, trial in enumerate(trials(count, files_of(whole / "outputs"), seed=2)):
        if time.monotonic() > end:
            break
        command = random.Random(number).choice(readers(trial[1]))
        if number % 8 >= 6:  # on folders of their own; a resume mostly with a damaged checkpoint
            command = ("resume", "sweep")[number % 2]
            checkpoints = [
                name for name in names[command] if "ckpt" in name and command == "resume" and number % 3
            ]
            trial = (trial[0], trial[2].choice(checkpoints or names[command]), trial[2])
        source = sources.get(command, whole)
        if command not in wanted:
            first = attempt(
                lines, source, tmp_path / f"whole_{command}", command, None, ("", "", random), capsys
            )
            assert first["status"] == 0, first
            wanted[command] = first["content"]
        outcomes.append(
            attempt(lines, source, tmp_path / str(number), command, wanted[command], trial, capsys)
        )
        if outcomes[-1]["outcome"] not in GOOD:
            with capsys.disabled():
                print(outcomes[-1])
    if folder := os.environ.get("HISTO_SOAK"):
        (Path(folder) / "damage.json").write_text(json.dumps(outcomes, indent=1))
    counts = Counter(str(one["outcome"]) for one in outcomes)
    assert counts.keys() <= set(GOOD), (counts, [one for one in outcomes if one["outcome"] not in GOOD][:5])
