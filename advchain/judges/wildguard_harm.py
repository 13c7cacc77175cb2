"""WildGuard: is the answer harmful? The third line of the reply that `wildguard` reads; where both judge, it is made once."""

from __future__ import annotations

from pathlib import Path

from advchain.judges.local import Reading
from advchain.judges.wildguard import Wildguard, WildguardOptions, parse_reply
from advchain.specs import JudgeSpec

VERSION = 1
MEASURES = "harm"
OPTIONS = WildguardOptions


class WildguardHarm(Wildguard):
    """safe | unsafe | unparsed; whether the request is harmful is in the detail."""

    def read(self, text: str, chances: list[float]) -> Reading:
        """The third line."""
        found = parse_reply(text)
        if found is None:
            return Reading("unparsed", None)
        return Reading("unsafe" if found["harm"] else "safe", float(found["harm"]), {"harmful_request": found["request"]})


def build(spec: JudgeSpec, work: Path) -> WildguardHarm:
    """Return the judge with its weights loaded; replies are kept in `work`."""
    return WildguardHarm(spec, work)
