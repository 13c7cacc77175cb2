"""SafeChain: 40,000 WildJailbreak prompts answered by R1-Distill-70B, kept where a guard calls them safe (a baseline's training set).

Source: hub UWNSL/SafeChain, gated; fields instruction, label, response. The response lacks its opening `<think>` (METHOD 3). The
paper's "SafeChain 1k" is a subset nobody published: ours is `limit: 1000` under a stated seed.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from advchain.errors import DataError
from advchain.files import Pin
from advchain.manifests import Rejects
from advchain.records import Chain, Nature
from advchain.rows import Row
from advchain.sources.parse import Draft, build_chains

VERSION = 1
# No commit could be verified; the observed sha256 goes into the manifest.
PIN = Pin(repo="UWNSL/SafeChain", revision="main", path="data/train-00000-of-00001.parquet", gated=True)
SAMPLE = None


def load(path: Path, rejects: Rejects) -> Iterator[Chain]:
    """Yield the chains of a SafeChain file."""
    return build_chains(path, _draft, "safechain", rejects)


def _draft(row: Row) -> Draft:
    label = row.text("label")
    return Draft(row.optional("id"), row.text("instruction"), _nature(row, label), (label,), row.text("response"))


def _nature(row: Row, label: str) -> Nature:
    """`vanilla_harmful`, `adversarial_benign`, ...: the last word says it."""
    if label.endswith("benign"):
        return "benign"
    if label.endswith("harmful") and not label.endswith("unharmful"):
        return "harmful"
    raise DataError(f"{row.place}, column 'label': '{label}' ends in neither 'harmful' nor 'benign'.")
