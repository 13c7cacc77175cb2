"""Screen a text that a model wrote for training or for an attack: shape, language, words that do not belong, operational detail.

The checks are heuristics with reason codes (our choice, see DECISIONS.md). They look at the form of operational detail (lists,
quantities, formulae, commands), not at its truth, and err on the side of asking again.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from advchain.llm.gram_index import GramIndex, Grams
from advchain.llm.replies import Rejected

MIN_STEP_WORDS = 8
NGRAM = 5
NEAR_DUPLICATE_SHARE = 0.5
# Words that no other language written in Latin letters shares with English.
FUNCTION_WORD = re.compile(r"(?:the|and|of|to|is|it|that|this|with|for|not|but|they|what|would|be|are|my|if|have|can|you|been|which|who|will|from)")
ENGLISH_SHARE, FOREIGN_SHARE = 0.08, 0.05
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


@dataclass(frozen=True)
class Written:
    """A text to screen, the request it belongs to, and how long it may be."""

    text: str
    request: str
    max_words: int


def has_think_tag(written: Written) -> bool:
    """A tag of the thinking block would end or reopen it."""
    return bool(THINK_TAG.search(written.text))


def has_template_token(written: Written) -> bool:
    """Tokens of a chat template come from the template only (RELIABILITY D4)."""
    return bool(TEMPLATE_TOKEN.search(written.text))


def has_control_character(written: Written) -> bool:
    """Anything unprintable but white space."""
    return not written.text.isprintable() and any(not (char.isprintable() or char in "\n\t\r") for char in written.text)


def is_empty(written: Written) -> bool:
    """No word in it."""
    return not WORD.search(written.text)


def is_too_short(written: Written) -> bool:
    """Fewer words than a thought has."""
    return len(WORD.findall(written.text)) > 0 and len(written.text.split()) < MIN_STEP_WORDS


def is_too_long(written: Written) -> bool:
    """More words than the setting allows."""
    return len(written.text.split()) > written.max_words


def is_foreign(written: Written) -> bool:
    """Another script than the request's, or no English function words where the request has them."""
    if _other_script(written.text) != _other_script(written.request):
        return _other_script(written.text)
    long = len(WORD.findall(written.text)) >= MIN_STEP_WORDS and not _other_script(written.text)
    return long and _function_words(written.text) < FOREIGN_SHARE and _function_words(written.request) >= ENGLISH_SHARE


def has_meta_word(written: Written) -> bool:
    """A word about the making of the data; one that the request itself uses is the topic, not a slip."""
    asked = written.request.lower()
    return any(match[0].lower() not in asked for match in META_WORD.finditer(written.text))


def is_operational(written: Written) -> bool:
    """The form of instructions."""
    return has_operational_detail(written.text)


# Reason code -> check; the first that fires is the reason.
SCREENS: dict[str, Callable[[Written], bool]] = {
    "think_tag": has_think_tag,
    "template_token": has_template_token,
    "control_character": has_control_character,
    "empty_step": is_empty,
    "too_short": is_too_short,
    "too_long": is_too_long,
    "wrong_language": is_foreign,
    "meta_word": has_meta_word,
    "operational_detail": is_operational,
}


def screen_step(text: str, *, request: str, max_words: int) -> str:
    """Return the step as one clean paragraph.

    Raises:
        Rejected: with the code of the first check that fails.
    """
    written = Written(text, request, max_words)
    for reason, broken in SCREENS.items():
        if broken(written):
            raise Rejected(reason)
    return " ".join(text.split())


def has_operational_detail(text: str) -> bool:
    """True when a text has the form of instructions: lists, step labels, quantities, code, addresses, formulae, commands in a row."""
    if NUMBERED.search(text) or STEP_LABEL.search(text) or QUANTITY.search(text) or CODE.search(text) or ADDRESS.search(text) or FORMULA.search(text):
        return True
    return len(COMMAND.findall(text)) >= 2 or len(SEQUENCE.findall(text)) >= 2


def _other_script(text: str) -> bool:
    letters = [char for char in text if char.isalpha()]
    return sum(not char.isascii() for char in letters) > 0.5 * max(len(letters), 1)


def _function_words(text: str) -> float:
    words = WORD.findall(text.lower())
    return sum(bool(FUNCTION_WORD.fullmatch(word)) for word in words) / max(len(words), 1)


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
        self._index = GramIndex()

    def share(self, text: str) -> float:
        """Return the largest share of the text's 5-grams found in one earlier text, 0..1."""
        return self._share(_hashed(text), floor=0)

    def check(self, text: str) -> None:
        """Raise Rejected (near_duplicate) when the text is too close to an accepted one; nothing is remembered."""
        grams = _hashed(text)
        if self._share(grams, floor=int(self.cap * len(grams))) > self.cap:
            raise Rejected("near_duplicate")

    def add(self, text: str) -> None:
        """Accept a text.

        Raises:
            Rejected: near_duplicate.
        """
        self.check(text)
        self.remember(text)

    def remember(self, text: str) -> None:
        """Accept a text unseen."""
        self._index.add(_hashed(text))

    def _share(self, grams: Grams, floor: int) -> float:
        return self._index.most_shared(grams, floor) / len(grams) if len(grams) else 0.0


def _hashed(text: str) -> Grams:
    return np.array(sorted({zlib.crc32(" ".join(gram).encode("utf-8", "surrogatepass")) for gram in ngrams(text)}), np.uint64)
