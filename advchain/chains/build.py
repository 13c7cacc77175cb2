"""Build a set of rewritten chains: walk the source rows in a seeded order until enough are accepted."""

from __future__ import annotations

import asyncio
import logging
import random
from collections import Counter
from pathlib import Path
from typing import Any

from advchain import io
from advchain.chains import hesitation, insertion, polish, temptation
from advchain.chains.rewriting import Rewriting, rewrite
from advchain.errors import DataError
from advchain.llm.ask import Asker
from advchain.llm.client import Client, endpoint_family
from advchain.llm.replies import Rejected
from advchain.llm.screening import NearDuplicates
from advchain.llm.walk import walk
from advchain.progress import Progress
from advchain.records import Chain, Sample, derive_seed
from advchain.specs import ChainsSpec, TeacherSpec
from advchain.store import Store, make_key

log = logging.getLogger(__name__)

REWRITINGS = {rewriting.kind: rewriting for rewriting in (temptation.REWRITING, hesitation.REWRITING)}
WINDOW_PER_SLOT = 2  # rows in progress per request in flight: enough that a slow row does not leave slots empty


def build_chains(source: Path, output: Path, spec: ChainsSpec, work: Path) -> None:
    """Rewrite chains of `source` and write `spec.count` samples with rejects and manifest.

    Args:
        source: Chain rows.
        output: Sample rows, in walking order, the same for every `max_in_flight` and after every resume.
        work: folder of the answer store, kept between runs.

    Raises:
        DataError: fewer than `spec.count` rows were accepted, or too many were rejected.
        AccessError, BudgetError: from the client; finished answers are kept.
    """
    timer = io.StageTimer()
    rows = io.read_records(source, Chain)
    random.Random(derive_seed(spec.seed, "chains", spec.name)).shuffle(rows)
    with Store(store_path(work, spec.name, spec.teacher)) as store:
        run = Build(spec, rows)
        samples = asyncio.run(run.make(store))
    if spec.count is not None and len(samples) < spec.count:
        io.write_jsonl(io.rejects_path(output), run.rejects.rows)
        raise DataError(
            f"chains '{spec.name}': only {len(samples)} of {spec.count} samples could be made from the {len(rows)} rows of {source}; "
            f"rejected: {run.rejects.counts()}. Lower count, give a larger source, raise attempts, or read {io.rejects_path(output)}."
        )
    io.write_stage(
        output,
        samples,
        stage="chains",
        spec=spec.model_dump(mode="json"),
        inputs=[source],
        rejects=run.rejects,
        max_reject_share=spec.max_reject_share,
        counts=run.counts(samples),
        timer=timer,
    )


class Build:
    """The state of one run: who was rejected and why, what was asked again, what it cost."""

    def __init__(self, spec: ChainsSpec, rows: list[Chain]) -> None:
        self.spec, self.rows = spec, rows
        self.rewriting: Rewriting = REWRITINGS[spec.kind]
        self.rejects = io.Rejects()
        self.by_category: dict[str, Counter[str]] = {}
        self.retries: Counter[str] = Counter()
        self.usage: dict[str, Any] = {}

    async def make(self, store: Store) -> list[Sample]:
        """Return the accepted samples in walking order."""
        spec, need = self.spec, len(self.rows) if self.spec.count is None else self.spec.count
        known = NearDuplicates()
        progress = Progress(min(need, len(self.rows)), f"chains {spec.name}", "samples", log=log)

        def admit(sample: Sample) -> None:
            try:
                known.add(next(step.text for step in sample.steps if step.role == "error"))
            except Rejected as error:
                self.retries[error.reason] += 1
                raise
            progress.update(1)

        async with Client(spec.teacher, store) as client:
            asker = Asker(client, spec.seed, spec.attempts, self.retries)
            samples = await walk(
                self.rows,
                lambda chain, draft: rewrite(asker, self.rewriting, chain, spec, draft),
                admit,
                self._reject,
                need=need,
                window=WINDOW_PER_SLOT * spec.teacher.max_in_flight,
                drafts=spec.attempts,
            )
            progress.close(str(client.usage))
            self.usage = client.usage.figures()
        return samples

    def counts(self, samples: list[Sample]) -> dict[str, Any]:
        """Return the figures of the manifest (METHOD 1.1 asks for yield and cost, which the paper does not give)."""
        walked = len(samples) + len(self.rejects)
        prompts = (insertion.PROMPT, self.rewriting.error, self.rewriting.correction, polish.PROMPT)
        return {
            "rows": len(self.rows),
            "walked": walked,
            "yield": round(len(samples) / walked, 4) if walked else None,
            "retries": dict(sorted(self.retries.items())),
            "rejects_by_category": {name: dict(sorted(reasons.items())) for name, reasons in sorted(self.by_category.items())},
            "insertion": dict(sorted(Counter(str(sample.insertion) for sample in samples).items())),
            "prompts": {prompt.name: f"{prompt.version}-{prompt.digest}" for prompt in prompts},
            **self.usage,
        }

    def _reject(self, chain: Chain, error: Rejected) -> None:
        category = chain.category[0] if chain.category else "none"
        self.rejects.add(chain.id, error.reason, error.detail)
        self.by_category.setdefault(category, Counter())[error.reason] += 1


def store_path(work: Path, name: str, teacher: TeacherSpec) -> Path:
    """Return the store of one set and one teacher: another count, seed or check finds the same answers again."""
    return Path(work) / f"{name}-{make_key(family=endpoint_family(teacher), model=teacher.model)[:12]}.store"
