"""An endpoint on loopback whose replies a test makes up: a real HTTP server in a thread of the test."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from advchain.specs import TeacherSpec


class Endpoint(ThreadingHTTPServer):
    """Answers chat completions with `reply(user text)`, a text or a text and its finish reason; keeps the requests."""

    def __init__(self, reply: Callable[[str], str | tuple[str, str]]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.reply, self.requests = reply, list[dict[str, Any]]()
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def teacher(self) -> TeacherSpec:
        return TeacherSpec(name="judge", base_url=f"http://127.0.0.1:{self.server_port}/v1", model="m", max_retries=0)


class Handler(BaseHTTPRequestHandler):
    server: Endpoint

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.requests.append(request)
        reply = self.server.reply(request["messages"][-1]["content"])
        text, finish = (reply, "stop") if isinstance(reply, str) else reply
        choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": finish}
        usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
        body = {"id": "1", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice], "usage": usage}
        data = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args: Any) -> None:
        pass
