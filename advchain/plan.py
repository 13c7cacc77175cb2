"""The plan: for every job that the grid asks for, its spec. Pure: reads catalogues, touches no results."""

from __future__ import annotations

from functools import cached_property

from advchain import plan_checks, specs, versions
from advchain.catalogue import module
from advchain.config import Config, PeakConfig
from advchain.entries import JudgeEntry, RecipeEntry, read_entry
from advchain.errors import ConfigError
from advchain.estimate import profiles
from advchain.evaluation_plan import EvaluationPlan
from advchain.grid import Checkpoint, remembered
from advchain.llm.endpoint import endpoint_family
from advchain.options import has_other_options
from advchain.report_specs import CheckpointInfo, EvaluationInfo, ReportSpec, ScoreSpec

VIEW_TITLE: dict[specs.View, str] = {"answer": "", "chain": " (chain judged)", "full": " (chain + answer judged)"}


class Plan(EvaluationPlan):
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
    def local_paths(self) -> list[tuple[str, str]]:
        """The user's own files: where the config names them, and the path, whose variables may not be set."""
        found = [(f"sources.{name}", source.path) for name, source in self.config.sources.items()]
        found += [(f"evaluation.benchmarks.{name}", evaluation.config.path) for name, evaluation in self.evaluations.items()]
        found += [(f"contamination.also.{name}", other.path) for name, other in self.config.contamination.also.items()]
        return [(where, path) for where, path in found if path]

    @cached_property
    def compared(self) -> dict[str, specs.PromptsSpec]:
        """Benchmark files to compare training sets with, each whole and once: an evaluation's part of it moves nothing here."""
        found: dict[tuple[str, str, str | None], specs.PromptsSpec] = {}
        for name, evaluation in self.evaluations.items():
            if evaluation.attack is None:
                spec = self.prompts_spec(name).model_copy(update={"offset": 0, "limit": None, "seed": 0})
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
