"""The sections of a Markdown document, by its headings. The text stays as it is written, marks and all."""

import re
from itertools import accumulate

from markdown_it import MarkdownIt

from spoutnik.documents.section import Headings, Section

_FRONT_MATTER = re.compile(r"---[ \t]*\r?\n.*?\n---[ \t]*(?:\r?\n|$)", re.DOTALL)
_LINE = re.compile(r"[^\r\n]*(?:\r\n|\r|\n|$)")  # as the parser counts lines


def markdown_sections(text: str) -> list[Section]:
    """What stands before the first heading, then what stands below each; metadata at the top (between lines of ---) is left
    out. Headings within lists and quotations begin no section."""
    front = _FRONT_MATTER.match(text)
    begin = front.end() if front else 0
    lines = [begin, *(begin + length for length in accumulate(map(len, _LINE.findall(text[begin:]))))]
    tokens = MarkdownIt("commonmark").parse(text[begin:])
    headings, sections, start, path = Headings(), [], begin, ""
    for token, inline in zip(tokens, tokens[1:]):
        if token.type != "heading_open" or token.level or token.map is None:
            continue
        first, after = (lines[min(line, len(lines) - 1)] for line in token.map)
        sections.append(Section(text[start:first], start, path))
        start, path = after, headings.enter(int(token.tag[1:]), inline.content)
    return [*sections, Section(text[start:], start, path)]
