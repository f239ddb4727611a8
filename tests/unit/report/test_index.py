"""The index of a folder: everything in it is listed once, damage is named, nothing in a name can run."""

import base64
import hashlib
import json
import re
from pathlib import Path

import pytest

from factories.browser import CHROMIUM, Recorder, opened
from factories.report_runs import made_up_run
from factories.sweeps import config_of, write_run, write_sweep
from histo_lightning.errors import UserError
from histo_lightning.report.index import entries, refresh_index, write_index
from histo_lightning.runs import read_json, write_json


@pytest.fixture
def outputs(tmp_path: Path) -> Path:
    """A sweep, a run with a page, a failed run, a study with trials, an evaluation."""
    root = tmp_path / "outputs"
    write_sweep(root / "sweeps" / "depths", magnifications=("40x",))
    run = made_up_run(
        root / "runs" / "first_12345678", draws=100, label="LEAKY", kind="image_random", data="synthetic"
    )
    (run / "report.html").write_text("a page")
    write_run(root / "runs", config_of(seed=5), name="failed", state="failed", error="disk full")
    study = root / "studies" / "s"
    write_json(study / "study.json", {})
    write_run(study / "trials", config_of(seed=6), name="trial-0")
    write_json(
        root / "evaluations" / "e" / "metrics.json",
        {"part": "all", "label": "", "scores": {"case": {"auroc": {"value": 0.75, "low": 0.5, "high": 0.9}}}},
    )
    return root


def test_everything_is_listed_once(outputs: Path) -> None:
    listed = list(entries(outputs))
    kinds = [one["kind"] for one in listed]
    assert kinds.count("sweep") == kinds.count("study") == kinds.count("evaluation") == 1
    assert kinds.count("run") == 2 + len(list((outputs / "sweeps" / "depths").glob("*/status.json")))
    names = [one["name"] for one in listed]
    assert "trial-0" not in names
    first = next(one for one in listed if one["name"] == "first_12345678")
    assert first["link"] == "runs/first_12345678/report.html"
    assert first["labels"] == "SYNTHETIC IMAGES: says nothing about tissue, LEAKY"
    case = read_json(outputs / "runs" / "first_12345678" / "metrics.json")["test"]["case"]["auroc"]
    assert first["scores"]["auroc"] == case
    page = write_index(outputs)
    assert page is not None
    assert '0.75<span class="interval">0.50 to 0.90</span>' in page.read_text()
    assert {one["name"]: one["state"] for one in listed}["failed"] == "failed"


def test_a_damaged_record_is_a_row_and_not_the_end(outputs: Path) -> None:
    (outputs / "runs" / "first_12345678" / "metrics.json").write_text("{")
    states = {one["name"]: one["state"] for one in entries(outputs)}
    assert states["first_12345678"] == "damaged"
    assert len(states) > 5


def test_links_lead_to_files_and_names_cannot_run(outputs: Path) -> None:
    write_run(outputs / "runs", config_of(seed=7), name="<script>alert(1)</script>", state="finished")
    page = write_index(outputs)
    assert page == outputs / "index.html"
    text = page.read_text(encoding="utf-8")
    for link in re.findall(r'href="([^"]+)"', text):
        assert (outputs / link).is_file()
    assert text.count("<script") == 1
    (script,) = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src &#39;sha256-{digest}&#39;" in text or f"script-src 'sha256-{digest}'" in text


def test_an_empty_folder_has_no_index(tmp_path: Path) -> None:
    assert write_index(tmp_path) is None
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_the_command_s_own_error(outputs: Path) -> None:
    (outputs / "index.html").mkdir()
    with pytest.raises(UserError, match="cannot be written"):
        write_index(outputs)
    refresh_index(outputs)  # said before, by the command itself


def test_the_command_and_its_refusal(outputs: Path, tmp_path: Path, command) -> None:
    done = command("report", f"output_dir={outputs}", "json=list.json")
    assert done.returncode == 0, done.stderr
    listed = json.loads((tmp_path / "list.json").read_text())
    assert [one["name"] for one in listed] == [one["name"] for one in entries(outputs)]
    assert (outputs / "index.html").is_file()
    (tmp_path / "empty").mkdir()
    refused = command("report", "output_dir=empty")
    assert refused.returncode == 2
    assert refused.stderr.startswith("error: output_dir=empty: no run")


@pytest.mark.skipif(CHROMIUM is None, reason="needs Debian's chromium; `make browser` installs it")
def test_it_sorts_and_searches_in_a_browser(outputs: Path, tmp_path: Path) -> None:
    """The page's own script, followed by what a person would do; the policy is renewed for the longer script."""
    text = write_index(outputs).read_text(encoding="utf-8")  # type: ignore[union-attr]
    (script,) = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    acted = (
        script + '\nheads[4].querySelector("button").click(); heads[4].querySelector("button").click();'
        'search.value = "case_kfold RESNET18"; filter();'
    )
    old, new = (base64.b64encode(hashlib.sha256(one.encode()).digest()).decode() for one in (script, acted))
    (outputs / "acted.html").write_text(text.replace(old, new).replace(script, acted), encoding="utf-8")
    recorder = Recorder()
    document, console = opened(outputs / "acted.html", tmp_path, recorder)
    recorder.close()
    assert console == []
    body = document.partition("<tbody>")[2].partition("</tbody>")[0]
    rows = re.findall(r"<tr( hidden=\"\")?>(.*?)</tr>", body, re.DOTALL)
    shown = [row for hidden, row in rows if not hidden]
    assert shown
    assert all("resnet18" in row for row in shown)
    assert len(shown) < len(rows)
    cells = [re.findall(r"<td[^>]*>(.*?)</td>", row)[3] for _, row in rows]
    values = [float(cell[:4]) for cell in cells if cell]
    assert values == sorted(values, reverse=True)
    assert [bool(cell) for cell in cells] == sorted((bool(cell) for cell in cells), reverse=True)
