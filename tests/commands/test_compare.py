"""``python -m histo_lightning.compare``: files, words, JSON and exit statuses, without torch."""

import math
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from factories.sweeps import config_of, read
from histo_lightning.comparison.results import analyse
from histo_lightning.config.identity import readable_name

WITNESS = """
import runpy, sys
sys.argv = sys.argv[1:]
try:
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
except SystemExit as stop:
    print("torch imported:", "torch" in sys.modules, "status:", stop.code or 0)
"""


def test_the_command_compares_without_torch(swept: Path, tmp_path: Path) -> None:
    """On paths with spaces and commas, two of them; JSON, files and words come out."""
    other = tmp_path / "other, runs"
    shutil.copytree(swept / readable_name(config_of("resnet18")), other / "again")
    given = [
        "histo_lightning.compare",
        f"runs=[{swept},{other}]",
        "output_dir=an answer",
        "json=answer.json",
        "select=best",
    ]
    done = subprocess.run(
        [sys.executable, "-c", WITNESS, *given],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        env=dict(os.environ),
    )
    assert done.returncode == 0, done.stderr
    first, second, *_ = done.stdout.splitlines()
    assert first == f"reading the runs below {swept}, {other}"
    assert second == "41 runs: 41 finished."
    assert "torch imported: False status: 0" in done.stdout
    assert "at equal budget resnet34 minus resnet18 is" in done.stdout
    assert "report.html: an answer/report.html" in done.stdout
    answer = read(tmp_path / "answer.json")
    assert answer["families"][0]["primary"]
    assert math.isclose(answer["cells"][0]["value"], analyse([swept])[0]["cells"][0]["value"])
    assert sorted(path.name for path in (tmp_path / "an answer").iterdir()) == [
        "plots",
        "report.html",
        "results.csv",
        "results.md",
    ]


def test_the_command_refuses_in_one_line_with_status_2(swept: Path, tmp_path: Path, command: Any) -> None:
    done = command("compare", f"runs={swept}", "select=test_case_auroc")
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "a selection made on test scores" in line
    assert not (tmp_path / "outputs" / "report.html").exists()
