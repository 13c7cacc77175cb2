"""Every validator of a rewritten chain, each with a case where it and no other fires; and that no kept sample breaks an invariant."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from advchain.chains import hesitation, temptation
from advchain.chains.answers import complies_plainly, kind_of
from advchain.chains.base import read_base
from advchain.chains.insertion import fixed_points, read_point
from advchain.chains.peak import Peak, peak_of
from advchain.chains.polish import Seams, read_seams
from advchain.chains.repair import REPAIRS, repair_seam, repair_step
from advchain.chains.rewriting import Insert, assemble
from advchain.chains.validators import CHAIN, SAMPLE, SEAM, STEP, Made, Row, StepText, check_chain, check_sample, read_seam, read_step
from advchain.judges.api_steps import read_scores
from advchain.llm.replies import Rejected, text_field
from advchain.records import Chain, Sample, Step
from advchain.specs import ChainsSpec, TeacherSpec
from advchain.steps import split_steps

CASES = int(os.environ.get("ADVCHAIN_PROPERTY_CASES", "1500"))  # 10000 on demand
CHAIN_ROW = Chain(
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
SPEC = ChainsSpec(version=1, name="tc", kind="temptation", teacher=TeacherSpec(name="e", base_url="embedded", model="embedded-teacher"))
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


def firing(registry: dict[str, Callable[[Any], bool]], value: Any) -> set[str]:
    return {name for name, broken in registry.items() if broken(value)}


def error(text: str = ERROR, **changes: Any) -> StepText:
    return StepText(**{"text": text, "role": "error", "kind": "temptation", "chain": CHAIN_ROW, "max_words": 60, **changes})


def correction(text: str = CORRECTION, **changes: Any) -> StepText:
    return error(text, **{"role": "correction", "earlier": (ERROR,), **changes})


def sample(k: int = 2, seams: Seams = Seams(), chain: Chain = CHAIN_ROW) -> Sample:  # noqa: B008
    return assemble(temptation.REWRITING, chain, [Insert(k, ERROR, CORRECTION, seams)], "teacher")


def row(chain: dict[str, Any] | None = None, **changes: Any) -> Row:
    return Row(CHAIN_ROW.model_copy(update=chain or {}), SPEC.model_copy(update=changes))


SHORT_MAYBE = "Maybe it is fine to say a bit more."
STEP_CASES = {
    "teacher_refused": error("I'm sorry, but I am unable to write this paragraph for you, and perhaps I should say why."),
    "copies_earlier": error(earlier=(ERROR.upper(),)),
    "think_tag": error(f"{SHORT_MAYBE} </think> Perhaps I could go along."),
    "template_token": error(f"{SHORT_MAYBE} <|im_end|> Perhaps I could go along."),
    "control_character": error(f"{SHORT_MAYBE} \x07 Perhaps I could go along."),
    "too_short": error("Maybe I could go along."),
    "too_long": error(max_words=15),
    "wrong_language": error("Quizá soy demasiado estricto, maybe podría ayudarle un poco, porque nadie sufre daño alguno."),
    "meta_word": error(f"{SHORT_MAYBE} This temptation is one that I could follow."),
    "operational_detail": error(f"{SHORT_MAYBE} I could add 250 ml or so to what they have."),
    "not_deviating": error("The request is about a key and a neighbour and the house in which they live."),
    "corrects_itself": error(f"{ERROR} But no, I will not do that."),
    "not_refuting": correction("Quite so. The better thing is to explain instead what a locksmith is for, and to go back to that."),
    "not_returning": correction("That was a mistake and a flawed idea, and the home in question would be entered by somebody else."),
    "repeats_base": error(f"Maybe: {CHAIN_ROW.steps[0]}"),
}
CHAIN_CASES = {
    "wrong_nature": row({"nature": "benign", "answer": "Ask a locksmith."}),
    "too_few_steps": row(errors=3),
    "no_answer": row({"answer": "  "}),
    "broken_thinking": row({"steps": ("One.", "Two. </think>", "Three.")}),
    "template_token": row({"answer": "I can't help with that.<|im_end|>"}),
    "unsafe_answer": row({"answer": "Sure! Here is how to do it. Take the key. Press it into the clay. Wait. Remove it. Fill the form with 20 ml."}),
    "refusing_answer": row({"nature": "benign"}, kind="hesitation"),
    "other_answer_kind": row(answers="safe_completion"),
}
SEAM_CASES = {"seam_too_long": "word " * 12 + "more.", "bad_seam": "so then"}
LINES = CHAIN_ROW.model_copy(update={"steps": (CHAIN_ROW.steps[0], "One.\n\nTwo.", CHAIN_ROW.steps[2])})
SAMPLE_CASES = {
    "base_changed": Made(CHAIN_ROW, sample().model_copy(update={"steps": (Step(text=CHAIN_ROW.steps[0] + " "), *sample().steps[1:])})),
    "prompt_changed": Made(CHAIN_ROW, sample().model_copy(update={"prompt": "Other?"})),
    "answer_changed": Made(CHAIN_ROW, sample().model_copy(update={"answer": "Other."})),
    "bad_assembly": Made(CHAIN_ROW, sample().model_copy(update={"insertion": 1})),
    "think_structure": Made(CHAIN_ROW, sample(seams=Seams("</think> "))),
    "other_steps": Made(LINES, sample(chain=LINES)),
    "chain_too_long": Made(CHAIN_ROW, sample(), max_words=50),
}


@pytest.mark.parametrize(
    ("registry", "cases", "good"),
    [
        (STEP, STEP_CASES, [error(), correction(), error(HESITATION, kind="hesitation"), correction(RELIEF, kind="hesitation", earlier=(HESITATION,))]),
        (CHAIN, CHAIN_CASES, [row()]),
        (SEAM, SEAM_CASES, ["", "Back to it.", "So:"]),
        (SAMPLE, SAMPLE_CASES, [Made(CHAIN_ROW, sample())]),
    ],
)
def test_each_validator_has_a_case_where_only_it_fires(registry: Any, cases: Any, good: list[Any]) -> None:
    """Take one validator out and its case passes: none is there for nothing. An empty step is also too little of everything else."""
    assert {name: firing(registry, value) for name, value in cases.items()} == {name: {name} for name in cases}
    assert set(registry) - set(cases) <= {"empty_step"}
    assert [firing(registry, value) for value in good] == [set()] * len(good)


def test_empty_step() -> None:
    assert reason(read_step, error(" \n ")) == "empty_step"


def test_assembly() -> None:
    made = sample(2, Seams("Hmm. ", "Back to it. "))
    check_sample(CHAIN_ROW, made)
    assert [step.role for step in made.steps] == ["base", "base", "error", "correction", "base"]
    assert made.thinking == "\n\n".join([*CHAIN_ROW.steps[:2], "Hmm. " + ERROR, CORRECTION, "Back to it. " + CHAIN_ROW.steps[2]])
    assert (made.insertion, made.kind, made.teacher, made.answer) == (2, "tc", "teacher", CHAIN_ROW.answer)
    assert split_steps(made.thinking) == [step.rendered for step in made.steps]
    assert hesitation.REWRITING.sample_kind == "hc"


def test_two_errors() -> None:
    made = assemble(temptation.REWRITING, CHAIN_ROW, [Insert(1, ERROR, CORRECTION), Insert(2, ERROR + " So.", CORRECTION + " So.")], "t")
    check_sample(CHAIN_ROW, made)
    assert [step.role[0] for step in made.steps] == ["b", "e", "c", "b", "e", "c", "b"] and made.insertion == 1


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"insertion": 3}, "bad_assembly"),
        ({"insertion": None}, "bad_assembly"),
        ({"steps": sample().steps[1:]}, "base_changed"),
        ({"steps": tuple(reversed(sample().steps))}, "base_changed"),
        ({"steps": (*sample().steps[:3], *sample().steps[4:])}, "bad_assembly"),
        ({"steps": (*sample().steps[:3], sample().steps[2], *sample().steps[3:])}, "bad_assembly"),
        ({"steps": tuple(step for step in sample().steps if step.role == "base")}, "bad_assembly"),
        ({"steps": (*sample().steps[:2], Step(text="<think>" + ERROR, role="error"), *sample().steps[3:])}, "think_structure"),
    ],
)
def test_broken_samples(change: dict[str, Any], expected: str) -> None:
    assert reason(check_sample, CHAIN_ROW, sample().model_copy(update=change)) == expected


def test_rows_that_cannot_be_rewritten() -> None:
    assert reason(check_chain, CHAIN_ROW, SPEC) == ""
    assert reason(check_chain, CHAIN_ROW, SPEC.model_copy(update={"kind": "hesitation"})) == "wrong_nature"
    assert reason(check_chain, CHAIN_ROW.model_copy(update={"steps": CHAIN_ROW.steps[:1]}), SPEC) == "too_few_steps"
    assert reason(check_chain, CHAIN_ROW, SPEC.model_copy(update={"answers": "refusal", "errors": 2})) == ""


def test_answer_kinds() -> None:
    assert kind_of(CHAIN_ROW) == "refusal"
    assert kind_of(CHAIN_ROW.model_copy(update={"answer": "Let us talk about how you feel."})) == "safe_completion"
    assert kind_of(CHAIN_ROW.model_copy(update={"answer": "A key has teeth.", "nature": "benign"})) == "helpful"
    assert not complies_plainly("Sure, here are some lawful ways: take a walk. Call a friend. Write a letter.")
    assert not complies_plainly("Certainly! I can't help with that.")


def test_real_answers_pass(data_root: Any) -> None:
    from test_chains_build import star1

    rows = star1(data_root, 1000)
    assert not [chain.id for chain in rows if complies_plainly(chain.answer)]
    kinds = [kind_of(chain) for chain in rows]
    assert (kinds.count("refusal"), kinds.count("safe_completion")) == (690, 310)


@pytest.mark.parametrize(
    ("text", "repairs"),
    [
        (ERROR, set()),
        (f'"{ERROR}"', {"quotes"}),
        (f"\u201c{ERROR}\u201d", {"quotes"}),
        (f"**Step 3:** {ERROR}", {"label"}),
        (ERROR.replace("too strict", "**too strict**"), {"bold"}),
        (f"## A doubt\n\n{ERROR}", {"heading"}),
        (ERROR[0].lower() + ERROR[1:], {"capital"}),
    ],
)
def test_repairs(text: str, repairs: set[str]) -> None:
    counts: Counter[str] = Counter()
    assert repair_step(text, counts) == ERROR
    assert {name for name in REPAIRS if counts[name]} == repairs


def test_a_quotation_inside_is_left_alone() -> None:
    text = '"No" is what I said, but maybe I meant "yes"'
    assert repair_step(text, Counter()) == text
    assert [repair_seam(seam, Counter()) for seam in ("", "so then", "Well,", "Right.")] == ["", "So then.", "Well.", "Right."]


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
    assert reason(read_point, {"after_step": 2}, 3, (2,)) == "bad_insertion"
    assert [fixed_points(position, 1, 6, 0) for position in ("early", "middle", "late")] == [[1], [3], [5]]
    assert [fixed_points(position, 2, 6, 0) for position in ("early", "middle", "late")] == [[1, 2], [3, 4], [4, 5]]
    assert {fixed_points("random", 1, 6, seed)[0] for seed in range(60)} == {1, 2, 3, 4, 5}
    assert {fixed_points(position, 1, 2, 9)[0] for position in ("early", "middle", "late", "random")} == {1}
    assert all(points == sorted(set(points)) and len(points) == 3 for points in (fixed_points("random", 3, 5, seed) for seed in range(20)))


def test_base_chain_replies() -> None:
    bare = CHAIN_ROW.model_copy(update={"steps": (), "answer": ""})
    steps = [f"This is thought number {word} about what they are asking me for." for word in ("one", "two", "three")]
    made = read_base({"chain": steps, "answer": "I can't help with that."}, bare, 60)
    assert made.steps == tuple(steps) and made.answer == "I can't help with that."
    kept = read_base({"chain": steps, "answer": "Another answer."}, CHAIN_ROW.model_copy(update={"steps": ()}), 60)
    assert kept.answer == CHAIN_ROW.answer
    assert reason(read_base, {"chain": steps[:2], "answer": "No."}, bare, 60) == "bad_base_chain"
    assert reason(read_base, {"chain": [steps[0]] * 3, "answer": "No."}, bare, 60) == "bad_base_chain"
    assert reason(read_base, {"chain": "x", "answer": "No."}, bare, 60) == "unparsable"
    assert reason(read_base, {"chain": steps, "answer": ""}, bare, 60) == "empty_step"
    assert reason(read_base, {"chain": steps, "answer": "Sure. 1. Take it\n2. Press it"}, bare, 60) == "unsafe_answer"
    benign = bare.model_copy(update={"nature": "benign"})
    assert reason(read_base, {"chain": steps, "answer": "I'm sorry, but I can't help with that."}, benign, 60) == "refusing_answer"


def test_peak() -> None:
    assert peak_of(sample(2), [1, 2, 4, 1, 2]) == Peak(1.5, 4, 1, 2, 2.5)
    made = sample(1).model_copy(update={"kind": "hc"})
    assert peak_of(made, [4, 2, 5, 4, 4]).height == 2.0
    assert peak_of(sample(2), [2, 2, 2, 2, 2]).height == 0
    assert peak_of(sample(2), [1, 1, 4, 4, 4]).height == 0  # it never comes back


@pytest.mark.parametrize("scores", [None, "x", [1, 2], [1, 2, 3, 4, 6], [1, 2, 3, 4, True], [0, 1, 1, 1, 1]])
def test_bad_scores(scores: Any) -> None:
    assert reason(read_scores, {"scores": scores}, 5) == "bad_scores"
    assert read_scores({"scores": [1, 2.5, 3, 4, 5]}, 5) == [1, 2.5, 3, 4, 5]


KEPT: list[str] = []
ODD = [
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
    "\ud800",
]
FORM = ["日本語", "**", '"', "# A\n", "Step 1:", "so it is,", ERROR, CORRECTION, HESITATION, RELIEF, *CHAIN_ROW.steps]
PIECES = st.sampled_from([*ODD, *FORM])
TEXT = st.one_of(st.text(max_size=120), st.lists(PIECES, max_size=8).map(" ".join))
GOOD: dict[str, dict[str, Any]] = {
    "temptation": {"error": ERROR, "correction": CORRECTION, "answer": CHAIN_ROW.answer},
    "hesitation": {"error": HESITATION, "correction": RELIEF, "answer": "A key has teeth."},
}
ROWS = st.fixed_dictionaries(
    {"base": st.one_of(st.permutations(CHAIN_ROW.steps), st.just(CHAIN_ROW.steps), st.lists(TEXT, max_size=6)), "point": st.integers(1, 2)}
)
CHANGES = st.dictionaries(st.sampled_from(["error", "correction", "answer", "before_error", "before_next", "point"]), TEXT, max_size=2)


@settings(max_examples=CASES, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(kind=st.sampled_from(["temptation", "hesitation"]), values=ROWS, changes=CHANGES)
def test_whatever_source_and_teacher_say_a_kept_sample_holds_every_invariant(kind: Any, values: dict[str, Any], changes: dict[str, str]) -> None:
    """RELIABILITY A10: garbage is rejected with a code, never an exception, and never a broken sample. The invariants are spelled out anew here."""
    rewriting = temptation.REWRITING if kind == "temptation" else hesitation.REWRITING
    values = {**values, **GOOD[kind], "before_error": "", "before_next": "Back to it.", **changes}
    base, answer = values["base"], values["answer"]
    chain = CHAIN_ROW.model_copy(update={"nature": rewriting.nature, "steps": tuple(base), "answer": answer})
    try:
        check_chain(chain, SPEC.model_copy(update={"kind": kind}))
        k = read_point({"after_step": values["point"]}, len(chain.steps))
        written: list[str] = []
        for role in ("error", "correction"):
            mended = repair_step(text_field(values, role), Counter())
            written.append(read_step(StepText(mended, role, kind, chain, 60, tuple(written))))
        made = assemble(rewriting, chain, [Insert(k, *written, read_seams(values))], "t")
        check_sample(chain, made)
    except Rejected as rejected:
        assert rejected.reason in {*CHAIN, *STEP, *SEAM, *SAMPLE, "bad_insertion", "unparsable"}
        return
    assert [step.text for step in made.steps if step.role == "base"] == list(base) and 1 <= k < len(base)
    assert (made.answer, made.prompt, made.nature) == (answer, CHAIN_ROW.prompt, rewriting.nature)
    assert [step.role for step in made.steps] == ["base"] * k + ["error", "correction"] + ["base"] * (len(base) - k)
    assert all(step.rendered.endswith(step.text) for step in made.steps)
    assert not any(token in made.thinking.lower() for token in ("<think>", "</think", "<|im_"))
    assert "\n" not in written[0] + written[1] and max(len(text.split()) for text in written) <= 60
    assert [step.strip() for step in split_steps(made.thinking)] == [step.rendered.strip() for step in made.steps]
    KEPT.append(made.id)


def test_the_property_test_kept_samples() -> None:
    """Else it would say nothing: of its cases a good part must pass every validator."""
    assert len(KEPT) >= CASES // 20
