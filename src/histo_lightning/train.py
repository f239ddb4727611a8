"""``python -m histo_lightning.train``: one run, or with ``-m`` a sweep of runs."""

from histo_lightning.config.command_line import read_command
from histo_lightning.config.exits import EXIT_FOUND, start_program, stop_on_signals
from histo_lightning.training.checks import check_runs


def main() -> int:
    stop_on_signals()
    command = read_command("train", check_runs)
    if command is None:
        return 0
    if command.multirun:
        from histo_lightning.training.sweep import sweep  # torch and Lightning take seconds: not for --help

        return EXIT_FOUND if sweep(command) else 0
    from histo_lightning.training.run import run_training  # as above

    run_training(command.jobs[0].config, hydra=command.jobs[0].hydra)
    return 0


start_program(main, __name__)
