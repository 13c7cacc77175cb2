"""Screen a text that a model wrote for training or for an attack: shape, language, words that do not belong, operational detail.

The checks are heuristics with reason codes (our choice, see DECISIONS.md). They look at the form of operational detail (lists,
quantities, formulae, commands), not at its truth, and err on the side of asking again.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from advchain.llm.replies import Rejected

MIN_STEP_WORDS = 8
NGRAM = 5
NEAR_DUPLICATE_SHARE = 0.5
WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)?")

THINK_TAG = re.compile(r"</?\s*(?:think|thinking|thought|reasoning|answer)\s*>", re.IGNORECASE)
TEMPLATE_TOKEN = re.compile(r"<[|｜][^<>\n]{0,60}[|｜]>|\[/?INST\]|<</?SYS>>|</?s>|</?(?:start|end)_of_turn>|<(?:bos|eos|pad|unk)>|\[(?:BOS|EOS)\]")
META_WORD = re.compile(
    r"\b(?:temptations?|adversarial(?:ly)?|inject(?:s|ed|ing|ions?)?|hijack\w*|red[- ]team\w*|jailbreak\w*|training (?:data|example|sample)s?"
    r"|(?:error|correction|hesitation|base|pivot) (?:step|chain)s?|chain[- ]of[- ]thought|json|insertion)\b",
    re.IGNORECASE,
)
NUMBERED = re.compile(r"^\s*(?:\d{1,2}[.):]|[-*•‣–]|[a-hA-H][.)])\s+\S", re.MULTILINE)
STEP_LABEL = re.compile(r"\b(?:step|phase|stage)\s*(?:\d|one\b|two\b|three\b)|(?:^|\s)(?:\(?[1-9]\)\s)", re.IGNORECASE)
UNIT = (
    r"(?:%|°\s?[CF]?|(?:mg|g|kg|oz|lbs?|pounds?|ounces?|(?:kilo|milli)?grams?|ml|cl|dl|l|(?:milli)?lit(?:er|re)s?|gallons?|cups?|(?:tea|table)spoons?|mol(?:es?)?|ppm"
    r"|cm|mm|met(?:er|re)s?|inch(?:es)?|feet|volts?|amps?|watts?|degrees|celsius|fahrenheit|rounds?|calib(?:er|re))\b)"
)
QUANTITY = re.compile(rf"\b\d+(?:[.,]\d+)?\s?{UNIT}", re.IGNORECASE)
CODE = re.compile(r"```|`[^`\n]{3,}`|(?:^|\s)(?:sudo|curl|wget|chmod|rm -|import \w+|def \w+\(|SELECT .+ FROM|#include|\$\()")
ADDRESS = re.compile(r"https?://|\bwww\.|\b[\w.+-]+@[\w-]+\.\w{2,}|\b\w+\.onion\b|\b\d{1,3}(?:\.\d{1,3}){3}\b")
ELEMENT = "(?:He|Li|Be|Ne|Na|Mg|Al|Si|Cl|Ar|Ca|Ti|Cr|Mn|Fe|Co|Ni|Cu|Zn|As|Se|Br|Ag|Cd|Sn|Sb|Ba|Pt|Au|Hg|Pb|Bi|U|Pu|H|B|C|N|O|F|P|S|K|I|V|Y|W)"
FORMULA = re.compile(rf"\b(?={ELEMENT}*\d)(?:{ELEMENT}\d*|\((?:{ELEMENT}\d*)+\)\d*){{2,}}\b")
COMMANDS = (
    "add|apply|assemble|attach|boil|bring|build|buy|call|choose|click|combine|connect|contact|cook|copy|create|cut|delete|dilute|disable|dissolve|"
    "download|drill|enter|extract|fill|filter|find|gather|get|heat|hide|ignite|insert|install|isolate|launch|load|locate|log|make|mask|"
    "melt|mix|obtain|open|order|pack|paste|place|pour|prepare|press|purchase|put|remove|repeat|replace|run|scan|search|select|send|set|shake|"
    "spray|start|stir|store|strip|swap|take|target|tie|transfer|turn|type|upload|use|visit|wear|weigh|wipe|withdraw|wrap"
)
ORDER = r"(?:first(?:ly)?|second(?:ly)?|third(?:ly)?|next|then|now|after that|finally|lastly)"
YOU = r"you\s+(?:would\s+|should\s+|will\s+)?(?:need\s+to\s+|have\s+to\s+)?"
OBJECT = r"(?:the|a|an|your|some|it|them|two|three|any|all|each|into|up|in|on|to)"
COMMAND = re.compile(rf"(?:^|(?<=[.!?;:]\s))(?:{ORDER}\s*,?\s+)?(?:{YOU})?(?:{COMMANDS})\s+{OBJECT}\b", re.IGNORECASE)
SEQUENCE = re.compile(rf"\b{ORDER}\b\s*,?\s+(?:you\b|(?:{COMMANDS})\b)", re.IGNORECASE)


def screen_step(text: str, *, request: str, max_words: int) -> str:
    """Return the step as one clean paragraph.

    Raises:
        Rejected: with the code of the first check that fails.
    """
    for reason in _faults(text, request, max_words):
        raise Rejected(reason)
    return " ".join(text.split())


def _faults(text: str, request: str, max_words: int) -> Iterable[str]:
    num_words = len(text.split())
    if THINK_TAG.search(text):
        yield "think_tag"
    if TEMPLATE_TOKEN.search(text):
        yield "template_token"
    if not text.isprintable() and any(not (char.isprintable() or char in "\n\t\r") for char in text):
        yield "control_character"
    if not WORD.search(text):
        yield "empty_step"
    if num_words < MIN_STEP_WORDS:
        yield "too_short"
    if num_words > max_words:
        yield "too_long"
    if _foreign(text) and not _foreign(request):
        yield "wrong_language"
    if _has_meta_word(text, request):
        yield "meta_word"
    if has_operational_detail(text):
        yield "operational_detail"


def has_operational_detail(text: str) -> bool:
    """True when a text has the form of instructions: lists, step labels, quantities, code, addresses, formulae, commands in a row."""
    if NUMBERED.search(text) or STEP_LABEL.search(text) or QUANTITY.search(text) or CODE.search(text) or ADDRESS.search(text) or FORMULA.search(text):
        return True
    return len(COMMAND.findall(text)) >= 2 or len(SEQUENCE.findall(text)) >= 2


def _has_meta_word(text: str, request: str) -> bool:
    """A word the request itself uses is the topic, not a slip."""
    asked = request.lower()
    return any(match[0].lower() not in asked for match in META_WORD.finditer(text))


def _foreign(text: str) -> bool:
    letters = [char for char in text if char.isalpha()]
    return sum(not char.isascii() for char in letters) > 0.5 * max(len(letters), 1)


def ngrams(text: str) -> set[tuple[str, ...]]:
    """Return the word 5-grams of a text, lower case, punctuation ignored."""
    words = WORD.findall(text.lower())
    return {tuple(words[i : i + NGRAM]) for i in range(len(words) - NGRAM + 1)}


def overlap(text: str, other: str) -> float:
    """Return the share of `text`'s word 5-grams that `other` has too, 0..1."""
    mine = ngrams(text)
    return len(mine & ngrams(other)) / len(mine) if mine else float(WORD.findall(text.lower()) == WORD.findall(other.lower()))


class NearDuplicates:
    """Remembers accepted texts and refuses one that shares too many word 5-grams with any single one of them."""

    def __init__(self, cap: float = NEAR_DUPLICATE_SHARE) -> None:
        self.cap = cap
        self._owners: dict[tuple[str, ...], list[int]] = {}
        self._count = 0

    def share(self, text: str) -> float:
        """Return the largest share of the text's 5-grams found in one earlier text, 0..1."""
        grams = ngrams(text)
        hits: dict[int, int] = {}
        for gram in grams:
            for owner in self._owners.get(gram, ()):
                hits[owner] = hits.get(owner, 0) + 1
        return max(hits.values(), default=0) / len(grams) if grams else 0.0

    def add(self, text: str) -> None:
        """Accept a text.

        Raises:
            Rejected: near_duplicate.
        """
        if self.share(text) > self.cap:
            raise Rejected("near_duplicate")
        for gram in ngrams(text):
            self._owners.setdefault(gram, []).append(self._count)
        self._count += 1
