"""Markdown, formulas and code to HTML that is safe whatever a model writes: its own HTML is escaped, nothing is fetched.

Formulas become MathML, which browsers render natively. Images become links: loading one would tell its server.
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

MAX_FORMULA_LENGTH = 4000  # characters; longer formulas are shown as source
MAX_HIGHLIGHTED_LENGTH = 40_000  # characters of code
RENDER_INTERVAL = 10  # a growing text is rendered again after this many times the last rendering's duration

_TAGS = {"math", "mrow", "mi", "mo", "mn", "ms", "mtext", "mspace", "mfrac", "msqrt", "mroot", "msub", "msup", "msubsup",
         "munder", "mover", "munderover", "mtable", "mtr", "mtd", "mstyle", "mpadded", "mphantom", "menclose", "mmultiscripts",
         "mprescripts", "none", "merror"}
_ATTRIBUTES = {"display", "displaystyle", "scriptlevel", "mathvariant", "mathcolor", "mathsize", "stretchy", "fence", "form",
               "separator", "accent", "accentunder", "lspace", "rspace", "minsize", "maxsize", "movablelimits", "width",
               "height", "depth", "voffset", "linethickness", "columnalign", "columnspacing", "rowspacing", "columnlines",
               "rowlines", "notation", "largeop", "symmetric"}


def mathml(formula: str, block: bool) -> str:
    """A LaTeX formula as MathML; as code where it cannot be parsed."""
    try:
        if len(formula) <= MAX_FORMULA_LENGTH:
            return _clean(convert_to_element(formula, display="block" if block else "inline"))
    except Exception:  # the converter raises many types on wrong formulas, and RecursionError on hostile ones
        pass
    code = f'<code class="formula">{html.escape(formula)}</code>'
    return f"<p>{code}</p>" if block else code


_SIGNS, _CLOSING = set("+−±∓"), set(")]}|!")
_FUNCTIONS = {"sin", "cos", "tan", "cot", "sec", "csc", "arcsin", "arccos", "arctan", "sinh", "cosh", "tanh", "log", "ln", "lg",
          "exp", "det", "dim", "ker", "deg", "gcd", "arg"}


def _text(element: Element) -> str:
    return html.unescape(element.text or "")


def _fix_spacing(row: Element) -> None:
    """TeX's spacing where the converter lacks it: around ±, none after the sign of a number, a thin space after sin."""
    children = list(row)
    for before, child, after in zip([None, *children], children, [*children[1:], None]):
        if child.tag == "mi" and _text(child) in _SIGNS:
            child.tag = "mo"
        if child.tag == "mo" and _text(child) in _SIGNS and before is not None and before.tag == "mo" and \
                _text(before) not in _CLOSING:
            child.attrib |= {"form": "prefix", "lspace": "0", "rspace": "0"}
        name = child[0] if child.tag in ("msup", "msub", "msubsup") else child  # as in sin^2
        if name.tag == "mi" and _text(name) in _FUNCTIONS and after is not None and after.tag != "mo":
            row.insert(list(row).index(after), Element("mspace", width="0.17em"))


def _clean(element: Element) -> str:
    """The element as text, with allowed tags and attributes only.

    The converter lets links, styles and even scripts through, and does not escape texts.
    """
    if element.tag == "mrow":
        _fix_spacing(element)
    inside = html.escape(_text(element)) + "".join(_clean(child) for child in element)
    tail = html.escape(html.unescape(element.tail or ""))
    if element.tag not in _TAGS:
        return inside + tail
    attributes = "".join(f' {key}="{html.escape(value)}"' for key, value in element.items() if key in _ATTRIBUTES)
    return f"<{element.tag}{attributes}>{inside}</{element.tag}>{tail}"


# Rules of our own, because mdit-py-plugins has no \[ within a line, drops what follows \] on its line, and cannot be told
# that a formula may still be streamed.
_DELIMITERS = (("$$", "$$", True), ("\\[", "\\]", True), ("\\(", "\\)", False), ("$", "$", False))


def _is_price(text: str, after: str) -> bool:
    """Whether text between two dollars is no formula: it has outer spaces or two lines, or a digit follows."""
    return text != text.strip() or "\n" in text or after.isdigit()


def _inline_formula(state: StateInline, silent: bool) -> bool:
    src, start = state.src, state.pos
    if src[start] not in "$\\":
        return False
    for opening, closing, block in _DELIMITERS:
        if src.startswith(opening, start):
            start += len(opening)
            end = src.find(closing, start, min(start + MAX_FORMULA_LENGTH, state.posMax))
            while closing == "$" and end > start and src[end - 1] == "\\":
                end = src.find(closing, end + 1, min(start + MAX_FORMULA_LENGTH, state.posMax))
            if end <= start or opening == "$" and _is_price(src[start:end], src[end + 1:end + 2]):
                return False
            if not silent:
                token = state.push("formula", "math", 0)
                token.content, token.block = src[start:end].strip(), block
            state.pos = end + len(closing)
            return True
    return False


def _block_formula(state: StateBlock, first: int, last: int, silent: bool) -> bool:
    """$$ or \\[ at the start of a line up to its counterpart at the end of one, which env["streaming"] lets be missing."""
    start = state.bMarks[first] + state.tShift[first]
    closing = {"$$": "$$", "\\[": "\\]"}.get(state.src[start:start + 2])
    if closing is None or state.is_code_block(first):
        return False
    position = state.src.find(closing, start + 2, min(start + MAX_FORMULA_LENGTH, state.eMarks[last - 1]))
    if position < 0 and not (state.env.get("streaming") and state.eMarks[last - 1] - start < MAX_FORMULA_LENGTH):
        return False
    line = last - 1 if position < 0 else next(n for n in range(first, last) if position < state.eMarks[n])
    if position >= 0 and state.src[position + 2:state.eMarks[line]].strip():
        return False
    if not silent:
        token = state.push("formula", "math", 0)
        token.content = state.getLines(first, line + 1, state.blkIndent, False).strip()[2:].removesuffix(closing).strip()
        token.block, token.map = True, [first, line + 1]
        state.line = line + 1
    return True


def _code(text: str, language: str, highlighted: bool) -> str:
    if highlighted and language and len(text) <= MAX_HIGHLIGHTED_LENGTH:
        try:
            return highlight(text, get_lexer_by_name(language), HtmlFormatter(nowrap=True))
        except ClassNotFound:
            pass
    return html.escape(text)


class _Renderer(RendererHTML):
    """env: "copy", the label of the button above code; "highlight", whether code is highlighted."""

    def formula(self, tokens, index, options, env) -> str:
        return mathml(tokens[index].content, tokens[index].block)

    def fence(self, tokens, index, options, env) -> str:
        token = tokens[index]
        language = (token.info.split() or [""])[0]
        label = html.escape(env.get("copy", "Copy"))
        return (f'<div class="code"><div class="code-head"><span>{html.escape(language)}</span>'
                f'<button type="button" class="copy-code">{label}</button></div>'
                f'<pre tabindex="0"><code>{_code(token.content, language, env.get("highlight", True))}</code></pre></div>\n')

    code_block = fence

    def image(self, tokens, index, options, env) -> str:
        token = tokens[index]
        source = html.escape(str(token.attrs["src"]))
        return f'<a href="{source}" rel="noopener noreferrer">{html.escape(token.content) or source}</a>'

    def link_open(self, tokens, index, options, env) -> str:
        tokens[index].attrs["rel"] = "noopener noreferrer"
        return self.renderToken(tokens, index, options, env)

    def table_open(self, tokens, index, options, env) -> str:
        return '<div class="table" tabindex="0"><table>\n'

    def table_close(self, tokens, index, options, env) -> str:
        return "</table></div>\n"


_markdown = MarkdownIt("js-default", {"html": False, "breaks": True}, renderer_cls=_Renderer)
_markdown.inline.ruler.before("escape", "formula", _inline_formula)
_markdown.block.ruler.before("fence", "formula", _block_formula, {"alt": ["paragraph", "reference", "blockquote", "list"]})


def render(text: str, copy: str = "Copy", highlighted: bool = True) -> str:
    return _markdown.render(text, {"copy": copy, "highlight": highlighted})


def settled_length(text: str) -> int:
    """How many characters of a growing text are blocks that later text cannot change.

    These are all before the last block that has an empty line above it (without one, a paragraph may still absorb the block).
    """
    starts = [token.map[0] for token in _markdown.parse(text, {"streaming": True})
              if token.level == 0 and token.map and token.nesting >= 0]
    lines = text.splitlines(keepends=True)
    separated = [line for line in starts[1:] if not lines[line - 1].strip()]
    return sum(map(len, lines[:separated[-1]])) if separated else 0


class StreamingMarkdown:
    """Renders a growing text; settled blocks are rendered once, the rest again each time."""

    def __init__(self, copy: str = "Copy"):
        self.copy, self._settled, self._rendered, self._due = copy, 0, 0, 0.0

    def feed(self, text: str, final: bool = False) -> tuple[str, str] | None:
        """The whole text so far -> (HTML of newly settled blocks, HTML of the rest); None where it is too early to render."""
        started = time.monotonic()
        if not final and (started < self._due or len(text) == self._rendered):
            return None
        rest = text[self._settled:]
        count = len(rest) if final else settled_length(rest)
        settled = render(rest[:count], self.copy) if count else ""
        tail = render(rest[count:], self.copy, highlighted=False) if rest[count:] else ""
        self._settled, self._rendered = self._settled + count, len(text)
        self._due = started + RENDER_INTERVAL * (time.monotonic() - started)
        return settled, tail


def code_style() -> str:
    """CSS of highlighted code, light and dark."""
    light = HtmlFormatter(style="default").get_style_defs(".prose pre")
    dark = HtmlFormatter(style="github-dark").get_style_defs(".body--dark .prose pre")
    lines = f"{light}\n{dark}".splitlines()
    return "\n".join(line for line in lines if "background" not in line and not line.startswith("pre "))
