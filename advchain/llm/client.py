"""The one client for every model behind an API: teachers, attack teachers, judges.

Answers are stored before they are used, so that nothing is paid for twice; faults are retried here and nowhere else. The
embedded teacher is reached through the same code: only the transport under the HTTP client differs.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

from advchain.errors import AccessError, AdvChainError, ConfigError
from advchain.llm import embedded
from advchain.llm.faults import MAX_BODY_BYTES, MAX_WAIT_SECONDS, AnswerError, Body, Fault, MalformedBody, parse_body, safe_message, status_fault
from advchain.llm.usage import Budget, Usage
from advchain.specs import TeacherSpec
from advchain.store import Store, make_key

log = logging.getLogger(__name__)

Messages = Sequence[Mapping[str, str]]
EMBEDDED = "embedded"
LOOPBACK = ("127.0.0.1", "localhost", "::1", "0.0.0.0")  # names to recognise, nothing is bound here
KEY_SCHEMA = 1  # bump when the meaning of the key's parts changes


@dataclass(frozen=True)
class Completion:
    """One answer. `finish_reason` is the server's, or "context_length" / "content_filter" for a request it would not take."""

    text: str
    finish_reason: str
    model: str
    input_tokens: int
    output_tokens: int
    cached: bool = False

    @property
    def whole(self) -> bool:
        """True for an answer worth keeping: finished and not empty."""
        return self.finish_reason == "stop" and bool(self.text.strip())


class Client:
    """Ask one model; use inside one event loop, as an async context manager.

    Args:
        teacher: endpoint, model, decoding, limits, prices.
        store: where whole answers are kept; None asks every time.
        backoff_seconds: first wait after a fault without Retry-After; doubles with each attempt, +-25 % jitter.

    Raises:
        AccessError: the key's environment variable is not set.
        ConfigError: a budget without prices, or a base_url with credentials in it.
    """

    def __init__(self, teacher: TeacherSpec, store: Store | None = None, *, backoff_seconds: float = 1.0) -> None:
        self.teacher, self.store, self.backoff_seconds = teacher, store, backoff_seconds
        self.family = endpoint_family(teacher)
        self.usage = Usage()
        self.budget = Budget(teacher, self.usage)
        self._secret = _read_key(teacher)
        self._slots = asyncio.Semaphore(teacher.max_in_flight)
        self._openai = _connect(teacher, self._secret)
        self._fatal: AdvChainError | None = None
        self._answered_as = ""

    async def complete(self, messages: Messages, *, seed: int, sample_index: int = 0, purpose: str) -> Completion:
        """Return the answer to `messages`, from the store or from the endpoint.

        Truncated, filtered and empty answers are returned but never stored: ask again with another seed.

        Args:
            messages: chat messages with "role" and "content".
            seed: sent to the server; part of the key, like `sample_index`, which tells apart repeated samples of one seed.
            purpose: label of the call in the usage figures; not part of the key.

        Raises:
            AccessError: the endpoint refuses (key, quota, model) or stays down; every later call raises it again without being sent.
            AnswerError: only this request gets no proper answer.
            BudgetError: the call could pass `budget_usd`.
        """
        key = self.key(messages, seed, sample_index)
        if (known := self._recall(key, purpose)) is not None:
            return known
        async with self._slots:
            body = await self._ask(messages, seed, purpose)
        completion = Completion(body.text, body.finish_reason, body.model, body.input_tokens, body.output_tokens)
        if self.store is None or not completion.whole:
            return completion
        self.store.put(key, {name: value for name, value in vars(completion).items() if name != "cached"})
        return Completion(**self.store.get(key) or {})  # two equal requests in flight: the first stored answer counts

    def key(self, messages: Messages, seed: int, sample_index: int = 0) -> str:
        """Return the store key: everything the answer depends on."""
        teacher = self.teacher
        return make_key(
            schema=KEY_SCHEMA,
            family=self.family,
            model=teacher.model,
            messages=[dict(message) for message in messages],
            temperature=teacher.temperature,
            max_tokens=teacher.max_tokens,
            seed=seed,
            sample_index=sample_index,
        )

    async def aclose(self) -> None:
        """Close the connections."""
        await self._openai.close()

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        await self.aclose()

    def _recall(self, key: str, purpose: str) -> Completion | None:
        value = self.store.get(key) if self.store is not None else None
        if value is None:
            return None
        completion = Completion(**value, cached=True)
        self._count(completion.input_tokens, completion.output_tokens, purpose, cached=True)
        return completion

    def _count(self, input_tokens: int, output_tokens: int, purpose: str, cached: bool) -> None:
        self.usage.add(input_tokens, output_tokens, self.budget.price(input_tokens, output_tokens), purpose, cached)

    async def _ask(self, messages: Messages, seed: int, purpose: str) -> Body:
        """Send until an answer comes, the retries are used up, or the fault is one that waiting does not mend."""
        fault = Fault("none", True, "no attempt was made")
        for attempt in range(self.teacher.max_retries + 1):
            if attempt:
                await asyncio.sleep(self._pause(attempt, fault))
            outcome = await self._attempt(messages, seed, purpose)
            if isinstance(outcome, Body):
                return outcome
            fault = outcome
            self.usage.faults[fault.kind] += 1
            if fault.row:
                return Body("", fault.row, self.teacher.model, 0, 0)
            if not fault.retry:
                raise self._stop(AccessError(f"{self._where()}: {fault.detail}. {self._advice(fault)}"))
        if fault.kind == "malformed" and self.usage.num_calls:
            raise AnswerError(f"{self._where()}: no proper answer in {self.teacher.max_retries + 1} attempts ({fault.detail}).")
        raise self._stop(
            AccessError(f"{self._where()}: gave up after {self.teacher.max_retries + 1} attempts; the last fault: {fault.detail}. {self._advice(fault)}")
        )

    async def _attempt(self, messages: Messages, seed: int, purpose: str) -> Body | Fault:
        import httpx2
        import openai

        if self._fatal is not None:
            raise self._fatal
        reserved = self._reserve(messages)
        try:
            body = await self._send(messages, seed)
        except openai.APIStatusError as error:
            return self._status_fault(error, messages)
        except (TimeoutError, openai.APITimeoutError, httpx2.TimeoutException):
            return Fault("timeout", True, f"no whole answer within timeout_seconds = {self.teacher.timeout_seconds:g}")
        except (openai.APIConnectionError, httpx2.TransportError, httpx2.DecodingError) as error:
            cause = error.__cause__ or error
            return Fault("connection", True, f"connection failed ({type(cause).__name__})")
        except MalformedBody as error:
            return Fault("malformed", True, f"the body is no chat completion ({error})")
        finally:
            self.budget.release(reserved)
        self._count(body.input_tokens, body.output_tokens, purpose, cached=False)
        self._watch_model(body.model)
        return body

    async def _send(self, messages: Messages, seed: int) -> Body:
        teacher = self.teacher
        sent: Any = [dict(message) for message in messages]
        async with (
            asyncio.timeout(teacher.timeout_seconds),  # over everything: a slow drip must end too
            self._openai.chat.completions.with_streaming_response.create(
                model=teacher.model, messages=sent, temperature=teacher.temperature, max_tokens=teacher.max_tokens, seed=seed
            ) as response,
        ):
            raw = bytearray()
            async for block in response.iter_bytes():
                raw += block
                if len(raw) > MAX_BODY_BYTES:
                    raise MalformedBody(f"more than {MAX_BODY_BYTES >> 20} MiB")
        return parse_body(bytes(raw))

    def _reserve(self, messages: Messages) -> float:
        try:
            return self.budget.reserve(sum(len(message["content"]) for message in messages))
        except AdvChainError as error:
            raise self._stop(error) from None

    def _status_fault(self, error: Any, messages: Messages) -> Fault:
        body = error.body if isinstance(error.body, dict) else {}
        message = str(body.get("message") or "")
        code = str(error.code or body.get("type") or "")[:60]
        shown = safe_message(message, self._secret, [item["content"] for item in messages])
        return status_fault(error.status_code, safe_message(code, self._secret, []), shown, error.response.headers)

    def _pause(self, attempt: int, fault: Fault) -> float:
        if fault.wait is not None:
            return min(fault.wait, MAX_WAIT_SECONDS) + random.uniform(0, 0.05)
        return min(self.backoff_seconds * 2.0 ** (attempt - 1), MAX_WAIT_SECONDS) * random.uniform(0.75, 1.25)

    def _stop(self, error: AdvChainError) -> AdvChainError:
        """Remember the first error that ends the stage: calls that still wait must not be sent."""
        self._fatal = self._fatal or error
        return error

    def _where(self) -> str:
        return f"teacher '{self.teacher.name}' (model {self.teacher.model} at {self.family})"

    def _advice(self, fault: Fault) -> str:
        """Say what the user can do; keys are named by environment variable, never by value."""
        key = f"the key in the environment variable {self.teacher.api_key_env}" if self.teacher.api_key_env else "api_key_env (none is set for this teacher)"
        advice = {
            "quota": f"The account behind {key} has no credit left; top it up.",
            "status_401": f"Check {key}.",
            "status_403": f"Check {key} and whether its account may use this model.",
            "status_404": "Check model and base_url (it usually ends in /v1).",
            "malformed": "Check base_url (it usually ends in /v1): what answers there is no chat completions endpoint.",
        }.get(fault.kind, "Check that the endpoint is up" if fault.retry else "Check model, max_tokens and base_url of the teacher")
        if fault.wait is not None and fault.wait > MAX_WAIT_SECONDS:
            advice = f"It asks to wait {fault.wait:g} s, more than the {MAX_WAIT_SECONDS:g} s we wait"
        return f"{advice.rstrip('.')}. Finished answers are kept; run again to go on."

    def _watch_model(self, model: str) -> None:
        if self._answered_as and model != self._answered_as:
            log.warning("%s: answers now come from model '%s', before from '%s'; each row records its own", self._where(), model[:80], self._answered_as[:80])
        self._answered_as = model


def endpoint_family(teacher: TeacherSpec) -> str:
    """Return the part of the endpoint that an answer depends on.

    "embedded" with its version, "local" for a loopback server (whose port is another one in every job), else the host.

    Raises:
        ConfigError: `base_url` is no http(s) URL, or carries credentials.
    """
    if teacher.base_url == EMBEDDED:
        return f"{EMBEDDED}-{embedded.VERSION}"
    url = urlsplit(teacher.base_url)
    if url.scheme not in ("http", "https") or not url.hostname:
        raise ConfigError(f"teacher '{teacher.name}': base_url must be 'embedded' or start with http:// or https://.")
    if url.username or url.password or url.query:
        raise ConfigError(f"teacher '{teacher.name}': base_url must not carry a user, password or query; name the key's environment variable in api_key_env.")
    return "local" if url.hostname in LOOPBACK else url.hostname


def _read_key(teacher: TeacherSpec) -> str | None:
    if teacher.budget_usd is not None and teacher.base_url != EMBEDDED and not (teacher.usd_per_million_input or teacher.usd_per_million_output):
        raise ConfigError(f"teacher '{teacher.name}': budget_usd needs prices. Set usd_per_million_input and usd_per_million_output, or drop budget_usd.")
    if not teacher.api_key_env:
        return None
    key = os.environ.get(teacher.api_key_env, "").strip()
    if not key or not key.isascii() or not key.isprintable():
        state = "holds characters that no key has" if key else "is not set"
        raise AccessError(f"teacher '{teacher.name}': environment variable {teacher.api_key_env} {state}. Put the API key there, or choose another teacher.")
    return key


def _connect(teacher: TeacherSpec, key: str | None) -> Any:
    import httpx2
    import openai

    limits = httpx2.Limits(max_connections=teacher.max_in_flight, max_keepalive_connections=teacher.max_in_flight)
    timeout = httpx2.Timeout(teacher.timeout_seconds, connect=min(10.0, teacher.timeout_seconds))
    if teacher.base_url == EMBEDDED:
        http = httpx2.AsyncClient(transport=embedded.transport(), timeout=timeout)
        return openai.AsyncOpenAI(api_key=EMBEDDED, base_url="http://embedded/v1", http_client=http, max_retries=0)
    proxied = urlsplit(teacher.base_url).hostname not in LOOPBACK  # a proxy cannot reach our own loopback
    http = httpx2.AsyncClient(limits=limits, timeout=timeout, follow_redirects=True, trust_env=proxied)
    return openai.AsyncOpenAI(api_key=key or "none", base_url=teacher.base_url, http_client=http, max_retries=0)
