"""``report.html`` of a study: what was searched on which cases, how often test was read, and what was found."""

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from markupsafe import Markup

from histo_lightning.report import pages
from histo_lightning.report.style import shown
from histo_lightning.report.words import COVERS, fixed
from histo_lightning.runs import write_atomic
from histo_lightning.tuning.results import TrialRow

Json = Mapping[str, Any]
TIMES = {0: "never", 1: "once", 2: "twice"}
SAMPLERS = {"tpe": "a tree-structured Parzen estimator (TPE)", "random": "random draws"}


def write_study_page(folder: Path, rows: Sequence[TrialRow], study: Json) -> Path:
    """Write ``report.html``, one file that opens offline; the pictures must be drawn already."""
    sections = [
        _header(study),
        section("Protocol", _protocol(study)),
        section("Best settings", _best(study)),
        section("Pictures", _pictures(folder / "plots", study)),
        section("Trials", _trials(rows, study)),
        section("Search", _search(study)),
    ]
    path = folder / "report.html"
    text = page(f"Study: {study['name']}", "\n".join(sections))
    write_atomic(path, text.encode("utf-8", errors="replace"))
    return path


def page(title: str, body: str) -> str:
    return pages.render_page("study.html", title=title, body=Markup(body))


def section(title: str, body: str) -> str:
    return f"<section><h2>{escape(title)}</h2>{body}</section>"


def paragraph(text: str, kind: str = "") -> str:
    return f'<p class="{kind}">{escape(text)}</p>'


def picture(path: Path, alt: str) -> str:
    drawn = pages.picture(path, alt)
    return "" if drawn is None else f'<figure><img alt="{escape(alt)}" src="{drawn.source}"></figure>'


def table_row(heading: str, cells: Sequence[str]) -> str:
    return f'<tr><th scope="row">{heading}</th>{"".join(f"<td>{text}</td>" for text in cells)}</tr>'


def table(head: Sequence[str], rows: Sequence[str]) -> str:
    titles = "".join(f'<th scope="col">{title}</th>' for title in head)
    return f'<div class="scroll"><table><thead><tr>{titles}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'


def times(count: int) -> str:
    """``once``, ``twice``, ``5 times``."""
    return TIMES.get(count, f"{count} times")


def _value(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.4g}".replace("e-0", "e-") if isinstance(value, float) else str(value)


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def _folds(study: Json) -> str:
    numbers = [str(fact["fold"]) for fact in study["protocol"]["folds"]]
    return f"fold {numbers[0]}" if len(numbers) == 1 else f"folds {', '.join(numbers)}"


def _header(study: Json) -> str:
    counts, best, protocol = study["counts"], study["best"], study["protocol"]
    told = "".join(paragraph(text, "label") for text in _labels(study))
    tiles = [("trials completed", str(counts["complete"])), ("pruned", str(counts["pruned"]))]
    tiles += [("failed", str(counts["failed"])), ("test part read", times(protocol["test_read"]))]
    if best:
        tiles.insert(0, (f"best {protocol['monitor']}, by validation", fixed(best["value"])))
    shown_tiles = "".join(
        f'<div class="tile"><span class="small">{escape(name)}</span><b>{escape(value)}</b></div>'
        for name, value in tiles
    )
    lead = "No trial was completed, so nothing was chosen."
    if best:
        lead = f"Of {_counted(counts['complete'] + counts['pruned'], 'setting')}, the best on validation is {' '.join(best['overrides'])}."
        lead = _shortened(lead, best)
    return (
        f'<header><h1>{escape(str(study["name"]))}</h1>{told}<p class="lead">{escape(lead)}</p>'
        f'<div class="tiles">{shown_tiles}</div></header>'
    )


def _shortened(lead: str, best: Json) -> str:
    short = ", ".join(f"{key} {_value(value)}" for key, value in best["values"].items())
    return lead.replace(" ".join(best["overrides"]), short)


def _labels(study: Json) -> list[str]:
    found = [str(fact["label"]) for fact in study["protocol"]["folds"] if fact["label"]]
    if study["protocol"]["warning"]:
        found.append(str(study["protocol"]["warning"]))
    if study["state"] != "finished":
        found.append(f"This study {study['state']} before its budget was used up: too many trials failed.")
    return list(dict.fromkeys(found))


def _protocol(study: Json) -> str:
    protocol, search, counts = study["protocol"], study["search"], study["counts"]
    better = "lowest" if protocol["direction"] == "minimise" else "highest"
    said = []
    for fact in protocol["folds"]:
        labels = fact.get("val_cases_by_label") or []
        of = f" ({labels[0]} benign, {labels[1]} malignant)" if len(labels) == 2 else ""
        said.append(
            f"Fold {fact['fold']} of {fact['split']}: {fact['images']['train']} images of {fact['cases']['train']} cases to "
            f"train on, {fact['images']['val']} validation images of {fact['cases']['val']} cases{of} to choose on, "
            f"{fact['images']['test']} test images of {fact['cases']['test']} cases."
        )
    epoch = (
        f"its {better} value over the epochs"
        if protocol["epoch"] == "best"
        else "its value in the last epoch"
    )
    mean = ", averaged over the folds" if len(protocol["folds"]) > 1 else ""
    said.append(
        f"A trial is one training run with the same seed; it is compared by {protocol['monitor']}: {epoch}{mean}."
    )
    if protocol["nested"]:
        said.append(
            f"The study belongs to {_folds(study)} and reads that fold's validation part only. A setting for another fold "
            "needs a study of its own."
        )
    else:
        said.append(
            f"The objective reads the validation parts of {_folds(study)}, whose cases are test cases of other folds: what is "
            f"scored here was {protocol['warning']}."
        )
    read = protocol["test_read"]
    said.append(
        "No trial read the test part. "
        + (
            f"It was read {times(read)}, after the best setting was fixed."
            if read
            else "It was not read at all."
        )
    )
    said.append(
        f"Budget: {_counted(counts['trials'], 'trial')} of at most {_counted(search['epochs'], 'epoch')}"
        + (
            f", {counts['trials'] // len(search['depths'])} for each depth"
            if len(search["depths"]) > 1
            else ""
        )
        + f"; {counts['complete']} were completed, {counts['pruned']} pruned and {counts['failed']} failed"
        + (
            f"; {counts['taken_up_again']} times a trial was taken up again after its process died"
            if counts["taken_up_again"]
            else ""
        )
        + ". Completed and pruned trials count, failed ones are made up for."
    )
    few = min((sum(f.get("val_cases_by_label") or [99]) for f in protocol["folds"]), default=99)
    if few < 30:
        said.append(
            f"Validation holds {few} cases only, so differences between good settings are mostly noise, and the best value "
            "flatters its setting: it is the best of many noisy ones."
        )
    return "".join(paragraph(text) for text in said)


def _best(study: Json) -> str:
    protocol, body = study["protocol"], ""
    rows = []
    for depth, found in study["by_depth"].items():
        budget, best = found["budget"], found["best"]
        counts = f"{budget['complete']} + {budget['pruned']}"
        cells = [
            counts,
            str(budget["failed"]),
            "" if budget["epochs"] is None else f"{budget['epochs']:,}",
            f"{budget['seconds']:,.0f}",
        ]
        if best:
            values = "; ".join(f"{k} {_value(v)}" for k, v in best["values"].items() if k != "model.name")
            rows.append(
                table_row(
                    depth, [*cells, fixed(best["value"]), escape(values), escape(_edges(best["edges"]))]
                )
            )
        else:
            rows.append(table_row(depth, [*cells, "none", "", ""]))
    head = [
        "depth",
        "completed + pruned",
        "failed",
        "epochs",
        "seconds",
        protocol["monitor"],
        "best setting",
        "on an edge",
    ]
    body += table(head, rows)
    for depth, found in study["by_depth"].items():
        for edge in found["best"]["edges"] if found["best"] else []:
            if edge["edge"] and not edge["limit"]:
                body += paragraph(
                    f"{depth}: the best {edge['key']} lies at the {edge['edge']} edge of what was searched; search further there."
                )
    body += paragraph(
        "An edge is the outer twentieth of a range, on the scale that was searched, or the first or last value of a grid. "
        "A best value there says that the range was too narrow, unless the key allows no more.",
        "small",
    )
    if study["best"]:
        line = " ".join(["python -m histo_lightning.train", *study["best"]["overrides"]])
        body += (
            paragraph("To train with it, beside the study's other settings (config.yaml):")
            + f"<pre>{escape(line)}</pre>"
        )
    return body + _final(study)


def _edges(edges: Sequence[Json]) -> str:
    found = [
        f"{edge['key']}: {edge['edge']}" + (" (the key allows no more)" if edge["limit"] else "")
        for edge in edges
        if edge["edge"]
    ]
    return "; ".join(found) or "no"


def _final(study: Json) -> str:
    final = study["final"]
    if not final:
        return paragraph("The test part was left unread.")
    rows = []
    for run in final["runs"]:
        cells = []
        for name in ("case_auroc", "case_balanced_accuracy", "image_auroc", "image_balanced_accuracy"):
            cells.append(_score(run["test"].get(name)))
        rows.append(table_row(f"fold {run['fold']}", cells))
    head = [
        "test part",
        "AUROC by case",
        "balanced accuracy by case",
        "AUROC by image",
        "balanced accuracy by image",
    ]
    body = "<h3>The best setting on the test part</h3>" + table(head, rows)
    body += paragraph(f"Nominal 95 % intervals; they cover {COVERS}.", "small")
    same = [run["same_training"] for run in final["runs"]]
    if all(same):
        body += paragraph(
            f"The network is that of trial {final['trial']}, trained again from the same seed with the same result in "
            "every epoch.",
            "small",
        )
    elif False in same:
        body += paragraph(
            f"Trained again from the seed of trial {final['trial']}, the curve differs from the trial's: another machine, "
            "device or number of threads. The setting was not chosen again.",
            "small",
        )
    return body


def _score(found: Json | None) -> str:
    if not found or found.get("value") is None:
        return "undefined"
    interval = ""
    if found.get("low") is not None and found.get("high") is not None:
        interval = f'<span class="interval">{fixed(found["low"])} to {fixed(found["high"])}</span>'
    return f"{fixed(found['value'])}{interval}"


def _pictures(plots: Path, study: Json) -> str:
    search = study["search"]
    drawn = {"history": "The search as it went on", "importance": "Importance of the keys"}
    drawn |= {f"values_{d['key']}": f"Values of {d['key']}" for d in search["space"]}
    drawn |= {f"curves_{depth}": f"Curves of {depth}" for depth in search["depths"]}
    found = "".join(picture(plots / f"{name}.png", alt) for name, alt in drawn.items())
    note = paragraph(
        "Importance is the share of a key in telling the best quarter of the completed trials from the others (PED-ANOVA, "
        "Watanabe and others 2023); with few trials it is rough. Epochs count from 1, trials from 0.",
        "small",
    )
    return f'<div class="pictures">{found}</div>{note}'


def _trials(rows: Sequence[TrialRow], study: Json) -> str:
    keys = [dimension["key"] for dimension in study["search"]["space"]]
    lines = []
    for row in rows:
        value = "" if row.value is None else fixed(row.value)
        cells = [escape(row.depth), escape(row.state), value, str(len(row.curve))]
        cells += [escape(_value(row.values.get(key))) for key in keys] + [escape(row.error)]
        lines.append(table_row(str(row.trial), cells))
    head = ["trial", "depth", "state", study["protocol"]["monitor"], "epochs", *keys, "error"]
    return f"<details><summary>All {_counted(len(rows), 'trial')} (also in trials.csv)</summary>{table(head, lines)}</details>"


def _search(study: Json) -> str:
    search = study["search"]
    lines = []
    for d in search["space"]:
        what = (
            ", ".join(_value(c) for c in d["choices"])
            if d["kind"] == "choice"
            else f"{_value(d['low'])} to {_value(d['high'])}"
        )
        scale = "choices" if d["kind"] == "choice" else "logarithmic" if d["log"] else "linear"
        if d.get("step"):
            scale += f", in steps of {_value(d['step'])}"
        lines.append(table_row(d["key"], [escape(what), scale]))
    sampler = SAMPLERS[search["sampler"]]
    said = f"Settings are chosen by {sampler}, seed {search['seed']}"
    if search["sampler"] == "tpe":
        said += f", after {search['random_trials']} random ones for each depth"
    said += ". "
    if search["pruner"] == "none":
        said += "No trial is pruned."
    else:
        rule = (
            "its best value so far is worse than the median of the completed trials"
            if search["pruner"] == "median"
            else ("it is not in the best third at a rung (successive halving)")
        )
        said += f"From epoch {search['warmup_epochs']} on a trial is pruned where {rule}"
        said += (
            f", once {search['pruner_trials']} of its depth are completed."
            if search["pruner"] == "median"
            else "."
        )
    identity = "".join(
        f"<dt>{escape(name)}</dt><dd>{escape(shown(str(value)))}</dd>"
        for name, value in {**study["identity"], **study["versions"]}.items()
    )
    return table(["key", "searched", "scale"], lines) + paragraph(said) + f"<dl>{identity}</dl>"
