"""Input functions and parameters that several rules share. Each is a look-up in the plan; nothing is decided here."""

import re
from collections import Counter
from shlex import quote


wildcard_constraints:
    model=r"[A-Za-z0-9._-]+",
    method=r"[A-Za-z0-9._-]+",
    run=r"[A-Za-z0-9._-]+",
    group=r"direct|attacks|round\d+",
    evaluation="|".join(PLAN.evaluations),
    recipe="|".join(PLAN.recipes) or "none",
    chains="|".join(PLAN.config.chains) or "none",
    source="|".join(PLAN.config.sources),
    compared="|".join(PLAN.compared) or "none",


def get_checkpoint(wildcards):
    return PLAN.checkpoint(wildcards.model, wildcards.method, wildcards.run)


def get_weights(checkpoint):
    """model.json of a checkpoint: trained here, or the released model that stands for it."""
    if PLAN.method(checkpoint.method).kind == "train":
        return paths.CHECKPOINT.format(**vars(checkpoint))
    return paths.MODEL.format(model=PLAN.weights_of(checkpoint))


def growing(amount):
    """Memory or minutes of a job: each further attempt (`retries` of a profile) gets as much more."""
    return lambda wildcards, attempt: amount * attempt


def get_all(template):
    """One path per planned checkpoint and evaluation."""
    return [
        template.format(evaluation=name, **vars(c))
        for c in PLAN.checkpoints
        for name in PLAN.evaluations_of(c)
    ]


def get_parts_of_grid():
    """Name of a target -> verdicts of one model, method or benchmark."""
    parts = {}
    for c in PLAN.checkpoints:
        for name in PLAN.evaluations_of(c):
            path = paths.VERDICTS.format(evaluation=name, **vars(c))
            for part in (f"model_{c.model}", f"method_{c.method}", f"benchmark_{name}"):
                parts.setdefault(part, []).append(path)
    return parts


PARTS = get_parts_of_grid()


def get_local(spec, output):
    """The user's own file behind a source or benchmark: a changed one is read again. One that is gone re-runs nothing; who needs it, says so."""
    if spec.origin != "local":
        return []
    try:
        path = expand_variables(spec.path, spec.name)
    except ConfigError:
        path = spec.path
    return path if Path(path).is_file() or Path(output).is_file() else []


def named(names, template, key):
    """`name=path` arguments for a script."""
    return [f"{name}={template.format(**{key: name})}" for name in names]


def gpus_for(wanted):
    """GPUs a job takes: what the model needs, at most what a node has."""
    return min(wanted, PLAN.gpus)


def get_served(spec):
    """Models that a job's teachers or judges are served from, by `vllm serve` inside the job: they have to be fetched first."""
    return sorted({paths.MODEL.format(model=model) for model, _ in served_in(spec)})


def served_gpus(spec):
    return gpus_for(sum(serve.gpus for _, serve in served_in(spec)))


def served_memory(spec):
    return sum(PLAN.model(model).memory_gb * 1000 for model, _ in served_in(spec))


# ---------------------------------------------------------------- sources, chains, training sets


def get_chain_source(wildcards):
    return paths.SOURCE.format(source=PLAN.config.chains[wildcards.chains].source)


def get_parts(wildcards, kind):
    parts = PLAN.dataset_spec(wildcards.recipe).parts
    return sorted({getattr(part, kind) for part in parts if getattr(part, kind)})


def get_recipe_chains(wildcards):
    return expand(paths.CHAINS, chains=get_parts(wildcards, "chains"))


def get_recipe_sources(wildcards):
    return expand(paths.SOURCE, source=get_parts(wildcards, "source"))


def get_inputs_by_name(wildcards):
    """`--chains name=path ... --sources name=path ...` of one recipe."""
    chains = named(get_parts(wildcards, "chains"), paths.CHAINS, "chains")
    sources = named(get_parts(wildcards, "source"), paths.SOURCE, "source")
    return " ".join(["--chains", *chains, "--sources", *sources])


def get_card_sources(wildcards):
    """Names of the sources of a recipe, also of those that its chain sets were made from: their rejects are on the card."""
    chains = get_parts(wildcards, "chains")
    return sorted(
        {
            *get_parts(wildcards, "source"),
            *(PLAN.config.chains[name].source for name in chains),
        }
    )


def get_strict(value, nothing):
    """What only strict mode reads: without it, no benchmark is an input of training."""
    return value if PLAN.config.contamination.strict else nothing


# ---------------------------------------------------------------- training


def get_dataset(wildcards):
    return paths.DATASET.format(recipe=PLAN.method(wildcards.method).recipe)


def get_train_gpus(wildcards):
    """Cards of all nodes of one training."""
    choice = PLAN.train_choice(wildcards.model)
    return choice.gpus * choice.nodes


def get_train_nodes(wildcards):
    return PLAN.train_choice(wildcards.model).nodes


def get_if_several_nodes(wildcards, value):
    """None leaves a resource out: one node needs none of what several do."""
    return value if get_train_nodes(wildcards) > 1 else None


def get_tasks_per_node(wildcards):
    """Tasks that SLURM makes room for, one per card. The plugin wants at least two; one launcher per node is started, whatever this says."""
    return max(2, PLAN.train_choice(wildcards.model).gpus)


def get_cpus_per_task(wildcards):
    """Eight cores for each card, as `threads` asks for on one node."""
    gpus = PLAN.train_choice(wildcards.model).gpus
    return max(1, 8 * gpus // get_tasks_per_node(wildcards))


def get_train_processes(wildcards):
    """Processes per node."""
    return PLAN.train_choice(wildcards.model).gpus or PLAN.config.train.processes


def get_train_memory(wildcards, attempt):
    """Host memory of one node: from the memory model where there is a GPU, else as measured for the model."""
    memory = PLAN.train_choice(wildcards.model).memory
    needed = (
        memory.host / 1e6 if memory else PLAN.model(wildcards.model).memory_gb * 1000
    )
    return round(needed) * attempt


# ---------------------------------------------------------------- prompts, responses, verdicts


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


# ---------------------------------------------------------------- report


def get_trained():
    return [c for c in PLAN.checkpoints if PLAN.method(c.method).kind == "train"]


def get_recipe_chain_sets():
    parts = [
        part for recipe in PLAN.recipes for part in PLAN.dataset_spec(recipe).parts
    ]
    return sorted({part.chains for part in parts if part.chains})


def get_manifests():
    stages = [paths.DATASET.format(recipe=recipe) for recipe in PLAN.recipes]
    stages += [paths.CHAINS.format(chains=name) for name in get_recipe_chain_sets()]
    stages += sorted(
        {
            get_prompts(c, name)
            for c in PLAN.checkpoints
            for name in PLAN.evaluations_of(c)
        }
    )
    generated = [
        paths.GENERATED.format(group=group, **vars(c))
        for c in PLAN.checkpoints
        for group in PLAN.groups_of(c)
    ]
    return [
        *map(paths.manifest_of, stages),
        *[get_weights(c) for c in PLAN.checkpoints],
        *generated,
    ]
