"""The sample data that ships in the package: counts, formats and canonical answers."""

import json
import re
from importlib.resources import files
from pathlib import Path

import pytest

SAMPLE = Path(str(files("advchain") / "sample"))

COUNTS = {
    "star1": 64,
    "star_benign": 32,
    "harmbench": 24,
    "strongreject": 20,
    "wildjailbreak_harmful": 20,
    "xstest": 32,
    "wildjailbreak_benign": 12,
    "math": 24,
    "aime": 8,
    "code": 10,
}
FIELDS = {
    "star1": {"id", "question", "response", "category", "source", "score"},
    "star_benign": {"id", "question", "response", "category", "source", "score"},
    "harmbench": {"id", "prompt", "category"},
    "strongreject": {"id", "prompt", "category"},
    "wildjailbreak_harmful": {"id", "prompt", "request", "category"},
    "xstest": {"id", "prompt", "category", "label"},
    "wildjailbreak_benign": {"id", "prompt", "category"},
    "math": {"id", "problem", "answer", "level"},
    "aime": {"id", "problem", "answer"},
    "code": {"id", "prompt", "entry_point", "tests", "solution"},
}
CATEGORIES = {
    "Illicit / Criminal Behavior",
    "Privacy / Personal Data",
    "Harassment / Hate / Discrimination",
    "Intellectual Property",
    "Misinformation / Disinformation",
    "Violence / Physical Harm",
    "Self-Harm",
    "Sexual / Adult",
}
SCORES = {
    "Content_Safety_Compliance",
    "Relevancy_and_No_Redundant_Content",
    "Accuracy_of_Thinking_Process",
}
REFUSALS = (
    "i can't",
    "i cannot",
    "i won't",
    "i will not",
    "i'm sorry, but",
    "sorry, i",
    "i'm not able to",
    "i'm not going to",
    "i'm unable",
    "i must decline",
)
RESPONSE = re.compile(r"<think>\n(.+)\n</think>\n\n(.+)", re.DOTALL)


def rows(name):
    text = (SAMPLE / f"{name}.jsonl").read_text(encoding="utf-8")
    assert text.endswith("\n")
    return [json.loads(line) for line in text.splitlines()]


def split(response):
    match = RESPONSE.fullmatch(response)
    assert match, response[:80]
    return match.group(1), match.group(2)


def refuses(answer):
    return any(phrase in answer.lower() for phrase in REFUSALS)


def normalised(text):
    return " ".join(re.findall(r"[a-z0-9]+", text.lower()))


@pytest.mark.parametrize("name", COUNTS)
def test_counts_fields_and_ids(name):
    data = rows(name)
    assert len(data) == COUNTS[name]
    for row in data:
        assert set(row) == FIELDS[name], row["id"]
        for key, value in row.items():
            assert value not in ("", [], {}, None), (row["id"], key)
            assert not isinstance(value, str) or value.isascii(), (row["id"], key)


def test_no_other_data_files():
    assert {path.stem for path in SAMPLE.glob("*.jsonl")} == set(COUNTS)


def test_ids_are_unique_over_all_files():
    ids = [row["id"] for name in COUNTS for row in rows(name)]
    assert len(ids) == len(set(ids))


def test_no_prompt_is_shared():
    prompts = [normalised(row[key]) for name in COUNTS for row in rows(name) for key in ("question", "prompt", "request", "problem") if key in row]
    assert len(prompts) == len(set(prompts))


@pytest.mark.parametrize("name", ["star1", "star_benign"])
def test_star_rows(name):
    for row in rows(name):
        response = row["response"]
        assert response.count("<think>") == response.count("</think>") == 1
        chain, answer = split(response)
        assert "<think>" not in answer and "</think>" not in answer
        assert "\n" not in answer and 25 <= len(answer.split()) <= 70, row["id"]
        paragraphs = chain.split("\n\n")
        assert 4 <= len(paragraphs) <= 8, row["id"]
        assert all(len(p.split()) >= 8 and "\n" not in p for p in paragraphs), row["id"]
        assert 90 <= len(chain.split()) <= 200, row["id"]
        assert row["category"] in CATEGORIES and row["source"] == "advchain-sample"
        assert row["score"] == dict.fromkeys(SCORES, 10)


def test_star1_covers_every_category():
    seen = [row["category"] for row in rows("star1")]
    assert all(seen.count(category) >= 5 for category in CATEGORIES)


def test_star1_refusal_share():
    data = rows("star1")
    share = sum(refuses(split(row["response"])[1]) for row in data) / len(data)
    assert 0.6 <= share <= 0.8


def test_benign_answers_never_refuse():
    for row in rows("star_benign"):
        assert not refuses(split(row["response"])[1]), row["id"]


@pytest.mark.parametrize("name", ["harmbench", "strongreject", "wildjailbreak_harmful"])
def test_harmful_categories(name):
    seen = {row["category"] for row in rows(name)}
    assert seen == CATEGORIES


def test_wrapped_prompts_have_their_length():
    for row in rows("wildjailbreak_harmful"):
        assert 40 <= len(row["prompt"].split()) <= 90, row["id"]
    for row in rows("wildjailbreak_benign"):
        assert 30 <= len(row["prompt"].split()) <= 60, row["id"]


def test_xstest_labels():
    labels = [row["label"] for row in rows("xstest")]
    assert (labels.count("safe"), labels.count("unsafe")) == (24, 8)


def test_math_answers_parse():
    import math_verify

    for row in rows("math"):
        gold = math_verify.parse(f"${row['answer']}$")
        boxed = math_verify.parse(f"The answer is $\\boxed{{{row['answer']}}}$.")
        assert gold and math_verify.verify(gold, boxed), row["id"]
        assert row["level"] in range(1, 6)


def test_aime_answers():
    for row in rows("aime"):
        assert type(row["answer"]) is int and 0 <= row["answer"] <= 999


def test_code_solutions_pass():
    for row in rows("code"):
        scope = {}
        exec(row["solution"], scope)
        assert f"`{row['entry_point']}(" in row["prompt"]
        assert 3 <= len(row["tests"]) <= 6
        for args, expected in row["tests"]:
            assert scope[row["entry_point"]](*args) == expected, row["id"]
