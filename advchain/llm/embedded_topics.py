"""What the embedded teacher picks up from a request: its own words (always used in quotation marks) and the terms of its category."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from advchain.llm.embedded_grammar import GENERAL, grouped, read_rules

WORD = re.compile(r"[A-Za-z][A-Za-z'-]*|[^\sA-Za-z]")
MAX_PHRASE = 32  # characters
MAX_WORDS = 3
PASSIVE_SIGNS = ("get", "getting", "got", "be", "being", "been")
VERB_COST = 2.5  # a noun makes the better topic: "a question about forge" is no English
TOPICS = read_rules("topics")
CATEGORIES = grouped(TOPICS)
STOP = frozenset(" ".join(TOPICS["stop"] + TOPICS["group"]).split())  # a group of people is never the topic: nothing is to be said about it
LY_NOUNS = frozenset(" ".join(TOPICS["ly_noun"]).split())
ALARM_STEMS = " ".join(TOPICS["alarm"]).split()
VERB_SIGNS = frozenset(" ".join(TOPICS["verb_sign"]).split())  # a verb follows
FORM = r"(?:(?:s|es|d|ed|ing|er|ers)?|\w(?:ed|ing|er|ers))$"  # of a short stem: "kill" is in "killing", "die" is not in "diet"
ALARM = re.compile("|".join(stem if len(stem) > 4 else stem + FORM for stem in ALARM_STEMS), re.IGNORECASE)


def terms_of(request: str, chain: Sequence[str] = (), category: Sequence[str] = ()) -> dict[str, Sequence[str]]:
    """Return the slots of a request: topic, second (quoted phrases), and the terms of its first known category."""
    phrases = [f'"{phrase}"' for phrase in topics(request, chain)]
    known = next((key for name in category for key in CATEGORIES if key in name.lower()), GENERAL)
    return {"topic": phrases[:1] or ["this subject"], "second": phrases[1:2], **CATEGORIES[known]}


def alarming(request: str) -> tuple[str, ...]:
    """Return the words of a benign request that sound harmful out of context, quoted."""
    words = dict.fromkeys(word.lower() for word in WORD.findall(request) if ALARM.match(word) and len(word) <= MAX_PHRASE)
    return tuple(f'"{word.strip(chr(39))}"' for word in words)


def topics(request: str, chain: Sequence[str] = (), limit: int = 3) -> list[str]:
    """Return up to `limit` phrases of one to three content words, the most telling first.

    A phrase counts more when the chain talks about it too: long role-play prompts are mostly decoration.
    """
    found = _phrases(request)
    phrases = Counter(phrase for phrase, _ in found)
    verbs = {phrase for phrase, verb in found if verb}
    spoken = Counter(word.lower() for step in chain for word in WORD.findall(step))
    scored = sorted(phrases, key=lambda phrase: (-_weight(phrase, phrases[phrase], spoken) + VERB_COST * (phrase in verbs), phrase))
    chosen: list[str] = []
    for phrase in scored:
        words = set(phrase.lower().split())
        if not any(words & set(other.lower().split()) for other in chosen):
            chosen.append(phrase)
    return chosen[:limit]


def _weight(phrase: str, count: int, spoken: Counter[str]) -> float:
    words = phrase.split()
    said = sum(min(spoken[word.lower()], 4) for word in words) / len(words)
    alarm = sum(bool(ALARM.match(word)) for word in words)
    return said + 1.5 * alarm + 0.6 * len(words) + 0.1 * max(map(len, words)) + 0.2 * min(count, 3)


def _adverb(word: str) -> bool:
    return word.endswith("ly") and word not in LY_NOUNS


def _phrases(request: str) -> list[tuple[str, bool]]:
    """Cut a request at stop words and punctuation, as keyword extraction by delimiters does (RAKE); True for what is but a verb ("to forge").

    A verb in front of other words is left out: "force entry doors" is about entry doors.
    """
    found: list[tuple[str, bool]] = []
    run: list[str] = []
    shouted = request.isupper()
    opening = True  # of a sentence: a capital letter there says nothing
    before, verb = "", False
    for word in [*WORD.findall(request), "."]:
        plain = word.strip("'-")
        plain = plain.lower() if shouted or (opening and not plain.isupper()) else plain
        started, opening = opening, word in ".!?:"
        if word[0].isalpha() and plain.lower() not in STOP and len(plain) > 2 and not _adverb(plain.lower()):
            verb = verb if run else started or before in VERB_SIGNS
            run.append(plain)
            continue
        if run:
            found.append(_phrase(run, verb, before))
        run, before = [], plain.lower()
    return [(phrase, verb) for phrase, verb in found if len(phrase) <= MAX_PHRASE]


def _phrase(run: list[str], verb: bool, before: str) -> tuple[str, bool]:
    whole = run[1:] if verb and len(run) > 1 else run
    only_verb = len(run) == 1 and (verb or run[0].endswith(("ing", "ed")) or before in PASSIVE_SIGNS)
    return " ".join(whole[-MAX_WORDS:]), only_verb
