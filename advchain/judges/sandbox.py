"""Run model-written code where it can read nothing of this machine but /usr, reach no network, and outlive nothing.

The walls (measured in DECISIONS.md and tests/unit/test_sandbox.py): bubblewrap with every namespace unshared, an empty environment for
bubblewrap itself (its own environment would be readable inside), read-only root with /usr and the interpreter, no /proc, a private /tmp
of fixed size, no capabilities, no new user namespaces (bubblewrap >= 0.8), a uid without rights when started by root (RLIMIT_NPROC does
not bind root), limits on address space, CPU, file size, processes and files, a wall clock outside that kills the whole namespace.
`canary.check` proves the walls before the first candidate runs; without them nothing runs (SandboxError).

What it does NOT cover: bugs of the kernel or of bubblewrap (there is no seccomp filter and no virtual machine), side channels such as
timing, reading what is installed under /usr, memory summed over processes (`processes` x `memory_mb` is the bound, there is no cgroup),
CPU taken from other jobs until the wall clock rings. Do not run it on a machine whose /usr holds secrets.
"""

from __future__ import annotations

import json
import logging
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import TracebackType

from advchain.errors import SandboxError

log = logging.getLogger(__name__)

INSIDE = Path(__file__).parent / "inside"
NOBODY = "65534"
START_SECONDS = 20.0  # a loaded machine starts Python slowly; this clock does not count against the candidate
MAX_OUTPUT = 1 << 20
# Hash seed: the order of sets must not flip a verdict. No digit limit: contest answers may have a million digits, time is limited anyway.
ENVIRONMENT = {"PATH": "/usr/bin", "HOME": "/tmp", "LANG": "C.UTF-8", "PYTHONHASHSEED": "0", "PYTHONUTF8": "1", "PYTHONINTMAXSTRDIGITS": "0"}
INSTALL = "Install bubblewrap 0.8 or newer (Debian, Ubuntu: apt install bubblewrap; Fedora: dnf install bubblewrap) and allow unprivileged user namespaces"


@dataclass(frozen=True)
class Limits:
    """Limits of one sandboxed process tree. `cpu_seconds` and `memory_mb` hold per process."""

    memory_mb: int = 1024
    cpu_seconds: int = 30
    file_mb: int = 16
    tmp_mb: int = 64
    processes: int = 16
    files: int = 64

    def as_argument(self) -> str:
        """Return the JSON that inside/limits.py reads."""
        return json.dumps({name: getattr(self, name) for name in ("memory_mb", "cpu_seconds", "file_mb", "processes", "files")})


class Stopped(Exception):
    """The candidate did not finish; `outcome` is timeout, memory, output or crash."""

    def __init__(self, outcome: str) -> None:
        super().__init__(outcome)
        self.outcome = outcome


@lru_cache(maxsize=1)
def bwrap_path() -> str:
    """Return the path of bubblewrap.

    Raises:
        SandboxError: it is not installed.
    """
    path = shutil.which("bwrap")
    if path is None:
        raise SandboxError(f"no sandbox: `bwrap` is not on the PATH; no model-written code is run. {INSTALL}, or set the judge's option missing_sandbox: skip.")
    return path


@lru_cache(maxsize=1)
def interpreter() -> tuple[str, str | None]:
    """Return (python to run inside, folder to bind for it, None where /usr holds it).

    The interpreter that runs us is used where the sandbox's uid can read it, else the system's.
    """
    own, prefix = Path(sys.executable).resolve(), Path(sys.base_prefix).resolve()
    if own.is_relative_to("/usr"):
        return str(own), None
    if own.is_relative_to(prefix) and not prefix.is_relative_to("/tmp") and (os.geteuid() != 0 or _readable_by_all(own)):
        return str(own), str(prefix)
    system = Path("/usr/bin/python3")
    if system.exists():
        return str(system), None
    raise SandboxError(f"no sandbox: an unprivileged uid cannot read the interpreter {own} and there is no {system}. Install the system's python3.")


def _readable_by_all(path: Path) -> bool:
    return all(folder.stat().st_mode & 0o001 for folder in path.parents) and bool(path.stat().st_mode & 0o001)


@lru_cache(maxsize=1)
def _walls() -> tuple[str, ...]:
    """The command up to the files and the program; the same for every run."""
    bwrap = bwrap_path()
    command = [
        *_drop_privileges(),
        bwrap,
        *["--unshare-all", "--unshare-user", "--disable-userns", "--die-with-parent", "--new-session", "--cap-drop", "ALL", "--clearenv"],
    ]
    command += ["--ro-bind", "/usr", "/usr", "--ro-bind-try", "/etc/ld.so.cache", "/etc/ld.so.cache"]
    for folder in ("/bin", "/lib", "/lib64", "/sbin"):
        if Path(folder).is_symlink():
            command += ["--symlink", str(Path(folder).readlink()), folder]
        elif Path(folder).is_dir():
            command += ["--ro-bind", folder, folder]
    prefix = interpreter()[1]
    command += ["--ro-bind", prefix, prefix] if prefix else []
    for name, value in ENVIRONMENT.items():
        command += ["--setenv", name, value]
    return tuple(command)


def _drop_privileges() -> list[str]:
    if os.geteuid() != 0:
        return []
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        raise SandboxError("no sandbox: the process limit does not bind root and `setpriv` (package util-linux) is missing. Install it, or do not run as root.")
    return [setpriv, f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--no-new-privs", "--inh-caps=-all"]


def memory_file(data: bytes) -> int:
    """Return a descriptor of an anonymous file that holds `data`, at its start."""
    handle = os.memfd_create("advchain")
    view = memoryview(data)
    while view:
        view = view[os.write(handle, view) :]
    os.lseek(handle, 0, os.SEEK_SET)
    return handle


class Sandboxed:
    """One sandboxed Python process tree running a script of `inside/`. Use as a context manager: leaving it kills everything inside.

    Args:
        script: file name under inside/.
        arguments: after the limits; descriptors in `fds` keep their numbers inside.
        stdin: input bytes; empty by default.
    """

    def __init__(self, script: str, arguments: Sequence[str], limits: Limits, fds: Sequence[int] = (), stdin: bytes = b"") -> None:
        self.stdin, self.stdout, self.stderr = memory_file(stdin), memory_file(b""), memory_file(b"")
        files = {f"/box/{name}": memory_file((INSIDE / name).read_bytes()) for name in ("limits.py", "wire.py", script)}
        command = [*_walls(), *_mounts(files, limits), "--", interpreter()[0], "-s", "-B", f"/box/{script}", limits.as_argument(), *arguments]
        self.process = subprocess.Popen(
            command, stdin=self.stdin, stdout=self.stdout, stderr=self.stderr, env={}, cwd="/", pass_fds=[*fds, *files.values()], start_new_session=True
        )
        for handle in files.values():
            os.close(handle)

    def wait(self, seconds: float) -> int:
        """Wait for the end and return the exit status.

        Raises:
            Stopped: timeout.
        """
        watched = os.pidfd_open(self.process.pid)
        try:
            if not select.select([watched], [], [], max(0.0, seconds))[0]:
                raise Stopped("timeout")
        finally:
            os.close(watched)
        return self.process.wait()

    def output(self) -> bytes:
        """Return what was written to stdout.

        Raises:
            Stopped: output, when it is over 1 MB.
        """
        if os.fstat(self.stdout).st_size > MAX_OUTPUT:
            raise Stopped("output")
        return os.pread(self.stdout, MAX_OUTPUT, 0)

    def complaint(self) -> str:
        """Return the beginning of stderr: bubblewrap's reason when it could not start."""
        return os.pread(self.stderr, 500, 0).decode("utf-8", "replace").strip()

    def close(self) -> None:
        """Kill the process group; the namespace dies with it."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        for handle in (self.stdin, self.stdout, self.stderr):
            os.close(handle)

    def __enter__(self) -> Sandboxed:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def _mounts(files: dict[str, int], limits: Limits) -> list[str]:
    mounts = ["--dev", "/dev", "--remount-ro", "/dev", "--size", str(limits.tmp_mb << 20), "--tmpfs", "/tmp"]
    for path, handle in files.items():
        mounts += ["--ro-bind-data", str(handle), path]
    return [*mounts, "--remount-ro", "/", "--chdir", "/tmp"]


class Channel:
    """Lines to and from a process that may never read, never answer, or answer without end."""

    def __init__(self) -> None:
        self.their_requests, self.requests = os.pipe()
        self.replies, self.their_replies = os.pipe()
        self.buffer = b""
        os.set_blocking(self.requests, False)

    def send(self, data: bytes, deadline: float) -> None:
        """Write all of `data` or raise Stopped (timeout, crash)."""
        view = memoryview(data)
        while view:
            if not select.select([], [self.requests], [], max(0.0, deadline - time.monotonic()))[1]:
                raise Stopped("timeout")
            try:
                view = view[os.write(self.requests, view) :]
            except BrokenPipeError:
                raise Stopped("crash") from None

    def receive(self, deadline: float) -> bytes:
        """Read one line or raise Stopped (timeout, crash at end of file, output beyond 1 MB)."""
        while b"\n" not in self.buffer:
            if len(self.buffer) > MAX_OUTPUT:
                raise Stopped("output")
            if not select.select([self.replies], [], [], max(0.0, deadline - time.monotonic()))[0]:
                raise Stopped("timeout")
            data = os.read(self.replies, 1 << 16)
            if not data:
                raise Stopped("crash")
            self.buffer += data
        line, _, self.buffer = self.buffer.partition(b"\n")
        return line

    def theirs(self) -> tuple[int, int]:
        """Return the descriptors of the other side: (read requests, write replies)."""
        return self.their_requests, self.their_replies

    def close_theirs(self) -> None:
        """Close the other side's ends here once it has them, so that its death reads as end of file."""
        os.close(self.their_requests)
        os.close(self.their_replies)

    def close(self) -> None:
        """Close our ends."""
        os.close(self.requests)
        os.close(self.replies)
