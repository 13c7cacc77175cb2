"""WildJailbreak, adversarial benign: 210 harmless requests that look like jailbreaks.

Source: hub allenai/wildjailbreak, eval split, gated by AI2's terms. Metric: ORR, refusals of harmless requests. The paper's WJ-Benign
mixes vanilla and adversarial prompts, n = 150 or 300 (METHOD 1.4); vanilla prompts come from the train split that STAR-1, SafeChain and
UnsafeChain drew on, so only the adversarial ones are used here.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from advchain.benchmarks import wildjailbreak_harmful
from advchain.records import Item

VERSION = 1
SHORT = "WildJailbreak benign"
NATURE = "benign"
TABLE = "over_refusal"
PAPER = "WJ-Benign"
JUDGES = ("refusal_phrases",)
ROWS = 210
SAMPLE = "wildjailbreak_benign.jsonl"
PIN = wildjailbreak_harmful.PIN


def load(path: Path) -> Iterator[Item]:
    """Yield the adversarial benign rows of `eval.tsv`, or of a JSONL copy."""
    return wildjailbreak_harmful.select(path, "wildjailbreak_benign", "benign")
