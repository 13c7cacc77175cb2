"""Input functions and parameters that several rules share. Each is a look-up in the plan; nothing is decided here."""


wildcard_constraints:
    model=r"[A-Za-z0-9._-]+",
    method=r"[A-Za-z0-9._-]+",
    run=r"[A-Za-z0-9._-]+",
    group=r"direct|attacks",
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


def get_all(template):
    """One path per planned checkpoint and evaluation."""
    return [
        template.format(evaluation=name, **vars(c))
        for c in PLAN.checkpoints
        for name in PLAN.evaluations_of(c)
    ]


def spec_json(spec):
    """The spec as the one parameter of a job: any change of it re-runs the job, nothing else does."""
    return spec.model_dump_json()


def named(names, template, key):
    """`name=path` arguments for a script."""
    return [f"{name}={template.format(**{key: name})}" for name in names]


def gpus_for(wanted):
    """GPUs a job takes: what the model needs, at most what a node has."""
    return min(wanted, PLAN.gpus)
