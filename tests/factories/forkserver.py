"""Commands as processes of their own, forked from one that has imported what they need: a start costs .1 s, not 5.

``server().start(["-m", "histo_lightning.train", ...], cwd, env)`` is what ``subprocess.Popen`` is otherwise. A forked command has
its own process id, folder, environment and output, is ``__main__``, and its exit handlers, status and signals are real.
What is read while modules are imported was read by the server: where the environment differs there, a new interpreter starts.
Several test processes share the server of the one that hands out tests, at the address in ``HISTO_TEST_COMMANDS``.
"""

import atexit
import functools
import gc
import importlib
import json
import os
import runpy
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

PRELOADED = ("matplotlib.figure", "histo_lightning.training.sweep", "histo_lightning.tuning.study")
ADDRESS = "HISTO_TEST_COMMANDS"
READ_AT_IMPORT = (
    "PYTHON",
    "LD_",
    "OMP_",
    "MKL_",
    "OPENBLAS_",
    "TORCH",
    "PYTORCH",
    "MPL",
    "LC_",
    "LANG",
)
SET_BY_IMPORTS = {"TORCHINDUCTOR_CACHE_DIR", "PYTORCH_NVML_BASED_CUDA_CHECK"}  # of torch, in a test process


class Command:
    """A command, with what tests use of ``subprocess.Popen``; ``stdout`` and ``stderr`` are its texts up to now."""

    stdout = property(lambda self: self._text(0))
    stderr = property(lambda self: self._text(1))

    def __init__(self, args: Sequence[str], news: Any, outputs: Sequence[Any]) -> None:
        self.args, self._news, self._outputs, self._ended = args, news, outputs, ["", ""]
        self.pid, self.returncode = int(news.readline()), None

    def wait(self, timeout: float | None = None) -> int:
        """Its exit status, negative for a signal; TimeoutExpired after ``timeout`` seconds, and it goes on."""
        if self.returncode is None:
            if timeout is not None and not select.select([self._news], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(self.args, timeout, self.stdout, self.stderr)
            status = os.waitstatus_to_exitcode(int(self._news.readline()))
            self._ended, self.returncode = [self.stdout, self.stderr], status
            for file in (self._news, *self._outputs):
                file.close()
        return self.returncode

    def poll(self) -> int | None:
        try:
            return self.wait(0)
        except subprocess.TimeoutExpired:
            return None

    def kill(self, number: int = signal.SIGKILL) -> None:
        if self.poll() is None:
            with suppress(ProcessLookupError):  # it has just ended
                os.kill(self.pid, number)

    send_signal = kill

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        self.wait(timeout)
        return self.stdout, self.stderr

    def _text(self, number: int) -> str:
        if self.returncode is not None:
            return self._ended[number]
        size = os.fstat(descriptor := self._outputs[number].fileno()).st_size
        return os.pread(descriptor, size, 0).decode().replace("\r\n", "\n").replace("\r", "\n")


class ForkServer:
    """A process that has imported ``modules`` and forks commands, or a connection to one that is there at ``address``.

    Commands end when the process that asked for them does, and the server with the process that started it.
    """

    def __init__(self, modules: Sequence[str] = PRELOADED, address: str = "") -> None:
        self.address = address or str(Path(tempfile.mkdtemp()) / "commands")
        self._requests, self._process = socket.socket(socket.AF_UNIX), None
        if not address:
            with socket.socket(socket.AF_UNIX) as listener:
                listener.bind(self.address)
                listener.listen()
                code = f"import sys; sys.path.append({str(Path(__file__).parents[1])!r})\n"
                code += "from factories.forkserver import serve; serve(*sys.argv[1:])"
                line = [sys.executable, "-c", code, str(listener.fileno()), *modules]
                self._process = subprocess.Popen(line, stdin=subprocess.DEVNULL, pass_fds=[listener.fileno()])
        self._requests.connect(self.address)  # the first one that does is whom the server ends with

    def close(self) -> None:
        """End every command that has not ended, and the server where it was started here."""
        self._requests.close()
        if self._process is not None:
            self._process.wait()
            shutil.rmtree(Path(self.address).parent)

    def start(self, args: Sequence[str], cwd: Path, env: Mapping[str, str]) -> Command:
        """Start ``python`` with ``args``, which are ``-m <module> ...`` or ``-c <code> ...``."""
        ours, theirs = os.pipe()
        out, err = tempfile.TemporaryFile(), tempfile.TemporaryFile()  # noqa: SIM115
        with tempfile.TemporaryFile() as request:
            request.write(json.dumps([list(args), str(cwd), dict(env)]).encode())
            request.flush()
            socket.send_fds(self._requests, [b"1"], [request.fileno(), out.fileno(), err.fileno(), theirs])
        os.close(theirs)
        return Command(args, os.fdopen(ours), (out, err))

    def run(self, args: Sequence[str], cwd: Path, env: Mapping[str, str], timeout: float = 300) -> Command:
        """Start a command and wait for its end; killed after ``timeout`` seconds."""
        command = self.start(args, cwd, env)
        try:
            command.wait(timeout)
        finally:
            command.kill()
        return command


@functools.cache
def server() -> ForkServer:
    """The server of this test process, or of all of them."""
    started = ForkServer(address=os.environ.get(ADDRESS, ""))
    atexit.register(started.close)
    return started


def serve(listening: str, *modules: str) -> None:
    """Fork a command for each request of each client, until the first client is gone."""
    before = dict(os.environ)
    for name in modules:
        importlib.import_module(name)
    imported = {name: value for name, value in os.environ.items() if name not in before}
    gc.collect()
    gc.freeze()  # else a collection in a command would copy all that was imported
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    listener = socket.socket(fileno=int(listening))
    clients: dict[socket.socket, dict[int, int]] = {}  # of each its commands, and where their end is told
    while True:
        busy = any(clients.values())
        for ready in select.select([listener, *clients], [], [], 0.01 if busy else None)[0]:
            if ready is listener:
                clients[listener.accept()[0]] = {}
                continue
            message, received, *_ = socket.recv_fds(ready, 1, 4)
            if not message:
                first = ready is next(iter(clients))
                for pid in [pid for news in clients.values() for pid in news] if first else clients[ready]:
                    os.kill(pid, signal.SIGKILL)
                if first:
                    os._exit(0)
                for descriptor in clients.pop(ready).values():
                    os.close(descriptor)
                ready.close()
                continue
            if (pid := os.fork()) == 0:
                for each, news in [(listener, {}), *clients.items()]:
                    for descriptor in (each.detach(), *news.values()):
                        os.close(descriptor)
                _end(_run(before, imported, *received))
            clients[ready][pid] = received.pop()
            os.write(clients[ready][pid], b"%d\n" % pid)
            for descriptor in received:
                os.close(descriptor)
        while any(clients.values()) and (ended := os.waitpid(-1, os.WNOHANG))[0]:
            for news in clients.values():
                if descriptor := news.pop(ended[0], None):
                    with suppress(BrokenPipeError):  # who asked has just ended
                        os.write(descriptor, b"%d\n" % ended[1])
                    os.close(descriptor)


def _run(before: Mapping[str, str], imported: Mapping[str, str], request: int, *streams: int) -> Any:
    """The command of a request, in a process that has just been forked; its exit status, a text or None as of SystemExit."""
    args, cwd, env = json.loads(os.pread(request, os.fstat(request).st_size, 0))
    os.dup2(streams[0], 1)
    os.dup2(streams[1], 2)
    for descriptor in (request, *streams):
        os.close(descriptor)
    os.chdir(cwd)
    differing = {name for name, _ in env.items() ^ before.items()} - SET_BY_IMPORTS
    if any(name.startswith(READ_AT_IMPORT) for name in differing):
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.execve(sys.executable, [sys.executable, *args], env)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.clear()
    os.environ.update({**imported, **env})
    sys.argv, sys.orig_argv = [args[0], *args[2:]], [sys.executable, *args]
    sys.path[:] = [cwd if args[0] == "-m" else "", *sys.path[1:-1]]  # the last one is the tests' folder
    try:
        if args[0] == "-m":
            runpy._run_module_as_main(args[1])  # as the interpreter does
        else:
            exec(compile(args[1], "<string>", "exec"), vars(sys.modules["__main__"]))
    except SystemExit as end:
        return end.code
    except BaseException as error:
        sys.excepthook(type(error), error, error.__traceback__)
        return -signal.SIGINT if isinstance(error, KeyboardInterrupt) else 1


def _end(status: Any) -> None:
    """End as an interpreter does, but leave its objects to the system: to free what was forked takes half a second."""
    if isinstance(status, str):
        print(status, file=sys.stderr)
    threading._shutdown()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    if status == -signal.SIGINT:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    os._exit(1 if isinstance(status, str) else (status or 0) & 255)
