"""Attacks on the sandbox, all bounded: each must be stopped, change nothing outside, and leave no process behind."""

import gzip
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from code_attacks import ATTACKS, PROGRAM_ATTACKS, sandboxed_processes

from advchain.errors import DataError, SandboxError
from advchain.io import read_records, write_jsonl
from advchain.judges import canary, code_modes, sandbox
from advchain.judges.code import CodeOptions, extract_code, run_tests
from advchain.judges.run import judge_files
from advchain.judges.sandbox import Limits
from advchain.records import Response, Verdict
from advchain.specs import JudgeSpec, JudgeStageSpec

OPTIONS = CodeOptions(test_seconds=3, total_seconds=8)
LIMITS = Limits(memory_mb=512, cpu_seconds=9)


@pytest.fixture(scope="session")
def walls():
    """The sandbox, proven by its canary; in CI its absence is a failure."""
    if shutil.which("bwrap") is None:
        if os.environ.get("CI"):
            pytest.fail("bubblewrap is not installed: run `apt-get install -y bubblewrap` before the tests in CI")
        pytest.skip("install bubblewrap to run the sandbox tests")
    canary.check()


@pytest.fixture
def clean(walls):
    """No process of this test is alive after it."""
    before = sandboxed_processes()
    yield
    deadline = time.monotonic() + 20  # those that outlive a run do so for ever
    while left := sandboxed_processes() - before:
        assert time.monotonic() < deadline, f"processes left behind: {left}"
        time.sleep(0.05)


def make_response(answer, number, state="closed", reference=None):
    return Response(
        id=f"r{number}", item_id=f"i{number}", benchmark="b", nature="benign", prompt="p", sample_index=0, seed=0, text=answer, thinking="", answer=answer,
        state=state, finish="stop", num_prompt_tokens=1, num_tokens=1, reference=reference or {},
    )  # fmt: skip


def function_run(code, tests=(([1], 2),), name="f"):
    return run_tests(code, {"mode": "function", "entry_point": name, "tests": [list(test) for test in tests]}, OPTIONS, LIMITS)[0]


def stdin_run(code, given="3\n", expected="4\n"):
    return run_tests(code, {"mode": "stdin", "tests": [[given, expected]]}, OPTIONS, LIMITS)[0]


def asserts_run(code, test="assert f(1) == 2\nassert f(5) == 6\n"):
    return run_tests(code, {"mode": "asserts", "test_code": test}, OPTIONS, LIMITS)[0]


def test_canary_stops_everything(walls):
    assert canary.breaches() == []


def test_canary_is_not_vacuous():
    """Outside the sandbox the same attacker succeeds at every attack that does no harm here."""
    with canary.bait() as planted:
        command = [sys.executable, sandbox.INSIDE / "attacker.py", "null", json.dumps(planted)]
        report = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    achieved = json.loads(report)
    assert [name for name, worked in achieved.items() if not worked] in ([], ["make a user namespace"])  # some hosts forbid namespaces to all


def test_leaky_sandbox_is_refused(walls, monkeypatch):
    """With the network left in, the canary must name the leak and nothing may run."""
    leaky = tuple(word for word in sandbox._walls() if word != "--unshare-all")
    leaky = tuple(part for word in leaky for part in ((word, "--unshare-pid") if word == "--unshare-user" else (word,)))
    monkeypatch.setattr(sandbox, "_walls", lambda: leaky)
    assert "connect to loopback" in canary.breaches()
    canary.check.cache_clear()
    with pytest.raises(SandboxError, match="connect to loopback"):
        canary.check()


def test_missing_bwrap_is_refused(monkeypatch):
    from advchain.judges import code

    sandbox.bwrap_path.cache_clear()
    sandbox._walls.cache_clear()
    canary.check.cache_clear()
    monkeypatch.setenv("PATH", "/nowhere")
    try:
        with pytest.raises(SandboxError, match="apt install bubblewrap"):
            code.build(JudgeSpec(version=1, name="code", kind="code"), Path())
        judge = code.build(JudgeSpec(version=1, name="code", kind="code", options={"missing_sandbox": "skip"}), Path())
        rows = [make_response("```python\nimport os\n```", 0), make_response("", 1, "unclosed")]
        assert [(v.label, v.detail["reason"]) for v in judge.judge(rows)] == [("refused_to_judge", "no_sandbox"), ("no_answer", "unclosed")]
    finally:
        sandbox.bwrap_path.cache_clear()
        sandbox._walls.cache_clear()
        canary.check.cache_clear()


def test_right_and_wrong_programs(clean):
    assert function_run("def f(x): return x + 1") == "pass"
    assert function_run("def f(x): return x") == "fail"
    assert function_run("class Solution:\n    def f(self, x: int) -> List[int]: return x + 1") == "pass"
    assert function_run("class Solution:\n    def f(self, x): return x + 1", name="Solution.f") == "pass"
    assert stdin_run("print(int(input()) + 1)") == "pass"
    assert stdin_run("print(input())") == "fail"
    assert stdin_run("def main():\n    print(int(sys.stdin.readline()) + 1)\nif __name__ == '__main__':\n    main()\n    exit()") == "pass"
    assert asserts_run("def f(x): return x + 1") == "pass"
    assert asserts_run("def f(x): return 2") == "fail"


def test_data_crosses_the_wire(clean):
    value = "{'a': (1, 2.5, None), 'b': {3, 4}, 'c': b'x', 'd': 2**200, 'e': float('inf'), 'f': 1j, 'g': frozenset([1]), 'h': [True, 'é\\ud800']}"
    assert asserts_run(f"def f(): return {value}", f"assert f() == {value}\nassert type(f()['a']) is tuple") == "pass"
    node = "class Node:\n    def __init__(self, v): self.v, self.next = v, None\ndef f(n): return n.v + n.next.v"
    assert asserts_run(node, "a = Node(1)\na.next = Node(2)\nassert f(a) == 3\nassert a.next.v == 2") == "pass"


def host_state(folder: str) -> dict[str, tuple[int, bytes]]:
    """What an attacker could have changed outside: names, rights and contents of the baited folder, which is open to all."""
    held = {path.name: (path.stat().st_mode, path.read_bytes() if path.is_file() else b"") for path in Path(folder).iterdir()}
    return held | {"": (Path(folder).stat().st_mode, b"")}


@pytest.mark.parametrize("name", ATTACKS)
@pytest.mark.parametrize("mode", [function_run, asserts_run], ids=["function", "asserts"])
def test_attacks_end_as_they_should(clean, name, mode):
    attack, outcomes = ATTACKS[name]
    start = time.monotonic()
    with canary.bait() as planted:
        code = attack.replace("{secret}", planted["folder"] + "/secret").replace("{port}", str(planted["port"]))
        before = host_state(planted["folder"])
        assert mode(code) in outcomes
        assert host_state(planted["folder"]) == before
    assert time.monotonic() - start < OPTIONS.test_seconds + 20


@pytest.mark.parametrize("attack", PROGRAM_ATTACKS)
def test_program_attacks(clean, attack):
    assert stdin_run(attack) in PROGRAM_ATTACKS[attack]


def test_expected_output_is_not_in_the_sandbox(clean):
    """The program dumps all it can see of itself; the expected output is not there."""
    dump = """
import os, sys
for root, _, names in os.walk("/"):
    for name in names if not root.startswith(("/usr", "/dev")) else ():
        try:
            if "SES" + "AME" in open(os.path.join(root, name), errors="replace").read():
                print("SES" + "AME")
        except OSError:
            pass
print(os.environ, sys.argv)
"""
    assert stdin_run(dump, given="", expected="SESAME") == "fail"


def test_broken_sandbox_is_never_a_failed_test(walls, monkeypatch):
    monkeypatch.setattr(sandbox, "_walls", lambda: ("/bin/false",))
    monkeypatch.setattr(code_modes, "START_SECONDS", 2.0)
    for run in (function_run, stdin_run, asserts_run):
        with pytest.raises(SandboxError, match="did not start"):
            run("def f(x): return x + 1")


def test_judge_labels(clean, tmp_path):
    """The whole path from response file to verdicts; a second run reads the kept verdicts."""
    reference = {"language": "python", "mode": "function", "entry_point": "f", "tests": [[[1], 2], [[5], 6]]}
    answers = ["```python\ndef f(x): return x + 1\n```", "```python\ndef f(x): return 2\n```", "no code", "```python\ndef f(x):\n    while True: pass\n```"]
    write_jsonl(tmp_path / "r.jsonl", [make_response(answer, number, reference=reference) for number, answer in enumerate(answers)])
    judge = JudgeSpec(version=1, name="code", kind="code", options={"test_seconds": 1})
    spec = JudgeStageSpec(version=1, benchmark="b", nature="benign", judges=(judge,))
    for _ in range(2):
        judge_files([(tmp_path / "r.jsonl", tmp_path / "v.jsonl", spec)], tmp_path / "work")
        verdicts = read_records(tmp_path / "v.jsonl", Verdict)
        assert [v.label for v in verdicts] == ["right", "wrong", "no_answer", "timeout"]
    assert verdicts[1].detail == {"outcome": "fail", "test": 1, "num_tests": 2, "type": "wrong value"}


def test_bad_reference_is_a_data_error(walls):
    with pytest.raises(DataError, match="mode 'fuzz'"):
        run_tests("x = 1", {"mode": "fuzz"}, OPTIONS, LIMITS, where="a")
    with pytest.raises(DataError, match="lacks entry_point"):
        run_tests("x = 1", {"mode": "function", "tests": [[[1], 2]]}, OPTIONS, LIMITS, where="a")


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        ("```python\na = 1\n```\ntext\n```python\nb = 2\n```", "b = 2\n"),
        ("```python\na = 1\n```\nOutput:\n```\n42\n```", "a = 1\n"),
        ("```\na = 1\n```", "a = 1\n"),
        ("Here:\n```Python3\na = 1", "a = 1"),
        ("def f(x):\n    return x", "def f(x):\n    return x"),
        ("The answer is simple.", None),
        ("```bash\nls\n```", None),
    ],
)
def test_extract_code(answer, code):
    assert extract_code(answer) == code


def test_same_text_and_value():
    assert code_modes.same_text("1.0 2\n3\n", "1 2\n3")
    assert not code_modes.same_text("1 2 3", "1 2\n3")
    assert code_modes.same_value((1, [2, (3,)]), [1, [2, [3]]])
    assert code_modes.same_value({1: 2.0000000001}, {"1": 2.0})
    assert not code_modes.same_value(10**400, 1.5)
    assert not code_modes.same_value([1], [1, 2])


def test_humaneval_canonical_solutions(clean, data_root):
    """All 164 published solutions pass, and none passes with its body replaced."""
    with gzip.open(data_root / "eval/humaneval/HumanEval.jsonl.gz", "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    options, limits = CodeOptions(), Limits()

    def outcome(row, body):
        name = row["entry_point"]
        reference = {"mode": "asserts", "test_code": f"{row['test']}\ncheck({name})", "entry_point": name, "setup_code": row["prompt"]}
        return run_tests(row["prompt"] + body, reference, options, limits, where=row["task_id"])[0]

    with ThreadPoolExecutor(2) as pool:
        right = list(pool.map(lambda row: outcome(row, row["canonical_solution"]), rows))
        wrong = list(pool.map(lambda row: outcome(row, "    return None\n"), rows[:40]))
    assert right == ["pass"] * 164
    assert "pass" not in wrong


def test_mbpp_canonical_solutions(clean, data_root):
    """The 500 published solutions of the test split pass their asserts; a function that returns nothing does not."""
    text = (data_root / "eval/mbpp/mbpp.jsonl").read_text(encoding="utf-8")
    rows = [row for row in map(json.loads, text.splitlines()) if row["task_id"] in range(11, 511)]

    def outcome(row, code):
        reference = {"mode": "asserts", "test_code": "\n".join([row["test_setup_code"], *row["test_list"]])}
        return run_tests(code, reference, CodeOptions(), Limits(), where=str(row["task_id"]))[0]

    names = [re.search(r"([A-Za-z_]\w*)\(", row["test_list"][0].removeprefix("assert ").replace("set(", "").replace("math.", ""))[1] for row in rows[:40]]
    with ThreadPoolExecutor(2) as pool:
        right = list(pool.map(lambda row: outcome(row, row["code"]), rows))
        wrong = list(pool.map(outcome, rows[:40], [f"def {name}(*values): return None" for name in names]))
    assert Counter(right) == {"pass": 500}
    assert "pass" not in wrong
