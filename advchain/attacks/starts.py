"""What an attack starts from: held-out chains, a model's judged responses, or the prompts of a benchmark (or of another attack)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from advchain.io import iter_records
from advchain.manifests import Rejects
from advchain.records import Chain, Item, Nature, Response, Verdict
from advchain.steps import split_steps


@dataclass(frozen=True)
class Start:
    """A request and the chain to attack. `steps` is empty for a plain prompt; for a response it begins with what was forced on it."""

    id: str
    prompt: str
    request: str
    category: str
    steps: tuple[str, ...]


def from_source(source: Path, nature: Nature, rejects: Rejects) -> list[Start]:
    """Return the chains of one nature."""
    starts = []
    for chain in iter_records(source, Chain):
        reason = "wrong_nature" if chain.nature != nature else "" if chain.steps else "no_thinking"
        if reason:
            rejects.add(chain.id, reason)
        else:
            starts.append(Start(chain.id, chain.prompt, chain.prompt, "; ".join(chain.category), chain.steps))
    return starts


def from_items(items: Sequence[Path], nature: Nature, rejects: Rejects) -> list[Start]:
    """Return the prompts of one nature, with the chain that an attack forces on them."""
    starts = []
    for item in (item for path in items for item in iter_records(path, Item)):
        if item.nature != nature:
            rejects.add(item.id, "wrong_nature")
        else:
            starts.append(Start(item.id, item.prompt, item.request or item.prompt, item.category, tuple(split_steps(item.prefix))))
    return starts


@dataclass(frozen=True)
class Wanted:
    """Which responses are attacked: of one nature, given `label` by `judge`; with `again`, also those that were attacked before."""

    nature: Nature
    judge: str
    label: str
    again: bool = False


def from_responses(responses: Sequence[Path], verdicts: Sequence[Path], wanted: Wanted, rejects: Rejects) -> list[Start]:
    """Return the first samples whose chain is closed and whose answer was judged as wanted."""
    labels = {verdict.response_id: str(verdict.label) for path in verdicts for verdict in iter_records(path, Verdict) if verdict.judge == wanted.judge}
    starts: list[Start] = []
    for response in (response for path in responses for response in iter_records(path, Response)):
        steps = tuple(split_steps(response.thinking))
        if reason := next(_unfit(response, steps, labels.get(response.id), wanted), ""):
            rejects.add(response.id, reason)
        else:
            starts.append(Start(response.item_id, response.prompt, response.request or response.prompt, response.category, steps))
    return starts


def _unfit(response: Response, steps: tuple[str, ...], label: str | None, wanted: Wanted) -> Iterator[str]:
    """Yield why a response cannot start the attack, the plainest reason first."""
    checks = {
        "wrong_nature": response.nature != wanted.nature,
        "other_sample": response.sample_index != 0,
        "already_prefixed": bool(response.prefix or response.closed) and not wanted.again,
        "not_closed": response.state != "closed",
        "no_thinking": not steps,
        "no_verdict": label is None,
        f"not_{wanted.label}": label != wanted.label,
    }
    return (reason for reason, hit in checks.items() if hit)
