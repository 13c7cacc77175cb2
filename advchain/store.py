"""Append-only store of finished work: what was computed or paid for survives a kill and is never asked twice.

One file per stage and digest under `results/.work/`; each line is `crc32 json\\n`, fsynced. A torn last line (the process was
killed while writing) is dropped and reported; a damaged line in the middle is an error that names file and line.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import zlib
from pathlib import Path
from types import TracebackType
from typing import Any

from advchain.errors import StorageError
from advchain.io import canonical_json, sha256_text

log = logging.getLogger(__name__)


def make_key(**parts: Any) -> str:
    """Return the sha256 of every part that the value depends on (RELIABILITY section 6, store design)."""
    return sha256_text(canonical_json(parts))


class Store:
    """A dict of JSON values on disk, one writer at a time (flock). Use as a context manager.

    Raises:
        StorageError: another process holds the store, the disk is full, or a line is damaged.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._handle = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(self._handle)
            raise StorageError(f"{self.path} is in use by another run. Wait for it, or stop it, then run again.") from error
        try:
            self._values = self._load()
        except BaseException:
            os.close(self._handle)
            raise

    def _load(self) -> dict[str, Any]:
        data = self.path.read_bytes()
        values: dict[str, Any] = {}
        offset = 0
        lines = data.split(b"\n")
        for number, line in enumerate(lines, start=1):
            last = number == len(lines)
            if not line and last:
                break
            entry = None if last else _decode(line)  # the last piece has no line feed: torn
            if entry is None:
                if offset + len(line) + 1 < len(data):
                    raise StorageError(f"{self.path}, line {number}: checksum mismatch, the file is damaged. Delete that line or the file, then run again.")
                log.warning("%s: dropped a half-written last record (%d bytes)", self.path, len(line))
                os.ftruncate(self._handle, offset)
                break
            values[entry["key"]] = entry["value"]
            offset += len(line) + 1
        return values

    def get(self, key: str) -> Any | None:
        """Return the stored value or None."""
        return self._values.get(key)

    def put(self, key: str, value: Any) -> None:
        """Append one value and fsync it. A key that is already stored keeps its first value."""
        if key in self._values:
            return
        body = json.dumps({"key": key, "value": value}, ensure_ascii=True, separators=(",", ":")).encode("ascii")
        line = b"%08x %s\n" % (zlib.crc32(body), body)
        end = os.lseek(self._handle, 0, os.SEEK_END)
        try:
            written = os.write(self._handle, line)
            if written != len(line):
                raise OSError(28, os.strerror(28))
            os.fsync(self._handle)
        except OSError as error:
            os.ftruncate(self._handle, end)
            raise StorageError(
                f"cannot append {len(line)} bytes to {self.path}: {error.strerror}. Finished rows are kept; free space, then run again."
            ) from error
        self._values[key] = value

    def __contains__(self, key: str) -> bool:
        return key in self._values

    def __len__(self) -> int:
        return len(self._values)

    def close(self) -> None:
        """Release the lock."""
        os.close(self._handle)

    def __enter__(self) -> Store:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def _decode(line: bytes) -> dict[str, Any] | None:
    checksum, _, body = line.partition(b" ")
    try:
        if int(checksum, 16) != zlib.crc32(body):
            return None
        entry = json.loads(body)
    except ValueError:
        return None
    return entry if isinstance(entry, dict) and "key" in entry else None


def read_store(path: Path) -> dict[str, Any]:
    """Return what a store holds, without its lock: a writer may be appending. A half-written last line is left out.

    Raises:
        StorageError: there is no such store, or a line before the last is damaged.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror}. Run the rule that fills it.") from error
    *whole, torn = data.split(b"\n")
    values: dict[str, Any] = {}
    for number, line in enumerate(whole, start=1):
        entry = _decode(line)
        if entry is None and (number < len(whole) or torn):
            raise StorageError(f"{path}, line {number}: checksum mismatch, the file is damaged. Delete that line or the file, then run again.")
        if entry is not None:
            values.setdefault(entry["key"], entry["value"])
    return values
