"""Source rows read on demand, in any order, without holding them: a hundred thousand rows take 8 bytes each."""

from __future__ import annotations

import random
from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import overload

from advchain.io import iter_records
from advchain.records import Chain


class SourceRows(Sequence[Chain]):
    """The rows of a source file in a seeded order.

    Raises:
        DataError: a row is not a Chain (all rows are checked at once); names line and column.
    """

    def __init__(self, path: Path, seed: int) -> None:
        self.path = Path(path)
        for _ in iter_records(self.path, Chain):
            pass  # a bad row stops the stage before anything is paid for
        self._offsets = array("Q")
        self._file = open(self.path, "rb")  # noqa: SIM115, closed by close()
        place = 0
        for line in self._file:
            if line.removeprefix(b"\xef\xbb\xbf").strip():
                self._offsets.append(place)
            place += len(line)
        random.Random(seed).shuffle(self._offsets)

    def __len__(self) -> int:
        return len(self._offsets)

    @overload
    def __getitem__(self, index: int) -> Chain: ...
    @overload
    def __getitem__(self, index: slice) -> list[Chain]: ...
    def __getitem__(self, index: int | slice) -> Chain | list[Chain]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        self._file.seek(self._offsets[index])
        return Chain.model_validate_json(self._file.readline().removeprefix(b"\xef\xbb\xbf"))

    def close(self) -> None:
        """Close the file."""
        self._file.close()
