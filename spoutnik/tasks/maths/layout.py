"""Spelling and layout of an answer, reduced to one form: Unicode signs become LaTeX commands, spacing commands become spaces;
dollars, boxes, `\\text` around the whole and the full stop go. What the answer says stays as it is.
"""

import re
import unicodedata

BRACE_COMMA, ROW = "\x03", "\x04"  # stand for {,} and for the \\ between rows, until they are read
_WORDS = (r"\times \cdot \div \pm \mp \sqrt \pi \infty \le \ge \ne \cup \cap \in \emptyset \theta \alpha \beta \gamma \lambda "
          r"\varphi \phi \setminus \lfloor \rfloor \lceil \rceil \approx \to").split()
_SIGNS = dict(zip("×⋅÷±∓√π∞≤≥≠∪∩∈∅θαβγλφϕ∖⌊⌋⌈⌉≈→", (word + " " for word in _WORDS))) | {
    "·": r"\cdot ", "∙": r"\cdot ", "•": r"\cdot ", "⩽": r"\le ", "⩾": r"\ge ", "∛": r"\sqrt[3]", "°": r"^\circ ",
    "º": r"^\circ ", "ℝ": r"\mathbb{R}", "⟨": "(", "⟩": ")", "⁄": "/", "∕": "/", "∣": "|", "、": ", ", "。": ".", "′": "'",
    "’": "'", "\u00a0": r"\ ", "\u202f": r"\ ", "\u2009": r"\ "} | dict.fromkeys("−‐‑‒–—﹣", "-")
_TABLE = str.maketrans(_SIGNS)
_INVISIBLE = dict.fromkeys([0xad, 0xfeff, *range(0x200b, 0x2010), *range(0x202a, 0x202f), *range(0x2060, 0x206a), 0x61c])
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_SPACES = re.compile(r"\s+")  # one each: what is searched with \s* afterwards stays linear
_ROOT = re.compile(r"([√∛])\s?(\d+(?:\.\d+)?)")  # of the whole number, where \sqrt takes a digit
_RAISED, _LOWERED, _MINUS = re.compile("[⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ]+"), re.compile("[₀₁₂₃₄₅₆₇₈₉]+"), "\u2212"
_VULGAR = re.compile("[½⅓⅔¼¾⅕⅖⅗⅘⅙⅚⅐⅛⅜⅝⅞⅑⅒]")

_END = r"(?![A-Za-z])"
_DELIMITER = r"(?=\s*(?:\\?[({\[\])}|.<>/]|\\[lr]?(?:vert|angle|floor|ceil|brace|brack)))\s*\.?"
# Commands without their backslash that change how an answer looks, and nothing else.
_LOOKS = "|".join([
    r"(?:text|math)?color\s*(?:\[\w*\])?\s*\{[^{}]*\}", r"f?colorbox\s*(?:\{[^{}]*\}){1,2}(?=\s*\{)", r"bbox\s*\[[^\]]{0,80}\]",
    r"[hv]?phantom\s*\{(?:[^{}]|\{[^{}]*\})*\}", r"(?:displaystyle|textstyle|scriptstyle|limits|nolimits|strut|mathstrut"
    rf"|noindent|null|rm|bf|it|sf|tt|bfseries|itshape|tiny|scriptsize|footnotesize|small|normalsize|[lL]arge|LARGE|[hH]uge){_END}"])
_REWRITES = [(re.compile(pattern), replacement) for pattern, replacement in [
    (r"\\\\(?:\[[^\]]{0,9}\])?", ROW),
    (rf"\\(?:{_LOOKS})", ""),
    (r"(?<=\d)\s*,\s*(?:\\!\s*)+(?=\d{3})|(?<=\d)\s*\\!\s*,\s*(?=\d{3})", ""),  # 1,\!000
    (r"(?<!\\)\$|\\[()\[\]]", ""),
    (r"\{\s*,\s*\}", BRACE_COMMA),
    (rf"\\(?:left|right|[bB]igg?[lrm]?|middle){_DELIMITER}", ""),
    (r"\\!", ""),
    (r"\\[,;:> ]|~|\\(?:quad|qquad|enspace|thinspace|space|newline)" + _END + r"|\\(?=\s|$)|\\hspace\*?\{[^{}]*\}", " "),
    (rf"\\[dtc]frac{_END}", r"\\frac"), (rf"\\[dt]binom{_END}", r"\\binom"),
    (rf"\\(?:leq|leqslant|leqq){_END}", r"\\le "), (rf"\\(?:geq|geqslant|geqq){_END}", r"\\ge "),
    (rf"\\neq{_END}|\\not\s*=|!=", r"\\ne "), (r"<=", r"\\le "), (r">=", r"\\ge "), (rf"\\lt{_END}", "<"),
    (rf"\\gt{_END}", ">"),
    (rf"\\varnothing{_END}", r"\\emptyset "), (rf"\\lbrace{_END}", r"\\{"), (rf"\\rbrace{_END}", r"\\}"),
    (rf"\\lbrack{_END}", "["), (rf"\\rbrack{_END}", "]"), (rf"\\langle{_END}", "("), (rf"\\rangle{_END}", ")"),
    (rf"\\[lr]?vert{_END}|\\mid{_END}", "|"), (rf"\\backslash{_END}", r"\\setminus "), (rf"\\infin{_END}", r"\\infty "),
    (rf"\^\s*\{{\s*\\circ\s*\}}|\\degrees?{_END}", r"^\\circ "), (r"\\%", "%"),
    (r"\\mathbb\s*(?:R|\{\s*R\s*\})", r"\\mathbb{R}"),
    (r"\\operatorname\*?\s*\{\s*([A-Za-z]+)\s*\}", r"\\\1 "), (r"\\math(?:rm|bf|it|sf)\s*\{\s*([a-zA-Z])\s*\}(?!\s*$)", r"\1"),
    (r"(?<=\d)\s*\^\s*\{\s*(?:\\(?:text|mathrm)\s*\{\s*)?(?:st|nd|rd|th)\s*\}(?:\s*\})?", ""),  # 5^{\text{th}}
    (r"\+/\s?-", r"\\pm "), (r"(?<=[)\]])\s*U\s*(?=[(\[][^()\[\]]*[,;])", r"\\cup "),
    (r"(?:^|(?<=[(\[,+-]))\s*(?:inf|oo)\s*(?=[,)\]]|$)", r"\\infty"),
    (r"(?<=[\d}])\s*(?:percent|per cent|pour cent|Prozent)(?![a-z])", "%"),
    (r"(?<![A-Za-z])([AaPp])\.\s?[Mm]\.?(?![A-Za-z])", r"\1m"),
    (r"\*\*(?=\s*[-({\w])(?<=[\w)}]\*\*)", "^"), (rf"\\ast{_END}", r"\\cdot "), (r"\\#", "#"),
    # An environment that holds one line, and a title before the answer.
    (rf"\\begin\s*\{{((?:align|gather|split|equation|array)\w*\*?)\}}(?:\s*\{{[^{{}}]*\}})?"
     rf"([^{ROW}&]*(?:&[^{ROW}&]*)?)\\end\s*\{{\1\}}",
     lambda match: match[0] if match[1] == "array" and "&" in match[2] else match[2].replace("&", "")),
    (r"^\s*\\text\w*\s*\{(?!\s*\(?[A-J]\)?\s*[:：])[^{}\d]{1,40}[:：]\s*\}(?=\s*\S)", "")]]

_WRAPPER = re.compile(r"\\(?:text(?:bf|it|rm|sf|tt|up|normal)?|math(?:rm|bf|it|sf|tt|normal)|[mhf]box|boxed|emph|underline|bm"
                      r"|boldsymbol|ensuremath)\s*\{")
_MAX_WRAPPINGS = 20
_QUOTES = [("**", "**"), ("__", "__"), ("``", "''"), ("`", "`"), ("*", "*"), ('"', '"'), ("“", "”"), ("«", "»"), ("{", "}"),
           ("'", "'")]
STATED = re.compile(r"(?:(?:so|thus|hence|therefore|donc|ainsi)\b,?\s*)?(?:(?:the|our|my|la|ma|die|el)\s+)?"
                    r"(?:(?:final|correct|right|bonne)\s+)?"
                    r"(?:answers?|réponse|antwort|lösung|respuesta|risposta|resposta|ответ|答案)"
                    r"(?:\s+(?:finale?|correcte?))?(?:\*\*)?\s*"
                    r"(?:(?:is|are|est|ist|es|è|é)(?!\w)|是|为|[:=：])\s*(?:\*\*)?\s*:?\s*"
                    r"(?:(?:donc|therefore|thus|simply|just|then|equal to|given by)\s+)?", re.IGNORECASE)


def plain(text: str) -> str:
    """An answer without the signs that say nothing, at most about twice as long as it was."""
    text = unwrap(rewrite(text))
    stated = STATED.match(text)
    return unwrap(text[stated.end():]) if stated else text


def rewrite(text: str) -> str:
    """Signs and commands in one spelling."""
    if not text.isascii():
        text = _ROOT.sub(r"\1{\2}", text.translate(_INVISIBLE))
        text = _RAISED.sub(lambda run: f"^{{{unicodedata.normalize('NFKC', run[0]).replace(_MINUS, '-')}}}", text)
        text = _LOWERED.sub(lambda run: f"_{{{unicodedata.normalize('NFKC', run[0])}}}", text)
        text = _VULGAR.sub(_vulgar_fraction, text)
        text = unicodedata.normalize("NFKC", text.translate(_TABLE)).translate(_TABLE)
    text = _SPACES.sub(" ", _CONTROL.sub("", text))
    for pattern, replacement in _REWRITES:
        text = pattern.sub(replacement, text)
    return _SPACES.sub(" ", text)


def _vulgar_fraction(sign: re.Match[str]) -> str:
    top, bottom = unicodedata.normalize("NFKC", sign[0]).split("\u2044")
    return rf"\frac{{{top}}}{{{bottom}}}"


def unwrap(text: str) -> str:
    """The text without what encloses all of it (braces, `\\text{}`, a box, quotes, bold) and without a full stop."""
    for _ in range(_MAX_WRAPPINGS):
        shorter = text.strip().rstrip(".,;。 \t\n" + ROW).lstrip("=: \t\n") if text.strip() not in (".", ",") else ""
        wrapper = _WRAPPER.match(shorter)
        if wrapper and closing_brace(shorter, wrapper.end()) == len(shorter) - 1:
            shorter = shorter[wrapper.end():-1]
        else:
            inner = (shorter[len(left):-len(right)] for left, right in _QUOTES if _encloses(shorter, left, right))
            shorter = next(inner, shorter)
        if shorter == text:
            break
        text = shorter
    return text


def _encloses(text: str, left: str, right: str) -> bool:
    if len(text) < len(left) + len(right) or not (text.startswith(left) and text.endswith(right)):
        return False
    return closing_brace(text, 1) == len(text) - 1 if left == "{" else left not in text[len(left):-len(right)]


def closing_brace(text: str, start: int) -> int:
    """The position of the brace that closes the one before `start`, -1 for none. An escaped brace is no brace."""
    depth = 1
    for brace in re.compile(r"\\.|[{}]", re.DOTALL).finditer(text, start):
        depth += (brace[0] == "{") - (brace[0] == "}")
        if not depth:
            return brace.start()
    return -1


def bracket_depth(text: str) -> int:
    """How many brackets are open at once, at most."""
    depth = deepest = 0
    for bracket in re.findall(r"[(\[{}\])]", text):
        depth += 1 if bracket in "([{" else -1
        deepest = max(depth, deepest)
    return deepest
