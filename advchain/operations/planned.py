"""What a plan would write today: manifest path -> the spec of its stage, as a manifest records it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from advchain import paths, versions
from advchain.deviations import deviations
from advchain.plan import Plan
from advchain.specs import Spec

Settings = dict[str, Any]


def planned_specs(plan: Plan) -> dict[str, Settings]:
    """Return manifest path (as `paths` spells it) -> spec, for every file of the plan that has one."""
    found = {path: json.loads(spec.model_dump_json()) for path, spec in [*_data(plan), *_checkpoints(plan), *_report(plan)]}
    return found | {str(Path(paths.DATASET_CARD.format(recipe=recipe)).with_suffix(".manifest.json")): {"version": versions.CARD} for recipe in plan.recipes}


def _data(plan: Plan) -> Iterator[tuple[str, Spec]]:
    for name in plan.config.sources:
        yield paths.manifest_of(paths.SOURCE.format(source=name)), plan.source_spec(name)
    for name in plan.config.chains:
        yield paths.manifest_of(paths.CHAINS.format(chains=name)), plan.chains_spec(name)
    for recipe in plan.recipes:
        yield paths.manifest_of(paths.DATASET.format(recipe=recipe)), plan.dataset_spec(recipe)
        yield paths.manifest_of(paths.MATCHES.format(recipe=recipe)), plan.contamination_spec()
        yield str(Path(paths.EXPORT.format(recipe=recipe)).with_name("export.json")), plan.export_spec(recipe)
    for name, spec in plan.compared.items():
        yield paths.manifest_of(paths.COMPARED.format(compared=name)), spec
    for name in plan.evaluations:
        yield paths.manifest_of(paths.PROMPTS.format(evaluation=name)), plan.prompts_spec(name)


def _checkpoints(plan: Plan) -> Iterator[tuple[str, Spec]]:
    trained = {c.model for c in plan.checkpoints if plan.method(c.method).kind == "train"}
    for name in sorted(trained | {plan.weights_of(c) for c in plan.checkpoints if plan.method(c.method).kind != "train"}):
        yield paths.MODEL.format(model=name), plan.model_spec(name)
    for checkpoint in plan.checkpoints:
        run = vars(checkpoint)
        if plan.method(checkpoint.method).kind == "train":
            yield paths.CHECKPOINT.format(**run), plan.train_spec(checkpoint)
        for group, names in plan.groups_of(checkpoint).items():
            yield paths.GENERATED.format(group=group, **run), plan.generate_spec(checkpoint, names)
        for name in plan.evaluations_of(checkpoint):
            where = {**run, "evaluation": name}
            yield paths.manifest_of(paths.ROUND_PROMPTS.format(**where)), plan.prompts_spec(name)
            yield paths.manifest_of(paths.RESPONSES.format(**where)), plan.generate_spec(checkpoint, [name])
            yield paths.manifest_of(paths.VIEWS.format(**where)), plan.view_spec(name)
            yield paths.manifest_of(paths.VERDICTS.format(**where)), plan.judge_stage_spec(name)


def _report(plan: Plan) -> Iterator[tuple[str, Spec]]:
    yield paths.manifest_of(paths.SCORES), plan.score_spec()
    yield str(Path(paths.REPORT).with_suffix(".manifest.json")), plan.report_spec(deviations(plan))
    yield str(Path(paths.EXPLORER).with_suffix(".manifest.json")), plan.report_spec()


def differing(old: Any, new: Any, where: str = "") -> Iterator[str]:
    """Yield the dotted places in which two specs differ; lists of another length differ as a whole."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted({*old, *new}):
            yield from differing(old.get(key), new.get(key), f"{where}.{key}" if where else str(key))
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for index, pair in enumerate(zip(old, new, strict=True)):
            yield from differing(*pair, f"{where}[{index}]")
    elif old != new:
        yield where
