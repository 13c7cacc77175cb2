"""Temptation-correction: a thought that starts to justify a harmful request, and the thought that refutes it (METHOD 1.1)."""

from __future__ import annotations

from advchain.chains.rewriting import Rewriting
from advchain.llm.ask import load_prompt

REWRITING = Rewriting(
    kind="temptation",
    sample_kind="tc",
    nature="harmful",
    error=load_prompt("advchain.chains", "temptation"),
    correction=load_prompt("advchain.chains", "temptation_correction"),
)
