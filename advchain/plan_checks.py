"""What is wrong with a config can be said before any job starts: names, counts, origins, teachers. Needs no file of data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from advchain.catalogue import module
from advchain.config import AttackConfig
from advchain.errors import ConfigError, did_you_mean
from advchain.grid import BASE_RUN, Checkpoint, Evaluation
from advchain.options import check_options, declared
from advchain.specs import JudgeSpec

if TYPE_CHECKING:
    from advchain.plan import Plan


def check(plan: Plan) -> None:
    """Look at every name and count of the plan.

    Raises:
        ConfigError: the first thing that does not fit; one paragraph.
    """
    for name, source in plan.config.sources.items():
        module("sources", source.loader, f"sources.{name}.loader")
        _check_origin(plan, f"sources.{name}", source.origin, source.path)
    for name, chains in plan.config.chains.items():
        _known(plan, f"chains.{name}.source", chains.source, plan.config.sources)
        plan.teacher(chains.teacher, f"chains.{name}.teacher")
        plan.chains_spec(name)
    for recipe in plan.recipes:
        _check_recipe(plan, recipe)
    for model in sorted({c.model for c in plan.checkpoints if plan.method(c.method).kind == "train"}):
        plan.train_choice(model)  # says so when nothing fits on the hardware
    for name, other in plan.config.contamination.also.items():
        where = f"contamination.also.{name}"
        module("benchmarks", other.benchmark or name, where)
        _check_origin(plan, where, other.origin, other.path)
        if name in plan.evaluations or name in plan.config.sources:
            raise ConfigError(f"{where}: '{name}' is an evaluation or a source too. Give it another name, and say the file with `benchmark:`.")
    for name in set(plan.compared) & set(plan.compared_sources):
        raise ConfigError(f"sources.{name}: an evaluation has the same name, and training sets are compared with both. Rename one.")
    for name, evaluation in plan.evaluations.items():
        _check_evaluation(plan, name, evaluation)
    for checkpoint in plan.checkpoints:
        _check_endpoint(plan, checkpoint)
    _ = plan.own_labels  # says so when it names a variable that is not set


def _check_endpoint(plan: Plan, checkpoint: Checkpoint) -> None:
    model = plan.model(checkpoint.model)
    if model.endpoint is None:
        return
    plan.model_spec(checkpoint.model)
    forced = [name for name in plan.evaluations_of(checkpoint) if plan.evaluations[name].attack]
    if forced and not model.completions:
        raise ConfigError(
            f"grid: attack '{forced[0]}' forces the beginning of a response, and the endpoint of model '{checkpoint.model}' only takes chat messages. If it "
            "takes rendered prompts at /completions (vLLM does), set `completions: true` in config/models.yaml; else name that block's `benchmarks`."
        )
    if plan.method(checkpoint.method).kind != "base":
        raise ConfigError(f"grid: model '{checkpoint.model}' is behind an endpoint ({model.origin}) and can only be evaluated: give it `methods: [base]`.")


def _check_origin(plan: Plan, where: str, origin: str | None, path: str | None) -> None:
    local = (origin or plan.config.data.origin) == "local"
    if local and not path:
        raise ConfigError(f"{where}: `from: local` needs a `path`.")
    if path and not local:
        raise ConfigError(f"{where}: `path` is given but it is read from '{origin or plan.config.data.origin}'; add `from: local`.")


def _check_recipe(plan: Plan, name: str) -> None:
    spec = plan.dataset_spec(name)
    size, held = sum(part.count for part in spec.parts), plan.config.train.holdout_rows
    if held >= size:
        raise ConfigError(f"train.holdout_rows: {held} rows are to be held out, but recipe {name} has {size}. Lower it or raise data.size.")
    for part in spec.parts:
        if part.chains:
            _known(plan, f"config/recipes.yaml: {name}: chains", part.chains, plan.config.chains)
            made = plan.config.chains[part.chains].count
            if part.count > made:
                raise ConfigError(f"recipe {name} needs {part.count} rows of chains '{part.chains}', which makes {made}: raise its count or lower data.size.")
        else:
            _known(plan, f"config/recipes.yaml: {name}: source", str(part.source), plan.config.sources)
            if part.steps not in ("all", "base"):
                raise ConfigError(f"config/recipes.yaml: {name}: `steps: {part.steps}` needs `chains`; rows of a source have no injected steps.")


def _check_evaluation(plan: Plan, name: str, evaluation: Evaluation) -> None:
    where = f"evaluation.benchmarks.{name}"
    for judge in plan.judges_of(name):
        _check_judge(plan, where, evaluation, plan.judge_spec(judge, where))
    attack, table = evaluation.attack, evaluation.module.constants["TABLE"]
    if plan.view(name) != "answer" and table == "reasoning":
        raise ConfigError(f"{where}.view: '{plan.view(name)}': right and wrong are read off the answer; leave `view` out.")
    if attack is None:
        _check_origin(plan, where, evaluation.config.origin, evaluation.config.path)
        return
    if evaluation.config.offset:
        raise ConfigError(
            f"{where}.offset: {evaluation.config.offset}, but an attack has no order of its own to skip in: it takes the rows of its source, or the prompts or "
            "responses of other evaluations. Set `offset` of those."
        )
    _check_options("attacks", evaluation.module.name, attack.options, f"{where}.attack.options")
    _check_starts(plan, where, evaluation, attack)
    if evaluation.module.constants["ASKS"]:
        plan.teacher(attack.teacher, f"{where}.attack.teacher")
        _check_disjoint_teacher(plan, where, attack)


def _check_options(folder: str, name: str, given: dict[str, Any], where: str) -> None:
    kind = declared(folder, name)
    if kind is not None:
        check_options(kind, given, where)


def _check_judge(plan: Plan, where: str, evaluation: Evaluation, spec: JudgeSpec) -> None:
    """Options that its file knows, an endpoint where it asks one, and something to judge in this evaluation."""
    entry, constants = f"config/judges.yaml: {spec.name}", module("judges", spec.kind, where).constants
    _check_options("judges", spec.kind, spec.options, f"{entry}: options")
    if constants.get("ASKS", False) != (spec.teacher is not None):
        what = "asks an endpoint; name one with `teacher:` (an entry of config/teachers.yaml)" if spec.teacher is None else "asks nobody; leave `teacher` out"
        raise ConfigError(f"{entry}: a judge of kind '{spec.kind}' {what}.")
    if constants["MEASURES"] == "correctness" and evaluation.module.constants["TABLE"] != "reasoning":
        raise ConfigError(f"{where}.judges: '{spec.name}' tells right answers from wrong ones, and '{evaluation.module.name}' has no right answers.")


STARTS = {
    "source": "`source` (held-out chains)",
    "reference": "`reference` (a checkpoint whose responses are attacked) with its `benchmarks`",
    "benchmarks": "`benchmarks` (evaluations whose prompts are attacked)",
    "after": "`after` (another attack, whose responses are attacked once more)",
}


def _check_starts(plan: Plan, where: str, evaluation: Evaluation, attack: AttackConfig) -> None:
    """Exactly one start, of a kind that the attack's file takes; every name in it known."""
    benchmarks = attack.benchmarks and not attack.reference
    given = [kind for kind, value in zip(STARTS, (attack.source, attack.reference, benchmarks, attack.after), strict=True) if value]
    allowed = evaluation.module.constants["STARTS"]
    if len(given) != 1 or given[0] not in allowed:
        raise ConfigError(f"{where}.attack: give either {' or '.join(STARTS[kind] for kind in allowed)}; {' and '.join(given) or 'nothing'} is given.")
    if attack.source:
        _known(plan, f"{where}.attack.source", attack.source, plan.config.sources)
    if attack.reference:
        _check_reference(plan, where, attack)
    for other in attack.benchmarks:
        _known(plan, f"{where}.attack.benchmarks", other, {n: e for n, e in plan.evaluations.items() if not e.group.startswith("round")})
        _check_nature(plan, where, evaluation, other)
    if attack.after:
        _known(plan, f"{where}.attack.after", attack.after, {n: e for n, e in plan.evaluations.items() if e.attack})
        _check_nature(plan, where, evaluation, attack.after)
        _check_round(plan, where, evaluation, attack)


def _check_nature(plan: Plan, where: str, evaluation: Evaluation, other: str) -> None:
    nature = evaluation.module.constants["NATURE"]
    if plan.nature(other) != nature:
        raise ConfigError(f"{where}.attack: '{evaluation.module.name}' is an attack on {nature} prompts; those of '{other}' are {plan.nature(other)}.")


def _check_round(plan: Plan, where: str, evaluation: Evaluation, attack: AttackConfig) -> None:
    """A further round reads verdicts and responses of the round before, of every checkpoint that is asked."""
    for checkpoint in plan.checkpoints:
        asked = plan.evaluations_of(checkpoint)
        if evaluation.name in asked and attack.after not in asked:
            raise ConfigError(f"{where}.attack.after: checkpoint {checkpoint.path} is not asked '{attack.after}'. Add it to that block's benchmarks.")
    judge = str(attack.options.get("refusal_judge", "refusal_phrases"))
    if judge not in plan.judges_of(str(attack.after)):
        raise ConfigError(f"{where}.attack.options.refusal_judge: '{judge}' does not judge '{attack.after}'; its judges: {plan.judges_of(str(attack.after))}.")


def _check_reference(plan: Plan, where: str, attack: AttackConfig) -> None:
    wanted = attack.reference or {}
    known = [c.path for c in plan.checkpoints]
    path = f"{wanted.get('model')}/{wanted.get('method')}/{wanted.get('run', BASE_RUN)}"
    if path not in known:
        raise ConfigError(f"{where}.attack.reference: checkpoint '{path}' is not in the grid; {did_you_mean(path, known)}")
    for benchmark in attack.benchmarks or [""]:
        _known(plan, f"{where}.attack.benchmarks", benchmark, {n: e for n, e in plan.evaluations.items() if e.group == "direct"})


def _check_disjoint_teacher(plan: Plan, where: str, attack: AttackConfig) -> None:
    for name, chains in plan.config.chains.items():
        if chains.teacher == attack.teacher:
            raise ConfigError(
                f"{where}.attack.teacher: '{attack.teacher}' also writes the training chains '{name}'; attack wording must come from another teacher."
            )


def _known(plan: Plan, where: str, name: str, known: dict[str, Any]) -> None:
    if name not in known:
        raise ConfigError(f"{where}: unknown name '{name}'; {did_you_mean(name, known)}")
