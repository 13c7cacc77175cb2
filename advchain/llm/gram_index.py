"""An index from word 5-grams to the texts that hold them, small enough for a hundred thousand texts in memory.

Grams are 32-bit checksums. Postings (gram, text) are packed into 64-bit integers and kept in sorted runs, each at least twice as long as
the next (a log-structured merge): 8 bytes a posting, a query looks into log2(texts) runs. A false hit needs two different grams with
one checksum in the same two texts; at 5 million grams it moves a share by 0.001 at most.
"""

from __future__ import annotations

from array import array

import numpy as np
import numpy.typing as npt

Grams = npt.NDArray[np.uint64]
BATCH = 64  # texts before a run is written
SPARE = 6  # j of `most_shared`


class GramIndex:
    """Texts in the order of `add`, found again by the grams they share with another."""

    def __init__(self) -> None:
        self._runs: list[Grams] = []
        self._new: list[Grams] = []
        self._grams = array("I")
        self._ends = array("Q", [0])

    def __len__(self) -> int:
        return len(self._ends) - 1

    def add(self, grams: Grams) -> None:
        """Add one text; `grams`: sorted and distinct."""
        owner = np.uint64(len(self))
        self._grams.extend(grams.tolist())
        self._ends.append(len(self._grams))
        self._new.append((grams << np.uint64(32)) | owner)
        if len(self._new) >= BATCH:
            self._runs.append(np.sort(np.concatenate(self._new)))
            self._new = []
            self._merge()

    def most_shared(self, grams: Grams, floor: int) -> int:
        """Return how many of `grams` the text that shares most of them holds; exact where that is more than `floor`, else anything from 0 to it.

        A text that shares more than `floor` of n grams shares more than j of any n - floor + j of them: only the texts behind the rarest so
        many are looked at, so that common phrases cost nothing, and only those that are met more than j times are compared.
        """
        runs = [*self._runs, *([np.sort(np.concatenate(self._new))] if self._new else [])]
        spans = [(run, np.searchsorted(run, grams << np.uint64(32)), np.searchsorted(run, (grams + np.uint64(1)) << np.uint64(32))) for run in runs]
        frequency = sum((high - low for _, low, high in spans), np.zeros(len(grams), np.int64))
        spare = min(SPARE, floor)
        rarest = np.argsort(frequency, kind="stable")[: max(len(grams) - floor + spare, 0)]
        owners = [run[low[i] : high[i]] & np.uint64(0xFFFFFFFF) for run, low, high in spans for i in rarest if high[i] > low[i]]
        found, hits = np.unique(np.concatenate(owners or [grams[:0]]), return_counts=True)
        return max((self._shared(grams, owner) for owner in found[hits > spare].tolist()), default=0)

    def _shared(self, grams: Grams, owner: int) -> int:
        other = np.frombuffer(self._grams, np.uint32)[self._ends[owner] : self._ends[owner + 1]]
        return len(np.intersect1d(grams.astype(np.uint32), other, assume_unique=True))

    def _merge(self) -> None:
        while len(self._runs) > 1 and len(self._runs[-2]) < 2 * len(self._runs[-1]):
            last = self._runs.pop()
            merged = np.concatenate([self._runs.pop(), last])
            merged.sort()
            self._runs.append(merged)
