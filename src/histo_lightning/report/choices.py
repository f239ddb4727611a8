"""What a run chose on its validation part, as HTML: the operating point and the temperature."""

from collections.abc import Mapping
from typing import Any

from histo_lightning.report.page import paragraph, section
from histo_lightning.report.score_tables import Footnotes, cell, row, table
from histo_lightning.report.words import fixed, level_scores

Json = Mapping[str, Any]
COMPARED = {
    "sensitivity": "Sensitivity",
    "specificity": "Specificity",
    "balanced_accuracy": "Balanced accuracy",
}
CALIBRATION = {
    "log_loss": "Log loss",
    "ece": "ECE",
    "calibration_slope": "Calibration slope",
    "calibration_intercept": "Calibration intercept",
}


def _share(value: Any) -> str:
    return "undefined" if value is None else fixed(float(value))


def _rests_on(found: Json) -> str:
    malignant, benign = found.get("cases_malignant"), found.get("cases_benign")
    if malignant is None or benign is None:
        return f"{found.get('images')} validation images of unknown cases, images weighted alike"
    return (
        f"{malignant} malignant and {benign} benign validation cases ({found.get('images')} images, "
        f"{found.get('weighting')})"
    )


def choices_section(metrics: Json) -> str:
    """The section, or nothing for a run that recorded neither choice."""
    point, temperature = metrics.get("operating_point"), metrics.get("temperature")
    body = ""
    if point:
        body += "<h3>Operating point</h3>" + _point(metrics, point)
    if temperature:
        body += "<h3>Temperature</h3>" + _temperature(metrics, temperature)
    return section("Chosen on validation", body) if body else ""


def _point(metrics: Json, point: Json) -> str:
    if point.get("threshold") is None:
        return paragraph(f"None was chosen: {point.get('reason') or 'no reason recorded'}.")
    said = (
        f"The threshold {_share(point['threshold'])} was chosen for a sensitivity of at least "
        f"{_share(point.get('wanted_sensitivity'))} by image. On the validation part it reaches a sensitivity of "
        f"{_share(point.get('sensitivity'))} at a specificity of {_share(point.get('specificity'))}; these two are "
        f"apparent, since the threshold was chosen on the same images. It rests on {_rests_on(point)}."
    )
    part = "test" if metrics.get("test") else "val"
    notes, rows = Footnotes(), []
    for level in ("image", "case"):
        plain = level_scores(metrics, part, level)
        moved = plain.get("at_threshold")
        if not moved:
            continue
        for name, title in COMPARED.items():
            rows.append(
                row(f"{title} by {level}", [cell(plain.get(name), notes), cell(moved.get(name), notes)])
            )
    if not rows:
        return paragraph(said)
    where = "test part" if part == "test" else "validation part, apparent"
    head = [where, "at 0.5", f"at {_share(point['threshold'])}"]
    return paragraph(said) + table(head, rows, notes.html())


def _temperature(metrics: Json, found: Json) -> str:
    said = (
        f"Dividing the logits by {_share(found.get('temperature'))} makes the validation log loss smallest: "
        f"{_share(found.get('log_loss_before'))} before, {_share(found.get('log_loss_after'))} after (apparent). "
        f"It rests on {_rests_on(found)}. The scores of this report are untempered; ranking by image stays as it is."
    )
    if "recall" in ((metrics.get("val") or {}).get("image") or {}):
        said = said.removesuffix("; ranking by image stays as it is.") + "."
    if found.get("at_bound"):
        said += " No optimum lies inside the range that was searched, so this is its end: do not rely on it."
    test = found.get("test") or {}
    before, after = test.get("before") or {}, test.get("after") or {}
    rows = [
        row(title, [_share(before.get(name)), _share(after.get(name))])
        for name, title in CALIBRATION.items()
        if name in before
    ]
    return paragraph(said) + (table(["test part, by image", "before", "after"], rows) if rows else "")
