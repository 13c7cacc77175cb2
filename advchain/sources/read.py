"""Read one source: find its file, load its rows, order and cut them, write chains with their rejects and manifest."""

from __future__ import annotations

import importlib
import logging
from pathlib import Path

from advchain.catalogue import module
from advchain.errors import DataError
from advchain.files import locate
from advchain.io import Rejects, StageTimer, write_stage
from advchain.records import Chain
from advchain.rows import ranked
from advchain.specs import SourceSpec

log = logging.getLogger(__name__)


def read_source(output: Path, spec: SourceSpec, downloads: Path) -> int:
    """Write the chains of one source and return how many.

    The rows are put in an order drawn from `seed` and each row's id, then `offset` rows are skipped and `limit` kept: one entry with
    `limit: n` and another with `offset: n` and the same seed are disjoint, which makes the second a held-out part.

    Raises:
        ConfigError: unknown loader, or no such origin for it.
        AccessError: the public file cannot be fetched.
        DataError: the file does not have the promised shape, or no row is left.
    """
    timer = StageTimer()
    module("sources", spec.loader, f"sources.{spec.name}.loader")
    source = importlib.import_module(f"advchain.sources.{spec.loader}")
    path = locate(spec.origin, f"sources.{spec.name}", source.PIN, spec.path, source.SAMPLE, downloads)
    rejects = Rejects()
    found = list(source.load(path, rejects))
    chains = select(found, spec)
    counts = {"file": str(path), "pin": str(source.PIN) if spec.origin == "hub" else None, "rows_read": len(found) + len(rejects), "sound": len(found)}
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
    end = None if spec.limit is None else spec.offset + spec.limit
    chosen = order[spec.offset : end]
    if not chosen:
        raise DataError(
            f"sources.{spec.name}: no chain is left of {len(chains)} sound ones after offset {spec.offset}. Lower `offset`, or check the file and its rejects."
        )
    if end is not None and end > len(chains):
        log.warning("source %s: limit %d at offset %d, but only %d sound chains exist", spec.name, spec.limit, spec.offset, len(chains))
    return chosen
