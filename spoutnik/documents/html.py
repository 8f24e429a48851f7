"""The sections of an HTML page: its text without markup, navigation and scripts."""

import re

from bs4 import BeautifulSoup, NavigableString, Tag
from bs4.element import PreformattedString

from spoutnik.documents.section import Headings, Section

_LEFT_OUT = ["script", "style", "noscript", "template", "nav", "footer", "aside", "form", "svg", "button", "iframe", "head"]
_HEADINGS = ["h1", "h2", "h3", "h4", "h5", "h6"]
_BLOCKS = ["p", "div", "section", "article", "main", "header", "ul", "ol", "dl", "table", "pre", "blockquote", "figure",
           "figcaption", "details", "summary", "hr", "address"]
_LINES = ["br", "li", "tr", "dt", "dd", "caption"]
_CELLS = ["td", "th"]
_SPACE = re.compile(r"[ \t\r\n\f]+")


class _Break(NavigableString):
    """A string of ours between the page's own."""


class _Heading(_Break):
    """Stands where a heading stood. level: from 1."""

    level: int


def html_sections(content: bytes) -> list[Section]:
    """What stands before the first heading, then what stands below each. Where a page has one <main> or one <article>, only
    that is read. Offsets count in all sections' texts with a blank line between them."""
    page = BeautifulSoup(content, "html.parser")
    for tag in page.find_all(_LEFT_OUT):
        tag.extract()
    root = next((found[0] for name in ("main", "article") if len(found := page.find_all(name)) == 1), page)
    _mark_breaks(root)
    headings, sections, parts, path, offset = Headings(), [], [], "", 0
    for string in [*root.descendants, None]:
        if string is None or isinstance(string, _Heading):
            text = _tidied("".join(parts))
            if text:
                sections.append(Section(text, offset, path))
                offset += len(text) + 2
            parts = []
            if string is not None:
                path = headings.enter(string.level, str(string))
        elif isinstance(string, _Break):
            parts.append(str(string))
        elif isinstance(string, NavigableString) and not isinstance(string, PreformattedString):  # comments and the like
            kept = string.find_parent("pre") is not None
            parts.append(str(string) if kept else _SPACE.sub(" ", string))
    return sections


def _mark_breaks(root: Tag) -> None:
    """Puts line ends around blocks, bars between cells, and marks in the place of headings."""
    for heading in root.find_all(_HEADINGS):
        mark = _Heading(_SPACE.sub(" ", heading.get_text(" ")).strip())
        mark.level = int(heading.name[1])
        heading.replace_with(mark)
    for block in root.find_all(_BLOCKS):
        if block is not root:
            block.insert_before(_Break("\n\n"))
            block.insert_after(_Break("\n\n"))
    for line in root.find_all(_LINES):
        line.insert_after(_Break("\n"))
    for cell in root.find_all(_CELLS):
        if cell.find_next_sibling(_CELLS) is not None:
            cell.insert_after(_Break(" | "))


def _tidied(text: str) -> str:
    """Without spaces around line ends, and with one blank line at most."""
    return re.sub(r"\n{3,}", "\n\n", re.sub(r"[ \t]*\n", "\n", re.sub(r"\n +(?=\S)", "\n", text))).strip()
