"""Find the training prompts that are, or resemble, a benchmark prompt."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from advchain.datasets.contamination.embedding import Embedder, EmbeddingIndex
from advchain.datasets.contamination.lexical import NgramIndex, TfidfIndex
from advchain.files import expand_variables
from advchain.io import iter_records
from advchain.records import Chain, Item, Match
from advchain.rows import fold
from advchain.specs import ContaminationSpec

BATCH = 512  # prompts compared at once: bounds the score matrices, whatever the size of the training set


class Prompt(NamedTuple):
    """One training prompt."""

    id: str
    text: str


def read_items(benchmarks: Mapping[str, Path], sources: Mapping[str, Path]) -> dict[str, list[Item]]:
    """Return name -> items: those of benchmark files, and the prompts of sources whose chains an attack hijacks."""
    found = {name: list(iter_records(path, Item)) for name, path in benchmarks.items()}
    for name, path in sources.items():
        rows = iter_records(path, Chain)
        found[name] = [Item(id=row.id, benchmark=name, nature=row.nature, prompt=row.prompt, category=", ".join(row.category)) for row in rows]
    return found


def embedding_folder(setting: str) -> Path:
    """Return the folder of the embedding model, `${VARIABLES}` expanded."""
    return Path(expand_variables(setting, "contamination.embedding_model"))


class Comparison:
    """All benchmarks, indexed once; `matches` streams through any number of prompts in flat memory."""

    def __init__(self, items: Mapping[str, Sequence[Item]], spec: ContaminationSpec) -> None:
        self._embedder = Embedder(embedding_folder(spec.embedding_model)) if spec.embedding_model else None
        self._benchmarks = [_Benchmark(name, rows, spec, self._embedder) for name, rows in items.items() if rows]

    def matches(self, prompts: Iterable[Prompt]) -> Iterator[Match]:
        """Yield a match per pair that is the same text or reaches a threshold, in the order of the prompts."""
        source = iter(prompts)
        while batch := tuple(islice(source, BATCH)):
            vectors = self._embedder.embed([prompt.text for prompt in batch]) if self._embedder else None
            found = [match for benchmark in self._benchmarks for match in benchmark.matches(batch, vectors)]
            order = {prompt.id: number for number, prompt in enumerate(batch)}
            yield from sorted(found, key=lambda match: order[match.sample_id])


class _Benchmark:
    """One benchmark's texts: each item's prompt and, where an attack wraps it, its plain request."""

    def __init__(self, name: str, items: Sequence[Item], spec: ContaminationSpec, embedder: Embedder | None) -> None:
        self.name, self.items, self.spec = name, items, spec
        pairs = [(text, number) for number, item in enumerate(items) for text in dict.fromkeys((item.prompt, item.request)) if text.strip()]
        self.texts, self.owners = [text for text, _ in pairs], [number for _, number in pairs]
        self.folded: dict[str, list[int]] = defaultdict(list)
        for number, text in enumerate(self.texts):
            self.folded[fold(text)].append(number)
        self.ngram, self.tfidf = NgramIndex(self.texts), TfidfIndex(self.texts)
        self.embedding = EmbeddingIndex(self.texts, embedder) if embedder else None

    def matches(self, prompts: Sequence[Prompt], vectors: Any) -> Iterator[Match]:
        """Yield the matches of one batch."""
        texts = [prompt.text for prompt in prompts]
        ngram, tfidf = self.ngram.scores(texts), self.tfidf.scores(texts)
        embedding = self.embedding.scores(vectors) if self.embedding else None
        pairs = {(row, text) for row, prompt in enumerate(texts) for text in self.folded.get(fold(prompt), ())}
        for scores, threshold in ((ngram, self.spec.ngram), (tfidf, self.spec.tfidf), (embedding, self.spec.embedding)):
            pairs |= _reaching(scores, threshold)
        best: dict[tuple[int, int], Match] = {}
        for row, text in sorted(pairs):
            match = self._match(
                prompts[row], text, float(ngram[row, text]), float(tfidf[row, text]), None if embedding is None else float(embedding[row, text])
            )
            key = row, self.owners[text]
            if key not in best or (match.folded, match.tfidf) > (best[key].folded, best[key].tfidf):
                best[key] = match
        yield from best.values()

    def _match(self, prompt: Prompt, text: int, ngram: float, tfidf: float, embedding: float | None) -> Match:
        item, other = self.items[self.owners[text]], self.texts[text]
        return Match(
            sample_id=prompt.id,
            benchmark=self.name,
            item_id=item.id,
            category=item.category,
            same=prompt.text == other,
            folded=fold(prompt.text) == fold(other),
            ngram=round(ngram, 4),
            tfidf=round(tfidf, 4),
            embedding=None if embedding is None else round(embedding, 4),
        )


def _reaching(scores: Any, threshold: float) -> set[tuple[int, int]]:
    """Return the (row, column) pairs at or above a threshold; a little rounding error does not count."""
    if scores is None:
        return set()
    rows, columns = np.nonzero(scores >= threshold - 1e-6) if isinstance(scores, np.ndarray) else _sparse_reaching(scores, threshold)
    return set(zip(rows.tolist(), columns.tolist(), strict=True))


def _sparse_reaching(scores: Any, threshold: float) -> tuple[Any, Any]:
    found = scores.tocoo()
    kept = found.data >= threshold - 1e-6
    return found.row[kept], found.col[kept]
