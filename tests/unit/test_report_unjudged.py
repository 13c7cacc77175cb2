"""The health table says what a content filter cut and what judges refused to judge, pooled over seeds as the rest of its row is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from report_grid import EVALUATIONS, REFUSAL, Grid, checkpoint, report_spec, score_spec

from advchain.manifests import manifest_path
from advchain.report.provenance import read_manifests
from advchain.report.scores import score
from advchain.report.tables import health_table, read_scores
from advchain.report.unjudged import with_unjudged


def plant(path: Path, counts: dict[str, Any]) -> Path:
    """Put counts into a file's manifest."""
    found = manifest_path(path)
    found.write_text(json.dumps(json.loads(found.read_text()) | {"counts": counts}))
    return found


def test_counts_stand_in_their_own_cell(tmp_path: Path) -> None:
    grid, manifests = Grid(tmp_path), []
    infos = [checkpoint("base", "released"), checkpoint("advchain", "seed0"), checkpoint("advchain", "seed1")]
    for number, info in enumerate(infos):
        key = (info.model, info.method, info.run, "xstest")
        grid.add(key, {REFUSAL: ["refused"] * 10})
        judged = {REFUSAL: {"refused": 7, "refused_to_judge": 3}, "other": {"refused_to_judge": number}, "content_filter": {"other": number}, "sentinels": {}}
        manifests += [plant(grid.responses[key], {"closed": 10, "filtered": 2 * number}), plant(grid.verdicts[key], judged)]
    spec = score_spec(infos, {"xstest": EVALUATIONS["xstest"]})
    score(tmp_path / "scores.csv", spec, grid.verdicts, grid.responses)
    shown = report_spec(spec)
    health = with_unjudged(health_table(shown, read_scores(tmp_path / "scores.csv")), shown, read_manifests(manifests))
    assert list(health.header[-2:]) == ["Filtered", "Judge refused"]
    assert [list(row[-2:]) for row in health.rows] == [["0", "3"], ["6", "9 (3)"]]
    assert [(row["filtered"], row["judge_refused"], row["judge_filtered"]) for row in health.raw] == [(0, 3, 0), (6, 9, 3)]
    assert {row["run"] for row in health.raw} == {"released", "pooled"}
