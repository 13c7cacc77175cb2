"""Read the JSON object a model was asked for out of what it wrote around it; recognise a teacher that refuses."""

from __future__ import annotations

import json
import re
from typing import Any

FENCE = re.compile(r"```[a-zA-Z]*\s*(.*?)```", re.DOTALL)
TRAILING_COMMA = re.compile(r",(\s*[}\]])")
SORRY = r"(?:(?:i['’]?m|i am) (?:really |very |so |truly )?(?:sorry|afraid)|sorry|i apologi[sz]e|my apologies|unfortunately)"
UNABLE = r"(?:can['’]?t|cannot|can not|won['’]?t|will not|unable to|not able to|(?:must |have to )?decline|do(?: not|n['’]?t) feel comfortable)"
TASK = r"(?:help|assist|provide|fulfill?|comply|create|write|generate|do|support|produce|engage)"
REFUSAL = re.compile(
    rf"^\W*(?:{SORRY}[\s,.!—-]+(?:but )?(?:i|we)(?:['’]m| am)? {UNABLE}|(?:as an ai[^,.]*,?\s*)?(?:i|we)(?:['’]m| am)? {UNABLE}(?: to)? {TASK})\b",
    re.IGNORECASE,
)


class Rejected(Exception):
    """A reply or a row that did not pass. `reason` is a short code, `detail` quotes no text of the row."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason)
        self.reason, self.detail = reason, detail


def parse_reply(text: str) -> dict[str, Any]:
    """Return the JSON object in a reply; thinking before it, a code fence around it and trailing commas in it are tolerated.

    Raises:
        Rejected: unparsable, or teacher_refused when the reply is a refusal in prose.
    """
    body = text.rsplit("</think>", 1)[-1].strip()
    fenced = FENCE.search(body)
    inner = body[body.find("{") : body.rfind("}") + 1]
    for candidate in (text, body, fenced[1].strip() if fenced else "", inner, TRAILING_COMMA.sub(r"\1", inner)):
        if (value := _object(candidate)) is not None:
            return value
    raise Rejected("teacher_refused" if is_refusal(body) else "unparsable")


def text_field(fields: dict[str, Any], name: str) -> str:
    """Return a text field of a reply.

    Raises:
        Rejected: unparsable when it is absent or no text, empty_step when it is blank.
    """
    value = fields.get(name)
    if not isinstance(value, str):
        raise Rejected("unparsable", f"field '{name}' is no text")
    if not value.strip():
        raise Rejected("empty_step", f"field '{name}'")
    return value.strip()


def is_refusal(text: str) -> bool:
    """True when a text opens with a refusal to do the task ("I'm sorry, but I can't help")."""
    return bool(REFUSAL.match(text[:300]))


def _object(text: str) -> dict[str, Any] | None:
    try:
        value = json.loads(text, strict=False)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None
