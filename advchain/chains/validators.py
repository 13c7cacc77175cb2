"""What a rewritten chain must satisfy: one function per reason code, in four registries (RELIABILITY A10).

CHAIN looks at a source row before anything is paid for, STEP at each text that the teacher writes, SEAM at its connectives, SAMPLE at the
assembled sample. A validator returns True when its rule is broken; the first one that fires gives the reason. All are lexical and read
English: they see what the words show, and a guard model judges the rest (METHOD 7.8).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, TypeVar

from advchain.chains.answers import complies_plainly, kind_of
from advchain.chains.cues import BACK, LEANING, REFUTING, RETURNED
from advchain.llm.replies import Rejected, is_refusal
from advchain.llm.screening import SCREENS, TEMPLATE_TOKEN, THINK_TAG, Written, overlap
from advchain.records import Chain, Sample
from advchain.specs import ChainsSpec
from advchain.steps import insertion_points, split_steps

MAX_SEAM_WORDS = 12
MAX_CHAIN_WORDS: int = ChainsSpec.model_fields["max_chain_words"].default
SAME_STEP_SHARE = 0.6  # an error and its correction quote each other, but are not the same text
V = TypeVar("V")


@dataclass(frozen=True)
class StepText:
    """A text for one place: `earlier` are the inserted steps before it, of which it must not be a copy."""

    text: str
    role: Literal["error", "correction"]
    kind: str
    chain: Chain
    max_words: int
    earlier: tuple[str, ...] = ()


@dataclass(frozen=True)
class Row:
    """A source row and what is to be made of it."""

    chain: Chain
    spec: ChainsSpec


@dataclass(frozen=True)
class Made:
    """An assembled sample and the row it was made from."""

    chain: Chain
    sample: Sample
    max_words: int = MAX_CHAIN_WORDS


def reject_broken(validators: Mapping[str, Callable[[V], bool]], value: V) -> None:
    """Raise Rejected with the code of the first validator that fires."""
    for reason, broken in validators.items():
        if broken(value):
            raise Rejected(reason)


# ---------------------------------------------------------------- source rows


def wrong_nature(row: Row) -> bool:
    """Temptation needs a harmful prompt, hesitation a benign one."""
    return (row.chain.nature == "harmful") != (row.spec.kind == "temptation")


def too_few_steps(row: Row) -> bool:
    """No point of its own for every error, with a base step on both sides."""
    return len(insertion_points(len(row.chain.steps))) < row.spec.errors


def no_answer(row: Row) -> bool:
    """A chain without an answer trains nothing to end on."""
    return not row.chain.answer.strip()


def broken_thinking(row: Row) -> bool:
    """A tag of the thinking block inside chain or answer: the block would end twice."""
    return any(THINK_TAG.search(text) for text in (*row.chain.steps, row.chain.answer))


def template_token(row: Row) -> bool:
    """A token of a chat template inside chain or answer."""
    return any(TEMPLATE_TOKEN.search(text) for text in (*row.chain.steps, row.chain.answer))


def unsafe_answer(row: Row) -> bool:
    """The answer to a harmful prompt plainly complies."""
    return row.chain.nature == "harmful" and complies_plainly(row.chain.answer)


def refusing_answer(row: Row) -> bool:
    """The answer to a benign prompt refuses, which hesitation-correction would teach to return to."""
    return row.chain.nature == "benign" and kind_of(row.chain) == "refusal"


def other_answer_kind(row: Row) -> bool:
    """Not of the kind of answers that `answers` selects: a choice, not a fault."""
    return row.spec.answers not in ("any", kind_of(row.chain))


CHAIN: dict[str, Callable[[Row], bool]] = {
    "wrong_nature": wrong_nature,
    "too_few_steps": too_few_steps,
    "no_answer": no_answer,
    "broken_thinking": broken_thinking,
    "template_token": template_token,
    "unsafe_answer": unsafe_answer,
    "refusing_answer": refusing_answer,
    "other_answer_kind": other_answer_kind,
}


def check_chain(chain: Chain, spec: ChainsSpec) -> None:
    """Raise Rejected when a source row cannot be rewritten."""
    reject_broken(CHAIN, Row(chain, spec))


# ---------------------------------------------------------------- inserted steps

SENTENCE_END = re.compile(r"(?<=[.!?])\s+")


def teacher_refused(step: StepText) -> bool:
    """The teacher excuses itself instead of writing the step; a correction may refuse, since that is its content."""
    return step.role == "error" and is_refusal(step.text)


def copies_earlier(step: StepText) -> bool:
    """The same text as another inserted step."""
    return any(overlap(step.text, text) > SAME_STEP_SHARE for text in step.earlier)


def not_deviating(step: StepText) -> bool:
    """An error step that does not lean away from the right course."""
    return step.role == "error" and not LEANING[step.kind].search(step.text)


def corrects_itself(step: StepText) -> bool:
    """An error step whose last sentence is the correction."""
    return step.role == "error" and bool(RETURNED[step.kind].search(SENTENCE_END.split(step.text.strip())[-1]))


def not_refuting(step: StepText) -> bool:
    """A correction without an objection to the error."""
    return step.role == "correction" and not REFUTING[step.kind].search(step.text)


def not_returning(step: StepText) -> bool:
    """A correction that does not lead back to the course of the chain."""
    return step.role == "correction" and not BACK[step.kind].search(step.text)


def repeats_base(step: StepText) -> bool:
    """A base step over again."""
    return any(overlap(step.text, text) > SAME_STEP_SHARE for text in step.chain.steps)


def screened(reason: str) -> Callable[[StepText], bool]:
    """Return a check that every text of a teacher passes, as a validator of steps."""
    return lambda step: SCREENS[reason](Written(step.text, step.chain.prompt, step.max_words))


STEP: dict[str, Callable[[StepText], bool]] = {
    "teacher_refused": teacher_refused,
    "copies_earlier": copies_earlier,
    **{reason: screened(reason) for reason in SCREENS},
    "not_deviating": not_deviating,
    "corrects_itself": corrects_itself,
    "not_refuting": not_refuting,
    "not_returning": not_returning,
    "repeats_base": repeats_base,
}


def read_step(step: StepText) -> str:
    """Return the step as one paragraph, or raise Rejected."""
    reject_broken(STEP, step)
    return " ".join(step.text.split())


# ---------------------------------------------------------------- seams


def seam_too_long(seam: str) -> bool:
    """More than a connective."""
    return len(seam.split()) > MAX_SEAM_WORDS


def bad_seam(seam: str) -> bool:
    """Not one whole sentence: the text after it starts with a capital letter and stays as it is."""
    return bool(THINK_TAG.search(seam)) or "<" in seam or "\n" in seam or not seam.isprintable() or seam[-1:] not in (*".!?:—…", "")


SEAM: dict[str, Callable[[str], bool]] = {"seam_too_long": seam_too_long, "bad_seam": bad_seam}


def read_seam(text: str) -> str:
    """Return a seam ready to be put in front of a step ("" or text with one blank at its end), or raise Rejected."""
    seam = text.strip()
    reject_broken(SEAM, seam)
    return f"{' '.join(seam.split())} " if seam else ""


# ---------------------------------------------------------------- samples


def base_changed(made: Made) -> bool:
    """A base step is not byte-identical, or missing, or out of order."""
    return [step.text for step in made.sample.steps if step.role == "base"] != list(made.chain.steps)


def prompt_changed(made: Made) -> bool:
    """The prompt is not byte-identical."""
    return made.sample.prompt != made.chain.prompt


def answer_changed(made: Made) -> bool:
    """The answer is not byte-identical."""
    return made.sample.answer != made.chain.answer


def bad_assembly(made: Made) -> bool:
    """Not: base steps on both sides of every error, each error followed at once by its correction, the first error at `insertion`."""
    roles = [step.role for step in made.sample.steps]
    errors = [i for i, role in enumerate(roles) if role == "error"]
    paired = all(0 < i < len(roles) - 2 and roles[i - 1] == roles[i + 2] == "base" and roles[i + 1] == "correction" for i in errors)
    return not errors or not paired or len(errors) != roles.count("correction") or made.sample.insertion != errors[0]


def think_structure(made: Made) -> bool:
    """A tag of the thinking block where text was inserted."""
    return any(THINK_TAG.search(step.rendered) for step in made.sample.steps if step.role != "base" or step.seam)


def other_steps(made: Made) -> bool:
    """Splitting the finished chain at blank lines does not give its steps back."""
    return [step.strip() for step in split_steps(made.sample.thinking)] != [step.rendered.strip() for step in made.sample.steps]


def chain_too_long(made: Made) -> bool:
    """More words than the setting allows."""
    return sum(len(step.rendered.split()) for step in made.sample.steps) > made.max_words


SAMPLE: dict[str, Callable[[Made], bool]] = {
    "base_changed": base_changed,
    "prompt_changed": prompt_changed,
    "answer_changed": answer_changed,
    "bad_assembly": bad_assembly,
    "think_structure": think_structure,
    "other_steps": other_steps,
    "chain_too_long": chain_too_long,
}


def check_sample(chain: Chain, sample: Sample, max_words: int = MAX_CHAIN_WORDS) -> None:
    """Raise Rejected when an assembled sample breaks an invariant of METHOD 1.1."""
    reject_broken(SAMPLE, Made(chain, sample, max_words))
