"""The estimate as text for a terminal: what is trained how, what it takes, where each number comes from. 120 columns at most."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence

from advchain.estimate.memory import zero_of
from advchain.estimate.profiles import PLANNED_SHARE
from advchain.estimate.stages import stages
from advchain.estimate.workload import Calls, Generations, Trainings, Workload

WIDTH = 120


def page(workload: Workload, source: str) -> str:
    """Return the whole estimate. `source` names the config."""
    plan = workload.plan
    cards = f", {plan.gpus} card(s) per node" if plan.gpus else ""
    head = f"Estimate of {source}: {len(plan.checkpoints)} checkpoints, {len(workload.trained)} of them trained here; {plan.hardware.title}{cards}"
    parts = [head, _trainings(workload), _generations(workload), _judges(workload), _calls(workload), _stages(workload), _totals(workload), _notes(workload)]
    return "\n\n".join(part for part in parts if part) + "\n"


def table(header: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """Align columns by spaces; the first `left` columns and the last one to the left, numbers to the right; an unknown one (nan) is a question mark."""
    rows = [["?" if text == "nan" else text for text in row] for row in rows]
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]
    lines = []
    for row in [header, *rows]:
        cells = [
            text.ljust(width) if column < left or column == len(row) - 1 else text.rjust(width)
            for column, (text, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def _origin(measured: int) -> str:
    return f"measured ({measured})" if measured else "model"


def _trainings(workload: Workload) -> str:
    if not workload.trainings:
        return ""
    hardware = workload.plan.hardware
    card = f"GiB of {hardware.usable_gib:g}" if workload.plan.gpus else "card GiB"
    header = ("Training", "profile", "runs", "checkpointing", "pack", "cards", card, "host GiB", "min. each", "card-hours", "from")
    return table(header, [_training(line) for line in workload.trainings], left=2)


def _training(line: Trainings) -> tuple[str, ...]:
    choice = line.choice
    return (
        line.model,
        choice.profile,
        str(line.num),
        "yes" if choice.checkpointing else "no",
        str(choice.micro_batch_tokens),
        f"{choice.gpus}" + (f" x {choice.nodes}" if choice.nodes > 1 else ""),
        f"{choice.memory.card_gib:.1f}" if choice.memory else "-",
        f"{line.host_gib:.0f}" if line.host_gib >= 10 else f"{line.host_gib:.1f}",
        f"{line.seconds / 60:.1f}",
        f"{line.gpu_hours:.1f}" if choice.gpus else "-",
        _origin(line.measured),
    )


def _generations(workload: Workload) -> str:
    header = ("Answers", "checkpoints", "answers", "tokens (M)", "cards", "min. each", "hours", "card-hours", "from")
    return table(header, [_generation(line) for line in workload.generations])


def _generation(line: Generations) -> tuple[str, ...]:
    hours = f"{line.gpu_hours:.1f}" if line.gpus else "-"
    return (
        line.model,
        str(line.num),
        f"{line.num_answers:,}",
        f"{line.tokens / 1e6:.2f}",
        str(line.gpus),
        f"{line.seconds / line.num / 60:.1f}",
        f"{line.seconds / 3600:.1f}",
        hours,
        _origin(line.measured),
    )


def _judges(workload: Workload) -> str:
    if not workload.judges:
        return ""
    header = ("Verdicts", "jobs", "answers", "cards", "min. per checkpoint", "card-hours", "from")
    rows = [(j.judge, str(j.num_jobs), f"{j.num_answers:,}", str(j.gpus), f"{j.each / 60:.1f}", f"{j.gpu_hours:.1f}", "model") for j in workload.judges]
    return table(header, rows)


def _stages(workload: Workload) -> str:
    """Wall time: each stage as if it ran alone, so a run that overlaps them is a little faster."""
    found = stages(workload)
    header = ("Wall time", "jobs", "minutes of jobs", "at once", "minutes", "")
    rows = [(s.name, str(s.jobs), f"{s.seconds / 60:.1f}", f"{s.slots:.1f}".removesuffix(".0"), f"{s.wall / 60:.1f}", "") for s in found]
    total = sum(stage.wall for stage in found)
    rows.append(("all, one after another", str(sum(s.jobs for s in found)), f"{sum(s.seconds for s in found) / 60:.1f}", "", f"{total / 60:.1f}", ""))
    return table(header, rows)


def _calls(workload: Workload) -> str:
    if not workload.calls:
        return ""
    header = ("Calls", "endpoint", "calls", "input tokens (M)", "output tokens (M)", "USD", "from")
    return table(header, [_call(line) for line in workload.calls], left=2)


def _call(line: Calls) -> tuple[str, ...]:
    price = "price not set" if line.usd is None else f"{line.usd:.2f}"
    return (
        line.name,
        line.teacher,
        f"{line.num:,.0f}",
        f"{line.input_tokens / 1e6:.2f}",
        f"{line.output_tokens / 1e6:.2f}",
        price,
        "measured" if line.measured else "model",
    )


def _totals(workload: Workload) -> str:
    training, answers = sum(line.gpu_hours for line in workload.trainings), sum(line.gpu_hours for line in workload.generations)
    cards, judging = workload.plan.gpus, workload.judging_gpu_hours
    lines = []
    if cards:
        by_stage = {"training": training, "answers": answers, "judges": judging}
        parts = {"card-hours": (1, ""), "hours at best": (cards, f"; {cards} cards always busy, calls not counted")}
        for title, (share, end) in parts.items():
            told = ", ".join(f"{name} {hours / share:.1f}" for name, hours in by_stage.items())
            lines.append(f"{title:<14}{sum(by_stage.values()) / share:.1f}: {told}{end}")
    else:
        minutes = sum(stage.wall for stage in stages(workload)) / 60
        told = "not known: a model's `shape` is missing, see below" if math.isnan(minutes) else f"{minutes:.0f} on this machine, with nothing else running"
        lines.append(f"minutes       {told}")
    lines.append(f"money         {money(workload.calls)}")
    disk = {name: size for name, size in workload.disk.items() if size >= 1e7}
    lines.append(f"disk          {sum(disk.values()) / 1e9:.1f} GB: " + ", ".join(f"{name} {size / 1e9:.1f}" for name, size in disk.items()))
    jobs = workload.jobs
    lines.append(f"jobs          {sum(jobs.values())} and those of the data: " + ", ".join(f"{num} {name}" for name, num in jobs.items()))
    return "Totals\n" + "\n".join(textwrap.fill(line, WIDTH, subsequent_indent=" " * 14) for line in lines)


def money(calls: Sequence[Calls]) -> str:
    """What all calls cost, and whose prices are not known."""
    known = sum(line.usd for line in calls if line.usd is not None)
    unknown = sorted({line.teacher for line in calls if line.usd is None})
    without = f"; without {', '.join(unknown)}, whose prices are not set in config/teachers.yaml" if unknown else ""
    return f"{known:.2f} USD{without}"


def _notes(workload: Workload) -> str:
    plan, hardware = workload.plan, workload.plan.hardware
    notes = []
    if plan.gpus:
        offload = [line.model for line in workload.trainings if zero_of(line.choice.profile).offload]
        notes.append(
            f"Memory is planned for packs as long as the longest row allowed, {PLANNED_SHARE:.0%} of a card at most; it is counted from shapes and "
            "DeepSpeed's buffers and has not yet been measured on a GPU."
        )
        notes.append(
            f"Time: {hardware.mfu:.0%} of {hardware.tflops:g} TFLOP/s, {hardware.bus_gb_per_s:g} GB/s between cards with nothing overlapped, a minute to "
            "start; answers as long as the rows that were trained on (900 tokens of a released model, mathematics 4,000, AIME 12,000, code 10,000)."
        )
        if offload:
            notes.append(f"The optimizer of {', '.join(offload)} lies in host memory: fewer trainings of it fit side by side than there are cards.")
        if hardware.host_gib:
            notes.append(f"Host: {hardware.host_gib:g} GiB assumed (config/hardware.yaml).")
    else:
        rate = hardware.tflops * hardware.mfu * 1000
        notes.append(f"Time: {rate:.0f} GFLOP/s a job, as one core with AMX reaches beside a second job; other CPUs differ by far.")
    entries = {checkpoint.model: plan.model(checkpoint.model) for checkpoint in plan.checkpoints}
    if without := [name for name, entry in entries.items() if entry.sizes is None and not entry.endpoint]:
        notes.append(
            f"?: time follows from the sizes of a model: give {', '.join(without)} heads and `shape` in config/models.yaml (its config.json has them)."
        )
    notes.append("Answers of teachers and of judges behind an endpoint come at the provider's limit; their time is in no line.")
    notes.append("`measured (n)`: at the rates of n finished jobs in results/, or the calls counted there; `model`: arithmetic with the numbers above.")
    return "\n".join(textwrap.fill(note, WIDTH) for note in notes)
