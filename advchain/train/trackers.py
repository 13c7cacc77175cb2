"""Where the figures of a training go while it runs: TensorBoard event files, Weights & Biases, MLflow (USERS want 3; `train.trackers`).

Each is one small function around the package's own interface. They see figures and settings, never a text of the data set.
"""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from advchain.errors import ConfigError, did_you_mean

PACKAGES = {"tensorboard": "tensorboardX", "wandb": "wandb", "mlflow": "mlflow"}


class Tracker(NamedTuple):
    """`log(step, figures)` takes the figures of one step, `close()` ends it."""

    log: Callable[[int, Mapping[str, float]], Any]
    close: Callable[[], Any]


class Run(NamedTuple):
    """What a tracker is told of a training.

    Attributes:
        folder: for what it writes on this machine.
        name: model/method/run.
        identity: digest of all that the training depends on.
        settings: shown beside the figures.
        start: steps done by an earlier run.
    """

    folder: Path
    name: str
    identity: str
    settings: Mapping[str, Any]
    start: int


def tensorboard(run: Run) -> Tracker:
    """Event files in the folder; read them with `tensorboard --logdir`."""
    from tensorboardX import SummaryWriter

    try:
        writer = SummaryWriter(str(run.folder), purge_step=run.start + 1 if run.start else None, flush_secs=10)
    except OSError as error:
        raise ConfigError(
            f"train.trackers: tensorboard cannot start ({error}). It needs a writable {run.folder} and, for its queue, a writable /dev/shm: mend that, or "
            "leave it out with `train: {trackers: []}`."
        ) from error
    writer.add_text("settings", f"```json\n{json.dumps(dict(run.settings), indent=2, default=str)}\n```", run.start)

    def log(step: int, figures: Mapping[str, float]) -> None:
        for key, value in figures.items():
            writer.add_scalar(f"train/{key}", value, step)

    return Tracker(log, writer.close)


def wandb(run: Run) -> Tracker:
    """A run of the project "advchain" (WANDB_PROJECT); WANDB_MODE=offline keeps it on this machine. A resumed training goes on in its run."""
    import wandb as package

    run.folder.mkdir(parents=True, exist_ok=True)
    project = os.environ.get("WANDB_PROJECT", "advchain")
    started = package.init(project=project, name=run.name, id=run.identity[:16], resume="allow", dir=str(run.folder), config=dict(run.settings))
    return Tracker(lambda step, figures: started.log(dict(figures), step=step), started.finish)


def mlflow(run: Run) -> Tracker:
    """A run of the experiment "advchain" at MLFLOW_TRACKING_URI; without one, in an SQLite file in the folder."""
    import mlflow as package

    run.folder.mkdir(parents=True, exist_ok=True)
    if "MLFLOW_TRACKING_URI" not in os.environ:
        package.set_tracking_uri(f"sqlite:///{(run.folder / 'mlflow.db').resolve()}")
    package.set_experiment(os.environ.get("MLFLOW_EXPERIMENT_NAME", "advchain"))
    package.start_run(run_name=run.name, tags={"identity": run.identity})
    package.log_params({key: str(value) for key, value in run.settings.items()})
    return Tracker(lambda step, figures: package.log_metrics(dict(figures), step=step), package.end_run)


KINDS: dict[str, Callable[[Run], Tracker]] = {"tensorboard": tensorboard, "wandb": wandb, "mlflow": mlflow}


def check_trackers(names: Sequence[str]) -> None:
    """Look for the packages before anything is trained.

    Raises:
        ConfigError: an unknown tracker, or its package is not installed here.
    """
    for name in names:
        if name not in PACKAGES:
            raise ConfigError(f"train.trackers: unknown tracker '{name}'; {did_you_mean(name, PACKAGES)}")
        if importlib.util.find_spec(PACKAGES[name]) is None:
            raise ConfigError(
                f"train.trackers: '{name}' needs the package {PACKAGES[name]}, which is not installed in the environment that trains. "
                f"Run `pip install {PACKAGES[name]}` there, or take '{name}' off the list."
            )
