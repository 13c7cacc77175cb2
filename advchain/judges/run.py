"""Judge one response file with every judge of its evaluation: responses in, verdict rows out, counts in the manifest."""

from __future__ import annotations

import importlib
import logging
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from advchain.catalogue import module
from advchain.errors import DataError
from advchain.io import StageTimer, read_records, sha256_text, write_jsonl, write_stage
from advchain.judges.base import CONTENT_FILTER, Judge, why_no_answer
from advchain.judges.sentinels import check_endpoint, check_sentinels
from advchain.records import Response, Verdict
from advchain.specs import JudgeSpec, JudgeStageSpec
from advchain.store import Store, make_key

log = logging.getLogger(__name__)

BLOCK = 64  # rows of a costly judge that a kill can lose


def judge_responses(responses: Path, output: Path, spec: JudgeStageSpec, work: Path) -> None:
    """Write one verdict per response and judge, judge by judge in the order of the spec.

    Args:
        responses: Response rows; read, never edited.
        output: Verdict rows.
        work: folder for what must survive a kill: replies of API judges, verdicts of costly ones, sentinels that were paid for.

    Raises:
        DataError: a judge fails its sentinels; or it could not be read on more than `spec.max_unparsed_share` of the answers it judged. Its unparsed
            verdicts are then in `<output>.unparsed.jsonl`; no verdict file is written.
        AccessError, SandboxError: a judge's weights, endpoint or sandbox cannot be had.
    """
    timer = StageTimer()
    rows = read_records(responses, Response)
    folder = work / sha256_text(str(output.resolve()))[:16]  # one writer each: parallel jobs never share a store
    folder.mkdir(parents=True, exist_ok=True)
    verdicts: list[Verdict] = []
    sentinels: dict[str, dict[str, int]] = {}
    for judge in spec.judges:
        found, right = judge_with(judge, rows, folder, work / "sentinels")
        check_parsed(judge.name, found, spec.max_unparsed_share, output)
        verdicts += found
        sentinels |= {judge.name: right} if right else {}
    unparsed_path(output).unlink(missing_ok=True)
    filtered = Counter(verdict.judge for verdict in verdicts if verdict.detail.get("reason") == CONTENT_FILTER)
    counts = count_labels(verdicts) | {"sentinels": sentinels, "content_filter": dict(filtered)}
    write_stage(output, verdicts, stage="judge", spec=spec.model_dump(mode="json"), inputs=[responses], counts=counts, timer=timer)


def judge_with(spec: JudgeSpec, rows: Sequence[Response], folder: Path, kept: Path) -> tuple[list[Verdict], dict[str, int]]:
    """Return one judge's verdicts, in the order of the rows, and how many sentinels of each kind it read rightly ({}: it has none, or nothing to judge).

    Raises:
        DataError: the judge fails its sentinels.
    """
    found = module("judges", spec.kind, f"judges.{spec.name}.kind")
    file: ModuleType = importlib.import_module(f"advchain.judges.{found.name}")
    measures, right = found.constants["MEASURES"], dict[str, int]()
    answered = any(why_no_answer(row) is None for row in rows)
    if answered and spec.teacher is not None:
        right = check_endpoint(spec, file.build, measures, folder / "sentinels", kept)
    judge: Judge = file.build(spec, folder)
    try:
        if answered and spec.teacher is None:
            right = check_sentinels(spec.name, judge, measures)
        verdicts = _judge_costly(judge, spec, rows, folder) if getattr(file, "COSTLY", False) else judge.judge(rows)
    finally:
        judge.close()
    assert [v.response_id for v in verdicts] == [r.id for r in rows], f"judge {spec.name} must give one verdict per response, in order"
    log.info("judge %s: %s", spec.name, ", ".join(f"{label} {count}" for label, count in Counter(v.label for v in verdicts).most_common()))
    return verdicts, right


def _judge_costly(judge: Judge, spec: JudgeSpec, rows: Sequence[Response], folder: Path) -> list[Verdict]:
    """Judge in blocks and keep each block; a second run judges only what is missing."""
    keys = [make_key(judge=spec.model_dump(mode="json"), response=row.model_dump(mode="json")) for row in rows]
    with Store(folder / f"{spec.name}.verdicts") as store:
        found = {index: Verdict.model_validate(store.get(key)) for index, key in enumerate(keys) if key in store}
        missing = [index for index in range(len(rows)) if index not in found]
        for start in range(0, len(missing), BLOCK):
            block = missing[start : start + BLOCK]
            for index, verdict in zip(block, judge.judge([rows[i] for i in block]), strict=True):
                found[index] = verdict
                if verdict.label != "refused_to_judge":  # what was missing (a sandbox) may be there next time
                    store.put(keys[index], verdict.model_dump(mode="json"))
    return [found[index] for index in range(len(rows))]


def check_parsed(name: str, verdicts: Sequence[Verdict], max_share: float, output: Path) -> None:
    """Stop when too many of a judge's own replies could not be read (RELIABILITY F1).

    Raises:
        DataError: unparsed / judged is above `max_share`; rows without an answer were not judged.
    """
    unparsed = [verdict for verdict in verdicts if verdict.label == "unparsed"]
    judged = sum(verdict.label != "no_answer" for verdict in verdicts)
    if not unparsed or len(unparsed) <= max_share * judged:
        return
    write_jsonl(unparsed_path(output), unparsed)
    raise DataError(
        f"judge {name}: {len(unparsed)} of {judged} verdicts could not be read, more than the allowed share of {max_share:g}. Read the replies in "
        f"{unparsed_path(output)}, mend the judge's model or prompt, or raise max_unparsed_share."
    )


def unparsed_path(output: Path) -> Path:
    """`x.jsonl` -> `x.unparsed.jsonl`."""
    return output.with_name(f"{output.stem}.unparsed.jsonl")


def count_labels(verdicts: Sequence[Verdict]) -> dict[str, dict[str, int]]:
    """Return judge -> label -> number of rows."""
    counts: dict[str, Counter[str]] = {}
    for verdict in verdicts:
        counts.setdefault(verdict.judge, Counter())[verdict.label] += 1
    return {judge: dict(sorted(labels.items())) for judge, labels in counts.items()}
