"""Seconds of one training, one checkpoint's answers, one file of verdicts: from earlier runs where there are any, else from sizes and rates."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from advchain.entries import JudgeEntry, read_entry
from advchain.estimate.measured import Measured, Run, peak_gib, rate, tokens_per_row
from advchain.estimate.memory import GIB, Counting, Setup, memory_of, zero_of
from advchain.estimate.profiles import Choice
from advchain.estimate.rows import LONGEST, row_tokens
from advchain.estimate.speed import cpu_rate, decode_rate
from advchain.files import expand_variables
from advchain.grid import Checkpoint
from advchain.plan import Plan
from advchain.rows import read_rows

START_SECONDS = 60  # of a training on GPUs: imports, NCCL, DeepSpeed, first compilation
CPU_START_SECONDS = 15
READ_BYTES = 1e9  # of weights per second: read, hashed, or written and checked
PASSES = 4  # over the weights of a training: hash, read, write, check
ENGINE_SECONDS = 75  # an engine's start (PERFORMANCE 2a)
CPU_ENGINE_SECONDS = 5  # of the transformers engine
ANSWER_TOKENS = {"math500": 4000, "aime2024": 12000, "livecodebench": 10000, "humaneval": 3000, "mbpp": 3000}  # chain and answer (PERFORMANCE 2c)
OTHER_TOKENS = 900  # of a released model
PROMPT_TOKENS, SHORT_PROMPT_TOKENS = 300, 50  # with an attack's prefix; in a training row
LONGEST_PROMPT_TOKENS, LONGEST_SAMPLE_TOKENS = 650, 240  # of the public benchmarks (WildJailbreak's), of the shipped sample
UNKNOWN_ROWS = 400  # of a benchmark file whose length is not pinned
JUDGE_TOKENS, JUDGE_PARAMETERS, JUDGE_MFU, JUDGE_SECONDS = 1200, 8e9, 0.55, 60  # Llama Guard 3 8B reads a prompt and writes one word (PERFORMANCE 2c)
JOB_SECONDS = 0.6  # of a job that hardly computes: Python and its imports
START_OF_JOB_SECONDS = 0.2  # of those, what comes before a manifest's clock starts
CPU_PROCESS_GIB = 1.7  # torch, transformers and DeepSpeed in memory, and the export
SCORE_BYTES = 4  # attention scores that a CPU keeps, per layer, head and pair of tokens
CPU_LOGITS = 64 * 2**20  # logits in flight there (train/loss.py)


@dataclass(frozen=True)
class Times:
    """A plan beside what earlier runs on the same kind of device took."""

    plan: Plan
    measured: Measured

    @cached_property
    def known(self) -> Measured:
        """Earlier runs with GPUs say nothing about one without, and the other way round."""
        return self.measured.on(bool(self.plan.gpus))

    # ---------------------------------------------------------------- trainings

    def trainings_of(self, model: str) -> list[Run]:
        """Earlier trainings of a model."""
        return self.known.trainings.get(model, [])

    def num_rows(self, checkpoint: Checkpoint) -> int:
        """Rows of a checkpoint's training set."""
        return sum(part.count for part in self.plan.dataset_spec(str(self.plan.method(checkpoint.method).recipe)).parts)

    def tokens_per_row(self, checkpoint: Checkpoint) -> float:
        """Tokens of a training row: as measured for the method on as many rows, else from the recipe."""
        known = tokens_per_row(self.trainings_of(checkpoint.model), checkpoint.method, self.num_rows(checkpoint))
        return known or row_tokens(self.plan, str(self.plan.method(checkpoint.method).recipe))

    def training_seconds(self, checkpoint: Checkpoint, choice: Choice) -> float:
        """Wall time of one training; nan where the model's shape is not known."""
        train, sizes, rows = self.plan.config.train, self.plan.model(checkpoint.model).sizes, self.num_rows(checkpoint)
        tokens = rows * self.tokens_per_row(checkpoint) * train.epochs
        known = rate(self.trainings_of(checkpoint.model))
        if known:
            return tokens / known
        if sizes is None:
            return math.nan
        io = PASSES * 2 * sizes.num_parameters / READ_BYTES
        if choice.time:
            return START_SECONDS + io + train.epochs * math.ceil(rows / train.batch_size) * choice.time.total
        flops = sizes.training_flops(tokens, tokens * self.tokens_per_row(checkpoint))
        return CPU_START_SECONDS + io + flops / (self.plan.hardware.tflops * 1e12 * self.plan.hardware.mfu)

    def training_host_gib(self, checkpoint: Checkpoint, choice: Choice) -> float:
        """Peak of host memory of one node: measured, else from the memory model, else what the model's entry reserves."""
        entry = self.plan.model(checkpoint.model)
        known = peak_gib(self.trainings_of(checkpoint.model), self.num_rows(checkpoint))
        if known or choice.memory:
            return known or (choice.memory.host_gib if choice.memory else 0.0)
        if entry.sizes is None or choice.gpus:
            return entry.memory_gb * 1e9 / GIB
        longest = min(LONGEST * self.tokens_per_row(checkpoint), self.plan.config.train.max_length)
        setup = Setup(entry.sizes, zero_of(choice.profile), choice.micro_batch_tokens, choice.checkpointing, precision=self.plan.config.train.precision)
        scores = SCORE_BYTES * entry.sizes.num_layers * entry.sizes.num_attention_heads * setup.tokens * longest / GIB
        return CPU_PROCESS_GIB + scores + memory_of(setup, Counting(logits=CPU_LOGITS, cuda_gib=0, nccl_gib=0)).card_gib

    # ---------------------------------------------------------------- answers

    def generations_like(self, checkpoint: Checkpoint) -> list[Run]:
        """Earlier generations of its model; without a GPU only of answers as long at most, as fewer long ones are decoded side by side."""
        known = self.known.generations.get(checkpoint.model, [])
        return [run for run in known if self.plan.gpus or run.size == self.longest_answer(checkpoint)]

    def longest_answer(self, checkpoint: Checkpoint) -> int:
        """Tokens that the longest answer of a checkpoint may have."""
        return max(self.plan.sampling(checkpoint, name).max_new_tokens for name in self.plan.evaluations_of(checkpoint))

    def num_prompts(self, name: str) -> int:
        """Prompts of an evaluation: its limit, else the rows its file pins or holds after its offset, else those that its attack starts from (all may fit)."""
        evaluation = self.plan.evaluations[name]
        attack = evaluation.attack
        attacked = ([attack.after] if attack.after else attack.benchmarks) if attack else []
        rows = evaluation.module.constants.get("ROWS") or self._own_rows(name) or sum(map(self.num_prompts, attacked)) or UNKNOWN_ROWS
        rows = max(rows - evaluation.config.offset, 0)
        return min(evaluation.config.limit or rows, rows)

    def _own_rows(self, name: str) -> int:
        """Rows of the user's own file behind an evaluation; 0 where there is none."""
        spec = self.plan.prompts_spec(name)
        path = Path(expand_variables(spec.path, name)) if spec.origin == "local" and spec.path else None
        return sum(1 for _ in read_rows(path)) if path and path.is_file() else 0

    def num_answers(self, checkpoint: Checkpoint, name: str) -> int:
        """Answers of one checkpoint to one evaluation."""
        return self.num_prompts(name) * self.plan.sampling(checkpoint, name).num_samples

    def answer_tokens(self, checkpoint: Checkpoint, name: str) -> float:
        """Mean tokens of an answer with its chain; the decoding limit cuts what is longer (lengths fall off exponentially).

        A trained checkpoint writes as long as it was taught to.
        """
        limit = self.plan.sampling(checkpoint, name).max_new_tokens
        benchmark = self.plan.evaluations[name].config.benchmark or name
        if benchmark in ANSWER_TOKENS:
            return min(ANSWER_TOKENS[benchmark], limit)
        trained = self.plan.method(checkpoint.method).kind == "train"
        mean = self.tokens_per_row(checkpoint) - SHORT_PROMPT_TOKENS if trained else OTHER_TOKENS
        return mean * (1 - math.exp(-limit / mean))

    def written_tokens(self, checkpoint: Checkpoint) -> float:
        """Tokens of all answers of a checkpoint."""
        return sum(self.num_answers(checkpoint, name) * self.answer_tokens(checkpoint, name) for name in self.plan.evaluations_of(checkpoint))

    def generation_seconds(self, checkpoint: Checkpoint) -> float:
        """Wall time of all answers of one checkpoint, one group after another."""
        names = self.plan.evaluations_of(checkpoint)
        known, longest = self.generations_like(checkpoint), self.longest_answer(checkpoint)
        if rate(known):
            counts = sum(self.num_answers(checkpoint, name) for name in names)
            each = tokens_per_row(known, checkpoint.method, longest)
            return (counts * each if each else self.written_tokens(checkpoint)) / rate(known)  # a start is in the rate
        gpus = min(self.plan.model(checkpoint.model).generate_gpus, self.plan.gpus)
        starts = len(self.plan.groups_of(checkpoint)) * (ENGINE_SECONDS if gpus else CPU_ENGINE_SECONDS)
        asked = [(self.num_answers(checkpoint, name), self.answer_tokens(checkpoint, name)) for name in names]
        rows = self._rows_in_flight(names, longest, sum(num for num, _ in asked))
        return starts + sum(num * tokens / self._decode_rate(checkpoint.model, tokens, gpus, rows) for num, tokens in asked)

    def _rows_in_flight(self, names: Sequence[str], longest: int, num_answers: int) -> int:
        """Answers that the transformers engine decodes side by side: each has room for the longest prompt and the longest answer."""
        own = any(self.plan.prompts_spec(name).origin != "sample" for name in names)
        span = longest + (LONGEST_PROMPT_TOKENS if own else LONGEST_SAMPLE_TOKENS)
        return max(1, min(num_answers, self.plan.config.evaluation.batch_tokens // span))

    def _decode_rate(self, model: str, tokens: float, gpus: int, rows: int) -> float:
        sizes = self.plan.model(model).sizes
        if sizes is None:
            return math.nan
        if not gpus:
            return cpu_rate(sizes, self.plan.hardware, rows)
        return decode_rate(sizes, self.plan.hardware, PROMPT_TOKENS + tokens / 2, gpus)

    # ---------------------------------------------------------------- verdicts, released models

    def judging_seconds(self, checkpoint: Checkpoint, names: Sequence[str]) -> float:
        """Wall time of one job of verdicts: as measured per answer, else from the weights of its judges; calls to endpoints are not counted."""
        if all(self.known.judging.get(name) for name in names):
            return START_OF_JOB_SECONDS + sum(self.num_answers(checkpoint, name) * self._seconds_per_answer(name) for name in names)
        num = sum(self.num_answers(checkpoint, name) for name in names)
        return JOB_SECONDS + sum(self.judge_seconds(judge, num) for judge in self.plan.judges_of(names[0]))

    def _seconds_per_answer(self, name: str) -> float:
        known = self.known.judging[name]
        return sum(run.seconds for run in known) / max(1, sum(run.rows for run in known))

    def judge_seconds(self, judge: str, num: int) -> float:
        """Seconds in which one judge with weights of its own reads `num` answers on its cards; 0 for the others."""
        entry = read_entry("judges", judge, JudgeEntry, "judges")
        if not entry.gpus or not self.plan.gpus:
            return 0.0
        return JUDGE_SECONDS + num * JUDGE_TOKENS * 2 * JUDGE_PARAMETERS / (self.plan.hardware.tflops * 1e12 * JUDGE_MFU)

    def fetch_seconds(self, model: str) -> float:
        """Wall time of fetching a released model and hashing it: as measured, else at 100 MB/s."""
        return self.known.fetched.get(model) or 10 + 2.0 * (self.plan.model(model).num_parameters or 0) / 1e8
