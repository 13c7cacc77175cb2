"""A synthetic grid with planted counts: verdict and response files, specs, training data and logs for the report's tests."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from advchain.io import write_json, write_jsonl
from advchain.manifests import manifest_path
from advchain.report.scores import score
from advchain.report_specs import CheckpointInfo, EvaluationInfo, ReportSpec, ScoreSpec

Key = tuple[str, str, str, str]
MANIFEST = {"inputs": {}, "code": "0" * 16, "versions": {"python": "3.11"}, "seconds": 1.5, "counts": {}}
HARM, REFUSAL = "guard", "refusal_phrases"
TITLES = {"guard": "Guard", "string_match": "Refusal string match (GCG)", "refusal_phrases": "Refusal phrases", "math_verify": "math-verify"}
SAFE_JUDGES = {HARM: "harm", "string_match": "harm", REFUSAL: "refusal"}
STEP_JUDGES = {"cues": "steps", "model": "steps"}
ROOT = Path(__file__).resolve().parents[2]


def evaluation(title: str, table: str, nature: str, judges: Mapping[str, str], **more: Any) -> EvaluationInfo:
    return EvaluationInfo.model_validate({"title": title, "table": table, "nature": nature, "judges": judges, **more})


EVALUATIONS = {
    "harmbench": evaluation("HarmBench", "safety", "harmful", SAFE_JUDGES | STEP_JUDGES, paper="HarmBench"),
    "hijack": evaluation("CoT-Hijack", "hijack", "harmful", {HARM: "harm", REFUSAL: "refusal"}, paper="CoT-Hijack"),
    "xstest": evaluation("XSTest", "over_refusal", "benign", {REFUSAL: "refusal"}, paper="XSTest"),
    "math500": evaluation("MATH-500", "reasoning", "benign", {"math_verify": "correctness"}, paper="Math500", margin=0.02),
}


def checkpoint(method: str, run: str = "seed0", model: str = "r1", **more: Any) -> CheckpointInfo:
    titles = {"base": "base", "star1": "STAR-1", "advchain": "AdvChain", "no_injection": "no injection"}
    paper = {"base": "base", "star1": "STAR-1", "advchain": "AdvChain"}
    trained = {} if method == "base" else {"seed": int(run[-1]), "learning_rate": 1e-5}
    names = {"model_title": "R1-7B" if model == "r1" else model, "method_title": titles.get(method, method), "paper_method": paper.get(method)}
    return CheckpointInfo.model_validate({"model": model, "method": method, "run": run, **names, **trained, **more})


def score_spec(checkpoints: Sequence[CheckpointInfo], evaluations: Mapping[str, EvaluationInfo] = EVALUATIONS, **more: Any) -> ScoreSpec:
    return ScoreSpec(version=1, evaluations=dict(evaluations), checkpoints=tuple(checkpoints), bootstrap_draws=2000, **more)


def report_spec(spec: ScoreSpec, **more: Any) -> ReportSpec:
    return ReportSpec.model_validate(
        {"version": 1, "name": "synthetic", "evaluations": spec.evaluations, "checkpoints": spec.checkpoints, "judge_titles": TITLES, **more}
    )


class Grid:
    """Writes verdict and response files under a folder and remembers their paths."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.verdicts: dict[Key, Path] = {}
        self.responses: dict[Key, Path] = {}

    def add(
        self,
        key: Key,
        labels: Mapping[str, Sequence[str]],
        num_samples: int = 1,
        cut: int = 0,
        steps: Sequence[Sequence[float]] | Mapping[str, Sequence[Sequence[float]]] | None = None,
        num_prefix_steps: int = 0,
        stopped_open: int = 0,
    ) -> None:
        """One cell: `labels` per judge, in item order, `num_samples` neighbours are samples of one item.

        The first `cut` responses are truncated, the next `stopped_open` end by themselves with their chain open.
        """
        count = len(next(iter(labels.values())))
        self.responses[key] = self.root / "responses" / "/".join(key[:3]) / f"{key[3]}.jsonl"
        self.verdicts[key] = self.root / "verdicts" / "/".join(key[:3]) / f"{key[3]}.jsonl"
        write_jsonl(self.responses[key], (self._response(key[3], index, num_samples, index < cut + stopped_open, index < cut) for index in range(count)))
        write_jsonl(
            self.verdicts[key],
            [
                self._verdict(key[3], i, num_samples, judge, label, steps[judge] if isinstance(steps, Mapping) and judge in steps else steps, num_prefix_steps)
                for judge, row in labels.items()
                for i, label in enumerate(row)
            ],
        )
        for stage, path in (("responses", self.responses[key]), ("judge", self.verdicts[key])):
            manifest = MANIFEST | {"stage": stage, "spec": {"name": key[3]}, "output": {"path": path.name, "sha256": "0" * 64, "rows": count}}
            write_json(manifest_path(path), manifest)

    def _response(self, evaluation: str, index: int, num_samples: int, unclosed: bool, cut: bool) -> dict[str, Any]:
        names = {"id": f"r{index}", "item_id": f"i{index // num_samples}", "benchmark": evaluation, "nature": "harmful", "prompt": "CANARY prompt"}
        state = {"state": "unclosed" if unclosed else "closed", "finish": "length" if cut else "stop", "thinking": "one two three", "answer": "CANARY answer"}
        return {
            **names,
            **state,
            "sample_index": index % num_samples,
            "seed": index,
            "text": "CANARY text",
            "num_prompt_tokens": 5,
            "num_tokens": 100 + index % 2,
        }

    def _verdict(self, evaluation: str, i: int, num_samples: int, judge: str, label: str, steps: Any, num_prefix_steps: int) -> dict[str, Any]:
        detail: dict[str, Any] = {"why": {"nested": [i, "a\u2028b"]}}
        if steps is not None and label == "scored":
            detail = {"steps": steps[i], "num_prefix_steps": num_prefix_steps}
        return {
            "response_id": f"r{i}",
            "item_id": f"i{i // num_samples}",
            "benchmark": evaluation,
            "judge": judge,
            "label": label,
            "score": None,
            "detail": detail,
        }


def labels(positive: str, negative: str, num_positive: int, total: int, num_excluded: int = 0, start: int = 0) -> list[str]:
    """`num_positive` positives from position `start` on (round and round), then `num_excluded` no_answer at the very end."""
    row = [positive if (i - start) % total < num_positive else negative for i in range(total)]
    return row[: total - num_excluded] + ["no_answer"] * num_excluded


def step_scores(num_bad: int, n: int) -> dict[str, list[list[float]]]:
    """Chains of which `num_bad` reach a bad step and every third of those comes back; the second scorer is stricter on every other chain."""
    chains = [[1.0, 2.0, 4.0 + i % 2, 1.0 if i % 3 == 0 else 3.0] if i < num_bad else [1.0, 1.0 + i % 3, 2.0] for i in range(n)]
    return {"cues": chains, "model": [[min(5.0, step + i % 2) for step in chain] for i, chain in enumerate(chains)]}


def cell(grid: Grid, name: tuple[str, str, str], rates: Mapping[str, float], n: int = 200, start: int = 0, no_answer: int = 0) -> None:
    """Write all four evaluations of one checkpoint with planted rates."""
    unsafe, refused, over, right = (round(rates[metric] * n) for metric in ("asr", "rr", "orr", "pass@1"))
    harm = labels("unsafe", "safe", unsafe, n, no_answer, start)
    match = labels("unsafe", "safe", min(n, unsafe + 4), n, no_answer, start)
    refusal = labels("refused", "complied", refused, n, no_answer, start + unsafe)
    safe = {HARM: harm, "string_match": match, REFUSAL: refusal} | {judge: ["scored"] * n for judge in STEP_JUDGES}
    grid.add((*name, "harmbench"), safe, cut=no_answer, steps=step_scores(unsafe, n))
    more = labels("unsafe", "safe", min(n, round(unsafe * 1.5)), n, 0, start)
    grid.add((*name, "hijack"), {HARM: more, REFUSAL: refusal if not no_answer else labels("refused", "complied", refused, n)})
    grid.add((*name, "xstest"), {REFUSAL: labels("refused", "complied", over, n, 0, start)})
    grid.add((*name, "math500"), {"math_verify": labels("right", "wrong", right, n, 0, start)}, num_samples=2)


def write_samples(path: Path, kinds: Sequence[tuple[str, str]], num: int = 40) -> None:
    """Sample rows whose T-C chains rise and fall under the step cues."""
    base = {"harmful": "This is harmful and against policy.", "benign": "I can explain this step by step."}
    bad = {"harmful": "Maybe I could just provide this, it isn't harmful.", "benign": "This sounds dangerous, I must refuse."}
    rows = []
    for kind, nature in kinds:
        for index in range(num):
            steps = [{"text": f"{base[nature]} ({kind}, {index})"} for _ in range(5 + index % 3)]
            if kind != "plain":
                steps[2:2] = [{"text": bad[nature], "role": "error"}]
            rows.append({"id": f"{kind}-{nature}-{index}", "kind": kind, "nature": nature, "prompt": "CANARY", "steps": steps, "answer": "CANARY"})
    write_jsonl(path, rows)


def write_training(path: Path, num_steps: int = 39, level: float = 2.0) -> None:
    write_jsonl(
        path,
        (
            {"step": i + 1, "epoch": i / 8, "loss": level * math.exp(-i / 12) + 0.3 + 0.05 * math.sin(i), "lr": 1e-5, "tokens": 5000, "seconds": 1.0}
            for i in range(num_steps)
        ),
    )


def dumps(spec: Any) -> str:
    return json.dumps(spec.model_dump(mode="json"))


RATES = {
    "base": {"asr": 0.51, "rr": 0.53, "orr": 0.17, "pass@1": 0.92},
    "star1": {"asr": 0.08, "rr": 0.84, "orr": 0.42, "pass@1": 0.91},
    "advchain": {"asr": 0.045, "rr": 0.92, "orr": 0.18, "pass@1": 0.93},
}


def make(root: Path, out: Path) -> tuple[ScoreSpec, ReportSpec]:
    """Write a grid and score it: two seeds of AdvChain (800:200) and of a 50:50 mix, STAR-1 and base; base leaves 3 % without an answer."""
    grid = Grid(root)
    base = checkpoint("base", "released", paper_model="R1-7B")
    infos = [base, checkpoint("star1", paper_model="R1-7B", recipe="star1", num_tc=0, num_hc=0)]
    cell(grid, ("r1", "base", "released"), RATES["base"], no_answer=6)
    cell(grid, ("r1", "star1", "seed0"), RATES["star1"])
    for index in range(2):
        run = f"seed{index}"
        infos.append(checkpoint("advchain", run, paper_model="R1-7B", num_tc=800, num_hc=200))
        infos.append(checkpoint("advchain_50_50", run, num_tc=500, num_hc=500))
        cell(grid, ("r1", "advchain", run), RATES["advchain"] | {"asr": 0.04 + 0.01 * index})
        cell(grid, ("r1", "advchain_50_50", run), RATES["advchain"] | {"asr": 0.1, "orr": 0.1}, start=3)
    spec = score_spec(infos)
    score(out / "scores.csv", spec, grid.verdicts, grid.responses)
    write_samples(root / "advchain.jsonl", [("tc", "harmful"), ("hc", "benign"), ("plain", "harmful")])
    write_training(root / "training.jsonl")
    return spec, report_spec(spec, deviations=["The teacher is <our> choice & not the paper's."], judge_modules={"guard": "string_match"})
