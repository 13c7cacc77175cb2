"""Benchmark prompts and attacks -> responses -> verdicts.

One engine load answers all evaluations of a checkpoint (`generate`); finished rows live in a store under results/.work, so a changed
benchmark asks only its own prompts again, and each evaluation's response file (`collect_responses`) is re-made on its own.
"""

DIRECT = [name for name, e in PLAN.evaluations.items() if e.attack is None]
ATTACKS = [name for name, e in PLAN.evaluations.items() if e.attack is not None]


rule prompts:
    output:
        rows=paths.PROMPTS,
        manifest=paths.manifest_of(paths.PROMPTS),
        rejects=paths.rejects_of(paths.PROMPTS),
    log:
        "results/logs/prompts/{evaluation}.log",
    benchmark:
        "results/benchmarks/prompts/{evaluation}.tsv"
    wildcard_constraints:
        evaluation="|".join(DIRECT) or "none",
    resources:
        mem_mb=2000,
        runtime=20,
        gpu=0,
    params:
        spec=lambda wildcards: spec_json(PLAN.prompts_spec(wildcards.evaluation)),
    message:
        "Loading prompts of {wildcards.evaluation}"
    shell:
        "{PYTHON} {SCRIPTS}/prompts.py --out {output.rows} --downloads {paths.DOWNLOADS} --spec {params.spec:q} 2>&1 | tee {log}"


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


rule hijack:
    input:
        source=get_attack_source,
        responses=lambda wildcards: get_attack_reference(wildcards, paths.RESPONSES),
        verdicts=lambda wildcards: get_attack_reference(wildcards, paths.VERDICTS),
    output:
        rows=paths.PROMPTS,
        manifest=paths.manifest_of(paths.PROMPTS),
        rejects=paths.rejects_of(paths.PROMPTS),
    log:
        "results/logs/prompts/{evaluation}.log",
    benchmark:
        "results/benchmarks/prompts/{evaluation}.tsv"
    wildcard_constraints:
        evaluation="|".join(ATTACKS) or "none",
    resources:
        mem_mb=2000,
        runtime=120,
        gpu=0,
        api=1,
    params:
        spec=lambda wildcards: spec_json(PLAN.prompts_spec(wildcards.evaluation)),
        source=lambda wildcards, input: (
            f"--source {input.source}" if input.source else ""
        ),
    message:
        "Building attack {wildcards.evaluation}"
    shell:
        "{PYTHON} {SCRIPTS}/hijack.py {params.source} --responses {input.responses} --verdicts {input.verdicts} --out {output.rows} "
        "--work {paths.WORK}/attacker --spec {params.spec:q} 2>&1 | tee {log}"


def get_model(wildcards):
    return get_weights(get_checkpoint(wildcards))


def get_group(wildcards):
    return PLAN.groups_of(get_checkpoint(wildcards))[wildcards.group]


def get_group_prompts(wildcards):
    return expand(paths.PROMPTS, evaluation=get_group(wildcards))


def get_generate_spec(wildcards):
    return spec_json(
        PLAN.generate_spec(get_checkpoint(wildcards), get_group(wildcards))
    )


def get_generate_gpus(wildcards):
    return gpus_for(PLAN.model(wildcards.model).generate_gpus)


rule generate:
    input:
        model=get_model,
        prompts=get_group_prompts,
    output:
        marker=paths.GENERATED,
    log:
        f"results/logs/generate/{paths.RUN}.{{group}}.log",
    benchmark:
        f"results/benchmarks/generate/{paths.RUN}.{{group}}.tsv"
    threads: lambda wildcards: 8 * get_generate_gpus(wildcards) or 1
    resources:
        gpu=get_generate_gpus,
        nodes=1,
        mem_mb=lambda wildcards, attempt: PLAN.model(wildcards.model).memory_gb
        * 1000
        * attempt,
        runtime=lambda wildcards, attempt: 720 * attempt,
    params:
        spec=get_generate_spec,
        folder=lambda wildcards, input: str(Path(input.model).parent),
        prompts=lambda wildcards: named(
            get_group(wildcards), paths.PROMPTS, "evaluation"
        ),
        store=paths.RESPONSE_STORE,
    message:
        "Generating {wildcards.group} responses of {wildcards.model}/{wildcards.method}/{wildcards.run}"
    shell:
        "{GPURUN} {resources.gpu} {PYTHON} {SCRIPTS}/generate.py --checkpoint {params.folder} --prompts {params.prompts} --store {params.store} "
        "--marker {output.marker} --spec {params.spec:q} 2>&1 | tee {log}"


def get_marker(wildcards):
    """`ancient`: another evaluation's change re-runs `generate` of the group, not the collection of this one."""
    group = PLAN.evaluations[wildcards.evaluation].group
    return ancient(
        paths.GENERATED.format(group=group, **vars(get_checkpoint(wildcards)))
    )


rule collect_responses:
    input:
        marker=get_marker,
        model=get_model,
        prompts=paths.PROMPTS,
    output:
        rows=paths.RESPONSES,
        manifest=paths.manifest_of(paths.RESPONSES),
        rejects=paths.rejects_of(paths.RESPONSES),
    log:
        f"results/logs/responses/{paths.RUN}/{{evaluation}}.log",
    benchmark:
        f"results/benchmarks/responses/{paths.RUN}/{{evaluation}}.tsv"
    resources:
        mem_mb=2000,
        runtime=20,
        gpu=0,
    params:
        spec=lambda wildcards: spec_json(
            PLAN.generate_spec(get_checkpoint(wildcards), [wildcards.evaluation])
        ),
        folder=lambda wildcards, input: str(Path(input.model).parent),
        store=lambda wildcards: paths.RESPONSE_STORE.format(
            group=PLAN.evaluations[wildcards.evaluation].group,
            **vars(get_checkpoint(wildcards)),
        ),
    message:
        "Collecting responses to {wildcards.evaluation} of {wildcards.model}/{wildcards.method}/{wildcards.run}"
    shell:
        "{PYTHON} {SCRIPTS}/responses.py --prompts {input.prompts} --store {params.store} --checkpoint {params.folder} --out {output.rows} "
        "--evaluation {wildcards.evaluation} --spec {params.spec:q} 2>&1 | tee {log}"


rule judge:
    input:
        responses=paths.RESPONSES,
    output:
        rows=paths.VERDICTS,
        manifest=paths.manifest_of(paths.VERDICTS),
        rejects=paths.rejects_of(paths.VERDICTS),
    log:
        f"results/logs/judge/{paths.RUN}/{{evaluation}}.log",
    benchmark:
        f"results/benchmarks/judge/{paths.RUN}/{{evaluation}}.tsv"
    resources:
        gpu=lambda wildcards: gpus_for(PLAN.judge_gpus(wildcards.evaluation)),
        nodes=1,
        mem_mb=lambda wildcards, attempt: (
            24000 if PLAN.judge_gpus(wildcards.evaluation) else 2000
        )
        * attempt,
        runtime=lambda wildcards, attempt: 120 * attempt,
    params:
        spec=lambda wildcards: spec_json(PLAN.judge_stage_spec(wildcards.evaluation)),
    message:
        "Judging {wildcards.evaluation} of {wildcards.model}/{wildcards.method}/{wildcards.run}"
    shell:
        "{GPURUN} {resources.gpu} {PYTHON} {SCRIPTS}/judge.py --responses {input.responses} --out {output.rows} --work {paths.WORK}/judge "
        "--spec {params.spec:q} 2>&1 | tee {log}"
