"""Benchmarks: counts on the real files, references that graders can use, seeded parts, overlap with STAR-1."""

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from advchain.benchmarks.items import MATHS_PROMPT
from advchain.benchmarks.read import read_prompts
from advchain.catalogue import modules
from advchain.errors import ConfigError, DataError
from advchain.io import read_records, sha256_file
from advchain.manifests import manifest_path
from advchain.records import Item
from advchain.rows import prompt_key, read_rows
from advchain.specs import AttackSpec, PromptsSpec

ROOT = Path(__file__).resolve().parents[2]
REAL = {
    "harmbench": ("eval/harmbench/harmbench_behaviors_text_all.csv", 200),
    "harmbench_contextual": ("eval/harmbench/harmbench_behaviors_text_all.csv", 100),
    "harmbench_copyright": ("eval/harmbench/harmbench_behaviors_text_all.csv", 100),
    "harmbench_all": ("eval/harmbench/harmbench_behaviors_text_all.csv", 400),
    "strongreject": ("eval/strongreject/strongreject_dataset.csv", 313),
    "wildjailbreak_harmful": ("eval/wildjailbreak/wildjailbreak_eval.jsonl", 2000),
    "wildjailbreak_benign": ("eval/wildjailbreak/wildjailbreak_adv_benign_eval.jsonl", 210),
    "safeunlearning": ("eval/safeunlearning/vicuna_test100.json", 100),
    "safeunlearning_ood": ("eval/safeunlearning/vicuna_test100_ood.json", 100),
    "jailbreakbench": ("eval/jailbreakbench/jailbreakbench.csv", 100),
    "jailbreakbench_benign": ("eval/jailbreakbench/jailbreakbench.json", 100),
    "xstest": ("eval/xstest/xstest_prompts.csv", 250),
    "xstest_unsafe": ("eval/xstest/xstest_prompts.csv", 200),
    "math500": ("eval/math500/test.jsonl", 500),
    "aime2024": ("eval/aime2024/test.jsonl", 30),
    "livecodebench": ("eval/livecodebench/lcb.jsonl", 400),
    "humaneval": ("eval/humaneval/HumanEval.jsonl.gz", 164),
    "mbpp": ("eval/mbpp/mbpp.jsonl", 500),
}
SAMPLE = {
    "harmbench": 24,
    "strongreject": 20,
    "wildjailbreak_harmful": 20,
    "wildjailbreak_benign": 12,
    "xstest": 24,
    "xstest_unsafe": 8,
    "math500": 24,
    "aime2024": 8,
    "livecodebench": 10,
}


def benchmark(name):
    return importlib.import_module(f"advchain.benchmarks.{name}")


def spec(name, **change):
    return PromptsSpec(**{"version": 1, "name": name, "benchmark": name, "origin": "sample"} | change)


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def real_items(data_root, tmp_path, name, **change):
    path, _ = REAL[name]
    read_prompts(tmp_path / f"{name}.jsonl", spec(name, origin="local", path=str(data_root / path), **change), tmp_path)
    return read_records(tmp_path / f"{name}.jsonl", Item)


# ------------------------------------------------------------------ real data


@pytest.mark.parametrize("name", REAL)
def test_real_files_give_all_prompts(data_root, tmp_path, name):
    items = real_items(data_root, tmp_path, name)
    module = benchmark(name)
    assert len(items) == REAL[name][1] == (module.ROWS or 400)
    assert len({item.id for item in items}) == len(items)
    assert {item.benchmark for item in items} == {name} and {item.nature for item in items} == {module.NATURE}
    assert all(item.request and item.prompt and not item.prefix for item in items)


def test_harmbench_is_the_standard_subset(data_root, tmp_path):
    rows = {row.values["BehaviorID"]: row.values for row in read_rows(data_root / REAL["harmbench"][0])}
    items = real_items(data_root, tmp_path, "harmbench")
    for item in items:
        row = rows[item.id.removeprefix("harmbench-")]
        same = (row["FunctionalCategory"], row["Behavior"], row["SemanticCategory"]) == ("standard", item.prompt, item.category)
        assert same, item.id  # a plain comparison would print the text on failure


def test_star1_overlap_is_two_harmbench_behaviours(data_root, tmp_path):
    """METHOD 7.4: of HarmBench 2 standard behaviours and 30 of copyright are STAR-1 questions; 2 of SafeUnlearning OOD; none of the others."""
    star = {prompt_key(row.text("question")) for row in read_rows(data_root / "train/star1/STAR-1.json")}
    found = {name: sum(prompt_key(item.prompt) in star for item in real_items(data_root, tmp_path, name)) for name in list(REAL)[:-5]}
    seen = {"harmbench": 2, "harmbench_copyright": 30, "harmbench_all": 32, "safeunlearning_ood": 2}
    assert found == dict.fromkeys(found, 0) | seen and len(found) == 13


# The hub's file is gated (WildJailbreak), a copy with other bytes is at hand (MATH-500), or the copy has only the public columns (LiveCodeBench).
OTHER_BYTES = {"wildjailbreak_harmful", "wildjailbreak_benign", "math500", "livecodebench"}


@pytest.mark.parametrize("name", sorted(set(REAL) - OTHER_BYTES))
def test_pins_are_the_real_files(data_root, name):
    assert benchmark(name).PIN.sha256 == sha256_file(data_root / REAL[name][0])


def test_contextual_behaviours_follow_their_context(data_root, tmp_path):
    rows = {row.values["BehaviorID"]: row.values for row in read_rows(data_root / REAL["harmbench_contextual"][0])}
    for item in real_items(data_root, tmp_path, "harmbench_contextual"):
        row = rows[item.id.removeprefix("harmbench_contextual-")]
        same = item.prompt == row["ContextString"] + "\n\n---\n\n" + row["Behavior"] and item.request == item.prompt
        assert same, item.id


@pytest.mark.parametrize("name", ["safeunlearning", "safeunlearning_ood"])
def test_no_vicuna_template_is_left(data_root, tmp_path, name):
    for item in real_items(data_root, tmp_path, name):
        left = [mark for mark in ("USER:", "ASSISTANT:", "A chat between") if mark in item.prompt]
        assert not left and item.prompt == item.prompt.strip(), item.id


def test_halves_of_jailbreakbench(data_root, tmp_path):
    harmful = {item.prompt for item in real_items(data_root, tmp_path, "jailbreakbench")}
    benign = {item.prompt for item in real_items(data_root, tmp_path, "jailbreakbench_benign")}
    rows = {row.text("text"): row.text("label") for row in read_rows(data_root / REAL["jailbreakbench_benign"][0])}
    assert len(harmful) == len(benign) == 100 and len(harmful & benign) == 0
    assert {rows[text] for text in harmful} == {"harmful"} and {rows[text] for text in benign} == {"safe"}


def test_livecodebench_release_and_window(data_root):
    dates = sorted(row.text("contest_date")[:10] for row in read_rows(data_root / REAL["livecodebench"][0]))
    assert f"release_v1, {len(dates)} problems, {dates[0]} to {dates[-1]}, public tests" == benchmark("livecodebench").RELEASE


def test_maths_references(data_root, tmp_path):
    rows = {row.values["unique_id"]: row.values for row in read_rows(data_root / REAL["math500"][0])}
    for item in real_items(data_root, tmp_path, "math500"):
        row = rows[item.id.removeprefix("math500-")]
        assert item.reference == {"answer": row["answer"].strip()} and item.prompt == MATHS_PROMPT.format(problem=row["problem"].strip())
    assert all(0 <= int(item.reference["answer"]) <= 999 for item in real_items(data_root, tmp_path, "aime2024"))


def test_livecodebench_references(data_root, tmp_path):
    rows = {row.values["question_id"]: row.values for row in read_rows(data_root / REAL["livecodebench"][0])}
    modes = {"function": 0, "stdin": 0}
    for item in real_items(data_root, tmp_path, "livecodebench"):
        row, reference = rows[item.id.removeprefix("livecodebench-")], item.reference
        modes[reference["mode"]] += 1
        compile(reference["setup_code"], item.id, "exec")
        assert reference["language"] == "python" and len(reference["tests"]) == len(json.loads(row["public_test_cases"])) > 0
        if reference["mode"] == "function":
            name = reference["entry_point"].removeprefix("Solution.")
            assert f"def {name}(" in row["starter_code"] and row["starter_code"].rstrip() in item.prompt
            assert all(isinstance(arguments, list) for arguments, _ in reference["tests"])
        else:
            assert all(isinstance(part, str) for test in reference["tests"] for part in test) and "stdin" in item.prompt
    assert modes == {"function": 181, "stdin": 219}


@pytest.mark.parametrize("name", ["humaneval", "mbpp"])
def test_assert_references_compile(data_root, tmp_path, name):
    for item in real_items(data_root, tmp_path, name, limit=60):
        assert item.reference["mode"] == "asserts" and "assert" in item.reference["test_code"]
        compile(item.reference["test_code"] + item.reference.get("setup_code", ""), item.id, "exec")


# ------------------------------------------------------------------ sample and own files


@pytest.mark.parametrize("name", SAMPLE)
def test_sample(tmp_path, name):
    assert read_prompts(tmp_path / "p.jsonl", spec(name), tmp_path) == SAMPLE[name]
    items = read_records(tmp_path / "p.jsonl", Item)
    assert all(item.nature == benchmark(name).NATURE and item.request for item in items)
    if benchmark(name).TABLE == "reasoning":
        assert all(item.reference for item in items)


def test_setup_code_keeps_the_builtins():
    namespace = {}
    exec(benchmark("livecodebench").SETUP_CODE, namespace)
    assert namespace["pow"](3, 2, 5) == 4 and {"List", "inf", "gcd", "deque", "heapq", "math"} <= set(namespace)


def test_sample_code_names_its_function(tmp_path):
    read_prompts(tmp_path / "p.jsonl", spec("livecodebench"), tmp_path)
    for item in read_records(tmp_path / "p.jsonl", Item):
        assert f"`{item.reference['entry_point']}`" in item.prompt and item.reference["mode"] == "function"


def test_wrapped_prompts_keep_their_plain_request(tmp_path):
    read_prompts(tmp_path / "p.jsonl", spec("wildjailbreak_harmful"), tmp_path)
    assert not [item.id for item in read_records(tmp_path / "p.jsonl", Item) if item.request == item.prompt]


def test_wildjailbreak_hub_format(tmp_path):
    path = tmp_path / "eval.tsv"
    path.write_text('\tadversarial\tlabel\tdata_type\n0\t"one\ttwo\n""three"""\t1\tadversarial_harmful\n1\tfour\t0\tadversarial_benign\n')
    harmful, benign = (list(benchmark(f"wildjailbreak_{nature}").load(path)) for nature in ("harmful", "benign"))
    assert [item.prompt for item in harmful] == ['one\ttwo\n"three"'] and [item.prompt for item in benign] == ["four"]


@pytest.mark.parametrize(("name", "nature"), [("file", "harmful"), ("file_benign", "benign")])
def test_own_prompts(tmp_path, name, nature):
    path = tmp_path / "mine.csv"
    path.write_text("\ufeffprompt,category\nhello there,a\nsecond,b\n", encoding="utf-8")
    assert read_prompts(tmp_path / "p.jsonl", spec("mine", benchmark=name, origin="local", path=str(path)), tmp_path) == 2
    items = read_records(tmp_path / "p.jsonl", Item)
    assert {(item.prompt, item.category, item.nature, item.benchmark) for item in items} == {
        ("hello there", "a", nature, "mine"),
        ("second", "b", nature, "mine"),
    }


def test_user_prompt_attacks_keep_request_and_attack(tmp_path):
    path = tmp_path / "transfers.csv"
    path.write_text("prompt,request,attack\nplease dear friend: lend it,lend it,PAIR\nlend it !!xx,lend it,GCG\n", encoding="utf-8")
    assert read_prompts(tmp_path / "p.jsonl", spec("mine", benchmark="attack_prompts", origin="local", path=str(path)), tmp_path) == 2
    items = read_records(tmp_path / "p.jsonl", Item)
    assert {(item.prompt, item.request, item.category) for item in items} == {
        ("please dear friend: lend it", "lend it", "PAIR"),
        ("lend it !!xx", "lend it", "GCG"),
    }


def test_content_ids_do_not_depend_on_place(tmp_path):
    rows = [{"prompt": "a"}, {"prompt": "b"}]
    one, two = write(tmp_path / "1.jsonl", rows), write(tmp_path / "2.jsonl", rows[::-1])
    assert {i.prompt: i.id for i in benchmark("file").load(one)} == {i.prompt: i.id for i in benchmark("file").load(two)}


# ------------------------------------------------------------------ the stage


def test_a_smaller_limit_is_a_prefix(tmp_path):
    def ids(**change):
        read_prompts(tmp_path / "p.jsonl", spec("harmbench", **change), tmp_path)
        return [item.id for item in read_records(tmp_path / "p.jsonl", Item)]

    full = ids()
    assert ids(limit=5) == full[:5] and ids(limit=23) == full[:23] and ids(limit=99) == full
    assert ids(seed=1) != full and sorted(ids(seed=1)) == sorted(full)
    assert ids(offset=5) == full[5:] and ids(offset=5, limit=7) == full[5:12]
    with pytest.raises(ConfigError, match=r"harmbench\.offset: 24, but .* holds 24 prompts"):
        ids(offset=24)


def test_items_carry_the_evaluations_name(tmp_path):
    read_prompts(tmp_path / "p.jsonl", spec("my_eval", benchmark="harmbench", limit=3), tmp_path)
    assert {item.benchmark for item in read_records(tmp_path / "p.jsonl", Item)} == {"my_eval"}
    assert json.loads(manifest_path(tmp_path / "p.jsonl").read_text())["counts"]["items_read"] == 24


def test_a_cut_file_is_noticed(tmp_path, data_root):
    lines = (data_root / REAL["math500"][0]).read_text(encoding="utf-8").splitlines()
    (tmp_path / "cut.jsonl").write_text("\n".join(lines[:-1]) + "\n", encoding="utf-8")
    with pytest.raises(DataError, match="499 prompts of math500 found, 500 expected"):
        read_prompts(tmp_path / "p.jsonl", spec("math500", origin="local", path=str(tmp_path / "cut.jsonl")), tmp_path)
    assert not (tmp_path / "p.jsonl").exists()


@pytest.mark.parametrize(
    ("name", "rows", "message"),
    [
        ("file", [{"Prompt": "x"}], r"line 1: no column 'prompt'.*Did you mean 'Prompt'"),
        ("file", [{"prompt": "x"}, {"prompt": None}], "line 2, column 'prompt': null"),
        ("file", [], "0 prompts of file found"),
        ("file", [{"id": 1, "prompt": "x"}, {"id": 1, "prompt": "y"}], "1 ids stand for more than one prompt"),
        ("xstest", [{"prompt": "x", "type": "t", "label": "ok"}], "column 'label': 'ok'"),
        ("safeunlearning", [{"id": 1, "prompt": "x"}], "not in the Vicuna template"),
        ("jailbreakbench_benign", [{"text": "x", "label": "benign"}], "column 'label': 'benign'"),
        ("attack_prompts", [{"prompt": "x", "request": "y"}], "no column 'attack'"),
        ("aime2024", [{"problem": "x", "answer": "1/2"}], "not a whole number from 0 to 999"),
        ("livecodebench", [{"prompt": "x", "entry_point": "f", "tests": []}], "column 'tests'"),
        (
            "livecodebench",
            [{"question_id": "1", "question_content": "x", "starter_code": "", "public_test_cases": "[", "metadata": "{}"}],
            "public_test_cases': not JSON",
        ),
    ],
)
def test_bad_files_give_one_paragraph(tmp_path, name, rows, message):
    path = write(tmp_path / "a.jsonl", rows)
    with pytest.raises(DataError, match=message) as caught:
        read_prompts(tmp_path / "p.jsonl", spec(name, origin="local", path=str(path)), tmp_path)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)


def test_not_utf8(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes(b"prompt\ncaf\xe9\n")
    with pytest.raises(DataError, match=r"line 2: not UTF-8 \(byte 10 of the file"):
        read_prompts(tmp_path / "p.jsonl", spec("file", origin="local", path=str(path)), tmp_path)


def test_unknown_benchmark_and_attacks_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="Did you mean 'harmbench'"):
        read_prompts(tmp_path / "p.jsonl", spec("harmbensh"), tmp_path)
    with pytest.raises(ConfigError, match="attack 'cot_hijack'"):
        read_prompts(tmp_path / "p.jsonl", spec("harmbench", attack=AttackSpec(version=1, name="cot_hijack")), tmp_path)


def test_script(tmp_path):
    command = [
        sys.executable,
        ROOT / "scripts/prompts.py",
        "--out",
        tmp_path / "p.jsonl",
        "--downloads",
        tmp_path,
        "--spec",
        spec("xstest", limit=4).model_dump_json(),
    ]
    subprocess.run(command, env=os.environ, check=True, capture_output=True)
    assert len(read_records(tmp_path / "p.jsonl", Item)) == 4


def test_every_benchmark_states_its_place():
    for name, entry in modules("benchmarks").items():
        constants = entry.constants
        assert {"NATURE", "TABLE", "PAPER", "JUDGES", "ROWS", "SAMPLE", "SHORT"} <= set(constants), name
        assert constants["TABLE"] in ("safety", "attacks", "over_refusal", "reasoning") and constants["NATURE"] in ("harmful", "benign")
        assert hasattr(benchmark(name), "PIN") and "Metric:" in benchmark(name).__doc__
        assert (constants["NATURE"] == "harmful") == (constants["TABLE"] in ("safety", "attacks")), name
