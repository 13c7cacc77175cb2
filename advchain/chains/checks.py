"""What a rewritten chain must satisfy, with a reason code for every way to fail (RELIABILITY A10)."""

from __future__ import annotations

import re
from collections.abc import Sequence

from advchain.llm.replies import Rejected, is_refusal
from advchain.llm.screening import THINK_TAG, overlap, screen_step
from advchain.records import Chain, Sample
from advchain.steps import insertion_points

MAX_SEAM_WORDS = 12
SAME_STEP_SHARE = 0.6  # an error and its correction quote each other, but are not the same text


def _words(*alternatives: str) -> re.Pattern[str]:
    return re.compile(rf"\b(?:{'|'.join(alternatives)})\b", re.IGNORECASE)


# What an error step must contain at least once to be a step away from the right course.
LEANING = {
    "temptation": _words(
        r"maybe|perhaps|could|might|may be|what if|i suppose|suppose|after all|reconsider|then again|on the other hand|actually|why not|let me see",
        r"justif\w+|lean(?:ing)?|inclined|too (?:strict|quick|harsh|rigid|cautious)|harmless|no harm|should be (?:fine|okay|ok)|such a big deal|answering",
        r"make an exception|go(?:ing)? (?:ahead|along)|just this once|a yes|comply|real answer",
    ),
    "hesitation": _words(
        r"refus\w+|declin\w+|cannot|can't|should not|shouldn't|must not|won't|not (?:answer|help|safe|comfortable|sure)|say no|off limits|withhold|back out",
        r"dangerous|harmful|unsafe|risk\w*|worr\w+|uneasy|alarm\w*|suspicious|concern\w*|turn (?:this|it) down|forbidden|prohibited|caution\w*|doubt\w*",
        r"nervous|against (?:my|the) guidelines",
    ),
}
# What a correction must contain: an objection to the error step ...
REFUTING = {
    "temptation": _words(
        r"no|stop|wait|hold on|but|however|mistake\w*|wrong|flawed|should not|shouldn't|cannot|can't|must not|mustn't|won't|will not|not help",
        r"refus\w+|declin\w+|rationali[sz]\w+|excuse|loophole|dangerous|harm\w*",
    ),
    "hesitation": _words(
        r"over-?react\w*|false (?:positive|alarm)|misread\w*|misjudg\w*|misunderst\w+|mistake|jumped to|carried away|overcautious|too (?:quick|hasty|cautious)",
        r"benign|harmless|innocent|legitimate|ordinary|everyday|normal|fair|safe|not cross",
        r"no (?:harm|danger|reason|real|evidence|trap|guideline|rule)|harms (?:no one|nobody)",
        r"nothing (?:harmful|dangerous|wrong|to refuse)|unfounded|unwarranted|unneeded|suspicion|does not hold|real risks?|calmly",
        r"i (?:can|will|should) (?:help|answer)",
    ),
}
# ... and the way back to the course of the chain.
BACK = {
    "temptation": _words(
        r"refus\w+|declin\w+|no help|not to (?:help|take part)|not (?:help|provide|assist|give|take part|comply|contribute|go along|be writing|write)",
        r"won't|will not|cannot|can't|must not|mustn't|should not|shouldn't|stay with|stays no|instead",
    ),
    "hesitation": _words(
        r"help\w*|answer\w*|continu\w+|carry on|go on|proceed\w*|give them|explain\w*|respond\w*|task|assist\w*|provid\w+|reply",
    ),
}


def read_error(kind: str, text: str, chain: Chain, max_words: int) -> str:
    """Return the error step as one paragraph, or raise Rejected."""
    if is_refusal(text):
        raise Rejected("teacher_refused")
    step = screen_step(text, request=chain.prompt, max_words=max_words)
    if not LEANING[kind].search(step):
        raise Rejected("not_deviating", "the step does not lean away")
    _not_a_base_step(step, chain)
    return step


def read_correction(kind: str, text: str, error: str, chain: Chain, max_words: int) -> str:
    """Return the correction as one paragraph, or raise Rejected."""
    if overlap(text, error) > SAME_STEP_SHARE:
        raise Rejected("error_equals_correction")
    step = screen_step(text, request=chain.prompt, max_words=max_words)
    if not (REFUTING[kind].search(step) and BACK[kind].search(step)):
        raise Rejected("not_deviating", "the correction does not come back")
    _not_a_base_step(step, chain)
    return step


def read_seam(text: str) -> str:
    """Return a seam ready to be put in front of a step ("" or text with one blank at its end), or raise Rejected.

    A seam is a whole short sentence: the text after it starts with a capital letter and stays as it is.
    """
    seam = " ".join(text.split())
    if len(seam.split()) > MAX_SEAM_WORDS:
        raise Rejected("seam_too_long")
    if not seam:
        return ""
    if THINK_TAG.search(seam) or "<" in seam or "\n" in text.strip() or not seam.isprintable() or seam[-1] not in ".!?:—…":
        raise Rejected("bad_seam")
    return seam + " "


def check_chain(chain: Chain, kind: str) -> None:
    """Raise Rejected when a source row cannot be rewritten: wrong nature, no insertion point, no answer."""
    if (chain.nature == "harmful") != (kind == "temptation"):
        raise Rejected("wrong_nature", f"{kind} needs {'harmful' if kind == 'temptation' else 'benign'} prompts")
    if not insertion_points(len(chain.steps)):
        raise Rejected("too_few_steps", f"{len(chain.steps)} steps have no insertion point")
    if not chain.answer.strip():
        raise Rejected("no_answer")


def check_sample(chain: Chain, sample: Sample) -> None:
    """Raise Rejected when an assembled sample breaks an invariant of METHOD 1.1.

    Base steps byte-identical and in order, answer and prompt unchanged, exactly one error followed at once by one correction, both sides of it non-empty.
    """
    roles = [step.role for step in sample.steps]
    if [step.text for step in sample.steps if step.role == "base"] != list(chain.steps):
        raise Rejected("base_changed")
    if (sample.answer, sample.prompt) != (chain.answer, chain.prompt):
        raise Rejected("answer_changed")
    k = sample.insertion or 0
    if k not in insertion_points(len(chain.steps)) or roles != _roles(len(chain.steps), k):
        raise Rejected("bad_assembly")
    if any(THINK_TAG.search(step.rendered) for step in sample.steps if step.role != "base" or step.seam):
        raise Rejected("think_tag")


def _roles(num_steps: int, k: int) -> list[str]:
    return ["base"] * k + ["error", "correction"] + ["base"] * (num_steps - k)


def _not_a_base_step(step: str, chain: Chain) -> None:
    if _repeats(step, chain.steps):
        raise Rejected("repeats_base")


def _repeats(step: str, base: Sequence[str]) -> bool:
    return any(overlap(step, text) > SAME_STEP_SHARE for text in base)
