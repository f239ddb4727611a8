"""Flags of every command, help and exit statuses."""

import re
import sqlite3
import subprocess
import sys
from unittest import mock

import pytest
from omegaconf import OmegaConf

import histo_lightning
from factories.configs import read_line
from factories.runs import restored
from histo_lightning.__main__ import COMMANDS, console, main
from histo_lightning.config.command_line import front_door, read_command
from histo_lightning.config.exits import guard
from histo_lightning.config.help import WIDTH, help_text
from histo_lightning.config.schema import SCHEMAS
from histo_lightning.config.tree import conf_dir, option
from histo_lightning.errors import UserError


def printed(capsys: pytest.CaptureFixture[str], command: str, *arguments: str) -> str:
    """What a command prints in place of its work."""
    with mock.patch.object(sys, "argv", [command, *arguments]):
        assert read_command(command) is None
    return capsys.readouterr().out


# --- help ---


@pytest.mark.parametrize("command", SCHEMAS)
def test_help_is_at_most_two_screens_and_lists_the_command_s_own_keys(command: str) -> None:
    lines = help_text(command).splitlines()
    assert len(lines) <= 90
    assert max(map(len, lines)) <= WIDTH == 110
    assert any(f"python -m histo_lightning.{command}" in line for line in lines[:3])
    root = OmegaConf.load(conf_dir() / f"{command}.yaml")
    for name in root:
        if name in ("defaults", "hydra", "dataset", "study"):
            continue
        (line,) = [line for line in lines if re.match(rf"  {name}(=|\.formats=|\s)", line)]
        assert re.search(r"\S  +\S", line.strip()), line  # with its comment


def test_help_shows_groups_with_their_options_and_the_default(capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(capsys, "train", "--help")
    assert text == help_text("train") + "\n"
    assert re.search(r"optimizer +adam, \[adamw\], rmsprop", text)
    assert "monitor=val_case_log_loss" in text
    assert "what early stopping and scored_weights=best watch" in text
    assert re.search(r"callbacks +dashboard, \[default\], early_stopping", text)
    assert re.search(r"-m, --multirun +run every combination", text)
    assert "--multirun" not in help_text("evaluate")


def test_help_of_a_group_lists_the_keys_of_its_options(capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(capsys, "train", "--help", "optimizer")
    assert "optimizer=sgd: Stochastic gradient descent" in text
    assert "optimizer.nesterov=true" in text
    assert "optimizer.lr=1e-3" in text
    assert "epochs=2" in help_text("train", "debug")  # a file that sets keys outside its group
    assert "hydra.launcher.timeout_min=1440" in help_text("train", "hydra/launcher")
    with pytest.raises(UserError, match=r"--help optimiser: no such group; groups are augment, callbacks"):
        help_text("train", "optimiser")


# --- flags ---


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert printed(capsys, "evaluate", "--version") == f"histo_lightning {histo_lightning.__version__}\n"


def test_cfg_prints_the_config_of_each_job(capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(capsys, "train", "--cfg", "job", "seed=7")
    assert OmegaConf.create(text).seed == 7
    assert "${output_dir}" in printed(capsys, "train", "--cfg", "hydra")
    jobs = printed(capsys, "train", "-m", "--cfg", "job", "seed=1,2").split("---\n")
    assert [OmegaConf.create(job).seed for job in jobs if job] == [1, 2]
    assert printed(capsys, "train", "--cfg", "job", "-p", "optimizer.lr", "optimizer.lr=0.25") == "0.25\n"
    with pytest.raises(UserError, match=r"--package nothing: there is no such key"):
        read_line("--cfg", "job", "--package", "nothing")


def test_flags_that_are_none_and_commands_that_do_not_sweep() -> None:
    with pytest.raises(UserError, match=r"unrecognized arguments: --frob"):
        read_line("--frob")
    with pytest.raises(UserError, match=r"prepare takes no -m: only train and tune do"):
        read_line("-m", "seed=0,1", command="prepare")


def test_a_front_door_does_the_work_of_each_job_and_returns_the_largest_status() -> None:
    seen: list[int] = []

    def work(config: object) -> int:
        seen.append(config.seed)  # type: ignore[attr-defined]
        return config.seed % 3  # type: ignore[attr-defined]

    with mock.patch.object(sys, "argv", ["tune", "-m", "seed=1,2,3"]):
        assert front_door("tune", work, __name__)() == 2
    assert seen == [1, 2, 3]


# --- the list of commands, and what goes wrong ---


def as_program(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    with mock.patch.object(sys, "argv", ["histo-lightning", *words]), pytest.raises(SystemExit) as ended:
        console()
    shown = capsys.readouterr()
    return int(ended.value.code or 0), shown.out, shown.err


def test_the_program_without_a_command_lists_them(capsys: pytest.CaptureFixture[str]) -> None:
    for words in ((), ("--help",), ("-h",)):
        status, out, _ = as_program(capsys, *words)
        assert status == 0
        for name in COMMANDS:
            assert re.search(rf"^  {name} +\w", out, re.MULTILINE)
    assert set(COMMANDS) == set(SCHEMAS)
    assert as_program(capsys, "--version")[1] == f"histo_lightning {histo_lightning.__version__}\n"


def test_an_unknown_command_exits_2_with_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert as_program(capsys, "trian") == (2, "", "error: unknown command 'trian'; did you mean 'train'?\n")


def caused_by(cause: Exception) -> ValueError:
    error = ValueError("a library's own words")
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (UserError("no data"), 2, "error: no data"),
        (KeyboardInterrupt(), 75, "interrupted: the same command goes on"),
        (
            ValueError("first\nsecond\nthird"),
            1,
            "defect: ValueError: first second (HISTO_DEBUG=1 shows where)",
        ),
        (BrokenPipeError(), 0, ""),
        (UserError("a\x1b[31m\udcff"), 2, "error: a\\x1b[31m\\udcff\n"),
        (OSError(28, "No space left on device", "a.csv"), 2, "error: a.csv: No space left on device; free"),
        (caused_by(OSError(5, "Input/output error")), 2, "error: Input/output error; free space"),
        (
            caused_by(sqlite3.OperationalError("database or disk is full")),
            2,
            "error: database or disk is full",
        ),
        (MemoryError("Unable to allocate 9 TiB"), 2, "error: not enough memory (Unable"),
        (RuntimeError("[enforce fail] can't allocate memory"), 2, "error: not enough memory"),
        (RuntimeError("Could not determine home directory."), 2, "error: no home folder is known for ~"),
        (RecursionError("maximum recursion depth"), 2, "error: nested too deeply"),
    ],
)
def test_exit_statuses(error: BaseException, status: int, message: str, capfd, monkeypatch) -> None:
    def fail() -> int:
        raise error

    monkeypatch.delenv("HISTO_DEBUG", raising=False)
    monkeypatch.setattr("os.dup2", lambda *_: None)
    assert guard(fail) == status
    shown = capfd.readouterr().err
    assert shown.startswith(message)
    assert shown.count("\n") == bool(message)
    monkeypatch.setenv("HISTO_DEBUG", "1")
    guard(fail)
    assert ("Traceback" in capfd.readouterr().err) == bool(message)


def test_a_command_s_refusal_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with restored(), mock.patch.object(sys, "argv", ["histo-lightning", "train", "modle=1"]):
        assert guard(main) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_help_and_refusals_import_no_torch() -> None:
    code = (
        "import sys\nsys.argv = ['train', 'modle=1']\n"
        "from histo_lightning import train\nfrom histo_lightning.config.exits import guard\n"
        "status = guard(train.main)\nsys.argv = ['train', '--help']\nguard(train.main)\n"
        "print(status, sorted({m.split('.')[0] for m in sys.modules} & {'torch', 'pytorch_lightning', 'torchvision'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "2 []"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_front_door_opens_by_itself(name: str) -> None:
    """In a new interpreter, where a warning is an error: most commands of the tests are forked."""
    module = f"histo_lightning.{name}"
    line = [sys.executable, "-W", "error", "-m", module, "no_such_key=1"]
    done = subprocess.run(line, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: unknown key 'no_such_key'")
    assert done.stderr.count("\n") == 1


# --- the tree ---


def test_an_option_s_file_with_the_files_that_it_builds_on() -> None:
    assert option("model", "resnet34")["stem"] == "standard"
    assert list(option("callbacks", "default")) == [
        *("model_checkpoint", "early_stopping", "lr_monitor", "progress", "dashboard"),
    ]
    with pytest.raises(UserError, match=r"optimizer=adamx: no such option; allowed are adam, adamw"):
        option("optimizer", "adamx")
