"""Sources -> chains -> training sets.

Outputs: results/sources/*.jsonl, results/chains/*.jsonl (T-C and H-C samples), results/datasets/*.jsonl with a card each. Every file has
a manifest (inputs' hashes, spec, counts) and a reject file beside it.
"""


rule source:
    output:
        rows=paths.SOURCE,
        manifest=paths.manifest_of(paths.SOURCE),
        rejects=paths.rejects_of(paths.SOURCE),
    log:
        "results/logs/source/{source}.log",
    benchmark:
        "results/benchmarks/source/{source}.tsv"
    conda:
        "../envs/control.yaml"
    resources:
        mem_mb=2000,
        runtime=20,
        gpu=0,
    params:
        downloads=paths.DOWNLOADS,
        spec=lambda wildcards: spec_json(PLAN.source_spec(wildcards.source)),
    message:
        "Reading source {wildcards.source}"
    shell:
        "source.py --out {output.rows} --downloads {params.downloads} --spec {params.spec:q} 2>&1 | tee {log}"


rule rewrite_chains:
    input:
        source=get_chain_source,
    output:
        rows=paths.CHAINS,
        manifest=paths.manifest_of(paths.CHAINS),
        rejects=paths.rejects_of(paths.CHAINS),
    log:
        "results/logs/chains/{chains}.log",
    benchmark:
        "results/benchmarks/chains/{chains}.tsv"
    conda:
        "../envs/control.yaml"
    resources:
        mem_mb=2000,
        runtime=240,
        gpu=0,
        api=1,
    params:
        work=f"{paths.WORK}/teacher",
        spec=lambda wildcards: spec_json(PLAN.chains_spec(wildcards.chains)),
    message:
        "Rewriting chains: {wildcards.chains}"
    shell:
        "chains.py --source {input.source} --out {output.rows} --work {params.work} --spec {params.spec:q} 2>&1 | tee {log}"


rule mix_dataset:
    input:
        chains=get_recipe_chains,
        sources=get_recipe_sources,
    output:
        rows=paths.DATASET,
        manifest=paths.manifest_of(paths.DATASET),
        rejects=paths.rejects_of(paths.DATASET),
        card=paths.DATASET_CARD,
    log:
        "results/logs/dataset/{recipe}.log",
    benchmark:
        "results/benchmarks/dataset/{recipe}.tsv"
    conda:
        "../envs/control.yaml"
    resources:
        mem_mb=2000,
        runtime=20,
        gpu=0,
    params:
        spec=lambda wildcards: spec_json(PLAN.dataset_spec(wildcards.recipe)),
        chains=lambda wildcards: named(
            get_parts(wildcards, "chains"), paths.CHAINS, "chains"
        ),
        sources=lambda wildcards: named(
            get_parts(wildcards, "source"), paths.SOURCE, "source"
        ),
    message:
        "Mixing training set {wildcards.recipe}"
    shell:
        "dataset.py --out {output.rows} --card {output.card} --chains {params.chains} --sources {params.sources} "
        "--spec {params.spec:q} 2>&1 | tee {log}"
