"""Who works on a study: this process, or several that it starts; the same command in a second shell adds its own."""

import multiprocessing
import os
import signal
import time
from typing import Any

from histo_lightning.errors import UserError
from histo_lightning.processes import end, follow_parent
from histo_lightning.tuning.plan import Plan

POLL_SECONDS = 0.5


def work(plan: Plan) -> None:
    """Take trials until none is left, none is being worked on, or too many have failed."""
    from histo_lightning.tuning.store import Store
    from histo_lightning.tuning.trial import run_trial  # torch; a started process has chosen its GPU by now

    store = Store(plan)
    while True:
        claim = store.claim()
        if claim == "wait":  # a trial that another process works on may yet have to be made up for
            time.sleep(POLL_SECONDS)
        elif isinstance(claim, str):
            return
        else:
            said = run_trial(plan, store, claim)
            if plan.config.trainer.progress == "none":
                continue
            values = " ".join(f"{key}={_short(value)}" for key, value in claim.values.items())
            trials = sum(arm.trials for arm in plan.arms)
            print(f"trial {claim.slot} ({store.done()} of {trials} done): {said}; {values}", flush=True)


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def work_together(plan: Plan, visible_gpus: list[str]) -> None:
    """``tune.workers`` processes on one study, GPUs handed out in turn. One that dies does not stop the others.

    Raises:
        UserError: a process could not go on, or all were killed.
        KeyboardInterrupt: they were interrupted.
    """
    context = multiprocessing.get_context("spawn")
    answers: Any = context.SimpleQueue()
    children = [
        context.Process(
            target=_child, args=(plan, gpu_of(index, visible_gpus), answers), name=f"worker {index}"
        )
        for index in range(plan.config.tune.workers)
    ]
    try:
        for child in children:
            child.start()
        for child in children:
            child.join()
    finally:
        end(children)
    codes = [child.exitcode for child in children]
    if 0 in codes:  # it saw the study's end
        return
    if not answers.empty():
        raise UserError(answers.get())
    if 75 in codes:
        raise KeyboardInterrupt
    if any(code is not None and code < 0 for code in codes):
        raise UserError(
            f"all workers were killed (exit codes {codes}); is the memory enough for tune.workers={len(codes)}? "
            "The same command goes on"
        )
    raise RuntimeError(f"the workers ended with exit codes {codes}; the first message above says why")


def gpu_of(index: int, visible: list[str]) -> str | None:
    """The GPU of a worker, in turn; None where there is none."""
    return visible[index % len(visible)] if visible else None


def visible_gpus(count: int) -> list[str]:
    """The names of ``count`` GPUs as ``CUDA_VISIBLE_DEVICES`` gives them."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = [name.strip() for name in given.split(",")] if given else [str(index) for index in range(count)]
    return names[:count]


def _child(plan: Plan, gpu: str | None, answers: Any) -> None:
    signal.signal(signal.SIGTERM, _interrupt)
    follow_parent()
    if gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu
    try:
        work(plan)
    except UserError as error:
        answers.put(str(error))
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        raise SystemExit(75) from None


def _interrupt(*_: Any) -> None:
    raise KeyboardInterrupt
