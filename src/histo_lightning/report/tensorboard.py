"""TensorBoard over everything below a folder, with names that can be read: ``report tensorboard=true``."""

import re
import signal
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from histo_lightning.errors import UserError

SECONDS = 10.0  # between two looks for new runs


def short_name(folder: str) -> str:
    """``resnet34_sgd_40x_case_kfold-0_s0_1a2b3c4d`` -> ``resnet34 sgd 40x f0 s0``; the split is named where it is another one."""
    name = re.sub(r"_[0-9a-f]{8}(-\d+)?$", "", folder)
    return re.sub(r"case_kfold-(\d+)", r"f\1", name).replace("_", " ")


def link_runs(root: Path, links: Path) -> int:
    """Give every ``tensorboard/`` below ``root`` a link with a short name below ``links``; how many there are.

    Runs of a sweep are below the sweep's name. Where two short names are equal, the later ones keep the whole folder's name.
    """
    boards = [b for b in sorted(root.rglob("tensorboard")) if b.is_dir() and ".hydra" not in b.parts]
    for board in boards:
        run = board.parent
        group = links / run.parent.name if run.parent.name != "runs" else links
        group.mkdir(parents=True, exist_ok=True)
        for name in (short_name(run.name), run.name):
            link = group / name
            if not link.is_symlink():
                link.symlink_to(board.resolve())
            if link.readlink() == board.resolve():
                break
    return len(boards)


def serve(root: Path, port: int) -> None:
    """Serve until Ctrl-C or SIGTERM; runs that begin meanwhile appear. UserError where the port is taken."""
    from tensorboard import program  # takes a second

    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with tempfile.TemporaryDirectory(prefix="histo_lightning_") as folder, suppress(KeyboardInterrupt):
        links, board = Path(folder), program.TensorBoard()
        count = link_runs(root, links)
        board.configure(argv=["tensorboard", "--logdir", folder, "--port", str(port), "--load_fast", "false"])
        try:
            address = board.launch()
        except program.TensorBoardServerException as error:
            raise UserError(f"port={port}: TensorBoard cannot use it ({error}); give another one") from error
        print(f"{count} runs; open {address}#custom_scalars (Ctrl-C ends)", flush=True)
        while True:
            time.sleep(SECONDS)
            link_runs(root, links)
