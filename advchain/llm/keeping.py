"""Keep answers before they are used, many per fsync; and beside them a log of what went wrong."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

from advchain.errors import StorageError
from advchain.llm.faults import Fault
from advchain.store import Store


class Keeper:
    """Appends at once and fsyncs in a thread: all answers that came during one fsync share the next. The event loop never waits for the disk."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.faults_path = store.path.with_suffix(".faults.jsonl")
        self._num_written = self._num_safe = 0
        self._syncing: asyncio.Task[None] | None = None

    async def keep(self, key: str, value: dict[str, Any]) -> None:
        """Store one answer; returns when it is on the disk.

        Raises:
            StorageError: it could not be written.
        """
        self.store.put(key, value, sync=False)
        self._num_written += 1
        mine = self._num_written
        while self._num_safe < mine:
            if self._syncing is None:
                self._syncing = asyncio.ensure_future(self._sync())
            await asyncio.shield(self._syncing)

    async def _sync(self) -> None:
        upto = self._num_written
        try:
            await asyncio.to_thread(self.store.sync)
            self._num_safe = upto
        finally:
            self._syncing = None

    def note(self, key: str, attempt: int, fault: Fault) -> None:
        """Append one failed attempt to `<store>.faults.jsonl`: when, which request (by key), what; no text of the request."""
        entry = {"time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "key": key[:16], "attempt": attempt, "kind": fault.kind, "detail": fault.detail}
        try:
            with open(self.faults_path, "a", encoding="utf-8") as file:
                file.write(json.dumps(entry) + "\n")
        except OSError as error:
            raise StorageError(f"cannot append to {self.faults_path}: {error.strerror}. Finished answers are kept; free space, then run again.") from error
