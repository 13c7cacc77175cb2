"""The rows of every table: checkpoints that differ only in their seed form one group and share a pooled score."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from advchain.report_specs import CheckpointInfo, EvaluationInfo

# kind of judge x nature of the prompts -> metric; METHOD 1.4: ASR on harmful prompts, RR and ORR are the same judge on harmful and benign ones
METRIC = {
    ("harm", "harmful"): "asr",
    ("harm", "benign"): "unsafe_rate",
    ("refusal", "harmful"): "rr",
    ("refusal", "benign"): "orr",
    ("correctness", "harmful"): "pass@1",
    ("correctness", "benign"): "pass@1",
    ("steps", "harmful"): "mean_step_score",
    ("steps", "benign"): "mean_step_score",
}
METRIC_TITLE = {"asr": "ASR", "unsafe_rate": "unsafe", "rr": "RR", "orr": "ORR", "pass@1": "pass@1", "mean_step_score": "step score"}
LOWER_IS_BETTER = frozenset({"asr", "orr", "unsafe_rate"})


@dataclass(frozen=True)
class Group:
    """One row of a table. `run` is the run of its only checkpoint, or "pooled" (with the learning rate where there are several)."""

    model: str
    method: str
    run: str
    learning_rate: float | None
    members: tuple[CheckpointInfo, ...]
    many_rates: bool

    @property
    def first(self) -> CheckpointInfo:
        """Any member: they differ in the seed only."""
        return self.members[0]

    @property
    def method_title(self) -> str:
        """Method, with the learning rate where the grid sweeps it."""
        return f"{self.first.method_title}, lr {self.learning_rate:g}" if self.many_rates and self.learning_rate is not None else self.first.method_title

    @property
    def seeds(self) -> str:
        """Seeds as shown: "2002, 2003", or a dash for a model that was not trained here."""
        return ", ".join(str(member.seed) for member in self.members if member.seed is not None) or "-"

    def has(self, evaluation: str) -> bool:
        """Whether any checkpoint of the group was asked this evaluation: a grid may be ragged."""
        return any(asked(member, evaluation) for member in self.members)


def asked(info: CheckpointInfo, evaluation: str) -> bool:
    """Whether the grid holds this evaluation of this checkpoint."""
    return not info.evaluations or evaluation in info.evaluations


def groups(checkpoints: Sequence[CheckpointInfo]) -> list[Group]:
    """Group checkpoints by model, method and learning rate: models in the order of the spec, what was not trained here first."""
    members: dict[tuple[str, str, float | None], list[CheckpointInfo]] = {}
    models = list(dict.fromkeys(info.model for info in checkpoints))
    for info in sorted(checkpoints, key=lambda info: (models.index(info.model), info.seed is not None, info.method != "base")):
        members.setdefault((info.model, info.method, info.learning_rate), []).append(info)
    rates: dict[tuple[str, str], int] = {}
    for model, method, _ in members:
        rates[model, method] = rates.get((model, method), 0) + 1
    return [_group(key, tuple(infos), rates[key[:2]] > 1) for key, infos in members.items()]


def _group(key: tuple[str, str, float | None], members: tuple[CheckpointInfo, ...], many_rates: bool) -> Group:
    model, method, rate = key
    pooled = f"pooled-lr{rate:g}" if many_rates and rate is not None else "pooled"
    return Group(model, method, members[0].run if len(members) == 1 else pooled, rate, members, many_rates)


def judges_of(info: EvaluationInfo) -> Iterator[tuple[str, str, str, bool]]:
    """Yield (judge, kind, metric, primary) of an evaluation; the first judge of a kind is primary."""
    seen: set[str] = set()
    for judge, kind in info.judges.items():
        yield judge, kind, METRIC[kind, info.nature], kind not in seen
        seen.add(kind)


def partner(group: Group, method: str, candidates: Iterable[Group]) -> Group | None:
    """Return the group of `method` that `group` is compared with: same model and learning rate, or the model that has none (base)."""
    same_model = [other for other in candidates if other.model == group.model and other.method == method]
    for wanted in (group.learning_rate, None):
        for other in same_model:
            if other.learning_rate == wanted:
                return other
    return same_model[0] if len(same_model) == 1 and not group.many_rates else None
