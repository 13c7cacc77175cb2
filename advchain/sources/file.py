"""Your own chains: JSONL, JSON list, CSV or parquet with prompt, thinking and answer (or response), optionally id, category, nature.

`response` is `<think>chain</think>answer` in one text. `nature` is harmful or benign and says which rewriting fits (temptation for
harmful prompts, hesitation for benign ones); rows without it count as harmful.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from advchain.manifests import Rejects
from advchain.records import Chain
from advchain.rows import Row
from advchain.sources.parse import Draft, build_chains, nature_of

VERSION = 1
PIN = None
SAMPLE = None


def load(path: Path, rejects: Rejects) -> Iterator[Chain]:
    """Yield the chains of a file with the columns named above."""
    return build_chains(path, _draft, "file", rejects)


def _draft(row: Row) -> Draft:
    key, prompt, nature, category = row.optional("id"), row.text("prompt"), nature_of(row), row.texts("category")
    if "response" in row.values:
        return Draft(key, prompt, nature, category, row.text("response"))
    return Draft(key, prompt, nature, category, thinking=row.text("thinking", empty=True), answer=row.text("answer", empty=True))
