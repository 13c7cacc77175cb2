"""Every results/ path, as a Snakemake-style template. Nothing else in the project spells a results path."""

from __future__ import annotations

RESULTS = "results"
WORK = f"{RESULTS}/.work"  # undeclared: survives failed jobs (training checkpoints, API cache, finished generations)
DOWNLOADS = f"{WORK}/downloads"

SOURCE = f"{RESULTS}/sources/{{source}}.jsonl"
CHAINS = f"{RESULTS}/chains/{{chains}}.jsonl"
DATASET = f"{RESULTS}/datasets/{{recipe}}.jsonl"
DATASET_CARD = f"{RESULTS}/datasets/{{recipe}}.card.md"
COMPARED = f"{RESULTS}/contamination/benchmarks/{{compared}}.jsonl"
MATCHES = f"{RESULTS}/contamination/{{recipe}}.jsonl"
CONTAMINATION = f"{RESULTS}/contamination.md"
EXPORT = f"{RESULTS}/export/{{recipe}}/README.md"
EXPORT_DATA = f"{RESULTS}/export/{{recipe}}/data/train-00000-of-00001.parquet"
GUARD_REPORT = f"{RESULTS}/export/{{recipe}}/guard.json"
GUARD_PAGE = f"{RESULTS}/export/{{recipe}}/guard.md"
PUBLISHED = f"{RESULTS}/published.json"
SERVE_LOG = f"{RESULTS}/logs/serve/{{teacher}}.log"
MODEL = f"{RESULTS}/models/{{model}}/model.json"
RUN = "{model}/{method}/{run}"
CHECKPOINT = f"{RESULTS}/checkpoints/{RUN}/model.json"
TRAINING_LOG = f"{RESULTS}/checkpoints/{RUN}/training.jsonl"
TRAINING_WORK = f"{WORK}/training/{RUN}"
PROMPTS = f"{RESULTS}/prompts/{{evaluation}}.jsonl"
ROUND_PROMPTS = f"{RESULTS}/prompts/{RUN}/{{evaluation}}.jsonl"  # a further round of an attack forces something else on each checkpoint
GENERATED = f"{RESULTS}/generated/{RUN}/{{group}}.json"
RESPONSE_STORE = f"{WORK}/responses/{RUN}/{{group}}.store"
RESPONSES = f"{RESULTS}/responses/{RUN}/{{evaluation}}.jsonl"
VIEWS = f"{RESULTS}/views/{RUN}/{{evaluation}}.jsonl"
VERDICTS = f"{RESULTS}/verdicts/{RUN}/{{evaluation}}.jsonl"
SCORES = f"{RESULTS}/scores.csv"
CONTRASTS = f"{RESULTS}/contrasts.csv"
DRIFT = f"{RESULTS}/drift.csv"
DRIFT_CURVES = f"{RESULTS}/drift_curves.csv"
SCORER_AGREEMENT = f"{RESULTS}/scorer_agreement.csv"
DRIFT_CONTRASTS = f"{RESULTS}/drift_contrasts.csv"
VARIANCE = f"{RESULTS}/variance.csv"
DISAGREEMENTS = f"{RESULTS}/disagreements.csv"
AGREEMENT = f"{RESULTS}/judges/agreement.json"
AGREEMENT_TABLE = f"{RESULTS}/judges/agreement.tsv"
REPORT = f"{RESULTS}/report.html"
EXPLORER = f"{RESULTS}/explorer/index.html"
SUMMARY = f"{RESULTS}/summary.md"
TABLES = f"{RESULTS}/tables"
FIGURES = f"{RESULTS}/figures"


def manifest_of(path: str) -> str:
    """Return the manifest beside a stage file: `x.jsonl` -> `x.manifest.json`."""
    return path.removesuffix(".jsonl").removesuffix(".csv") + ".manifest.json"


def rejects_of(path: str) -> str:
    """Return the reject file beside a stage file: `x.jsonl` -> `x.rejects.jsonl`."""
    return path.removesuffix(".jsonl") + ".rejects.jsonl"
