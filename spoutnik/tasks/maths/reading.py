"""An answer read: a value, words, a number in a base, a list, tuple, set, interval, matrix, ratio or relation, with its units.

The text is split along brackets, commas and relation signs; only what lies between them goes to the grammar of expressions.
"""

import re
from dataclasses import replace
from functools import lru_cache

from spoutnik.tasks.maths.brackets import closing, has_semicolon, outside_brackets, split, top_level
from spoutnik.tasks.maths.expression import FUNCTIONS, MAX_DEPTH, parse
from spoutnik.tasks.maths.formats import NumberFormat
from spoutnik.tasks.maths.intervals import as_interval, everything, punctured
from spoutnik.tasks.maths.layout import ROW, unwrap
from spoutnik.tasks.maths.nodes import TooLarge, Unreadable
from spoutnik.tasks.maths.shapes import Answer, Based, Items, Matrix, Ratio, Relation, Shape, Union, Value, Words
from spoutnik.tasks.maths.units import split as split_units

MAX_ITEMS = 200


_TEXT = re.compile(r"\\(?:text(?:bf|it|rm|sf|up|normal)?|math(?:rm|bf|it|sf|tt)|[mh]box)\s*\{([^{}]*)\}")
_AND = re.compile(r"\\(?:text|mathrm|mbox|textrm)\s*\{\s*(,?\s*(?:and|or|et|ou|und|oder|y|o)\s*)\}"
                  r"|(?<![A-Za-z\\])(,?\s*(?:and|or|et|ou|und|oder))(?![A-Za-z])|\\(?:vee|lor|wedge|land)(?![A-Za-z])|\\quad")
_PHRASE = re.compile(r"[^\W\d_.,:;'’!?()-][^\W\d_]*[\s\w.,:;'’!?()&/-]*")
_RUN = re.compile(r"[^\W\d_]{2,}")
_DIGITLESS = re.compile(r"[^\d\\^_=<>+*/{}\[\]|%]*")
_SAME_WORDS = {"yes": "true", "oui": "true", "vrai": "true", "correct": "true", "ja": "true", "wahr": "true", "no": "false",
               "non": "false", "faux": "false", "incorrect": "false", "nein": "false", "falsch": "false", "si": "true",
               "sí": "true"}
_ALL_REALS = re.compile(r"\\mathbb\{R\}|all (?:the )?real(?:s| numbers)?|tous les (?:nombres )?réels|every real number",
                        re.IGNORECASE)
_RELATION = re.compile(r"=|<|>|\\(?:le|ge|ne|in|approx|equiv|sim)(?![A-Za-z])")
_NUMBER_WORDS = dict(zip("two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen".split(),
                         range(2, 17)))
_BASED = re.compile(r"([-+]?)\s*(?:\(\s*([0-9A-Z.\s]+?)\s*\)|([0-9A-Z.]*[0-9][0-9A-Z.]*|[0-9A-F][0-9A-F.]+))\s*"
                    r"(?:_\s*\{?\s*(?:\\text\s*\{)?\s*(?:base\s*)?(\d+|[a-z]+)\s*\}?\s*\}?"
                    r"|\s\(?(?:in )?base[\s-](\d+|[a-z]+)\)?)")
_MATRIX = re.compile(r"\\begin\s*\{(?:[pbB]|small)?(?:matrix|array)\}(?:\s*\{[^{}]*\})?(.*)"
                     r"\\end\s*\{(?:[pbB]|small)?(?:matrix|array)\}",
                     re.DOTALL)
_REVERSED = re.compile(r"([\[\]])([^\[\]()]+)([\[\]])")
_BUILDER = re.compile(r"\s*([A-Za-z])\s*(?:\\in\s*\\mathbb\{R\}\s*)?[:|](.+)", re.DOTALL)
_TRIGONOMETRIC = re.compile(r"\\?(?:sin|cos|tan|cot|sec|csc)(?![a-z])")


def read(text: str, number_format: NumberFormat) -> Answer:
    """An answer in the layout of `layout.plain`.

    Raises:
        Unreadable: it is none of these shapes.
        TooLarge: it is nested or long beyond the limits.
    """
    return _Reader(number_format).answer(number_format.braces(text), 0)


class _Reader:
    def __init__(self, number_format: NumberFormat):
        self._format = number_format

    def answer(self, text: str, depth: int, commas: bool = True) -> Answer:
        """One answer; commas: may a comma belong to a number here? Inside brackets it parts elements."""
        if depth > MAX_DEPTH // 3:
            raise TooLarge("nested too deeply")
        text = unwrap(text)
        if not text:
            raise Unreadable("nothing")
        if commas:
            text = outside_brackets(text, self._format.commas)
        shape = self._without_units(text, depth)
        if shape is not None:
            return Answer(shape)
        angle = _TRIGONOMETRIC.search(text) and text.endswith(r"^\circ")
        body, units = (text, frozenset()) if angle or top_level(text, _RELATION) else split_units(text)
        body = unwrap(body)
        return Answer(self._without_units(body, depth) or self._shape(body, depth), units)

    def _without_units(self, text: str, depth: int) -> Shape | None:
        """What is read whole before units are looked for: words and numbers in a base."""
        if _ALL_REALS.fullmatch(text):
            return everything()
        if len(text) < 200 and ("_" in text or "base" in text) and (based := _BASED.fullmatch(text)):
            base = based[4] or based[5]
            base = int(base) if base.isdigit() and len(base) < 4 else _NUMBER_WORDS.get(base, 0)
            if 2 <= base <= 36:
                digits = re.sub(r"\s", "", based[2] or based[3]).lstrip("0") or "0"
                return Based((based[1] if based[1] == "-" else "") + digits, base)
        return _words(text)

    def _shape(self, text: str, depth: int) -> Shape:
        if (reversed_ := _REVERSED.fullmatch(text)) and (reversed_[1] == "]" or reversed_[3] == "["):  # ]1, 2[ is open
            text = ("(" if reversed_[1] == "]" else "[") + reversed_[2] + (")" if reversed_[3] == "[" else "]")
        if r"\setminus" in text and (shape := self._without_points(text, depth)):
            return shape
        if r"\cup" in text:
            return self._union(re.split(r"\\cup(?![A-Za-z])", text), depth)
        if len(parts := self._list(text)) > 1:
            return self._joined([self.answer(part, depth + 1) for part in parts])
        signs = list(top_level(text, _RELATION))
        if signs:
            return self._relation(text, signs, depth)
        if matrix := _MATRIX.fullmatch(text):
            rows = [row for row in matrix[1].split(ROW) if row.strip()]
            return Matrix(tuple(tuple(self.answer(cell, depth + 1) for cell in row.split("&")) for row in rows))
        if (bracket := self._bracket(text, depth)) is not None:
            return bracket
        if r"\pm" in text or r"\mp" in text:
            return Items("list", self._both_signs(text, depth))
        if text == r"\emptyset":
            return Items("set", ())
        if len(sides := split(text, re.compile(":"))) > 1:
            return Ratio(tuple(self.answer(side, depth + 1) for side in sides))
        if letter := re.fullmatch(r"([A-Z])\)", text):
            text = letter[1]
        return Value(parse(text))

    def _list(self, text: str) -> list[str]:
        """The elements of a bare list: 1, 2 and 3."""
        text = outside_brackets(text, lambda part: _AND.sub(" ; ", part))
        parts = split(text, re.compile(r"[,;]"))
        if len(parts) > MAX_ITEMS:
            raise TooLarge("a list of too many elements")
        return [part for part in parts if unwrap(part)] if len(parts) > 1 else parts

    def _joined(self, answers: list[Answer]) -> Shape:
        answers = _flattened(answers)
        variables = {getattr(answer.shape, "variable", "") for answer in answers}
        if len(variables) == 1 and (variable := variables.pop()):  # x < 1 or x > 3
            return Union(tuple(answers), variable)
        return Items("list", tuple(answers))

    def _both_signs(self, text: str, depth: int) -> tuple[Answer, Answer]:
        plus, minus = (text.replace(r"\pm", one).replace(r"\mp", other) for one, other in ("+-", "-+"))
        return self.answer(plus, depth + 1), self.answer(minus, depth + 1)

    def _bracket(self, text: str, depth: int) -> Shape | None:
        """A tuple, interval or set, where brackets enclose all of the text."""
        left = re.match(r"\\\{|[(\[]", text)
        if left is None or closing(text, left.end()) != len(text):
            return None
        right = "\\}" if text.endswith("\\}") else text[-1]
        inner = text[left.end():-len(right)]
        if left[0] == "\\{" and (builder := _BUILDER.fullmatch(inner)):
            return self.answer(builder[2], depth + 1).shape
        parts = split(inner, re.compile(";" if has_semicolon(inner) else ","))
        if len(parts) > MAX_ITEMS:
            raise TooLarge("a list of too many elements")
        semicolons = has_semicolon(inner)
        if left[0] == "\\{":
            items = _flattened([self.answer(part, depth + 1, semicolons) for part in parts if part.strip()])
            return Items("set", tuple(items))
        if len(parts) > 1:
            return Items("tuple", tuple(self.answer(part, depth + 1, semicolons) for part in parts), left[0], right)
        if left[0] == "(" and right == ")":
            return self.answer(inner, depth + 1).shape
        return Items("tuple", (self.answer(inner, depth + 1),), left[0], right) if right == "]" and left[0] == "[" else None

    def _union(self, parts: list[str], depth: int) -> Union:
        return Union(tuple(self.answer(part, depth + 1) for part in parts))

    def _without_points(self, text: str, depth: int) -> Union | None:
        """All reals but some: \\mathbb{R} \\setminus \\{1, 2\\}."""
        whole, _, points = text.partition(r"\setminus")
        if unwrap(whole) not in (r"\mathbb{R}", r"(-\infty,\infty)", r"(-\infty, \infty)"):
            return None
        shape = self.answer(points, depth + 1).shape
        items = shape.items if isinstance(shape, Items) and shape.kind == "set" else ()
        return punctured([item.shape.node for item in items if isinstance(item.shape, Value)]) if items else None

    def _relation(self, text: str, signs: list[re.Match[str]], depth: int) -> Shape:
        starts, ends = [0, *(sign.end() for sign in signs)], [*(sign.start() for sign in signs), len(text)]
        parts = [text[start:end] for start, end in zip(starts, ends)]
        names = tuple(sign[0] for sign in signs)
        if names == (r"\in",):
            return self.answer(parts[1], depth + 1).shape
        if len(parts) > 20:
            raise TooLarge("a chain of too many relations")
        return as_interval(Relation(tuple(self._side(part, depth + 1) for part in parts), names))

    def _side(self, text: str, depth: int) -> Answer:
        """One side of a relation; a name of several letters (area = 5) is read too."""
        try:
            return self.answer(text, depth)
        except Unreadable:
            if re.fullmatch(r"[\w\s\\{}().'-]{1,60}", text):
                return Answer(Words(" ".join(text.split()), text))
            raise


def _words(text: str) -> Words | None:
    """The text as words: letters alone, two in a row at least (abc is a name, and not cab), or words before a number."""
    raw = _TEXT.sub(r"\1", text).strip()
    first = _RUN.match(raw)
    if _DIGITLESS.fullmatch(raw) and _RUN.search(raw) and not _AND.search(raw) and "," not in raw:
        names = [run.lower() for run in _RUN.findall(raw)]
        if all(name in FUNCTIONS or name in ("pi", "infinity", "infty", "theta") for name in names):
            return None
        if re.search(r"[()|!]", raw.rstrip("!")) and not re.search(r"\s", raw):
            return None
    elif not (first and len(first[0]) > 2 and first[0] not in FUNCTIONS and _PHRASE.fullmatch(raw) and re.search(r"\s", raw)
              and "," not in raw and not re.search(r"[(/]", raw)):
        return None
    text = re.sub(r"\b([ap])\.\s*m\b\.?", r"\1m", raw.casefold())
    text = re.sub(r"^(?:the|an?|les?|la|une?|el|der|die|das)\s+(?=\w\w)|^l['’](?=\w\w)", "", " ".join(text.split()))
    text = text.strip(" .!?\"'")
    return Words(_SAME_WORDS.get(text, text), raw)


def _flattened(answers: list[Answer]) -> list[Answer]:
    """Elements, with those of a plus-minus one by one."""
    flat = []
    for answer in answers:
        if isinstance(answer.shape, Items) and answer.shape.kind == "list":
            flat.extend(replace(item, units=item.units | answer.units) for item in answer.shape.items)
        else:
            flat.append(answer)
    return flat


@lru_cache(2048)
def read_cached(text: str, number_format: NumberFormat) -> Answer | None:
    """`read` with its results kept, for short texts: None where it is unreadable."""
    try:
        return read(text, number_format)
    except Unreadable:
        return None
