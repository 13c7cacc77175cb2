"""Benchmark prompts and attacks -> responses -> verdicts.

One engine load answers all evaluations of a checkpoint (`generate`); finished rows live in a store under results/.work, so a changed
benchmark asks only its own prompts again, and each evaluation's response file (`collect_responses`) is re-made on its own.
"""

DIRECT = [name for name, e in PLAN.evaluations.items() if e.attack is None]
ROUNDS = [name for name, e in PLAN.evaluations.items() if e.group.startswith("round")]
ATTACKS = [name for name in PLAN.evaluations if name not in DIRECT + ROUNDS]


rule prompts:
    input:
        lambda wildcards: get_local(
            PLAN.prompts_spec(wildcards.evaluation), paths.PROMPTS.format(**wildcards)
        ),
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
    conda:
        "../envs/control.yaml"
    resources:
        mem_mb=growing(2000),
        runtime=growing(20),
        gpu=0,
    params:
        downloads=paths.DOWNLOADS,
        spec=lambda wildcards: spec_json(PLAN.prompts_spec(wildcards.evaluation)),
    message:
        "Loading prompts of {wildcards.evaluation}"
    shell:
        "prompts.py --out {output.rows} --downloads {params.downloads} --spec {params.spec:q} 2>&1 | tee {log}"


rule attack:
    input:
        source=get_attack_source,
        prompts=get_attack_items,
        responses=lambda wildcards: get_attack_reference(wildcards, paths.RESPONSES),
        verdicts=lambda wildcards: ancient(
            get_attack_reference(wildcards, paths.VERDICTS)
        ),
        served=lambda wildcards: get_served(PLAN.prompts_spec(wildcards.evaluation)),
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
    conda:
        "../envs/control.yaml"
    resources:
        mem_mb=lambda wildcards: 2000
        + served_memory(PLAN.prompts_spec(wildcards.evaluation)),
        runtime=growing(120),
        gpu=lambda wildcards: served_gpus(PLAN.prompts_spec(wildcards.evaluation)),
        nodes=1,
        api=1,
    params:
        work=f"{paths.WORK}/attacker",
        judging=get_attack_judging,
        spec=lambda wildcards: spec_json(PLAN.prompts_spec(wildcards.evaluation)),
        source=lambda wildcards, input: (
            f"--source {input.source}" if input.source else ""
        ),
    message:
        "Building attack {wildcards.evaluation}"
    shell:
        "gpurun {resources.gpu} attack.py {params.source} --responses {input.responses} --verdicts {input.verdicts} --items {input.prompts} "
        "--out {output.rows} --work {params.work} --spec {params.spec:q} 2>&1 | tee {log}"


rule attack_again:
    input:
        responses=lambda wildcards: get_round_before(wildcards, paths.RESPONSES),
        verdicts=lambda wildcards: ancient(get_round_before(wildcards, paths.VERDICTS)),
        served=lambda wildcards: get_served(PLAN.prompts_spec(wildcards.evaluation)),
    output:
        rows=paths.ROUND_PROMPTS,
        manifest=paths.manifest_of(paths.ROUND_PROMPTS),
        rejects=paths.rejects_of(paths.ROUND_PROMPTS),
    log:
        f"results/logs/prompts/{paths.RUN}/{{evaluation}}.log",
    benchmark:
        f"results/benchmarks/prompts/{paths.RUN}/{{evaluation}}.tsv"
    wildcard_constraints:
        evaluation="|".join(ROUNDS) or "none",
    conda:
        "../envs/control.yaml"
    resources:
        mem_mb=lambda wildcards: 2000
        + served_memory(PLAN.prompts_spec(wildcards.evaluation)),
        runtime=growing(120),
        gpu=lambda wildcards: served_gpus(PLAN.prompts_spec(wildcards.evaluation)),
        nodes=1,
        api=1,
    params:
        work=f"{paths.WORK}/attacker/{paths.RUN}",
        judging=get_attack_judging,
        spec=lambda wildcards: spec_json(PLAN.prompts_spec(wildcards.evaluation)),
    message:
        "Building attack {wildcards.evaluation} on {wildcards.model}/{wildcards.method}/{wildcards.run}"
    shell:
        "gpurun {resources.gpu} attack.py --responses {input.responses} --verdicts {input.verdicts} --out {output.rows} "
        "--work {params.work} --spec {params.spec:q} 2>&1 | tee {log}"


rule generate:
    input:
        model=get_model,
        prompts=get_group_prompts,
        served=lambda wildcards: get_served(get_generate_plan(wildcards)),
    output:
        marker=paths.GENERATED,
    log:
        f"results/logs/generate/{paths.RUN}.{{group}}.log",
    benchmark:
        f"results/benchmarks/generate/{paths.RUN}.{{group}}.tsv"
    conda:
        "../envs/generate.yaml"
    threads: lambda wildcards: 8 * get_generate_gpus(wildcards) or 1
    resources:
        gpu=get_generate_gpus,
        nodes=1,
        mem_mb=lambda wildcards, attempt: (
            PLAN.model(wildcards.model).memory_gb * 1000
            + served_memory(get_generate_plan(wildcards))
        )
        * attempt,
        runtime=lambda wildcards, attempt: 720 * attempt,
    params:
        spec=get_generate_spec,
        folder=lambda wildcards, input: str(Path(input.model).parent),
        prompts=lambda wildcards, input: [
            f"{name}={path}" for name, path in zip(get_group(wildcards), input.prompts)
        ],
        store=paths.RESPONSE_STORE,
    message:
        "Generating {wildcards.group} responses of {wildcards.model}/{wildcards.method}/{wildcards.run}"
    shell:
        "gpurun {resources.gpu} generate.py --checkpoint {params.folder} --prompts {params.prompts} --store {params.store} "
        "--marker {output.marker} --spec {params.spec:q} 2>&1 | tee {log}"


rule collect_responses:
    input:
        marker=get_marker,
        model=get_model,
        prompts=lambda wildcards: get_prompts(
            get_checkpoint(wildcards), wildcards.evaluation
        ),
    output:
        rows=paths.RESPONSES,
        manifest=paths.manifest_of(paths.RESPONSES),
        rejects=paths.rejects_of(paths.RESPONSES),
    log:
        f"results/logs/responses/{paths.RUN}/{{evaluation}}.log",
    benchmark:
        f"results/benchmarks/responses/{paths.RUN}/{{evaluation}}.tsv"
    conda:
        "../envs/control.yaml"
    resources:
        mem_mb=growing(2000),
        runtime=growing(20),
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
        "responses.py --prompts {input.prompts} --store {params.store} --checkpoint {params.folder} --out {output.rows} "
        "--evaluation {wildcards.evaluation} --spec {params.spec:q} 2>&1 | tee {log}"


rule view_responses:
    input:
        responses=paths.RESPONSES,
    output:
        rows=paths.VIEWS,
        manifest=paths.manifest_of(paths.VIEWS),
        rejects=paths.rejects_of(paths.VIEWS),
    log:
        f"results/logs/views/{paths.RUN}/{{evaluation}}.log",
    benchmark:
        f"results/benchmarks/views/{paths.RUN}/{{evaluation}}.tsv"
    conda:
        "../envs/control.yaml"
    resources:
        mem_mb=growing(2000),
        runtime=growing(20),
        gpu=0,
    params:
        spec=lambda wildcards: spec_json(PLAN.view_spec(wildcards.evaluation)),
    message:
        "Showing the judges more than the answers to {wildcards.evaluation} of {wildcards.model}/{wildcards.method}/{wildcards.run}"
    shell:
        "view.py --responses {input.responses} --out {output.rows} --spec {params.spec:q} 2>&1 | tee {log}"


# One job for all evaluations that one engine load answers and the same judges read. A rule's outputs are fixed, so each such set has a rule.
for name, (judged, models) in get_judge_rules().items():
    served = get_served(PLAN.judge_stage_spec(judged[0]))

    rule:
        name:
            name
        input:
            responses=lambda wildcards, judged=judged: get_judged(wildcards, judged),
            served=served,
        output:
            rows=expand(paths.VERDICTS, evaluation=judged, allow_missing=True),
            manifests=expand(
                paths.manifest_of(paths.VERDICTS),
                evaluation=judged,
                allow_missing=True,
            ),
            rejects=expand(
                paths.rejects_of(paths.VERDICTS), evaluation=judged, allow_missing=True
            ),
        log:
            f"results/logs/judge/{paths.RUN}/{judged[0]}.log",
        benchmark:
            f"results/benchmarks/judge/{paths.RUN}/{judged[0]}.tsv"
        wildcard_constraints:
            model=models,
        conda:
            "../envs/control.yaml"
        resources:
            gpu=max(
                gpus_for(PLAN.judge_gpus(judged[0])),
                served_gpus(PLAN.judge_stage_spec(judged[0])),
            ),
            nodes=1,
            mem_mb=growing(
                (24000 if PLAN.judge_gpus(judged[0]) else 1800)
                + 200 * len(judged)
                + served_memory(PLAN.judge_stage_spec(judged[0]))
            ),
            runtime=growing(min(720, 60 + 60 * len(judged))),
        params:
            work=f"{paths.WORK}/judge",
            spec=lambda wildcards, judged=judged: judge_json(judged),
        message:
            f"Judging {', '.join(judged)} of {{wildcards.model}}/{{wildcards.method}}/{{wildcards.run}}"
        shell:
            "gpurun {resources.gpu} judge.py --responses {input.responses} --out {output.rows} --work {params.work} "
            "--spec {params.spec} 2>&1 | tee {log}"


# With `evaluation: {judge_data: ...}` set, the report prints these figures beside the numbers; without it, those that ship with the package.
rule judge_report:
    input:
        labels=PLAN.own_labels or [],
    output:
        figures=paths.AGREEMENT,
        table=paths.AGREEMENT_TABLE,
    log:
        "results/logs/judge_report.log",
    benchmark:
        "results/benchmarks/judge_report.tsv"
    conda:
        "../envs/control.yaml"
    resources:
        gpu=lambda wildcards: gpus_for(
            max(map(PLAN.judge_gpus, PLAN.evaluations), default=0)
        ),
        mem_mb=growing(8000),
        runtime=growing(240),
    params:
        data=PLAN.config.evaluation.judge_data or "",
        judges=PLAN.further_judges(),
        measured=[spec_json(spec) for spec in PLAN.measured_judges()],
        folder=lambda wildcards, output: str(Path(output.figures).parent),
    message:
        "Comparing judges with people's labels"
    shell:
        "gpurun {resources.gpu} judge_report.py --data {params.data:q} --judges {params.judges} --out {params.folder} 2>&1 | tee {log}"
