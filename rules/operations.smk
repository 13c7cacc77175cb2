"""Before and after a run: `snakemake doctor` looks at this machine, `snakemake verify` at the results. Nothing is written but a log.

The same as `scripts/doctor.py` and `scripts/verify.py`, with the config of this run; doctor by hand also tells what is wrong with a config.
"""

CHECKED = {
    "config": CONFIG_FILES,
    "overrides": json.dumps(workflow.config_settings.config),
    "results": paths.RESULTS,
}


rule doctor:
    log:
        "results/logs/doctor.log",
    conda:
        "../envs/control.yaml"
    params:
        **CHECKED,
    message:
        "Looking at this machine"
    shell:
        "doctor.py --config {params.config} --set {params.overrides:q} --results {params.results} 2>&1 | tee {log}"


rule verify:
    log:
        "results/logs/verify.log",
    conda:
        "../envs/control.yaml"
    params:
        **CHECKED,
    message:
        "Checking the results"
    shell:
        "verify.py --config {params.config} --set {params.overrides:q} --results {params.results} 2>&1 | tee {log}"
