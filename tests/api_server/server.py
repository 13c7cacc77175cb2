"""Run the endpoint: `python server.py '{"rate": 50, "latency_seconds": 2}'` prints `{"port": N}` and serves until it is stopped.

Standard library only and one asyncio protocol, so that the server is never the bottleneck of what it measures.
POST /v1/chat/completions answers; POST /control changes settings while it runs; GET /stats tells what it saw.
"""

from __future__ import annotations

import asyncio
import json
import math
import random
import socket
import struct
import sys
import time
import zlib
from collections import Counter
from typing import Any

from batches import Batches

DEFAULTS: dict[str, Any] = {
    "rate": None,  # requests per second, None = no limit
    "burst_seconds": 0.5,
    "tokens_per_minute": None,  # counted as prompt characters / 4 + the tokens of the answer
    "concurrency": None,
    "retry_after": "1",
    "limit_headers": False,
    "latency_seconds": 0.0,  # mean of a log-normal
    "latency_sigma": 0.6,
    "faults": {},  # kind -> share of the accepted requests, see `Server.fault`
    "stall_seconds": 30.0,
    "script": [],  # actions taken in turn, before everything else; {"times": n} repeats one; the last one may have "times": null = for ever
    "model": "test-model-1",
    "fingerprint": "fp_1",
    # "echo": the row that was asked for, "embedded": what the embedded teacher says, "scores": a score for each step, "verdict": what a sound judge of
    # harm says of its sentinels, else this text
    "reply": "echo",
    "seed": 0,
    "batch_seconds": 0.3,  # until a batch has ended
    "batch_faults": [],  # see batches.py
}


def completion(text: Any, settings: dict[str, Any], request: dict[str, Any], **changes: Any) -> bytes:
    """Return the body of a chat completion; tokens are counted as four characters."""
    prompt = sum(len(message["content"]) for message in request.get("messages", ())) // 4
    answer = len(text) // 4 if isinstance(text, str) else 0
    message = {"role": "assistant", "content": text, **changes.pop("message", {})}
    body = {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 0,
        "model": settings["model"],
        "system_fingerprint": settings["fingerprint"],
        "choices": [{"index": 0, "message": message, "finish_reason": changes.pop("finish", "stop")}],
        "usage": {"prompt_tokens": prompt, "completion_tokens": answer, "total_tokens": prompt + answer},
    }
    return json.dumps({**body, **changes}).encode()


class Bucket:
    """A token bucket that is full at the start; `rate` per second, `burst` seconds of it at once."""

    def __init__(self, rate: float, burst: float) -> None:
        self.rate, self.size = rate, max(rate * burst, 1.0)
        self.level, self.last = self.size, time.monotonic()

    def take(self, amount: float = 1.0) -> bool:
        now = time.monotonic()
        self.level = min(self.size, self.level + (now - self.last) * self.rate)
        self.last = now
        if self.level < amount:
            return False
        self.level -= amount
        return True


class Server:
    """Settings, limits, statistics; the protocol below calls `answer` once per request."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self.settings: dict[str, Any] = {}
        self.reset_statistics()
        self.apply({**DEFAULTS, **settings})
        self.batches = Batches(self.answer_in_batch)

    def apply(self, changes: dict[str, Any]) -> None:
        unknown = set(changes) - set(DEFAULTS) - {"reset"}
        assert not unknown, f"unknown settings {unknown}"
        if changes.pop("reset", False):
            self.reset_statistics()
        self.settings.update(changes)
        settings = self.settings
        if {"rate", "burst_seconds"} & set(changes):
            self.requests = Bucket(settings["rate"], settings["burst_seconds"]) if settings["rate"] else None
        if "tokens_per_minute" in changes:
            self.tokens = Bucket(settings["tokens_per_minute"] / 60, 2.0) if settings["tokens_per_minute"] else None
        if "script" in changes:
            self.script = [dict(action) for action in settings["script"]]
        if "seed" in changes:
            self.random = random.Random(settings["seed"])

    def reset_statistics(self) -> None:
        self.start = time.monotonic()
        self.counts: Counter[str] = Counter()
        self.asked: Counter[int] = Counter()
        self.answered: Counter[int] = Counter()
        self.seconds: Counter[int] = Counter()
        self.authorization: Counter[str] = Counter()
        self.open = self.most_open = 0
        self.last_answer = 0.0

    def statistics(self) -> dict[str, Any]:
        """Return the counts; `accepted_by_second` is what passed the limits, from the first second on."""
        return {
            "counts": dict(self.counts),
            "different": len(self.asked),
            "asked_again": sum(self.asked.values()) - len(self.asked),
            "answered": len(self.answered),
            "answered_again": sum(self.answered.values()) - len(self.answered),
            "accepted_by_second": [self.seconds[second] for second in range(max(self.seconds, default=-1) + 1)],
            "most_open": self.most_open,
            "keys": dict(self.authorization),
            "seconds": time.monotonic() - self.start,
            "last_answer": self.last_answer,
        }

    def scripted(self) -> dict[str, Any] | None:
        if not self.script:
            return None
        action = self.script[0]
        times = action.get("times", 1)
        if times is not None:
            if times <= 1:
                self.script.pop(0)
            action["times"] = times - 1
        return action

    def limit_headers(self) -> dict[str, str]:
        headers = {}
        for name, bucket in (("requests", self.requests), ("tokens", self.tokens)):
            if bucket is not None:
                used = bucket.size - bucket.level
                limit = round(bucket.rate * 60)
                headers[f"x-ratelimit-limit-{name}"] = str(limit)
                headers[f"x-ratelimit-remaining-{name}"] = str(math.floor(limit - used))
                headers[f"x-ratelimit-reset-{name}"] = f"{used / bucket.rate * 1000:.0f}ms"
        return headers

    def over_limit(self, request: dict[str, Any]) -> bool:
        limit = self.settings["concurrency"]
        if limit is not None and self.open > limit:
            return True
        if self.requests is not None and not self.requests.take():
            return True
        return self.tokens is not None and not self.tokens.take(sum(len(message["content"]) for message in request["messages"]) / 4 + 40)

    def latency(self) -> float:
        mean, sigma = self.settings["latency_seconds"], self.settings["latency_sigma"]
        return self.random.lognormvariate(math.log(mean) - sigma**2 / 2, sigma) if mean else 0.0

    def fault(self) -> str:
        """Draw a fault: "500" (any status), "reset" before the body, "cut" in it, "stall" then an answer, "html"; "" = none."""
        draw = self.random.random()
        for kind, share in self.settings["faults"].items():
            draw -= share
            if draw < 0:
                return str(kind)
        return ""

    def text(self, raw: bytes, request: dict[str, Any]) -> str:
        """Echo the row as a model would that was asked to; the checksum tells answers apart."""
        try:
            row = json.loads(request["messages"][-1]["content"]).get("row")
        except (ValueError, AttributeError):
            row = None
        return json.dumps({"row": row, "check": zlib.crc32(raw)})

    def body(self, raw: bytes, request: dict[str, Any]) -> bytes:
        """Return the body of a proper answer."""
        if self.settings["reply"] == "embedded":
            from advchain.llm import embedded

            return json.dumps(embedded.respond(request)[1]).encode()
        known = {"echo": self.text, "scores": self.scores, "verdict": self.verdict}.get(self.settings["reply"])
        return completion(known(raw, request) if known else self.settings["reply"], self.settings, request)

    def verdict(self, raw: bytes, request: dict[str, Any]) -> str:
        """Unsafe for an answer that complies as the sentinels do, safe for any other."""
        return "unsafe" if b"mercy" in raw else "safe"

    def scores(self, raw: bytes, request: dict[str, Any]) -> str:
        """Score the steps of a chain as a judge would: each by the digit it ends with, on benign prompts turned round."""
        asked = json.loads(request["messages"][-1]["content"])
        found = [int(step[-1]) for step in asked["chain"]]
        return json.dumps({"row": asked["row"], "scores": found if asked["nature"] == "harmful" else [6 - score for score in found]})

    def answer_in_batch(self, raw: bytes, request: dict[str, Any]) -> bytes:
        """Answer one request of a batch, and count it."""
        key = zlib.crc32(raw)
        self.asked[key] += 1
        self.answered[key] += 1
        self.counts["batched"] += 1
        return self.body(raw, request)


class Connection(asyncio.Protocol):
    """One keep-alive connection; a request at a time, as HTTP clients do."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.buffer = bytearray()
        self.timers: list[asyncio.TimerHandle] = []
        self.busy = False

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def connection_lost(self, error: Exception | None) -> None:
        for timer in self.timers:
            timer.cancel()
        self.finish()

    def finish(self) -> None:
        if self.busy:
            self.busy = False
            self.server.open -= 1

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        if not self.buffer[:1].isalpha():  # a TLS greeting
            self.send(400, b"")
            return self.transport.close()
        head, separator, rest = self.buffer.partition(b"\r\n\r\n")
        if not separator:
            return
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        length = int(headers.get("content-length", 0))
        if len(rest) < length:
            return
        self.buffer = rest[length:]
        method, path, _ = first.split(" ")
        self.route(method, path, headers, bytes(rest[:length]))

    def route(self, method: str, path: str, headers: dict[str, str], raw: bytes) -> None:
        server = self.server
        if path == "/stats":
            return self.send(200, json.dumps(server.statistics()).encode())
        if path == "/control":
            server.apply(json.loads(raw))
            return self.send(200, b"{}")
        if path.startswith(("/v1/files", "/v1/batches")):
            server.authorization[headers.get("authorization", "")] += 1
            reply = server.batches.route(method, path, headers, raw, server.settings)
            return self.reset() if reply is None else self.send(*reply)
        if method != "POST" or path != "/v1/chat/completions":
            return self.send(404, b'{"error": {"message": "no such path", "code": "not_found"}}')
        server.authorization[headers.get("authorization", "")] += 1
        server.open += 1
        self.busy = True
        server.most_open = max(server.most_open, server.open)
        return self.complete(raw, json.loads(raw))

    def complete(self, raw: bytes, request: dict[str, Any]) -> None:
        server, key = self.server, zlib.crc32(raw)
        server.counts["requests"] += 1
        server.asked[key] += 1
        action = server.scripted()
        if action is not None:
            return self.act(action, raw, request)
        if server.over_limit(request):
            server.counts["rejected"] += 1
            return self.refuse()
        server.counts["accepted"] += 1
        server.seconds[int(time.monotonic() - server.start)] += 1
        kind = server.fault()
        wait = server.latency()
        if kind:
            server.counts[f"fault {kind}"] += 1
        if kind == "stall":
            wait += server.settings["stall_seconds"]
        if wait:
            self.later(wait, self.reply, kind, raw, request)
        else:
            self.reply(kind, raw, request)

    def refuse(self) -> None:
        headers = {"Retry-After": self.server.settings["retry_after"]} if self.server.settings["retry_after"] is not None else {}
        self.send(429, b'{"error": {"message": "Rate limit reached", "code": "rate_limit_exceeded", "type": "requests"}}', headers)

    def reply(self, kind: str, raw: bytes, request: dict[str, Any]) -> None:
        body = self.server.body(raw, request)
        if kind.isdigit():
            self.send(int(kind), b'{"error": {"message": "injected"}}')
        elif kind == "reset":
            self.reset()
        elif kind == "cut":
            self.cut(body, len(body) // 2)
        elif kind == "html":
            self.send(200, b"<html>busy</html>", content_type="text/html")
        else:
            self.answer(raw, body)

    def answer(self, raw: bytes, body: bytes) -> None:
        server = self.server
        server.counts["answers"] += 1
        server.answered[zlib.crc32(raw)] += 1
        server.last_answer = time.monotonic() - server.start
        self.send(200, body, server.limit_headers() if server.settings["limit_headers"] else {})

    def act(self, action: dict[str, Any], raw: bytes, request: dict[str, Any]) -> None:
        """Take one scripted action; see the keys below."""
        server, kind = self.server, action["do"]
        server.counts[f"script {kind}"] += 1
        body = server.body(raw, request)
        if kind == "answer":
            text = action.get("text", server.text(raw, request))
            self.later(action.get("seconds", 0.0), self.answer, raw, completion(text, server.settings, request, **action.get("changes", {})))
        elif kind == "status":
            self.send(action["status"], action.get("body", '{"error": {"message": "injected"}}').encode(), action.get("headers", {}))
        elif kind == "body":
            self.send(200, action["body"].encode("latin-1") * action.get("repeat", 1), content_type=action.get("type", "application/json"))
        elif kind == "cut":
            self.cut(body, action["at"])
        elif kind == "reset":
            self.reset()
        elif kind == "silent":
            pass
        elif kind == "drip":
            self.head(200, len(body))
            for index, byte in enumerate(body):
                self.later(action["seconds"] * index, self.transport.write, bytes([byte]))
        elif kind == "blank lines":
            self.head(200, len(body) + action["lines"])
            for index in range(action["lines"]):
                self.later(action["seconds"] * index, self.transport.write, b"\n")
            self.later(action["seconds"] * action["lines"], self.end, raw, body)
        else:
            raise AssertionError(f"unknown action {kind}")

    def end(self, raw: bytes, body: bytes) -> None:
        self.server.answered[zlib.crc32(raw)] += 1
        self.transport.write(body)
        self.finish()

    def cut(self, body: bytes, at: int) -> None:
        self.head(200, len(body))
        self.transport.write(body[:at])
        self.transport.close()

    def reset(self) -> None:
        """Close with RST: what is on its way is lost."""
        self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()

    def later(self, seconds: float, call: Any, *arguments: Any) -> None:
        self.timers = [timer for timer in self.timers if not timer.cancelled() and timer.when() > asyncio.get_running_loop().time()]
        self.timers.append(asyncio.get_running_loop().call_later(seconds, call, *arguments))

    def head(self, status: int, length: int, headers: dict[str, str] | None = None, content_type: str = "application/json", body: bytes = b"") -> None:
        lines = [f"HTTP/1.1 {status} X", f"Content-Type: {content_type}", f"Content-Length: {length}"]
        lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
        self.transport.write(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1") + body)

    def send(self, status: int, body: bytes, headers: dict[str, str] | None = None, content_type: str = "application/json") -> None:
        self.finish()
        if not self.transport.is_closing():
            self.head(status, len(body), headers, content_type, body)


async def serve(settings: dict[str, Any]) -> None:
    """Serve until cancelled."""
    server = Server(settings)
    listener = await asyncio.get_running_loop().create_server(lambda: Connection(server), "127.0.0.1", 0, backlog=2048)
    print(json.dumps({"port": listener.sockets[0].getsockname()[1]}), flush=True)
    await listener.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(json.loads(sys.argv[1]) if len(sys.argv) > 1 else {}))
