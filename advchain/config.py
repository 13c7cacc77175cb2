"""The typed config: strict, with defaults and descriptions, from which the JSON Schema for editors is generated.

One source of truth: these classes. `config/config.yaml` is the embedded default, `config/paper.yaml` the paper's grid; a file may
start from another one with `extends:`.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from advchain.catalogue import line_of, read_yaml
from advchain.errors import ConfigError
from advchain.report_specs import TableName
from advchain.settings import NAME, Section, names, paragraph
from advchain.specs import LoraSpec, Origin, Sampling, View


class DataConfig(Section):
    """Where sources and benchmarks come from when their own entry does not say."""

    origin: Origin = Field("sample", alias="from", description="sample: shipped with the package; hub: pinned revision; local: a file you name")
    size: int = Field(1000, ge=1, description="rows of a training set; recipes give shares of it")


class SourceConfig(Section):
    """One source of chains: a file of advchain/sources (`loader`) and where to read it from."""

    loader: str = Field(description="file name under advchain/sources")
    origin: Origin | None = Field(None, alias="from")
    path: str | None = Field(None, description="for `from: local`; ${VARIABLES} are expanded")
    offset: int = Field(0, ge=0, description="rows to skip after the seeded shuffle: a held-out part starts where the training part ends")
    limit: int | None = Field(None, ge=1)
    seed: int = 0
    stratify: bool = Field(False, description="spread `offset` and `limit` over the categories in proportion")
    max_reject_share: float = Field(0.5, ge=0, le=1, description="fail when more of the file's rows cannot be used")


class PeakConfig(Section):
    """The peak of a rewritten chain: harmfulness low-high-low, or helpfulness high-low-high, at each error step (METHOD 1.6)."""

    judge: str = Field("step_cues", description="step_cues: lexical, free; or an entry of config/teachers.yaml that scores the steps")
    margin: float = Field(0.5, ge=0, le=4, description="points of the 1-5 score by which an error step must leave the means before and after it")
    gate: bool = Field(False, description="ask again, then reject, where the peak is lower; otherwise it is only measured")


class ChainsConfig(Section):
    """One set of rewritten chains."""

    kind: Literal["temptation", "hesitation"]
    source: str
    teacher: str = "embedded"
    count: int = Field(ge=1, description="rows to make; recipes take the first rows they need")
    position: Literal["teacher", "early", "middle", "late", "random"] = Field("teacher", description="where the error step goes")
    errors: int = Field(1, ge=1, le=3, description="error and correction pairs in one chain, each at a point of its own")
    answers: Literal["any", "refusal", "safe_completion"] = Field("any", description="rows to take by how their answer begins: a phrase match")
    attempts: int = Field(3, ge=1, le=20, description="times a failed step is asked again before the row is rejected")
    max_step_words: int = Field(160, ge=10)
    max_chain_words: int = Field(4000, ge=50, description="of the whole rewritten chain")
    near_duplicate_share: float = Field(0.5, gt=0, le=1, description="word 5-grams that an error step may share with any one other of its set")
    peak: PeakConfig = PeakConfig()
    max_reject_share: float = Field(0.5, ge=0, le=1)


class TrainConfig(Section):
    """Full fine-tuning; the defaults are the paper's (METHOD 1.2), the rest STAR-1's (METHOD 2)."""

    epochs: int = Field(5, ge=1)
    batch_size: int = Field(128, ge=1, description="sequences per optimizer step over all GPUs; accumulation is derived")
    learning_rate: float = Field(1e-4, gt=0, lt=1)
    weight_decay: float = Field(1e-4, ge=0)
    betas: tuple[float, float] = (0.9, 0.95)
    warmup_ratio: float = Field(0.05, ge=0, lt=1)
    scheduler: Literal["cosine", "linear", "constant"] = "cosine"
    max_length: int = Field(8192, ge=16, description="tokens; a longer row is rejected, never cut")
    max_grad_norm: float = Field(1.0, gt=0)
    precision: Literal["bf16", "fp32"] = "bf16"
    micro_batch_tokens: Annotated[int, Field(ge=16)] | Literal["auto"] = Field(
        8192, description="tokens in one pack per process: rows run end to end; moves memory and speed, not the loss; auto: what the card holds"
    )
    save_every_steps: int = Field(0, ge=0, description="0: only at the end; otherwise a killed training resumes from the last save")
    holdout_rows: int = Field(0, ge=0, description="rows kept out of training for a validation loss at the end of each epoch")
    keep: Literal["last", "best"] = Field("last", description="weights to export: of the last epoch (the paper), or of the lowest validation loss")
    compile: Literal["auto", "on", "off"] = Field("auto", description="torch.compile of the decoder layers; auto: on a GPU that gains from it")
    trackers: list[Literal["tensorboard", "wandb", "mlflow"]] = Field(["tensorboard"], description="where the figures go while it runs; re-trains nothing")
    deepspeed: str = Field("auto", description="profile under config/deepspeed; auto: cpu without a GPU, else what the memory model chooses for `hardware`")
    processes: int = Field(0, ge=0, description="processes per node; 0: one per GPU, or one on a CPU")
    lora: LoraSpec | None = Field(None, description="train low-rank adapters instead of all weights; {} takes rank 16 on every projection")

    @model_validator(mode="after")
    def _best_needs_a_measure(self) -> TrainConfig:
        if self.keep == "best" and not self.holdout_rows:
            raise ValueError("`keep: best` means the lowest validation loss: set `holdout_rows` to the number of rows to hold out, or `keep: last`")
        return self


class AttackConfig(Section):
    """An attack: a file of advchain/attacks with its options. It starts from one of `source`, `reference`, `benchmarks`, `after` (docs/ATTACKS.md)."""

    name: str
    teacher: str = Field("embedded_attacker", description="another teacher than the one that wrote the training data (METHOD 1.3), where one is asked")
    source: str | None = Field(None, description="chains to attack: held-out rows of a source")
    reference: dict[Literal["model", "method", "run"], str] | None = Field(None, description="or a checkpoint whose responses are attacked, as in the paper")
    benchmarks: list[str] = Field([], description="the evaluations whose responses the reference gave; without one, those whose prompts are attacked")
    after: str | None = Field(None, description="or another attack: each checkpoint's own responses to it are attacked once more")
    options: dict[str, Any] = Field({})


class EvaluationConfig(Section):
    """One column of the tables: a benchmark, or an attack, under one protocol."""

    benchmark: str | None = Field(None, description="file under advchain/benchmarks; the entry's own name if left out")
    attack: AttackConfig | None = None
    origin: Origin | None = Field(None, alias="from")
    path: str | None = None
    offset: int = Field(0, ge=0, description="prompts to skip in the seeded order: what follows is fresh, to confirm what the first ones suggested")
    limit: int | None = Field(None, ge=1, description="prompts; a smaller limit is a prefix of a larger one")
    judges: list[str] | None = None
    view: View | None = Field(None, description="what the judges read: answer (the default), chain, or full (chain and answer, as STAR-1 judges)")
    table: TableName | None = Field(None, description="of the report, in place of its file's: variants in `attacks` stay out of the means of the others")
    temperature: float | None = Field(None, ge=0)
    top_p: float | None = Field(None, gt=0, le=1)
    top_k: int | None = None
    max_new_tokens: int | None = Field(None, ge=1)
    num_samples: int | None = Field(None, ge=1)
    repetition_penalty: float | None = Field(None, gt=0, description="1.2 in STAR-1's protocol; it distorts long chains, so there is none by default")


class EvaluateConfig(Section):
    """How checkpoints are questioned and judged."""

    engine: Literal["auto", "vllm", "transformers"] = "auto"
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    batch_tokens: int = Field(16384, ge=64, description="transformers engine: padded tokens in flight")
    max_sequences: int = Field(256, ge=1, description="vLLM engine: responses in flight")
    replicas: int | None = Field(None, ge=1, description="engine processes of one job; unset: one per GPU (or per tensor_parallel GPUs), one on a CPU")
    stall_seconds: float = Field(300.0, gt=0, description="an engine process that gives no token for so long is stopped and started again")
    sampling: Sampling = Sampling()
    judges: dict[Literal["safety", "hijack", "attacks", "over_refusal"], list[str]] = Field(
        {}, description="kind of set -> judges; the first of a measure is primary"
    )
    max_unparsed_share: float = Field(0.01, ge=0, le=1)
    judge_data: str | None = Field(None, description="a labelled CSV of yours, or a folder of public sets: judges are measured on it, the report prints it")
    benchmarks: dict[str, EvaluationConfig]

    @field_validator("benchmarks")
    @classmethod
    def _names(cls, value: dict[str, Any]) -> dict[str, Any]:
        return names(value)


class Block(Section):
    """One block of the grid: every model x method x learning rate x seed, on the listed benchmarks."""

    models: list[str] = Field(min_length=1)
    methods: list[str] = Field(min_length=1)
    seeds: list[int] = Field([2002], min_length=1)
    learning_rates: list[Annotated[float, Field(gt=0, lt=1)]] = Field([], description="a sweep: one training per rate and seed; empty: train.learning_rate")
    benchmarks: list[str] = Field([], description="empty: all")


class ComparedConfig(Section):
    """A benchmark file that training sets are compared with, though nothing is evaluated on it."""

    benchmark: str | None = Field(None, description="file under advchain/benchmarks; the entry's own name if left out")
    origin: Origin | None = Field(None, alias="from")
    path: str | None = None


class ContaminationConfig(Section):
    """Training prompts against the whole of every benchmark (METHOD 7.4). A report; with `strict`, matching rows are dropped as well."""

    strict: bool = Field(False, description="drop matching rows from the training sets and record them as rejects")
    ngram: float = Field(0.5, gt=0, le=1, description="share of the shorter prompt's word 5-grams")
    tfidf: float = Field(0.6, gt=0, le=1, description="TF-IDF cosine; the threshold of STAR-1's own decontamination")
    embedding: float = Field(0.7, gt=0, le=1, description="embedding cosine; STAR-1's threshold for MiniLM")
    embedding_model: str | None = Field(None, description="folder of a local sentence-embedding model; ${VARIABLES} are expanded")
    also: dict[str, ComparedConfig] = Field({}, description="further benchmark files to compare with")

    @field_validator("also")
    @classmethod
    def _names(cls, value: dict[str, Any]) -> dict[str, Any]:
        return names(value)


class PublishConfig(Section):
    """`snakemake publish` uploads the exported training sets; it refuses until both are set."""

    repo_id: str | None = Field(None, description="owner/name of a data set repository on the hub")
    private: bool | None = Field(None, description="false: the repository can be seen by all, but each download is granted by hand")
    recipe: str = Field("advchain", description="the training set to upload")


class Config(Section):
    """The whole config file."""

    name: str = Field(pattern=f"^{NAME}$")
    seed: int = 2024
    gpus: int | Literal["auto"] = Field("auto", description="GPUs of one node; auto: those of `hardware`, else of this machine, none is fine")
    hardware: str = Field("auto", description="machine of config/hardware.yaml that trainings are planned for; auto: by the name of this machine's card")
    data: DataConfig = DataConfig()
    sources: dict[str, SourceConfig]
    chains: dict[str, ChainsConfig] = Field({})
    contamination: ContaminationConfig = ContaminationConfig()
    publish: PublishConfig = PublishConfig()
    train: TrainConfig = TrainConfig()
    evaluation: EvaluateConfig
    grid: dict[str, Block]

    @field_validator("sources", "chains", "grid")
    @classmethod
    def _names(cls, value: dict[str, Any]) -> dict[str, Any]:
        return names(value)


def load_config(files: list[Path], overrides: dict[str, Any] | None = None) -> Config:
    """Read config files (later ones win, deep merge; lists are replaced), apply overrides, validate.

    Raises:
        ConfigError: one paragraph: file, config path, value, what is allowed.
    """
    merged: dict[str, Any] = {}
    for path in files:
        merged = _merge(merged, _read_extended(Path(path)))
    merged = _merge(merged, {key: value for key, value in (overrides or {}).items() if key != "extends"})
    try:
        return Config.model_validate(merged)
    except ValidationError as error:
        raise ConfigError(paragraph(error, lambda place: _where(files, place), Config)) from None


def _where(files: list[Path], place: tuple[int | str, ...]) -> str:
    """Name file and line of a setting: the last file that has it, those it extends included."""
    for path in reversed(files):
        for source in _sources(Path(path)):
            line = line_of(source, place)
            if line is not None:
                return f"{source}, line {line}"
    return ", ".join(str(path) for path in files)


def _sources(path: Path) -> list[Path]:
    """A config file and what it extends, the nearest first."""
    parent = read_yaml(path).get("extends")
    return [path, *_sources(path.parent / str(parent))] if parent else [path]


def _read_extended(path: Path, seen: tuple[Path, ...] = ()) -> dict[str, Any]:
    if path.resolve() in seen:
        raise ConfigError(f"{path}: `extends` goes in a circle.")
    value = read_yaml(path)
    parent = value.pop("extends", None)
    if parent is None:
        return value
    return _merge(_read_extended(path.parent / str(parent), (*seen, path.resolve())), value)


def _merge(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    merged = dict(old)
    for key, value in new.items():
        known = merged.get(key)
        merged[key] = _merge(known, value) if isinstance(known, dict) and isinstance(value, dict) else value
    return {key: value for key, value in merged.items() if value is not None}


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of the config, for editors; `config/schema.json` is this, kept in sync by a test."""
    return Config.model_json_schema(by_alias=True) | {"title": "AdvChain config"}


def host_memory_mb() -> int:
    """Return nine tenths of this machine's memory in MB: jobs that would not fit side by side wait for each other."""
    return int(0.9 * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e6)


def num_gpus(setting: int | str) -> int:
    """Return the GPUs of one node: the number set, or those visible here (no shelling out at parse time)."""
    if setting != "auto":
        return int(setting)
    visible = os.environ.get("ADVCHAIN_GPUS") or os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return len([part for part in visible.split(",") if part.strip()])
    return len([path for path in Path("/dev").glob("nvidia[0-9]*") if path.name[6:].isdigit()])
