"""Documents as text: sections, headings, pages and offsets, and what cannot be read."""

import io
from pathlib import Path

import pytest
from documents.pdf_file import pdf
from pypdf import PdfReader, PdfWriter

from spoutnik.documents.passages import LONGEST, cut
from spoutnik.documents.reading import read_documents
from spoutnik.errors import UserError

MARKDOWN = """---
title: x
---
Before the first heading.\r
\r
# Pumps\r
\r
Model
=====
Lifts 30 l.

```
# no heading
```

> # quoted

## Deep
Below.
"""

HTML = b"""<!doctype html><html><head><title>T</title><style>p{}</style></head><body><nav>Home</nav>
<article><header><h1>Valves &amp; more</h1></header><p>The valve   V7 opens
at <b>4.2 bar</b> and closes<br>at 3.9 bar.</p><!-- secret -->
<h2>Weights</h2><table><tr><th>Name</th><th>Weight</th></tr><tr><td>V7</td><td>3 kg</td></tr></table>
<pre>a   b
c</pre><script>alert(1)</script></article><footer>(c)</footer></body></html>"""


def written(folder: Path, **files: str | bytes) -> Path:
    for name, content in files.items():
        path = folder / name.replace("_", ".")
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


def sections(path: Path) -> list[tuple[str, str]]:
    ((document,), _) = read_documents([path])
    return [(section.heading, section.text.strip()) for section in document.sections]


def test_markdown_is_cut_at_its_headings_and_offsets_are_the_file_s(tmp_path):
    path = written(tmp_path, a_md="\ufeff" + MARKDOWN) / "a.md"
    ((document,), _) = read_documents([path])
    assert [section.heading for section in document.sections] == ["", "Model", "Model > Deep"]
    assert document.sections[1].text.split() == "Lifts 30 l. ``` # no heading ``` > # quoted".split()
    whole = path.read_bytes().decode("utf-8-sig")
    for section in document.sections:
        assert whole[section.start:section.start + len(section.text)] == section.text


def test_html_is_its_text_without_what_is_not_read(tmp_path):
    path = written(tmp_path, a_html=HTML) / "a.html"
    assert sections(path) == [("Valves & more", "The valve V7 opens at 4.2 bar and closes\nat 3.9 bar."),
                              ("Valves & more > Weights", "Name | Weight\nV7 | 3 kg\n\na   b\nc")]
    ((document,), _) = read_documents([path])
    whole = "\n\n".join(section.text for section in document.sections)
    assert all(whole[section.start:].startswith(section.text) for section in document.sections)


def test_pdf_has_pages(tmp_path):
    path = written(tmp_path, a_pdf=pdf(["The valve V7 opens", "at 4.2 bar."], ["Second page."])) / "a.pdf"
    ((document,), _) = read_documents([path])
    assert [(section.page, section.start, section.text.split()) for section in document.sections] == [
        (1, 0, "The valve V7 opens at 4.2 bar.".split()), (2, 0, ["Second", "page."])]
    assert document.sections[0].text == PdfReader(path).pages[0].extract_text()


def encrypted(password: str) -> bytes:
    writer, target = PdfWriter(clone_from=io.BytesIO(pdf(["Hello"]))), io.BytesIO()
    writer.encrypt(password, "owner", algorithm="RC4-128")
    writer.write(target)
    return target.getvalue()


def test_what_cannot_be_read_is_told_at_once(tmp_path):
    files = {"a_pdf": b"%PDF-1.4 cut", "b_pdf": encrypted("secret"), "c_txt": b"\xff\xfea\0", "d_md": b"caf\xe9",
             "e_txt": "Fine."}
    with pytest.raises(UserError) as error:
        read_documents([written(tmp_path, **files)])
    assert [line.partition(": ")[0].rpartition("/")[2] for line in str(error.value).splitlines()] == ["a.pdf", "b.pdf", "c.txt",
                                                                                                     "d.md"]
    assert "wants a password" in str(error.value) and "is not UTF-8 (byte 4)" in str(error.value)
    assert sections(written(tmp_path, f_pdf=encrypted("")) / "f.pdf") == [("", "Hello")]  # encrypted, and open to all


def test_folders_patterns_and_files_are_named_without_what_is_above_them(tmp_path):
    folder = tmp_path / "docs" / "sub"
    folder.mkdir(parents=True)
    written(folder.parent, a_txt="One.", b_png=b"")
    written(folder, a_txt="Two.", c_md="Three.")
    (folder / ".hidden.txt").write_text("no")
    documents, others = read_documents([tmp_path / "docs", folder / "c.md"])
    assert [document.name for document in documents] == ["docs/a.txt", "docs/sub/a.txt", "docs/sub/c.md"]
    assert others == {".png": 1}
    documents, _ = read_documents([tmp_path / "docs" / "**" / "*.txt"])
    assert [document.name for document in documents] == [f"{folder.parent}/a.txt", f"{folder}/a.txt"]  # two of one name


@pytest.mark.parametrize("name, sentence", [("nothing", "is not there"), ("*.md", "no file fits this pattern"),
                                            ("a.docx", "is none of .txt"), ("empty", "holds no documents")])
def test_sources_that_are_none_are_sentences(tmp_path, name, sentence):
    written(tmp_path, a_docx="x")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=sentence):
        read_documents([tmp_path / name])


def test_passages_are_whole_paragraphs_within_their_length_and_no_text_is_lost(tmp_path):
    paragraphs = [f"Paragraph {number} has a few words, and then number {number * 7} too." for number in range(80)]
    long = " ".join(f"Sentence {number} of one long paragraph says {number * 3}." for number in range(100))
    text = "\n\n".join([*paragraphs, long, "x" * 4000])
    passages = cut(read_documents([written(tmp_path, a_txt=text) / "a.txt"])[0])
    assert all(len(passage.text) <= LONGEST for passage in passages.kept)
    assert all(any(paragraph in passage.text for passage in passages.kept) for paragraph in paragraphs)
    assert sum(passage.text.count("Sentence ") for passage in passages.kept) == 100
    ends = [passage.text[-1] for passage in passages.kept if "x" * 9 not in passage.text]
    assert set(ends) == {"."}


def test_passages_that_repeat_or_say_nothing_are_left_out_and_counted(tmp_path):
    text = "The pump of model A lifts thirty litres of water in every minute of the day."
    written(tmp_path, a_txt=text, b_txt=text.replace("  ", " ").upper(), c_txt="Too short.", d_txt=" \n")
    passages = cut(read_documents([tmp_path])[0])
    assert [passage.document.name for passage in passages.kept] == [f"{tmp_path.name}/a.txt"]
    assert (passages.duplicate, passages.too_short, passages.empty) == (1, 1, [f"{tmp_path.name}/d.txt"])
