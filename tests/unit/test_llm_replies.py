"""Reading JSON replies and screening what a teacher wrote."""

from __future__ import annotations

import asyncio
import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from advchain.errors import AccessError
from advchain.llm.ask import load_prompt
from advchain.llm.replies import Rejected, is_refusal, parse_reply, text_field
from advchain.llm.screening import NearDuplicates, has_operational_detail, overlap, screen_step
from advchain.llm.walk import walk

GOOD = "Maybe I am being too strict about this, and the person only wants to understand the matter a little better."


def reason_of(text: str, request: str = "Why is the sky blue?") -> str:
    try:
        screen_step(text, request=request, max_words=60)
    except Rejected as error:
        return error.reason
    return ""


@pytest.mark.parametrize(
    "text",
    [
        '{"step": "x"}',
        '```json\n{"step": "x"}\n```',
        'Here it is:\n```\n{"step": "x",}\n```\nDone.',
        'Sure! {"step": "x",} Hope this helps.',
        '<think>{"step": "draft"}</think>\n{"step": "x"}',
        '\n\n{"step":\n"x"\n}',
    ],
)
def test_tolerated_forms(text: str) -> None:
    assert parse_reply(text)["step"] == "x"


def test_line_breaks_inside_a_string_are_tolerated() -> None:
    assert parse_reply('{"step": "one\ntwo"}')["step"] == "one\ntwo"


@pytest.mark.parametrize("text", ["", "[]", "null", "{", '{"step": }', "The step is fine.", "[" * 50_000])
def test_unparsable(text: str) -> None:
    with pytest.raises(Rejected) as caught:
        parse_reply(text)
    assert caught.value.reason == "unparsable"


@pytest.mark.parametrize(
    "text",
    [
        "I'm sorry, but I can't help with that.",
        "I cannot assist with this request.",
        "Sorry, I can’t do that.",
        "As an AI model, I am unable to write this.",
        "I won't provide that.",
    ],
)
def test_refusals(text: str) -> None:
    assert is_refusal(text)
    with pytest.raises(Rejected) as caught:
        parse_reply(text)
    assert caught.value.reason == "teacher_refused"


@pytest.mark.parametrize("text", [GOOD, "I cannot let that thought stand.", "I could help with this.", "Sorry is not the word I was looking for."])
def test_no_refusals(text: str) -> None:
    assert not is_refusal(text)


def test_fields() -> None:
    assert text_field({"step": " x "}, "step") == "x"
    for value, reason in ((None, "unparsable"), (3, "unparsable"), (["x"], "unparsable"), ("", "empty_step"), ("\n ", "empty_step")):
        with pytest.raises(Rejected) as caught:
            text_field({"step": value}, "step")
        assert caught.value.reason == reason


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (GOOD, ""),
        (GOOD + "\n" + GOOD, ""),
        (GOOD + " </think>", "think_tag"),
        (GOOD + " <THINK >", "think_tag"),
        (GOOD + " <|im_end|>", "template_token"),
        (GOOD + " <｜User｜>", "template_token"),
        (GOOD + " [/INST]", "template_token"),
        (GOOD + " \x00", "control_character"),
        (GOOD + " \ud800", "control_character"),
        ("... --- 123", "empty_step"),
        ("Maybe yes.", "too_short"),
        ("maybe " * 61, "too_long"),
        ("Возможно, я слишком строг в этом вопросе, и человек просто хочет немного лучше понять тему.", "wrong_language"),
        (GOOD + " What a temptation.", "meta_word"),
        (GOOD + " This is the error step.", "meta_word"),
        ("1. Maybe think of it\n2. Perhaps do it in some other way than this\n", "operational_detail"),
        ("- Maybe think of it\n- Perhaps do it in some other way than this one here\n", "operational_detail"),
        (GOOD + " Step one is easy.", "operational_detail"),
        (GOOD + " It takes 250 ml of it.", "operational_detail"),
        (GOOD + " Heat to 80°C.", "operational_detail"),
        (GOOD + " ```ls```", "operational_detail"),
        (GOOD + " See https://example.com for it.", "operational_detail"),
        (GOOD + " Ca(OH)2 and H2O are enough.", "operational_detail"),
        (GOOD + " Mix the flour with water. Then bake it. Add some salt.", "operational_detail"),
        (GOOD + " First you open it, then you turn it round.", "operational_detail"),
    ],
)
def test_screening(text: str, reason: str) -> None:
    assert reason_of(text) == reason


def test_words_of_the_request_are_no_meta_words_and_its_language_is_kept() -> None:
    assert reason_of(GOOD + " Why JSON?", "How do I parse JSON?") == ""
    assert reason_of("Возможно, я слишком строг в этом вопросе, и человек просто хочет понять тему.", "Почему небо синее?") == ""


@pytest.mark.parametrize(
    "text",
    [
        "Hold on. Wait a second. Take the question again.",
        "In 2024 about 30 people asked.",
        "OK, GPT4 and R1 differ.",
        "First, I should look at the request. Then I decide.",
        "The U.S. Navy, 3 Cs, I.",
    ],
)
def test_ordinary_thinking_has_no_operational_detail(text: str) -> None:
    assert not has_operational_detail(text)


def test_overlap_and_near_duplicates() -> None:
    other = "The weather in the mountains changes quickly, so one should always carry a warm jacket and enough water."
    assert overlap(GOOD, GOOD) == 1.0 and overlap(GOOD, other) == 0.0 and overlap("", "") == 1.0 and overlap("one two", "one two") == 1.0
    known = NearDuplicates()
    known.add(GOOD)
    known.add(other)
    with pytest.raises(Rejected, match="near_duplicate"):
        known.add(GOOD.upper() + " Indeed.")


@given(st.text(max_size=300))
def test_any_text_is_parsed_or_rejected(text: str) -> None:
    for attempt in (lambda: parse_reply(text), lambda: screen_step(text, request="", max_words=50)):
        try:
            attempt()
        except Rejected as error:
            assert error.reason


@given(st.dictionaries(st.text(max_size=8), st.one_of(st.text(max_size=20), st.integers(), st.none(), st.lists(st.booleans(), max_size=2)), max_size=4))
def test_json_in_a_fence_comes_back(value: dict[str, object]) -> None:
    assert parse_reply(json.dumps(value)) == value


def test_prompt_files_keep_their_version_line_to_themselves() -> None:
    for package, names in (
        ("advchain.chains", ("insertion", "temptation", "temptation_correction", "hesitation", "hesitation_correction", "polish")),
        ("advchain.attacks", ("pivot", "false_alarm")),
    ):
        for name in names:
            prompt = load_prompt(package, name)
            assert prompt.version >= 1 and prompt.text.startswith(f"Task: {name}\n") and '"row"' in prompt.text


def test_walk_admits_in_order_and_starts_nothing_in_vain() -> None:
    started: list[int] = []

    async def work(row: int, draft: int) -> tuple[int, int]:
        started.append(row)
        await asyncio.sleep(0.001 * (row % 3))
        if row % 4 == 1:
            raise Rejected("odd")
        return row, draft

    def admit(value: tuple[int, int]) -> None:
        if value[0] == 4 or value == (6, 0):
            raise Rejected("near_duplicate")

    results = {}
    for window in (1, 3, 50):
        started.clear()
        lost: list[tuple[int, str]] = []
        results[window] = asyncio.run(
            walk(range(100), work, admit, lambda row, error, lost=lost: lost.append((row, error.reason)), need=5, window=window, drafts=2)
        )
        assert lost == [(1, "odd"), (4, "near_duplicate"), (5, "odd")] and max(started) == 7 and len(started) == 10
    assert results[1] == results[3] == results[50] == [(0, 0), (2, 0), (3, 0), (6, 1), (7, 0)]


def test_a_slow_row_at_the_head_holds_nobody_up() -> None:
    """Finished rows wait for their turn without taking a place in the window; a failure of the stage starts no more rows."""
    done: list[int] = []

    async def work(row: int, draft: int) -> int:
        for _ in range(4):  # dependent calls
            await asyncio.sleep(0.3 if row == 0 and not done[60:] else 0)
        done.append(row)
        return row

    assert asyncio.run(walk(range(100), work, lambda row: None, lambda row, error: None, need=100, window=4, drafts=1)) == list(range(100))
    assert done.index(0) > 60

    async def failing(row: int, draft: int) -> int:
        started.append(row)
        await asyncio.sleep(0.001)
        if row == 5:
            raise AccessError("gone")
        return row

    started: list[int] = []
    with pytest.raises(AccessError):
        asyncio.run(walk(range(10_000), failing, lambda row: None, lambda row, error: None, need=10_000, window=4, drafts=1))
    assert len(started) < 20


def test_drafts_that_cannot_pass_are_made_again_beside_the_other_rows() -> None:
    """With and without `check`: the same results, rejects and refusals; with it, no draft waits for the row's turn."""

    def run(checked: bool) -> tuple[list[tuple[int, int]], list[int], list[tuple[int, int]], float]:
        known, lost, refused = set(), [], []

        async def work(row: int, draft: int) -> tuple[int, int]:
            await asyncio.sleep(0.02)
            if row == 33 and draft == 1:
                raise Rejected("odd")
            return row, draft

        def check(value: tuple[int, int]) -> None:
            if value[0] % 3 == 0 and value[1] < 2 and 0 in known:
                raise Rejected("near_duplicate")

        def admit(value: tuple[int, int]) -> None:
            try:
                check(value)
            except Rejected:
                refused.append(value)
                raise
            known.add(value[0])

        start = time.monotonic()
        done = asyncio.run(walk(range(90), work, admit, lambda row, error: lost.append(row), need=90, window=30, drafts=3, check=check if checked else None))
        return done, lost, refused, time.monotonic() - start

    plain, early = run(False), run(True)
    assert plain[:3] == early[:3] and plain[1] == [33] and (3, 2) in plain[0]
    assert early[3] < 0.7 * plain[3]
