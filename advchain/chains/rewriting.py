"""Rewrite one chain: c_1..k, error, correction, c_k+1..n (METHOD 1.1), four calls in a row, each checked before the next."""

from __future__ import annotations

from dataclasses import dataclass

from advchain.chains.checks import check_chain, check_sample, read_correction, read_error
from advchain.chains.insertion import choose_point
from advchain.chains.polish import Seams, polish
from advchain.llm.ask import Asker, Prompt
from advchain.llm.replies import text_field
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


async def rewrite(asker: Asker, rewriting: Rewriting, chain: Chain, spec: ChainsSpec, draft: int = 0) -> Sample:
    """Return the training sample made from `chain`.

    Raises:
        Rejected: with the reason of the step that failed in every attempt.
    """
    check_chain(chain, rewriting.kind)
    k = await choose_point(asker, chain, spec.position, draft)
    payload = {"category": list(chain.category), "request": chain.prompt, "chain": list(chain.steps), "after_step": k}
    error = await asker.ask(
        rewriting.error, chain.id, payload, lambda fields: read_error(rewriting.kind, text_field(fields, "step"), chain, spec.max_step_words), draft=draft
    )
    correction = await asker.ask(
        rewriting.correction,
        chain.id,
        {**payload, "error": error},
        lambda fields: read_correction(rewriting.kind, text_field(fields, "step"), error, chain, spec.max_step_words),
        draft=draft,
    )
    seams = await polish(asker, chain, k, error, correction, draft)
    sample = assemble(rewriting, chain, k, error, correction, seams, asker.models.get(chain.id, spec.teacher.model))
    check_sample(chain, sample)
    return sample


def assemble(rewriting: Rewriting, chain: Chain, k: int, error: str, correction: str, seams: Seams, teacher: str) -> Sample:
    """Put the pieces together; base steps are copied as they are, a seam stands in front of one."""
    base = [Step(text=text) for text in chain.steps]
    inserted = [Step(text=error, role="error", seam=seams.before_error), Step(text=correction, role="correction")]
    resumed = base[k].model_copy(update={"seam": seams.before_next})
    return Sample(
        id=content_id(rewriting.sample_kind, chain.id, k, error, correction),
        kind=rewriting.sample_kind,
        nature=chain.nature,
        prompt=chain.prompt,
        steps=(*base[:k], *inserted, resumed, *base[k + 1 :]),
        answer=chain.answer,
        category=chain.category,
        source=chain.source,
        teacher=teacher,
        insertion=k,
    )
