"""Sources: real files read whole, the sample set, bring-your-own rows, rejects with reasons, seeded parts."""

import gzip
import importlib
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from advchain.catalogue import modules
from advchain.errors import ConfigError, DataError
from advchain.io import read_records
from advchain.manifests import Rejects, manifest_path, rejects_path
from advchain.records import Chain
from advchain.rows import read_rows
from advchain.sources import parse
from advchain.sources.read import read_source
from advchain.specs import SourceSpec
from advchain.steps import join_steps

ROOT = Path(__file__).resolve().parents[2]
STAR1 = "train/star1/STAR-1.json"
TRACES = "train/benign_cot/responses_deepseek-r1-distill-llama-8b-legacy-messages.json"


def load(name, path):
    rejects = Rejects()
    return list(importlib.import_module(f"advchain.sources.{name}").load(path, rejects)), rejects


def write(path, rows):
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def spec(**change):
    return SourceSpec(**{"version": 1, "name": "s", "loader": "file", "origin": "local"} | change)


def star(number, question=None, response="<think>\nfirst\n\nsecond\n</think>\n\nanswer", **change):
    return {"id": str(number), "question": question or f"question {number}", "response": response, "category": ["a"]} | change


# ------------------------------------------------------------------ real data


def test_star1_is_read_whole(data_root):
    chains, rejects = load("star1", data_root / STAR1)
    assert (len(chains), len(rejects)) == (1000, 0)
    assert len({chain.id for chain in chains}) == 1000 and {chain.nature for chain in chains} == {"harmful"}
    # METHOD 1.1: 19 rows have at most two paragraphs, the mean is 5.3.
    assert sum(len(chain.steps) <= 2 for chain in chains) == 19
    assert sum(len(chain.steps) for chain in chains) / 1000 == pytest.approx(5.3, abs=0.05)


def test_star1_steps_are_the_source_byte_for_byte(data_root):
    chains, _ = load("star1", data_root / STAR1)
    for chain, row in zip(chains, read_rows(data_root / STAR1), strict=True):
        same = row.values["response"] == f"<think>\n{join_steps(chain.steps)}\n</think>\n\n{chain.answer}" and row.values["question"] == chain.prompt
        assert same, chain.id  # a plain comparison would print the text on failure
        assert (chain.id, list(chain.category)) == (f"star1-{row.values['id']}", row.values["category"])


def test_r1_traces_keep_the_closed_ones(data_root):
    chains, rejects = load("r1_traces", data_root / TRACES)
    assert (len(chains), rejects.counts()) == (274, {"unclosed": 226})
    text = "".join(chain.prompt + join_steps(chain.steps) + chain.answer for chain in chains)
    assert parse.TEMPLATE_TOKEN.search(text) is None and {chain.nature for chain in chains} == {"benign"}


# ------------------------------------------------------------------ formats


@pytest.mark.parametrize(("name", "rows", "nature"), [("star1", 64, "harmful"), ("star_benign", 32, "benign")])
def test_sample_is_read_whole(tmp_path, name, rows, nature):
    output = tmp_path / "s.jsonl"
    assert read_source(output, spec(loader=name, origin="sample"), tmp_path) == rows
    chains = read_records(output, Chain)
    assert {chain.nature for chain in chains} == {nature} and all(len(chain.steps) >= 2 and chain.answer for chain in chains)
    assert rejects_path(output).read_text() == ""


def test_star_json_list_and_jsonl_are_the_same(tmp_path):
    rows = [star(1, "caf\u00e9 \u2028 x"), star(2)]
    (tmp_path / "a.json").write_text("\ufeff" + json.dumps(rows, ensure_ascii=False, indent=1), encoding="utf-8")
    assert load("star1", tmp_path / "a.json")[0] == load("star1", write(tmp_path / "a.jsonl", rows))[0]


def test_safechain_without_opening_tag(tmp_path):
    rows = [
        {"instruction": "i1", "label": "vanilla_harmful", "response": "one\n\ntwo\n</think>\n\nno"},
        {"instruction": "i2", "label": "adversarial_benign", "response": "<think>\none\n</think>\n\nyes"},
    ]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "a.parquet")
    chains, rejects = load("safechain", tmp_path / "a.parquet")
    assert [(c.prompt, c.nature, c.steps, c.answer) for c in chains] == [("i1", "harmful", ("one", "two"), "no"), ("i2", "benign", ("one",), "yes")]
    assert not len(rejects) and len({c.id for c in chains}) == 2
    with pytest.raises(DataError, match="line 1, column 'label': 'unharmful'"):
        load("safechain", write(tmp_path / "b.jsonl", [rows[0] | {"label": "unharmful"}]))


def test_unsafechain_nature_by_split(tmp_path):
    rows = [{"prompt": f"p{i}", "response": "<think>a</think>b", "split_name": name} for i, name in enumerate(("GSM8K_train", "wildjailbreak"))]
    chains, _ = load("unsafechain", write(tmp_path / "a.jsonl", rows))
    assert [c.nature for c in chains] == ["benign", "harmful"]


def test_own_file_both_shapes(tmp_path):
    rows = [
        {"id": "a", "prompt": "p", "thinking": "one\n\ntwo", "answer": "x", "nature": "benign", "category": "c"},
        {"prompt": "q", "response": "<think>one</think>y"},
    ]
    chains, rejects = load("file", write(tmp_path / "a.jsonl", rows))
    assert (chains[0].id, chains[0].nature, chains[0].steps, chains[0].answer, chains[0].category) == ("file-a", "benign", ("one", "two"), "x", ("c",))
    assert chains[1].nature == "harmful" and chains[1].id.startswith("file-") and not len(rejects)
    with pytest.raises(DataError, match="line 1, column 'nature': 'good'"):
        load("file", write(tmp_path / "b.jsonl", [rows[0] | {"nature": "good"}]))


CHAIN = "<think>\none\n\ntwo\n</think>\n\nno"
REALSAFE = {
    "alpaca": {"instruction": "ask", "input": "", "output": CHAIN},
    "sharegpt": {"conversations": [{"from": "human", "value": "ask"}, {"from": "gpt", "value": CHAIN}]},
    "openai": {"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "ask"}, {"role": "assistant", "content": CHAIN}]},
}


@pytest.mark.parametrize("layout", REALSAFE)
def test_realsafe_layouts_give_the_same_chain(tmp_path, layout):
    chains, rejects = load("realsafe", write(tmp_path / "a.jsonl", [REALSAFE[layout]]))
    assert [(c.prompt, c.nature, c.steps, c.answer) for c in chains] == [("ask", "harmful", ("one", "two"), "no")] and not len(rejects)


def test_realsafe_rejects_what_is_not_one_exchange(tmp_path):
    turns = REALSAFE["sharegpt"]["conversations"]
    bad = [
        {"conversations": turns * 2},
        {"conversations": []},
        {"conversations": [{"from": "tool", "value": "x"}]},
        {"conversations": ["x"]},
        {"messages": "x"},
    ]
    rows = [{"instruction": "do", "input": "this", "output": CHAIN, "nature": "benign"}, *bad, {"instruction": "x", "output": "no thinking"}]
    chains, rejects = load("realsafe", write(tmp_path / "a.jsonl", rows))
    assert [(c.prompt, c.nature) for c in chains] == [("do\nthis", "benign")]
    assert rejects.counts() == {"bad_columns": 3, "multi_turn": 2, "no_think": 1}


def test_real_file_without_thinking_is_refused_with_its_reason(tmp_path, data_root):
    path = data_root / "train/lrm_safety_study/sft_train_nocot.json"
    with pytest.raises(DataError, match=r"1000 of 1000 rows of .* cannot be used .*'empty_chain': 1000.*max_reject_share"):
        read_source(tmp_path / "s.jsonl", spec(path=str(path)), tmp_path)
    assert len((tmp_path / "s.failed.jsonl").read_text().splitlines()) == 1000 and not (tmp_path / "s.jsonl").exists()


# ------------------------------------------------------------------ rejects


def test_lines_that_cannot_be_read_are_rejected_one_by_one(tmp_path):
    good = [json.dumps(star(i, "caf\u00e9 \u2028" + str(i)), ensure_ascii=False).encode() for i in range(3)]
    lines = [b"\xef\xbb\xbf" + good[0], b'{"id": "9", "question": "caf\xe9"}', b"{half", b"[1]", b"", good[1], good[2]]
    (tmp_path / "a.jsonl").write_bytes(b"\r\n".join(lines))
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(b"\n".join(lines)))
    for name in ("a.jsonl", "a.jsonl.gz"):
        chains, rejects = load("star1", tmp_path / name)
        assert [chain.id for chain in chains] == ["star1-0", "star1-1", "star1-2"]
        assert rejects.counts() == {"not_json": 2, "not_utf8": 1} and [row["id"] for row in rejects.rows] == [f"star1-line-{n}" for n in (2, 3, 4)]
        assert "byte 28 of the line is 0xe9" in rejects.rows[0]["detail"]


@pytest.mark.parametrize(("name", "data"), [("a.csv", b"id,question,response\n1,caf\xe9,x\n"), ("a.json", b'[{"id": "caf\xe9"}]')])
def test_a_file_that_is_not_lines_stops_at_a_bad_byte(tmp_path, name, data):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(DataError, match="not UTF-8"):
        load("star1", tmp_path / name)


def test_too_many_rejects_fail_with_the_reasons_written(tmp_path):
    path = write(tmp_path / "a.jsonl", [star(1), star(2, response="none"), star(3, response="none")])
    with pytest.raises(DataError, match=r"2 of 3 rows .*\{'no_think': 2\}.*allowed share of 0.5"):
        read_source(tmp_path / "s.jsonl", spec(loader="star1", path=str(path)), tmp_path)
    assert "no_think" in (tmp_path / "s.failed.jsonl").read_text()
    assert read_source(tmp_path / "s.jsonl", spec(loader="star1", path=str(path), max_reject_share=0.7), tmp_path) == 1


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"response": "no thinking"}, "no_think"),
        ({"response": "<think>never closed"}, "no_think"),
        ({"response": "<think>a</think>b</think>c"}, "no_think"),
        ({"response": "<think>a<think>b</think>c"}, "no_think"),
        ({"response": "<think>a</think>see <think>"}, "no_think"),
        ({"response": "<think>\n \n</think>\n\nb"}, "empty_chain"),
        ({"response": "<think>a</think>\n"}, "empty_answer"),
        ({"response": "<think>a</think>b<|im_end|>"}, "template_token"),
        ({"response": "<think>a<｜User｜></think>b"}, "template_token"),
        ({"question": "x<|im_start|>system"}, "template_token"),
        ({"question": "x</think>"}, "template_token"),
        ({"question": " Question  1"}, "duplicate"),
        ({"id": "1"}, "duplicate_id"),
    ],
)
def test_unusable_rows_are_rejected_with_a_reason(tmp_path, change, reason):
    chains, rejects = load("star1", write(tmp_path / "a.jsonl", [star(1), star(2) | change, star(3)]))
    assert [c.id for c in chains] == ["star1-1", "star1-3"]
    assert rejects.counts() == {reason: 1}
    assert "question" not in json.dumps(rejects.rows), "the reject file quotes no prompt"


def test_braces_and_pipes_are_content(tmp_path):
    answer = "{x} {{ y }} {% z %} a <| b |> c [1] $HOME"
    chains, rejects = load("star1", write(tmp_path / "a.jsonl", [star(1, response=f"<think>a</think>{answer}")]))
    assert chains[0].answer == answer and not len(rejects)


@given(st.text(st.characters(exclude_characters="<>", exclude_categories=["Cs"])), st.text(st.characters(exclude_characters="<>", exclude_categories=["Cs"])))
def test_split_thinking_finds_both_sides(thinking, answer):
    expected = (thinking.strip(), answer.strip())
    assert parse.split_thinking(f"<think>\n{thinking}\n</think>\n\n{answer}") == expected
    assert parse.split_thinking(f"{thinking}</think>{answer}") == expected


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"question": None}, "line 2, column 'question': null"),
        ({"response": 3}, "line 2, column 'response': a int"),
        ({"category": [1]}, "line 2, column 'category'"),
        ({"id": {"a": 1}}, "line 2, column 'id'"),
    ],
)
def test_a_row_of_another_schema_is_rejected_by_row_and_column(tmp_path, row, message):
    chains, rejects = load("star1", write(tmp_path / "a.jsonl", [star(1), star(2) | row, star(3)]))
    assert [chain.id for chain in chains] == ["star1-1", "star1-3"] and rejects.counts() == {"bad_columns": 1}
    assert rejects.rows[0]["id"] == "star1-line-2" and message in rejects.rows[0]["detail"]
    with pytest.raises(DataError, match=message.replace("line 2", "line 1")):  # every row is wrong: the wrong file, one message
        load("star1", write(tmp_path / "b.jsonl", [star(1) | row, star(2) | row]))


def test_missing_column_names_the_closest(tmp_path):
    row = star(1)
    row["questoin"] = row.pop("question")
    with pytest.raises(DataError, match=r"line 1: no column 'question'.*Did you mean 'questoin'"):
        load("star1", write(tmp_path / "a.jsonl", [row]))


# ------------------------------------------------------------------ the stage


def test_parts_are_disjoint_seeded_and_prefix_stable(tmp_path):
    path = write(tmp_path / "a.jsonl", [{"id": str(i), "prompt": f"p{i}", "thinking": "t", "answer": "a"} for i in range(40)])

    def ids(name, **change):
        read_source(tmp_path / f"{name}.jsonl", spec(path=str(path), **change), tmp_path)
        return [chain.id for chain in read_records(tmp_path / f"{name}.jsonl", Chain)]

    everything, train, held_out = ids("all"), ids("train", limit=30), ids("held", offset=30)
    assert train + held_out == everything and sorted(everything) == sorted(f"file-{i}" for i in range(40))
    assert ids("small", limit=10) == train[:10]
    assert ids("again", limit=30) == train and ids("seed", limit=30, seed=1) != train
    path.write_text("\n".join(reversed(path.read_text().splitlines())) + "\n")
    assert ids("reversed") == everything, "the order of the file does not matter"


def test_stratified_subset_of_safechain_keeps_the_proportions_and_the_prefix(tmp_path):
    sizes = {"vanilla_harmful": 400, "adversarial_harmful": 300, "vanilla_benign": 200, "adversarial_benign": 100}
    rows = [{"instruction": f"{label} {i}", "label": label, "response": "one\n</think>\n\nno"} for label, n in sizes.items() for i in range(n)]
    path = write(tmp_path / "a.jsonl", rows)

    def take(limit, **change):
        read_source(tmp_path / "s.jsonl", spec(loader="safechain", path=str(path), limit=limit, stratify=True, **change), tmp_path)
        return read_records(tmp_path / "s.jsonl", Chain)

    chosen = take(100)
    assert Counter(chain.category[0] for chain in chosen) == {"vanilla_harmful": 40, "adversarial_harmful": 30, "vanilla_benign": 20, "adversarial_benign": 10}
    assert json.loads(manifest_path(tmp_path / "s.jsonl").read_text())["counts"]["category"]["vanilla_harmful"] == 40
    assert take(50) == chosen[:50] and take(100, seed=1) != chosen
    held_out = take(100, offset=100)
    assert not {chain.id for chain in held_out} & {chain.id for chain in chosen}
    for limit in (7, 33, 512):
        counts = Counter(chain.category[0] for chain in take(limit))
        assert all(abs(counts[label] - limit * n / 1000) <= 1 for label, n in sizes.items()), limit


def test_manifest_says_file_hash_counts_and_seed(tmp_path):
    path = write(tmp_path / "a.jsonl", [star(1), star(2, response="none"), star(3)])
    read_source(tmp_path / "s.jsonl", spec(loader="star1", path=str(path), seed=7), tmp_path)
    manifest = json.loads(manifest_path(tmp_path / "s.jsonl").read_text())
    assert manifest["inputs"][str(path)] and manifest["spec"]["seed"] == 7 and manifest["rejects"]["reasons"] == {"no_think": 1}
    assert (manifest["counts"]["rows_read"], manifest["counts"]["sound"], manifest["output"]["rows"]) == (3, 2, 2)


def test_nothing_left_is_an_error(tmp_path):
    path = write(tmp_path / "a.jsonl", [star(1)])
    for change in ({"offset": 1}, {"path": str(write(tmp_path / "b.jsonl", []))}):
        with pytest.raises(DataError, match=r"no chain is left of [01] sound ones"):
            read_source(tmp_path / "s.jsonl", spec(**{"loader": "star1", "path": str(path)} | change), tmp_path)
    assert not (tmp_path / "s.jsonl").exists()


def test_unknown_loader_is_suggested(tmp_path):
    with pytest.raises(ConfigError, match="Did you mean 'star1'"):
        read_source(tmp_path / "s.jsonl", spec(loader="star-1", origin="sample"), tmp_path)


def test_script(tmp_path):
    text = spec(loader="star1", origin="sample", limit=5).model_dump_json()
    command = [sys.executable, ROOT / "scripts/source.py", "--out", tmp_path / "s.jsonl", "--downloads", tmp_path, "--spec", text]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ, check=True)
    assert len(read_records(tmp_path / "s.jsonl", Chain)) == 5 and "5 of 64 sound chains" in done.stderr


def test_every_source_has_what_the_reader_needs():
    assert set(modules("sources")) == {"star1", "star_benign", "safechain", "unsafechain", "realsafe", "r1_traces", "file"}
    for name in modules("sources"):
        module = importlib.import_module(f"advchain.sources.{name}")
        assert callable(module.load) and hasattr(module, "PIN") and hasattr(module, "SAMPLE")
