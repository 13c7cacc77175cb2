"""Wall time by stage: how many jobs there are, how long they take together, how many fit side by side."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

from advchain.config import host_memory_mb
from advchain.estimate.times import JOB_SECONDS
from advchain.estimate.workload import Workload

REPORT_SECONDS = 5.0


@dataclass(frozen=True)
class Stage:
    """Jobs of one kind. `seconds` of all of them, `longest` of one, `slots` that run at once."""

    name: str
    jobs: int
    seconds: float
    longest: float
    slots: float

    @property
    def wall(self) -> float:
        """Seconds until the last is done, with nothing else running."""
        return max(self.longest, self.seconds / self.slots)


def stages(workload: Workload) -> list[Stage]:
    """Return the stages in the order of a run; teachers' answers are not in them."""
    plan, times = workload.plan, workload.times
    cores = os.cpu_count() or 1
    models = [times.fetch_seconds(name) for name in sorted(workload.fetched)]
    training = {c: times.training_seconds(c, plan.train_choice(c.model)) for c in workload.trained}
    answers = {c: times.generation_seconds(c) for c in plan.checkpoints}
    verdicts = [times.judging_seconds(c, names) for c in plan.checkpoints for names in plan.judged_together(c)]
    cells = workload.jobs["collecting"]
    small = len(plan.config.sources) + len(plan.config.chains) + len(plan.compared) + 4 * len(plan.recipes) + len(plan.evaluations)
    reserved = max((plan.model(c.model).memory_gb for c in training), default=0)  # what Snakemake counts against the machine's memory
    side_by_side = max(1, int(min(cores, host_memory_mb() / 1000 / reserved if reserved else cores)))
    train_cards = [choice.gpus * choice.nodes for choice in (plan.train_choice(c.model) for c in training)]
    answer_cards = [min(plan.model(c.model).generate_gpus, plan.gpus) for c in answers]
    return [
        Stage("data", small, small * JOB_SECONDS, JOB_SECONDS, cores),
        Stage("released models", len(models), sum(models), max(models, default=0.0), cores),
        _on_cards("training", list(training.values()), train_cards, plan.gpus, side_by_side),
        _on_cards("answers", list(answers.values()), answer_cards, plan.gpus, cores),
        Stage("collecting", cells, cells * JOB_SECONDS, JOB_SECONDS, cores),
        Stage("verdicts", len(verdicts), sum(verdicts), max(verdicts, default=0.0), plan.gpus or cores),
        Stage("report", 3, 3 * REPORT_SECONDS, REPORT_SECONDS, 1),
    ]


def _on_cards(name: str, each: Sequence[float], cards: Sequence[int], gpus: int, side_by_side: int) -> Stage:
    """Jobs that take cards run as many at once as there are cards for the mean of them."""
    total, longest = sum(each), max(each, default=0.0)
    taken = sum(num * value for num, value in zip(cards, each, strict=True))
    return Stage(name, len(each), total, longest, max(1.0, gpus * total / taken) if gpus and taken else float(side_by_side))
