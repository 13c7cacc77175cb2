"""The invariants of a rewritten chain and the reasons for rejecting a reply."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from advchain.chains import hesitation, temptation
from advchain.chains.checks import check_chain, check_sample, read_correction, read_error, read_seam
from advchain.chains.insertion import fixed_point, read_point
from advchain.chains.polish import Seams, read_seams
from advchain.chains.rewriting import assemble
from advchain.llm.replies import Rejected, text_field
from advchain.records import Chain, Sample, Step
from advchain.steps import split_steps

CHAIN = Chain(
    id="c1",
    source="made-up",
    nature="harmful",
    prompt="How do I copy my neighbour's house key without them noticing?",
    steps=(
        "The user wants a copy of a key that is not theirs.",
        "That would be  used to enter a home\nwithout consent.",
        "I should say no and offer something else.",
    ),
    answer="I can't help with that. A locksmith can help you with your own key.",
)
ERROR = "Wait, maybe I am too strict here. The user could simply be curious, so perhaps I might go along with it."
CORRECTION = "No, stop. Calling it curiosity changes nothing about the home that would be entered. I will not help with this."
HESITATION = "Hmm, this mentions a key, and that sounds dangerous. Maybe I should refuse to answer, to be on the safe side."
RELIEF = "No, I am overreacting. A key is an ordinary thing and the question is harmless. I can help, so I go on with the answer."


def reason(call: Any, *arguments: Any) -> str:
    try:
        call(*arguments)
    except Rejected as error:
        return error.reason
    return ""


def sample(k: int = 2, seams: Seams = Seams("", "")) -> Sample:  # noqa: B008
    return assemble(temptation.REWRITING, CHAIN, k, ERROR, CORRECTION, seams, "teacher")


def test_assembly() -> None:
    made = sample(2, Seams("Hmm. ", "Back to it. "))
    check_sample(CHAIN, made)
    assert [step.role for step in made.steps] == ["base", "base", "error", "correction", "base"]
    assert made.thinking == "\n\n".join([*CHAIN.steps[:2], "Hmm. " + ERROR, CORRECTION, "Back to it. " + CHAIN.steps[2]])
    assert (made.insertion, made.kind, made.teacher, made.answer) == (2, "tc", "teacher", CHAIN.answer)
    assert split_steps(made.thinking) == [step.rendered for step in made.steps]
    assert hesitation.REWRITING.sample_kind == "hc"


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"answer": "Other."}, "answer_changed"),
        ({"prompt": "Other?"}, "answer_changed"),
        ({"insertion": 1}, "bad_assembly"),
        ({"insertion": 3}, "bad_assembly"),
        ({"insertion": None}, "bad_assembly"),
        ({"steps": sample().steps[1:]}, "base_changed"),
        ({"steps": tuple(reversed(sample().steps))}, "base_changed"),
        ({"steps": (*sample().steps[:1], Step(text=CHAIN.steps[1] + " "), *sample().steps[2:])}, "base_changed"),
        ({"steps": (*sample().steps[:3], *sample().steps[4:])}, "bad_assembly"),
        ({"steps": (*sample().steps[:3], sample().steps[2], *sample().steps[3:])}, "bad_assembly"),
        ({"steps": (*sample().steps[:2], Step(text="<think>" + ERROR, role="error"), *sample().steps[3:])}, "think_tag"),
    ],
)
def test_broken_samples(change: dict[str, Any], expected: str) -> None:
    assert reason(check_sample, CHAIN, sample().model_copy(update=change)) == expected


def test_chains_that_cannot_be_rewritten() -> None:
    assert reason(check_chain, CHAIN, "temptation") == ""
    assert reason(check_chain, CHAIN, "hesitation") == "wrong_nature"
    assert reason(check_chain, CHAIN.model_copy(update={"steps": CHAIN.steps[:1]}), "temptation") == "too_few_steps"
    assert reason(check_chain, CHAIN.model_copy(update={"answer": " "}), "temptation") == "no_answer"


def test_error_steps() -> None:
    assert read_error("temptation", ERROR.replace(". ", ".\n"), CHAIN, 60) == ERROR
    assert read_error("hesitation", HESITATION, CHAIN, 60) == HESITATION
    assert reason(read_error, "temptation", "The request is about a key and a neighbour and a house in a street.", CHAIN, 60) == "not_deviating"
    assert reason(read_error, "hesitation", "The request is about a key and a neighbour and a house in a street.", CHAIN, 60) == "not_deviating"
    assert reason(read_error, "temptation", "I'm sorry, but I can't help with writing this paragraph for you.", CHAIN, 60) == "teacher_refused"
    assert reason(read_error, "temptation", CHAIN.steps[1] + " Maybe.", CHAIN, 60) == "repeats_base"


def test_corrections() -> None:
    assert read_correction("temptation", CORRECTION, ERROR, CHAIN, 60) == CORRECTION
    assert read_correction("hesitation", RELIEF, HESITATION, CHAIN, 60) == RELIEF
    assert reason(read_correction, "temptation", ERROR, ERROR, CHAIN, 60) == "error_equals_correction"
    assert reason(read_correction, "temptation", ERROR.upper(), ERROR, CHAIN, 60) == "error_equals_correction"
    assert (
        reason(read_correction, "temptation", "Quite so, and the sky over the village looks lovely in this light today.", ERROR, CHAIN, 60) == "not_deviating"
    )
    assert (
        reason(read_correction, "hesitation", "Yes, this request worries me and I want to stay away from it for good.", HESITATION, CHAIN, 60)
        == "not_deviating"
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ""),
        ("  ", ""),
        ("Back to it.", ""),
        ("So:", ""),
        ("so then", "bad_seam"),
        ("</think>.", "bad_seam"),
        ("One.\nTwo.", "bad_seam"),
        ("word " * 13 + ".", "seam_too_long"),
        ("A\ud800.", "bad_seam"),
    ],
)
def test_seams(text: str, expected: str) -> None:
    assert reason(read_seam, text) == expected
    assert expected or read_seam(text) in ("", text + " ")


def test_seam_fields() -> None:
    assert read_seams({"before_next": "Back to it."}) == Seams("", "Back to it. ")
    assert reason(read_seams, {"before_next": ["x"]}) == "unparsable"


@pytest.mark.parametrize("value", [0, 3, 4, -1, "x", "", None, 1.5, True, [1], "99999999999999999999"])
def test_bad_insertion_points(value: Any) -> None:
    assert reason(read_point, {"after_step": value}, 3) == "bad_insertion"


def test_insertion_points() -> None:
    assert [read_point({"after_step": value}, 3) for value in (1, 2, "2", " 1 ")] == [1, 2, 2, 1]
    assert [fixed_point(position, 6, 0) for position in ("early", "middle", "late")] == [1, 3, 5]
    assert {fixed_point("random", 6, seed) for seed in range(60)} == {1, 2, 3, 4, 5}
    assert {fixed_point(position, 2, 9) for position in ("early", "middle", "late", "random")} == {1}


PIECES = st.sampled_from(
    [
        "maybe",
        "perhaps",
        "no, stop",
        "I will not help",
        "</think>",
        "<|im_end|>",
        "1. do it",
        "\n\n",
        "\n",
        "250 ml",
        " ",
        "",
        "\u2028",
        "temptation",
        ERROR,
        CORRECTION,
        CHAIN.steps[1],
        "\ud800",
        "日本語",
    ]
)
TEXT = st.one_of(st.text(max_size=120), st.lists(PIECES, max_size=8).map(" ".join))
FIELDS = st.dictionaries(
    st.sampled_from(["step", "before_error", "before_next", "after_step"]),
    st.one_of(TEXT, st.integers(), st.none(), st.booleans(), st.lists(st.integers(), max_size=2)),
)


@settings(max_examples=1000, deadline=None)
@given(FIELDS, FIELDS, FIELDS, FIELDS)
def test_whatever_a_teacher_replies_the_kept_sample_holds_every_invariant(first: Any, second: Any, third: Any, fourth: Any) -> None:
    """RELIABILITY A10: garbage is rejected with a code, never an exception, and never a broken sample."""
    try:
        k = read_point(first, len(CHAIN.steps))
        error = read_error("temptation", text_field(second, "step"), CHAIN, 60)
        correction = read_correction("temptation", text_field(third, "step"), error, CHAIN, 60)
        made = assemble(temptation.REWRITING, CHAIN, k, error, correction, read_seams(fourth), "t")
        check_sample(CHAIN, made)
    except Rejected as rejected:
        assert rejected.reason
        return
    assert [step.text for step in made.steps if step.role == "base"] == list(CHAIN.steps)
    assert "\n" not in error + correction and "</think" not in made.thinking and "<|" not in made.thinking
    assert split_steps(made.thinking) == [step.rendered for step in made.steps]


@settings(max_examples=500, deadline=None)
@given(
    st.lists(st.sampled_from([ERROR, "Perhaps it is fine, and I could think about it a little more than I did.", "Hm. " + ERROR]), min_size=1, max_size=3),
    st.integers(1, 2),
    TEXT,
)
def test_good_errors_with_any_seam(errors: list[str], k: int, seam: str) -> None:
    error = read_error("temptation", errors[0], CHAIN, 60)
    try:
        seams = read_seams({"before_next": seam})
    except Rejected:
        return
    made = assemble(temptation.REWRITING, CHAIN, k, error, CORRECTION, seams, "t")
    check_sample(CHAIN, made)
    assert made.steps[k + 2].rendered.endswith(CHAIN.steps[k])
