"""Expressions: LaTeX or plain text as a tree of nodes. A grammar of our own; nothing that it reads is ever executed."""

import re
from fractions import Fraction
from typing import NamedTuple

from spoutnik.tasks.maths.nodes import MINUS_ONE, Node, TooLarge, Unreadable, integer_of, negative, number

MAX_DEPTH = 60  # brackets, fractions and exponents inside one another
MAX_TOKENS = 20_000


class _Token(NamedTuple):
    kind: str  # number, letter, command, sign
    text: str
    spaced: bool  # something blank before it


_TOKEN = re.compile(r"(?P<number>\d+(?:\.\d*)?|\.\d+)|(?P<letter>[^\W\d_])|\\(?P<command>[A-Za-z]+|\{|\}|.)|(?P<sign>\S)",
                    re.DOTALL)
FUNCTIONS = frozenset("sin cos tan cot sec csc arcsin arccos arctan sinh cosh tanh coth ln log lg exp gcd lcm min max arg "
                      "Re Im arccot arcsec arccsc det deg dim".split())
_PLAIN = (FUNCTIONS - {"Re", "Im", "arg", "deg", "dim"}) | {"sqrt", "pi", "infty", "infinity", "cdot", "theta"}
_PLAIN_FUNCTIONS = sorted(_PLAIN, key=len, reverse=True)
_PLAIN_WORD = re.compile(r"(?<![A-Za-z\\])(" + "|".join(_PLAIN_FUNCTIONS) + r")(?![a-z]{2})")
_MIXED = re.compile(r"\\frac(?:\{(\d{1,99})\}|(\d))(?:\{(\d{1,99})\}|(\d))"
                    r"|(\d{1,99})/(\d{1,99})(?![\d.!^])")
_INVERSE = {"sin": "arcsin", "cos": "arccos", "tan": "arctan", "cot": "arccot", "sec": "arcsec", "csc": "arccsc"}
_SYMBOLS = frozenset("pi alpha beta gamma delta epsilon varepsilon zeta eta theta vartheta iota kappa lambda mu nu xi rho "
                     "sigma tau phi varphi chi psi omega Gamma Delta Theta Lambda Xi Pi Sigma Phi Psi Omega infty ell "
                     "hbar".split())
_ACCENTS = frozenset("overline bar vec hat tilde widehat overrightarrow dot widetilde".split())
_BARS = {"lfloor": ("rfloor", "floor"), "lceil": ("rceil", "ceil")}
_WORDS = frozenset(["text", "mathrm", "mathbf", "mathit", "textbf", "mathcal", "mathbb"])
_TRUE_CALLS = frozenset("fgFG")  # f(2) is a value of f, n(n+1) a product
KNOWN_COMMANDS = FUNCTIONS | _SYMBOLS | _ACCENTS | _WORDS | frozenset(
    "frac sqrt binom cdot times div circ pm mp le ge ne in cup lfloor rfloor lceil rceil mbox begin end emptyset "
    "setminus".split())


def parse(text: str) -> Node:
    """The tree of an expression.

    Raises:
        Unreadable: what is no expression of this grammar.
        TooLarge: what is nested or long beyond the limits.
    """
    parser = _Parser(_tokens(_PLAIN_WORD.sub(_as_command, text)))
    node = parser.sum()
    if parser.next is not None:
        raise Unreadable(parser.next.text)
    return node


def _as_command(match: re.Match[str]) -> str:
    return f"\\{'infty' if match[1] == 'infinity' else match[1]} "


def _tokens(text: str) -> list[_Token]:
    tokens, end = [], 0
    for match in _TOKEN.finditer(text):
        tokens.append(_Token(match.lastgroup, match[match.lastgroup], match.start() > end))
        end = match.end()
        if len(tokens) > MAX_TOKENS:
            raise TooLarge("more tokens than are read")
    return tokens


class _Parser:
    """Recursive descent over the tokens; `next` is the one to be read, None at the end."""

    def __init__(self, tokens: list[_Token]):
        self._tokens, self._depth, self._bars, self._angle = tokens[::-1], 0, 0, False
        self.next = self._tokens[-1] if tokens else None

    def _advance(self) -> _Token:
        if self.next is None:
            raise Unreadable("ends too early")
        token = self._tokens.pop()
        self.next = self._tokens[-1] if self._tokens else None
        return token

    def _is(self, *texts: str, kind: str = "sign") -> bool:
        return self.next is not None and self.next.kind == kind and self.next.text in texts

    def _expect(self, text: str, kind: str = "sign") -> None:
        token = self._advance()
        if token.kind != kind or token.text != text:
            raise Unreadable(f"{text} is missing")

    def sum(self) -> Node:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise TooLarge("nested too deeply")
        terms = [self._signed_product()]
        while self._is("+", "-"):
            terms.append(self._signed_product())
        self._depth -= 1
        return terms[0] if len(terms) == 1 else Node("sum", tuple(terms))

    def _signed_product(self) -> Node:
        minus = False
        while self._is("+", "-"):
            minus ^= self._advance().text == "-"
        product = self._product()
        return negative(product) if minus else product

    def _product(self) -> Node:
        factors = [self._factor()]
        while self.next is not None:
            if self._is("*") or self._is("cdot", "times", kind="command"):
                self._advance()
                factors.append(self._factor())
            elif self._is("/", "÷") or self._is("div", kind="command"):
                self._advance()
                factors.append(Node("power", (self._factor(), MINUS_ONE)))
            elif self._starts_factor():
                factors.append(self._factor())
            else:
                break
        return factors[0] if len(factors) == 1 else Node("product", tuple(factors))

    def _starts_factor(self) -> bool:
        kind, text, _ = self.next
        if kind == "sign":
            return text in "([{" or text == "|" and not self._bars
        return kind == "letter" or kind == "command" and (text in FUNCTIONS or text in _SYMBOLS or text in _ACCENTS
                                                          or text in _BARS or text in _WORDS
                                                          or text in ("frac", "sqrt", "binom"))

    def _factor(self) -> Node:
        if self._is("-", "+"):
            return negative(self._factor()) if self._advance().text == "-" else self._factor()
        base = self._postfix(self._primary())
        if not self._is("^"):
            return base
        self._advance()
        return self._postfix(Node("power", (base, self._exponent())))

    def _postfix(self, node: Node) -> Node:
        while self.next is not None:
            if self._is("!"):
                self._advance()
                node = Node("factorial", (node,))
            elif self._is("^") and len(self._tokens) > 1 and self._tokens[-2][:2] == ("command", "circ"):
                self._advance()
                self._advance()
                if self._angle:
                    node = Node("product", (node, Node("symbol", ("pi",)), number(Fraction(1, 180))))
            elif self._is("%"):
                self._advance()
                node = Node("product", (node, number(Fraction(1, 100))))
            elif self._is("'"):
                self._advance()
                node = Node("call", ("prime", node))
            else:
                break
        return node

    def _exponent(self) -> Node:
        if self._is("-", "+"):
            return negative(self._exponent()) if self._advance().text == "-" else self._exponent()
        base = self._primary()
        if self._is("^"):  # 2^3^2, as programs write it
            self._advance()
            return Node("power", (base, self._exponent()))
        return base

    def _argument(self) -> Node:
        """What a command takes: a group, or one sign: \\frac12 is a half."""
        if self.next is not None and self.next.kind == "number":
            digits = self._advance()
            if digits.text[0] == ".":
                raise Unreadable(digits.text)
            if len(digits.text) > 1:
                self._tokens.append(digits._replace(text=digits.text[1:]))
                self.next = self._tokens[-1]
            return number(int(digits.text[0]))
        return self._primary()

    def _primary(self) -> Node:
        kind, text, _ = token = self._advance()
        if kind == "number":
            return self._number(token)
        if kind == "letter":
            return self._symbol(text)
        if kind == "command":
            return self._command(text)
        if text in "([{":
            return self._bracket(")]}"["([{".index(text)])
        if text == "|":
            self._bars += 1
            inner = self.sum()
            self._expect("|")
            self._bars -= 1
            return Node("call", ("abs", inner))
        raise Unreadable(text)

    def _bracket(self, closing: str) -> Node:
        bars, self._bars = self._bars, 0
        inner = self.sum()
        self._expect(closing)
        self._bars = bars
        return inner

    def _number(self, token: _Token) -> Node:
        whole, _, decimals = token.text.partition(".")
        value = Fraction(integer_of(whole + decimals or "0"), 10**len(decimals))
        if self._is("overline", kind="command") and "." in token.text:
            return number(value + self._repeating(len(decimals)))
        if not decimals and (fraction := self._mixed_part()) is not None:
            return number(value + fraction)
        if self.next is not None and self.next.kind == "number":
            raise Unreadable("two numbers in a row")
        return number(value)

    def _repeating(self, decimals: int) -> Fraction:
        self._advance()
        self._expect("{")
        period = self._advance()
        self._expect("}")
        if period.kind != "number" or "." in period.text:
            raise Unreadable(period.text)
        return Fraction(integer_of(period.text), (10**len(period.text) - 1) * 10**decimals)

    def _mixed_part(self) -> Fraction | None:
        """The proper fraction of a mixed number, 3\\frac18 or 3 1/8, if one follows."""
        ahead = ["\\" + token.text if token.kind == "command" else token.text for token in self._tokens[-1:-9:-1]]
        mixed = _MIXED.match("".join(ahead))
        if mixed is None or mixed[5] and not self.next.spaced:
            return None
        top, bottom = mixed[1] or mixed[2] or mixed[5], mixed[3] or mixed[4] or mixed[6]
        if not 0 < int(top) < int(bottom):
            return None
        length = 0
        while length < mixed.end():
            length += len(ahead.pop(0))
            self._advance()
        if length > mixed.end():
            raise Unreadable("two numbers in a row")
        return Fraction(int(top), int(bottom))

    def _symbol(self, name: str) -> Node:
        if self._is("_"):
            self._advance()
            name += "_" + self._name()
        elif name in _TRUE_CALLS and self._is("("):
            self._advance()
            return Node("call", (name, self._bracket(")")))
        return Node("symbol", (name,))

    def _name(self) -> str:
        """A subscript, or what stands under an accent, as it is written."""
        if not self._is("{"):
            return self._advance().text
        self._advance()
        parts, depth = [], 1
        while True:
            token = self._advance()
            depth += (token.text == "{") - (token.text == "}") if token.kind == "sign" else 0
            if not depth:
                return "".join(parts)
            parts.append(token.text)

    def _command(self, name: str) -> Node:
        if name == "frac":
            top = self._argument()
            return Node("product", (top, Node("power", (self._argument(), MINUS_ONE))))
        if name == "sqrt":
            return self._root()
        if name == "binom":
            return Node("call", ("binom", self._argument(), self._argument()))
        if name in FUNCTIONS:
            return self._call(name)
        if name in _SYMBOLS:
            return self._symbol({"varphi": "phi", "varepsilon": "epsilon"}.get(name, name))
        if name in _ACCENTS:
            return Node("symbol", (f"{name} {self._name()}",))
        if name in _WORDS and (word := self._name()) and len(word) < 30:
            return Node("symbol", (word,))
        if name in _BARS:
            closing, function = _BARS[name]
            inner = self.sum()
            self._expect(closing, "command")
            return Node("call", (function, inner))
        raise Unreadable(name)

    def _root(self) -> Node:
        degree = number(2)
        if self._is("["):
            self._advance()
            degree = self._bracket("]")
        return Node("root", (self._argument(), degree))

    def _call(self, name: str) -> Node:
        power = base = None
        while self._is("^", "_"):
            if self._advance().text == "_":
                base = self._argument()
            else:
                power = self._exponent()
        if power == MINUS_ONE and name in _INVERSE:
            name, power = _INVERSE[name], None
        angle, self._angle = self._angle, True
        if self._is("(", "{"):
            arguments = self._arguments(")" if self._advance().text == "(" else "}")
        else:
            arguments = [self._implicit_argument()]
        self._angle = angle
        node = Node("call", (name, *arguments, *([base] if base else [])))
        return Node("power", (node, power)) if power else node

    def _arguments(self, closing: str) -> list[Node]:
        bars, self._bars = self._bars, 0
        arguments = [self.sum()]
        while self._is(","):
            self._advance()
            arguments.append(self.sum())
        self._expect(closing)
        self._bars = bars
        return arguments

    def _implicit_argument(self) -> Node:
        """\\sin 2x: everything up to the next sum, sign of multiplication or function."""
        factors = [self._factor()]
        while self.next is not None and self._starts_factor() and not (
                self.next.kind == "command" and self.next.text in FUNCTIONS or self._is("(")):
            factors.append(self._factor())
        if self._is("/"):  # sin x/2
            self._advance()
            factors.append(Node("power", (self._factor(), MINUS_ONE)))
        return factors[0] if len(factors) == 1 else Node("product", tuple(factors))
