"""Config -> what has to be made: checkpoints, evaluations and the spec of every job. Pure: reads catalogues, touches no results."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from advchain import specs, versions
from advchain.catalogue import Module, module
from advchain.config import AttackConfig, Block, Config, EvaluationConfig, PeakConfig, num_gpus
from advchain.entries import JudgeEntry, MethodEntry, ModelEntry, RecipeEntry, TeacherEntry, method_entry, read_entry
from advchain.errors import ConfigError, did_you_mean

BASE_RUN = "released"  # the run name of what is not trained here


@dataclass(frozen=True, order=True)
class Checkpoint:
    """One model after one method: trained here with a seed and learning rate, or taken as released."""

    model: str
    method: str
    run: str
    seed: int = 0
    learning_rate: float = 0.0

    @property
    def path(self) -> str:
        """`model/method/run`, the folder of everything made from it."""
        return f"{self.model}/{self.method}/{self.run}"


@dataclass(frozen=True)
class Evaluation:
    """One column: the benchmark (or attack) file behind it and its settings."""

    name: str
    config: EvaluationConfig
    module: Module

    @property
    def attack(self) -> AttackConfig | None:
        """The attack, if this column is one."""
        return self.config.attack

    @property
    def group(self) -> str:
        """Engine-load group: attacks on a reference checkpoint's refusals wait for its responses, all else is asked at once."""
        return "attacks" if self.attack and self.attack.reference else "direct"


class Plan:
    """Everything the rules ask for. Building one checks every name and count in the config.

    Raises:
        ConfigError: an unknown name, or counts that do not fit; one paragraph.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        self.gpus = num_gpus(config.gpus)
        self.evaluations = {name: self._evaluation(name, entry) for name, entry in config.evaluation.benchmarks.items()}
        self._cells = self._expand_grid()
        self.checkpoints = sorted(self._cells)
        self._check()

    # ---------------------------------------------------------------- the grid

    def _evaluation(self, name: str, entry: EvaluationConfig) -> Evaluation:
        where = f"evaluation.benchmarks.{name}"
        if entry.attack:
            return Evaluation(name, entry, module("attacks", entry.attack.name, f"{where}.attack.name"))
        return Evaluation(name, entry, module("benchmarks", entry.benchmark or name, f"{where}.benchmark"))

    def _expand_grid(self) -> dict[Checkpoint, set[str]]:
        cells: dict[Checkpoint, set[str]] = {}
        for name, block in self.config.grid.items():
            chosen = block.benchmarks or list(self.evaluations)
            for benchmark in chosen:
                if benchmark not in self.evaluations:
                    raise ConfigError(f"grid.{name}.benchmarks: unknown evaluation '{benchmark}'; {did_you_mean(benchmark, self.evaluations)}")
            for checkpoint in self._block_checkpoints(name, block):
                cells.setdefault(checkpoint, set()).update(chosen)
        return cells

    def _block_checkpoints(self, name: str, block: Block) -> list[Checkpoint]:
        found = []
        for model in block.models:
            read_entry("models", model, ModelEntry, f"grid.{name}.models")
            for method in block.methods:
                entry = method_entry(method, f"grid.{name}.methods")
                if entry.kind == "train":
                    rates = block.learning_rates or [self.config.train.learning_rate]
                    found += [self._trained(model, method, rate, seed) for rate in rates for seed in block.seeds]
                elif entry.kind == "base" or model in entry.checkpoints:
                    found.append(Checkpoint(model, method, BASE_RUN))
        if not found:
            raise ConfigError(f"grid.{name}: no method of {block.methods} exists for a model of {block.models}.")
        return found

    def _trained(self, model: str, method: str, rate: float, seed: int) -> Checkpoint:
        run = f"seed{seed}" if rate == self.config.train.learning_rate else f"lr{rate:g}_seed{seed}"
        return Checkpoint(model, method, run, seed, rate)

    def checkpoint(self, model: str, method: str, run: str) -> Checkpoint:
        """Return the planned checkpoint of these wildcards."""
        return next(c for c in self.checkpoints if (c.model, c.method, c.run) == (model, method, run))

    def evaluations_of(self, checkpoint: Checkpoint) -> list[str]:
        """Names of the evaluations of one checkpoint, in config order."""
        return [name for name in self.evaluations if name in self._cells[checkpoint]]

    def groups_of(self, checkpoint: Checkpoint) -> dict[str, list[str]]:
        """Engine-load group -> evaluations of one checkpoint."""
        groups: dict[str, list[str]] = {}
        for name in self.evaluations_of(checkpoint):
            groups.setdefault(self.evaluations[name].group, []).append(name)
        return groups

    # ---------------------------------------------------------------- checks that need no file

    def _check(self) -> None:
        for name, source in self.config.sources.items():
            module("sources", source.loader, f"sources.{name}.loader")
            self._check_origin(f"sources.{name}", source.origin, source.path)
        for name, chains in self.config.chains.items():
            self._known(f"chains.{name}.source", chains.source, self.config.sources)
            self.teacher(chains.teacher, f"chains.{name}.teacher")
            self._peak_spec(f"chains.{name}.peak.judge", chains.peak)
        for recipe in self.recipes:
            self._check_recipe(recipe)
        for name, other in self.config.contamination.also.items():
            where = f"contamination.also.{name}"
            module("benchmarks", other.benchmark or name, where)
            self._check_origin(where, other.origin, other.path)
            if name in self.evaluations or name in self.config.sources:
                raise ConfigError(f"{where}: '{name}' is an evaluation or a source too. Give it another name, and say the file with `benchmark:`.")
        for name in set(self.compared) & set(self.compared_sources):
            raise ConfigError(f"sources.{name}: an evaluation has the same name, and training sets are compared with both. Rename one.")
        for name, evaluation in self.evaluations.items():
            self._check_evaluation(name, evaluation)

    def _check_origin(self, where: str, origin: str | None, path: str | None) -> None:
        local = (origin or self.config.data.origin) == "local"
        if local and not path:
            raise ConfigError(f"{where}: `from: local` needs a `path`.")
        if path and not local:
            raise ConfigError(f"{where}: `path` is given but it is read from '{origin or self.config.data.origin}'; add `from: local`.")

    def _check_recipe(self, name: str) -> None:
        spec = self.dataset_spec(name)
        for part in spec.parts:
            if part.chains:
                self._known(f"config/recipes.yaml: {name}: chains", part.chains, self.config.chains)
                made = self.config.chains[part.chains].count
                if part.count > made:
                    raise ConfigError(
                        f"recipe {name} needs {part.count} rows of chains '{part.chains}', which makes {made}: raise its count or lower data.size."
                    )
            else:
                self._known(f"config/recipes.yaml: {name}: source", str(part.source), self.config.sources)
                if part.steps not in ("all", "base"):
                    raise ConfigError(f"config/recipes.yaml: {name}: `steps: {part.steps}` needs `chains`; rows of a source have no injected steps.")

    def _check_evaluation(self, name: str, evaluation: Evaluation) -> None:
        where = f"evaluation.benchmarks.{name}"
        for judge in self.judges_of(name):
            self.judge_spec(judge, where)
        attack = evaluation.attack
        if attack is None:
            self._check_origin(where, evaluation.config.origin, evaluation.config.path)
            return
        if (attack.source is None) == (attack.reference is None):
            raise ConfigError(f"{where}.attack: give either `source` (held-out safe chains) or `reference` (a checkpoint whose refusals are hijacked).")
        if attack.source:
            self._known(f"{where}.attack.source", attack.source, self.config.sources)
        if attack.reference:
            self._check_reference(where, attack)
        self._check_disjoint_teacher(where, attack)

    def _check_reference(self, where: str, attack: AttackConfig) -> None:
        wanted = attack.reference or {}
        known = [c.path for c in self.checkpoints]
        path = f"{wanted.get('model')}/{wanted.get('method')}/{wanted.get('run', BASE_RUN)}"
        if path not in known:
            raise ConfigError(f"{where}.attack.reference: checkpoint '{path}' is not in the grid; {did_you_mean(path, known)}")
        for benchmark in attack.benchmarks or [""]:
            self._known(f"{where}.attack.benchmarks", benchmark, {n: e for n, e in self.evaluations.items() if e.group == "direct"})

    def _check_disjoint_teacher(self, where: str, attack: AttackConfig) -> None:
        for name, chains in self.config.chains.items():
            if chains.teacher == attack.teacher:
                raise ConfigError(
                    f"{where}.attack.teacher: '{attack.teacher}' also writes the training chains '{name}'; attack wording must come from another teacher."
                )

    def _known(self, where: str, name: str, known: dict[str, Any]) -> None:
        if name not in known:
            raise ConfigError(f"{where}: unknown name '{name}'; {did_you_mean(name, known)}")

    # ---------------------------------------------------------------- catalogue look-ups

    def model(self, name: str) -> ModelEntry:
        """Return a model's catalogue entry."""
        return read_entry("models", name, ModelEntry, "models")

    def method(self, name: str) -> MethodEntry:
        """Return a method's catalogue entry."""
        return method_entry(name, "methods")

    def teacher(self, name: str, where: str = "teachers") -> specs.TeacherSpec:
        """Return a teacher's resolved settings."""
        entry = read_entry("teachers", name, TeacherEntry, where)
        return specs.TeacherSpec(name=name, **entry.model_dump(exclude={"title"}))

    def weights_of(self, checkpoint: Checkpoint) -> str:
        """Return the catalogue name of the released model that stands for a checkpoint not trained here."""
        entry = self.method(checkpoint.method)
        return entry.checkpoints[checkpoint.model] if entry.kind == "download" else checkpoint.model

    @cached_property
    def recipes(self) -> list[str]:
        """Recipes that some planned checkpoint trains on."""
        entries = [self.method(c.method) for c in self.checkpoints]
        return sorted({str(e.recipe) for e in entries if e.kind == "train"})

    # ---------------------------------------------------------------- specs, one per job

    def source_spec(self, name: str) -> specs.SourceSpec:
        """Spec of reading one source."""
        source = self.config.sources[name]
        version = versions.SOURCES * 1000 + module("sources", source.loader, name).version
        origin = source.origin or self.config.data.origin
        return specs.SourceSpec(version=version, name=name, origin=origin, **source.model_dump(exclude={"origin"}))

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
        return specs.ModelSpec(version=versions.MODELS, name=name, **entry.model_dump(include={"origin", "family", "revision", "sha256", "file"}))

    def train_spec(self, checkpoint: Checkpoint) -> specs.TrainSpec:
        """Spec of one training."""
        entry, train = self.model(checkpoint.model), self.config.train
        profile = train.deepspeed if train.deepspeed != "auto" else entry.deepspeed if self.gpus else "cpu"
        settings = train.model_dump(exclude={"deepspeed", "processes", "learning_rate"})
        return specs.TrainSpec(
            version=versions.TRAIN,
            model=checkpoint.model,
            family=entry.family,
            method=checkpoint.method,
            run=checkpoint.run,
            seed=checkpoint.seed,
            learning_rate=checkpoint.learning_rate,
            mask_errors=self.method(checkpoint.method).mask_errors,
            gradient_checkpointing=entry.gradient_checkpointing and self.gpus > 0,
            deepspeed=profile,
            **settings,
        )

    def prompts_spec(self, name: str) -> specs.PromptsSpec:
        """Spec of loading one benchmark or building one attack."""
        evaluation = self.evaluations[name]
        entry, attack = evaluation.config, evaluation.attack
        attack_spec = None
        if attack:
            attack_spec = specs.AttackSpec(version=evaluation.module.version, name=attack.name, options=attack.options, teacher=self.teacher(attack.teacher))
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
        settings = self.config.evaluation
        return specs.GenerateSpec(
            version=versions.GENERATE,
            checkpoint=checkpoint.path,
            engine=settings.engine,
            precision=settings.precision,
            batch_tokens=settings.batch_tokens,
            seed=self.config.seed,
            sampling={name: self.sampling(checkpoint, name) for name in evaluations},
        )

    def judges_of(self, name: str) -> list[str]:
        """Judges of one evaluation: its own, else its table's, else its file's default."""
        evaluation = self.evaluations[name]
        table = evaluation.module.constants.get("TABLE", "safety")
        return list(evaluation.config.judges or self.config.evaluation.judges.get(table) or evaluation.module.constants["JUDGES"])

    def judge_spec(self, name: str, where: str = "judges") -> specs.JudgeSpec:
        """Resolved settings of one judge."""
        entry = read_entry("judges", name, JudgeEntry, where)
        version = module("judges", entry.kind, f"config/judges.yaml: {name}").version
        teacher = self.teacher(entry.teacher, f"config/judges.yaml: {name}") if entry.teacher else None
        return specs.JudgeSpec(version=version, name=name, kind=entry.kind, options=entry.options, teacher=teacher)

    def judge_stage_spec(self, name: str) -> specs.JudgeStageSpec:
        """Spec of judging one evaluation's responses."""
        judges = tuple(self.judge_spec(judge) for judge in self.judges_of(name))
        share = self.config.evaluation.max_unparsed_share
        return specs.JudgeStageSpec(version=versions.JUDGE, benchmark=name, nature=self.nature(name), judges=judges, max_unparsed_share=share)

    def judge_gpus(self, name: str) -> int:
        """GPUs that the hungriest judge of an evaluation takes."""
        return max((read_entry("judges", judge, JudgeEntry, "judges").gpus for judge in self.judges_of(name)), default=0)

    def nature(self, name: str) -> Any:
        """Whether the prompts of an evaluation are harmful or benign."""
        return self.evaluations[name].module.constants["NATURE"]

    # ---------------------------------------------------------------- the report

    def evaluation_infos(self) -> dict[str, specs.EvaluationInfo]:
        """How the report names and places each evaluation."""
        infos = {}
        for name, evaluation in self.evaluations.items():
            judges = {j: self._measures(j) for j in self.judges_of(name)}
            constants = evaluation.module.constants
            title = constants.get("SHORT", evaluation.module.title) if evaluation.name == (evaluation.config.benchmark or name) else name
            infos[name] = specs.EvaluationInfo(
                title=title,
                table=constants["TABLE"],
                nature=constants["NATURE"],
                paper=constants.get("PAPER"),
                judges=judges,
                margin=constants.get("MARGIN"),
            )
        return infos

    def _measures(self, judge: str) -> Any:
        return module("judges", read_entry("judges", judge, JudgeEntry, "judges").kind, "judges").constants["MEASURES"]

    def checkpoint_info(self, checkpoint: Checkpoint) -> specs.CheckpointInfo:
        """How the report names one checkpoint."""
        model, method = self.model(checkpoint.model), self.method(checkpoint.method)
        trained = method.kind == "train"
        parts = self.dataset_spec(str(method.recipe)).parts if trained else ()
        if any(part.steps != "all" for part in parts):
            parts = ()  # a control has no T-C : H-C ratio
        return specs.CheckpointInfo(
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

    def score_spec(self) -> specs.ScoreSpec:
        """Spec of counting all verdicts."""
        infos = tuple(self.checkpoint_info(c) for c in self.checkpoints)
        return specs.ScoreSpec(version=versions.SCORE, evaluations=self.evaluation_infos(), checkpoints=infos)

    def report_spec(self, deviations: tuple[str, ...] = ()) -> specs.ReportSpec:
        """Spec of tables, figures and report; `deviations` are those of deviations.py."""
        used = sorted({judge for name in self.evaluations for judge in self.judges_of(name)})
        entries = {judge: read_entry("judges", judge, JudgeEntry, "judges") for judge in used}
        score = self.score_spec()
        return specs.ReportSpec(
            version=versions.REPORT,
            name=self.config.name,
            evaluations=score.evaluations,
            checkpoints=score.checkpoints,
            judge_titles={judge: entry.title for judge, entry in entries.items()},
            judge_modules={judge: entry.kind for judge, entry in entries.items()},
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
