"""Input functions and parameters that several rules share. Each is a look-up in the plan; nothing is decided here."""


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
    path = expand_variables(spec.path, spec.name)
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
