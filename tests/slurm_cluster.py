"""A real Slurm on this machine alone, in a folder: for tests, and to try job files.

    python tests/slurm_cluster.py FOLDER    # until Ctrl-C; in another terminal:
    export SLURM_CONF=FOLDER/slurm.conf

It needs root and Debian's packages slurmctld, slurmd, slurm-client and munge. All listen on
loopback only; the folder has its own key, so that other clusters and their services are untouched.
"""

import ctypes
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol", "scancel", "squeue")
LARGEST = 2  # jobs in an array

# The node's name is the host's, or slurmd does not start; what it has is as written here, whatever
# this machine has. `preempting` takes the CPUs from jobs of `main`, which are then requeued.
CONFIG = """
ClusterName=local
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
SlurmUser=root
SlurmdUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MailProg=/bin/true
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
SlurmdParameters=config_overrides
MaxArraySize={largest}
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SchedulerParameters=batch_sched_delay=1,sched_interval=2,bf_interval=2
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 RealMemory=8000 State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES State=UP PriorityTier=1
PartitionName=preempting Nodes=ALL State=UP PriorityTier=2
"""


def missing() -> str:
    """Why no cluster can be started here, or nothing."""
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    lacking = [name for name in PROGRAMS if shutil.which(name, path=path) is None]
    if lacking:
        return f"Slurm is not installed: no {', '.join(lacking)}"
    return "" if os.geteuid() == 0 else "a Slurm for tests is started by root only"


@contextmanager
def cluster(folder: Path) -> Iterator[dict[str, str]]:
    """A running cluster and the environment that its commands need.

    It ends, with all its jobs, when the context does, and also when this process is killed.
    """
    command = [sys.executable, __file__, str(folder)]
    pipes = dict.fromkeys(("stdin", "stdout"), subprocess.PIPE)
    with subprocess.Popen(command, text=True, start_new_session=True, **pipes) as process:
        try:
            said = process.stdout.readline()
            assert said.startswith("ready"), said + logs(folder)
            yield {**os.environ, "SLURM_CONF": f"{folder}/slurm.conf"}
        finally:
            process.stdin.close()  # which `serve` waits for


def serve(folder: Path) -> None:
    """Start the daemons, and end them and their jobs when the standard input ends."""
    ctypes.CDLL(None).prctl(36, 1)  # PR_SET_CHILD_SUBREAPER: what daemons leave behind is ours
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit(1))
    try:
        start(folder.resolve())
        signal.signal(signal.SIGCHLD, reap)
        print(f"ready: export SLURM_CONF={folder.resolve()}/slurm.conf", flush=True)
        while os.read(0, 1):
            pass
    finally:
        end_children()


def start(folder: Path) -> None:
    """Write the configuration, start the daemons, and wait until the node can work."""
    for name in ("state", "spool"):
        (folder / name).mkdir(parents=True)
    host = os.uname().nodename.partition(".")[0]
    settings = CONFIG.format(folder=folder, host=host, ports=free_ports(2), largest=LARGEST + 1)
    (folder / "slurm.conf").write_text(settings)
    (folder / "munge.key").write_bytes(os.urandom(64))
    (folder / "munge.key").chmod(0o400)
    munge = [f"--{name}={folder}/munge.{name.split('-')[0]}" for name in
             ("socket", "key-file", "log-file", "pid-file", "seed-file")]  # fmt: skip
    os.environ["PATH"] += ":/usr/sbin:/sbin"
    os.environ["SLURM_CONF"] = f"{folder}/slurm.conf"
    daemon("munged", "--foreground", "--force", *munge, folder=folder)
    wait_for(folder, (folder / "munge.socket").exists)
    daemon("slurmctld", "-D", folder=folder)
    daemon("slurmd", "-D", folder=folder)
    states = ["sinfo", "--noheader", "--format=%T"]
    idle = lambda: "idle" in subprocess.run(states, capture_output=True, text=True).stdout
    wait_for(folder, idle)


def daemon(*command: str, folder: Path) -> None:
    with (folder / f"{command[0]}.log").open("w") as log:
        subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)


def free_ports(n: int) -> list[int]:
    """Ports that nobody listens on; another program could take one before it is used."""
    sockets = [socket.socket() for _ in range(n)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def wait_for(folder: Path, ready, seconds: float = 30) -> None:
    until = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > until:
            sys.exit(f"Slurm did not start:\n{logs(folder)}")
        time.sleep(0.2)


def logs(folder: Path) -> str:
    """The last lines of all daemons."""
    ends = (f"{p}:\n" + p.read_text(errors="replace")[-2000:] for p in folder.glob("*.log"))
    return "\n".join(ends)


def reap(*_: object) -> None:
    """Take note of children that have ended."""
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def end_children() -> None:
    """Kill every process that this one has started, and those that they have started."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    while True:
        for stat in Path("/proc").glob("[0-9]*/stat"):
            if parent(stat) == os.getpid():
                os.kill(int(stat.parent.name), signal.SIGKILL)
        try:
            os.waitpid(-1, 0)  # its children become ours
        except ChildProcessError:
            return


def parent(stat: Path) -> int:
    """The parent of a process, from /proc/PID/stat; 0 where it has just ended."""
    try:
        return int(stat.read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


if __name__ == "__main__":
    serve(Path(sys.argv[1]))
