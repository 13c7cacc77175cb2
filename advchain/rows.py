"""Read the rows of a public data file, whatever its format, and complain by file, row and column.

Formats: JSONL, a JSON array, CSV and TSV, each also gzipped, and parquet. Text must be UTF-8, with or without byte order mark.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
import logging
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from advchain.errors import DataError, StorageError, did_you_mean
from advchain.records import derive_seed

log = logging.getLogger(__name__)
T = TypeVar("T")

BadLine = Callable[[str, str, str], None]  # (place, reason, detail) of a JSONL line that cannot be read
CSV_FIELD_LIMIT = 1 << 28  # Python's own limit of 128 KiB a cell is below the longest jailbreak prompts


class Row(NamedTuple):
    """One row and where it stands, for messages."""

    place: str
    values: dict[str, Any]

    def text(self, *columns: str, empty: bool = False) -> str:
        """Return the text of the first of `columns` that the row has.

        Raises:
            DataError: no such column, not a text, empty (unless `empty`), or not valid Unicode.
        """
        column, value = self._first(columns)
        if not isinstance(value, str):
            raise DataError(f"{self.place}, column '{column}': {_kind(value)} where a text is expected.")
        if not empty and not value.strip():
            raise DataError(f"{self.place}, column '{column}': the text is empty.")
        if not value.isascii() and any("\ud800" <= character <= "\udfff" for character in value):
            raise DataError(f"{self.place}, column '{column}': holds half of a surrogate pair, which is not valid Unicode. Mend or drop the row.")
        return value

    def integer(self, *columns: str) -> int:
        """Return the whole number in the first of `columns` that the row has; a text of digits counts.

        Raises:
            DataError: no such column, or not a whole number.
        """
        column, value = self._first(columns)
        try:
            return int(value)
        except (TypeError, ValueError) as error:
            raise DataError(f"{self.place}, column '{column}': {_kind(value)} where a whole number is expected.") from error

    def texts(self, column: str) -> tuple[str, ...]:
        """Return an optional column that is a text or a list of texts, () where it is missing."""
        value = self.values.get(column)
        if value is None or value == "":
            return ()
        values = value if isinstance(value, list) else [value]
        if not all(isinstance(part, str) for part in values):
            raise DataError(f"{self.place}, column '{column}': {_kind(value)} where a text or a list of texts is expected.")
        return tuple(values)

    def optional(self, column: str) -> str | None:
        """Return an id-like column as text, None where it is missing or empty."""
        value = self.values.get(column)
        if isinstance(value, (dict, list, bool)):
            raise DataError(f"{self.place}, column '{column}': {_kind(value)} where a short text or a number is expected.")
        return None if value is None or value == "" else str(value)

    def _first(self, columns: tuple[str, ...]) -> tuple[str, Any]:
        for column in columns:
            if column in self.values:
                return column, self.values[column]
        wanted = " or ".join(f"'{column}'" for column in columns)
        known = did_you_mean(columns[0], (str(name) for name in self.values))
        raise DataError(f"{self.place}: no column {wanted}; {known} Rename the column, or check that this is the right file.")


def _kind(value: Any) -> str:
    return "null" if value is None else f"a {type(value).__name__}"


def read_rows(path: Path, bad: BadLine | None = None) -> Iterator[Row]:
    """Yield the rows of a data file in file order.

    Args:
        bad: called for each line of a JSONL file that is not UTF-8 (not_utf8) or not a JSON object (not_json), which is then left out; without it
            such a line is an error. In every other format one bad byte leaves the rows after it in doubt: always an error.

    Raises:
        DataError: not UTF-8, not the format that its name or first character promises, or a row that is not an object; names the place.
        StorageError: cannot be read.
    """
    name = path.name.removesuffix(".gz").lower()
    if name.endswith(".parquet"):
        yield from _parquet(path)
    elif name.endswith((".csv", ".tsv")):
        yield from _csv(path, "\t" if name.endswith(".tsv") else ",")
    elif _first_byte(path) == b"[":
        yield from _json_array(path)
    else:
        yield from _jsonl(path, bad)


def _jsonl(path: Path, bad: BadLine | None) -> Iterator[Row]:
    """Lines end at LF only, so that U+2028 inside a row does not split it."""
    try:
        with gzip.open(path) if path.name.endswith(".gz") else open(path, "rb") as file:
            for number, line in enumerate(file, start=1):
                place = f"{path}, line {number}"
                try:
                    if text := _text(place, line, number == 1).strip():
                        yield Row(place, _object(place, text))
                except _BadLineError as error:
                    if bad is None:
                        raise
                    bad(place, error.reason, str(error))
    except (EOFError, gzip.BadGzipFile) as error:
        raise DataError(f"{path}: not a whole gzip file ({error}). Fetch it again.") from error
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror}. Check the path and its rights.") from error


class _BadLineError(DataError):
    """One line of a JSONL file cannot be read."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def _text(place: str, line: bytes, first: bool) -> str:
    try:
        return line.decode("utf-8-sig" if first else "utf-8")
    except UnicodeDecodeError as error:
        raise _BadLineError(
            "not_utf8",
            f"{place}: not UTF-8 (byte {error.start} of the line is 0x{line[error.start]:02x}). Re-encode the file as UTF-8, "
            "for example with `iconv -f latin1 -t utf-8`.",
        ) from error


def _bytes(path: Path) -> bytes:
    try:
        data = path.read_bytes()
        return gzip.decompress(data) if path.name.endswith(".gz") else data
    except (EOFError, gzip.BadGzipFile) as error:
        raise DataError(f"{path}: not a whole gzip file ({error}). Fetch it again.") from error
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror}. Check the path and its rights.") from error


def _decoded(path: Path) -> str:
    data = _bytes(path)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        # The byte order mark is not counted by the decoder.
        at = error.start + 3 * data.startswith(b"\xef\xbb\xbf")
        line = data[:at].count(b"\n") + 1
        raise DataError(
            f"{path}, line {line}: not UTF-8 (byte {at} of the file is 0x{data[at]:02x}). Re-encode the file as UTF-8, "
            "for example with `iconv -f latin1 -t utf-8`."
        ) from error


def _first_byte(path: Path) -> bytes:
    if path.name.endswith(".gz"):
        return _bytes(path).removeprefix(b"\xef\xbb\xbf").lstrip()[:1]
    try:
        with open(path, "rb") as file:
            return file.read(4096).removeprefix(b"\xef\xbb\xbf").lstrip()[:1]
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror}. Check the path and its rights.") from error


def _json_array(path: Path) -> Iterator[Row]:
    try:
        rows = json.loads(_decoded(path))
    except json.JSONDecodeError as error:
        raise DataError(f"{path}, line {error.lineno}: not JSON ({error.msg} at column {error.colno}). The file must be one JSON list of objects.") from error
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict):
            raise DataError(f"{path}, row {number}: {_kind(row)} where a JSON object is expected.")
        yield Row(f"{path}, row {number}", row)


def _object(place: str, line: str) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except json.JSONDecodeError as error:
        raise _BadLineError("not_json", f"{place}: not JSON ({error.msg} at column {error.colno}). Each line must be one JSON object.") from error
    if not isinstance(value, dict):
        raise _BadLineError("not_json", f"{place}: {_kind(value)} where a JSON object is expected.")
    return value


def _csv(path: Path, delimiter: str) -> Iterator[Row]:
    csv.field_size_limit(CSV_FIELD_LIMIT)
    reader = csv.DictReader(io.StringIO(_decoded(path), newline=""), delimiter=delimiter, strict=True)
    try:
        for number, row in enumerate(reader, start=1):
            if None in row:
                width = len(reader.fieldnames or ())
                raise DataError(f"{path}, row {number}: more cells than the {width} columns of the header. Quote cells that hold {delimiter!r}.")
            yield Row(f"{path}, row {number}", row)
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num}: not CSV ({error}).") from error


def _parquet(path: Path) -> Iterator[Row]:
    import pyarrow.parquet as parquet  # type: ignore[import-untyped]

    try:
        file = parquet.ParquetFile(path)
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: not a parquet file ({error}). Fetch it again.") from error
    number = 0
    for batch in file.iter_batches():
        for row in batch.to_pylist():
            number += 1
            yield Row(f"{path}, row {number}", row)


def fold(text: str) -> str:
    """Return the text without differences of case, spacing and Unicode form."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def prompt_key(text: str) -> str:
    """Return a hash that is equal for prompts that differ only in case, spacing or Unicode form (METHOD 7.4, exact overlap)."""
    return hashlib.sha256(fold(text).encode("utf-8", "surrogatepass")).hexdigest()[:16]


def ranked(rows: Iterable[T], ids: Iterable[str], *seed: Any) -> list[T]:
    """Return `rows` in a seeded random order that depends on each row's id alone.

    A row's rank never depends on the other rows: a smaller limit is a prefix of a larger one, and a set that shares ids with another
    one keeps their relative order.
    """
    keyed = sorted(zip(ids, rows, strict=True), key=lambda pair: (derive_seed(*seed, pair[0]), pair[0]))
    return [row for _, row in keyed]
