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
    resources:
        mem_mb=2000,
        runtime=20,
        gpu=0,
    params:
        spec=lambda wildcards: spec_json(PLAN.source_spec(wildcards.source)),
    message:
        "Reading source {wildcards.source}"
    shell:
        "{PYTHON} {SCRIPTS}/source.py --out {output.rows} --downloads {paths.DOWNLOADS} --spec {params.spec:q} 2>&1 | tee {log}"


def get_chain_source(wildcards):
    return paths.SOURCE.format(source=PLAN.config.chains[wildcards.chains].source)


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
    resources:
        mem_mb=2000,
        runtime=240,
        gpu=0,
        api=1,
    params:
        spec=lambda wildcards: spec_json(PLAN.chains_spec(wildcards.chains)),
    message:
        "Rewriting chains: {wildcards.chains}"
    shell:
        "{PYTHON} {SCRIPTS}/chains.py --source {input.source} --out {output.rows} --work {paths.WORK}/teacher --spec {params.spec:q} 2>&1 | tee {log}"


def get_parts(wildcards, kind):
    parts = PLAN.dataset_spec(wildcards.recipe).parts
    return sorted({getattr(part, kind) for part in parts if getattr(part, kind)})


def get_recipe_chains(wildcards):
    return expand(paths.CHAINS, chains=get_parts(wildcards, "chains"))


def get_recipe_sources(wildcards):
    return expand(paths.SOURCE, source=get_parts(wildcards, "source"))


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
        "{PYTHON} {SCRIPTS}/dataset.py --out {output.rows} --card {output.card} --chains {params.chains} --sources {params.sources} "
        "--spec {params.spec:q} 2>&1 | tee {log}"
