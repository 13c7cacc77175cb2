"""Code: the last python block of the answer passes the problem's tests in a sandbox.

Reference (METHOD 6): {"language": "python", "mode": "function", "entry_point": name, "tests": [[args, expected], ...]}
 | {"mode": "stdin", "tests": [[input, output], ...]} | {"mode": "asserts", "test_code": text, "entry_point"?: name}; each may carry
 "setup_code" (the prompt's imports and helpers), run before the candidate.

Where the comparison happens: function and stdin tests compare here, outside; the candidate's sandbox never holds an expected output.
Test code of the asserts mode runs in a second sandbox and reaches the candidate's functions over a pipe that carries data only, so a
forged `__eq__`, an early exit or a patched builtin changes nothing but the candidate's own answer.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from advchain.errors import DataError, SandboxError
from advchain.judges import canary
from advchain.judges.base import AnswerJudge, Options, make_verdict, read_options
from advchain.judges.code_modes import FIELDS, MODES, Outcome
from advchain.judges.sandbox import Limits
from advchain.progress import Progress
from advchain.records import Label, Response, Verdict
from advchain.specs import JudgeSpec

log = logging.getLogger(__name__)

VERSION = 1
MEASURES = "correctness"
COSTLY = True

FENCE = re.compile(r"^[ \t]*```[ \t]*([\w+#.-]*)[^\n]*\n(.*?)(?:^[ \t]*```[ \t]*$|\Z)", re.MULTILINE | re.DOTALL)
PYTHON_TAGS = ("python", "py", "python3")
PLAIN_CODE = re.compile(r"(?:def|class|import|from|for|while|if|with|try|async|print|@|#|[A-Za-z_][\w, ]*=)(?:\b|\s|\(|$)")
LABELS: dict[Outcome, Label] = {"pass": "right", "timeout": "timeout"}


class CodeOptions(Options):
    """Limits of each candidate and what to do where no sandbox can be had."""

    test_seconds: float = Field(default=10.0, gt=0, description="wall clock of one test")
    total_seconds: float = Field(default=60.0, gt=0, description="wall clock of all tests of one response")
    memory_mb: int = Field(default=1024, ge=128)
    workers: int = Field(default=2, ge=1)
    missing_sandbox: Literal["refuse", "skip"] = "refuse"


OPTIONS = CodeOptions


def extract_code(answer: str) -> str | None:
    """Return the last python block, else the last untagged block, else the whole answer if it opens like code, else None.

    A block that is never closed counts up to the end of the answer.
    """
    blocks: list[tuple[str, str]] = [(tag.lower(), body) for tag, body in FENCE.findall(answer)]
    for tags in (PYTHON_TAGS, ("",)):
        matching = [body for tag, body in blocks if tag in tags and body.strip()]
        if matching:
            return matching[-1]
    return answer if not blocks and PLAIN_CODE.match(answer.lstrip()) else None


class CodeJudge(AnswerJudge):
    """right | wrong | timeout | no_answer; without a sandbox and with missing_sandbox: skip, refused_to_judge for every row."""

    def __init__(self, name: str, options: CodeOptions) -> None:
        super().__init__(name)
        self.options = options
        self.limits = Limits(memory_mb=options.memory_mb, cpu_seconds=int(options.total_seconds) + 1)
        self.missing = self._missing_sandbox()

    def _missing_sandbox(self) -> str | None:
        try:
            canary.check()
        except SandboxError as error:
            if self.options.missing_sandbox == "refuse":
                raise
            log.warning("judge %s: %s Code rows are not judged.", self.name, error)
            return str(error)
        return None

    def judge_answers(self, responses: Sequence[Response]) -> list[Verdict]:
        """Run every candidate, a few at a time."""
        if self.missing is not None:
            return [make_verdict(self.name, response, "refused_to_judge", reason="no_sandbox") for response in responses]
        progress = Progress(len(responses), f"judge {self.name}", "answers", log=log)
        verdicts = []
        with ThreadPoolExecutor(min(self.options.workers, os.cpu_count() or 1)) as pool:
            for verdict in pool.map(self._verdict, responses):
                verdicts.append(verdict)
                progress.update()
        return verdicts

    def _verdict(self, response: Response) -> Verdict:
        code = extract_code(response.answer)
        if code is None:
            return make_verdict(self.name, response, "no_answer", reason="no code block")
        outcome, detail = run_tests(code, response.reference, self.options, self.limits, where=response.item_id)
        label = LABELS.get(outcome, "wrong")
        return make_verdict(self.name, response, label, float(label == "right"), outcome=outcome, **detail)


def run_tests(code: str, reference: dict[str, Any], options: CodeOptions, limits: Limits, where: str = "") -> tuple[Outcome, dict[str, Any]]:
    """Return (outcome, detail) of one candidate.

    Raises:
        DataError: the reference has no known mode or lacks a field.
        SandboxError: the sandbox broke down; never counted as the candidate's failure.
    """
    mode = reference.get("mode")
    if reference.get("language", "python") != "python" or mode not in MODES:
        raise DataError(
            f"item {where}: code reference of language {reference.get('language', 'python')!r}, mode {mode!r}; known: python with {', '.join(MODES)}. "
            "Mend the benchmark."
        )
    missing = [field for field in FIELDS[mode] if not reference.get(field)]
    if missing:
        raise DataError(f"item {where}: code reference of mode '{mode}' lacks {', '.join(missing)}. Mend the benchmark.")
    return MODES[mode](code, reference, options.test_seconds, options.total_seconds, limits)


def build(spec: JudgeSpec, work: Path) -> CodeJudge:
    """Return the judge after the sandbox has passed its canary; `work` is not used."""
    return CodeJudge(spec.name, read_options(OPTIONS, spec))
