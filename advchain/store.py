"""Append-only store of finished work: what was computed or paid for survives a kill and is never asked twice.

One file per stage and digest under `results/.work/`; each line is `crc32 json\\n`, fsynced. A torn last line (the process was
killed while writing) is dropped and reported; a damaged line is an error that names file and line.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import zlib
from collections.abc import Iterator
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
    """A dict of JSON values on disk, one writer at a time (flock). Use as a context manager. Memory holds keys and places, not values.

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
            holder = _holder(os.fstat(self._handle).st_ino)
            os.close(self._handle)
            raise StorageError(f"{self.path} is in use by {holder}. Wait for it, or stop it, then run again.") from error
        self._places: dict[bytes, tuple[int, int]] = {}  # key -> offset and length of its line
        self._end = 0
        try:
            self._load()
        except BaseException:
            os.close(self._handle)
            raise

    def _load(self) -> None:
        """Index every whole record; cut off a half-written last one."""
        with open(self.path, "rb") as file:
            for number, line in enumerate(file, start=1):
                if not line.endswith(b"\n"):
                    log.warning("%s: dropped a half-written last record (%d bytes)", self.path, len(line))
                    os.ftruncate(self._handle, self._end)
                    break
                entry = _decode(line[:-1])
                if entry is None:
                    raise StorageError(f"{self.path}, line {number}: checksum mismatch, the file is damaged. Delete that line or the file, then run again.")
                self._places.setdefault(_short(entry["key"]), (self._end, len(line)))
                self._end += len(line)

    def get(self, key: str) -> Any | None:
        """Return the stored value or None.

        Raises:
            StorageError: the record was damaged since the store was opened.
        """
        place = self._places.get(_short(key))
        return None if place is None else self._read(place)

    def values(self) -> Iterator[Any]:
        """Yield every value, in the order in which they were stored."""
        for place in list(self._places.values()):
            yield self._read(place)

    def put(self, key: str, value: Any, *, sync: bool = True) -> None:
        """Append one value, and fsync it unless the caller will call `sync`. A key that is already stored keeps its first value."""
        if key in self:
            return
        body = json.dumps({"key": key, "value": value}, ensure_ascii=True, separators=(",", ":")).encode("ascii")
        line = b"%08x %s\n" % (zlib.crc32(body), body)
        try:
            written = os.write(self._handle, line)
            if written != len(line):
                raise OSError(28, os.strerror(28))
            if sync:
                os.fsync(self._handle)
        except OSError as error:
            os.ftruncate(self._handle, self._end)
            raise self._failure(error, f"append {len(line)} bytes to") from error
        self._places[_short(key)] = (self._end, len(line))
        self._end += len(line)

    def sync(self) -> None:
        """Fsync what was put with `sync=False`.

        Raises:
            StorageError: the disk would not take it.
        """
        try:
            os.fsync(self._handle)
        except OSError as error:
            raise self._failure(error, "fsync") from error

    def _read(self, place: tuple[int, int]) -> Any:
        entry = _decode(os.pread(self._handle, place[1], place[0])[:-1])
        if entry is None:
            raise StorageError(f"{self.path}, byte {place[0]}: checksum mismatch, the file was changed while in use. Run again to see which line.")
        return entry["value"]

    def _failure(self, error: OSError, what: str) -> StorageError:
        return StorageError(f"cannot {what} {self.path}: {error.strerror}. Finished rows are kept; free space, then run again.")

    def __contains__(self, key: str) -> bool:
        return _short(key) in self._places

    def __len__(self) -> int:
        return len(self._places)

    def close(self) -> None:
        """Release the lock."""
        os.close(self._handle)

    def __enter__(self) -> Store:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def _short(key: str) -> bytes:
    """The key as it is kept in memory: 32 bytes for a sha256."""
    try:
        return bytes.fromhex(key)
    except ValueError:
        return key.encode("utf-8", "surrogatepass")


def _holder(inode: int) -> str:
    """Name the process that holds the lock, where the system tells."""
    try:
        rows = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
    except OSError:
        rows = []
    pids = [row[4] for row in rows if len(row) > 5 and row[1] == "FLOCK" and row[5].rsplit(":", 1)[-1] == str(inode)]
    return f"another run (process {pids[0]})" if pids else "another run"


def _decode(line: bytes) -> dict[str, Any] | None:
    checksum, _, body = line.partition(b" ")
    if checksum != b"%08x" % zlib.crc32(body):
        return None
    try:
        entry = json.loads(body)
    except ValueError:
        return None
    return entry if isinstance(entry, dict) and "key" in entry else None


def damaged_line(path: Path) -> int | None:
    """Return the number of a store's first damaged line, None for a sound one; a half-written last line is none. Holds one line at a time.

    Raises:
        StorageError: it cannot be read.
    """
    try:
        with open(path, "rb") as file:
            return next((number for number, line in enumerate(file, start=1) if line.endswith(b"\n") and _decode(line[:-1]) is None), None)
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror}.") from error


def read_store(path: Path) -> dict[str, Any]:
    """Return what a store holds, without its lock: a writer may be appending. A half-written last line is left out.

    Raises:
        StorageError: there is no such store, or a whole line is damaged.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror}. Run the rule that fills it.") from error
    whole = data.split(b"\n")[:-1]
    values: dict[str, Any] = {}
    for number, line in enumerate(whole, start=1):
        entry = _decode(line)
        if entry is None:
            raise StorageError(f"{path}, line {number}: checksum mismatch, the file is damaged. Delete that line or the file, then run again.")
        values.setdefault(entry["key"], entry["value"])
    return values
