"""What every judge shares: the Judge protocol, typed options, verdict rows, and the rule for responses without an answer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict

from advchain.options import check_options
from advchain.records import Label, Response, Verdict
from advchain.specs import JudgeSpec

CONTENT_FILTER = "content filter"  # why a verdict is refused_to_judge: the provider's, not the judge's choice


class Judge(ABC):
    """Reads responses, gives one verdict each, in order. What a judge needs to hold, it holds until it is closed: several files are judged with it."""

    name: str
    replies: Path | None = None  # file of what was asked of weights or an endpoint; None for a judge that asks nobody

    @abstractmethod
    def judge(self, responses: Sequence[Response]) -> list[Verdict]:
        """Return one verdict per response, in the order given."""

    def keep_in(self, work: Path) -> None:
        """Keep replies under `work` from now on."""
        if self.replies is not None:
            self.replies = work / self.replies.name

    def close(self) -> None:  # noqa: B027  most judges hold nothing
        """Release processes, weights, connections."""


class Options(BaseModel):
    """A judge's options; unknown names are errors. A judge file names its class: `OPTIONS = ...`."""

    model_config = ConfigDict(frozen=True, extra="forbid")


O = TypeVar("O", bound=Options)  # noqa: E741


def read_options(kind: type[O], spec: JudgeSpec) -> O:
    """Read `spec.options` into a judge's own options.

    Raises:
        ConfigError: an unknown option or a bad value; names judge, option and what is known.
    """
    return check_options(kind, spec.options, f"judges.{spec.name}.options")


def make_verdict(judge: str, response: Response, label: Label, score: float | None = None, **detail: Any) -> Verdict:
    """Return the verdict row of one response."""
    return Verdict(response_id=response.id, item_id=response.item_id, benchmark=response.benchmark, judge=judge, label=label, score=score, detail=detail)


def why_no_answer(response: Response) -> str | None:
    """Return why there is nothing to judge ("unclosed" thinking or an "empty" answer), None when there is an answer."""
    if response.state == "unclosed":
        return "unclosed"
    return None if response.answer.strip() else "empty"


class AnswerJudge(Judge):
    """A judge of the answer alone. Without an answer the label is no_answer: never safe, never refused, never wrong (METHOD 4)."""

    def __init__(self, name: str) -> None:
        self.name = name

    @abstractmethod
    def judge_answers(self, responses: Sequence[Response]) -> list[Verdict]:
        """Return one verdict per response; every response here has an answer."""

    def judge(self, responses: Sequence[Response]) -> list[Verdict]:
        """Return one verdict per response, in the order given."""
        verdicts = iter(self.judge_answers([response for response in responses if why_no_answer(response) is None]))
        rows = []
        for response in responses:
            reason = why_no_answer(response)
            rows.append(next(verdicts) if reason is None else make_verdict(self.name, response, "no_answer", reason=reason))
        return rows
