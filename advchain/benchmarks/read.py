"""Read the prompts of one benchmark: find its file, load its items, take a seeded part, write them with their manifest."""

from __future__ import annotations

import importlib
import logging
from collections import Counter
from pathlib import Path

from advchain.catalogue import module
from advchain.errors import ConfigError, DataError
from advchain.files import locate
from advchain.manifests import StageTimer, write_stage
from advchain.records import Item
from advchain.rows import ranked
from advchain.specs import PromptsSpec

log = logging.getLogger(__name__)


def read_prompts(output: Path, spec: PromptsSpec, downloads: Path) -> int:
    """Write the items of one evaluation and return how many.

    The order is drawn from `seed` and each item's id, so that a smaller `limit` is a prefix of a larger one, and what one takes with `limit: n` and another
    with `offset: n` has no prompt in common. Items carry the evaluation's name as `benchmark`: two evaluations of one benchmark stay apart in the scores.

    Raises:
        ConfigError: unknown benchmark, no such origin for it, `offset` leaves no prompt, or an attack is asked for.
        AccessError: the public file cannot be fetched.
        DataError: the file does not have the promised shape or number of rows.
    """
    if spec.attack:
        raise ConfigError(f"{spec.name}: prompts of the attack '{spec.attack.name}' are made by its own script, not by the benchmark reader.")
    timer = StageTimer()
    items, path = load_items(spec, downloads)
    order = ranked(items, (item.id for item in items), "prompts", spec.seed)
    if spec.offset >= len(order):
        raise ConfigError(
            f"evaluation.benchmarks.{spec.name}.offset: {spec.offset}, but {path} holds {len(order)} prompts, so that none is left. Give a smaller one."
        )
    order = order[spec.offset :]
    chosen = [item.model_copy(update={"benchmark": spec.name}) for item in order[: spec.limit]]
    counts = {"file": str(path), "items_read": len(items), "category": dict(Counter(item.category for item in chosen).most_common())}
    rows = write_stage(output, chosen, stage="prompts", spec=spec.model_dump(), inputs=[path], counts=counts, timer=timer)
    log.info("prompts %s: %d of %d items", spec.name, rows, len(items))
    return rows


def load_items(spec: PromptsSpec, downloads: Path) -> tuple[list[Item], Path]:
    """Return all items of a benchmark in file order, and the file they were read from."""
    where = f"evaluation.benchmarks.{spec.name}"
    module("benchmarks", spec.benchmark, where)
    benchmark = importlib.import_module(f"advchain.benchmarks.{spec.benchmark}")
    path = locate(spec.origin, where, benchmark.PIN, spec.path, benchmark.SAMPLE, downloads)
    items = list(benchmark.load(path))
    repeated = [item_id for item_id, count in Counter(item.id for item in items).items() if count > 1]
    if repeated:
        raise DataError(f"{path}: {len(repeated)} ids stand for more than one prompt, the first is '{repeated[0]}'. Give each row its own id, or none.")
    expected = None if spec.origin == "sample" else benchmark.ROWS
    if not items or (expected and len(items) != expected):
        raise DataError(
            f"{path}: {len(items)} prompts of {spec.benchmark} found, {expected or 'at least 1'} expected. Check that this is the whole file; "
            "for a part or another version use `benchmark: file`."
        )
    return items, path
