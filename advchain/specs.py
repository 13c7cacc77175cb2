"""What the plan hands to each stage: one resolved slice of the config, as JSON on the command line (`--spec`).

A stage reads nothing else, so a judge setting never retrains and every script runs by hand. `version` is the stage's VERSION:
bump it in `versions.py` (or in the benchmark, attack or judge file) whenever the stage's output may change.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from advchain.records import Nature

Origin = Literal["sample", "hub", "local"]
View = Literal["answer", "chain", "full"]
Steps = Literal["all", "base", "correction", "error", "filler", "prefix"]


class Spec(BaseModel):
    """Strict and immutable; unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class SourceSpec(Spec):
    """Read one source data set into chains. `origin` sample: shipped; hub: pinned revision and sha256; local: `path`."""

    version: int
    name: str
    loader: str
    origin: Origin
    path: str | None = None
    offset: int = 0
    limit: int | None = None
    seed: int = 0
    stratify: bool = False
    max_reject_share: float = 0.5


class ServeSpec(Spec):
    """A model that `vllm serve` serves for the jobs that ask it. `weights` says which model it is, `folder` where the model was fetched to."""

    weights: str
    folder: str
    log: str
    gpus: int
    options: tuple[str, ...] = ()


class BatchSpec(Spec):
    """Ask through the provider's Batch API, and look at each batch every `poll_seconds`."""

    poll_seconds: float


class TeacherSpec(Spec):
    """An OpenAI-compatible endpoint; the embedded teacher (`base_url: embedded`), which needs no key and no network; or a served one (`base_url: served`)."""

    name: str
    base_url: str
    model: str
    api_key_env: str | None = None
    temperature: float = 0.7
    max_tokens: int = 1024
    max_in_flight: int = 16
    timeout_seconds: float = 120.0
    connect_timeout_seconds: float = 10.0
    read_timeout_seconds: float | None = None
    max_retries: int = 5
    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None
    strict_model: bool = False
    usd_per_million_input: float = 0.0
    usd_per_million_output: float = 0.0
    budget_usd: float | None = None
    serve: ServeSpec | None = None
    batch: BatchSpec | None = None


class PeakSpec(Spec):
    """The step scorer looks for the peak at each error step: `judge` is a lexical one, or an endpoint (`teacher`) that scores the steps."""

    judge: Literal["step_cues", "api"] = "step_cues"
    teacher: TeacherSpec | None = None
    margin: float = 0.5
    gate: bool = False


class ChainsSpec(Spec):
    """Rewrite chains: temptation-correction on harmful prompts, hesitation-correction on benign ones."""

    version: int
    name: str
    kind: Literal["temptation", "hesitation"]
    teacher: TeacherSpec
    count: int | None = None
    position: Literal["teacher", "early", "middle", "late", "random"] = "teacher"
    errors: int = Field(default=1, ge=1, le=3)
    answers: Literal["any", "refusal", "safe_completion"] = "any"
    attempts: int = 3
    max_step_words: int = 160
    max_chain_words: int = 4000
    near_duplicate_share: float = 0.5
    peak: PeakSpec = PeakSpec()
    seed: int = 0
    max_reject_share: float = 0.5


class RecipePart(Spec):
    """`count` rows from a chain set (`chains`) or a source (`source`); `steps` says what becomes of injected steps (datasets/controls.py)."""

    chains: str | None = None
    source: str | None = None
    count: int
    steps: Steps = "all"


class ContaminationSpec(Spec):
    """When a training prompt counts as a benchmark prompt: the same text, or a score (0..1) at or above its threshold."""

    version: int
    ngram: float = 0.5
    tfidf: float = 0.6
    embedding: float = 0.7
    embedding_model: str | None = Field(default=None, description="folder of a local sentence-embedding model; None: embeddings are not compared")


class DatasetSpec(Spec):
    """Mix the parts of one recipe into a training set. `strict` drops the rows that match a benchmark prompt."""

    version: int
    recipe: str
    title: str
    parts: tuple[RecipePart, ...]
    seed: int
    shuffle: bool = True
    strict: ContaminationSpec | None = None


class ExportSpec(Spec):
    """Write one training set in the format of the `datasets` library."""

    version: int
    recipe: str
    title: str
    name: str = Field(description="name of the run; with the recipe, the name of the entry for LLaMA-Factory")


class PublishSpec(Spec):
    """Upload one exported training set to the hub; `repo_id` and `private` have to be set by hand."""

    recipe: str
    repo_id: str | None = None
    private: bool | None = None


class ModelSpec(Spec):
    """`origin` is hub:owner/name, path:/folder, pypi:package==version or endpoint:teacher; `family` is a row of chat.py."""

    version: int
    name: str
    origin: str
    family: str
    endpoint: str | None = Field(default=None, description="origin endpoint:...: host and model name, which its answers depend on")
    revision: str | None = None
    sha256: str | None = None
    file: str | None = None


LoraTarget = Literal["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
LORA_TARGETS: tuple[LoraTarget, ...] = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


class LoraSpec(Spec):
    """Low-rank adapters instead of full fine-tuning; the checkpoint holds whole weights, the adapters beside them."""

    rank: int = Field(16, ge=1)
    alpha: float = Field(32.0, gt=0, description="the update is scaled by alpha / rank")
    dropout: float = Field(0.0, ge=0, lt=1)
    targets: tuple[LoraTarget, ...] = Field(LORA_TARGETS, min_length=1, description="projections that get an adapter, in every layer")


class TrainSpec(Spec):
    """Full supervised fine-tuning (paper, training section): plain likelihood of chain + answer given the prompt."""

    version: int
    model: str
    family: str
    method: str
    run: str
    seed: int
    epochs: int
    batch_size: int = Field(description="sequences per optimizer step, over all processes")
    learning_rate: float
    weight_decay: float
    betas: tuple[float, float]
    warmup_ratio: float
    scheduler: Literal["cosine", "linear", "constant"]
    max_length: int
    max_grad_norm: float
    precision: Literal["bf16", "fp32"]
    mask_errors: bool = False
    gradient_checkpointing: bool = False
    deepspeed: str = Field(description="profile name under config/deepspeed")
    micro_batch_tokens: int = Field(description="tokens in one pack, per process")
    save_every_steps: int = 0
    holdout_rows: int = Field(default=0, description="rows kept out of training for the validation loss")
    keep: Literal["last", "best"] = Field(default="last", description="weights to export: of the last epoch, or of the lowest validation loss")
    compile: Literal["auto", "on", "off"] = Field(default="auto", description="torch.compile of the decoder layers; auto: on a GPU that gains from it")
    lora: LoraSpec | None = None


class Sampling(Spec):
    """Decoding settings; `num_samples` responses per prompt, each with its own derived seed."""

    temperature: float = 0.6
    top_p: float = 0.95
    top_k: int = -1
    max_new_tokens: int = 8192
    num_samples: int = 1
    repetition_penalty: float = Field(default=1.0, gt=0, description="1: none. Logits of tokens that are in prompt or response already are divided by it")


class AttackSpec(Spec):
    """One attack: its file's version, options and the teacher that writes it. `after`: a further round, on the responses to that evaluation."""

    version: int
    name: str
    options: dict[str, Any] = {}
    teacher: TeacherSpec | None = None
    after: str | None = None


class PromptsSpec(Spec):
    """Load one benchmark (or apply one attack) and write its items."""

    version: int
    name: str = Field(description="evaluation entry, the file's name")
    benchmark: str = Field(description="module under advchain/benchmarks")
    origin: Origin
    path: str | None = None
    offset: int = 0
    limit: int | None = None
    seed: int = 0
    attack: AttackSpec | None = None


class EndpointSpec(Spec):
    """A model that is evaluated behind an endpoint. `completions`: it takes rendered prompts at /completions, which forced chains need."""

    teacher: TeacherSpec
    completions: bool = False


class GenerateSpec(Spec):
    """Every listed evaluation of one checkpoint is answered by the same engine processes, each of which loads the model once."""

    version: int
    checkpoint: str
    engine: Literal["auto", "vllm", "transformers", "endpoint"]
    endpoint: EndpointSpec | None = None
    batch_tokens: int = Field(description="transformers engine: padded tokens in flight")
    max_sequences: int = Field(default=256, description="vLLM engine: responses in flight")
    replicas: int | None = Field(default=None, description="engine processes; None: one per GPU (or per `tensor_parallel` GPUs), one on a CPU")
    tensor_parallel: int | None = Field(default=None, description="GPUs that one engine is split over; None: as few as the weights need")
    stall_seconds: float = Field(default=300.0, description="an engine process without a sign of life for so long is started again")
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    seed: int
    sampling: dict[str, Sampling] = Field(description="evaluation entry -> decoding settings")


class ViewSpec(Spec):
    """What judges read of each response in place of the answer: the chain, or the chain and the answer (generate/view.py)."""

    version: int
    view: View


class JudgeSpec(Spec):
    """One judge: its file, options and, for an API judge, its endpoint."""

    version: int
    name: str
    kind: str = Field(description="module under advchain/judges")
    options: dict[str, Any] = {}
    teacher: TeacherSpec | None = Field(default=None, description="endpoint of an API judge")


class JudgeStageSpec(Spec):
    """Judge one evaluation's responses with every judge of it."""

    version: int
    benchmark: str
    nature: Nature
    judges: tuple[JudgeSpec, ...]
    max_unparsed_share: float = 0.01
