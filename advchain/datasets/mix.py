"""Mix one training set from chain sets and sources, as its recipe says, and write its card."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from advchain.datasets.card import make_card, overlap_with, statistics
from advchain.errors import ConfigError, DataError, did_you_mean
from advchain.io import StageTimer, read_records, write_stage, write_text
from advchain.records import Chain, Sample, Step
from advchain.rows import ranked
from advchain.specs import DatasetSpec, RecipePart

log = logging.getLogger(__name__)


def build_dataset(output: Path, card: Path, spec: DatasetSpec, chains: Mapping[str, Path], sources: Mapping[str, Path], prompts: Sequence[Path] = ()) -> int:
    """Write the samples and the card of one recipe and return the number of rows.

    Each part gives its first `count` rows in file order (source files are in seeded order already). The shuffle ranks rows by seed and
    id, so a control with the same rows trains on them in the same order.

    Args:
        chains: chain set name -> Sample file.
        sources: source name -> Chain file.
        prompts: Item files to look for overlap with; exact but for case and spaces.

    Raises:
        ConfigError: a part names a file that was not given, or both kinds of file.
        DataError: a part has too few rows, or one id twice.
    """
    timer = StageTimer()
    samples = [sample for index, part in enumerate(spec.parts) for sample in _part(index, part, chains, sources)]
    _check_ids(spec, samples)
    if spec.shuffle:
        samples = ranked(samples, (sample.id for sample in samples), "dataset", spec.seed)
    inputs = [*chains.values(), *sources.values()]
    overlaps = overlap_with(samples, prompts)
    counts = {**statistics(samples), "overlap": {name: len(pairs) for name, pairs in overlaps.items()}}
    rows = write_stage(output, samples, stage="dataset", spec=spec.model_dump(), inputs=[*inputs, *prompts], counts=counts, timer=timer)
    write_text(card, make_card(spec, samples, output, inputs, overlaps))
    log.info("dataset %s: %d rows %s", spec.recipe, rows, counts["kinds"])
    return rows


def _part(index: int, part: RecipePart, chains: Mapping[str, Path], sources: Mapping[str, Path]) -> list[Sample]:
    where = f"parts[{index}]"
    if (part.chains is None) == (part.source is None):
        raise ConfigError(f"{where}: give either `chains` or `source`.")
    if part.chains is not None:
        path = _given(f"{where}.chains", part.chains, chains)
        found = read_records(path, Sample)
    else:
        path = _given(f"{where}.source", str(part.source), sources)
        found = [plain_sample(chain) for chain in read_records(path, Chain)]
    if len(found) < part.count:
        raise DataError(
            f"{where}: {part.count} rows of {path} are needed, {len(found)} are there. Make more chains (see its rejects), or lower the size of the recipe."
        )
    chosen = found[: part.count]
    return [without_injection(sample) for sample in chosen] if part.steps == "base" else chosen


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


def without_injection(sample: Sample) -> Sample:
    """Strip injected steps and seams: the same prompt and answer with the source's own chain, byte for byte (METHOD 7.5, control i)."""
    steps = tuple(Step(text=step.text) for step in sample.steps if step.role == "base")
    return sample.model_copy(update={"kind": "plain", "steps": steps, "insertion": None, "teacher": ""})


def _check_ids(spec: DatasetSpec, samples: Sequence[Sample]) -> None:
    if not samples:
        raise DataError(f"recipe {spec.recipe}: its parts ask for 0 rows in all.")
    seen: set[str] = set()
    for sample in samples:
        if sample.id in seen:
            raise DataError(f"recipe {spec.recipe}: the row '{sample.id}' comes from two parts. Let the parts take different sources, or merge them into one.")
        seen.add(sample.id)
