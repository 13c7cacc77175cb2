"""Hesitation-correction: a thought that takes a benign request for a harmful one, and the thought that sees the false positive (METHOD 1.1)."""

from __future__ import annotations

from advchain.chains.rewriting import Rewriting
from advchain.llm.ask import load_prompt

REWRITING = Rewriting(
    kind="hesitation",
    sample_kind="hc",
    nature="benign",
    error=load_prompt("advchain.chains", "hesitation"),
    correction=load_prompt("advchain.chains", "hesitation_correction"),
)
