"""What training does about damaged files of its run: mend what it can make again, and name what it cannot."""

import logging
import sys
from pathlib import Path

from histo_lightning.classifier.checkpoint import link_checkpoint
from histo_lightning.errors import UserError
from histo_lightning.runs import RunFolder
from histo_lightning.runs.manifest import CHECKPOINTS, DRAWN, MEND, damaged, read_manifest

LOGS = ("train.log", "tensorboard/")  # no result depends on them
log = logging.getLogger("histo_lightning")


def say(text: str) -> None:
    """A warning for the log of the run, and for people."""
    log.warning("%s", text)
    print(text, file=sys.stderr)


def mend_checkpoints(run: RunFolder, scored_weights: str, keep: str | None) -> None:
    """Before a resume: ``best.ckpt`` replaces a damaged ``last.ckpt``, else training starts again; the result is the same."""
    try:
        problems = damaged(run.path)
    except UserError as error:
        (run.path / "manifest.json").unlink()
        say(f"{error}; training goes on without them")
        return
    last, best = (f"{CHECKPOINTS}{name}.ckpt" for name in ("last", "best"))
    slim = keep == "weights" and scored_weights == "last" and run.status.get("fitted")  # best.ckpt is
    for name in problems.keys() & {last, best}:
        run.update(fitted=False)
        again = {last, best} <= problems.keys() or (name == best and scored_weights == "best")
        again |= name == last and (bool(slim) or best not in read_manifest(run.path))
        for other in (last, best) if again else [name]:
            (run.path / other).unlink(missing_ok=True)
        if name == last and not again:
            link_checkpoint(run.path / best, run.path / last)
        mend = "from the first epoch" if again else f"with {best if name == last else last}"
        say(f"{run.path / name}: is damaged ({problems[name]}); training goes on {mend}")


def drawings_damaged(run: Path, *, hashes: bool = True) -> bool:
    """Whether pictures or pages of a finished run are damaged, which is reported; UserError where tables, scores or checkpoints are."""
    drawn = False
    for name, problem in damaged(run, hashes=hashes).items():
        again = name.startswith(DRAWN) or name.endswith(".scored")
        damage = f"{run / name}: is damaged ({problem})"
        if not (again or name.startswith(LOGS)):
            raise UserError(f"{damage}; {MEND}")
        say(f"{damage}; {'it is drawn again' if again else 'no result depends on it'}")
        drawn |= again
    return drawn
