"""A real SLURM for tests: slurmctld and four slurmd on loopback, started by whoever runs the tests, with eight pretended GPUs on each node.

No root, munge, systemd or cgroup is needed. A card is a link to /dev/null, a character device, which is enough for SLURM to hand it out and set
CUDA_VISIBLE_DEVICES. `auth/none` believes whoever reaches the ports, so they listen on loopback only: never more than a fixture.
"""

from __future__ import annotations

import getpass
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from advchain.ports import free_port

NODES, GPUS, CPUS, MEMORY_MB = ("127.0.0.2", "127.0.0.3", "127.0.0.4", "127.0.0.5"), 8, 64, 262_144  # the last one: where jobs are preempted
DAEMONS = ("slurmctld", "slurmd", "srun", "sbatch", "squeue")
CONFIG = """
ClusterName=test
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort={port}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/none
CredType=cred/none
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
StateSaveLocation={base}/state
SlurmdSpoolDir={spool}/%n
SlurmctldPidFile={base}/run/slurmctld.pid
SlurmdPidFile={base}/run/%n.pid
SlurmctldLogFile={base}/log/slurmctld.log
SlurmdLogFile={base}/log/%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,bf_interval=1,batch_sched_delay=0
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
GresTypes=gpu
MinJobAge=86400
KillWait={kill_wait}
SlurmdParameters=config_overrides
{nodes}
PartitionName=gpu Nodes={shared} Default=YES MaxTime=INFINITE State=UP PreemptMode=OFF
PartitionName=urgent Nodes={last} MaxTime=INFINITE State=UP PriorityTier=10 PreemptMode=OFF
PartitionName=preempt Nodes={last} MaxTime=INFINITE State=UP PriorityTier=1 PreemptMode=REQUEUE
"""
NODE = (
    "NodeName={name} NodeHostname=localhost NodeAddr=127.0.0.1 Port={port} CPUs={cpus} Boards=1 SocketsPerBoard=1 CoresPerSocket={cpus} "
    "ThreadsPerCore=1 RealMemory={memory} Gres=gpu:rtx4090:{gpus} State=UNKNOWN"
)


def missing() -> list[str]:
    """Programs of SLURM that this machine lacks."""
    return [name for name in DAEMONS if shutil.which(name, path=_path(os.environ)) is None]


def _path(environment: Mapping[str, str]) -> str:
    return os.pathsep.join([environment.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"])


class Cluster:
    """A running SLURM; `environment` is what its programs and Snakemake have to be started with. Use as a context manager.

    Args:
        base: an empty folder for its configuration, state and logs.
        kill_wait: seconds from SIGTERM to SIGKILL.
    """

    def __init__(self, base: Path, kill_wait: int = 5) -> None:
        self.base, self.processes = base, list[subprocess.Popen[bytes]]()
        for name in ("etc", "run", "state", "log", "gpus", "bin"):
            (base / name).mkdir(parents=True)
        self.spool = tempfile.TemporaryDirectory(prefix="slurmd", ignore_cleanup_errors=True)  # sockets lie there: their paths may have 108 letters
        for node in NODES:
            (Path(self.spool.name) / node).mkdir()
        nodes = "\n".join(NODE.format(name=name, port=free_port(), cpus=CPUS, memory=MEMORY_MB, gpus=GPUS) for name in NODES)
        places = {"base": base, "spool": self.spool.name, "nodes": nodes, "shared": ",".join(NODES[:-1]), "last": NODES[-1]}
        text = CONFIG.format(port=free_port(), user=getpass.getuser(), kill_wait=kill_wait, **places)
        (base / "etc/slurm.conf").write_text(text)
        for number in range(GPUS):
            (base / f"gpus/nvidia{number}").symlink_to("/dev/null")
        cards = "".join(f"NodeName={name} Name=gpu Type=rtx4090 File={base}/gpus/nvidia[0-{GPUS - 1}]\n" for name in NODES)
        (base / "etc/gres.conf").write_text("AutoDetect=off\n" + cards)
        self._wrap_srun()
        outside = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM_", "ADVCHAIN_GPU", "CUDA_VISIBLE"))}
        self.environment = outside | {"SLURM_CONF": str(base / "etc/slurm.conf"), "PATH": f"{base}/bin:{_path(outside)}"}

    def _wrap_srun(self) -> None:
        """The plugin drops SLURM_CONF before it calls srun, which then looks in /etc: on a real cluster it is there."""
        path = self.base / "bin/srun"
        path.write_text(f'#!/bin/sh\nSLURM_CONF={self.base}/etc/slurm.conf exec {shutil.which("srun")} "$@"\n')
        path.chmod(0o755)

    def __enter__(self) -> Cluster:
        self._start("slurmctld", "-D", "-f", self.environment["SLURM_CONF"])
        for name in NODES:
            self._start("slurmd", "-D", "-f", self.environment["SLURM_CONF"], "-N", name)
        end = time.monotonic() + 60
        while set(self.ask("sinfo", "-h", "-N", "-o", "%N %T", check=False).splitlines()) != {f"{name} idle" for name in NODES}:
            if time.monotonic() > end:
                self.__exit__()
                raise TimeoutError((self.base / "log/slurmctld.log").read_text()[-2000:])
            time.sleep(0.1)
        return self

    def _start(self, *command: str) -> None:
        quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self.processes.append(subprocess.Popen(command, env=self.environment, start_new_session=True, **quiet))

    def __exit__(self, *_: object) -> None:
        self.ask("scancel", "--user", getpass.getuser(), check=False)
        for process in reversed(self.processes):
            process.terminate()
            try:
                process.wait(timeout=5)
            except subprocess.TimeoutExpired:  # slurmd waits for its jobs
                process.kill()
                process.wait()
        self.spool.cleanup()

    def ask(self, *command: str, check: bool = True) -> str:
        """Run one of SLURM's programs and return what it prints."""
        return subprocess.run(command, env=self.environment, check=check, capture_output=True, text=True, timeout=60).stdout.strip()

    def jobs(self, form: str = "%i", **chosen: str) -> list[str]:
        """Lines of squeue; `chosen`: its options, such as states="all"."""
        return self.ask("squeue", "-h", "-o", form, *(f"--{name}={value}" for name, value in chosen.items())).splitlines()

    def submit(self, command: str, *options: str) -> str:
        """Submit a command as a job and return the job's number."""
        return self.ask("sbatch", "--parsable", "--mem=100", "--time=10", "--output=/dev/null", *options, "--wrap", command)

    def wait(self, job: str, states: tuple[str, ...] = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "PREEMPTED"), seconds: float = 60) -> str:
        """Wait for one of `states` and return it."""
        end = time.monotonic() + seconds
        while (state := self.ask("squeue", "-h", "-o", "%T", "--states=all", "-j", job)) not in states:
            if time.monotonic() > end:
                raise TimeoutError(f"job {job} is {state} after {seconds:g} s")
            time.sleep(0.1)
        return state


ROOT = Path(__file__).resolve().parent.parent
TESTED = ("--slurm-status-command", "squeue", "--latency-wait", "10")  # no accounting, so squeue tells how a job ended


def snakemake(cluster: Cluster, snakefile: Path, folder: Path, *arguments: str) -> subprocess.Popen[str]:
    """Start Snakemake through profiles/slurm, with its messages in `folder`.log."""
    places = ("-s", snakefile, "-d", folder, "--workflow-profile", ROOT / "profiles/slurm")
    command = [sys.executable, *map(str, (ROOT / "tests/slurm_snakemake.py", *places))]
    own = {"PYTHONPATH": f"{ROOT}:{ROOT}/tests", "ADVCHAIN_ROOT": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}
    with open(f"{folder}.log", "a") as log:
        return subprocess.Popen([*command, *TESTED, *arguments], env=cluster.environment | own, stdout=log, stderr=log, text=True)
