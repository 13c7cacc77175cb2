"""The plan of the evaluations: what each checkpoint is asked, how it is sampled, who judges it."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from advchain import specs, versions
from advchain.catalogue import module
from advchain.entries import JudgeEntry, ModelEntry, read_entry
from advchain.files import expand_variables
from advchain.grid import Checkpoint, Grid, remembered
from advchain.options import has_other_options


class EvaluationPlan(Grid):
    """Specs of prompts, answers and verdicts."""

    def _endpoint_of(self, name: str, entry: ModelEntry) -> specs.TeacherSpec | None:
        return self.teacher(entry.endpoint, f"config/models.yaml: {name}: origin") if entry.endpoint else None

    @remembered
    def prompts_spec(self, name: str) -> specs.PromptsSpec:
        """Spec of loading one benchmark or building one attack."""
        evaluation = self.evaluations[name]
        entry, attack = evaluation.config, evaluation.attack
        attack_spec = None
        if attack:
            teacher = self.teacher(attack.teacher) if evaluation.module.constants["ASKS"] else None
            settings = attack.model_dump(include={"name", "options", "after"})
            attack_spec = specs.AttackSpec(version=evaluation.module.version, teacher=teacher, **settings)
        return specs.PromptsSpec(
            version=versions.PROMPTS * 1000 + evaluation.module.version,
            name=name,
            benchmark=entry.benchmark or name,
            origin=entry.origin or self.config.data.origin,
            path=entry.path,
            offset=entry.offset,
            limit=entry.limit,
            seed=self.config.seed,
            attack=attack_spec,
        )

    def sampling(self, checkpoint: Checkpoint, name: str) -> specs.Sampling:
        """Decoding settings: the config's, then the model's, then the evaluation's own."""
        own = self.evaluations[name].config.model_dump(include=set(specs.Sampling.model_fields), exclude_none=True)
        shared = self.config.evaluation.sampling.model_dump()
        return specs.Sampling(**(shared | self.model(checkpoint.model).sampling | own))

    def generate_spec(self, checkpoint: Checkpoint, evaluations: list[str]) -> specs.GenerateSpec:
        """Spec of answering the listed evaluations with one engine load (or of collecting one of them)."""
        settings, entry = self.config.evaluation, self.model(checkpoint.model)
        teacher = self._endpoint_of(checkpoint.model, entry)
        return specs.GenerateSpec(
            version=versions.GENERATE,
            checkpoint=checkpoint.path,
            engine="endpoint" if teacher else settings.engine,
            endpoint=specs.EndpointSpec(teacher=teacher, completions=entry.completions) if teacher else None,
            precision="auto" if teacher else settings.precision,
            batch_tokens=settings.batch_tokens,
            max_sequences=settings.max_sequences,
            replicas=settings.replicas,
            tensor_parallel=entry.tensor_parallel,
            stall_seconds=settings.stall_seconds,
            seed=self.config.seed,
            sampling={name: self.sampling(checkpoint, name) for name in evaluations},
        )

    @remembered
    def judges_of(self, name: str) -> list[str]:
        """Judges of one evaluation: its own, else its kind's, else its file's default. A mirror attack on benign prompts is judged as they are."""
        evaluation = self.evaluations[name]
        constants = evaluation.module.constants
        kind: Any = "over_refusal" if constants["NATURE"] == "benign" and constants["TABLE"] != "reasoning" else constants["TABLE"]
        return list(evaluation.config.judges or self.config.evaluation.judges.get(kind) or constants["JUDGES"])

    @remembered
    def judged_together(self, checkpoint: Checkpoint) -> list[tuple[str, ...]]:
        """Evaluations of one checkpoint by the job that judges them: those that one engine load answers and the same judges read."""
        found: dict[tuple[str, ...], list[str]] = {}
        for group, names in self.groups_of(checkpoint).items():
            for name in names:
                found.setdefault((group, *self.judges_of(name)), []).append(name)
        return [tuple(names) for names in found.values()]

    @remembered
    def judge_spec(self, name: str, where: str = "judges") -> specs.JudgeSpec:
        """Resolved settings of one judge."""
        entry = read_entry("judges", name, JudgeEntry, where)
        version = module("judges", entry.kind, f"config/judges.yaml: {name}").version
        teacher = self.teacher(entry.teacher, f"config/judges.yaml: {name}") if entry.teacher else None
        return specs.JudgeSpec(version=version, name=name, kind=entry.kind, options=entry.options, teacher=teacher)

    @cached_property
    def own_labels(self) -> str | None:
        """A file with labels of the user's own, where `judge_data` is one; None for a folder of public sets."""
        data = self.config.evaluation.judge_data
        path = expand_variables(data, "evaluation.judge_data") if data else ""
        return path if path.endswith(".csv") else None

    def measured_judges(self) -> list[specs.JudgeSpec]:
        """Every judge of harm or refusal of this config, as it is set: what the figures of `judge_report` depend on."""
        used = dict.fromkeys(judge for name in self.evaluations for judge in self.judges_of(name))
        return [self.judge_spec(name) for name in used if self._measures(name) in ("harm", "refusal")]

    def further_judges(self) -> list[str]:
        """Judges of harm or refusal of this config that are no offline default: what `judge_report` measures beside those."""
        known = {"embedded_guard", "embedded_refusal", "string_match", "refusal_phrases"}
        return [spec.name for spec in self.measured_judges() if spec.kind not in known or has_other_options("judges", spec.kind, spec.options)]

    @remembered
    def judge_stage_spec(self, name: str) -> specs.JudgeStageSpec:
        """Spec of judging one evaluation's responses."""
        judges = tuple(self.judge_spec(judge) for judge in self.judges_of(name))
        share = self.config.evaluation.max_unparsed_share
        return specs.JudgeStageSpec(version=versions.JUDGE, benchmark=name, nature=self.nature(name), judges=judges, max_unparsed_share=share)

    def view(self, name: str) -> specs.View:
        """What the judges of an evaluation read: its own setting, else its file's, else the answer."""
        evaluation = self.evaluations[name]
        view: specs.View = evaluation.config.view or evaluation.module.constants.get("VIEW", "answer")
        return view

    def view_spec(self, name: str) -> specs.ViewSpec:
        """Spec of showing the judges something else than the answer."""
        return specs.ViewSpec(version=versions.VIEW, view=self.view(name))

    @remembered
    def judge_gpus(self, name: str) -> int:
        """GPUs that the hungriest judge of an evaluation takes."""
        return max((read_entry("judges", judge, JudgeEntry, "judges").gpus for judge in self.judges_of(name)), default=0)

    def nature(self, name: str) -> Any:
        """Whether the prompts of an evaluation are harmful or benign."""
        return self.evaluations[name].module.constants["NATURE"]

    def _measures(self, judge: str) -> Any:
        return module("judges", read_entry("judges", judge, JudgeEntry, "judges").kind, "judges").constants["MEASURES"]
