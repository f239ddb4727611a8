"""A real Slurm of one node on 127.0.0.1, from Debian's packages, for the tests of ``make test-slurm``.

``slurmctld``, ``slurmd`` and ``munged`` run from a temporary folder with ports, key and socket of their own, without
accounting; a Slurm that the machine has already is neither used nor touched.
"""

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scancel", "scontrol")
SECONDS = 60  # until the node is idle
NODE = "localhost"  # jobs of several processes meet at the name of the first node: it must resolve
CONF = """\
ClusterName=histo
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket
CredType=cred/munge
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
JobCompType=jobcomp/none
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
JobRequeue=1
KillWait=30
MinJobAge=600
ReturnToService=2
SchedulerParameters=sched_interval=2,bf_interval=2,requeue_delay=1
NodeName={node} NodeHostname={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory={memory} State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP OverSubscribe=NO
"""


def reason_against() -> str:
    """Why no Slurm can be set up here; empty where it can."""
    if os.name != "posix" or os.getuid():
        return "Slurm's daemons need root"
    lacking = [name for name in PROGRAMS if shutil.which(name) is None]
    packages = "apt-get install slurmctld slurmd slurm-client munge"
    return f"{', '.join(lacking)}: not installed ({packages}; `make slurm` does it)" if lacking else ""


@contextmanager
def one_node(folder: Path, cpus: int = 2) -> Iterator[dict[str, str]]:
    """Run the cluster in ``folder`` (short: it holds a socket); gives the environment that its commands need."""
    folder.chmod(0o755)
    environment = os.environ | {"SLURM_CONF": str(folder / "slurm.conf"), "HYDRA_FULL_ERROR": "1"}
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20 - 512
    (folder / "slurm.conf").write_text(
        CONF.format(
            host=socket.gethostname().split(".")[0],
            ports=_free_ports(2),
            folder=folder,
            node=NODE,
            cpus=cpus,
            memory=memory,
        )
    )
    munge = folder / "munge"
    munge.mkdir(mode=0o755)
    (munge / "key").write_bytes(os.urandom(128))
    (munge / "key").chmod(0o400)
    for name in ("state", "spool"):
        (folder / name).mkdir(mode=0o755)
    commands = [
        ["munged", "--foreground", "--force", f"--socket={munge}/socket", f"--key-file={munge}/key",
         f"--pid-file={munge}/pid", f"--log-file={munge}/log", f"--seed-file={munge}/seed"],
        ["slurmctld", "-D", "-f", str(folder / "slurm.conf"), "-c"],
        ["slurmd", "-D", "-f", str(folder / "slurm.conf"), "-N", NODE],
    ]  # fmt: skip
    daemons: list[subprocess.Popen[bytes]] = []
    try:
        for command in commands:
            with (folder / f"{command[0]}.out").open("wb") as out:
                daemons.append(subprocess.Popen(command, env=environment, stdout=out, stderr=out))
            time.sleep(0.5)
        _wait_for_node(environment, folder)
        yield environment
    finally:
        for daemon in reversed(daemons):
            daemon.terminate()
        for daemon in reversed(daemons):
            try:
                daemon.wait(10)
            except subprocess.TimeoutExpired:
                daemon.kill()


def node_state(environment: dict[str, str]) -> str:
    """Slurm's word for the state of the node, such as ``idle``; empty where the controller does not answer."""
    asked = subprocess.run(
        ["sinfo", "-h", "-o", "%t"], env=environment, capture_output=True, text=True, timeout=30
    )
    return asked.stdout.strip()


def _wait_for_node(environment: dict[str, str], folder: Path) -> None:
    end = time.monotonic() + SECONDS
    while node_state(environment) != "idle":
        if time.monotonic() > end:
            logs = "\n".join(path.read_text(errors="replace")[-2000:] for path in folder.glob("*.log"))
            raise RuntimeError(
                f"the node is {node_state(environment) or 'not known'} after {SECONDS} s\n{logs}"
            )
        time.sleep(0.5)


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


if __name__ == "__main__":  # python tests/factories/slurm.py <command>: run it inside such a cluster
    import tempfile

    with tempfile.TemporaryDirectory(prefix="slurm") as name, one_node(Path(name)) as variables:
        sys.exit(subprocess.run(sys.argv[1:], env=variables).returncode)
