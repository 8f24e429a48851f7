"""Sets of reals: inequalities as the intervals that they say, and unions of intervals and points compared."""

from spoutnik.tasks.maths import numeric
from spoutnik.tasks.maths.nodes import Node, negative
from spoutnik.tasks.maths.numeric import symbols
from spoutnik.tasks.maths.shapes import Answer, Items, Relation, Shape, Union, Value

INFINITY = Node("symbol", ("infty",))
FLIPPED = {"<": ">", ">": "<", r"\le": r"\ge", r"\ge": r"\le"}


def everything() -> Items:
    return _interval(negative_infinity(), "(", Answer(Value(INFINITY)), ")")


def negative_infinity() -> Answer:
    return Answer(Value(negative(INFINITY)))


def _interval(low: Answer, left: str, high: Answer, right: str, variable: str = "") -> Items:
    return Items("tuple", (low, high), left, right, variable)


def punctured(points: list[Node], variable: str = "") -> Union:
    """Everything but some points, which are in order."""
    answers = [negative_infinity(), *(Answer(Value(point)) for point in points), Answer(Value(INFINITY))]
    return Union(tuple(Answer(_interval(low, "(", high, ")")) for low, high in zip(answers, answers[1:])), variable)


def _variable(answer: Answer) -> str:
    """The variable that an answer consists of, "" for anything else."""
    node = answer.shape.node if isinstance(answer.shape, Value) else None
    return node.args[0] if node is not None and node.op == "symbol" and node in map(_symbol, symbols(node)) else ""


def _symbol(name: str) -> Node:
    return Node("symbol", (name,))


def as_interval(relation: Relation) -> Shape:
    """An inequality of one variable and numbers as the interval that it says; other relations as they are."""
    parts, signs = relation.parts, relation.signs
    at = [index for index, part in enumerate(parts) if _variable(part)]
    if len(at) != 1 or not set(signs) <= {"<", ">", r"\le", r"\ge", r"\ne"} or len(parts) > 3:
        return relation
    numbers = [part.shape for index, part in enumerate(parts) if index != at[0]]
    if not all(isinstance(shape, Value) and symbols(shape.node) <= {"infty"} for shape in numbers):
        return relation
    name = _variable(parts[at[0]])
    if signs == (r"\ne",):
        return punctured([parts[1 - at[0]].shape.node], name)
    low, left, high, right = negative_infinity(), "(", Answer(Value(INFINITY)), ")"
    for index, sign in enumerate(signs):
        other = parts[index + 1] if index == at[0] else parts[index]
        if index not in (at[0], at[0] - 1):
            return relation
        sign = sign if index == at[0] else FLIPPED.get(sign, sign)  # as seen from the variable
        if sign in ("<", r"\le"):
            high, right = other, ")" if sign == "<" else "]"
        elif sign in (">", r"\ge"):
            low, left = other, "(" if sign == ">" else "["
    return _interval(low, left, high, right, name) if len(signs) == 1 or at[0] == 1 else relation


Piece = tuple[Node, bool, Node, bool]  # low, is it closed there, high, is it closed there


def pieces(shape) -> list[Piece] | None:
    """The intervals of a set of reals with known ends, None for anything else."""
    if isinstance(shape, Union):
        parts = [pieces(part.shape) for part in shape.parts]
        return None if None in parts else [piece for part in parts for piece in part]
    if not isinstance(shape, Items) or not all(isinstance(item.shape, Value) for item in shape.items):
        return None
    nodes = [item.shape.node for item in shape.items]
    if any(_position(node) is None for node in nodes):
        return None
    if shape.kind == "set":
        return [(node, True, node, True) for node in nodes]
    if shape.kind != "tuple" or len(nodes) != 2 or shape.left not in "([" or shape.right not in ")]":
        return None
    return [(nodes[0], shape.left == "[", nodes[1], shape.right == "]")]


def _position(node: Node) -> float | None:
    """Where a number lies on the line, the infinite ends included."""
    if node in (INFINITY, negative(INFINITY)):
        return float("inf") if node == INFINITY else float("-inf")
    return numeric.real_value(node) if not numeric.symbols(node) else None


def merged(pieces: list[Piece]) -> list[Piece]:
    """The pieces in order, those that touch joined."""
    merged: list[Piece] = []
    for low, closed, high, closed_high in sorted(pieces, key=lambda piece: (_position(piece[0]), not piece[1])):
        if merged:
            last = merged[-1]
            gap = _position(low) - _position(last[2]) if _position(low) != _position(last[2]) else 0
            if gap < 0 or gap == 0 and (closed or last[3]):
                farther = _position(high) - _position(last[2]) if _position(high) != _position(last[2]) else 0
                end = (high, closed_high) if farther > 0 else (last[2], last[3] or not farther and closed_high)
                merged[-1] = (*last[:2], *end)
                continue
        merged.append((low, closed, high, closed_high))
    return merged
