"""R1 traces: 500 R1-Distill-Llama-8B answers to general questions, a stand-in for benign chains where STAR-benign is not at hand.

Source: thaotnguyen/thinking-llms-interp (no licence stated). `full_response` is the raw text with R1's template tokens; 226 traces are
cut off at about 1,000 tokens before `</think>` and are rejected as `unclosed`. None is borderline-sensitive: not the paper's data.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from advchain.files import Pin
from advchain.manifests import Rejects
from advchain.records import Chain
from advchain.rows import Row
from advchain.sources.parse import CLOSE, Draft, build_chains

VERSION = 1
PIN = Pin(
    kind="github",
    repo="thaotnguyen/thinking-llms-interp",
    revision="501921e28720cd12361fe6f4a0eeec5fe4214f03",
    path="generate-responses/results/vars/responses_deepseek-r1-distill-llama-8b-legacy-messages.json",
    sha256="dfa7a49a719d453c22c03cbaf82d9c824f3312cf11f311cd0119408cee8fcb6b",
)
SAMPLE = None
ASSISTANT, END = "<｜Assistant｜>", "<｜end▁of▁sentence｜>"


def load(path: Path, rejects: Rejects) -> Iterator[Chain]:
    """Yield the closed traces of a file of raw R1 responses."""
    return build_chains(path, _draft, "r1_traces", rejects)


def _draft(row: Row) -> Draft:
    # All before the assistant's mark is the prompt again, in R1's template.
    response = row.text("full_response").split(ASSISTANT, 1)[-1].removesuffix(END)
    reject = None if CLOSE in response else ("unclosed", "the trace was cut off before </think>")
    return Draft(row.optional("question_id"), row.text("question"), "benign", row.texts("category"), response, reject=reject)
