"""Markdown, formulas and code to HTML that is safe whatever a model writes: no HTML of its own passes, nothing is fetched.

Formulas become MathML, which browsers draw themselves. Images become links: to load one would tell somebody.
"""

import html
import time
from xml.etree.ElementTree import Element

from latex2mathml.converter import convert_to_element
from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.rules_block import StateBlock
from markdown_it.rules_inline import StateInline
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import get_lexer_by_name
from pygments.util import ClassNotFound

LONGEST_FORMULA = 4000  # characters; longer ones are shown as they were written
LONGEST_CODE = 40_000  # to be coloured
PATIENCE = 10  # rendering takes at most one part in so many of the time

_TAGS = {"math", "mrow", "mi", "mo", "mn", "ms", "mtext", "mspace", "mfrac", "msqrt", "mroot", "msub", "msup", "msubsup",
         "munder", "mover", "munderover", "mtable", "mtr", "mtd", "mstyle", "mpadded", "mphantom", "menclose", "mmultiscripts",
         "mprescripts", "none", "merror"}
_ATTRIBUTES = {"display", "displaystyle", "scriptlevel", "mathvariant", "mathcolor", "mathsize", "stretchy", "fence", "form",
               "separator", "accent", "accentunder", "lspace", "rspace", "minsize", "maxsize", "movablelimits", "width",
               "height", "depth", "voffset", "linethickness", "columnalign", "columnspacing", "rowspacing", "columnlines",
               "rowlines", "notation", "largeop", "symmetric"}


def mathml(formula: str, block: bool) -> str:
    """A LaTeX formula as MathML; as code where it cannot be read."""
    try:
        if len(formula) <= LONGEST_FORMULA:
            return _clean(convert_to_element(formula, display="block" if block else "inline"))
    except Exception:  # the converter raises many kinds on formulas that are wrong, and recursion errors on hostile ones
        pass
    code = f'<code class="formula">{html.escape(formula)}</code>'
    return f"<p>{code}</p>" if block else code


_SIGNS, _CLOSING = set("+−±∓"), set(")]}|!")
_NAMES = {"sin", "cos", "tan", "cot", "sec", "csc", "arcsin", "arccos", "arctan", "sinh", "cosh", "tanh", "log", "ln", "lg",
          "exp", "det", "dim", "ker", "deg", "gcd", "arg"}


def _text(element: Element) -> str:
    return html.unescape(element.text or "")


def _mend(row: Element) -> None:
    """The spaces that TeX makes and the converter does not: around ±, none after the sign of a number, a thin one after sin."""
    parts = list(row)
    for before, part, after in zip([None, *parts], parts, [*parts[1:], None]):
        if part.tag == "mi" and _text(part) in _SIGNS:
            part.tag = "mo"
        if part.tag == "mo" and _text(part) in _SIGNS and before is not None and before.tag == "mo" and \
                _text(before) not in _CLOSING:
            part.attrib |= {"form": "prefix", "lspace": "0", "rspace": "0"}
        name = part[0] if part.tag in ("msup", "msub", "msubsup") else part  # as in sin^2
        if name.tag == "mi" and _text(name) in _NAMES and after is not None and after.tag != "mo":
            row.insert(list(row).index(after), Element("mspace", width="0.17em"))


def _clean(element: Element) -> str:
    """Written by hand: the converter lets a formula bring links, styles and even scripts, and does not escape its texts."""
    if element.tag == "mrow":
        _mend(element)
    inside = html.escape(_text(element)) + "".join(_clean(child) for child in element)
    tail = html.escape(html.unescape(element.tail or ""))
    if element.tag not in _TAGS:
        return inside + tail
    attributes = "".join(f' {key}="{html.escape(value)}"' for key, value in element.items() if key in _ATTRIBUTES)
    return f"<{element.tag}{attributes}>{inside}</{element.tag}>{tail}"


_MARKS = (("$$", "$$", True), ("\\[", "\\]", True), ("\\(", "\\)", False), ("$", "$", False))


def _is_price(text: str, after: str) -> bool:
    """Between two dollars: no formula begins or ends with a space, has two lines, or is followed by a digit."""
    return text != text.strip() or "\n" in text or after.isdigit()


def _inline_formula(state: StateInline, silent: bool) -> bool:
    src, begin = state.src, state.pos
    if src[begin] not in "$\\":
        return False
    for opening, closing, block in _MARKS:
        if src.startswith(opening, begin):
            begin += len(opening)
            end = src.find(closing, begin, min(begin + LONGEST_FORMULA, state.posMax))
            while closing == "$" and end > begin and src[end - 1] == "\\":
                end = src.find(closing, end + 1, min(begin + LONGEST_FORMULA, state.posMax))
            if end <= begin or opening == "$" and _is_price(src[begin:end], src[end + 1:end + 2]):
                return False
            if not silent:
                token = state.push("formula", "math", 0)
                token.content, token.block = src[begin:end].strip(), block
            state.pos = end + len(closing)
            return True
    return False


def _block_formula(state: StateBlock, first: int, last: int, silent: bool) -> bool:
    """$$ or \\[ at a line's beginning, and its counterpart at a line's end. env: "open", it may still be to come."""
    begin = state.bMarks[first] + state.tShift[first]
    end = {"$$": "$$", "\\[": "\\]"}.get(state.src[begin:begin + 2])
    if end is None or state.is_code_block(first):
        return False
    place = state.src.find(end, begin + 2, min(begin + LONGEST_FORMULA, state.eMarks[last - 1]))
    if place < 0 and not (state.env.get("open") and state.eMarks[last - 1] - begin < LONGEST_FORMULA):
        return False
    line = last - 1 if place < 0 else next(n for n in range(first, last) if place < state.eMarks[n])
    if place >= 0 and state.src[place + 2:state.eMarks[line]].strip():
        return False
    if not silent:
        token = state.push("formula", "math", 0)
        token.content = state.getLines(first, line + 1, state.blkIndent, False).strip()[2:].removesuffix(end).strip()
        token.block, token.map = True, [first, line + 1]
        state.line = line + 1
    return True


def _code(text: str, language: str, colour: bool) -> str:
    if colour and language and len(text) <= LONGEST_CODE:
        try:
            return highlight(text, get_lexer_by_name(language), HtmlFormatter(nowrap=True))
        except ClassNotFound:
            pass
    return html.escape(text)


class _Renderer(RendererHTML):
    """env: "copy", the label of the button over code; "colour", is code coloured?"""

    def formula(self, tokens, number, options, env) -> str:
        return mathml(tokens[number].content, tokens[number].block)

    def fence(self, tokens, number, options, env) -> str:
        token = tokens[number]
        language = (token.info.split() or [""])[0]
        label = html.escape(env.get("copy", "Copy"))
        return (f'<div class="code"><div class="code-head"><span>{html.escape(language)}</span>'
                f'<button type="button" class="copy-code">{label}</button></div>'
                f'<pre tabindex="0"><code>{_code(token.content, language, env.get("colour", True))}</code></pre></div>\n')

    code_block = fence

    def image(self, tokens, number, options, env) -> str:
        token = tokens[number]
        source = html.escape(str(token.attrs["src"]))
        return f'<a href="{source}" rel="noopener noreferrer">{html.escape(token.content) or source}</a>'

    def link_open(self, tokens, number, options, env) -> str:
        tokens[number].attrs["rel"] = "noopener noreferrer"
        return self.renderToken(tokens, number, options, env)

    def table_open(self, tokens, number, options, env) -> str:
        return '<div class="table" tabindex="0"><table>\n'

    def table_close(self, tokens, number, options, env) -> str:
        return "</table></div>\n"


_markdown = MarkdownIt("js-default", {"html": False, "breaks": True}, renderer_cls=_Renderer)
_markdown.inline.ruler.before("escape", "formula", _inline_formula)
_markdown.block.ruler.before("fence", "formula", _block_formula, {"alt": ["paragraph", "reference", "blockquote", "list"]})


def render(text: str, copy: str = "Copy", colour: bool = True) -> str:
    return _markdown.render(text, {"copy": copy, "colour": colour})


def settled_part(text: str) -> int:
    """How many of its characters are whole blocks that nothing which follows can change: all before the last block that has an
    empty line above it (without one, a paragraph may still take it in)."""
    begins = [token.map[0] for token in _markdown.parse(text, {"open": True})
              if token.level == 0 and token.map and token.nesting >= 0]
    lines = text.splitlines(keepends=True)
    apart = [line for line in begins[1:] if not lines[line - 1].strip()]
    return sum(map(len, lines[:apart[-1]])) if apart else 0


class Growing:
    """Renders a text that grows, each part of it once: what is settled, and the rest as it stands."""

    def __init__(self, copy: str = "Copy"):
        self.copy, self._settled, self._shown, self._due = copy, 0, 0, 0.0

    def feed(self, text: str, over: bool = False) -> tuple[str, str] | None:
        """The whole text so far -> (new settled HTML, HTML of the rest); None where it is too early to look again."""
        began = time.monotonic()
        if not over and (began < self._due or len(text) == self._shown):
            return None
        rest = text[self._settled:]
        count = len(rest) if over else settled_part(rest)
        settled = render(rest[:count], self.copy) if count else ""
        tail = render(rest[count:], self.copy, colour=False) if rest[count:] else ""
        self._settled, self._shown = self._settled + count, len(text)
        self._due = began + PATIENCE * (time.monotonic() - began)
        return settled, tail


def code_style() -> str:
    """The colours of code, light and dark."""
    light = HtmlFormatter(style="default").get_style_defs(".prose pre")
    dark = HtmlFormatter(style="github-dark").get_style_defs(".body--dark .prose pre")
    lines = f"{light}\n{dark}".splitlines()
    return "\n".join(line for line in lines if "background" not in line and not line.startswith("pre "))
