"""Verdicts -> scores -> tables, figures, report.

Outputs: results/scores.csv, contrasts.csv, drift.csv, drift_curves.csv, disagreements.csv; results/tables/*.csv|md|html|tex; results/figures/*.svg|png|pdf;
results/report.html (one self-contained file), results/summary.md and results/explorer (a page to look into single chains). Every number can be
followed back: table -> scores -> verdicts -> responses -> checkpoint -> dataset -> chains. `estimate` prints what all of it will take, before anything runs.
"""

TABLES = [
    "safety",
    "hijack",
    "attacks",
    "over_refusal",
    "reasoning",
    "ratio",
    "paper",
    "claims",
    "contrasts",
    "judges",
    "agreement",
    "corrected",
    "health",
    "drift",
    "drift_contrasts",
    "scorers",
    "variance",
    "curves",
    "costs",
    "provenance",
]
FIGURES = [
    "tradeoff",
    "forest",
    "recovery",
    "forest_chains",
    "drift",
    "conditions",
    "ratio",
    "size",
    "rate",
    "snowball",
    "training",
]


rule score:
    input:
        responses=get_all(paths.RESPONSES),
        verdicts=get_all(paths.VERDICTS),
    output:
        scores=paths.SCORES,
        contrasts=paths.CONTRASTS,
        drift=paths.DRIFT,
        curves=paths.DRIFT_CURVES,
        scorer_agreement=paths.SCORER_AGREEMENT,
        drift_contrasts=paths.DRIFT_CONTRASTS,
        variance=paths.VARIANCE,
        disagreements=paths.DISAGREEMENTS,
        manifest=paths.manifest_of(paths.SCORES),
    log:
        "results/logs/score.log",
    benchmark:
        "results/benchmarks/score.tsv"
    conda:
        "../envs/control.yaml"
    threads: 4
    resources:
        mem_mb=growing(4000),
        runtime=growing(30),
        gpu=0,
    params:
        results=lambda wildcards, output: str(Path(output.scores).parent),
        spec=spec_json(PLAN.score_spec()),
    message:
        "Counting verdicts"
    shell:
        "score.py --responses {params.results}/responses --verdicts {params.results}/verdicts --out {output.scores} "
        "--processes {threads} --spec {params.spec:q} 2>&1 | tee {log}"


rule report:
    input:
        scores=paths.SCORES,
        contrasts=paths.CONTRASTS,
        drift=paths.DRIFT,
        drift_curves=paths.DRIFT_CURVES,
        scorer_agreement=paths.SCORER_AGREEMENT,
        drift_contrasts=paths.DRIFT_CONTRASTS,
        variance=paths.VARIANCE,
        datasets=expand(paths.DATASET, recipe=PLAN.recipes),
        chains=expand(paths.CHAINS, chains=get_recipe_chain_sets()),
        training=[paths.TRAINING_LOG.format(**vars(c)) for c in get_trained()],
        manifests=get_manifests(),
        paper=ROOT / "config" / "paper_numbers.yaml",
        agreement=[paths.AGREEMENT] if PLAN.config.evaluation.judge_data else [],
    output:
        page=report(
            paths.REPORT,
            category="Report",
            caption="../config/captions/report.rst",
            labels={"page": "report"},
        ),
        summary=paths.SUMMARY,
        csv=[
            report(
                f"{paths.TABLES}/{table}.csv",
                category="Tables",
                caption="../config/captions/table.rst",
                labels={"table": table.replace("_", " ")},
            )
            for table in TABLES
        ],
        readable=expand(
            f"{paths.TABLES}/{{table}}.{{kind}}",
            table=TABLES,
            kind=["md", "html", "tex"],
        ),
        figures=[
            report(
                f"{paths.FIGURES}/{figure}.svg",
                category="Figures",
                caption=f"../config/captions/{figure}.rst",
                labels={"figure": figure.replace("_", " ")},
            )
            for figure in FIGURES
        ],
        pictures=expand(
            f"{paths.FIGURES}/{{figure}}.{{kind}}", figure=FIGURES, kind=["png", "pdf"]
        ),
    log:
        "results/logs/report.log",
    benchmark:
        "results/benchmarks/report.tsv"
    conda:
        "../envs/control.yaml"
    threads: 4
    resources:
        mem_mb=growing(4000),
        runtime=growing(30),
        gpu=0,
    params:
        results=lambda wildcards, output: str(Path(output.page).parent),
        spec=spec_json(PLAN.report_spec(deviations(PLAN))),
        datasets=named(PLAN.recipes, paths.DATASET, "recipe"),
        chains=named(get_recipe_chain_sets(), paths.CHAINS, "chains"),
        training=[
            f"{c.path}={paths.TRAINING_LOG.format(**vars(c))}" for c in get_trained()
        ],
        agreement=lambda wildcards, input: (
            f"--agreement {input.agreement}" if input.agreement else ""
        ),
    message:
        "Writing tables, figures and report"
    shell:
        "report.py --scores {input.scores} --paper {input.paper:q} --datasets {params.datasets} --chains {params.chains} "
        "--training {params.training} --manifests {input.manifests} --responses {params.results}/responses --verdicts {params.results}/verdicts "
        "{params.agreement} --processes {threads} --out {params.results} --spec {params.spec:q} 2>&1 | tee {log}"


rule explorer:
    input:
        responses=get_all(paths.RESPONSES),
        verdicts=get_all(paths.VERDICTS),
        samples=expand(paths.DATASET, recipe=PLAN.recipes),
    output:
        page=paths.EXPLORER,
    log:
        "results/logs/explorer.log",
    benchmark:
        "results/benchmarks/explorer.tsv"
    conda:
        "../envs/control.yaml"
    resources:
        mem_mb=growing(4000),
        runtime=growing(30),
        gpu=0,
    params:
        folder=lambda wildcards, output: str(Path(output.page).parent),
        results=lambda wildcards, output: str(Path(output.page).parent.parent),
        samples=named(PLAN.recipes, paths.DATASET, "recipe"),
        spec=spec_json(PLAN.report_spec()),
    message:
        "Writing the page to look into single chains"
    shell:
        "explorer.py --responses {params.results}/responses --verdicts {params.results}/verdicts --samples {params.samples} "
        "--out {params.folder} --spec {params.spec:q} 2>&1 | tee {log}"


rule estimate:
    log:
        "results/logs/estimate.log",
    conda:
        "../envs/control.yaml"
    params:
        files=CONFIG_FILES,
        overrides=json.dumps(workflow.config_settings.config),
        results=paths.RESULTS,
    message:
        "Estimating memory, time, calls, money and disk"
    shell:
        "estimate.py --config {params.files:q} --set {params.overrides:q} --results {params.results} 2>&1 | tee {log}"
