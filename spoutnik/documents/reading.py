"""Documents as text: plain text, Markdown, HTML and PDF, in sections that know their heading or page and their offset.

Offsets count characters of the file's own text for plain text and Markdown (without a byte order mark), of a page's text for
PDF (as pypdf extracts it), and of the text without markup for HTML (`html_sections`).
"""

import glob
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from spoutnik.documents.markdown import markdown_sections
from spoutnik.documents.section import Section
from spoutnik.errors import UserError
from spoutnik.files import LFS_POINTER, is_lfs_pointer

_SHOWN = 5  # documents that one message names


@dataclass(frozen=True)
class Document:
    """name: for people and rows, without the folders above those that were named. sections: those that hold text."""

    path: Path
    name: str
    sections: tuple[Section, ...]


def read_documents(sources: Sequence[Path]) -> tuple[list[Document], dict[str, int]]:
    """(the documents, suffix -> how many other files of folders were left alone).

    Args:
        sources: files, folders (read with the folders in them, but not what is hidden) and patterns.

    Raises:
        UserError: there is none, or some cannot be read; up to _SHOWN of these are told at once.
    """
    files, others = _files(sources)
    documents, mistakes = [], []
    for path, name in files.items():
        try:
            documents.append(Document(path, name, _sections(path)))
        except UserError as error:
            mistakes.append(str(error))
    if mistakes:
        more = f"\n... and {len(mistakes) - _SHOWN} more." if len(mistakes) > _SHOWN else ""
        raise UserError("\n".join(mistakes[:_SHOWN]) + more)
    return documents, dict(sorted(others.items()))


def _files(sources: Sequence[Path]) -> tuple[dict[Path, str], Counter[str]]:
    """File -> its name, in the order of the sources, and the suffixes of what is no document."""
    named: dict[Path, Path] = {}
    others: Counter[str] = Counter()
    for source in sources:
        files = _files_of(source)
        documents = [file for file in files if file.suffix.lower() in READERS]
        if not documents:
            what = f"holds no documents ({', '.join(READERS)})" if source.is_dir() else f"is none of {', '.join(READERS)}"
            raise UserError(f"{source}: {what}. Give documents of these kinds, or change others into one of them.")
        others.update(file.suffix.lower() or "without a suffix" for file in files if file not in documents)
        above = source.resolve().parent if source.is_dir() else None
        named |= {file: file.resolve().relative_to(above) if above and file.resolve().is_relative_to(above) else
                  Path(file.name) for file in documents if file not in named}
    names = Counter(named.values())
    return {file: (name if names[name] == 1 else file).as_posix() for file, name in named.items()}, others


def _files_of(source: Path) -> list[Path]:
    """The files that a source means, sorted. Raises UserError where there is none."""
    if source.is_file():
        return [source]
    if source.is_dir():
        return sorted(file for file in source.rglob("*") if file.is_file()
                      and not any(part.startswith(".") for part in file.relative_to(source).parts))
    if glob.has_magic(str(source)):
        files = sorted(file for name in glob.glob(str(source), recursive=True) if (file := Path(name)).is_file())
        if files:
            return files
        raise UserError(f"{source}: no file fits this pattern. Correct it.")
    raise UserError(f"{source}: is not there. Give the path of a document, of a folder of them, or a pattern in quotes.")


def _sections(path: Path) -> tuple[Section, ...]:
    try:
        if is_lfs_pointer(path):
            raise UserError(LFS_POINTER.format(path=path))
        sections = READERS[path.suffix.lower()](path)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error}). Check the file and its permissions.") from error
    return tuple(section for section in sections if section.text.strip())


def _text(path: Path) -> str:
    """The file's text with its own line ends. Raises UserError where it is not UTF-8."""
    content = path.read_bytes()
    if content.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in content[:4096]:
        raise UserError(f"{path}: is UTF-16 or no text at all. Save it as UTF-8.")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: is not UTF-8 (byte {error.start + 1}). Save it as UTF-8.") from error


def _plain(path: Path) -> list[Section]:
    return [Section(_text(path), 0)]


def _markdown(path: Path) -> list[Section]:
    return markdown_sections(_text(path))


def _html(path: Path) -> list[Section]:
    from spoutnik.documents.html import html_sections

    return html_sections(path.read_bytes())


def _pdf(path: Path) -> list[Section]:
    from spoutnik.documents.pdf import pdf_sections

    return pdf_sections(path)


READERS: dict[str, Callable[[Path], list[Section]]] = {
    ".txt": _plain, ".text": _plain, ".md": _markdown, ".markdown": _markdown, ".html": _html, ".htm": _html,
    ".xhtml": _html, ".pdf": _pdf}
