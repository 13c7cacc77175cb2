"""What a plan asks for, counted: trainings, answers, verdicts, calls, disk; each with its time or price from the models of this package."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from advchain.entries import JudgeEntry, read_entry
from advchain.estimate.measured import Measured
from advchain.estimate.profiles import Choice
from advchain.estimate.times import Times
from advchain.grid import Checkpoint
from advchain.plan import Plan

CALLS_PER_ERROR, INPUT_TOKENS, OUTPUT_TOKENS = 4, 1500, 500  # insertion, error, correction, polish (PERFORMANCE 3a)
VERDICT_TOKENS = 10
REPEATED = 1.1  # calls that are asked again, as a share
STATE_BYTES = 14  # per parameter of a saved training state: weights, master weights, moments
TEXT_BYTES = 5  # per token of a response file


@dataclass(frozen=True)
class Trainings:
    """All trainings of one model."""

    model: str
    num: int
    choice: Choice
    seconds: float
    host_gib: float
    measured: int

    @property
    def gpu_hours(self) -> float:
        """Card-hours of all of them."""
        return self.num * self.seconds * self.choice.gpus * self.choice.nodes / 3600


@dataclass(frozen=True)
class Generations:
    """All answers of one model's checkpoints."""

    model: str
    num: int
    num_engines: int
    num_answers: int
    tokens: float
    gpus: int
    seconds: float
    measured: int

    @property
    def gpu_hours(self) -> float:
        """Card-hours."""
        return self.seconds * self.gpus / 3600


@dataclass(frozen=True)
class Judging:
    """All verdicts of one judge with weights of its own; `each` is the seconds per checkpoint."""

    judge: str
    num_jobs: int
    num_answers: int
    gpus: int
    seconds: float
    each: float

    @property
    def gpu_hours(self) -> float:
        """Card-hours."""
        return self.seconds * self.gpus / 3600


@dataclass(frozen=True)
class Calls:
    """What one chain set, attack or judge asks an endpoint. `usd` is None where the price is not known."""

    name: str
    teacher: str
    num: float
    input_tokens: float
    output_tokens: float
    usd: float | None
    measured: bool


@dataclass(frozen=True)
class Workload:
    """The plan and what earlier runs of it took."""

    plan: Plan
    measured: Measured

    @cached_property
    def times(self) -> Times:
        """Seconds of single jobs."""
        return Times(self.plan, self.measured)

    @cached_property
    def fetched(self) -> set[str]:
        """Released models that are fetched: those that are trained, and those that stand for a checkpoint."""
        return {self.plan.weights_of(c) for c in self.plan.checkpoints if c not in self.trained} | {c.model for c in self.trained}

    @cached_property
    def trained(self) -> list[Checkpoint]:
        """Checkpoints that are trained here."""
        return [c for c in self.plan.checkpoints if self.plan.method(c.method).kind == "train"]

    @cached_property
    def trainings(self) -> list[Trainings]:
        """One line per trained model, in the order of the grid's blocks."""
        return [self._trainings(model, num) for model, num in self._by_size(Counter(c.model for c in self.trained)).items()]

    def _by_size(self, counts: Counter[str]) -> dict[str, int]:
        return dict(sorted(counts.items(), key=lambda item: self.plan.model(item[0]).num_parameters or 0))

    def _trainings(self, model: str, num: int) -> Trainings:
        choice, own = self.plan.train_choice(model), [c for c in self.trained if c.model == model]
        seconds = sum(self.times.training_seconds(c, choice) for c in own) / num
        host = max(self.times.training_host_gib(c, choice) for c in own)
        return Trainings(model, num, choice, seconds, host, len(self.times.trainings_of(model)))

    @cached_property
    def generations(self) -> list[Generations]:
        """One line per model, all methods and runs together."""
        return [self._generations(model) for model in self._by_size(Counter(c.model for c in self.plan.checkpoints))]

    def _generations(self, model: str) -> Generations:
        own = [c for c in self.plan.checkpoints if c.model == model]
        gpus = min(self.plan.model(model).generate_gpus, self.plan.gpus)
        engines = sum(len(self.plan.groups_of(c)) for c in own)
        answers = sum(self.times.num_answers(c, name) for c in own for name in self.plan.evaluations_of(c))
        tokens, seconds = sum(map(self.times.written_tokens, own)), sum(map(self.times.generation_seconds, own))
        return Generations(model, len(own), engines, answers, tokens, gpus, seconds, max(len(self.times.generations_like(c)) for c in own))

    def judged(self) -> Iterator[tuple[str, int]]:
        """Every judge with the answers it reads, one pair per job: its weights are loaded once in each."""
        for checkpoint in self.plan.checkpoints:
            for names in self.plan.judged_together(checkpoint):
                for judge in self.plan.judges_of(names[0]):
                    yield judge, sum(self.times.num_answers(checkpoint, name) for name in names)

    @cached_property
    def judges(self) -> list[Judging]:
        """One line per judge with weights of its own, in the order of their names."""
        found: dict[str, list[int]] = {}
        for judge, num in self.judged():
            if self.plan.gpus and read_entry("judges", judge, JudgeEntry, "judges").gpus:
                found.setdefault(judge, []).append(num)
        return [self._judging(judge, nums) for judge, nums in sorted(found.items())]

    def _judging(self, judge: str, nums: list[int]) -> Judging:
        gpus = min(read_entry("judges", judge, JudgeEntry, "judges").gpus, self.plan.gpus)
        seconds = sum(self.times.judge_seconds(judge, num) for num in nums)
        return Judging(judge, len(nums), sum(nums), gpus, seconds, seconds / len(self.plan.checkpoints))

    @property
    def judging_gpu_hours(self) -> float:
        """Card-hours of judges that are models of our own."""
        return sum(line.gpu_hours for line in self.judges)

    @cached_property
    def calls(self) -> list[Calls]:
        """One line per chain set, attack and judge that asks an endpoint."""
        used = sorted({str(part.chains) for recipe in self.plan.recipes for part in self.plan.dataset_spec(recipe).parts if part.chains})
        lines = []
        for name in used:
            chains = self.plan.config.chains[name]
            per_row = CALLS_PER_ERROR * chains.errors - (0 if chains.position == "teacher" else chains.errors)
            lines.append(self._calls(f"chains {name}", name, chains.teacher, chains.count * per_row * REPEATED, OUTPUT_TOKENS))
        for name, evaluation in self.plan.evaluations.items():
            if evaluation.attack and evaluation.module.constants["ASKS"]:
                targets = sum(name in self.plan.evaluations_of(c) for c in self.plan.checkpoints) if evaluation.attack.after else 1
                num = self.times.num_prompts(name) * int(evaluation.attack.options.get("pivots", 1)) * targets
                lines.append(self._calls(f"attack {name}", name, evaluation.attack.teacher, num * REPEATED, OUTPUT_TOKENS))
        asked: Counter[tuple[str, str]] = Counter()
        for judge, num in self.judged():
            entry = read_entry("judges", judge, JudgeEntry, "judges")
            if entry.teacher:
                asked[entry.title, entry.teacher] += num
        return lines + [self._calls(f"judge {title}", "", teacher, num, VERDICT_TOKENS) for (title, teacher), num in asked.items()]

    def _calls(self, title: str, name: str, teacher: str, num: float, output: float) -> Calls:
        known, entry = self.measured.calls.get(name), self.plan.teacher(teacher)
        if known:
            return Calls(title, teacher, known["answers"], known["input_tokens"], known["output_tokens"], known["usd"], True)
        into, out = num * INPUT_TOKENS, num * output
        price = (into * entry.usd_per_million_input + out * entry.usd_per_million_output) / 1e6
        free = entry.base_url in ("embedded", "served") or "127.0.0.1" in entry.base_url or "localhost" in entry.base_url
        return Calls(title, teacher, num, into, out, price if price or free else None, False)

    @cached_property
    def disk(self) -> dict[str, float]:
        """Bytes on disk by what they are; saved training states are gone when a training is done."""
        size = {c.model: 2.0 * (self.plan.model(c.model).num_parameters or 0) for c in self.plan.checkpoints}
        states = max((STATE_BYTES * (self.plan.model(c.model).num_parameters or 0) for c in self.trained), default=0)
        return {
            "released models": sum(self._released_bytes(name) for name in self.fetched),
            "trained checkpoints": sum(size[c.model] for c in self.trained),
            "saved state while training": 2.0 * states if self.plan.config.train.save_every_steps else 0.0,
            "responses and verdicts": 2 * TEXT_BYTES * sum(line.tokens for line in self.generations),
        }

    def _released_bytes(self, name: str) -> float:
        """16-bit weights; those of a quantised file are stored as float32."""
        entry = self.plan.model(name)
        return (4.0 if entry.file else 2.0) * (entry.num_parameters or 0)

    @cached_property
    def jobs(self) -> dict[str, int]:
        """Jobs by kind."""
        cells = sum(len(self.plan.evaluations_of(c)) for c in self.plan.checkpoints)
        engines = sum(line.num_engines for line in self.generations)
        judging = sum(len(self.plan.judged_together(c)) for c in self.plan.checkpoints)
        return {"training": len(self.trained), "generation": engines, "collecting": cells, "judging": judging}
