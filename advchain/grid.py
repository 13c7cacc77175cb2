"""Config -> which checkpoints and evaluations there are, and what the catalogues say of them. Pure: touches no results."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, wraps
from typing import Any, Concatenate, ParamSpec, TypeVar, cast

from advchain import paths, specs
from advchain.catalogue import Module, module
from advchain.config import AttackConfig, Block, Config, EvaluationConfig
from advchain.entries import HardwareEntry, MethodEntry, ModelEntry, ServeEntry, TeacherEntry, method_entry, read_entry
from advchain.errors import ConfigError, did_you_mean
from advchain.estimate.hardware import hardware_name, num_cards
from advchain.llm.endpoint import endpoint_family

BASE_RUN = "released"  # the run name of what is not trained here
KEY_VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]*")
G = TypeVar("G", bound="Grid")
P = ParamSpec("P")
T = TypeVar("T")


def remembered(method: Callable[Concatenate[G, P], T]) -> Callable[Concatenate[G, P], T]:
    """Compute a method's answer once per plan and arguments: rules ask for each many times per job."""

    @wraps(method)
    def asked(self: G, *args: P.args, **named: P.kwargs) -> T:
        key = (method.__name__, args, tuple(named.items()))
        if key not in self.known:
            self.known[key] = method(self, *args, **named)
        return cast(T, self.known[key])

    return cast(Callable[Concatenate[G, P], T], asked)


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
    group: str
    """Engine-load group, by what must be answered first: direct (nothing), attacks (a reference checkpoint's responses), round1.. (its own)."""

    @property
    def attack(self) -> AttackConfig | None:
        """The attack, if this column is one."""
        return self.config.attack


class Grid:
    """The grid of a config: its checkpoints, their evaluations, their catalogue entries.

    Raises:
        ConfigError: an unknown model, method, benchmark or attack; one paragraph.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        self.known: dict[Any, Any] = {}  # of `remembered`
        self.gpus = num_cards(config)
        self.hardware_name = hardware_name(config)
        self.evaluations = {name: self._evaluation(name, entry) for name, entry in config.evaluation.benchmarks.items()}
        self._cells = self._expand_grid()
        self.checkpoints = sorted(self._cells)
        self._by_name = {(c.model, c.method, c.run): c for c in self.checkpoints}

    def _evaluation(self, name: str, entry: EvaluationConfig) -> Evaluation:
        where, group = f"evaluation.benchmarks.{name}", self._group(name)
        if entry.attack:
            return Evaluation(name, entry, module("attacks", entry.attack.name, f"{where}.attack.name"), group)
        return Evaluation(name, entry, module("benchmarks", entry.benchmark or name, f"{where}.benchmark"), group)

    def _group(self, name: str, seen: tuple[str, ...] = ()) -> str:
        """Return the engine-load group of one evaluation: one later than what it attacks, where that has to be answered first."""
        entry = self.config.evaluation.benchmarks.get(name)
        attack = entry.attack if entry else None
        if name in seen:
            raise ConfigError(f"evaluation.benchmarks.{name}.attack: it starts from itself, through {' and '.join(seen)}.")
        if attack is None:
            return "direct"
        if attack.after:
            before = self._group(attack.after, (*seen, name))
            return f"round{int(before.removeprefix('round')) + 1 if before.startswith('round') else 1}"
        if attack.reference:
            return "attacks"
        later = {self._group(other, (*seen, name)) for other in attack.benchmarks} - {"direct"}
        return next(iter(later), "direct")

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
        return self._by_name[model, method, run]

    @remembered
    def evaluations_of(self, checkpoint: Checkpoint) -> list[str]:
        """Names of the evaluations of one checkpoint, in config order."""
        return [name for name in self.evaluations if name in self._cells[checkpoint]]

    @remembered
    def groups_of(self, checkpoint: Checkpoint) -> dict[str, list[str]]:
        """Engine-load group -> evaluations of one checkpoint."""
        groups: dict[str, list[str]] = {}
        for name in self.evaluations_of(checkpoint):
            groups.setdefault(self.evaluations[name].group, []).append(name)
        return groups

    # ---------------------------------------------------------------- catalogue look-ups

    @property
    def hardware(self) -> HardwareEntry:
        """The machine that trainings are planned for."""
        return read_entry("hardware", self.hardware_name, HardwareEntry, "hardware")

    def model(self, name: str) -> ModelEntry:
        """Return a model's catalogue entry."""
        return read_entry("models", name, ModelEntry, "models")

    def method(self, name: str) -> MethodEntry:
        """Return a method's catalogue entry."""
        return method_entry(name, "methods")

    @remembered
    def teacher(self, name: str, where: str = "teachers") -> specs.TeacherSpec:
        """Return a teacher's resolved settings."""
        entry = read_entry("teachers", name, TeacherEntry, where)
        if (entry.base_url == "served") != (entry.serve is not None):
            raise ConfigError(f"config/teachers.yaml: {name}: `base_url: served` and a `serve` section go together; one of the two is missing.")
        serve = self._serve_spec(name, entry.model, entry.serve) if entry.serve else None
        if entry.batch and not entry.base_url.startswith("http"):
            raise ConfigError(f"config/teachers.yaml: {name}: `batch` is for an endpoint with a Batch API; base_url is '{entry.base_url}'.")
        if entry.api_key_env and not KEY_VARIABLE.fullmatch(entry.api_key_env):
            raise ConfigError(
                f"config/teachers.yaml: {name}: api_key_env is the NAME of an environment variable (capital letters, digits, _). What stands there is not "
                "shown, as it may be a key: put the key into the environment, and revoke it if this file was shared."
            )
        spec = specs.TeacherSpec(name=name, serve=serve, **entry.model_dump(exclude={"title", "serve"}))
        endpoint_family(spec)  # an address that is none, or carries credentials, is told before any job
        return spec

    def _serve_spec(self, teacher: str, model: str, serve: ServeEntry) -> specs.ServeSpec:
        entry = self.model(model)
        weights = ":".join(filter(None, (entry.origin, entry.revision, entry.file, entry.sha256)))
        folder, log = paths.MODEL.format(model=model).removesuffix("/model.json"), paths.SERVE_LOG.format(teacher=teacher)
        return specs.ServeSpec(weights=weights, folder=folder, log=log, gpus=serve.gpus, options=tuple(serve.options))

    def weights_of(self, checkpoint: Checkpoint) -> str:
        """Return the catalogue name of the released model that stands for a checkpoint not trained here."""
        entry = self.method(checkpoint.method)
        return entry.checkpoints[checkpoint.model] if entry.kind == "download" else checkpoint.model

    @cached_property
    def recipes(self) -> list[str]:
        """Recipes that some planned checkpoint trains on."""
        entries = [self.method(c.method) for c in self.checkpoints]
        return sorted({str(e.recipe) for e in entries if e.kind == "train"})
