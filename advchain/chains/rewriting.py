"""Rewrite one chain: c_1..k, error, correction, c_k+1..n (METHOD 1.1), one call for each part, each checked before the next.

Calls: base chain (only where the row has none), insertion point, error step, correction step, polish; the last four once per error.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from advchain.chains.base import base_chain
from advchain.chains.insertion import choose_points
from advchain.chains.peak import Peak, Scorer, peak_of
from advchain.chains.polish import Seams, polish
from advchain.chains.repair import repair_step
from advchain.chains.validators import StepText, check_chain, check_sample, read_step
from advchain.llm.ask import Asker, Prompt
from advchain.llm.replies import Rejected, text_field
from advchain.records import Chain, Nature, Sample, SampleKind, Step, content_id
from advchain.specs import ChainsSpec


@dataclass(frozen=True)
class Rewriting:
    """One kind of rewriting: which chains it takes and what it asks for."""

    kind: str
    sample_kind: SampleKind
    nature: Nature
    error: Prompt
    correction: Prompt


class Insert(NamedTuple):
    """An error step with its correction, after base step `k`."""

    k: int
    error: str
    correction: str
    seams: Seams = Seams()


class Rewritten(NamedTuple):
    """A finished sample, the row it stands on, its peak, and whether the teacher wrote the base chain."""

    chain: Chain
    sample: Sample
    peak: Peak
    written: bool


@dataclass
class Desk:
    """What the rewriting of all rows shares."""

    asker: Asker
    rewriting: Rewriting
    spec: ChainsSpec
    score: Scorer
    repairs: Counter[str] = field(default_factory=Counter)
    retries: Counter[str] = field(default_factory=Counter)


async def rewrite(desk: Desk, source: Chain, draft: int = 0) -> Rewritten:
    """Return the training sample made from `source`; a sample that fails as a whole is written again with other seeds, `attempts` times at most.

    Raises:
        Rejected: with the reason of the step that failed in every attempt, or of the last sample.
    """
    spec, failure = desk.spec, Rejected("not_asked")
    for turn in range(spec.attempts):
        seeding = draft * spec.attempts + turn
        chain = await base_chain(desk.asker, source, spec.max_step_words, seeding)
        check_chain(chain, spec)
        sample = await _write(desk, chain, seeding)
        try:
            return Rewritten(chain, sample, await _accept(desk, chain, sample), chain is not source)
        except Rejected as error:
            failure = error
            desk.retries[error.reason] += 1
    raise failure


async def _write(desk: Desk, chain: Chain, draft: int) -> Sample:
    spec, inserts = desk.spec, list[Insert]()
    for k in await choose_points(desk.asker, chain, spec.position, spec.errors, draft):
        error = await _step(desk, "error", chain, k, draft, inserts)
        correction = await _step(desk, "correction", chain, k, draft, inserts, error=error)
        inserts.append(Insert(k, error, correction, await polish(desk.asker, chain, k, error, correction, draft, desk.repairs)))
    return assemble(desk.rewriting, chain, inserts, desk.asker.models.pop(chain.id, spec.teacher.model))


async def _accept(desk: Desk, chain: Chain, sample: Sample) -> Peak:
    check_sample(chain, sample, desk.spec.max_chain_words)
    peak = peak_of(sample, await desk.score(sample))
    if desk.spec.peak.gate and peak.height < desk.spec.peak.margin:
        raise Rejected("flat_peak", f"height {peak.height:.2f}")
    return peak


async def _step(desk: Desk, role: Literal["error", "correction"], chain: Chain, k: int, draft: int, inserts: Sequence[Insert], **given: str) -> str:
    rewriting, spec = desk.rewriting, desk.spec
    payload: dict[str, Any] = {"category": list(chain.category), "request": chain.prompt, "chain": list(chain.steps), "after_step": k, **given}
    if inserts:
        payload["earlier_errors"] = [insert.error for insert in inserts]
    earlier = (*given.values(), *(text for insert in inserts for text in (insert.error, insert.correction)))

    def read(fields: dict[str, Any]) -> str:
        text = repair_step(text_field(fields, "step"), desk.repairs)
        return read_step(StepText(text, role, rewriting.kind, chain, spec.max_step_words, earlier))

    return await desk.asker.ask(rewriting.error if role == "error" else rewriting.correction, chain.id, payload, read, draft=draft)


def assemble(rewriting: Rewriting, chain: Chain, inserts: Sequence[Insert], teacher: str) -> Sample:
    """Put the pieces together; base steps are copied as they are, a seam stands in front of one."""
    after = {insert.k: insert for insert in inserts}
    steps: list[Step] = []
    for index, text in enumerate(chain.steps):
        seam = ""
        if (insert := after.get(index)) is not None:
            steps += [Step(text=insert.error, role="error", seam=insert.seams.before_error), Step(text=insert.correction, role="correction")]
            seam = insert.seams.before_next
        steps.append(Step(text=text, seam=seam))
    parts = [part for insert in inserts for part in insert[:3]]
    return Sample(
        id=content_id(rewriting.sample_kind, chain.id, *parts),
        kind=rewriting.sample_kind,
        nature=chain.nature,
        prompt=chain.prompt,
        steps=tuple(steps),
        answer=chain.answer,
        category=chain.category,
        source=chain.source,
        teacher=teacher,
        insertion=inserts[0].k,
    )
