"""``audit`` as a user runs it: exit status, figures as JSON, one line for a bad file."""

import json
import subprocess
import sys

from factories.split_files import A1, A3, B1, check_official, tree_with_copies, write_csv, write_dsfold


def test_command_on_the_authors_form(tmp_path):
    """Exit status 3, the figures as JSON, no folder left behind, and none of the heavy libraries imported."""
    write_dsfold(tmp_path / "dsfold1.txt", 1)
    program = (
        "import sys\nfrom histo_lightning.audit import main\nstatus = main()\n"
        "print('loaded:', [m for m in ('torch', 'scipy', 'matplotlib', 'PIL', 'imagecodecs', 'numpy') "
        "if m in sys.modules])\nsys.exit(status)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, "split_file=dsfold1.txt", "json=out/figures.json"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 3, done.stderr
    assert "loaded: []" in done.stdout
    assert "fold 1: LEAK" in done.stdout
    check_official(json.loads((tmp_path / "out" / "figures.json").read_text()), 1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dsfold1.txt", "out"]


def test_command_on_a_clean_split_with_a_difficult_path(command, tmp_path):
    folder = tmp_path / "a, b=${c} 'd' [e]"
    folder.mkdir()
    path = write_csv(folder / "it's.csv", [(A1, "train"), (B1, "test")])
    done = command("audit", f"split_file={path}", f"json={folder / 'o=1.json'}")
    assert done.returncode == 0, done.stderr
    assert "no leak found" in done.stdout
    figures = json.loads((folder / "o=1.json").read_text())
    assert figures["leak"] is False
    assert figures["cases"] == []


def test_command_on_several_folds(command, tmp_path):
    path = tmp_path / "folds.txt"
    path.write_text(f"{A1}|40|1|train\n{B1}|40|1|test\n{A1}|40|2|train\n{A3}|40|2|test\n")
    done = command("audit", f"split_file={path}", "json=f.json")
    assert done.returncode == 3
    figures = json.loads((tmp_path / "f.json").read_text())
    assert figures["leak"] is True
    assert [fold["leak"] for fold in figures["folds"]] == [False, True]


def test_command_with_pixels(command, tmp_path, cache_dir):
    tree = tree_with_copies(tmp_path / "tree")
    done = command(
        "audit", f"split_file={tree}", "dataset=folders", f"dataset.root={tree}", f"cache_dir={cache_dir}"
    )
    assert done.returncode == 3, done.stderr
    assert "identical pixels (2)" in done.stdout
    assert "1.png" in done.stdout


def test_command_on_a_bad_file(command, tmp_path):
    (tmp_path / "s.csv").write_text("path,part\na.png,trane\n")
    done = command("audit", "split_file=s.csv")
    assert done.returncode == 2
    assert done.stderr.strip() == "error: s.csv, row 2: unknown part 'trane'; write train, val or test"
    assert done.stdout == ""
