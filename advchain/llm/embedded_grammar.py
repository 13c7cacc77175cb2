"""The engine under the embedded teacher: read templates, expand them with a seeded generator until the text is well formed.

Template language: `[a|b]` picks one (nesting allowed), `{slot}` is filled from the terms of the request, `<rule>` from the rules.
The templates are in `grammar/*.txt`.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources

Rules = Mapping[str, Sequence[str]]
Terms = Mapping[str, Sequence[str]]

CHOICE = re.compile(r"\[([^\[\]]*)\]")
SLOT = re.compile(r"\{(\w+)\}")
RULE = re.compile(r"<(\w+)>")
QUOTED = re.compile(r'"[^"]*"')
MIN_WORDS, MAX_WORDS = 35, 70
TRIES = 60
SOFT = ("maybe", "perhaps", "probably", "might", "simply", "really", "after all")  # a person does not say these three times in a paragraph
GENERAL = "general"


@dataclass(frozen=True)
class Case:
    """One way to go wrong. Every argument contains the cue and nothing else in its grammar does, so that a correction can tell which it was."""

    cue: re.Pattern[str]
    rules: Rules


@dataclass(frozen=True)
class Grammar:
    """The rules all cases share, the cases by name, and what fits an error that shows no known cue."""

    rules: Rules
    cases: Mapping[str, Case]
    general: Rules

    def recognise(self, error: str) -> Rules:
        """Return the rules of the case whose cue an error step shows most (quoted words of the request do not count), or the general ones."""
        spoken = QUOTED.sub(" ", error)
        hits = {name: len(case.cue.findall(spoken)) for name, case in self.cases.items()}
        best = max(hits, key=lambda name: hits[name])
        return self.cases[best].rules if hits[best] else self.general


def read_rules(name: str) -> dict[str, list[str]]:
    """Read `grammar/<name>.txt`: `== rule` starts a rule, each line after it is one alternative, `#` a comment."""
    rules: dict[str, list[str]] = {}
    for line in resources.files("advchain.llm").joinpath("grammar", f"{name}.txt").read_text(encoding="utf-8").splitlines():
        if line.startswith("== "):
            rules[line[3:].strip()] = current = []
        elif line and not line.startswith("#"):
            current.append(line)
    return rules


def grouped(rules: Mapping[str, list[str]]) -> dict[str, dict[str, list[str]]]:
    """Return the rules named `group.rule` as {group: {rule: alternatives}}."""
    groups: dict[str, dict[str, list[str]]] = {}
    for name, lines in rules.items():
        group, dot, rule = name.partition(".")
        if dot:
            groups.setdefault(group, {})[rule] = lines
    return groups


def read_grammar(name: str) -> Grammar:
    """Read a grammar with its cases (`<case>.cue`, `.argument`, `.name`, `.refutation`)."""
    rules = read_rules(name)
    groups = grouped(rules)
    general = groups.pop(GENERAL, {})
    cases = {case: Case(re.compile(parts["cue"][0], re.IGNORECASE), parts) for case, parts in groups.items()}
    return Grammar({rule: lines for rule, lines in rules.items() if "." not in rule}, cases, general)


def expand(template: str, rules: Rules, terms: Terms, rng: random.Random) -> str:
    """Return `template` with every choice, slot and rule resolved."""
    text = template
    while True:
        if CHOICE.search(text):
            text = CHOICE.sub(lambda match: rng.choice(match[1].split("|")), text)
        elif RULE.search(text):
            text = RULE.sub(lambda match: rng.choice(usable(rules[match[1]], terms)), text, count=1)
        elif SLOT.search(text):
            text = SLOT.sub(lambda match: rng.choice(terms[match[1]]), text, count=1)
        else:
            return text


def usable(templates: Sequence[str], terms: Terms) -> list[str]:
    """Return the templates whose slots can all be filled."""
    return [template for template in templates if all(terms.get(slot) for slot in SLOT.findall(template))]


def compose(shapes: Sequence[str], rules: Rules, terms: Terms, rng: random.Random) -> str:
    """Expand one of `shapes` (sequences of rules) until the paragraph has 35-70 words and does not repeat itself."""
    text = ""
    for _ in range(TRIES):
        text = sentence_case(expand(rng.choice(usable(shapes, terms)), rules, terms, rng))
        if MIN_WORDS <= len(text.split()) <= MAX_WORDS and not repeats(text):
            return text
    return text


def sentence_case(text: str) -> str:
    """Collapse blanks and start every sentence with a capital letter."""
    return re.sub(r"(^|[.?!] )([a-z])", lambda match: match[1] + match[2].upper(), " ".join(text.split()))


def repeats(text: str) -> bool:
    """True when three words in a row come twice (outside quotation marks), or a softener comes too often."""
    words = re.findall(r"[a-z']+", QUOTED.sub(" ", text).lower())
    triples = Counter(zip(words, words[1:], words[2:], strict=False))
    flat = f" {' '.join(words)} "
    soft = [flat.count(f" {word} ") for word in SOFT]
    return max(triples.values(), default=0) > 1 or max(soft) > 2 or sum(soft) > 4
