"""Read and write files: atomic, hashed, JSONL with an error that names the line.

A reader sees the old file or the whole new file, never a mixture: rows go to a temporary file that is fsynced and renamed.
"""

from __future__ import annotations

import errno
import glob
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from advchain.errors import AdvChainError, DataError, StorageError
from advchain.records import Record

log = logging.getLogger(__name__)
R = TypeVar("R", bound=Record)


def sha256_file(path: Path) -> str:
    """Return the hex sha256 of a file, read in 1 MiB blocks."""
    digest = hashlib.sha256()
    try:
        with open(path, "rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror}. Check that the file exists and is readable.") from error
    return digest.hexdigest()


def sha256_text(text: str) -> str:
    """Return the hex sha256 of a text in UTF-8."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def canonical_json(value: Any) -> str:
    """Return JSON with sorted keys and no spaces: equal values give equal text."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))


@contextmanager
def atomic_write(path: Path, *, binary: bool = False) -> Iterator[Any]:
    """Open a temporary text (or binary) file beside `path`; on success fsync and rename it, on failure remove it.

    Raises:
        StorageError: the disk is full or read-only; the old file is intact.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _sweep(path)
        with open(temporary, "wb") if binary else open(temporary, "w", encoding="utf-8", newline="\n") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _fsync_folder(path.parent)
    except OSError as error:
        with suppress(OSError):  # where its folder cannot be one, there is nothing to remove
            temporary.unlink()
        if isinstance(error, (DataError, StorageError)) or error.errno is None:
            raise
        reason = os.strerror(error.errno) + _needed(error.errno, path)
        raise StorageError(f"cannot write {path}: {reason}. Nothing was changed; free space or rights there and run again.") from error
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def free_bytes(folder: Path) -> int:
    """Return how many bytes can be written on a folder's file system without being root."""
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize


def _needed(number: int, path: Path) -> str:
    """What is known of the bytes that a file needs: more than are free, now that what was written of it is gone."""
    if number not in (errno.ENOSPC, errno.EDQUOT):
        return ""
    place = next(folder for folder in path.absolute().parents if folder.is_dir())
    return f" (it takes more than the {free_bytes(place):,} bytes that are free)"


def _sweep(path: Path) -> None:
    """Remove temporary files of `path` whose process is gone: a kill -9 leaves one behind."""
    for old in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
        try:
            os.kill(int(old.name.split(".")[-2]), 0)
        except ProcessLookupError:
            old.unlink(missing_ok=True)
        except (ValueError, OverflowError, PermissionError):
            continue  # not one of ours, or another user's process


def _fsync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def new_folder(output: Path) -> Iterator[Path]:
    """Give a temporary folder beside `output`; rename it into place on success, remove it on failure.

    Raises:
        StorageError: the disk is full or read-only. Libraries report that in exceptions of their own, so their words are read too.
    """
    folder, old = (output.with_name(f".{output.name}.{os.getpid()}.{end}") for end in ("tmp", "old"))
    try:
        folder.mkdir(parents=True)
        yield folder
        if output.exists():
            output.rename(old)
        folder.rename(output)
    except Exception as error:
        number = errno.ENOSPC if os.strerror(errno.ENOSPC) in str(error) else None
        if isinstance(error, OSError) and not isinstance(error, AdvChainError) and error.errno is not None:
            number = error.errno
        if number is None or isinstance(error, StorageError):
            raise
        shutil.rmtree(folder, ignore_errors=True)
        reason = f"{os.strerror(number)} ({getattr(error, 'filename', None) or folder.name})" + _needed(number, output)
        raise StorageError(f"cannot make {output}: {reason}. Free space or rights there and run again.") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically."""
    with atomic_write(path) as file:
        file.write(text)


def write_json(path: Path, value: Any) -> None:
    """Write indented JSON atomically."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def write_jsonl(path: Path, rows: Iterable[Mapping[str, Any] | Record]) -> int:
    """Write one compact JSON object per line, atomically; return the number of rows."""
    count = 0
    with atomic_write(path) as file:
        for row in rows:
            value = row.model_dump(mode="json") if isinstance(row, Record) else row
            file.write(json.dumps(value, ensure_ascii=False, separators=(",", ":")) + "\n")
            count += 1
    return count


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield (line number from 1, text) split at LF only, so that U+2028 inside a row does not split it.

    Raises:
        DataError: a line is not UTF-8; the message names line and byte.
    """
    try:
        with open(path, "rb") as file:
            for number, raw in enumerate(file, start=1):
                try:
                    text = raw.decode("utf-8-sig" if number == 1 else "utf-8")
                except UnicodeDecodeError as error:
                    raise DataError(
                        f"{path}, line {number}: not UTF-8 (byte {error.start} of the line is 0x{raw[error.start]:02x}). "
                        "Re-encode the file as UTF-8, for example with `iconv -f latin1 -t utf-8`."
                    ) from error
                if text.strip():
                    yield number, text
    except OSError as error:
        if isinstance(error, StorageError):
            raise
        raise StorageError(f"cannot read {path}: {error.strerror}. Check the path and its rights.") from error


def read_jsonl(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (line number, object) of a JSONL file.

    Raises:
        DataError: a line is not a JSON object.
    """
    for number, text in read_lines(path):
        try:
            value = json.loads(text)
        except json.JSONDecodeError as error:
            raise DataError(f"{path}, line {number}: not JSON ({error.msg} at column {error.colno}). Each line must be one JSON object.") from error
        if not isinstance(value, dict):
            raise DataError(f"{path}, line {number}: a {type(value).__name__} where a JSON object is expected.")
        yield number, value


def read_records(path: Path, kind: type[R]) -> list[R]:
    """Read a stage file into records.

    Raises:
        DataError: a row lacks a column, has an unknown one, or one of the wrong type; the message names line and column.
    """
    return list(iter_records(path, kind))


def iter_records(path: Path, kind: type[R]) -> Iterator[R]:
    """Yield the records of a stage file one by one (flat memory)."""
    for number, row in read_jsonl(path):
        try:
            yield kind.model_validate(row)
        except ValidationError as error:
            first = error.errors()[0]
            column = ".".join(str(part) for part in first["loc"])
            raise DataError(
                f"{path}, line {number}, column '{column}': {first['msg']}. Expected a {kind.__name__} row; re-make the file with its rule."
            ) from error
