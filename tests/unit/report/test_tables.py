"""One table as HTML, Markdown and on the console; numbers, names and labels in words."""

import io
from typing import Any

import pytest
from rich.console import Console

from factories.html import Page
from histo_lightning.report.pages import _environment, render_markdown, render_page
from histo_lightning.report.scores import part_context, score_tables
from histo_lightning.report.tables import Table, cell_parts, mark, table_with_notes
from histo_lightning.report.words import (
    SYNTHETIC,
    duration,
    fixed,
    interval_text,
    labels_of,
    model_title,
    run_title,
    signed,
)

TABLE = Table(
    ["arm", "score", "why"],
    [["a_b", "0.834 (0.80 to 0.86) [1]", "none | at all"], ["<b>", "–", "[x]"]],
    ["two <cases>"],
    align="lrl",
    links={"a_b": "a_b/report.html"},
)


def in_html(table: Table) -> Page:
    """The table on a page of its own."""
    template = _environment(False).from_string('{% import "kit.html" as k %}{{ k.table(table) }}')
    return Page(f"<body>{template.render(table=table)}</body>")


def test_a_table_is_the_same_in_html_markdown_and_on_the_console() -> None:
    page = in_html(TABLE)
    assert page.rows == [
        ["arm", "score", "why"],
        ["a_b", "0.834 1 0.80 to 0.86", "none | at all"],
        ["<b>", "–", "[x]"],
    ]
    assert page.links == ["a_b/report.html"]
    assert "[1] two <cases>" in page.text
    template = _environment(True).from_string('{% import "kit.md" as k %}{{ k.table(table) }}')
    head, rules, first, second, *rest = template.render(table=TABLE).strip().splitlines()
    assert (head, rules) == ("| arm | score | why |", "|---|---:|---|")
    assert first == r"| a\_b | 0.834 (0.80 to 0.86) \[1\] | none \| at all |"
    assert second == r"| \<b\> | – | \[x\] |"
    assert rest == ["", r"\[1\] two \<cases\>"]
    screen = Console(file=io.StringIO(), width=100)
    screen.print(TABLE.console())
    printed = screen.file.getvalue()  # type: ignore[attr-defined]
    assert "0.834 (0.80 to 0.86) [1]" in printed
    assert "[x]" in printed
    assert "[1] two <cases>" in printed


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("0.834 (0.80 to 0.86) [1] [2]", ("0.834", "0.80 to 0.86", " 1 2")),
        ("−3.5 to +5.2", ("−3.5 to +5.2", "", "")),
        ("– [3]", ("–", "", " 3")),
        ("undefined: no (such) case", ("undefined: no (such) case", "", "")),
        ("20 % (14-21998)", ("20 % (14-21998)", "", "")),
        ("", ("", "", "")),
    ],
)
def test_parts_of_a_cell(text: str, parts: tuple[str, str, str]) -> None:
    assert cell_parts(text) == parts


def test_a_note_that_many_cells_have_is_said_once_without_numbers() -> None:
    notes: list[str] = []
    rows = [
        ["x", *[f"{k}{mark(notes, 'everywhere')}" for k in range(4)]],
        ["y", f"1{mark(notes, 'here')}", "", "", ""],
    ]
    table = table_with_notes(["", "a", "b", "c", "d"], rows, notes)
    assert table.rows == [["x", "0", "1", "2", "3"], ["y", "1 [1]", "", "", ""]]
    assert table.numbered_notes == ["[1] here", "everywhere"]


def test_scores_with_reasons_as_a_table() -> None:
    level = {
        "n": 3,
        "auroc": {"value": None, "reason": "only <benign> cases"},
        "accuracy": {"value": 0.5, "low": 0.25, "high": 0.75},
        "mcc": {"value": -0.125, "low": -0.5, "high": 0.25},
        "f1": {"value": 0.5, "low": None, "high": None, "reason": "two cases"},
        "new_score": {"value": 0.875, "low": 0.5, "high": 1.0},
    }
    main, others = score_tables({"image": level, "slide": None, "case": {"reason": "cases are unknown"}})
    assert list(main.head) == ["", "3 images", "slides unknown", "cases unknown"]
    assert main.rows[0] == ["AUROC", "– [1]", "·", "– [2]"]
    assert main.numbered_notes == ["[1] only <benign> cases", "[2] cases are unknown"]
    assert main.rows[1][:2] == ["Accuracy", "0.500 (0.25 to 0.75)"]
    rows = {name: cell for name, cell, *_ in others.rows}
    assert rows == {"F1": "0.500 [1]", "MCC": "−0.125 (−0.50 to 0.25)", "new_score": "0.875 (0.50 to 1.00)"}
    assert others.numbered_notes[0] == "[1] no interval: two cases"
    assert part_context({"image": {"n": 0}, "slide": None, "case": None})["malignant_share"] == 0


def test_numbers_in_words() -> None:
    assert [fixed(value) for value in (None, -0.5, 0.12345)] == ["–", "−0.500", "0.123"]
    assert [signed(value, 1) for value in (2.0, -2.0, None)] == ["+2.0", "−2.0", "–"]
    assert [duration(s) for s in (None, 3.167, 42.4, 93.2, 7505)] == [
        "not recorded", "3.2 s", "42 s", "1 min 33 s", "2 h 5 min",
    ]  # fmt: skip
    assert interval_text({"value": 0.5, "low": 0.25, "high": None}) == "0.500"


@pytest.mark.parametrize(
    ("name", "title"),
    [
        ("resnet34", "ResNet-34"),
        ("resnext50_32x4d", "ResNeXt-50 32x4d"),
        ("wide_resnet50_2", "Wide ResNet-50 2"),
        ("mine2", "mine2"),
    ],
)
def test_a_network_s_name_for_people(name: str, title: str) -> None:
    assert model_title(name) == title


def test_a_run_s_title() -> None:
    config: dict[str, Any] = {
        "model": {"name": "resnet34"},
        "optimizer": {"name": "sgd"},
        "magnification": "40x",
    }
    assert run_title(config, {"fold": 0, "folds": 5}) == "ResNet-34, SGD, 40X, fold 0 of 5"
    config["optimizer"] = {"_target_": "torch.optim.NAdam"}
    assert run_title(config | {"magnification": "all"}, {}) == "ResNet-34, NAdam, all magnifications"
    assert run_title({}, {}) == ""


def test_labels_of_a_result() -> None:
    assert labels_of({"data": "synthetic", "shortened": "SHORTENED (epochs=1)"}, "LEAKY") == [
        SYNTHETIC, "SHORTENED (epochs=1)", "LEAKY",
    ]  # fmt: skip
    assert labels_of({}, "", {"dataset": {"name": "synthetic"}}) == [
        SYNTHETIC
    ]  # older runs do not say it themselves
    assert labels_of({"data": "breakhis"}) == []


def test_a_document_is_escaped_for_its_own_form() -> None:
    attack = "<script>*x*</script> [a](b)"
    context = {"method": attack, "title": attack, "entries": [], "count": 0, "names": [attack]}
    assert "<script" not in render_page("gallery.html", **context)
    found = {
        "recipe": {"model.name": attack}, "magnifications": [40], "runs": 1, "seeds": [0], "problems": [attack],
        "missing": [], "blocks": {"injection": {"arms": []}, "contrast": {"arms": []}}, "doses": {},
        "control": {"injection": {"arms": []}, "contrast": {"arms": []}},
    }  # fmt: skip
    found |= {"design": []}
    text = render_markdown("leakage.md", study=found, sentences=[attack], synthetic=False, pictures=[])
    escaped = r"\<script\>\*x\*\</script\> \[a\](b)"
    assert text.count(escaped) == 3
    assert f"> **{escaped}**" in text
    assert "\n\n\n" not in text
