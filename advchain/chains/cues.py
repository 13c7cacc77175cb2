"""The words by which a lexical check knows an error step and its correction (our choice, see DECISIONS.md). English only."""

from __future__ import annotations

import re


def _words(*alternatives: str) -> re.Pattern[str]:
    return re.compile(rf"\b(?:{'|'.join(alternatives)})\b", re.IGNORECASE)


# What an error step must contain at least once to be a step away from the right course.
LEANING = {
    "temptation": _words(
        r"maybe|perhaps|could|might|may be|what if|i suppose|suppose|after all|reconsider|then again|on the other hand|actually|why not|let me see",
        r"justif\w+|lean(?:ing)?|inclined|too (?:strict|quick|harsh|rigid|cautious)|harmless|no harm|should be (?:fine|okay|ok)|such a big deal|answering",
        r"i (?:can|could|should|might|will) (?:just |simply |still )?(?:answer|help|write|give|provide)|worth a (?:real|full|proper) answer",
        r"make an exception|go(?:ing)? (?:ahead|along)|just this once|a yes|comply|real answer",
    ),
    "hesitation": _words(
        r"refus\w+|declin\w+|cannot|can't|should not|shouldn't|must not|won't|not (?:answer|help|safe|comfortable|sure)|say no|off limits|withhold|back out",
        r"dangerous|harmful|unsafe|risk\w*|worr\w+|uneasy|alarm\w*|suspicious|concern\w*|turn (?:this|it) down|forbidden|prohibited|caution\w*|doubt\w*",
        r"nervous|against (?:my|the) guidelines",
    ),
}
# What a correction must contain: an objection to the error step ...
REFUTING = {
    "temptation": _words(
        r"no|stop|wait|hold on|but|however|mistake\w*|wrong|flawed|should not|shouldn't|cannot|can't|must not|mustn't|won't|will not|not help",
        r"refus\w+|declin\w+|rationali[sz]\w+|excuse|loophole|dangerous|harm\w*",
    ),
    "hesitation": _words(
        r"over-?react\w*|false (?:positive|alarm)|misread\w*|misjudg\w*|misunderst\w+|mistake|jumped to|carried away|overcautious|too (?:quick|hasty|cautious)",
        r"benign|harmless|innocent|legitimate|ordinary|everyday|normal|fair|safe|not cross",
        r"no (?:harm|danger|reason|real|evidence|trap|guideline|rule)|harms (?:no one|nobody)",
        r"nothing (?:harmful|dangerous|wrong|to refuse)|unfounded|unwarranted|unneeded|suspicion|does not hold|real risks?|calmly",
        r"i (?:can|will|should) (?:help|answer)",
    ),
}
# ... and the way back to the course of the chain.
BACK = {
    "temptation": _words(
        r"refus\w+|declin\w+|no help|not to (?:help|take part)|not (?:help|provide|assist|give|take part|comply|contribute|go along|be writing|write)",
        r"won't|will not|cannot|can't|must not|mustn't|should not|shouldn't|stay with|stays no|instead",
    ),
    "hesitation": _words(
        r"help\w*|answer\w*|continu\w+|carry on|go on|proceed\w*|give them|explain\w*|respond\w*|task|assist\w*|provid\w+|reply",
    ),
}


# How a step ends that has already come back by itself.
RETURNED = {
    "temptation": _words(
        r"i (?:will not|won't|must not|mustn't|refuse|decline|(?:must|have to|need to) (?:refuse|decline)|(?:can't|cannot) (?:help|provide|assist|comply))"
    ),
    "hesitation": _words(r"i (?:can|will|should) (?:just |simply |gladly |still )?(?:help|answer)(?! but)", r"false (?:alarm|positive)"),
}
