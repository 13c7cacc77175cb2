"""Sources -> chains -> training sets.

Outputs: results/sources/*.jsonl, results/chains/*.jsonl (T-C and H-C samples), results/datasets/*.jsonl with a card each,
results/contamination/*.jsonl and contamination.md (training prompts against whole benchmarks). Every JSONL file has a manifest (inputs' hashes,
spec, counts) and a reject file beside it. `export` and `publish` are targets of their own.
"""


rule source:
    input:
        lambda wildcards: get_local(
            PLAN.source_spec(wildcards.source), paths.SOURCE.format(**wildcards)
        ),
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
        served=lambda wildcards: get_served(PLAN.chains_spec(wildcards.chains)),
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
        mem_mb=lambda wildcards: 2000
        + served_memory(PLAN.chains_spec(wildcards.chains)),
        runtime=240,
        gpu=lambda wildcards: served_gpus(PLAN.chains_spec(wildcards.chains)),
        nodes=1,
        api=1,
    params:
        work=f"{paths.WORK}/teacher",
        spec=lambda wildcards: spec_json(PLAN.chains_spec(wildcards.chains)),
    message:
        "Rewriting chains: {wildcards.chains}"
    shell:
        "gpurun {resources.gpu} chains.py --source {input.source} --out {output.rows} --work {params.work} --spec {params.spec:q} 2>&1 | tee {log}"


COMPARED = expand(paths.COMPARED, compared=PLAN.compared) + expand(
    paths.SOURCE, source=PLAN.compared_sources
)
COMPARED_BY_NAME = " ".join(
    [
        "--benchmarks",
        *named(PLAN.compared, paths.COMPARED, "compared"),
        "--hijacked",
        *named(PLAN.compared_sources, paths.SOURCE, "source"),
    ]
)


rule mix_dataset:
    input:
        chains=get_recipe_chains,
        sources=get_recipe_sources,
        compared=get_strict(COMPARED, []),
    output:
        rows=paths.DATASET,
        manifest=paths.manifest_of(paths.DATASET),
        rejects=paths.rejects_of(paths.DATASET),
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
        files=get_inputs_by_name,
        compared=get_strict(COMPARED_BY_NAME, ""),
    message:
        "Mixing training set {wildcards.recipe}"
    shell:
        "dataset.py --out {output.rows} {params.files} {params.compared} --spec {params.spec:q} 2>&1 | tee {log}"


rule compared_benchmark:
    input:
        lambda wildcards: get_local(
            PLAN.compared[wildcards.compared], paths.COMPARED.format(**wildcards)
        ),
    output:
        rows=paths.COMPARED,
        manifest=paths.manifest_of(paths.COMPARED),
        rejects=paths.rejects_of(paths.COMPARED),
    log:
        "results/logs/contamination/benchmarks/{compared}.log",
    benchmark:
        "results/benchmarks/contamination/benchmarks/{compared}.tsv"
    conda:
        "../envs/control.yaml"
    resources:
        mem_mb=2000,
        runtime=20,
        gpu=0,
    params:
        downloads=paths.DOWNLOADS,
        spec=lambda wildcards: spec_json(PLAN.compared[wildcards.compared]),
    message:
        "Reading the whole of benchmark {wildcards.compared}"
    shell:
        "prompts.py --out {output.rows} --downloads {params.downloads} --spec {params.spec:q} 2>&1 | tee {log}"


rule contamination:
    input:
        dataset=paths.DATASET,
        compared=COMPARED,
    output:
        rows=paths.MATCHES,
        manifest=paths.manifest_of(paths.MATCHES),
        rejects=paths.rejects_of(paths.MATCHES),
    log:
        "results/logs/contamination/{recipe}.log",
    benchmark:
        "results/benchmarks/contamination/{recipe}.tsv"
    conda:
        "../envs/control.yaml"
    resources:
        mem_mb=2000,
        runtime=30,
        gpu=0,
    params:
        spec=spec_json(PLAN.contamination_spec()),
        compared=COMPARED_BY_NAME,
    message:
        "Comparing training set {wildcards.recipe} with the benchmarks"
    shell:
        "contamination.py --out {output.rows} --dataset {input.dataset} {params.compared} --spec {params.spec:q} 2>&1 | tee {log}"


rule contamination_table:
    input:
        matches=expand(paths.MATCHES, recipe=PLAN.recipes),
    output:
        table=paths.CONTAMINATION,
    log:
        "results/logs/contamination.log",
    benchmark:
        "results/benchmarks/contamination.tsv"
    conda:
        "../envs/control.yaml"
    resources:
        mem_mb=2000,
        runtime=10,
        gpu=0,
    params:
        matches=named(PLAN.recipes, paths.MATCHES, "recipe"),
    message:
        "Putting the contamination reports into one table"
    shell:
        "contamination.py --out {output.table} --matches {params.matches} 2>&1 | tee {log}"


rule dataset_card:
    input:
        dataset=paths.DATASET,
        chains=get_recipe_chains,
        sources=lambda wildcards: expand(
            paths.SOURCE, source=get_card_sources(wildcards)
        ),
        matches=paths.MATCHES,
    output:
        card=paths.DATASET_CARD,
    log:
        "results/logs/card/{recipe}.log",
    benchmark:
        "results/benchmarks/card/{recipe}.tsv"
    conda:
        "../envs/control.yaml"
    resources:
        mem_mb=2000,
        runtime=10,
        gpu=0,
    params:
        version=versions.CARD,
        chains=lambda wildcards: named(
            get_parts(wildcards, "chains"), paths.CHAINS, "chains"
        ),
        sources=lambda wildcards: named(
            get_card_sources(wildcards), paths.SOURCE, "source"
        ),
    message:
        "Writing the card of training set {wildcards.recipe}"
    shell:
        "card.py --out {output.card} --dataset {input.dataset} --matches {input.matches} --chains {params.chains} "
        "--sources {params.sources} 2>&1 | tee {log}"


rule export_dataset:
    input:
        dataset=paths.DATASET,
        card=paths.DATASET_CARD,
    output:
        readme=paths.EXPORT,
        data=paths.EXPORT_DATA,
    log:
        "results/logs/export/{recipe}.log",
    benchmark:
        "results/benchmarks/export/{recipe}.tsv"
    conda:
        "../envs/control.yaml"
    resources:
        mem_mb=2000,
        runtime=20,
        gpu=0,
    params:
        spec=lambda wildcards: spec_json(PLAN.export_spec(wildcards.recipe)),
        folder=lambda wildcards, output: str(Path(output.readme).parent),
    message:
        "Exporting training set {wildcards.recipe}"
    shell:
        "export.py --out {params.folder} --dataset {input.dataset} --card {input.card} --spec {params.spec:q} 2>&1 | tee {log}"


rule guard_report:
    input:
        dataset=paths.DATASET,
        readme=paths.EXPORT,
    output:
        figures=paths.GUARD_REPORT,
        page=paths.GUARD_PAGE,
    log:
        "results/logs/guard_report/{recipe}.log",
    benchmark:
        "results/benchmarks/guard_report/{recipe}.tsv"
    conda:
        "../envs/control.yaml"
    resources:
        mem_mb=2000,
        runtime=20,
        gpu=0,
    params:
        folder=lambda wildcards, output: str(Path(output.page).parent),
    message:
        "Guarding training set {wildcards.recipe}"
    shell:
        "guard_report.py --dataset {input.dataset} --out {params.folder} 2>&1 | tee {log}"


rule publish:
    input:
        readme=expand(paths.EXPORT, recipe=PLAN.config.publish.recipe),
        data=expand(paths.EXPORT_DATA, recipe=PLAN.config.publish.recipe),
        guard=expand(paths.GUARD_REPORT, recipe=PLAN.config.publish.recipe),
    output:
        record=paths.PUBLISHED,
    log:
        "results/logs/publish.log",
    conda:
        "../envs/control.yaml"
    resources:
        mem_mb=2000,
        runtime=60,
        gpu=0,
    params:
        spec=spec_json(PLAN.publish_spec()),
        folder=lambda wildcards, input: str(Path(input.readme[0]).parent),
    message:
        "Uploading training set {PLAN.config.publish.recipe}"
    shell:
        "publish.py --out {output.record} --folder {params.folder} --spec {params.spec:q} 2>&1 | tee {log}"
