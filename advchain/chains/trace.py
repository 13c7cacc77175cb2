"""What was asked and answered for each row, one line a row beside the teacher's answers: to look a sample's making up, call by call.

The lines hold the texts; `scripts/chain_steps.py` prints them only where ADVCHAIN_SHOW_TEXT=1 is set.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from advchain.errors import DataError
from advchain.io import read_jsonl
from advchain.llm.ask import Exchange
from advchain.records import Chain

OWN = ("category", "request", "chain")  # the row's own fields stand once in the line, not in each call


class Trace:
    """Collects the calls of each row and writes them when the row is settled."""

    def __init__(self, file: TextIO) -> None:
        self.file = file
        self._calls: dict[str, list[dict[str, Any]]] = {}

    def watch(self, exchange: Exchange) -> None:
        """Note one call."""
        completion = exchange.completion
        call = {
            "step": exchange.prompt.name,
            "prompt": f"{exchange.prompt.version}-{exchange.prompt.digest}",
            "draft": exchange.draft,
            "attempt": exchange.attempt,
            "seed": exchange.seed,
            "asked": {name: value for name, value in exchange.payload.items() if name not in OWN},
            "model": completion.model if completion else None,
            "finish": completion.finish_reason if completion else None,
            "answered": completion.text if completion else None,
            "reason": exchange.reason,
        }
        self._calls.setdefault(exchange.row, []).append(call)

    def settle(self, chain: Chain, outcome: str) -> None:
        """Write the line of one row; `outcome`: the sample's id, or the reason of the reject."""
        row = {"row": chain.id, "outcome": outcome, "request": chain.prompt, "category": chain.category, "chain": chain.steps}
        self.file.write(json.dumps({**row, "calls": self._calls.pop(chain.id, [])}, ensure_ascii=False, separators=(",", ":")) + "\n")


def find_row(path: Path, key: str) -> dict[str, Any]:
    """Return the line of a row, by the id of the row or of the sample made from it.

    Raises:
        DataError: there is none.
    """
    for _, line in read_jsonl(path):
        if key in (line["row"], line["outcome"]):
            return line
    raise DataError(f"{path}: no row or sample '{key}'. The ids stand in the `id` column of the source and of the samples.")


def describe(line: dict[str, Any], show_text: bool) -> Iterator[str]:
    """Yield what is to be printed of one row: a line per call, its texts only with `show_text`."""
    yield f"{line['row']} -> {line['outcome']}"
    if show_text:
        yield json.dumps({name: line[name] for name in OWN}, ensure_ascii=False, indent=1)
    for call in line["calls"]:
        answered = call["answered"] or ""
        place = f"draft {call['draft']}, attempt {call['attempt']}, seed {call['seed']}"
        yield f"{call['step']} (prompt {call['prompt']}; {place}): {call['finish']}, {len(answered.split())} words, {call['reason'] or 'taken'}"
        if show_text:
            yield json.dumps({"asked": call["asked"], "answered": answered}, ensure_ascii=False, indent=1)
