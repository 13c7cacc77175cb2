"""Input functions and parameters of prompts, responses and verdicts: look-ups in the plan, and which evaluations one job judges."""

import re
from collections import Counter
from shlex import quote


def get_attack_source(wildcards):
    source = PLAN.evaluations[wildcards.evaluation].attack.source
    return [paths.SOURCE.format(source=source)] if source else []


def get_attack_reference(wildcards, template):
    """Responses or verdicts of the reference checkpoint, in the paper's protocol."""
    attack = PLAN.evaluations[wildcards.evaluation].attack
    if not attack.reference:
        return []
    run = {"run": "released"} | attack.reference
    return [template.format(evaluation=name, **run) for name in attack.benchmarks]


def get_attack_items(wildcards):
    """Prompts that an attack without a reference is applied to."""
    attack = PLAN.evaluations[wildcards.evaluation].attack
    return (
        [] if attack.reference else expand(paths.PROMPTS, evaluation=attack.benchmarks)
    )


def get_round_before(wildcards, template):
    """The same checkpoint's file of the attack that a further round starts from."""
    after = PLAN.evaluations[wildcards.evaluation].attack.after
    return template.format(evaluation=after, **vars(get_checkpoint(wildcards)))


def get_prompts(checkpoint, evaluation):
    """What one checkpoint is asked: a further round of an attack has prompts of its own."""
    later = PLAN.evaluations[evaluation].group.startswith("round")
    template = paths.ROUND_PROMPTS if later else paths.PROMPTS
    return template.format(evaluation=evaluation, **vars(checkpoint))


def get_model(wildcards):
    return get_weights(get_checkpoint(wildcards))


def get_group(wildcards):
    return PLAN.groups_of(get_checkpoint(wildcards))[wildcards.group]


def get_group_prompts(wildcards):
    return [
        get_prompts(get_checkpoint(wildcards), name) for name in get_group(wildcards)
    ]


def get_generate_spec(wildcards):
    return spec_json(get_generate_plan(wildcards))


@cache
def generate_plan(checkpoint, group):
    return PLAN.generate_spec(checkpoint, PLAN.groups_of(checkpoint)[group])


def get_generate_plan(wildcards):
    return generate_plan(get_checkpoint(wildcards), wildcards.group)


@cache
def judge_json(names):
    """Specs of judging these evaluations in one job, as arguments of one shell word each."""
    specs = [PLAN.judge_stage_spec(name) for name in names]
    return Parameter(
        " ".join(quote(spec.model_dump_json()) for spec in specs),
        "\n".join(map(deciding, specs)),
    )


def get_generate_gpus(wildcards):
    """GPUs of the engines; for a model behind an endpoint those of the server that the job starts, if it does."""
    if PLAN.model(wildcards.model).endpoint:
        return served_gpus(get_generate_plan(wildcards))
    return gpus_for(PLAN.model(wildcards.model).generate_gpus)


def get_marker(wildcards):
    """`ancient`: another evaluation's change re-runs `generate` of the group, not the collection of this one."""
    group = PLAN.evaluations[wildcards.evaluation].group
    return ancient(
        paths.GENERATED.format(group=group, **vars(get_checkpoint(wildcards)))
    )


def get_judged(wildcards, names):
    """What the judges read: responses, or another view of them than the answer."""
    run = vars(get_checkpoint(wildcards))
    views = [PLAN.view(name) for name in names]
    templates = [paths.RESPONSES if v == "answer" else paths.VIEWS for v in views]
    return [t.format(evaluation=name, **run) for t, name in zip(templates, names)]


def get_judged_together():
    """Evaluations that one job judges -> checkpoints that are asked them: one engine load answers them, and the same judges read them."""
    together = {}
    for checkpoint in PLAN.checkpoints:
        for names in PLAN.judged_together(checkpoint):
            together.setdefault(names, []).append(checkpoint)
    return together


def get_judge_rules():
    """Name of a rule -> evaluations that it judges, and what {model} is there. Named by the first of them, and by a number where another set begins with it."""
    together = get_judged_together()
    found, firsts = {}, Counter(["report"])  # judge_report is a rule already
    for names in together:
        firsts[names[0]] += 1
        number = f"+{firsts[names[0]]}" if firsts[names[0]] > 1 else ""
        found[f"judge_{names[0]}{number}"] = names, only(names, together)
    return found


def only(names, together):
    """What {model} of {model}/{method}/{run} has to be, so that no checkpoint is taken that is asked another set with one of these evaluations."""
    others = [
        c
        for rest in together
        if rest != names and set(rest) & set(names)
        for c in together[rest]
    ]
    few, sign = min(
        (others, "!"), (together[names], "="), key=lambda pair: len(pair[0])
    )
    known = "|".join(re.escape(c.path) for c in few)
    return rf"(?{sign}(?:{known})/)[A-Za-z0-9._-]+" if others else r"[A-Za-z0-9._-]+"


def get_attack_judging(wildcards):
    """What the verdicts that an attack starts from depend on, beside the responses. It reads them `ancient`: the job that judges them judges other
    evaluations too, and writes all anew when one of those changes."""
    attack = PLAN.evaluations[wildcards.evaluation].attack
    judged = attack.benchmarks if attack.reference else []
    names = [attack.after] if attack.after else judged
    specs = [PLAN.judge_stage_spec(name) for name in names]
    specs += [PLAN.view_spec(name) for name in names if PLAN.view(name) != "answer"]
    return Parameter("", "\n".join(map(deciding, specs)))
