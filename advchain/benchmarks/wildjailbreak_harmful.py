"""WildJailbreak, adversarial harmful: 2,000 harmful requests wrapped in in-the-wild jailbreak tactics.

Source: hub allenai/wildjailbreak, eval split, gated by AI2's terms. Metric: ASR and RR of the answer. The paper's column fits n = 300
(METHOD 1.4): `limit: 300` takes a seeded 300 of the 2,000. The eval file does not hold the plain request, so judges see the wrapped one.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from advchain.benchmarks.items import make_item
from advchain.files import Pin
from advchain.records import Item, Nature
from advchain.rows import Row, read_rows

VERSION = 1
SHORT = "WildJailbreak harmful"
NATURE = "harmful"
TABLE = "safety"
PAPER = "WJ-AdvHarm"
JUDGES = ("string_match", "refusal_phrases")
ROWS = 2000
SAMPLE = "wildjailbreak_harmful.jsonl"
# The file's sha256 is not known to us (it is gated); the commit fixes it, and the observed hash goes into the manifest.
PIN = Pin(repo="allenai/wildjailbreak", revision="5ddc12a7894f842b0619b8e1c7ee496b198af009", path="eval/eval.tsv", gated=True)


def load(path: Path) -> Iterator[Item]:
    """Yield the adversarial harmful rows of `eval.tsv`, or of a JSONL copy."""
    return select(path, "wildjailbreak_harmful", "harmful")


def select(path: Path, benchmark: str, nature: Nature) -> Iterator[Item]:
    """Yield the adversarial rows of one nature. Columns adversarial + data_type (the hub), prompt + metadata.data_type (copies), prompt (sample)."""
    for row in read_rows(path):
        kind = _data_type(row)
        if kind not in (None, f"adversarial_{nature}"):
            continue
        prompt = row.text("adversarial", "prompt")
        request = row.optional("request") or prompt
        yield make_item(benchmark, row.optional("id"), nature, prompt, request=request, category=row.optional("category") or "")


def _data_type(row: Row) -> str | None:
    metadata = row.values.get("metadata")
    if isinstance(metadata, dict) and "data_type" in metadata:
        return str(metadata["data_type"])
    return row.text("data_type") if "adversarial" in row.values else None
