"""Before a run starts: is another one at work in this folder, did a killed one leave jobs or locks behind?

Snakemake's own lock is files, which a killed run leaves behind: it cannot tell a dead holder from a live one, and asks for `--unlock`. Ours is a flock,
which the kernel frees with its holder, on a file that says who that is. Whoever has it may clear Snakemake's. The Snakefile calls `begin` before
Snakemake looks at its lock; jobs, dry runs and other looks at the plan take no lock.
"""

from __future__ import annotations

import atexit
import fcntl
import json
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from advchain.errors import BusyError, StorageError
from advchain.io import free_bytes

log = logging.getLogger(__name__)

OWNER, LOCKS = Path(".snakemake/advchain.run"), Path(".snakemake/locks")
RUN = "ADVCHAIN_RUN"  # in the environment of every process that a run starts
JOB_PREFIX = "advchain_"  # slurm-jobname-prefix of profiles/slurm
GRACE_SECONDS = 25.0  # for orphans, from SIGTERM to SIGKILL
LITTLE = 1 << 20  # bytes of disk with which Snakemake cannot even keep its notes of a small run
QUEUE_SECONDS = 60.0  # a queue that does not answer is no reason to wait longer
LOOKS = {"--lint", "--dag", "--rulegraph", "--filegraph", "--d3dag", "--summary", "-S", "--detailed-summary", "-D", "--report", "--containerize",
         "--list-rules", "--list", "-l", "--list-target-rules", "--lt", "--list-changes", "--list-input-changes", "--list-params-changes",
         "--list-untracked", "--print-compilation", "--archive", "--generate-unit-tests", "doctor", "estimate", "verify"}  # fmt: skip
_held: list[int] = []


class Owner(NamedTuple):
    """Who works in a folder: a process of a machine since its last start (`boot`), `since` as local time."""

    pid: int
    host: str
    boot: str
    since: str
    command: str

    @property
    def run(self) -> str:
        """Name of the run, as its processes carry it in their environment."""
        return f"{self.boot}:{self.pid}:{self.since}"

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}, started {self.since} ({self.command})"


def only_looks(arguments: Sequence[str]) -> bool:
    """Whether a snakemake command line asks for no work (dry runs aside, which Snakemake knows itself), or for no lock."""
    return any(argument.split("=")[0] in LOOKS or argument == "--nolock" for argument in arguments)


def begin(folder: Path, arguments: Sequence[str] = sys.argv) -> None:
    """Make this process the one that works in `folder`, until it ends; heal what a killed run left there.

    Raises:
        BusyError: another run is at work in it, jobs of an earlier one are still in SLURM's queue, or another machine's run did not end cleanly.
        StorageError: the folder or its results cannot be written, no space is left, or the file system has no locks.
    """
    if _held:
        return
    path = folder / OWNER
    handle = _lock(path)
    logging.raiseExceptions = False  # on a full disk each line of Snakemake's log file would become a traceback
    try:
        _heal(folder, _read(path), "--unlock" in arguments)
        owner = Owner(os.getpid(), socket.gethostname(), _boot(), time.strftime("%Y-%m-%d %H:%M:%S"), _line(arguments))
        os.ftruncate(handle, 0)
        _refuse_unwritable(folder, arguments)
        os.pwrite(handle, json.dumps(owner._asdict()).encode() + b"\n", 0)
    except BaseException:
        os.close(handle)
        raise
    _held.append(handle)
    os.environ[RUN] = owner.run
    atexit.register(_end_cleanly, handle, owner.pid, folder.resolve())


def _end_cleanly(handle: int, pid: int, folder: Path) -> None:
    """Leave no name: no job is left at work. A fork of the run that ends is not its end."""
    if os.getpid() == pid:
        os.ftruncate(handle, 0)
        told = no_space(folder)
        if told:
            sys.stderr.write(f"\nerror: {told}\n")  # last: Snakemake may have died of it with a traceback


def no_space(folder: Path) -> str | None:
    """Say that the disk of a work folder, or of its results (often a link to another one), is full; None where it is not."""
    for place in (folder, folder / "results"):
        free = free_bytes(place) if place.is_dir() else LITTLE
        if free < LITTLE:
            return (
                f"no space is left on the disk of {place}: {free:,} bytes are free, at least {LITTLE:,} are needed to go on. What is finished is kept, "
                "bought answers too. Free space there (`make clean STAGE=work` lists what could go), then start again: the run goes on from there."
            )
    return None


def _refuse_unwritable(folder: Path, arguments: Sequence[str]) -> None:
    results = folder / "results"
    if results.is_symlink() and not results.exists():
        raise StorageError(f"{results} is a link to {results.readlink()}, which is not there. Mount or make that folder, or remove the link.")
    if results.is_dir() and not os.access(results, os.W_OK | os.X_OK):
        raise StorageError(f"{results} cannot be written (rights, or a read-only disk). Mend that, or work elsewhere with `snakemake --directory FOLDER`.")
    told = no_space(folder)
    if told and not any(argument.startswith(("--delete", "--unlock")) for argument in arguments):
        raise StorageError(told)


def _lock(path: Path) -> int:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise StorageError(f"cannot write {path}: {error.strerror}. Run in a folder of your own, or with `snakemake --directory FOLDER`.") from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise BusyError(
            f"another run is at work in {path.parent.parent.resolve()}: {_read(path) or 'it is just starting'}. Wait for it, or stop it there (Ctrl-C; after "
            "`kill PID` it lets its running jobs end), then start again. `snakemake -n` and `--summary` work meanwhile."
        ) from None
    except OSError as error:
        os.close(handle)
        raise StorageError(f"{path} cannot be locked: {error.strerror}. Its file system has no flock: work on another one.") from error
    return handle


def _read(path: Path) -> Owner | None:
    """Return who is, or was, at work; None after a clean end."""
    try:
        return Owner(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):  # empty, or the write of a run that was killed right then
        return None


def _boot() -> str:
    """Return what tells this start of this machine from others; a container has that of its host."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return socket.gethostname()


def _line(arguments: Sequence[str]) -> str:
    line = " ".join([Path(arguments[0]).name, *arguments[1:]])
    return line if len(line) <= 120 else line[:117] + "..."


def _heal(folder: Path, last: Owner | None, forget: bool) -> None:
    """Clear what the last run left, which we know is gone: we hold its lock."""
    elsewhere = last is not None and last.boot != _boot() and last.host != socket.gethostname()
    if last is not None and elsewhere and not forget:  # some file systems keep locks to one machine
        raise BusyError(
            f"the last run in {folder.resolve()} was {last}, and it did not end cleanly. From here it cannot be seen whether it is gone: look on {last.host}. "
            "If it is, `snakemake --unlock` forgets it; then start again."
        )
    _refuse_slurm_orphans(folder)
    if last is not None and not elsewhere:
        _end_orphans(last)
    if (folder / LOCKS).exists():
        log.warning("cleared the lock of a run that was killed: %s", last or "it left no name")
        shutil.rmtree(folder / LOCKS)


# ---------------------------------------------------------------- jobs without a run


def _refuse_slurm_orphans(folder: Path) -> None:
    jobs = slurm_jobs(folder)
    if jobs:
        told = ", ".join(f"{number} ({state})" for number, state in jobs.items())
        raise BusyError(
            f"{len(jobs)} SLURM job(s) of an earlier run in {folder.resolve()} are still there: {told}. That run is gone; a new one "
            f"would write the same files beside them. Let them end, or cancel them with `scancel {' '.join(jobs)}`, then start again."
        )


def slurm_jobs(folder: Path) -> dict[str, str]:
    """Return number -> state of our SLURM jobs that work in `folder`; none where there is no SLURM."""
    if shutil.which("squeue") is None:
        return {}
    try:
        asked = ["squeue", "--noheader", "--user", str(os.getuid()), "--format", "%i|%T|%j|%Z"]
        done = subprocess.run(asked, capture_output=True, text=True, timeout=QUEUE_SECONDS, check=True)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        log.info("squeue does not answer, so SLURM jobs of an earlier run are not looked for: %s", error)
        return {}
    rows = [line.split("|", 3) for line in done.stdout.splitlines() if line.count("|") >= 3]
    return {number: state for number, state, name, place in rows if name.startswith(JOB_PREFIX) and Path(place).resolve() == folder.resolve()}


def processes_of(run: str) -> dict[int, str]:
    """Return pid -> name of this machine's processes that a run started and that are still there."""
    wanted, found = f"{RUN}={run}".encode(), {}
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended, or is another user's
            if wanted in (process / "environ").read_bytes().split(b"\0"):
                found[int(process.name)] = (process / "comm").read_text().strip()
    return found


def _end_orphans(last: Owner) -> None:
    """End jobs whose run was killed: what they make is made again, and they would write beside it. SIGTERM lets them keep what they have."""
    orphans = processes_of(last.run)
    if not orphans:
        return
    log.warning("ending what a killed run left at work: %s", ", ".join(f"{pid} ({name})" for pid, name in orphans.items()))
    end, number = time.monotonic() + GRACE_SECONDS, signal.SIGTERM
    for pid in orphans:
        with suppress(ProcessLookupError):
            os.kill(pid, number)
    while orphans := processes_of(last.run):
        if time.monotonic() > end:
            for pid in orphans:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        time.sleep(0.1)
