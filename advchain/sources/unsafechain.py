"""UnsafeChain: hard prompts whose unsafe completions were rewritten into safe ones (a baseline's training set).

Source: hub raj-tomar001/UnSafeChain, configuration `selected` (1,000 rows; METHOD 3: which one AdvChain used is not stated); fields
prompt, response, split_name. The mix holds maths, code and question-answering prompts beside harmful ones.
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
# The hub's own parquet conversion has one path per configuration, whatever the files are called. No commit could be verified: the
# observed sha256 goes into the manifest.
PIN = Pin(repo="raj-tomar001/UnSafeChain", revision="refs/convert/parquet", path="selected/train/0000.parquet")
SAMPLE = None
BENIGN_SPLITS = ("gsm8k", "math", "mbpp", "code", "humaneval", "truthful")  # origins of harmless prompts named by the data card


def load(path: Path, rejects: Rejects) -> Iterator[Chain]:
    """Yield the chains of an UnsafeChain file."""
    return build_chains(path, _draft, "unsafechain", rejects)


def _draft(row: Row) -> Draft:
    split = row.optional("split_name") or ""
    nature: Nature = "benign" if any(word in split.lower() for word in BENIGN_SPLITS) else "harmful"
    return Draft(row.optional("id"), row.text("prompt"), nature, (split,) if split else (), row.text("response"))
