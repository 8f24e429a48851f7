"""`extract`: what an answer comes to. It is given the answer alone, never the thought."""

import re

from spoutnik.tasks.maths.layout import STATED

MAX_READ = 100_000  # characters from the end that are looked at: what an answer comes to stands there
_MAX_STATED = 20_000  # characters from the end in which a statement is searched
_MAX_LAST = 2000  # characters from the end in which a formula or number is searched
_MAX_WHOLE = 400  # characters of an answer that is nothing but its result
_BRACES = re.compile(r"\\(?:boxed|fbox)\s*\{|\\.|[{}]", re.DOTALL)
_BARE_BOX = re.compile(r"\\(?:boxed|fbox)\s+([^\s{}$\\])|\\(?:boxed|fbox)(\d)")
_OPEN_BOX = re.compile(r"\\(?:boxed|fbox)\s*\{")
_STATEMENT = re.compile(r"(?:answer|réponse|antwort|lösung|respuesta|risposta|resposta|ответ|答案)", re.IGNORECASE)
_FORMULA = re.compile(r"\$\$(.+?)\$\$|(?<!\\)\$((?:\\.|[^$\\])+?)\$"
                      r"|\\\((.+?)\\\)|\\\[(.+?)\\\]", re.DOTALL)
_NEXT_FORMULA = re.compile(r"\s*(?:,|and|or|et|ou)\s*(?:and\s|or\s)?\$")
_SENTENCE_END = re.compile(r"\.(?=\s+[^\W\d_a-z]|\s*$)|\n\s*\n|(?<=[^\s\\])\n(?!\s*\\)|(?<!\\)[!?](?=\s|$)|。")
_REASON = re.compile(r",?\s+(?:because|since|as|which|where|when|so|(?:and\s)?not|rather than|instead of|et non|car|puisque"
                     r"|parce que|weil|denn)\s", re.IGNORECASE)
_PROSE = re.compile(r"(?<![\\A-Za-z])[^\W\d_]{2,}")
_IN_TEXT = re.compile(r"\\(?:text\w*|mbox|mathrm|operatorname|begin|end)\s*\{[^{}]*\}")
_ANSWER_TAGS = re.compile(r"<answer>((?:(?!<answer>).)*?)</answer>", re.DOTALL)
_BROKEN_TEXT = re.compile(r"\\(?:text|mbox)\{[^{}\n]*\n[^{}]*\}")
_SPACES = "\u00a0\u202f "
_NUMBER = re.compile(rf"\b\d{{1,2}}:\d\d(?:\s?[AaPp]\.?[Mm]\b)?|(?:(?<![\w)}}])[-+\u2212]\s?)?(?:\\\$|[$€£])?"
                     rf"(?:\d{{1,3}}(?:(?:[,{_SPACES}]|\\,|\\ |\{{,\}}|,\\!)\d{{3}})+(?!\d)|\d+)"
                     rf"(?:[.,]\d+)?(?:[eE][-+]?\d+)?(?:\s*/\s*\d+(?:[.,]\d+)?)?(?:\^\{{?-?\d+\}}?)?(?:\s?\\?%)?|\.\d+")
_JOINED = re.compile(rf"(?:(?:{_NUMBER.pattern})\s*,\s*)*(?:{_NUMBER.pattern})\s*,?\s*(?:or|and|ou|et|oder|und|или|或者?)\s*$",
                     re.IGNORECASE)  # 3 or
_OR = re.compile(r"\s*,?\s*(?:or|ou|oder|или|或者?)\s*", re.IGNORECASE)
_REJECTED = re.compile(r"(?<=[\d$}%])\s*,?\s+(?:(?:and|et|und)\s+)?(?:not|non|nicht|rather than|instead of)\s+"
                       rf"(?:{_NUMBER.pattern})\.?\s*$", re.IGNORECASE)  # 5, not 3
_DENIED = re.compile(r"(?:\b(?:not|never|cannot|but|except|pas|nicht|kein\w*|не)\b|n['’]t\b|不是|不等于|[≠¬]|!=|\\neq?\b"
                     r"|\b(?:between|entre|zwischen)\b.{0,40}\b(?:and|et|und)\b)"
                     r"(?:\s+(?:be|been|equals?|to|the|exactly|simply|number|value|answer|égale?|à|gleich))*[\s:$]*$",
                     re.IGNORECASE)  # not, isn't equal to, anything but
_BUT_NOT = re.compile(r"\b(?:not|pas|nicht)\b.*\bbut\b[^\w]*$", re.IGNORECASE | re.DOTALL)  # not 3 but
_LATEX = re.compile(r"(?:[-+\u2212]\s*)?(?:\d[\d.,]*\s*)?\\(?:[dt]?frac|sqrt|pi|infty|binom|left|begin|\{)[^\n]*")
_SENTENCE_START = re.compile(r"(?!(?:arc)?(?:sin|cos|tan|log|ln|sqrt|pi)"
                             r"|(?:jan|febr)uary|march|april|may|june|july|august|\w+ember|october)"
                             r"[^\W\d_]{2,}", re.IGNORECASE)
_WORD = re.compile(r"[^\W\d_]+(?:[ '-][^\W\d_]+)?")
_MARKS = " \t\r\n*`_\"'“”«»:"


def extract(answer_part: str) -> str | None:
    """What an answer comes to, None for nothing: the content of its last whole box; else what it states ("The answer is 5",
    "#### 5"); else the whole of it, where it is a result alone; else its last formula or number.
    """
    if not isinstance(answer_part, str):
        return None
    text = _BROKEN_TEXT.sub(lambda words: " ".join(words[0].split()), answer_part[-MAX_READ:].replace("\x00", ""))
    box = last_box(text)
    if box is not None:
        return box.strip() or None
    if open_box := list(_OPEN_BOX.finditer(text)):  # cut off within its box: that one is no answer
        text = text[:open_box[0].start()]
    if "</answer>" in text and (tagged := _ANSWER_TAGS.findall(text)):  # R1-Zero's layout
        text = tagged[-1]
    return _after_hashes(text) or _stated(text) or _whole(text) or _last(text)


def last_box(text: str) -> str | None:
    """The content of the last whole box, of its innermost one where they are nested, None for none."""
    opened: list[int] = []  # where the content of each open brace begins; of a box as it is, of others negative
    boxes: list[tuple[int, int]] = []
    for brace in _BRACES.finditer(text):
        sign = brace[0]
        if sign == "{":
            opened.append(-1)
        elif sign == "}":
            if opened and (start := opened.pop()) >= 0:
                boxes.append((start, brace.start()))
        elif len(sign) > 2:
            opened.append(brace.end())
    bare = list(_BARE_BOX.finditer(text))
    if bare and (not boxes or bare[-1].start() > boxes[-1][1]):
        return bare[-1][1] or bare[-1][2]
    if not boxes:
        return None
    last = max(boxes)  # the one that is opened last: inside others, if there are any
    return text[last[0]:last[1]]


def _after_hashes(text: str) -> str | None:
    """GSM8K's form."""
    _, hashes, rest = text.rpartition("####")
    return (rest.strip().splitlines() or [""])[0].strip(_MARKS) or None if hashes else None


def _stated(text: str) -> str | None:
    """What follows the last "the answer is"."""
    text = text[-_MAX_STATED:]
    keywords = list(_STATEMENT.finditer(text))
    for keyword in keywords[:-4:-1]:
        statement = STATED.match(text, keyword.start())
        if statement is None or text[:keyword.start()][-1:].isalpha():
            continue
        rest = text[statement.end():].lstrip(_MARKS)
        if (formula := _FORMULA.match(rest)) and not _NEXT_FORMULA.match(rest, formula.end()):
            return _formula(formula)
        end = _SENTENCE_END.search(rest)
        sentence = rest[:end.start()] if end and not rest.startswith("\\begin") else rest
        sentence = _REASON.split(sentence, maxsplit=1)[0].strip(_MARKS).removesuffix(".").rstrip(_MARKS)
        if sentence:
            formulas = _FORMULA.findall(sentence)
            if len(formulas) == 1 and not re.search(r"\d", _FORMULA.sub("", sentence)):  # the set $\{1, 2\}$
                return _formula(_FORMULA.search(sentence))
            short = len(_PROSE.findall(_IN_TEXT.sub("", sentence))) <= 5
            return sentence if short else _last(sentence) or sentence[:_MAX_WHOLE]
    return None


def _formula(match: re.Match[str]) -> str | None:
    content = next(filter(None, match.groups()), "").strip()
    return content or None


def _whole(text: str) -> str | None:
    """The text itself, where it is a result without prose."""
    text = text.strip(_MARKS)
    if text.isdigit():
        return text
    if not text or len(text) > _MAX_WHOLE:
        return None
    if _FORMULA.search(text):
        formula = _FORMULA.fullmatch(text.rstrip("."))
        return _formula(formula) if formula else None if _PROSE.search(_FORMULA.sub("", text)) else text
    prose = _PROSE.findall(_IN_TEXT.sub("", text))
    if _SENTENCE_START.match(text) and re.search(r"\d", text):
        return None
    if not any(map(str.isalnum, text)):
        return None
    if re.search(r"[\d\\=<>^+/]", text) and (len(prose) <= 3 and "\n" not in text or len(prose) <= 1):
        return None if re.search(r"[a-z]\w*\s+(?:is|are|est|sont|=)\s", text) and len(prose) > 2 else text
    single = text.rstrip(".! ")
    return single if _WORD.fullmatch(single) or not prose and len(single) < 60 else None


def _last(text: str) -> str | None:
    """The last formula of the text, or its last number where that comes after it; with what is named beside it ("3 or 5"), and
    None where it is denied ("not 5")."""
    if len(text) > _MAX_LAST:
        text = text[-_MAX_LAST:].partition(" ")[2]  # without a piece of a number
    text = _REJECTED.sub("", text)
    formulas = list(_FORMULA.finditer(text))
    rest = text[formulas[-1].end():] if formulas else text
    numbers = list(_NUMBER.finditer(rest))
    if formulas and (not numbers or len(rest) < 200 and not re.search(r"\b(?:is|are|est|sont|=)\s", rest)):
        formula = _formula(formulas[-1])
        if formula and _has_value(formula):
            if _is_denied(text[:formulas[-1].start()]):
                return None
            if len(formulas) > 1 and _OR.fullmatch(text[formulas[-2].end():formulas[-1].start()]):
                return f"{_formula(formulas[-2])} or {formula}"
            return _right_side(formula)
    if latex := list(_LATEX.finditer(rest)):
        return _right_side(latex[-1][0].rstrip(". "))
    if numbers:
        before = rest[:numbers[-1].start()]
        if _is_denied(before):
            return None
        beside = _JOINED.search(before[-200:])
        return (beside[0] if beside else "") + numbers[-1][0].strip()
    return _right_side(_formula(formulas[-1]) or "") or None if formulas else None


def _is_denied(before: str) -> bool:
    """Whether the words before a result say that it is none. (In "not 3 but 5", 5 is one.)"""
    before = before[-80:]
    return bool(_DENIED.search(before)) and not _BUT_NOT.search(before)


def _has_value(formula: str) -> bool:
    return bool(re.search(r"[\w\\]", formula))


def _right_side(formula: str) -> str:
    """What a chain of equations ends in; x = 5 stays what it is."""
    left, sign, right = formula.rpartition("=")
    if not sign or not right.strip() or re.fullmatch(r"\s*\\?\w+\s*", left) or right[-1:] in "<>{":
        return formula.strip()
    return right.strip()
