"""What an answer comes to, in a form in which equal ones look alike: its box, its letter, its number, or its words."""

import re

from spoutnik.tasks.answers import clean

MAX_READ = 4000  # characters: an answer's end says what it comes to
MAX_SHORT = 80  # characters: longer answers are prose
_MAX_BOXES = 8  # that are looked at, from the end
_BOX = re.compile(r"\\(?:boxed|fbox)\s*\{")
_SPACES = "\u00a0\u202f "
_NUMBER = re.compile(rf"(?:(?<![\w)])[-+\u2212])?(?:\d{{1,3}}(?:[{_SPACES}]\d{{3}})+(?![\d])(?:[.,]\d+)?|\d[\d,.]*)"
                     rf"(?:\s*/\s*\d+)?(?:[{_SPACES}]?%)?")
_STATES = re.compile(r"(?:[=:≈→]|\b(?:is|are|was|equals?|makes?|gives?|gets?|totals?|est|sont|égale?|vaut|valent|fait|font"
                     r"|donne|donnent|reste|obtient|trouve|there are|answer|réponse|total|result|résultat)\b)"
                     r"(?:\s+(?:to|of|about|exactly|only|now|then|equal|à|de|donc|environ|bien))*[^\w]{0,6}$", re.IGNORECASE)
_WORD = re.compile(r"[^\W\d_]{2}")
_SEVERAL = re.compile(r"\b(?:or|and|ou|et)\b", re.IGNORECASE)
_PREFIX = re.compile(r"(?:(?:so|thus|hence|therefore|donc|ainsi)\b,?\s*)?(?:(?:the|my|la|ma)\s+)?"
                     r"(?:(?:final|correct|right|bonne)\s+)?"
                     r"(?:answer|réponse)(?:\s+(?:finale|correcte))?\s*(?:is|est|:|=)\s*:?\s*", re.IGNORECASE)
_LETTER = re.compile(r"\(?([A-H])\)?[.):]*")
_LETTER_FIRST = re.compile(r"(?:\(([A-H])\)|([A-H])[.):])\s+\S")
_LETTER_STATED = re.compile(r"(?i:\b(?:answer|option|choice|réponse|choix|lettre|letter)\b(?:\s+(?:is|est|would be|serait))?"
                            r"\s*[:=]?\s*)"
                            r"[*(\"]*(A(?!\s+[a-z])|[B-H])(?![\w'’])")
_VERDICT = re.compile(r"(yes|no|true|false|oui|non|vrai|faux)\b(?!\s+\w)", re.IGNORECASE)
_WRAPPED = re.compile(r"\\(?:text|textbf|mathrm|mathbf|textrm|mbox)\s*\{([^{}]*)\}")
_LAYOUT = re.compile(r"\\(?:left|right|displaystyle|[,;:! ])|\\?\$|\^\{?\\circ\}?|°")
_ASSIGNED = re.compile(r"[A-Za-z]\w?\s*=\s*([^=]+)")
_ARTICLE = re.compile(r"^(?:the|an?|les?|la|une?)\s+(?=\w\w)|^l['’](?=\w\w)")


def final_answer(answer: str) -> str:
    """What an answer comes to, "" for nothing."""
    text = answer[-MAX_READ:]
    box = _last_box(text)
    if box is not None:
        return _canonical(box)
    final = text.rpartition("####")[2] if "####" in text else text
    final = clean(final)
    if len(final) <= MAX_SHORT and "\n" not in final:
        return _canonical(_PREFIX.sub("", final, count=1) if _PREFIX.match(final) else final)
    stated = _LETTER_STATED.findall(final)
    if stated:
        return stated[-1].lower()
    last = clean(final.splitlines()[-1])
    if len(last) <= MAX_SHORT and (_PREFIX.match(last) or _LETTER.fullmatch(last)):
        return _canonical(_PREFIX.sub("", last, count=1))
    return _stated_number(last, prose=True) or " ".join(final.casefold().split())


def _last_box(text: str) -> str | None:
    """The content of the last whole `\\boxed{...}`."""
    for match in list(_BOX.finditer(text))[:-_MAX_BOXES - 1:-1]:
        depth = 1
        for at in range(match.end(), len(text)):
            depth += (text[at] == "{") - (text[at] == "}")
            if not depth:
                return text[match.end():at]
    return None


def _canonical(text: str) -> str:
    """A short answer as it is compared."""
    text = clean(_LAYOUT.sub("", _WRAPPED.sub(r"\1", text))).replace("\u2212", "-").replace("{,}", ",")
    assigned = _ASSIGNED.fullmatch(text)
    if assigned:
        text = clean(assigned[1])
    letter = _LETTER.fullmatch(text) or _LETTER_FIRST.match(text) or _LETTER_STATED.search(text)
    if letter:
        return next(filter(None, letter.groups())).lower()
    verdict = _VERDICT.match(text)
    if verdict:
        return verdict[1].lower()
    number = _stated_number(text) if _WORD.search(text) and "\\" not in text else None
    if number is None and (match := _NUMBER.fullmatch(text)):
        number = plain_number(match[0])
    if number is not None:
        return number
    text = re.sub(r"\s*([^\w\s,.])\s*", r"\1", " ".join(text.casefold().split()))
    return _ARTICLE.sub("", re.sub(r"\s*,\s*", ", ", text)).strip(" .!")


def _stated_number(text: str, prose: bool = False) -> str | None:
    """The number that a sentence states: the only one, or the last that follows a word such as "is"; in prose, the last."""
    numbers = list(_NUMBER.finditer(text))
    stated = [number for number in numbers if _STATES.search(text[max(0, number.start() - 40):number.start()])]
    if prose:
        return plain_number((stated or numbers)[-1][0]) if numbers else None
    if len(numbers) > 1 and stated:  # x = 3 or x = 5, x = 3 or 5: not one number
        between = text[stated[-2].end():stated[-1].start()] if len(stated) > 1 else ""
        if _SEVERAL.search(between) or _SEVERAL.search(text[stated[-1].end():numbers[-1].start()]):
            return None
    only = stated or (numbers if len(numbers) == 1 else [])
    return plain_number(only[-1][0]) if only else None


def plain_number(text: str) -> str:
    """A number without the marks between its thousands, its decimals after a dot: 1,234.5 and 1 234,5 and 1.234,5 are 1234.5.
    One comma before three digits parts thousands, as in English, unless a zero is before it."""
    text = re.sub(rf"[{_SPACES}]", "", text).replace("\u2212", "-").removeprefix("+").rstrip(".,")
    sign, body = ("-", text[1:]) if text.startswith("-") else ("", text)
    number, rest = re.match(r"([\d,.]*)(.*)", body, re.DOTALL).groups()
    number = number.rstrip(".,")
    if re.fullmatch(r"[1-9]\d{0,2}(?:,\d{3})+(?:\.\d+)?", number):
        number = number.replace(",", "")
    elif re.fullmatch(r"[1-9]\d{0,2}(?:\.\d{3})+,\d+", number):
        number = number.replace(".", "").replace(",", ".")
    elif re.fullmatch(r"\d+,\d+", number):
        number = number.replace(",", ".")
    return sign + number + rest
