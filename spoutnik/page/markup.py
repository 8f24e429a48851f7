"""Markdown, formulas and code to HTML that is safe whatever a model writes: its own HTML is escaped, nothing is fetched.

Formulas are sent as their source; KaTeX draws them in the browser (formulas.js). Images become links: loading one would tell
its server.
"""

import html
import re
import time
from dataclasses import dataclass

from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.rules_block import StateBlock
from markdown_it.rules_core import StateCore
from markdown_it.rules_inline import StateInline
from markdown_it.token import Token
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import get_lexer_by_name
from pygments.util import ClassNotFound

MAX_FORMULA_LENGTH = 4000  # characters; longer formulas are shown as source
MAX_HIGHLIGHTED_LENGTH = 40_000  # characters of code
RENDER_INTERVAL = 10  # a growing text is rendered again after this many times the last rendering's duration


@dataclass(frozen=True)
class Labels:
    """The few words that rendered text has of its own."""

    copy: str = "Copy"
    done: str = "Done"
    to_do: str = "To do"


def formula(source: str, block: bool, complete: bool = True) -> str:
    """The element that the browser replaces by the drawn formula. One that is too long, or not complete yet, stays source.
    A commutative diagram is a display wherever it stands: KaTeX draws it in no line, and has no other form for it."""
    block = block or "\\begin{CD}" in source
    name = "formula" if complete and len(source) <= MAX_FORMULA_LENGTH else "formula-source"
    return f'<span class="{name}{" display" * block}">{html.escape(source)}</span>'


# Rules of our own, because mdit-py-plugins has no \[ within a line, drops what follows \] on its line, and cannot be told
# that a formula may still be streamed.
_DELIMITERS = (("$$", "$$", True), ("\\[", "\\]", True), ("\\(", "\\)", False), ("$`", "`$", False), ("$", "$", False))
_ENVIRONMENT = re.compile(r"\\begin\{((?:align(?:ed)?|alignat|flalign|gather(?:ed)?|multline|equation|eqnarray|split|cases|"
                          r"array|CD|[pbBvV]?matrix)\*?)\}")
_BARE = re.compile(rf"\\boxed\{{|{_ENVIRONMENT.pattern}")  # formulas that models write without delimiters
_CLOSING_ATTEMPTS = 8  # delimiters that are tried as a formula's end: those within braces are not it, as in \text{if $x$}


def _is_price(text: str, after: str, before: str = "") -> bool:
    """Whether text between two dollars is no formula: it has two lines, a digit follows, or it has outer spaces and nothing
    that formulas alone have, such as letters of which none makes a word."""
    amount = before.rstrip(" \u00a0\u202f")[-1:].isdigit()
    letters = not amount and re.search("[A-Za-z]", text) and not re.search(r"[^\W\d_]{2}|[^\x00-\x7f]", text)
    formula_like = re.search(r"[\\^_=]", text) or letters
    spaced = text != text.strip() and not (text.strip() and text[0] == text[-1] == " " and formula_like)
    return spaced or "\n" in text or after.isdigit()


def _closing_position(source: str, closing: str, start: int, limit: int) -> int:
    """Where the formula that begins at `start` ends: at the first delimiter that is neither escaped nor within braces, else
    at the first that is not escaped; -1 without one."""
    limit, first, position = min(start + MAX_FORMULA_LENGTH, limit), -1, start - 1
    for _ in range(_CLOSING_ATTEMPTS):
        position = source.find(closing, position + 1, limit)
        while closing[0] == "$" and position > start and source[position - 1] == "\\":
            position = source.find(closing, position + 1, limit)
        if position < 0:
            break
        first = position if first < 0 else first
        opened, closed = (source.count(brace, start, position) - source.count(f"\\{brace}", start, position) for brace in "{}")
        if opened <= closed:
            return position
    return first


def _inline_formula(state: StateInline, silent: bool) -> bool:
    src, start = state.src, state.pos
    if src[start] not in "$\\":
        return False
    for opening, closing, block in _DELIMITERS:
        if src.startswith(opening, start):
            start += len(opening)
            end = _closing_position(src, closing, start, state.posMax)
            complete = end >= 0
            if not complete and opening != "$" and state.env.get("streaming") and state.posMax - start < MAX_FORMULA_LENGTH:
                end = state.posMax
            if opening == "$`" and not complete:
                continue
            before = src[max(state.pos - 2, 0):state.pos]
            if end <= start or opening == "$" and _is_price(src[start:end], src[end + 1:end + 2], before):
                return False
            if not silent:
                _push_formula(state, src[start:end].strip(), block, complete)
            state.pos = end + len(closing) * complete
            return True
    return _bare_formula(state, silent)


def _bare_formula(state: StateInline, silent: bool) -> bool:
    """\\boxed{...} or an environment, without delimiters around it."""
    match = _BARE.match(state.src, state.pos, state.posMax)
    if match is None:
        return False
    limit = min(state.pos + MAX_FORMULA_LENGTH, state.posMax)
    if match[1] is None:
        end = _closing_brace(state.src, match.end(), limit) + 1
    else:
        closing = f"\\end{{{match[1]}}}"
        end = state.src.find(closing, match.end(), limit) + len(closing)
    complete = end > match.end()
    if not complete and not (state.env.get("streaming") and limit == state.posMax):
        return False
    end = end if complete else state.posMax
    if not silent:
        in_line = match[1] is None or match[1].endswith(("matrix", "array", "cases"))
        _push_formula(state, state.src[state.pos:end], not in_line, complete)
    state.pos = end
    return True


def _closing_brace(source: str, start: int, limit: int) -> int:
    """Where the group that is open at `start` closes; -1 where it does not."""
    depth = 1
    for brace in re.compile(r"\\.|[{}]", re.DOTALL).finditer(source, start, limit):
        depth += {"{": 1, "}": -1}.get(brace[0], 0)
        if depth == 0:
            return brace.start()
    return -1


def _push_formula(state: StateInline, source: str, block: bool, complete: bool) -> None:
    token = state.push("formula", "math", 0)
    token.content, token.block, token.meta = source, block, {"complete": complete}


def _block_formula(state: StateBlock, first: int, last: int, silent: bool) -> bool:
    """$$, \\[ or \\begin{align} at the start of a line up to its counterpart at the end of one, which env["streaming"] lets be
    missing."""
    start = state.bMarks[first] + state.tShift[first]
    opening = state.src[start:start + 2]
    closing = {"$$": "$$", "\\[": "\\]"}.get(opening)
    if closing is None:
        environment = _ENVIRONMENT.match(state.src, start)
        closing, opening = (f"\\end{{{environment[1]}}}", "") if environment else (None, "")
    if closing is None or state.is_code_block(first):
        return False
    position = state.src.find(closing, start + 2, min(start + MAX_FORMULA_LENGTH, state.eMarks[last - 1]))
    complete = position >= 0
    if not complete and not (state.env.get("streaming") and state.eMarks[last - 1] - start < MAX_FORMULA_LENGTH):
        return False
    line = next(n for n in range(first, last) if position < state.eMarks[n]) if complete else last - 1
    if complete and state.src[position + len(closing):state.eMarks[line]].strip():
        return False
    if not silent:
        token = state.push("formula", "math", 0)
        content = state.getLines(first, line + 1, state.blkIndent, False).strip()[len(opening):]
        token.content = (content.removesuffix(closing) if opening else content).strip()
        token.block, token.map, token.meta = True, [first, line + 1], {"complete": complete}
        state.line = line + 1
    return True


_FORMULA_IN_ROW = re.compile(r"\\\(.*?\\\)|\\\[.*?\\\]|\$\$.+?\$\$|\$([^$\n]*[^$\n\\])\$(?!\d)")


def _hide_bars_in_formulas(state: StateCore) -> None:
    """A table's row ends its cells at each bar; those of a formula, as in $|x|$, are written \\vert for it."""
    def hide(match: re.Match) -> str:
        price = match[1] is not None and _is_price(match[1], "")
        return match[0] if price else re.sub(r"(?<!\\)\|", r"\\vert{}", match[0])

    if "|" in state.src and re.search(r"\$|\\[(\[]", state.src):
        lines, fenced = state.src.split("\n"), False
        for index, line in enumerate(lines):
            fenced ^= line.lstrip().startswith(("```", "~~~"))
            if not fenced and line.lstrip().startswith("|"):
                lines[index] = _FORMULA_IN_ROW.sub(hide, line)
        state.src = "\n".join(lines)


_TASK = re.compile(r"\[([ xX])\]\s+(?=\S)")


def _task_list(state: StateCore) -> None:
    """List items that begin with [ ] or [x] get a box in place of their bullet."""
    tokens = state.tokens
    for index in range(2, len(tokens)):
        item, text = tokens[index - 2], tokens[index]
        if item.type == "list_item_open" and tokens[index - 1].type == "paragraph_open" and text.type == "inline":
            first = text.children[0] if text.children else None
            if first is not None and first.type == "text" and (mark := _TASK.match(f"{first.content}.")):
                item.attrSet("class", "task")
                first.content = first.content[mark.end():]
                text.children.insert(0, Token("task", "", 0, meta={"done": mark[1] != " "}))


_FOOTNOTE = re.compile(r"\[\^([\w-]{1,20})\]")


def _footnote(state: StateInline, silent: bool) -> bool:
    """[^1] as a raised number, where it refers and where it explains. Its own rule, for a text that grows cannot know both."""
    match = _FOOTNOTE.match(state.src, state.pos)
    if match is None:
        return False
    if not silent:
        state.push("footnote", "sup", 0).content = match[1]
    explains = state.pos == 0 and state.src.startswith(":", match.end())
    state.pos = match.end() + explains
    return True


def _footnote_text(state: StateBlock, first: int, last: int, silent: bool) -> bool:
    """[^1]: text is a paragraph, not the definition of a link."""
    start = state.bMarks[first] + state.tShift[first]
    match = _FOOTNOTE.match(state.src, start)
    if match is None or state.src[match.end():match.end() + 1] != ":" or state.is_code_block(first):
        return False
    if not silent:
        state.push("paragraph_open", "p", 1).attrSet("class", "footnote")
        state.tokens[-1].map = [first, first + 1]
        inline = state.push("inline", "", 0)
        inline.content, inline.map, inline.children = state.src[start:state.eMarks[first]].strip(), [first, first + 1], []
        state.push("paragraph_close", "p", -1)
        state.line = first + 1
    return True


def _code(text: str, language: str, highlighted: bool) -> str:
    if highlighted and language and len(text) <= MAX_HIGHLIGHTED_LENGTH:
        try:
            return highlight(text, get_lexer_by_name(language), HtmlFormatter(nowrap=True))
        except ClassNotFound:
            pass
    return html.escape(text)


class _Renderer(RendererHTML):
    """env: "labels"; "highlight", whether code is highlighted; "streaming", whether more may follow."""

    def formula(self, tokens, index, options, env) -> str:
        token = tokens[index]
        drawn = formula(token.content, token.block, token.meta["complete"])
        return f"<p>{drawn}</p>\n" if token.map else drawn

    def task(self, tokens, index, options, env) -> str:
        done = tokens[index].meta["done"]
        label = html.escape(env["labels"].done if done else env["labels"].to_do)
        return f'<span class="box{" done" * done}" role="img" aria-label="{label}"></span>'

    def footnote(self, tokens, index, options, env) -> str:
        return f"<sup>{html.escape(tokens[index].content)}</sup>"

    def fence(self, tokens, index, options, env) -> str:
        token = tokens[index]
        language = (token.info.split() or [""])[0]
        if language == "math":
            return f"<p>{formula(token.content.strip(), True, not env.get('streaming'))}</p>\n"
        label = html.escape(env["labels"].copy)
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
_markdown.core.ruler.after("normalize", "bars", _hide_bars_in_formulas)
_markdown.core.ruler.after("inline", "task_list", _task_list)
_markdown.inline.ruler.before("escape", "formula", _inline_formula)
_markdown.inline.ruler.before("link", "footnote", _footnote)
_markdown.block.ruler.before("fence", "formula", _block_formula, {"alt": ["paragraph", "reference", "blockquote", "list"]})
_markdown.block.ruler.before("reference", "footnote_text", _footnote_text, {"alt": ["paragraph"]})


def render(text: str, labels: Labels = Labels(), highlighted: bool = True, streaming: bool = False) -> str:
    return _markdown.render(text, {"labels": labels, "highlight": highlighted, "streaming": streaming})


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

    def __init__(self, labels: Labels = Labels()):
        self.labels, self._settled, self._rendered, self._due = labels, 0, 0, 0.0

    def feed(self, text: str, final: bool = False) -> tuple[str, str] | None:
        """The whole text so far -> (HTML of newly settled blocks, HTML of the rest); None where it is too early to render."""
        started = time.monotonic()
        if not final and (started < self._due or len(text) == self._rendered):
            return None
        rest = text[self._settled:]
        count = len(rest) if final else settled_length(rest)
        settled = render(rest[:count], self.labels) if count else ""
        tail = render(rest[count:], self.labels, highlighted=False, streaming=True) if rest[count:] else ""
        self._settled, self._rendered = self._settled + count, len(text)
        self._due = started + RENDER_INTERVAL * (time.monotonic() - started)
        return settled, tail


def code_style() -> str:
    """CSS of highlighted code, light and dark."""
    light = HtmlFormatter(style="default").get_style_defs(".prose pre")
    dark = HtmlFormatter(style="github-dark").get_style_defs(".body--dark .prose pre")
    lines = f"{light}\n{dark}".splitlines()
    return "\n".join(line for line in lines if "background" not in line and not line.startswith("pre "))
