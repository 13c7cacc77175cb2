"""Evaluate a model behind an OpenAI-compatible endpoint, through the project's one client: its pacing, retries and budget.

A plain prompt is a chat message, rendered by the server. A forced beginning of the chain cannot be said in a chat message: it goes to /completions as a
text that chat.py has rendered, where the endpoint takes that (vLLM does; `completions: true` of the model says so).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

from advchain import chat
from advchain.errors import ConfigError, EngineError
from advchain.generate.engine import Completion, Request, forced
from advchain.llm.client import AnswerError, Client
from advchain.llm.completion import Completion as Reply
from advchain.records import Item
from advchain.specs import EndpointSpec

log = logging.getLogger(__name__)


def question_of(family: chat.Family, item: Item, spec: EndpointSpec, evaluation: str) -> tuple[str, bool]:
    """Return what the endpoint is sent for an item, and whether it is a rendered text.

    Raises:
        ConfigError: a chain is forced and the endpoint only takes chat messages, or the text holds a control token of its own.
    """
    start = forced(item)
    if start == chat.NOTHING:
        return item.prompt, False
    where = f"evaluation '{evaluation}', item {item.id}"
    if not spec.completions:
        raise ConfigError(
            f"{where}: the attack forces the beginning of the chain, and a chat endpoint ({spec.teacher.name}) has no place for it. If the server takes "
            "rendered prompts at /completions (vLLM does), set `completions: true` on the model in config/models.yaml; else leave this attack out for it."
        )
    text = "\n".join((item.prompt, start.prefix, start.answer_prefix))
    control = next((token for token in {*family.markers, *family.stops, family.eos} if token in text), None)
    if control is not None:
        raise ConfigError(f"{where}: its text holds the control token {control}, which the server would take as one. Leave this item out for endpoints.")
    return chat.prompt_text(family, item.prompt, start), True


class EndpointEngine:
    """Asks the endpoint; `bought` is what earlier runs of this checkpoint paid for (input and output tokens), for the budget."""

    def __init__(self, spec: EndpointSpec, bought: tuple[int, int] = (0, 0)) -> None:
        self.spec, self.bought = spec, bought

    def generate(self, requests: Sequence[Request]) -> Iterator[list[Completion]]:
        """Answer every request once; a request that alone gets no proper answer is left out, as the caller will see.

        Raises:
            AccessError: the endpoint refuses or stays down.
            BudgetError: the next call could pass the budget.
            EngineError: a prompt does not fit into the endpoint's context.
        """
        loop = asyncio.new_event_loop()  # it runs only while we wait: the caller stores each answer in between
        answers = aiter(self._answers(sorted(requests, key=lambda request: request.length, reverse=True)))
        try:
            while (done := loop.run_until_complete(_next(answers))) is not None:
                yield [done]
        finally:
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.close()

    async def _answers(self, requests: Sequence[Request]) -> AsyncIterator[Completion]:
        async with Client(self.spec.teacher) as client:
            client.budget.spent = client.budget.price(*self.bought)
            tasks = [asyncio.ensure_future(self._answer(client, request)) for request in requests]
            try:
                for done in asyncio.as_completed(tasks):
                    completion = await done
                    if completion is not None:
                        yield completion
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    async def _answer(self, client: Client, request: Request) -> Completion | None:
        messages = request.question if request.rendered else [{"role": "user", "content": request.question}]
        try:
            reply = await client.complete(messages, seed=request.seed, purpose="generate", options=_decoding(request))
        except AnswerError as error:
            log.warning("%s, sample %d: %s", request.item_id, request.sample_index, error)
            return None
        if reply.finish_reason == "context_length":
            raise EngineError(
                f"item {request.item_id}: its prompt and max_new_tokens {request.sampling.max_new_tokens} do not fit into the context of "
                f"{self.spec.teacher.name}. Lower max_new_tokens for this evaluation. Finished rows are kept."
            )
        facts = {"num_prompt_tokens": reply.input_tokens, "model": reply.snapshot}
        if reply.finish_reason not in ("stop", "length"):
            facts["finish_reason"] = reply.finish_reason  # a content filter, say: what was let through is the answer
        return Completion(request, _whole_text(reply), "length" if reply.finish_reason == "length" else "stop", reply.output_tokens, facts)

    def close(self) -> None:
        """Nothing is held between calls."""


async def _next(answers: AsyncIterator[Completion]) -> Completion | None:
    return await anext(answers, None)


def _decoding(request: Request) -> dict[str, Any]:
    """Request fields of one call; what the evaluation does not limit is not sent, as some endpoints refuse fields that they do not know."""
    sampling = request.sampling
    fields: dict[str, Any] = {"temperature": sampling.temperature, "top_p": sampling.top_p, "max_tokens": sampling.max_new_tokens}
    if sampling.top_k > 0:
        fields["top_k"] = sampling.top_k
    if sampling.repetition_penalty != 1:
        fields["repetition_penalty"] = sampling.repetition_penalty
    if request.rendered:
        fields["add_special_tokens"] = False  # the text has its BOS, where the family has one
    return fields


def _whole_text(reply: Reply) -> str:
    """Put reasoning that the server split off back in front of the answer, so that all responses are split in one place (chat.split_response)."""
    if not reply.reasoning:
        return reply.text
    cut = reply.finish_reason == "length" and not reply.text
    return f"{chat.OPENING}{reply.reasoning}" + ("" if cut else f"{chat.CLOSING}{reply.text}")
