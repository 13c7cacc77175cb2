"""Start the endpoint in a process of its own and talk to it."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent


class ApiServer:
    """A running endpoint."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.base_url = f"http://127.0.0.1:{port}/v1"

    def _call(self, path: str, body: bytes | None = None) -> Any:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", data=body), timeout=10) as reply:
            return json.load(reply)

    def control(self, **changes: Any) -> None:
        """Change settings while it runs; `reset=True` forgets the statistics."""
        self._call("/control", json.dumps(changes).encode())

    def stats(self) -> dict[str, Any]:
        """Return what the endpoint has seen."""
        statistics: dict[str, Any] = self._call("/stats")
        return statistics


@contextmanager
def api_server(**settings: Any) -> Iterator[ApiServer]:
    """Serve with `settings` (server.DEFAULTS names them) until the block ends."""
    process = subprocess.Popen([sys.executable, HERE / "server.py", json.dumps(settings)], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield ApiServer(json.loads(process.stdout.readline())["port"])
    finally:
        process.terminate()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()
