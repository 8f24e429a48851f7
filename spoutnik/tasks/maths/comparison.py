"""Are two answers the same? By their shapes, exactly; None where the exact rules do not know."""

from fractions import Fraction
from functools import lru_cache

from spoutnik.tasks.maths import numeric
from spoutnik.tasks.maths.expression import parse
from spoutnik.tasks.maths.intervals import merged, pieces
from spoutnik.tasks.maths.nodes import Node, TooLarge, Unreadable, negative
from spoutnik.tasks.maths.normal_form import Quotient, Undefined, difference_is_zero, normal_form
from spoutnik.tasks.maths.polynomial import Polynomial, proportional
from spoutnik.tasks.maths.shapes import Answer, Based, Items, Matrix, Ratio, Relation, Union, Value, Words
from spoutnik.tasks.maths.units import compatible

_FLIPPED = {"<": ">", ">": "<", r"\le": r"\ge", r"\ge": r"\le", "=": "=", r"\ne": r"\ne"}


def same(gold: Answer, answer: Answer, ordered: bool = False) -> bool | None:
    """Is an answer the gold one? None: not known. ordered: the order of a bare list counts.

    Only gold and answer differ in one thing: an answer may name an expression (y = 2x + 1 for 2x + 1), but a gold equation is
    more than its right side.

    Raises:
        TooLarge: the numbers are beyond what is computed.
    """
    if not compatible(gold.units, answer.units):
        return False
    one, other = gold.shape, answer.shape
    if isinstance(one, Union) or isinstance(other, Union) or getattr(one, "variable", "") != getattr(other, "variable", ""):
        return _same_set(one, other)
    if isinstance(one, Relation) or isinstance(other, Relation):
        return _same_relation(gold, answer, ordered)
    if isinstance(one, Items) and isinstance(other, Items):
        return _same_items(one, other, ordered)
    for items, single in ((one, answer), (other, gold)):  # {5} and 5
        if isinstance(items, Items) and items.kind == "set" and len(items.items) == 1 and not isinstance(single.shape, Items):
            return same(items.items[0], single)
    for words, value in ((one, other), (other, one)):  # ab and a \cdot b
        if isinstance(words, Words) and isinstance(value, Value) and len(words.raw) <= 4:
            return _word_as_product(words, value)
    if type(one) is not type(other):
        return False
    match one:
        case Value(node):
            return same_value(node, other.node)
        case Words(text):
            return text == other.text
        case Based():
            return one == other
        case Matrix(rows):
            return [len(row) for row in rows] == [len(row) for row in other.rows] and _all(
                same(a, b) for row, row2 in zip(rows, other.rows) for a, b in zip(row, row2))
        case Ratio(items):
            return _same_ratio(items, other.items, bool(gold.units or answer.units))
    raise AssertionError(one)


def same_value(one: Node, other: Node) -> bool | None:
    """Have two expressions the same value, for all values of their variables?"""
    if one == other:
        return True
    try:
        left, right = _form(one), _form(other)
        if difference_is_zero(left, right):
            return True
        if not left.opaque and not right.opaque:
            return False
    except Undefined:
        return False
    except TooLarge:
        if not (numeric.symbols(one) | numeric.symbols(other)):
            raise
    return numeric.agree(one, other)


@lru_cache(2048)
def _form(node: Node) -> Quotient:
    return normal_form(node)


def _all(verdicts) -> bool | None:
    """False as soon as one is False; else None if any is unknown."""
    unknown = False
    for verdict in verdicts:
        if verdict is False:
            return False
        unknown |= verdict is None
    return None if unknown else True


def _word_as_product(words: Words, value: Value) -> bool | None:
    try:
        return same_value(parse(words.raw), value.node)
    except Unreadable:
        return False


def _same_items(one: Items, other: Items, ordered: bool) -> bool | None:
    """Tuples and intervals: brackets and order count. Sets and bare lists: the order does not, unless it is asked for."""
    if (one.kind == "tuple") != (other.kind == "tuple"):
        return False
    if one.kind == "tuple":
        return (one.left, one.right, len(one.items)) == (other.left, other.right, len(other.items)) and _all(
            map(same, one.items, other.items))
    left, right = list(one.items), list(other.items)
    if "set" in (one.kind, other.kind):
        left, right = _distinct(left), _distinct(right)
    if len(left) != len(right):
        return False
    if ordered and one.kind == other.kind == "list":
        return _all(map(same, left, right))
    return _matched(left, right)


def _distinct(items: list[Answer]) -> list[Answer]:
    kept: list[Answer] = []
    for item in items:
        if not any(same(item, other) for other in kept):
            kept.append(item)
    return kept


def _matched(left: list[Answer], right: list[Answer]) -> bool | None:
    """Has each element on the left its own on the right?"""
    unknown = False
    for item in left:
        verdicts = [same(item, other) for other in right]
        if True in verdicts:
            right.pop(verdicts.index(True))
        elif None in verdicts:
            unknown = True
        else:
            return False
    return None if unknown else True


def _same_ratio(one: tuple[Answer, ...], other: tuple[Answer, ...], exact: bool) -> bool | None:
    """2:4 is 1:2, but no two times of a day are in proportion."""
    if len(one) != len(other):
        return False
    parts = [*one, *other]
    if exact or not all(isinstance(part.shape, Value) for part in parts):
        return _all(map(same, one, other))
    a, b = ([part.shape.node for part in side] for side in (one, other))
    return _all(same_value(Node("product", (x, b[0])), Node("product", (y, a[0]))) for x, y in zip(a[1:], b[1:]))


def assigned(relation: Relation, named: bool) -> Answer | None:
    """What a relation says a thing is: 5 of x = 5, of 2 + 3 = 5, of x = 2 + 3 = 5. named: of y = 2x + 1 its right side too.
    None where it says no such thing (1 = 5, x + y = 5)."""
    if set(relation.signs) != {"="}:
        return None
    parts = relation.parts
    if _is_name(parts[0]):
        parts = parts[1:]
    elif len(parts) == 2 and _is_name(parts[1]):  # 5 = x
        parts = parts[:1]
    last = parts[-1]
    if not named and _has_variables(last):
        return None
    return last if all(same(part, last) for part in parts[:-1]) else None


def _rounded(relation: Relation) -> tuple[Answer, ...]:
    """Of 2\\sqrt{3} \\approx 3.46 its exact value and the decimal: either may be asked for. None of them where they are further
    apart than a unit of the decimal's last digit, for those are two answers."""
    exact, decimal = relation.parts[-2], relation.parts[-1].shape
    if len(relation.parts) > 2 and assigned(Relation(relation.parts[:-1], relation.signs[:-1]), named=True) is None:
        return ()
    if not (isinstance(exact.shape, Value) and isinstance(decimal, Value)):
        return ()
    value, near = numeric.real_value(exact.shape.node), _decimal(decimal.node)
    if value is None or near is None:
        return ()
    places = next((places for places in range(30) if (near * 10**places).denominator == 1), None)
    if places is None or abs(value * 10**places - int(near * 10**places)) >= 1:
        return ()
    return exact, relation.parts[-1]


def _decimal(node: Node) -> Fraction | None:
    """The number that a node writes down, with its sign."""
    if node.op == "number":
        return Fraction(node.args[0])
    if node.op == "product" and len(node.args) == 2 and all(part.op == "number" for part in node.args):  # -1 times it
        return Fraction(node.args[0].args[0]) * Fraction(node.args[1].args[0])
    return None


def _is_name(answer: Answer) -> bool:
    shape = answer.shape
    if isinstance(shape, Words):
        return True
    if isinstance(shape, Items):
        return shape.kind == "tuple" and all(map(_is_name, shape.items))  # (x, y) = (1, 2)
    if not isinstance(shape, Value):
        return False
    node = shape.node
    return node.op == "symbol" and node.args[0] not in ("pi", "e", "i", "infty") or node.op == "call" and bool(
        node.args[0] in "fgFG" or node.args[0] == "prime") or (
        node.op == "product" and len(node.args) == 2 and all(part.op == "symbol" for part in node.args))


def _has_variables(answer: Answer) -> bool:
    shape = answer.shape
    if isinstance(shape, Value):
        return bool(numeric.symbols(shape.node) - {"infty"})
    parts = getattr(shape, "items", None) or getattr(shape, "parts", None) or sum(getattr(shape, "rows", ()), ())
    return any(map(_has_variables, parts))


def _same_relation(gold: Answer, answer: Answer, ordered: bool) -> bool | None:
    one, other = gold.shape, answer.shape
    if isinstance(one, Relation) and isinstance(other, Relation):
        verdict = _same_relations(one, other)
        if verdict is False and len(other.parts) == len(one.parts) + 1 and other.signs[0] == "=" and _is_name(other.parts[0]):
            return _same_relations(one, Relation(other.parts[1:], other.signs[1:]))
        return verdict
    if isinstance(one, Relation):
        said = assigned(one, named=False)
        return said is not None and same(said, answer, ordered)
    if other.signs[-1] == r"\approx":
        return any(same(gold, said, ordered) is True for said in _rounded(other))
    said = assigned(other, named=True)
    return said is not None and same(gold, said, ordered)


def _same_relations(one: Relation, other: Relation) -> bool | None:
    if len(one.parts) != len(other.parts):
        return False
    if one.signs == other.signs and _all(map(same, one.parts, other.parts)):
        return True
    flipped = tuple(_FLIPPED.get(sign, sign) for sign in one.signs)
    if flipped == other.signs[::-1] and _all(map(same, one.parts, other.parts[::-1])):
        return True
    if one.signs != other.signs or one.signs not in (("=",), (r"\ne",)):
        return False
    sides = [part.shape for part in (*one.parts, *other.parts)]
    if not all(isinstance(side, Value) for side in sides):
        return False
    try:
        tops = [_cleared(_form(Node("sum", (left.node, negative(right.node))))) for left, right in (sides[:2], sides[2:])]
    except Undefined:
        return False
    return bool(tops[0]) and proportional(*tops)


def _cleared(form: Quotient) -> Polynomial:
    """The polynomial that is zero where the form is, without negative exponents and common variables."""
    top = form.top
    names = {name for monomial in top for name, _ in monomial if name[0] == "$"}
    lowest = {name: min(dict(monomial).get(name, 0) for monomial in top) for name in names}
    cleared = {}
    for monomial, value in top.items():
        exponents = dict.fromkeys(names, Fraction(0)) | dict(monomial)
        raised = ((name, exponent - lowest.get(name, 0)) for name, exponent in sorted(exponents.items()))
        cleared[tuple((name, exponent) for name, exponent in raised if exponent)] = value
    return cleared


def _same_set(one, other) -> bool | None:
    """Unions of intervals and points on the real line, and inequalities."""
    variables = {getattr(one, "variable", ""), getattr(other, "variable", "")} - {""}
    if len(variables) > 1:
        return False
    sets = [pieces(shape) for shape in (one, other)]
    if None in sets:
        parts = [shape.parts if isinstance(shape, Union) else (Answer(shape),) for shape in (one, other)]
        return len(parts[0]) == len(parts[1]) > 1 and _matched(list(parts[0]), list(parts[1]))
    left, right = map(merged, sets)
    return len(left) == len(right) and _all(
        a[1] == b[1] and a[3] == b[3] and same_value(a[0], b[0]) is True and same_value(a[2], b[2]) is True
        for a, b in zip(left, right))
