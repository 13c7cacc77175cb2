"""What a result depends on: the part of a spec that Snakemake records and compares. A change of anything else re-runs nothing (docs/RERUNS.md).

A spec also says how a stage works: how many calls at once, on which machine, at what price, when to give up. That moves speed, memory and money, and
whether a stage fails, but not what a finished one wrote; no training is worth doing again for it.
"""

from __future__ import annotations

from typing import Any

from advchain import chat
from advchain.io import canonical_json
from advchain.llm.endpoint import endpoint_family
from advchain.specs import (
    ChainsSpec,
    DatasetSpec,
    GenerateSpec,
    JudgeStageSpec,
    ModelSpec,
    ServeSpec,
    SourceSpec,
    Spec,
    TeacherSpec,
    TrainSpec,
)

PACE = {"max_in_flight", "timeout_seconds", "connect_timeout_seconds", "read_timeout_seconds", "max_retries", "requests_per_minute", "tokens_per_minute"}
MONEY = {"usd_per_million_input", "usd_per_million_output", "budget_usd", "batch"}
MEANS: dict[type[Spec], set[str]] = {
    SourceSpec: {"max_reject_share"},
    ServeSpec: {"folder", "log", "gpus"},
    TeacherSpec: {*PACE, *MONEY, "api_key_env", "strict_model"},
    ChainsSpec: {"max_reject_share"},
    DatasetSpec: {"title"},
    # The arithmetic is the same up to rounding on any machine and split (tests/faults, C11): another node re-trains nothing.
    TrainSpec: {"deepspeed", "micro_batch_tokens", "gradient_checkpointing", "compile", "save_every_steps"},
    GenerateSpec: {"batch_tokens", "max_sequences", "replicas", "tensor_parallel", "stall_seconds"},
    JudgeStageSpec: {"max_unparsed_share"},
}


def deciding(spec: Spec) -> str:
    """Return, as canonical JSON, what decides the result of the stage that gets `spec`.

    Fields at their default are left out, so that a release with one more setting re-runs nothing; who changes a default bumps the stage's VERSION.
    A teacher's address counts as far as its answers depend on it, a chat family by how it renders.

    Raises:
        ConfigError: a teacher's address is no URL, or carries credentials.
    """
    return canonical_json(_deciding(spec))


def _deciding(value: Any) -> Any:
    if isinstance(value, Spec):
        return _fields(value)
    if isinstance(value, dict):
        return {key: _deciding(part) for key, part in value.items()}
    return [_deciding(part) for part in value] if isinstance(value, (list, tuple)) else value


def _fields(spec: Spec) -> dict[str, Any]:
    means = MEANS.get(type(spec), set())
    found = {
        name: _deciding(getattr(spec, name))
        for name, field in type(spec).model_fields.items()
        if name not in means and (field.is_required() or getattr(spec, name) != field.default)
    }
    if isinstance(spec, TeacherSpec):
        found["base_url"] = endpoint_family(spec)
    if isinstance(spec, (ModelSpec, TrainSpec)):
        found["family"] = chat.template_digest(chat.family(spec.family))
    return found
