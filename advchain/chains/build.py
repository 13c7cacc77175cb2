"""Build a set of rewritten chains: walk the source rows in a seeded order until enough are accepted.

Rows are read, rewritten and written one by one: what stays in memory of a row is its place, its grams (near-duplicates) and its figures.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TextIO

from advchain import io, manifests
from advchain.chains import base, hesitation, insertion, polish, temptation
from advchain.chains import peak as peaks
from advchain.chains.answers import kind_of
from advchain.chains.rewriting import Desk, Rewriting, Rewritten, rewrite
from advchain.chains.rows import SourceRows
from advchain.chains.trace import Trace
from advchain.errors import ConfigError, DataError
from advchain.judges.api_steps import PROMPT as STEP_SCORES
from advchain.llm.ask import Asker
from advchain.llm.client import Client
from advchain.llm.endpoint import EMBEDDED, endpoint_family
from advchain.llm.replies import Rejected
from advchain.llm.screening import NearDuplicates
from advchain.llm.walk import walk
from advchain.progress import Progress
from advchain.records import Chain, derive_seed
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
        work: folder of the answer store and of the calls of each row (`trace_path`), kept between runs.

    Raises:
        DataError: fewer than `spec.count` rows were accepted, or too many were rejected.
        AccessError, BudgetError: from the client; finished answers are kept.
    """
    timer = manifests.StageTimer()
    rows = SourceRows(source, derive_seed(spec.seed, "chains", spec.kind))  # sets of one kind draw the same rows
    run = Build(spec, rows, work)
    made = Path(work) / f"{spec.name}.samples.jsonl"
    try:
        with io.atomic_write(made) as samples, io.atomic_write(trace_path(work, spec.name)) as trace:
            asyncio.run(run.make(samples, Trace(trace)))
        if spec.count is not None and run.num_kept < spec.count:
            raise DataError(
                f"chains '{spec.name}': only {run.num_kept} of {spec.count} samples could be made from the {len(rows)} rows of {source}; "
                f"rejected: {run.rejects.counts()}. Lower count, give a larger source, raise attempts, or read {manifests.keep_rejects(output, run.rejects)}."
            )
        manifests.write_stage(
            output,
            (row for _, row in io.read_jsonl(made)),
            stage="chains",
            spec=spec.model_dump(mode="json"),
            inputs=[source],
            rejects=run.rejects,
            max_reject_share=run.allowed_share(),
            counts=run.counts,
            timer=timer,
        )
    finally:
        rows.close()
        made.unlink(missing_ok=True)


class Build:
    """The state of one run: what was kept, who was rejected and why, what was asked again, what it cost."""

    def __init__(self, spec: ChainsSpec, rows: SourceRows, work: Path) -> None:
        self.spec, self.rows, self.work = spec, rows, work
        self.rewriting: Rewriting = REWRITINGS[spec.kind]
        self.rejects = manifests.Rejects()
        self.by_category: dict[str, Counter[str]] = {}
        self.kept_by_category: Counter[str] = Counter()
        self.retries: Counter[str] = Counter()
        self.repairs: Counter[str] = Counter()
        self.answers: Counter[str] = Counter()
        self.points: Counter[int] = Counter()
        self.known = NearDuplicates(spec.near_duplicate_share)
        self.peak = PeakFigures(spec.peak.margin)
        self.num_kept = self.num_base_written = 0
        self.usage: dict[str, Any] = {}
        self.scorer_usage: dict[str, Any] = {}

    async def make(self, samples: TextIO, trace: Trace) -> None:
        """Write the accepted samples in walking order."""
        spec = self.spec
        need = len(self.rows) if spec.count is None else spec.count
        progress = Progress(min(need, len(self.rows)), f"chains {spec.name}", "samples", log=log)

        def admit(draft: list[Rewritten]) -> None:
            try:
                self._check(draft[0])
            except Rejected as error:
                self.retries[error.reason] += 1
                raise
            self._admit(draft[0])
            kept = draft.pop()  # it is on disk now, and not to be held
            samples.write(kept.sample.model_dump_json() + "\n")
            trace.settle(kept.chain, kept.sample.id)
            progress.update(1, client.status())

        def reject(chain: Chain, error: Rejected) -> None:
            self._reject(chain, error)
            trace.settle(chain, error.reason)

        async with opened(spec.teacher, self.work, spec.name) as client, self._scorer() as score:
            asker = Asker(client, spec.seed, spec.attempts, self.retries, watch=trace.watch)
            desk = Desk(asker, self.rewriting, spec, score, self.repairs, self.retries)

            async def work(chain: Chain, draft: int) -> list[Rewritten]:
                return [await rewrite(desk, chain, draft)]

            window = WINDOW_PER_SLOT * spec.teacher.max_in_flight
            await walk(self.rows, work, admit, reject, need=need, window=window, drafts=spec.attempts, check=lambda draft: self._check(draft[0]))
            progress.close(str(client.usage))
            self.usage = client.usage.figures()

    def counts(self) -> dict[str, Any]:
        """Return the figures of the manifest (METHOD 1.1 asks for yield and cost, which the paper does not give)."""
        walked = self.num_kept + len(self.rejects)
        prompts = (base.PROMPT, insertion.PROMPT, self.rewriting.error, self.rewriting.correction, polish.PROMPT, STEP_SCORES)
        return {
            "rows": len(self.rows),
            "walked": walked,
            "yield": round(self.num_kept / walked, 4) if walked else None,
            "retries": dict(sorted(self.retries.items())),
            "repairs": {name: num for name, num in sorted(self.repairs.items()) if num},
            "kept_by_category": dict(sorted(self.kept_by_category.items())),
            "rejects_by_category": {name: dict(sorted(reasons.items())) for name, reasons in sorted(self.by_category.items())},
            "insertion": {str(k): num for k, num in sorted(self.points.items())},
            "answers_by_kind": dict(sorted(self.answers.items())),
            "base_chains_written": self.num_base_written,
            "peak": {"judge": self.spec.peak.judge, "gate": self.spec.peak.gate, **self.peak.figures(), **self.scorer_usage},
            "prompts": {prompt.name: f"{prompt.version}-{prompt.digest}" for prompt in prompts},
            **self.usage,
        }

    def allowed_share(self) -> float:
        """Return the share of rejects to allow: rows that `answers` does not select are no failures."""
        total, unselected = self.num_kept + len(self.rejects), self.rejects.counts().get("other_answer_kind", 0)
        return (self.spec.max_reject_share * (total - unselected) + unselected) / total if total else 1.0

    def _check(self, made: Rewritten) -> None:
        for text in error_texts(made):
            self.known.check(text)

    def _admit(self, made: Rewritten) -> None:
        for text in error_texts(made):
            self.known.remember(text)
        self.num_kept += 1
        self.num_base_written += made.written
        self.kept_by_category[category_of(made.chain)] += 1
        self.answers[kind_of(made.chain)] += 1
        self.points[made.sample.insertion or 0] += 1
        self.peak.add(made.peak)

    def _reject(self, chain: Chain, error: Rejected) -> None:
        self.rejects.add(chain.id, error.reason, error.detail)
        self.by_category.setdefault(category_of(chain), Counter())[error.reason] += 1

    @asynccontextmanager
    async def _scorer(self) -> AsyncIterator[peaks.Scorer]:
        peak, spec = self.spec.peak, self.spec
        if peak.judge == "step_cues":
            yield peaks.score_by_cues
            return
        if peak.teacher is None:
            raise ConfigError(f"chains '{spec.name}': peak.judge 'api' needs peak.teacher, the endpoint that scores the steps.")
        async with opened(peak.teacher, self.work, f"{spec.name}-scores") as client:
            yield peaks.score_by_asking(Asker(client, spec.seed, spec.attempts, self.retries))
            self.scorer_usage = client.usage.figures()


def error_texts(made: Rewritten) -> list[str]:
    """Return the injected errors of a rewritten chain."""
    return [step.text for step in made.sample.steps if step.role == "error"]


class PeakFigures:
    """Running means over the kept samples."""

    def __init__(self, margin: float) -> None:
        self.margin = margin
        self.sums = [0.0] * len(peaks.Peak._fields)
        self.num = self.num_high = 0

    def add(self, peak: peaks.Peak) -> None:
        """Count one sample."""
        self.sums = [total + value for total, value in zip(self.sums, peak, strict=True)]
        self.num += 1
        self.num_high += peak.height >= self.margin

    def figures(self) -> dict[str, Any]:
        """Return the mean scores around the errors and the share of samples whose peak has the margin."""
        means = {f"mean_{name}": round(total / self.num, 4) if self.num else None for name, total in zip(peaks.Peak._fields, self.sums, strict=True)}
        return {"margin": self.margin, "share": round(self.num_high / self.num, 4) if self.num else None, **means}


@asynccontextmanager
async def opened(teacher: TeacherSpec, work: Path, name: str) -> AsyncIterator[Client]:
    """Open a client with the store of its answers; the embedded teacher has none, for its answers cost nothing and come out the same again."""
    if teacher.base_url == EMBEDDED:
        async with Client(teacher) as client:
            yield client
        return
    with Store(store_path(work, name, teacher)) as store:
        async with Client(teacher, store) as client:
            yield client


def category_of(chain: Chain) -> str:
    """Return the first category of a row, or none."""
    return chain.category[0] if chain.category else "none"


def store_path(work: Path, name: str, teacher: TeacherSpec) -> Path:
    """Return the store of one set and one teacher: another count, seed or check finds the same answers again."""
    return Path(work) / f"{name}-{make_key(family=endpoint_family(teacher), model=teacher.model)[:12]}.store"


def trace_path(work: Path, name: str) -> Path:
    """Return the file with the calls of each row of a set, as its last whole run made them."""
    return Path(work) / f"{name}.calls.jsonl"
