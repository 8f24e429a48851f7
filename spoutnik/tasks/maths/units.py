"""Units and other words beside a number: split off, and compared as sets of words in one spelling."""

import re

from spoutnik.tasks.maths.layout import closing_brace

_SPELLINGS = {
    "cm": "centimeter centimetre cms", "mm": "millimeter millimetre", "km": "kilometer kilometre kms", "m": "meter metre mètre",
    "in": "inch inche", "ft": "foot feet", "yd": "yard", "mi": "mile", "kg": "kilogram kilo kilogramme kgs",
    "g": "gram gm gramme gms",
    "mg": "milligram", "lb": "pound lbs", "oz": "ounce", "l": "liter litre", "ml": "milliliter millilitre",
    "s": "second sec secs seconde",
    "min": "minute mins", "h": "hour hr hrs heure", "day": "jour", "week": "semaine", "month": "mois",
    "year": "yr yrs an année",
    "dollar": "usd", "euro": "eur", "pound sterling": "gbp", "cent": "", "degree": "deg degré", "rad": "radian", "mph": "",
    "kmh": "kph", "hz": "", "j": "joule", "n": "newton", "w": "watt", "v": "volt", "pa": "pascal", "point": "pt pts",
    "unit": "unité",
    "unit^2": "", "rupee": "rs inr", "yen": "jpy", "percent": "", "mol": "mole", "k": "kelvin", "kwh": "", "kw": "", "mb": "",
    "gb": ""}
_CANONICAL = {word: unit for unit, words in _SPELLINGS.items() for word in words.split()}
_SHORT = frozenset(unit for unit in _SPELLINGS if len(unit) == 2 or unit in ("mph", "kmh", "kwh", "day")) | frozenset(
    word for word in _CANONICAL if len(word) <= 3 and word not in ("an", "sec", "pa")) | {"am", "pm"}
_LONE = frozenset("m g s h l L K N J W V A C F".split())
_CURRENCIES = {r"\$": "dollar", "$": "dollar", "€": "euro", "£": "pound sterling", r"\pounds": "pound sterling", "¥": "yen",
               r"\euro": "euro", "₹": "rupee", "US\\$": "dollar", "Rs.": "rupee", "Rs": "rupee", "USD": "dollar", "EUR": "euro",
               "GBP": "pound sterling", r"\text{€}": "euro", r"\text{£}": "pound sterling", r"\text{\$}": "dollar"}
_CURRENCY = "|".join(re.escape(sign) for sign in sorted(_CURRENCIES, key=len, reverse=True))
_BEFORE = re.compile(rf"([-+]?)\s*({_CURRENCY})\s*(?=[-+\d.(\\])")
_AFTER = re.compile(rf"\s*({_CURRENCY})$")
_POWER = r"(?:\s*\^\s*(?:\{\s*(-?[0-9])\s*\}|([0-9])))"
_WRAPPED = re.compile(r"\\(?:text(?:bf|it|rm|up|normal)?|math(?:rm|it|bf|sf)|[mh]box)\s*\{")
_TAIL_POWER = re.compile(_POWER + "$")
_DEGREES = re.compile(r"\s*\^\s*\\circ\s*([CF](?![A-Za-z]))?$")
_PLAIN_TAIL = re.compile(rf"(?<=[\d)}}%\s])\s*(?<![A-Za-z\\])([^\W\d_][^\W\d_.'-]*\.?"
                         rf"(?:(?:\s+|\s*/\s*|-)[^\W\d_]+\.?)*){_POWER}?$")
_VOWEL = re.compile("[aeiouyàâäéèêëîïôöùûüœ]", re.IGNORECASE)
_WORD = re.compile(r"[^\W\d_]+|/|\^\s*\{?\s*(-?\d)\s*\}?|[²³]")
_POWERS = {"square": "^2", "squared": "^2", "sq": "^2", "cubic": "^3", "cubed": "^3", "cube": "^3", "carré": "^2",
           "cubes": "^3",
           "carrés": "^2"}
_EMPTY = frozenset(("of", "the", "a", "an", "in", "de", "des"))


def split(text: str) -> tuple[str, frozenset[str]]:
    """(the text without units, the units): 18 €, \\$18, 5\\text{ cm}^2, 45^\\circ, 5 apples. A text of words alone has none."""
    units: list[str] = []
    if before := _BEFORE.match(text):
        units.append(_CURRENCIES[before[2]])
        text = before[1] + text[before.end():]
    while True:
        shorter = _split_last(text, units)
        if not shorter.strip(" {}()-+") or shorter == text:
            break
        text = shorter
    return text, frozenset(word for unit in units for word in _canonical(unit))


def _split_last(text: str, units: list[str]) -> str:
    """The text without its last unit, which is appended; the text itself where it ends in none."""
    text = text.rstrip(" .,;")
    if match := _DEGREES.search(text):
        units.append("degree" + (" " + match[1] if match[1] else ""))
    elif match := _AFTER.search(text):
        units.append(_CURRENCIES[match[1]])
    elif (start := _wrapped_tail(text)) >= 0:
        power = _TAIL_POWER.search(text)
        content = text[_WRAPPED.match(text, start).end():text.rindex("}", 0, power.start() if power else None)]
        if not re.search(r"[^\W\d_]", content) and content.strip(" ."):
            return text  # \text{13}
        if re.fullmatch(r"\s*(?:and|or|et|ou)\s*", content) or not text[:start].strip():
            return text
        units.append(content + (power[0] if power else ""))
        return text[:start]
    elif (match := _PLAIN_TAIL.search(text, max(0, len(text) - 100))) and _is_unit(match[1], text[:match.start(1)]):
        units.append(text[match.start(1):])
        return text[:match.start(1)]
    else:
        return text
    return text[:match.start()]


def _wrapped_tail(text: str) -> int:
    """Where the \\text{...}, with or without an exponent, begins with which the text ends; -1 for none."""
    power = _TAIL_POWER.search(text)
    end = (text[:power.start()] if power else text).rstrip()
    if not end.endswith("}"):
        return -1
    for match in list(_WRAPPED.finditer(end, max(0, len(end) - 120)))[::-1]:
        if closing_brace(end, match.end()) == len(end) - 1:
            return match.start()
    return -1


def _is_unit(words: str, before: str) -> bool:
    """Is it a unit, and no product of variables? Known short ones, and words with a vowel after a space."""
    if not re.search(r"[\d)}%]\s*$", before):
        return False
    spaced = before[-1:].isspace()
    first = re.match(r"[^\W\d_]+", words)[0]
    if first.lower() in ("and", "or", "et", "ou", "mod", "if", "for", "where", "when", "if"):
        return False
    if len(first) == 1:
        return spaced and words in _LONE and bool(re.search(r"\d\s+$", before)) or "/" in words and words.split("/")[0] in _LONE
    if len(first) == 2 or first.lower() in _SHORT:
        return first.lower() in _SHORT or spaced and len(words) > 4 and " " in words
    return bool(_VOWEL.search(first)) and (spaced or len(first) > 3)


def _canonical(unit: str) -> list[str]:
    """The words of one unit: square cm, cm^2 and cm² are cm^2; per s and /s are /s."""
    words: list[str] = []
    raised, per = "", ""
    unit = re.sub(r"\b([ap])\.?\s*m\b\.?", r"\1oclock", unit.replace("\\", " ").lower())
    for token in _WORD.finditer(unit):
        word = token[0]
        if word.startswith("^"):
            if words and "^" not in words[-1]:
                words[-1] += f"^{token[1]}"
        elif word in ("/", "per", "par"):
            per = "/"
        elif word in _POWERS:
            if word.endswith(("d", "carré", "carrés", "cubes")) and words:
                words[-1] += _POWERS[word]
            else:
                raised = _POWERS[word]
        elif word not in _EMPTY:
            words.append(per + _singular(word) + raised)
            raised = per = ""
    return words


def _singular(word: str) -> str:
    for candidate in (word, word.removesuffix("s"), word.removesuffix("es")):
        if candidate in _CANONICAL or candidate in _SPELLINGS:
            return _CANONICAL.get(candidate, candidate)
    return word.removesuffix("s") if len(word) > 3 else word


def compatible(one: frozenset[str], other: frozenset[str]) -> bool:
    """May two answers be the same, as far as their units go? None on one side says nothing; more words on one side
    (65 tickets, 65 children tickets) are no other unit, unless they are powers or rates."""
    if not one or not other:
        return True
    more = one ^ other
    return (one <= other or other <= one) and not any("/" in word for word in more)
