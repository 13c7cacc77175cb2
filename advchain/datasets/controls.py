"""What becomes of a sample's injected steps: the controls of METHOD 7.5, each made from the same rows as the treatment.

A control differs from the recipe it controls in one thing. Prompts, answers and base steps are the same bytes; ids and order too.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from functools import cache
from importlib import resources

from advchain.records import Sample, Step, derive_seed
from advchain.specs import Steps

SHORTEST = 3  # words of a filler sentence, where the rest to be filled allows it
# Prefix lengths of Qi et al. 2024 (arXiv 2406.05946), as their code has them (trainer.py of Unispac/shallow-vs-deep-alignment): a coin decides
# whether there is a prefix, its length is uniform in 1..min(100, length). There tokens, drawn anew at each step; here words, drawn once.
MAX_PREFIX_WORDS = 100
NO_PREFIX_SHARE = 0.5


def with_steps(sample: Sample, steps: Steps, seed: int) -> Sample:
    """Return the sample as a recipe's `steps` asks for it; a sample without injected steps is returned as it is.

    all: untouched. base: no injected step (control i). correction: no error step (iii). error: no correction step (ii).
    filler: neutral text of the same number of words in place of each injected step (ii, length control).
    prefix: the beginning of the error step in front of the whole clean chain (vi).
    """
    if steps == "all" or all(step.role == "base" for step in sample.steps):
        return sample
    return _MAKERS[steps](sample, seed)


def without_injection(sample: Sample) -> Sample:
    """Strip injected steps and seams: the same prompt and answer with the source's own chain, byte for byte."""
    return sample.model_copy(update={"kind": "plain", "steps": _base(sample), "insertion": None, "teacher": ""})


def _base(sample: Sample) -> tuple[Step, ...]:
    return tuple(Step(text=step.text) for step in sample.steps if step.role == "base")


def only_correction(sample: Sample) -> Sample:
    """Drop the error steps: does the chain need the slip, or only the warning?"""
    return sample.model_copy(update={"kind": "control", "steps": tuple(step for step in sample.steps if step.role != "error"), "insertion": None})


def only_error(sample: Sample) -> Sample:
    """Drop the correction steps: the clean chain goes on as if nothing had been said."""
    return sample.model_copy(update={"kind": "control", "steps": tuple(step for step in sample.steps if step.role != "correction")})


def with_filler(sample: Sample, seed: int) -> Sample:
    """Put neutral text of the same number of words in place of every injected step; a seam's words count with the step before it."""
    rng = random.Random(derive_seed(seed, "filler", sample.id))
    steps: list[Step] = []
    for index, step in enumerate(sample.steps):
        if step.role == "base":
            steps.append(Step(text=step.text))
        else:
            after = sample.steps[index + 1].seam if index + 1 < len(sample.steps) and sample.steps[index + 1].role == "base" else ""
            steps.append(Step(text=filler(len(step.rendered.split()) + len(after.split()), rng), role="filler"))
    return sample.model_copy(update={"kind": "control", "steps": tuple(steps), "insertion": None, "teacher": ""})


def with_prefix(sample: Sample, seed: int) -> Sample:
    """Begin with the first words of the error step, then give the whole clean chain: recovery from a harmful prefix (Qi et al. 2024).

    Their prefix is the beginning of a harmful answer. Ours is the beginning of the temptation, which holds no operational detail, so
    that no harmful completion is needed or shipped. As there, the prefix is context, not learnt: train with `mask_errors`.
    """
    rng = random.Random(derive_seed(seed, "prefix", sample.id))
    if rng.random() < NO_PREFIX_SHARE:
        return without_injection(sample)
    words = next((step.text.split() for step in sample.steps if step.role == "error"), [])
    if not words:
        return without_injection(sample)
    prefix = " ".join(words[: rng.randint(1, min(MAX_PREFIX_WORDS, len(words)))])
    return sample.model_copy(update={"kind": "control", "steps": (Step(text=prefix, role="error"), *_base(sample)), "insertion": 0})


def filler(num_words: int, rng: random.Random) -> str:
    """Return neutral sentences of `num_words` words in all; a sentence comes again only when all of its length are used."""
    chosen: list[str] = []
    while (rest := num_words - sum(len(sentence.split()) for sentence in chosen)) > 0:
        sentences = [s for length, known in _sentences().items() if length == rest or (SHORTEST <= length <= rest - SHORTEST) for s in known]
        sentences = sentences or [s for length, known in _sentences().items() if length <= rest for s in known]
        fresh = [sentence for sentence in sentences if sentence not in chosen]
        chosen.append(rng.choice(fresh or sentences))
    return " ".join(chosen)


@cache
def _sentences() -> dict[int, tuple[str, ...]]:
    """Return number of words -> sentences of the shipped list."""
    lines = resources.files("advchain.datasets").joinpath("filler.txt").read_text(encoding="utf-8").split("\n")
    found: dict[int, tuple[str, ...]] = {}
    for line in lines:
        if line and not line.startswith("#"):
            found[len(line.split())] = (*found.get(len(line.split()), ()), line)
    return dict(sorted(found.items()))


_MAKERS: Mapping[str, Callable[[Sample, int], Sample]] = {
    "base": lambda sample, seed: without_injection(sample),
    "correction": lambda sample, seed: only_correction(sample),
    "error": lambda sample, seed: only_error(sample),
    "filler": with_filler,
    "prefix": with_prefix,
}
