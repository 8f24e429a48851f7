"""The list of conversations in a real browser: search, rename, delete and export, in both languages."""

import json

import pytest
from page.browser_fixtures import PHONE

from spoutnik.store.history import History

pytestmark = pytest.mark.usefixtures("no_errors_in_handlers")


def fill_history(folder):
    store = History(folder / "history.db")
    for title, text, answer in (("Un été", "Où est le cœur de l’été ?", "Au **soleil**."), ("Sums", "12 + 30?", "42")):
        name = store.create(title)
        store.append(name, "user", text)
        store.append(name, "assistant", answer, "Hm.", "alpha")
    return store


def test_search_rename_delete(visit, serving, tmp_path):
    store = fill_history(tmp_path)
    page = visit()
    page.get_by_role("heading", name="Today").wait_for()
    assert page.locator(".entry").count() == 2
    search = page.get_by_label("Search conversations")
    search.fill("COEUR")
    page.locator(".excerpt", has_text="Où est le cœur de l’été ?").wait_for()
    page.wait_for_function("document.querySelectorAll('.entry').length === 1")
    search.fill("zzz")
    page.get_by_text("No conversation holds these words.").first.wait_for()
    search.fill("")
    page.wait_for_function("document.querySelectorAll('.entry').length === 2")
    page.get_by_role("button", name="Actions for Sums").click()
    page.get_by_text("Rename").click()
    page.get_by_role("textbox", name="Rename").fill("Additions")
    page.get_by_role("button", name="Save").click()
    page.locator(".entry", has_text="Additions").wait_for()
    page.get_by_role("button", name="Actions for Additions").click()
    page.get_by_text("Delete").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    page.wait_for_function("document.querySelectorAll('.entry').length === 1")
    assert [entry.title for entry in store.list()] == ["Un été"]


def test_what_cannot_be_done_is_said(visit, serving, tmp_path):
    """The file is damaged while the page is open: nothing fails in silence, no path is told, and what is shown stays."""
    fill_history(tmp_path)
    page = visit()
    page.get_by_role("heading", name="Today").wait_for()
    (tmp_path / "history.db").write_bytes(b"no database " * 500)
    page.get_by_role("button", name="Actions for Sums").click()
    page.get_by_text("Rename").click()
    page.get_by_role("textbox", name="Rename").fill("Additions")
    page.get_by_role("button", name="Save").click()
    said = page.locator(".q-notification", has_text="the history is damaged")
    said.wait_for()
    assert str(tmp_path) not in said.inner_text() and "history.db" in said.inner_text()
    assert page.get_by_role("textbox", name="Rename").input_value() == "Additions"  # to try again
    said.get_by_role("button", name="Close").click()
    said.wait_for(state="detached")
    page.get_by_role("button", name="Cancel").click()
    page.locator(".q-dialog").wait_for(state="detached")
    page.locator(".entry-name", has_text="Un été").click()
    said.wait_for()
    assert page.get_by_text("What shall we think about?").is_visible()


def test_exports_hold_everything(visit, numbered, tmp_path):
    fill_history(tmp_path)
    page = visit()

    def exported(button, item):
        page.get_by_role("button", name=button).click()
        with page.expect_download() as download:
            page.get_by_text(item).click()
        page.locator(".q-menu").wait_for(state="detached")
        return download.value.suggested_filename, download.value.path().read_text("utf-8")

    page.locator(".entry-name", has_text="Un été").click()
    page.get_by_role("button", name="Answer again").click()
    page.locator(".reply", has_text="Answer 0.").wait_for()
    name, text = exported("Actions for Un été", "Export as Markdown")
    assert name == "Un-été.md" and text.startswith("# Un été\n")
    assert text.index("Answer 0.") < text.index("Another version of message 2") < text.index("Au **soleil**.")
    name, text = exported("Actions for Un été", "Export as JSON")
    conversation = json.loads(text)
    assert name == "Un-été.json" and [m["content"] for m in conversation["messages"]][1:] == ["Au **soleil**.", "Answer 0."]
    assert conversation["head"] == conversation["messages"][2]["id"]
    name, text = exported("Export all", "Export as JSON")
    assert name == "spoutnik.json" and [one["title"] for one in json.loads(text)] == ["Sums", "Un été"]
    name, text = exported("Export all", "Export as Markdown")
    assert name == "spoutnik.md" and "# Sums\n" in text and "# Un été\n" in text


def test_a_phone_in_french(visit, numbered, tmp_path):
    fill_history(tmp_path)
    page = visit(**PHONE, locale="fr-FR")
    page.get_by_role("button", name="Conversations").click()
    page.get_by_role("heading", name="Aujourd’hui").wait_for()
    page.get_by_label("Chercher une conversation").fill("soleil")
    page.locator(".excerpt", has_text="soleil").wait_for()
    page.locator(".entry-name", has_text="Un été").click()
    page.get_by_role("button", name="Répondre à nouveau").click()
    page.get_by_role("group", name="Version 2 sur 2").wait_for()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
