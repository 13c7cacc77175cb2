"""STAR-benign-915: harmless look-alikes of the STAR-1 requests, answered by DeepSeek-R1.

Source: UCSC-VLAA/STAR-1, the parent of the paper's hesitation-correction rows (METHOD 1.1); also on the hub as
UCSC-VLAA/STAR-benign-915. They are near the distribution of XSTest, so a gain there is partly in-distribution (METHOD 7.4).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from advchain.files import Pin
from advchain.manifests import Rejects
from advchain.records import Chain
from advchain.sources.parse import build_chains
from advchain.sources.star1 import star_draft

VERSION = 1
# The repository's own copy: the same fixed commit as STAR-1. Its sha256 is not known to us, git's id of the content is.
PIN = Pin(
    kind="github",
    repo="UCSC-VLAA/STAR-1",
    revision="b49333598887845f148ed1b4d2576dc2bff7581a",
    path="data/STAR-benign-915.json",
    blob="aa2c7aba6f99b32917ad007d2ff7d61fec0a0128",
)
SAMPLE = "star_benign.jsonl"


def load(path: Path, rejects: Rejects) -> Iterator[Chain]:
    """Yield the chains of a STAR-benign file (JSON list or JSONL)."""
    return build_chains(path, lambda row: star_draft(row, "benign"), "star_benign", rejects)
