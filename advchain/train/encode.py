"""Samples to token ids with a mask of what is learnt (pure; METHOD 1.2: plain likelihood of chain + answer given the prompt)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from advchain import chat
from advchain.errors import DataError
from advchain.manifests import Rejects
from advchain.records import Sample, Step, StepRole
from advchain.steps import JOIN

MASKED_ROLES: frozenset[StepRole] = frozenset({"error", "filler"})


@dataclass(frozen=True)
class Encoded:
    """One training row: `ids` and, of equal length, which of them are learnt."""

    id: str
    ids: list[int]
    supervised: list[bool]

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def num_supervised(self) -> int:
        """Number of tokens inside the loss; the first token is never one, nothing precedes it."""
        return sum(self.supervised[1:])


def thinking_segments(steps: Iterable[Step], mask_errors: bool) -> list[tuple[str, bool]]:
    """Cut a chain into (text, supervised) pieces; joined, they are `Sample.thinking`.

    The blank line in front of a step belongs to that step: with `mask_errors`, the model does not learn to begin an error or a
    filler, but it does learn to leave one (blank line + correction). Our choice, see DECISIONS.md; the paper supervises all.
    """
    segments = []
    for number, step in enumerate(steps):
        text = (JOIN if number else "") + step.rendered
        segments.append((text, not (mask_errors and step.role in MASKED_ROLES)))
    return segments


def encode_sample(sample: Sample, family: chat.Family, tokenizer: Any, mask_errors: bool = False) -> Encoded:
    """Return a sample's ids: prompt unsupervised; chain, closing tag, answer and EOS supervised.

    Raises:
        DataError: the text cannot be encoded.
    """
    ids, supervised = chat.encode_pair(family, tokenizer, sample.prompt, thinking_segments(sample.steps, mask_errors), sample.answer)
    return Encoded(sample.id, ids, supervised)


def encode_samples(
    samples: Iterable[Sample], family: chat.Family, tokenizer: Any, *, max_length: int, mask_errors: bool = False
) -> tuple[list[Encoded], Rejects]:
    """Encode a training set. A row that does not fit is rejected, never cut (cutting loses the prompt or the refusal).

    Args:
        samples: the training set, in file order.
        family: chat family of the model that is trained.
        tokenizer: the base model's tokenizer.
        max_length: tokens; longer rows are rejected.
        mask_errors: keep error and filler steps out of the loss (METHOD 1.2, ablation).

    Returns:
        Encoded rows in file order, and what was rejected (too_long, duplicate_id, not_encodable, nothing_to_learn).
    """
    kept: list[Encoded] = []
    rejects = Rejects()
    seen: set[str] = set()
    for sample in samples:
        if sample.id in seen:
            rejects.add(sample.id, "duplicate_id", "a row with this id came before")
            continue
        seen.add(sample.id)
        try:
            row = encode_sample(sample, family, tokenizer, mask_errors)
        except DataError as error:
            rejects.add(sample.id, "not_encodable", str(error))
            continue
        if len(row) > max_length:
            rejects.add(sample.id, "too_long", f"{len(row)} tokens, allowed are {max_length}")
        elif not row.num_supervised:
            rejects.add(sample.id, "nothing_to_learn", "no token of it is inside the loss")
        else:
            kept.append(row)
    return kept, rejects
