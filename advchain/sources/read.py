"""Read one source: find its file, load its rows, order and cut them, write chains with their rejects and manifest."""

from __future__ import annotations

import importlib
import logging
from collections import Counter
from pathlib import Path

from advchain.catalogue import module
from advchain.errors import DataError
from advchain.files import locate
from advchain.manifests import Rejects, StageTimer, keep_rejects, write_stage
from advchain.records import Chain
from advchain.rows import ranked
from advchain.specs import SourceSpec

log = logging.getLogger(__name__)


def read_source(output: Path, spec: SourceSpec, downloads: Path) -> int:
    """Write the chains of one source and return how many.

    The rows are put in an order drawn from `seed` and each row's id, then `offset` rows are skipped and `limit` kept: one entry with
    `limit: n` and another with `offset: n` and the same seed are disjoint, which makes the second a held-out part. With `stratify`, every
    beginning of the order holds the categories in proportion (METHOD 3 asks this of SafeChain's subset).

    Raises:
        ConfigError: unknown loader, or no such origin for it.
        AccessError: the public file cannot be fetched.
        DataError: the file does not have the promised shape, too many rows are unusable, or no row is left.
    """
    timer = StageTimer()
    module("sources", spec.loader, f"sources.{spec.name}.loader")
    source = importlib.import_module(f"advchain.sources.{spec.loader}")
    path = locate(spec.origin, f"sources.{spec.name}", source.PIN, spec.path, source.SAMPLE, downloads)
    rejects = Rejects()
    found = list(source.load(path, rejects))
    _check_share(output, spec, path, len(found), rejects)
    chains = select(found, spec)
    counts = {
        "file": str(path),
        "pin": str(source.PIN) if spec.origin == "hub" else None,
        "rows_read": len(found) + len(rejects),
        "sound": len(found),
        "category": dict(sorted(Counter(_category(chain) for chain in chains).items())),
    }
    rows = write_stage(output, chains, stage="source", spec=spec.model_dump(), inputs=[path], rejects=rejects, counts=counts, timer=timer)
    log.info(
        "source %s: %d of %d sound chains kept, %d rows rejected%s", spec.name, rows, len(found), len(rejects), f" {rejects.counts()}" if len(rejects) else ""
    )
    return rows


def select(chains: list[Chain], spec: SourceSpec) -> list[Chain]:
    """Return the part of the seeded order that `offset` and `limit` name.

    Raises:
        DataError: nothing is left; says how many rows there are.
    """
    order = ranked(chains, (chain.id for chain in chains), "source", spec.seed)
    order = stratified(order) if spec.stratify else order
    end = None if spec.limit is None else spec.offset + spec.limit
    chosen = order[spec.offset : end]
    if not chosen:
        raise DataError(
            f"sources.{spec.name}: no chain is left of {len(chains)} sound ones after offset {spec.offset}. Lower `offset`, or check the file and its rejects."
        )
    if end is not None and end > len(chains):
        log.warning("source %s: limit %d at offset %d, but only %d sound chains exist", spec.name, spec.limit, spec.offset, len(chains))
    return chosen


def stratified(order: list[Chain]) -> list[Chain]:
    """Spread each category evenly over the order: the i-th of its n rows goes to the place (i + 1/2) / n. First categories count."""
    sizes = Counter(_category(chain) for chain in order)
    seen: Counter[str] = Counter()
    places = []
    for chain in order:
        name = _category(chain)
        places.append((seen[name] + 0.5) / sizes[name])
        seen[name] += 1
    return [chain for _, chain in sorted(zip(places, order, strict=True), key=lambda pair: pair[0])]


def _category(chain: Chain) -> str:
    return chain.category[0] if chain.category else "none"


def _check_share(output: Path, spec: SourceSpec, path: Path, num_sound: int, rejects: Rejects) -> None:
    """Compare with the whole file, whatever part of it is taken; the reasons are written all the same."""
    total = num_sound + len(rejects)
    if total and len(rejects) / total > spec.max_reject_share:
        raise DataError(
            f"sources.{spec.name}: {len(rejects)} of {total} rows of {path} cannot be used ({rejects.counts()}), more than the allowed share of "
            f"{spec.max_reject_share:g}. Read {keep_rejects(output, rejects)}, check the file and its loader, or raise max_reject_share."
        )
