"""Answers labelled by people, read from a folder of public files (or one file of your own) into one form.

The folder is the one of ADVCHAIN_DATA; docs/JUDGES.md lists files, licences and what each set may be used for. A set that is not there is left out.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from advchain.errors import DataError

HARMBENCH = "judge/harmbench_val/text_behaviors_val_set.json"
BEHAVIORS = "eval/harmbench/harmbench_behaviors_text_all.csv"
GPTFUZZ = ("judge/gptfuzz/train.csv", "judge/gptfuzz/question_list.csv")
SAFE_RLHF = "judge/jailbreakeval/Safe-RLHFmini.csv"
XSTEST = "judge/xstest/xstest_v2_completions_{}.csv"
XSTEST_MODELS = ("gpt4", "llama2new", "mistralinstruct")
PYRIT = "judge/pyrit/refusal_scorer/refusal.csv"
SETS_OF: dict[str, tuple[str, ...]] = {"harm": ("harmbench", "gptfuzz", "safe_rlhf"), "refusal": ("xstest", "pyrit")}
OWN = "own "  # in front of the name of a file of the user's own
TRAINING_SETS = ("harmbench", "gptfuzz", "xstest", "pyrit")  # safe_rlhf is for tests only: its upstream terms are not open


@dataclass(frozen=True)
class Labelled:
    """One answer with what people said of it: `harmful` and `refused` are None where they were not asked. `others`: other judges' stored verdicts."""

    id: str
    source: str
    question: str
    model: str
    method: str
    request: str
    answer: str
    harmful: bool | None = None
    refused: bool | None = None
    others: dict[str, bool] = field(default_factory=dict)

    def label(self, kind: str) -> bool | None:
        """The people's label for judges of `kind`: "harm" or "refusal"."""
        return self.harmful if kind == "harm" else self.refused


def read_csv(path: Path) -> list[dict[str, str]]:
    """Read a CSV with a header; `#` lines before it are comments.

    Raises:
        DataError: the file is not readable text.
    """
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            lines = list(file)
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read ({error}). Give a UTF-8 CSV file with a header line.") from error
    while lines and lines[0].startswith("#"):
        lines.pop(0)
    return list(csv.DictReader(lines))


def read_harmbench(root: Path) -> Iterator[Labelled]:
    """602 answers to jailbreaks, three people each; the majority counts. The plain behaviour is the request (3 behaviours are known by their attack only)."""
    behaviors = {row["BehaviorID"]: row["Behavior"] for row in read_csv(root / BEHAVIORS)}
    rows = [row for found in json.loads((root / HARMBENCH).read_text(encoding="utf-8")).values() for row in found]
    for number, row in enumerate(rows):
        model = (row["model"] if row["model"] != ".json" else row["experiment"]).removesuffix(".json")
        others = {"llama_guard": bool(row["llama_guard"]), "harmbench_classifier": bool(row["cls"]), "gpt4": bool(row["gpt-4-0613"])}
        request, harmful = behaviors.get(row["behavior_id"], row["test_case"]), row["human_0"] + row["human_1"] + row["human_2"] >= 2
        yield Labelled(f"harmbench-{number}", "harmbench", row["behavior_id"], model, row["method"], request, row["generation"], harmful, others=others)


def read_gptfuzz(root: Path) -> Iterator[Labelled]:
    """6,160 answers to 80 questions under jailbreak templates; models are not named in the file."""
    listed = read_csv(root / GPTFUZZ[1])
    texts = {row["index"]: row["text"] for row in listed}
    for number, row in enumerate(read_csv(root / GPTFUZZ[0])):
        yield Labelled(f"gptfuzz-{number}", "gptfuzz", row["question"], "", "GPTFuzz", texts[row["question"]], row["Response"], row["label"] == "1")


def read_safe_rlhf(root: Path) -> Iterator[Labelled]:
    """4,000 question-answer pairs with one label each (1: harmful); upstream terms forbid commercial use, so test only."""
    for number, row in enumerate(read_csv(root / SAFE_RLHF)):
        yield Labelled(f"safe_rlhf-{number}", "safe_rlhf", row["question"], "", "none", row["question"], row["answer"], row["label"] == "1")


def read_xstest(root: Path) -> Iterator[Labelled]:
    """450 prompts answered by three models, two people each; refused: 2_full_refusal (a partial refusal is none, METHOD 4)."""
    for model in XSTEST_MODELS:
        for row in read_csv(root / XSTEST.format(model)):
            refused = row["final_label"] == "2_full_refusal"
            yield Labelled(f"xstest-{model}-{row['id']}", "xstest", row["id"], model, row["type"], row["prompt"], row["completion"], refused=refused)


def read_pyrit(root: Path) -> Iterator[Labelled]:
    """105 pairs of an attacker's objective and an assistant's answer, 1: refused."""
    for number, row in enumerate(read_csv(root / PYRIT)):
        request, refused = row["objective"], row["human_score"] == "1"
        yield Labelled(f"pyrit-{number}", "pyrit", str(number), "", "none", request, row["assistant_response"], refused=refused)


READERS: dict[str, tuple[tuple[str, ...], Callable[[Path], Iterator[Labelled]]]] = {
    "harmbench": ((HARMBENCH, BEHAVIORS), read_harmbench),
    "gptfuzz": (GPTFUZZ, read_gptfuzz),
    "safe_rlhf": ((SAFE_RLHF,), read_safe_rlhf),
    "xstest": (tuple(XSTEST.format(model) for model in XSTEST_MODELS), read_xstest),
    "pyrit": ((PYRIT,), read_pyrit),
}


def files_of(root: Path) -> dict[str, list[Path]]:
    """Return set -> its files, of the sets that are there in full."""
    found = {name: [root / file for file in files] for name, (files, _) in READERS.items()}
    return {name: files for name, files in found.items() if all(file.is_file() for file in files)}


def read_sets(root: Path) -> list[Labelled]:
    """Read every set that is under `root`.

    Raises:
        DataError: none is there.
    """
    there = files_of(root)
    if not there:
        raise DataError(f"{root}: holds none of the labelled sets {', '.join(READERS)}. Put the files at the paths that docs/JUDGES.md lists.")
    return [row for name in there for row in READERS[name][1](root)]


def read_own(path: Path) -> list[Labelled]:
    """Read a file of your own: CSV with id, prompt, response, label (unsafe | safe | refused | complied), and if known model, method.

    Raises:
        DataError: a column is missing or a label unknown; names line and value.
    """
    rows = []
    for line, row in enumerate(read_csv(path), start=2):
        missing = [name for name in ("id", "prompt", "response", "label") if not row.get(name)]
        if missing:
            raise DataError(f"{path}, row {line}: column {missing[0]} is missing or empty. Needed: id, prompt, response, label; model and method may be given.")
        if row["label"] not in ("unsafe", "safe", "refused", "complied"):
            raise DataError(f"{path}, row {line}: label '{row['label']}' is unknown. Allowed: unsafe, safe (judges of harm), refused, complied (of refusal).")
        harmful = row["label"] == "unsafe" if row["label"] in ("unsafe", "safe") else None
        refused = row["label"] == "refused" if harmful is None else None
        names = row.get("model") or "", row.get("method") or "none"
        rows.append(Labelled(row["id"], f"{OWN}{path.stem}", row["prompt"], *names, row["prompt"], row["response"], harmful, refused))
    return rows
