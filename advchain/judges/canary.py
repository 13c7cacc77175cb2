"""Prove the sandbox before it is used: an attacker script must fail at everything it tries, and must have run.

The same script outside the sandbox succeeds at everything (tests/unit/test_sandbox.py), so a pass here is not vacuous.
"""

from __future__ import annotations

import json
import logging
import os
import secrets
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

from advchain.errors import SandboxError
from advchain.judges.sandbox import INSTALL, START_SECONDS, Limits, Sandboxed, Stopped

log = logging.getLogger(__name__)


@contextmanager
def bait() -> Iterator[dict[str, Any]]:
    """Plant what the attacker looks for: a world-readable secret, a listening loopback socket, a unix socket, a secret in our environment."""
    secret = secrets.token_hex(16)
    with tempfile.TemporaryDirectory(prefix="advchain-canary-") as name, socket.socket() as tcp, socket.socket(socket.AF_UNIX) as unix:
        folder = Path(name)
        folder.chmod(0o777)
        (folder / "secret").write_text(secret)
        (folder / "secret").chmod(0o644)
        tcp.bind(("127.0.0.1", 0))
        tcp.listen(8)
        unix.bind(str(folder / "socket"))
        unix.listen(8)
        (folder / "socket").chmod(0o777)
        os.environ["ADVCHAIN_CANARY"] = secret
        try:
            yield {"secret": secret, "folder": name, "port": tcp.getsockname()[1], "pid": os.getpid()}
        finally:
            del os.environ["ADVCHAIN_CANARY"]


def breaches() -> list[str]:
    """Run the attacker inside the sandbox and return what it achieved.

    Raises:
        SandboxError: the sandbox did not start or the attacker did not report.
    """
    with bait() as planted, Sandboxed("attacker.py", [json.dumps(planted)], Limits()) as run:
        try:
            status = run.wait(START_SECONDS)
            report = json.loads(run.output())
        except (Stopped, ValueError) as error:
            state = str(error) if isinstance(error, Stopped) else f"exit status {status}"
            raise SandboxError(f"no sandbox: bubblewrap could not run a Python process ({state}: {run.complaint() or 'no message'}). {INSTALL}.") from error
        written = Path(planted["folder"], "written").exists()
    return [name for name, achieved in report.items() if achieved] + (["write a host folder"] if written else [])


@lru_cache(maxsize=1)
def check() -> None:
    """Fail closed unless the sandbox stops every attack of the canary; done once per process.

    Raises:
        SandboxError: there is no sandbox, or it leaks; names what got through.
    """
    achieved = breaches()
    if achieved:
        raise SandboxError(f"no sandbox: bubblewrap starts but let the canary {', '.join(achieved)}. {INSTALL}; no model-written code is run.")
    log.info("sandbox canary: every attack stopped")
