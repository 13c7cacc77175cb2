"""STAR-1: 1,000 harmful requests with policy-citing chains and safe answers by DeepSeek-R1.

Source: UCSC-VLAA/STAR-1 (Apache-2.0), the parent of the paper's temptation-correction rows (METHOD 1.1, 2). Fields id, question,
response (`<think>` chain, blank line, answer), category. No duplicate question; 32 questions are HarmBench behaviours, 2 of them of
the standard subset (METHOD 7.4).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from advchain.files import Pin
from advchain.manifests import Rejects
from advchain.records import Chain, Nature
from advchain.rows import Row
from advchain.sources.parse import Draft, build_chains

VERSION = 1
PIN = Pin(
    kind="github",
    repo="UCSC-VLAA/STAR-1",
    revision="b49333598887845f148ed1b4d2576dc2bff7581a",
    path="data/STAR-1.json",
    sha256="cfff9b23307914ecf8a94a1d5526f71f7144fcfc5f651741bea1ac41b3184db4",
)
SAMPLE = "star1.jsonl"


def load(path: Path, rejects: Rejects) -> Iterator[Chain]:
    """Yield the chains of a STAR-1 file (JSON list or JSONL)."""
    return build_chains(path, lambda row: star_draft(row, "harmful"), "star1", rejects)


def star_draft(row: Row, nature: Nature) -> Draft:
    """Return the draft of a row in STAR's format."""
    return Draft(row.optional("id"), row.text("question"), nature, row.texts("category"), row.text("response"))
