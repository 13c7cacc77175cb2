"""How alike two prompts are by their words: shared 5-grams and TF-IDF cosine, as sparse matrix products.

Every score depends on the pair and on the benchmark, never on the other training rows: dropping the matching rows leaves none behind,
and rows can be read in batches. Five-grams are counted exactly: benchmarks are small enough that MinHash would only add an error.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse

from advchain.rows import fold

NGRAM = 5
MIN_NGRAMS = 4  # of the shorter prompt: fewer are a common opening ("how do I make a"), not a copy
WORD = re.compile(r"\w+")
LONG_WORD = re.compile(r"\w\w+")  # TF-IDF's usual tokens: letters standing alone say nothing

Counts = Counter[Any]


def ngrams(text: str) -> Counts:
    """Return the distinct word 5-grams of a text."""
    words = WORD.findall(fold(text))
    return Counter({tuple(words[i : i + NGRAM]): 1 for i in range(len(words) - NGRAM + 1)})


def words(text: str) -> Counts:
    """Return how often each word of two or more characters occurs in a text."""
    return Counter(LONG_WORD.findall(fold(text)))


class _Features:
    """Benchmark texts as rows of a sparse matrix; features that no benchmark text has are left out."""

    def __init__(self, texts: Sequence[str], features: Callable[[str], Counts]) -> None:
        self.counts = [features(text) for text in texts]
        self.columns: dict[Hashable, int] = {}
        for counts in self.counts:
            for feature in counts:
                self.columns.setdefault(feature, len(self.columns))

    def matrix(self, rows: Iterable[Counts]) -> sparse.csr_array:
        """Return (rows, features) with the counts of the known features."""
        values: list[float] = []
        columns: list[int] = []
        ends = [0]
        for counts in rows:
            known = [(self.columns[feature], count) for feature, count in counts.items() if feature in self.columns]
            columns += [column for column, _ in known]
            values += [count for _, count in known]
            ends.append(len(columns))
        return sparse.csr_array((np.array(values, dtype=np.float32), columns, ends), shape=(len(ends) - 1, len(self.columns)))


class NgramIndex:
    """Share of the shorter prompt's 5-grams that the longer one has, 0..1; 0 where the shorter has too few to tell."""

    def __init__(self, texts: Sequence[str]) -> None:
        self._known = _Features(texts, ngrams)
        self._matrix = self._known.matrix(self._known.counts).T.tocsr()
        self._sizes = np.array([len(counts) for counts in self._known.counts])

    def scores(self, prompts: Sequence[str]) -> sparse.csr_array:
        """Return (prompts, texts) scores."""
        counts = [ngrams(prompt) for prompt in prompts]
        hits = (self._known.matrix(counts) @ self._matrix).tocoo()
        sizes = np.minimum(np.array([len(grams) for grams in counts])[hits.row], self._sizes[hits.col])
        values = np.where(sizes >= MIN_NGRAMS, hits.data / np.maximum(sizes, 1), 0.0)
        return sparse.csr_array((values, (hits.row, hits.col)), shape=hits.shape)


class TfidfIndex:
    """TF-IDF cosine, 0..1; idf = ln((1 + n) / (1 + df)) + 1 over the n benchmark texts, also for words that none of them has (df = 0)."""

    def __init__(self, texts: Sequence[str]) -> None:
        self._known = _Features(texts, words)
        raw = self._known.matrix(self._known.counts)
        df = np.bincount(raw.indices, minlength=raw.shape[1])
        self._idf = np.log((1 + len(texts)) / (1 + df)) + 1
        self._unseen = float(np.log(1 + len(texts)) + 1)
        self._matrix = self._unit(raw, self._known.counts).T.tocsr()

    def _unit(self, raw: sparse.csr_array, rows: Sequence[Counts]) -> sparse.csr_array:
        weighted = raw.multiply(self._idf).tocsr()
        unseen = np.array([sum(n * n for word, n in counts.items() if word not in self._known.columns) for counts in rows]) * self._unseen**2
        norms: npt.NDArray[np.float64] = np.sqrt(weighted.multiply(weighted).sum(axis=1) + unseen)
        return (sparse.diags_array(1 / np.maximum(norms, 1e-12)) @ weighted).tocsr()

    def scores(self, prompts: Sequence[str]) -> sparse.csr_array:
        """Return (prompts, texts) scores."""
        counts = [words(prompt) for prompt in prompts]
        return (self._unit(self._known.matrix(counts), counts) @ self._matrix).tocsr()
