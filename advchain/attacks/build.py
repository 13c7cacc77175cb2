"""Build an attack: take the starts that fit, let the attack's file say what is forced on each, write the items.

Everything forced is text in front of the model's own; chat.py renders it, as it renders training rows. The attack teacher and its wording are
not those of the training data, on purpose (METHOD 1.3).
"""

from __future__ import annotations

import asyncio
import importlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from advchain import manifests
from advchain.attacks import starts as starts_of
from advchain.attacks.base import Attack, Made, Options, Pen
from advchain.attacks.starts import Start
from advchain.catalogue import Module, module
from advchain.chat import NOTHING
from advchain.errors import ConfigError, DataError
from advchain.llm.ask import Asker
from advchain.llm.client import Client, endpoint_family
from advchain.llm.replies import Rejected
from advchain.llm.screening import NearDuplicates
from advchain.llm.walk import walk
from advchain.options import check_options
from advchain.progress import Progress
from advchain.records import Item, content_id
from advchain.rows import ranked
from advchain.specs import AttackSpec, PromptsSpec, TeacherSpec
from advchain.store import Store, make_key

WINDOW_PER_SLOT = 2  # rows in progress per request in flight
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Job:
    """One evaluation's attack: its spec, its file, and the two read together."""

    spec: PromptsSpec
    settings: AttackSpec
    file: Module
    attack: Attack
    options: Options


@dataclass(frozen=True)
class Inputs:
    """Files to start from: Chain rows, or Response rows with their verdicts, or Item rows."""

    source: Path | None = None
    responses: Sequence[Path] = ()
    verdicts: Sequence[Path] = ()
    items: Sequence[Path] = ()

    @property
    def paths(self) -> list[Path]:
        """All of them."""
        return [*([self.source] if self.source else []), *self.responses, *self.verdicts, *self.items]


def build_attack(output: Path, spec: PromptsSpec, inputs: Inputs, work: Path) -> None:
    """Write the attack's items: prompt and what is forced.

    The order of the starts depends on the seed and their ids alone: two attacks on the same starts take the same ones, so that their rates can
    be compared request by request, and a smaller limit is a prefix of a larger one.

    Args:
        output: Item rows.
        spec: `attack` with its options, `limit` items at most, `seed`.
        inputs: what to start from, of one kind.
        work: folder of the store of the teacher's answers.

    Raises:
        ConfigError: no attack or teacher in the spec, unknown option, not one kind of start.
        DataError: nothing fits the attack. A further round (`attack.after`) may be empty: a target that never came back is lost already.
    """
    timer, rejects = manifests.StageTimer(), manifests.Rejects()
    job = read_job(spec)
    starts = _starts(job, inputs, rejects)
    rows, figures = asyncio.run(_make(job, starts, work, rejects))
    if not rows and job.settings.after is None:
        raise DataError(
            f"evaluation '{spec.name}': nothing fits the attack; rejected: {rejects.counts() or 'none, there were no rows'}. Read "
            f"{manifests.keep_rejects(output, rejects)} and docs/ATTACKS.md on what this attack starts from."
        )
    if spec.limit is not None and len(rows) < spec.limit:
        log.warning("evaluation '%s': %d items, fewer than the %d asked for", spec.name, len(rows), spec.limit)
    counts = {"asked_for": spec.limit, "starts": len(starts), **figures}
    manifests.write_stage(output, rows, stage="prompts", spec=spec.model_dump(mode="json"), inputs=inputs.paths, rejects=rejects, counts=counts, timer=timer)


def read_job(spec: PromptsSpec) -> Job:
    """Find the attack's file and read its options.

    Raises:
        ConfigError: no attack in the spec, no such file, no teacher for one that asks, an unknown option or a bad value.
    """
    where = f"evaluation '{spec.name}'"
    if spec.attack is None:
        raise ConfigError(f"{where}: no attack in the spec.")
    file = module("attacks", spec.attack.name, where)
    if file.constants["ASKS"] and spec.attack.teacher is None:
        raise ConfigError(f"{where}: the attack needs attack.teacher, the model that writes the foreign thoughts.")
    attack: Attack = importlib.import_module(f"advchain.attacks.{file.name}").ATTACK
    return Job(spec, spec.attack, file, attack, check_options(attack.options, spec.attack.options, f"{where}: attack.options"))


def _starts(job: Job, inputs: Inputs, rejects: manifests.Rejects) -> list[Start]:
    if sum(map(bool, (inputs.source, inputs.responses, inputs.items))) != 1:
        raise ConfigError(f"evaluation '{job.spec.name}': the attack starts from a source, from responses or from prompts; give one of them.")
    nature, options = job.file.constants["NATURE"], job.options
    if inputs.source:
        found = starts_of.from_source(inputs.source, nature, rejects)
    elif inputs.items:
        found = starts_of.from_items(inputs.items, nature, rejects)
    else:
        wanted = starts_of.Wanted(nature, options.refusal_judge, options.start, again=job.settings.after is not None)
        found = starts_of.from_responses(inputs.responses, inputs.verdicts, wanted, rejects)
    return ranked(found, (start.id for start in found), "attack", job.spec.seed)


async def _make(job: Job, starts: list[Start], work: Path, rejects: manifests.Rejects) -> tuple[list[Item], dict[str, Any]]:
    """Return the items in the order of `starts`, with the figures for the manifest."""
    teacher = job.settings.teacher
    if teacher is None or not job.file.constants["ASKS"]:
        return await _walk(job, starts, rejects, None, 1), {}
    with Store(_store_path(work, job.spec.name, teacher)) as store:
        async with Client(teacher, store) as client:
            asker = Asker(client, job.spec.seed, job.options.attempts)
            rows = await _walk(job, starts, rejects, asker, WINDOW_PER_SLOT * teacher.max_in_flight)
            prompts = {prompt.name: f"{prompt.version}-{prompt.digest}" for prompt in job.attack.prompts}
            return rows, {"retries": dict(sorted(asker.retries.items())), "prompts": prompts, **client.usage.figures()}


async def _walk(job: Job, starts: list[Start], rejects: manifests.Rejects, asker: Asker | None, window: int) -> list[Item]:
    need = len(starts) if job.spec.limit is None else job.spec.limit
    progress, known = Progress(min(need, len(starts)), f"attack {job.spec.name}", "items", log=log), NearDuplicates()

    async def work(start: Start, draft: int) -> tuple[Start, Made]:
        return start, await job.attack.make(start, job.options, Pen(asker, start, draft, job.spec.seed))

    def check(made: tuple[Start, Made]) -> None:
        if made[1].written:
            known.check(made[1].written)

    def admit(made: tuple[Start, Made]) -> None:
        if made[1].written:
            known.add(made[1].written)
        progress.update(1, asker.client.status() if asker else "")

    def reject(start: Start, error: Rejected) -> None:
        rejects.add(start.id, error.reason, error.detail)

    made = await walk(starts, work, admit, reject, need=need, window=window, drafts=job.options.attempts, check=check)
    progress.close(str(asker.client.usage) if asker else "")
    return [_item(job, start, done) for start, done in made]


def _item(job: Job, start: Start, made: Made) -> Item:
    """The id says evaluation and start: a further round forces something else on each checkpoint, and is compared start by start."""
    assert made.forced != NOTHING, f"attack {job.file.name} must force something"
    return Item(
        id=content_id(job.spec.name, start.id),
        benchmark=job.spec.name,
        nature=job.file.constants["NATURE"],
        prompt=start.prompt,
        request=start.request,
        category=start.category,
        **made.forced._asdict(),
    )


def _store_path(work: Path, name: str, teacher: TeacherSpec) -> Path:
    return Path(work) / f"{name}-{make_key(family=endpoint_family(teacher), model=teacher.model)[:12]}.store"
