"""Ask one question until the reply passes its check: prompt files, attempts with fresh seeds, reason codes."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import resources
from typing import Any, TypeVar

from advchain.llm.client import Client, Completion
from advchain.llm.faults import AnswerError
from advchain.llm.replies import Rejected, parse_reply
from advchain.records import derive_seed

T = TypeVar("T")
FINISH_REASONS = {"length": "truncated", "content_filter": "content_filter", "context_length": "request_too_long"}


@dataclass(frozen=True)
class Prompt:
    """The fixed half of a request. It comes first and is the same for every row, so that providers can cache it."""

    name: str
    version: int
    text: str

    @property
    def digest(self) -> str:
        """First 12 hex digits of the text's sha256, for the manifest."""
        return hashlib.sha256(self.text.encode()).hexdigest()[:12]


@dataclass(frozen=True)
class Exchange:
    """One call: what was asked (`payload`; the fixed half is `prompt`), what came back (None for no proper answer), why it was not taken ("" if it was)."""

    prompt: Prompt
    row: str
    payload: Mapping[str, Any]
    draft: int
    attempt: int
    seed: int
    completion: Completion | None
    reason: str


@dataclass
class Asker:
    """What every question of one stage shares. `retries` counts re-asked replies by reason, `models` says which model answered for a row.

    `watch` is told of every exchange.
    """

    client: Client
    seed: int
    attempts: int
    retries: Counter[str] = field(default_factory=Counter)
    models: dict[str, str] = field(default_factory=dict)
    watch: Callable[[Exchange], None] | None = None

    async def ask(self, prompt: Prompt, row: str, payload: Mapping[str, Any], read: Callable[[dict[str, Any]], T], *, draft: int = 0) -> T:
        """Return `read(fields)` of the first reply that passes; a new seed for each attempt.

        Args:
            row: id of the row, sent along and echoed by the model: a reply for another row is caught.
            payload: the varying half of the request, sent as JSON.
            read: takes the reply's fields, returns the value or raises Rejected.
            draft: number of the row's draft, when the whole row is asked again.

        Raises:
            Rejected: the last attempt's reason.
        """
        messages = [{"role": "system", "content": prompt.text}, {"role": "user", "content": json.dumps({"row": row, **payload}, ensure_ascii=False, indent=1)}]
        failure = Rejected("not_asked")
        for attempt in range(self.attempts):
            seed, completion = derive_seed(self.seed, row, prompt.name, draft, attempt), None
            try:
                completion = await self.client.complete(messages, seed=seed, purpose=prompt.name)
                value = read(_fields(completion, row))
                self.models[row] = completion.model
                self._tell(prompt, row, payload, draft, attempt, seed, completion, "")
                return value
            except AnswerError:
                failure = Rejected("bad_response", prompt.name)
            except Rejected as error:
                failure = Rejected(error.reason, f"{prompt.name}{': ' if error.detail else ''}{error.detail}")
            self.retries[failure.reason] += 1
            self._tell(prompt, row, payload, draft, attempt, seed, completion, failure.reason)
        raise failure

    def _tell(self, *exchange: Any) -> None:
        if self.watch is not None:
            self.watch(Exchange(*exchange))


def load_prompt(package: str, name: str) -> Prompt:
    """Read `prompts/<name>.txt` of a package; its first line is `Version: N` and is not sent."""
    text = resources.files(package).joinpath("prompts", f"{name}.txt").read_text(encoding="utf-8")
    head, _, body = text.partition("\n")
    assert head.startswith("Version: "), f"{package}/prompts/{name}.txt must start with 'Version: N'"
    return Prompt(name, int(head.removeprefix("Version: ")), body.strip() + "\n")


def _fields(completion: Completion, row: str) -> dict[str, Any]:
    if completion.finish_reason != "stop":
        raise Rejected(FINISH_REASONS.get(completion.finish_reason, "unfinished"), completion.finish_reason[:40])
    if not completion.text.strip():
        raise Rejected("empty_answer")
    fields = parse_reply(completion.text)
    if fields.get("row") not in (None, row):
        raise Rejected("wrong_row")
    return fields
