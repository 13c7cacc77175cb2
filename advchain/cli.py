"""What every script shares: logging to stderr, user errors as one paragraph without traceback, exit codes."""

from __future__ import annotations

import logging
import os
import sys
import textwrap
from collections.abc import Callable

from advchain.errors import AdvChainError


def run(main: Callable[[], None]) -> None:
    """Run a script's `main`; print an AdvChainError as one paragraph and exit 1, let bugs keep their traceback."""
    logging.basicConfig(
        level=os.environ.get("ADVCHAIN_LOG", "INFO").upper(), format="%(asctime)s %(levelname)s %(message)s", datefmt="%H:%M:%S", stream=sys.stderr
    )
    for noisy in ("httpx", "httpx2", "httpcore", "httpcore2", "aiohttp", "filelock", "fsspec", "urllib3"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    try:
        main()
    except AdvChainError as error:
        width = 100 if sys.stderr.isatty() else 10_000
        sys.stderr.write("\n" + textwrap.fill(f"error: {error}", width=width, break_long_words=False, break_on_hyphens=False) + "\n")
        sys.exit(1)
