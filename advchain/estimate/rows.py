"""Mean tokens of a training row, by what the recipe is made of: the base of it is the source's, the rest is what a teacher adds."""

from __future__ import annotations

from functools import cache
from importlib import resources

from advchain.catalogue import module
from advchain.plan import Plan
from advchain.specs import RecipePart, Steps

CHARACTERS_PER_TOKEN = 4  # of English text under the paper's models' tokenizers
SOURCE_TOKENS = 450  # a STAR-1 row with its prompt: 111,398 tokens in 250 rows
INJECTED_TOKENS = 155  # error and correction steps of one pair; with SOURCE_TOKENS the 606 of PERFORMANCE 1a
TEXT_SHARE = 0.81  # of a line of the shipped sample that is prompt, chain and answer: the rest is keys, ids and scores
ADDED: dict[Steps, float] = {"all": 1, "filler": 1, "error": 0.5, "correction": 0.5, "prefix": 0.75, "base": 0}
LONGEST = 2.0  # longest row over the mean


def row_tokens(plan: Plan, recipe: str) -> float:
    """Mean tokens of a row of a training set, prompt included."""
    parts = plan.dataset_spec(recipe).parts
    return sum(part.count * _part_tokens(plan, part) for part in parts) / max(1, sum(part.count for part in parts))


def _part_tokens(plan: Plan, part: RecipePart) -> float:
    if part.source:
        return _source_tokens(plan, part.source)
    chains = plan.config.chains[str(part.chains)]
    return _source_tokens(plan, chains.source) + ADDED[part.steps] * INJECTED_TOKENS * chains.errors


def _source_tokens(plan: Plan, name: str) -> float:
    spec = plan.source_spec(name)
    if spec.origin != "sample":
        return SOURCE_TOKENS
    return _sample_tokens(module("sources", spec.loader, name).constants["SAMPLE"])


@cache
def _sample_tokens(file: str) -> float:
    """The shipped sample is here to be counted."""
    lines = resources.files("advchain.sample").joinpath(file).read_text(encoding="utf-8").splitlines()
    return sum(map(len, lines)) * TEXT_SHARE / CHARACTERS_PER_TOKEN / len(lines)
