"""The plan: for every job that the grid asks for, its spec. Pure: reads catalogues, touches no results."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from advchain import plan_checks, specs, versions
from advchain.catalogue import module
from advchain.config import Config, PeakConfig
from advchain.entries import JudgeEntry, ModelEntry, RecipeEntry, read_entry
from advchain.errors import ConfigError
from advchain.estimate import profiles
from advchain.files import expand_variables
from advchain.grid import Checkpoint, Grid, remembered
from advchain.llm.endpoint import endpoint_family
from advchain.options import has_other_options
from advchain.report_specs import CheckpointInfo, EvaluationInfo, ReportSpec, ScoreSpec

VIEW_TITLE: dict[specs.View, str] = {"answer": "", "chain": " (chain judged)", "full": " (chain + answer judged)"}


class Plan(Grid):
    """Everything the rules ask for. Building one checks every name and count in the config.

    Raises:
        ConfigError: an unknown name, or counts that do not fit; one paragraph.
    """

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        plan_checks.check(self)

    @remembered
    def source_spec(self, name: str) -> specs.SourceSpec:
        """Spec of reading one source."""
        source = self.config.sources[name]
        version = versions.SOURCES * 1000 + module("sources", source.loader, name).version
        origin = source.origin or self.config.data.origin
        return specs.SourceSpec(version=version, name=name, origin=origin, **source.model_dump(exclude={"origin"}))

    @remembered
    def chains_spec(self, name: str) -> specs.ChainsSpec:
        """Spec of rewriting one chain set."""
        chains = self.config.chains[name]
        rest = chains.model_dump(exclude={"source", "teacher", "peak"})
        peak = self._peak_spec(f"chains.{name}.peak.judge", chains.peak)
        return specs.ChainsSpec(version=versions.CHAINS, name=name, teacher=self.teacher(chains.teacher), peak=peak, seed=self.config.seed, **rest)

    def _peak_spec(self, where: str, peak: PeakConfig) -> specs.PeakSpec:
        if peak.judge == "step_cues":
            return specs.PeakSpec(margin=peak.margin, gate=peak.gate)
        return specs.PeakSpec(judge="api", teacher=self.teacher(peak.judge, where), margin=peak.margin, gate=peak.gate)

    @remembered
    def dataset_spec(self, recipe: str) -> specs.DatasetSpec:
        """Spec of mixing one recipe; shares become whole rows by largest remainder."""
        entry = read_entry("recipes", recipe, RecipeEntry, "recipes")
        size = round(self.config.data.size * entry.scale)
        counts = whole_shares([part.share for part in entry.parts], size)
        parts = tuple(specs.RecipePart(chains=p.chains, source=p.source, count=n, steps=p.steps) for p, n in zip(entry.parts, counts, strict=True))
        strict = self.contamination_spec() if self.config.contamination.strict else None
        return specs.DatasetSpec(version=versions.DATASETS, recipe=recipe, title=entry.title, parts=parts, seed=self.config.seed, strict=strict)

    def contamination_spec(self) -> specs.ContaminationSpec:
        """Spec of comparing one training set with every benchmark."""
        return specs.ContaminationSpec(version=versions.CONTAMINATION, **self.config.contamination.model_dump(exclude={"strict", "also"}))

    @cached_property
    def compared(self) -> dict[str, specs.PromptsSpec]:
        """Benchmark files to compare training sets with, each whole and once: an evaluation's limit or seed moves nothing here."""
        found: dict[tuple[str, str, str | None], specs.PromptsSpec] = {}
        for name, evaluation in self.evaluations.items():
            if evaluation.attack is None:
                spec = self.prompts_spec(name).model_copy(update={"limit": None, "seed": 0})
                found.setdefault((spec.benchmark, spec.origin, spec.path), spec)
        for name, other in self.config.contamination.also.items():
            benchmark, origin = other.benchmark or name, other.origin or self.config.data.origin
            version = versions.PROMPTS * 1000 + module("benchmarks", benchmark, name).version
            found[benchmark, origin, other.path] = specs.PromptsSpec(version=version, name=name, benchmark=benchmark, origin=origin, path=other.path)
        return {spec.name: spec for spec in found.values()}

    @cached_property
    def compared_sources(self) -> list[str]:
        """Sources whose chains an attack hijacks: their prompts are benchmark prompts too."""
        return sorted({e.attack.source for e in self.evaluations.values() if e.attack and e.attack.source})

    def export_spec(self, recipe: str) -> specs.ExportSpec:
        """Spec of writing one training set for the `datasets` library."""
        return specs.ExportSpec(
            version=versions.EXPORT, recipe=recipe, title=read_entry("recipes", recipe, RecipeEntry, "recipes").title, name=self.config.name
        )

    def publish_spec(self) -> specs.PublishSpec:
        """Spec of uploading one exported training set."""
        return specs.PublishSpec(**self.config.publish.model_dump())

    def model_spec(self, name: str) -> specs.ModelSpec:
        """Spec of fetching one released model."""
        entry = self.model(name)
        teacher = self._endpoint_of(name, entry)
        endpoint = f"{endpoint_family(teacher)} {teacher.model}" if teacher else None
        rest = entry.model_dump(include={"origin", "family", "revision", "sha256", "file"})
        return specs.ModelSpec(version=versions.MODELS, name=name, endpoint=endpoint, **rest)

    def _endpoint_of(self, name: str, entry: ModelEntry) -> specs.TeacherSpec | None:
        return self.teacher(entry.endpoint, f"config/models.yaml: {name}: origin") if entry.endpoint else None

    @remembered
    def train_choice(self, model: str) -> profiles.Choice:
        """Profile, cards and packs of a training of one model: what the config sets, the rest chosen by the memory model."""
        entry, train = self.model(model), self.config.train
        adapters = entry.sizes.lora_parameters(train.lora.rank, train.lora.targets) if entry.sizes and train.lora else None
        wanted = profiles.Wanted(
            model=model,
            shape=entry.sizes,
            max_length=train.max_length,
            rows=train.batch_size,
            tokens=train.batch_size * profiles.ROW_TOKENS,
            precision=train.precision,
            profile=train.deepspeed if train.deepspeed != "auto" else entry.deepspeed,
            checkpointing=entry.gradient_checkpointing,
            micro_batch_tokens=train.micro_batch_tokens,
            gpus=entry.train_gpus,
            nodes=entry.train_nodes,
            trained=adapters,
        )
        return profiles.choose(wanted, self.hardware, self.gpus)

    def train_spec(self, checkpoint: Checkpoint) -> specs.TrainSpec:
        """Spec of one training."""
        train, choice = self.config.train, self.train_choice(checkpoint.model)
        settings = train.model_dump(exclude={"deepspeed", "processes", "learning_rate", "micro_batch_tokens", "trackers"})
        return specs.TrainSpec(
            version=versions.TRAIN,
            model=checkpoint.model,
            family=self.model(checkpoint.model).family,
            method=checkpoint.method,
            run=checkpoint.run,
            seed=checkpoint.seed,
            learning_rate=checkpoint.learning_rate,
            mask_errors=self.method(checkpoint.method).mask_errors,
            gradient_checkpointing=choice.checkpointing,
            deepspeed=choice.profile,
            micro_batch_tokens=choice.micro_batch_tokens,
            **settings,
        )

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

    # ---------------------------------------------------------------- the report

    @remembered
    def evaluation_infos(self) -> dict[str, EvaluationInfo]:
        """How the report names and places each evaluation."""
        infos = {}
        for name, evaluation in self.evaluations.items():
            judges = {j: self._measures(j) for j in self.judges_of(name)}
            constants = evaluation.module.constants
            plain = name == evaluation.module.name  # a variant goes by its own name, and is not the paper's column
            title = constants["SHORT"] if plain else name
            view = self.view(name)
            infos[name] = EvaluationInfo(
                title=title + VIEW_TITLE[view],
                table=evaluation.config.table or (constants["TABLE"] if view == "answer" else "attacks"),
                nature=constants["NATURE"],
                paper=constants["PAPER"] if plain and view == "answer" else None,
                judges=judges,
                margin=constants.get("MARGIN"),
            )
        return infos

    def _measures(self, judge: str) -> Any:
        return module("judges", read_entry("judges", judge, JudgeEntry, "judges").kind, "judges").constants["MEASURES"]

    @remembered
    def checkpoint_info(self, checkpoint: Checkpoint) -> CheckpointInfo:
        """How the report names one checkpoint."""
        model, method = self.model(checkpoint.model), self.method(checkpoint.method)
        trained = method.kind == "train"
        parts = self.dataset_spec(str(method.recipe)).parts if trained else ()
        if any(part.steps != "all" for part in parts):
            parts = ()  # a control has no T-C : H-C ratio
        return CheckpointInfo(
            model=checkpoint.model,
            method=checkpoint.method,
            run=checkpoint.run,
            model_title=model.title,
            method_title=method.title,
            paper_model=model.paper,
            paper_method=method.paper,
            recipe=method.recipe,
            num_tc=sum(p.count for p in parts if self._kind_of(p) == "temptation") if trained else None,
            num_hc=sum(p.count for p in parts if self._kind_of(p) == "hesitation") if trained else None,
            seed=checkpoint.seed if trained else None,
            learning_rate=checkpoint.learning_rate if trained else None,
            evaluations=tuple(self.evaluations_of(checkpoint)),
        )

    def _kind_of(self, part: specs.RecipePart) -> str | None:
        return self.config.chains[part.chains].kind if part.chains else None

    @remembered
    def score_spec(self) -> ScoreSpec:
        """Spec of counting all verdicts."""
        infos = tuple(self.checkpoint_info(c) for c in self.checkpoints)
        return ScoreSpec(version=versions.SCORE, evaluations=self.evaluation_infos(), checkpoints=infos)

    def report_spec(self, deviations: tuple[str, ...] = ()) -> ReportSpec:
        """Spec of tables, figures and report; `deviations` are those of deviations.py."""
        used = sorted({judge for name in self.evaluations for judge in self.judges_of(name)})
        entries = {judge: read_entry("judges", judge, JudgeEntry, "judges") for judge in used}
        score = self.score_spec()
        return ReportSpec(
            version=versions.REPORT,
            name=self.config.name,
            evaluations=score.evaluations,
            checkpoints=score.checkpoints,
            judge_titles={judge: entry.title for judge, entry in entries.items()},
            judge_modules={judge: entry.kind for judge, entry in entries.items()},
            altered_judges=tuple(judge for judge, entry in entries.items() if has_other_options("judges", entry.kind, entry.options)),
            deviations=deviations,
        )


def whole_shares(shares: list[float], size: int) -> list[int]:
    """Split `size` rows by shares that sum to 1, by largest remainder.

    >>> whole_shares([0.8, 0.2], 1000)
    [800, 200]

    Raises:
        ConfigError: the shares do not sum to 1.
    """
    if abs(sum(shares) - 1.0) > 1e-6:
        raise ConfigError(f"config/recipes.yaml: the shares {shares} sum to {sum(shares):g}; they must sum to 1.")
    counts = [int(share * size + 1e-9) for share in shares]
    order = sorted(range(len(shares)), key=lambda i: shares[i] * size - counts[i], reverse=True)
    for i in order[: size - sum(counts)]:
        counts[i] += 1
    return counts
