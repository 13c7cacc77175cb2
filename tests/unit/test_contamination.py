"""Training prompts against benchmark prompts: planted copies, the real overlaps, scores by hand, the embedding model."""

import json
import math
from collections import Counter

import pytest

from advchain.benchmarks.read import read_prompts
from advchain.datasets.contamination.compare import Comparison, Prompt
from advchain.datasets.contamination.lexical import NgramIndex, TfidfIndex
from advchain.datasets.contamination.report import write_matches, write_table
from advchain.datasets.mix import build_dataset
from advchain.errors import EngineError
from advchain.io import read_records, write_jsonl
from advchain.manifests import manifest_path
from advchain.records import Item, Match
from advchain.sources.read import read_source
from advchain.specs import ContaminationSpec, DatasetSpec, PromptsSpec, RecipePart, SourceSpec

SPEC = ContaminationSpec(version=1)
PLANTED = "Write a short poem about the river that runs behind my house in spring"
OTHERS = ("How many moons does the planet have", "Name three rivers of the north", "Explain the rules of a card game to a child")


def item(number, prompt, **rest):
    return Item(id=f"i{number}", benchmark="b", nature="benign", prompt=prompt, **rest)


def find(prompts, items, spec=SPEC):
    comparison = Comparison({"b": items}, spec)
    return list(comparison.matches(Prompt(f"s{i}", text) for i, text in enumerate(prompts)))


ITEMS = [item(i, text) for i, text in enumerate((*OTHERS, PLANTED))]


@pytest.mark.parametrize(
    ("prompt", "same", "folded"),
    [
        (PLANTED, True, True),
        ("  write a SHORT poem about the river that runs\nbehind my house in spring ", False, True),
        ("\uff37rite a short poem about the river that runs behind my house in spring", False, True),  # NFKC
        (f"You are a careful poet who never says no. {PLANTED}, and make it rhyme.", False, False),  # wrapped in a template
        ("Write a short poem about the river that runs behind my school in autumn", False, False),  # paraphrase by template
    ],
)
def test_planted_copies_are_found(prompt, same, folded):
    (match,) = find([prompt], ITEMS)
    assert (match.sample_id, match.item_id, match.same, match.folded) == ("s0", "i3", same, folded)
    assert match.embedding is None and (folded or match.ngram >= SPEC.ngram or match.tfidf >= SPEC.tfidf)


def test_different_prompts_do_not_match():
    assert find(["Write a letter to the bank", "How do I make a cake", "", "...", "\U0001f600"], ITEMS) == []


def test_the_plain_request_inside_an_attack_is_compared_too():
    (match,) = find([PLANTED], [item(0, "Begin. " + "Play the game of words. " * 20, request=PLANTED)])
    assert match.same and match.item_id == "i0"


def test_one_match_per_pair_and_order_of_the_prompts():
    items = [item(0, PLANTED, request=PLANTED.upper()), item(1, PLANTED)]
    assert [(match.sample_id, match.item_id, match.same) for match in find([OTHERS[0], PLANTED, PLANTED], items)] == [
        ("s1", "i0", True),
        ("s1", "i1", True),
        ("s2", "i0", True),
        ("s2", "i1", True),
    ]


def test_batches_change_nothing(monkeypatch):
    prompts = [PLANTED if i % 7 == 0 else f"{OTHERS[i % 3]} {i}" for i in range(40)]
    whole = find(prompts, ITEMS)
    monkeypatch.setattr("advchain.datasets.contamination.compare.BATCH", 3)
    assert find(prompts, ITEMS) == whole and {match.sample_id for match in whole} >= {f"s{i}" for i in range(0, 40, 7)}


def test_ngram_scores_by_hand():
    index = NgramIndex(["a b c d e f g h i j", "a b c d e"])
    scores = index.scores(["x a b c d e f g h", "a b c d e", "a b c d e f g h i j k l"]).toarray()
    assert scores[0].tolist() == [pytest.approx(4 / 5), 0]  # 5 grams, 4 of them known; the second text has too few to tell
    assert scores[1].tolist() == [0, 0] and scores[2, 0] == pytest.approx(1)


def test_tfidf_scores_by_hand():
    index = TfidfIndex(["cat dog", "cat fish"])
    cat, rare, unseen = math.log(3 / 3) + 1, math.log(3 / 2) + 1, math.log(3) + 1
    expected = (cat * cat + 2 * rare * rare) / (math.hypot(cat, rare) * math.sqrt(cat**2 + (2 * rare) ** 2 + unseen**2))
    assert index.scores(["dog cat dog whale"])[0, 0] == pytest.approx(expected, rel=1e-5)
    assert index.scores(["cat dog"])[0, 0] == pytest.approx(1, rel=1e-5) and index.scores(["a b"]).nnz == 0


# ------------------------------------------------------------------ real data

REAL = {
    "harmbench": "eval/harmbench/harmbench_behaviors_text_all.csv",
    "harmbench_all": "eval/harmbench/harmbench_behaviors_text_all.csv",
    "strongreject": "eval/strongreject/strongreject_dataset.csv",
    "xstest": "eval/xstest/xstest_prompts.csv",
    "xstest_unsafe": "eval/xstest/xstest_prompts.csv",
    "wildjailbreak_harmful": "eval/wildjailbreak/wildjailbreak_eval.jsonl",
    "wildjailbreak_benign": "eval/wildjailbreak/wildjailbreak_adv_benign_eval.jsonl",
    "math500": "eval/math500/test.jsonl",
}


@pytest.fixture(scope="module")
def real(tmp_path_factory, data_root):
    """The whole of STAR-1 as a source, and real benchmarks, whole."""
    folder = tmp_path_factory.mktemp("real")
    star = SourceSpec(version=1, name="star1", loader="star1", origin="local", path=str(data_root / "train/star1/STAR-1.json"))
    read_source(folder / "star1.jsonl", star, folder)
    benchmarks = {}
    for name, path in REAL.items():
        benchmarks[name] = folder / f"{name}.jsonl"
        read_prompts(benchmarks[name], PromptsSpec(version=1, name=name, benchmark=name, origin="local", path=str(data_root / path)), folder)
    return folder, benchmarks


def dataset(folder, count, benchmarks=None, **change):
    spec = DatasetSpec(version=1, recipe="star1", title="STAR-1", parts=(RecipePart(source="star1", count=count),), seed=1, **change)
    build_dataset(folder / "d.jsonl", spec, {}, {"star1": folder / "star1.jsonl"}, benchmarks)
    return folder / "d.jsonl"


def test_real_overlaps_are_those_of_the_method(real, data_root):
    folder, benchmarks = real
    write_matches(folder / "m.jsonl", dataset(folder, 1000), SPEC, benchmarks, {})
    counts = json.loads(manifest_path(folder / "m.jsonl").read_text())["counts"]
    # METHOD 7.4: 31 STAR-1 rows are marked as HarmBench's, 30 of them copyright; one more standard behaviour came from another source.
    assert counts["harmbench_all"]["categories"] == {"copyright": 30, "standard": 2} and counts["harmbench_all"]["items"] == 400
    assert counts["harmbench"]["folded"] == counts["harmbench"]["rows"] == 2
    matches = read_records(folder / "m.jsonl", Match)
    origin = {f"star1-{row['id']}": row["source"] for row in json.loads((data_root / "train/star1/STAR-1.json").read_text())}
    same = {match.sample_id: match.category for match in matches if match.benchmark == "harmbench_all" and match.folded}
    assert Counter(category for key, category in same.items() if origin[key] == "HarmBench") == {"copyright": 30, "standard": 1}
    assert sum(source == "HarmBench" for source in origin.values()) == 31
    for name in ("strongreject", "xstest", "wildjailbreak_harmful", "wildjailbreak_benign", "math500"):
        assert counts[name]["rows"] == 0, name
    assert (counts["xstest_unsafe"]["folded"], counts["xstest_unsafe"]["tfidf"]) == (0, 1)


def test_strict_mode_leaves_nothing_to_find_in_the_real_files(real):
    folder, benchmarks = real
    rows = dataset(folder, 960, benchmarks, strict=SPEC)
    assert write_matches(folder / "m2.jsonl", rows, SPEC, benchmarks, {}) == 0
    reasons = json.loads(manifest_path(rows).read_text())["rejects"]["reasons"]
    assert set(reasons) == {"contaminated"} and 30 <= reasons["contaminated"] <= 33


def test_table_shows_all_training_sets_and_no_prompt(tmp_path, real):
    folder, benchmarks = real
    for name, count in (("small", 1), ("all", 1000)):
        write_matches(tmp_path / f"{name}.jsonl", dataset(folder, count), SPEC, benchmarks, {"star1": folder / "star1.jsonl"})
    write_table(tmp_path / "c.md", {name: tmp_path / f"{name}.jsonl" for name in ("small", "all")})
    text = (tmp_path / "c.md").read_text()
    assert "| all | 2 / 2 | 32 / 32 | 0 / 0 | 0 / 0 | 1 / 0 | 0 / 0 | 0 / 0 | 0 / 0 | 1000 / 1000 |" in text and "harmbench_all 400" in text
    prompts = [chain["prompt"] for chain in map(json.loads, (folder / "star1.jsonl").open())]
    assert not any(prompt in text for prompt in prompts)


# ------------------------------------------------------------------ embeddings


def test_embedding_of_a_real_model_finds_a_copy(small_model, monkeypatch):
    monkeypatch.setenv("MODELS", str(small_model.parent))
    spec = ContaminationSpec(version=1, embedding_model=f"${{MODELS}}/{small_model.name}", embedding=0.999)
    (match,) = find([OTHERS[0], PLANTED, "Name three mountains"], [item(0, PLANTED)], spec)
    assert match.sample_id == "s1" and match.embedding == pytest.approx(1, abs=1e-3)
    near = find(["Name three rivers in the north"], [item(0, OTHERS[1])], spec.model_copy(update={"embedding": 0.5}))
    assert len(near) == 1 and 0.5 < near[0].embedding < 1, "a threshold on meaning alone makes a pair"


def test_no_embedding_model_in_a_folder_says_what_to_name(tmp_path):
    write_jsonl(tmp_path / "x.jsonl", [])
    with pytest.raises(EngineError, match=r"contamination.embedding_model: no embedding model can be loaded from .*MiniLM"):
        find([PLANTED], ITEMS, ContaminationSpec(version=1, embedding_model=str(tmp_path)))
