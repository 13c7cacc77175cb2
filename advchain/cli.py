"""What every script shares: logging to stderr, user errors as one paragraph without traceback, exit codes."""

from __future__ import annotations

import getpass
import logging
import os
import signal
import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from advchain.errors import AdvChainError, ConfigError

S = TypeVar("S", bound=BaseModel)
STOPPED = 128 + signal.SIGTERM  # exit code of a stage that was asked to stop: it did not finish, and goes on when it is run again


def start_logging() -> None:
    """Log to stderr: this package from INFO (or ADVCHAIN_LOG), libraries from WARNING."""
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(message)s", datefmt="%H:%M:%S", stream=sys.stderr)
    logging.getLogger("advchain").setLevel(os.environ.get("ADVCHAIN_LOG", "INFO").upper())


def write_privately() -> None:
    """Let nobody else read what is written from here on: harmful text is among it. ADVCHAIN_UMASK (octal, e.g. 007 for a group) says otherwise."""
    mask = os.environ.get("ADVCHAIN_UMASK", "077")
    try:
        os.umask(int(mask, 8) & 0o777)
    except ValueError:
        raise ConfigError(f"environment variable ADVCHAIN_UMASK: '{mask}' is no file mode mask in octal digits, such as 077 or 007.") from None


def parse_spec(kind: type[S], text: str) -> S:
    """Read `--spec`, a spec as JSON.

    Raises:
        ConfigError: the JSON does not fit the stage; names the field.
    """
    try:
        return kind.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "--spec"
        raise ConfigError(f"--spec of {kind.__name__}: {where}: {first['msg']}.") from error


def name_user() -> None:
    """Give a user without an account a name: containers run under any number, and Snakemake and torch end where there is none."""
    try:
        getpass.getuser()
    except (KeyError, OSError):
        os.environ["LOGNAME"] = f"uid{os.getuid()}"


def run(main: Callable[[], None]) -> None:
    """Run a script's `main`; print an AdvChainError as one paragraph and exit 1, let bugs keep their traceback."""
    start_logging()
    signal.signal(signal.SIGTERM, _stop)
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")  # stderr goes to a log file; set it to 0 to see them
    try:
        write_privately()
        name_user()
        main()
    except AdvChainError as error:
        width = 100 if sys.stderr.isatty() else 10_000
        sys.stderr.write("\n" + textwrap.fill(f"error: {error}", width=width, break_long_words=False, break_on_hyphens=False) + "\n")
        sys.exit(1)
    except SystemExit as end:
        if end.code != STOPPED:
            raise
        logging.shutdown()
        os._exit(STOPPED)  # everything is kept and closed; taking torch apart in memory would cost seconds of the grace


def _stop(number: int, frame: FrameType | None) -> None:
    """Leave at once, through every `finally` and `with`: stores hold each finished row already, temporary files go, engines end (RELIABILITY B11)."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # schedulers ask more than once
    os.write(2, b"asked to stop (SIGTERM); what is finished is kept, the next run goes on from there\n")
    raise SystemExit(STOPPED)


@contextmanager
def stop_noted() -> Iterator[Callable[[], bool]]:
    """Let SIGTERM only be noted inside, for work that ends at points of its own; gives a function that says whether it came."""
    came: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: came.append(number))
    try:
        yield lambda: bool(came)
    finally:
        signal.signal(signal.SIGTERM, before)


def put_on_path(root: Path) -> None:
    """Let shell commands find `root`/scripts by name, the Python that runs us, and this package whatever environment they run in."""
    places = [str(root / "scripts"), str(Path(sys.executable).parent), os.environ.get("PATH", "")]
    os.environ["PATH"] = os.pathsep.join(filter(None, places))
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(root), os.environ.get("PYTHONPATH")]))


def errors_told(logs: Path, since: float) -> list[str]:
    """Return what failed jobs said in their logs since a moment (seconds of the epoch), so that it can be said once more at the end."""
    fresh = [path for path in sorted(logs.rglob("*.log")) if path.stat().st_mtime >= since]
    return [f"{line} [{path}]" for path in fresh for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if line.startswith("error: ")]


def named_paths(option: str, values: Iterable[str]) -> dict[str, Path]:
    """Read the `name=path` arguments of `option`.

    Raises:
        ConfigError: an argument is something else.
    """
    for value in values:
        if "=" not in value:
            raise ConfigError(f"{option}: '{value}' is not name=path.")
    return {name: Path(path) for name, _, path in (value.partition("=") for value in values)}
