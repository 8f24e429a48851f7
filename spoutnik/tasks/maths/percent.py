"""Questions that ask for a percentage: there 20 and 20 % are the same answer, and their golds are written in both ways.

MATH's golds have the sign for half of such questions, GSM8K's (3 % of its problems) never, whatever their own solutions say.
Without the question, 20 % stays a fifth and is not 20.
"""

import re

_WORD = re.compile(r"\bper\s?cent(?:age)?s?\b|\b(?:pour\s?cent(?:age)?s?|prozent\w*|porcentajes?|por\s?ciento|percentual\w*"
                   r"|percentuale|процент\w*|asilimia)\b|\bin\s\\?%|百分比|百分之几|百分率|百分数|パーセント|何\s?[%％]"
                   r"|শতাংশ|শতকরা|శాతం|เปอร์เซ็นต์|ร้อยละ", re.IGNORECASE)
_QUANTITY = re.compile(r"(?:[\d)}$½]|\b(?:\w+ty|\w+teen|one|two|three|four|five|six|seven|eight|nine|ten|hundred"
                       r"|cinq|dix|quinze|vingt|trente|quarante|cinquante|soixante|cent|zehn|zwanzig|fünfzig|hundert))[\s\u00a0-]*$",
                       re.IGNORECASE)
_SIGN = re.compile(r"\s*(?:\\?%|％|\b(?:per\s?cent|pour\s?cent|prozent)\b)", re.IGNORECASE)


def asks_percent(question: str) -> bool:
    """Does a question name a percentage without saying how much it is?"""
    return any(not _QUANTITY.search(question[max(word.start() - 30, 0):word.start()])
               and not re.match(r"\s*\d", question[word.end():word.end() + 5]) for word in _WORD.finditer(question))


def without_percent(answer: str) -> str:
    """An answer without its percent signs."""
    return _SIGN.sub("", answer)
