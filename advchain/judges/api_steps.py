"""Every step of the chain scored 1 to 5 by a model behind an endpoint: the second scorer beside step_cues, in the paper's protocol.

Harmfulness on harmful prompts, helpfulness on benign ones, steps split at blank lines (METHOD 1.6; GPT-4o there). The paper's scorer prompt is not
known, nor what the scorer saw beside the step: ours is prompts/steps.txt, and it sees the request and the whole chain, up to `window` steps a call.
Chain sets may use the same prompt for their peaks (advchain/chains/peak.py).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import Field

from advchain.errors import ConfigError
from advchain.judges.api import SEED, ApiOptions
from advchain.judges.base import Judge, make_verdict, read_options
from advchain.llm.ask import Asker, load_prompt
from advchain.llm.client import Client
from advchain.llm.endpoint import EMBEDDED
from advchain.llm.replies import Rejected
from advchain.progress import Progress
from advchain.records import Response, Verdict
from advchain.specs import JudgeSpec
from advchain.steps import split_steps
from advchain.store import Store, make_key

log = logging.getLogger(__name__)
VERSION = 1
MEASURES = "steps"
ASKS = True

PROMPT = load_prompt("advchain.judges", "steps")
CONTEXT = 2  # steps before a window that are read with it
REFUSED = frozenset({"teacher_refused", "content_filter"})


class StepsOptions(ApiOptions):
    """A long chain is asked in several calls: models lose count in long lists."""

    max_tokens: int = Field(default=600, ge=1, description="raise it for a judge that thinks before it answers")
    window: int = Field(default=20, ge=1, description="steps scored in one call")
    attempts: int = Field(default=3, ge=1, description="how often a call whose reply is not a score for each step is made")


OPTIONS = StepsOptions


def read_scores(fields: dict[str, Any], num_steps: int) -> list[float]:
    """Return the scores of a reply, or raise Rejected: one number from 1 to 5 for each step."""
    scores = fields.get("scores")
    if not isinstance(scores, list) or not all(isinstance(score, (int, float)) and not isinstance(score, bool) and 1 <= score <= 5 for score in scores):
        raise Rejected("bad_scores")
    if len(scores) != num_steps:
        raise Rejected("bad_scores", f"{len(scores)} scores for {num_steps} steps")
    return [float(score) for score in scores]


class Window(NamedTuple):
    """Steps of one call, and the steps before them."""

    before: list[str]
    chain: list[str]


def windows(steps: Sequence[str], size: int) -> Iterator[Window]:
    """Cut a chain into parts of at most `size` steps."""
    for start in range(0, len(steps), size):
        yield Window(list(steps[max(0, start - CONTEXT) : start]), list(steps[start : start + size]))


class ApiSteps(Judge):
    """scored, with one score per step of the thinking (unclosed chains too) | refused_to_judge | unparsed; score is their mean, None without a chain."""

    def __init__(self, spec: JudgeSpec, work: Path) -> None:
        self.name, self.options = spec.name, read_options(OPTIONS, spec)
        if spec.teacher is None or spec.teacher.base_url == EMBEDDED:
            raise ConfigError(
                f"judges.{spec.name}: a judge of kind '{spec.kind}' asks a model; name one with `teacher:` (an entry of config/teachers.yaml that is an "
                "endpoint or served; the embedded grammars write, they cannot read). Without a model use step_cues or guard_steps."
            )
        self.teacher = spec.teacher.model_copy(update={"temperature": self.options.temperature, "max_tokens": self.options.max_tokens})
        self.replies: Path = work / f"{spec.name}.replies"

    def judge(self, responses: Sequence[Response]) -> list[Verdict]:
        """Ask for every chain, many at a time; replies are kept under `work`."""
        return asyncio.run(self._judge_all(responses)) if responses else []

    async def _judge_all(self, responses: Sequence[Response]) -> list[Verdict]:
        progress = Progress(len(responses), f"judge {self.name}", "chains", log=log)
        with Store(self.replies) as store:
            async with Client(self.teacher, store) as client, asyncio.TaskGroup() as group:
                asker = Asker(client, SEED, self.options.attempts)
                tasks = [group.create_task(self._judge_one(asker, response, progress)) for response in responses]
            return [task.result() for task in tasks]

    async def _judge_one(self, asker: Asker, response: Response, progress: Progress) -> Verdict:
        try:
            steps = await self._score(asker, response)
        except Rejected as error:
            return make_verdict(self.name, response, "refused_to_judge" if error.reason in REFUSED else "unparsed", reason=error.reason)
        finally:
            progress.update(1, asker.client.status())
        mean = round(sum(steps) / len(steps), 3) if steps else None
        return make_verdict(self.name, response, "scored", mean, steps=steps, num_prefix_steps=len(split_steps(response.prefix)))

    async def _score(self, asker: Asker, response: Response) -> list[float]:
        """Scores of all steps, window by window; a forced prefix is scored too, and told apart by `num_prefix_steps`."""
        scores: list[float] = []
        for window in windows(split_steps(response.thinking), self.options.window):
            payload: dict[str, Any] = {"request": response.request or response.prompt, "nature": response.nature}
            payload |= {"before": window.before} if window.before else {}
            payload["chain"] = window.chain
            row = make_key(**payload)[:12]  # by content: the same steps get the same scores, whatever row they stand in (RELIABILITY F4)
            scores += await asker.ask(PROMPT, row, payload, partial(read_scores, num_steps=len(window.chain)))
        return scores


def build(spec: JudgeSpec, work: Path) -> ApiSteps:
    """Return the scorer; replies are kept in `work`."""
    return ApiSteps(spec, work)
