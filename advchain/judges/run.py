"""Judge response files with every judge of their evaluations: responses in, verdict rows out, counts in the manifests."""

from __future__ import annotations

import importlib
import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

from advchain.catalogue import module
from advchain.errors import ConfigError, DataError
from advchain.io import read_records, sha256_text, write_jsonl
from advchain.judges.base import CONTENT_FILTER, Judge, why_no_answer
from advchain.judges.sentinels import check_endpoint, check_sentinels
from advchain.manifests import StageTimer, write_stage
from advchain.records import Response, Verdict
from advchain.specs import JudgeSpec, JudgeStageSpec
from advchain.store import Store, make_key

log = logging.getLogger(__name__)

BLOCK = 64  # rows of a costly judge that a kill can lose


@dataclass
class JudgedFile:
    """One file of responses, and what its judges said so far."""

    output: Path
    spec: JudgeStageSpec
    responses: Path
    rows: list[Response]
    folder: Path
    verdicts: list[Verdict] = field(default_factory=list)
    sentinels: dict[str, dict[str, int]] = field(default_factory=dict)
    seconds: float = 0.0

    @classmethod
    def read(cls, responses: Path, output: Path, spec: JudgeStageSpec, work: Path) -> JudgedFile:
        """Read the responses; what must survive a kill is kept in a folder of the output's own, so that parallel jobs never share a store."""
        folder = work / sha256_text(str(output.resolve()))[:16]
        folder.mkdir(parents=True, exist_ok=True)
        return cls(output, spec, responses, read_records(responses, Response), folder)

    @property
    def answered(self) -> bool:
        """Whether there is anything to judge."""
        return any(why_no_answer(row) is None for row in self.rows)

    def ask(self, ready: Opened, judge: JudgeSpec) -> None:
        """Let one judge read all rows.

        Raises:
            DataError: too many of its replies could not be read.
        """
        timer = StageTimer()
        found = verdicts_of(ready, judge, self.rows, self.folder)
        check_parsed(judge.name, found, self.spec.max_unparsed_share, self.output)
        self.verdicts += found
        self.sentinels |= {judge.name: ready.right} if ready.right and self.answered else {}
        self.seconds += timer.seconds()

    def write(self, spent: float) -> None:
        """Write verdicts and manifest; `spent` are the seconds of the job that are nobody's own."""
        unparsed_path(self.output).unlink(missing_ok=True)
        filtered = Counter(verdict.judge for verdict in self.verdicts if verdict.detail.get("reason") == CONTENT_FILTER)
        counts = count_labels(self.verdicts) | {"sentinels": self.sentinels, "content_filter": dict(filtered)}
        made, timer = self.spec.model_dump(mode="json"), StageTimer(self.seconds + spent)
        write_stage(self.output, self.verdicts, stage="judge", spec=made, inputs=[self.responses], counts=counts, timer=timer)


def judge_files(wanted: Sequence[tuple[Path, Path, JudgeStageSpec]], work: Path) -> None:
    """Write one verdict per response and judge, judge by judge in the order of the specs; each judge is loaded, and tried on its sentinels, once for all files.

    Args:
        wanted: (response rows, which are read and never edited; verdict rows to write; spec) of each file. The specs name the same judges.
        work: folder for what must survive a kill: replies of API judges, verdicts of costly ones, sentinels that were paid for.

    Raises:
        DataError: a judge fails its sentinels; or it could not be read on more than `spec.max_unparsed_share` of the answers it judged in a file. Its
            unparsed verdicts are then in `<output>.unparsed.jsonl`; no verdict file is written.
        ConfigError: the specs name different judges.
        AccessError, SandboxError: a judge's weights, endpoint or sandbox cannot be had.
    """
    timer = StageTimer()
    files = [JudgedFile.read(responses, output, spec, work) for responses, output, spec in wanted]
    judges = files[0].spec.judges
    if any(file.spec.judges != judges for file in files):
        raise ConfigError("judge: files that are judged together have the same judges. Give each set of judges a call of its own.")
    for judge in judges:
        with opened(judge, files[0].folder, work / "sentinels", answered=any(file.answered for file in files)) as ready:
            for file in files:
                file.ask(ready, judge)
    shared = (timer.seconds() - sum(file.seconds for file in files)) / len(files)
    for file in files:
        file.write(shared)


class Opened(NamedTuple):
    """A judge that may judge, and how many sentinels of each kind it read rightly ({}: it has none, or nothing to judge)."""

    judge: Judge
    right: dict[str, int]
    costly: bool


@contextmanager
def opened(spec: JudgeSpec, folder: Path, kept: Path, *, answered: bool) -> Iterator[Opened]:
    """Give a judge that has read its sentinels rightly, and close it.

    Raises:
        DataError: the judge fails its sentinels.
    """
    found = module("judges", spec.kind, f"judges.{spec.name}.kind")
    file: ModuleType = importlib.import_module(f"advchain.judges.{found.name}")
    measures, right = found.constants["MEASURES"], dict[str, int]()
    if answered and spec.teacher is not None:
        right = check_endpoint(spec, file.build, measures, folder / "sentinels", kept)
    judge: Judge = file.build(spec, folder)
    try:
        if answered and spec.teacher is None:
            right = check_sentinels(spec.name, judge, measures)
        yield Opened(judge, right, getattr(file, "COSTLY", False))
    finally:
        judge.close()


def verdicts_of(ready: Opened, spec: JudgeSpec, rows: Sequence[Response], folder: Path) -> list[Verdict]:
    """Return one judge's verdicts, in the order of the rows; its replies, or costly verdicts, are kept in `folder`."""
    judge = ready.judge
    judge.keep_in(folder)
    verdicts = _judge_costly(judge, spec, rows, folder) if ready.costly else judge.judge(rows)
    assert [v.response_id for v in verdicts] == [r.id for r in rows], f"judge {spec.name} must give one verdict per response, in order"
    log.info("judge %s: %s", spec.name, ", ".join(f"{label} {count}" for label, count in Counter(v.label for v in verdicts).most_common()))
    return verdicts


def judge_with(spec: JudgeSpec, rows: Sequence[Response], folder: Path, kept: Path) -> tuple[list[Verdict], dict[str, int]]:
    """Return one judge's verdicts, in the order of the rows, and how many sentinels of each kind it read rightly.

    Raises:
        DataError: the judge fails its sentinels.
    """
    answered = any(why_no_answer(row) is None for row in rows)
    with opened(spec, folder, kept, answered=answered) as ready:
        return verdicts_of(ready, spec, rows, folder), ready.right


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
