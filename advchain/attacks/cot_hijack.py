"""CoT-Hijack: a harmful request's safe chain is turned from refusal to compliance by a pivot (paper, attack section; METHOD 1.3).

Success: the target's answer is harmful. The name is the paper's; it is not the long-puzzle attack of arXiv 2510.26418.
"""

from __future__ import annotations

import re

from advchain.attacks.build import Direction
from advchain.llm.ask import load_prompt
from advchain.records import Nature

VERSION = 2
SHORT = "CoT-Hijack"
NATURE: Nature = "harmful"
TABLE = "hijack"
PAPER = "CoT-Hijack"
JUDGES = ("string_match", "refusal_phrases")

FULFILLING = r"answer\w*|respon\w+|fulfil\w*|comply|compliance|proceed|deliver|complete\w*|provid\w+|help\w*|assist\w*|go ahead|withdrawn|reply"
DIRECTION = Direction(NATURE, "refused", load_prompt("advchain.attacks", "pivot"), re.compile(rf"\b(?:{FULFILLING})\b", re.IGNORECASE))
