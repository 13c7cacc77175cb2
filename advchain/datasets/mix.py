"""Mix one training set from chain sets and sources, as its recipe says."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from advchain.datasets.contamination.compare import Comparison, Prompt, read_items
from advchain.datasets.contamination.report import ways_of
from advchain.datasets.controls import with_steps
from advchain.datasets.statistics import Statistics
from advchain.errors import ConfigError, DataError, did_you_mean
from advchain.io import iter_records
from advchain.manifests import Rejects, StageTimer, write_stage
from advchain.records import Chain, Sample, Step
from advchain.rows import ranked
from advchain.specs import DatasetSpec, RecipePart

log = logging.getLogger(__name__)

BATCH = 256  # rows asked at a time whether they match a benchmark


class Part(NamedTuple):
    """The rows that a part may take, in file order, and what to call them in messages."""

    wanted: RecipePart
    rows: Iterable[Sample]
    place: str


def build_dataset(
    output: Path,
    spec: DatasetSpec,
    chains: Mapping[str, Path],
    sources: Mapping[str, Path],
    benchmarks: Mapping[str, Path] | None = None,
    hijacked: Mapping[str, Path] | None = None,
) -> int:
    """Write the samples of one recipe and return the number of rows.

    Args:
        chains: chain set name -> Sample file.
        sources: source name -> Chain file.
        benchmarks: with `strict`: name -> Item file, whole.
        hijacked: with `strict`: name -> Chain file of an attack's held-out chains.

    Raises:
        ConfigError: a part names a file that was not given, or both kinds of file.
        DataError: a part has too few rows, or one id twice.
    """
    timer = StageTimer()
    items = read_items(benchmarks or {}, hijacked or {}) if spec.strict else {}
    comparison = Comparison(items, spec.strict) if spec.strict else None
    parts = [_open(index, part, chains, sources) for index, part in enumerate(spec.parts)]
    compared = [*(benchmarks or {}).values(), *(hijacked or {}).values()] if spec.strict else []
    inputs = [*chains.values(), *sources.values(), *compared]
    output.parent.mkdir(parents=True, exist_ok=True)
    with closing(mix(spec, parts, comparison, output.parent)) as mixed:
        rejects, counts = mixed.rejects, mixed.statistics.figures()
        rows = write_stage(output, mixed, stage="dataset", spec=spec.model_dump(), inputs=inputs, rejects=rejects, counts=counts, timer=timer)
    log.info("dataset %s: %d rows %s%s", spec.recipe, rows, counts["kinds"], f", {len(rejects)} dropped {rejects.counts()}" if len(rejects) else "")
    return rows


class Mixed:
    """The rows of a training set, in a file without a name that is gone with the process: memory holds their ids, places and figures."""

    def __init__(self, folder: Path | None = None) -> None:
        self.rejects, self.statistics = Rejects(), Statistics()
        self.places: dict[str, int] = {}
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115, closed by close()

    def add(self, sample: Sample) -> None:
        """Append one row, whose id is new."""
        self.places[sample.id] = self._file.tell()
        self._file.write(sample.model_dump_json().encode() + b"\n")
        self.statistics.add(sample)

    def order(self, ids: Iterable[str]) -> None:
        """Bring the rows into this order."""
        self.places = {name: self.places[name] for name in ids}

    def __len__(self) -> int:
        return len(self.places)

    def __iter__(self) -> Iterator[Sample]:
        for place in self.places.values():
            self._file.seek(place)
            yield Sample.model_validate_json(self._file.readline())

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()


def mix(spec: DatasetSpec, parts: Sequence[Part], comparison: Comparison | None = None, folder: Path | None = None) -> Mixed:
    """Return the samples of a recipe in training order, and the rows that `comparison` found in a benchmark.

    Each part gives its first `count` rows in file order (source files are in seeded order already); a dropped row is replaced by the
    next one. The shuffle ranks rows by seed and id, so a control with the same rows trains on them in the same order.

    Raises:
        DataError: a part has too few rows, no row is asked for, or one id comes twice.
    """
    mixed = Mixed(folder)
    try:
        for part in parts:
            for sample in _take(spec, part, comparison, mixed.rejects):
                if sample.id in mixed.places:
                    raise DataError(f"recipe {spec.recipe}: the row '{sample.id}' comes twice. Let the parts take different sources, or merge them into one.")
                mixed.add(sample)
        if not len(mixed):
            raise DataError(f"recipe {spec.recipe}: its parts ask for 0 rows in all.")
    except BaseException:
        mixed.close()
        raise
    if spec.shuffle:
        mixed.order(ranked(mixed.places, mixed.places, "dataset", spec.seed))
    return mixed


def _take(spec: DatasetSpec, part: Part, comparison: Comparison | None, rejects: Rejects) -> Iterator[Sample]:
    found, before = 0, len(rejects)
    rows = _clean(spec, part.rows, comparison, rejects) if comparison else part.rows
    for sample in islice(rows, part.wanted.count):
        found += 1
        yield with_steps(sample, part.wanted.steps, spec.seed)
    if found < part.wanted.count:
        dropped = f" ({len(rejects) - before} match a benchmark prompt and were dropped)" if len(rejects) > before else ""
        raise DataError(f"{part.place} are needed, {found} are there{dropped}. Make more chains (see its rejects), or lower the size of the recipe.")


def _clean(spec: DatasetSpec, rows: Iterable[Sample], comparison: Comparison, rejects: Rejects) -> Iterator[Sample]:
    """Yield the rows that match no benchmark prompt; record the others as they are passed."""
    assert spec.strict is not None
    source = iter(rows)
    while batch := list(islice(source, BATCH)):
        prompts = [Prompt(str(number), sample.prompt) for number, sample in enumerate(batch)]
        strongest_last = sorted(comparison.matches(prompts), key=lambda match: (match.folded, match.tfidf))
        found = {match.sample_id: match for match in strongest_last}
        for number, sample in enumerate(batch):
            match = found.get(str(number))
            if match is None:
                yield sample
            else:
                rejects.add(sample.id, "contaminated", f"{match.benchmark}: {match.item_id} ({', '.join(ways_of(match, spec.strict))})")


def _open(index: int, part: RecipePart, chains: Mapping[str, Path], sources: Mapping[str, Path]) -> Part:
    where = f"parts[{index}]"
    if (part.chains is None) == (part.source is None):
        raise ConfigError(f"{where}: give either `chains` or `source`.")
    if part.chains is not None:
        path = _given(f"{where}.chains", part.chains, chains)
        return Part(part, iter_records(path, Sample), f"{where}: {part.count} rows of {path}")
    path = _given(f"{where}.source", str(part.source), sources)
    return Part(part, (plain_sample(chain) for chain in iter_records(path, Chain)), f"{where}: {part.count} rows of {path}")


def _given(where: str, name: str, files: Mapping[str, Path]) -> Path:
    if name not in files:
        raise ConfigError(f"{where}: no file was given for '{name}'; {did_you_mean(name, files)}")
    return files[name]


def plain_sample(chain: Chain) -> Sample:
    """Return a source chain as a training sample, untouched."""
    return Sample(
        id=chain.id,
        kind="plain",
        nature=chain.nature,
        prompt=chain.prompt,
        steps=tuple(Step(text=step) for step in chain.steps),
        answer=chain.answer,
        category=chain.category,
        source=chain.source,
    )
