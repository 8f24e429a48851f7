"""The pages of a PDF as text, by pypdf. A page that is a picture has none: text recognition is another program's work."""

import logging
from pathlib import Path

from pypdf import PdfReader

from spoutnik.documents.section import Section
from spoutnik.errors import UserError

logging.getLogger("pypdf").setLevel(logging.CRITICAL)  # it tells every oddity of a file; what stops it is an exception


def pdf_sections(path: Path) -> list[Section]:
    """One section a page; a page's offsets begin at 0.

    Raises:
        UserError: the file is damaged, or wants a password.
    """
    try:
        reader = PdfReader(path)
        if reader.is_encrypted and not reader.decrypt(""):
            raise UserError(f"{path}: wants a password. Save it without one.")
        return [Section(page.extract_text(), 0, page=number) for number, page in enumerate(reader.pages, 1)]
    except (UserError, OSError):
        raise
    except Exception as error:  # beside its own errors, whatever a damaged file makes it stumble over
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise UserError(f"{path}: cannot be read as PDF ({reason}). Save it anew, or leave it out.") from error
