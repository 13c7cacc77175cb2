"""What the judges behind an OpenAI-compatible endpoint share: the question, the decoding, and what happens to a bad reply.

A reply counts only if it is the whole verdict (anchored match); everything else is unparsed, excluded and counted, never a default
label (RELIABILITY F1). Request and answer go in tags that their content cannot close (D5). Equal texts are asked once.
"""

from __future__ import annotations

import asyncio
import logging
import re
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path

from pydantic import Field

from advchain.errors import ConfigError
from advchain.judges.base import CONTENT_FILTER, AnswerJudge, Options, make_verdict, read_options
from advchain.judges.refusal_phrases import find_phrase
from advchain.llm.ask import load_prompt
from advchain.llm.client import Client, Completion
from advchain.llm.faults import AnswerError
from advchain.progress import Progress
from advchain.records import Label, Response, Verdict
from advchain.specs import JudgeSpec, TeacherSpec
from advchain.store import Store

log = logging.getLogger(__name__)

TAGS = re.compile(r"<(?=\s*/?\s*(?:request|response)\b)", re.IGNORECASE)
SEED = 0  # one seed for all: the same text gets the same verdict, whatever row it stands in (RELIABILITY F4)


class ApiOptions(Options):
    """Decoding of the judge; the endpoint's own settings are for teachers."""

    temperature: float = Field(default=0.0, ge=0)
    max_tokens: int = Field(default=16, ge=1, description="raise it for a judge that thinks before it answers")


def tagged(request: str, answer: str) -> str:
    """Return the user message; an opening bracket of our own tags inside the content is spelled out."""
    inner = [TAGS.sub("&lt;", text.strip()) for text in (request, answer)]
    return f"<request>\n{inner[0]}\n</request>\n\n<response>\n{inner[1]}\n</response>"


class ApiJudge(AnswerJudge):
    """Asks one question per answer with the prompt `prompts/<prompt>.txt`; subclasses read the reply."""

    prompt = ""
    options: type[ApiOptions] = ApiOptions

    def __init__(self, spec: JudgeSpec, work: Path) -> None:
        super().__init__(spec.name)
        if spec.teacher is None:
            raise ConfigError(
                f"judges.{spec.name}: a judge of kind '{spec.kind}' asks an endpoint; name one with `teacher:` (an entry of config/teachers.yaml)."
            )
        options = read_options(self.options, spec)
        self.teacher: TeacherSpec = spec.teacher.model_copy(update={"temperature": options.temperature, "max_tokens": options.max_tokens})
        self.replies: Path = work / f"{spec.name}.replies"
        self.instruction = load_prompt("advchain.judges", self.prompt)

    def question(self, request: str, answer: str) -> str:
        """Return the user message."""
        return tagged(request, answer)

    @abstractmethod
    def read_reply(self, text: str) -> tuple[Label, float | None, dict[str, str]]:
        """Return (label, score, detail) of a reply; the label is unparsed when it is not exactly a verdict."""

    def judge_answers(self, responses: Sequence[Response]) -> list[Verdict]:
        """Ask for every answer, many at a time; replies are kept under `work`."""
        return asyncio.run(self._judge_all(responses)) if responses else []

    async def _judge_all(self, responses: Sequence[Response]) -> list[Verdict]:
        progress = Progress(len(responses), f"judge {self.name}", "answers", log=log)
        with Store(self.replies) as store:
            async with Client(self.teacher, store) as client, asyncio.TaskGroup() as group:
                tasks = [group.create_task(self._judge_one(client, response, progress)) for response in responses]
            return [task.result() for task in tasks]

    async def _judge_one(self, client: Client, response: Response, progress: Progress) -> Verdict:
        messages = [
            {"role": "system", "content": self.instruction.text},
            {"role": "user", "content": self.question(response.request or response.prompt, response.answer)},
        ]
        try:
            completion = await client.complete(messages, seed=SEED, purpose=f"judge {self.name}")
        except AnswerError:
            return make_verdict(self.name, response, "unparsed", reason="no proper reply")
        finally:
            progress.update(1, client.status())
        label, score, detail = self._read(completion)
        return make_verdict(self.name, response, label, score, model=completion.model, **detail)

    def _read(self, completion: Completion) -> tuple[Label, float | None, dict[str, str]]:
        if completion.finish_reason == "content_filter":
            return "refused_to_judge", None, {"reason": CONTENT_FILTER}
        label, score, detail = self.read_reply(completion.text.strip())
        if label == "unparsed" and find_phrase(completion.text) is not None:
            return "refused_to_judge", None, {"reason": "refusal"}
        return label, score, detail if label != "unparsed" else {"reply": completion.text[:80]}
