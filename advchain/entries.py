"""Typed entries of the YAML catalogues under config/: models, methods, recipes, teachers, judges."""

from __future__ import annotations

import json
import re
from functools import cache
from typing import Any, Literal, TypeVar

from pydantic import Field, ValidationError

from advchain import catalogue
from advchain.errors import ConfigError
from advchain.estimate.shapes import Shape
from advchain.settings import CONFIG_FILES, NAME, Section, paragraph
from advchain.specs import Steps

E = TypeVar("E", bound=Section)


class ModelShape(Section):
    """Sizes of a model's config.json; its heads stand beside them in the entry."""

    num_layers: int
    hidden_size: int
    intermediate_size: int
    vocab_size: int
    head_dim: int
    tied: bool = False
    qkv_bias: bool = False
    qk_norm: bool = False


class HardwareEntry(Section):
    """A machine: its cards, how fast they compute and talk, and the environment of a training on it."""

    title: str
    match: str | None = Field(None, description="regular expression found in the driver's name of the card, for `hardware: auto` and for MFU")
    gpus: int = Field(ge=0, description="cards of one node")
    gib: float = Field(description="memory of one card")
    usable_gib: float
    memory_gb_per_s: float
    tflops: float = Field(description="dense bf16 with fp32 accumulation, from the maker's data sheet")
    mfu: float = Field(gt=0, le=1)
    bus_gb_per_s: float = 10.0
    network_gb_per_s: float = 1.0
    host_gb_per_s: float = 50.0
    host_gib: float | None = None
    bind_cores: bool = False
    environment: dict[str, str] = Field({}, description="variables set for a training, where they are not set already")


class ModelEntry(Section):
    """A model: where it is, how it is prompted, what it needs. `paper` is its name in the paper's tables."""

    title: str
    origin: str = Field(description="hub:owner/name, path:/folder, pypi:package==version, or endpoint:<entry of config/teachers.yaml>")
    completions: bool = Field(False, description="endpoint: it takes rendered prompts at /completions (vLLM does), which attacks that force a chain need")
    revision: str | None = None
    file: str | None = None
    sha256: str | None = None
    family: str
    num_parameters: int | None = None
    num_attention_heads: int | None = None
    num_key_value_heads: int | None = None
    paper: str | None = None
    shape: ModelShape | None = Field(None, description="sizes of config.json, which memory and time are computed from")
    deepspeed: str = Field("auto", description="profile under config/deepspeed; auto: chosen by the memory model for `hardware`")
    gradient_checkpointing: bool | Literal["auto"] = Field("auto", description="auto: only where the memory model needs it")
    train_gpus: int | Literal["auto"] = Field("auto", description="GPUs per node that one training takes; auto: the fewest it fits on")
    train_nodes: int = Field(1, ge=1, description="nodes that one training takes")
    generate_gpus: int = Field(1, description="GPUs that one job takes to answer; its engines share the prompts")
    tensor_parallel: int | None = Field(None, ge=1, description="GPUs that one engine is split over; unset: as few as the weights need")
    memory_gb: int = Field(16, description="host memory of a job that holds the model")
    sampling: dict[str, Any] = Field({}, description="decoding settings that differ for this model, e.g. top_k 20 for Qwen3")

    @property
    def sizes(self) -> Shape | None:
        """The whole shape, with the heads that stand beside it."""
        if self.shape is None or self.num_attention_heads is None or self.num_key_value_heads is None:
            return None
        heads = {"num_attention_heads": self.num_attention_heads, "num_key_value_heads": self.num_key_value_heads}
        return Shape(**self.shape.model_dump(), **heads)

    @property
    def endpoint(self) -> str | None:
        """The entry of config/teachers.yaml behind which the model is, for one that is not loaded here."""
        kind, _, place = self.origin.partition(":")
        return place if kind == "endpoint" else None


class RecipePartEntry(Section):
    """A share of the training set, from a chain set or a source."""

    chains: str | None = None
    source: str | None = None
    share: float = Field(gt=0, le=1)
    steps: Steps = "all"


class RecipeEntry(Section):
    """A mix of samples; rows = `data.size` of the config times `scale`."""

    title: str
    parts: list[RecipePartEntry] = Field(min_length=1)
    scale: float = Field(1.0, gt=0)


class MethodEntry(Section):
    """How a model becomes safer: not at all (base), by training on a recipe, or by downloading a published checkpoint."""

    title: str
    kind: Literal["base", "train", "download"]
    recipe: str | None = None
    paper: str | None = None
    mask_errors: bool = False
    checkpoints: dict[str, str] = Field({}, description="download: model -> entry of config/models.yaml")


class ServeEntry(Section):
    """How `vllm serve` serves a teacher: with `gpus` GPUs (a CPU where there is none) and further options of its command line."""

    gpus: int = Field(1, ge=1)
    options: list[str] = Field([], description="e.g. [--max-model-len, '8192']")


class BatchEntry(Section):
    """Ask through the provider's Batch API: prices (give those of batches) are lower, answers take up to a day."""

    poll_seconds: float = Field(60.0, gt=0)


class TeacherEntry(Section):
    """An OpenAI-compatible endpoint, the embedded teacher (`base_url: embedded`), or a model served here (`base_url: served`)."""

    title: str
    base_url: str
    model: str = Field(description="the name the endpoint knows; for a served teacher an entry of config/models.yaml")
    serve: ServeEntry | None = None
    batch: BatchEntry | None = None
    api_key_env: str | None = None
    temperature: float = 0.7
    max_tokens: int = 1024
    max_in_flight: int = Field(16, ge=1, description="the most calls open at once; how many and how fast is found while running")
    timeout_seconds: float = Field(120.0, gt=0, description="for a whole answer")
    connect_timeout_seconds: float = Field(10.0, gt=0)
    read_timeout_seconds: float | None = Field(None, gt=0, description="between two bytes; leave unset for models that think before the first one")
    max_retries: int = Field(5, ge=0)
    requests_per_minute: float | None = Field(None, gt=0, description="known limit; unset = found while running, or read from the provider's headers")
    tokens_per_minute: float | None = Field(None, gt=0)
    strict_model: bool = Field(False, description="stop when answers come from another model than before; else it is only reported")
    usd_per_million_input: float = 0.0
    usd_per_million_output: float = 0.0
    budget_usd: float | None = None


class JudgeEntry(Section):
    """A judge: a file of advchain/judges with its options; API judges name a teacher entry as their endpoint."""

    title: str
    kind: str
    options: dict[str, Any] = Field({})
    teacher: str | None = None
    gpus: int = Field(0, description="GPUs that the judge takes where there are any")


@cache
def _parsed(kind: type[Section], text: str) -> Section:
    """An entry from its text, once: plans of a large grid ask for the same ones thousands of times."""
    return kind.model_validate(json.loads(text))


def read_entry(name: str, key: str, kind: type[E], where: str) -> E:
    """Return one typed catalogue entry.

    Raises:
        ConfigError: unknown name, or an entry that does not fit; names file and key.
    """
    value = catalogue.entry(name, key, where)
    if not re.fullmatch(NAME, key):
        raise ConfigError(f"{CONFIG_FILES}/{name}.yaml: '{key}' is not a name: use letters, digits, '.', '_' and '-', a letter or digit first.")
    try:
        found = _parsed(kind, json.dumps(value))
        assert isinstance(found, kind)
        return found
    except ValidationError as error:
        raise ConfigError(paragraph(error, f"{CONFIG_FILES}/{name}.yaml: {key}", kind)) from None


def card_entry(device_name: str) -> str | None:
    """Return the entry of config/hardware.yaml that knows a card by the driver's name of it; None: no entry does.

    >>> card_entry("NVIDIA GeForce RTX 4090"), card_entry("NVIDIA H100 80GB HBM3"), card_entry("NVIDIA H100 PCIe"), card_entry("NVIDIA RTX A1000")
    ('rtx4090x8', 'h100', None, None)
    """
    for name in catalogue.catalogue("hardware"):
        pattern = read_entry("hardware", name, HardwareEntry, "hardware").match
        if pattern and re.search(rf"\b(?:{pattern})\b", device_name):
            return name
    return None


def method_entry(key: str, where: str) -> MethodEntry:
    """Return a method; a recipe's name is also a method that trains on it, so an ablation needs one entry only."""
    if key in catalogue.catalogue("recipes") and key not in catalogue.catalogue("methods"):
        return MethodEntry(title=read_entry("recipes", key, RecipeEntry, where).title, kind="train", recipe=key)
    return read_entry("methods", key, MethodEntry, where)
