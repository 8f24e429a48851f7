"""The list of conversations: search, dates, and for each of them rename, save and delete."""

import asyncio
import json
import re
import time
from collections.abc import Awaitable, Callable

from nicegui import ui

from spoutnik.page.conversations import TITLE_LENGTH, Conversations
from spoutnik.page.dates import Calendar
from spoutnik.page.strings import Strings
from spoutnik.page.widgets import button, button_row, icon_button, notify_errors, open_dialog
from spoutnik.store.history import Conversation as HistoryEntry
from spoutnik.store.markdown import Labels, conversation_markdown


class HistoryView:
    """current: the id of the conversation that is shown. open_conversation: shows another; None is a new one."""

    def __init__(self, conversations: Conversations, strings: Strings, calendar: Calendar, owner: str | None,
                 current: Callable[[], str], open_conversation: Callable[[str | None], Awaitable[None]]):
        self.conversations, self.strings, self.calendar, self.owner = conversations, strings, calendar, owner
        self._current, self._open = current, open_conversation
        self._shown, self._search = (), None
        if conversations.history is not None:
            self._search = ui.input(placeholder=strings.search_history).classes("history-search")
            self._search.props("dense borderless clearable debounce=200 type=search").props.update(
                {"aria-label": strings.search_history})
        self._list = ui.element("nav").classes("conversation-list").props(f'aria-label="{strings.conversations}"')
        self._status = ui.label().classes("visually-hidden").props("role=status")
        if conversations.history is not None:
            with button(strings.export_all, lambda: None, "download").props("align=left").classes("export-all muted"):
                self._build_menu(None)

    @property
    def _query(self) -> str:
        return "" if self._search is None else (self._search.value or "").strip()

    def _state(self) -> tuple:
        """What the list depends on."""
        return self.conversations.list_version, self._current(), self.calendar.local(time.time()).date(), self._query

    def show_all(self, entries: list[HistoryEntry]) -> None:
        """Shows the owner's conversations as they were read for this page."""
        self._shown = self._state()
        self._show([(entry, "") for entry in entries])

    async def tick(self) -> None:
        """Shows the list anew where something in it has changed, here or in another tab."""
        if (state := self._state()) == self._shown:
            return
        self._shown = state  # also where it fails: it is said once
        with notify_errors(self.strings):
            if self._query:
                hits = await self.conversations.search(self._query, self.owner)
                self._show([(hit.conversation, hit.excerpt) for hit in hits])  # what was typed meanwhile is for the next tick
            else:
                self._show([(entry, "") for entry in await self.conversations.entries(self.owner)])

    def _show(self, found: list[tuple[HistoryEntry, str]]) -> None:
        self._list.clear()
        nothing = self.strings.nothing_matches if self._query else self.strings.no_conversations
        with self._list:
            if not found and self.conversations.history is not None:
                ui.label(nothing).classes("muted small")
            group = None
            for entry, excerpt in found:
                if (name := self.calendar.period(entry.updated, time.time())) != group:
                    group = name
                    ui.label(name).classes("period").props("role=heading aria-level=2")
                self._build_entry(entry, excerpt)
        self._status.text = nothing if self._query and not found else ""

    def _build_entry(self, entry: HistoryEntry, excerpt: str) -> None:
        strings, title = self.strings, entry.title or "…"
        current = self._current() == entry.id
        with ui.element("div").classes("entry current" if current else "entry"):
            with button("", lambda: self._open(entry.id)).props("align=left").classes("entry-name") as name:
                ui.label(title).classes("ellipsis")
                if excerpt:
                    ui.label(excerpt).classes("excerpt")
            name.props.update({"title": f"{title}\n{self.calendar.time(entry.updated)}"} |
                              ({"aria-current": "page"} if current else {}))
            with icon_button("more_horiz", strings.actions.format(title), classes="more"):
                self._build_menu(entry)

    def _build_menu(self, entry: HistoryEntry | None) -> None:
        """What can be done with a conversation; with all of them, where the entry is None."""
        strings = self.strings
        with ui.menu().props("auto-close"):
            if entry is not None:
                ui.menu_item(strings.rename, lambda: self._open_rename(entry)).props("role=menuitem")
            ui.menu_item(strings.export_markdown, lambda: self._download(entry, "md")).props("role=menuitem")
            ui.menu_item(strings.export_json, lambda: self._download(entry, "json")).props("role=menuitem")
            if entry is not None:
                ui.menu_item(strings.delete, lambda: self._open_delete(entry)).props("role=menuitem")

    async def _download(self, entry: HistoryEntry | None, suffix: str) -> None:
        """Downloads one conversation, or all, with all versions of their messages."""
        with notify_errors(self.strings):
            try:
                text = await asyncio.to_thread(self._export, entry, suffix)
            except KeyError:  # deleted meanwhile
                ui.notify(self.strings.conversation_gone, type="warning", position="top")
                return
            name = "spoutnik" if entry is None else re.sub(r"[^\w-]+", "-", entry.title).strip("-") or entry.id
            ui.download.content(text, f"{name}.{suffix}", "application/json" if suffix == "json" else "text/markdown")

    def _export(self, entry: HistoryEntry | None, suffix: str) -> str:
        strings, history = self.strings, self.conversations.history
        if suffix == "json":
            exported = list(history.export(self.owner)) if entry is None else history.export_conversation(history.get(entry.id))
            return json.dumps(exported, ensure_ascii=False, indent=1)
        labels = Labels({"user": strings.you, "assistant": strings.answer}, strings.thought, strings.endings["interrupted"],
                        strings.other_version, self.calendar.time)
        entries = reversed(history.list(owner=self.owner)) if entry is None else [history.get(entry.id)]
        return "\n".join(conversation_markdown(one, history.messages(one.id), labels) for one in entries)

    def _open_rename(self, entry: HistoryEntry) -> None:
        async def save() -> None:
            with notify_errors(self.strings):
                await self.conversations.rename(entry.id, field.value, self.owner)
                dialog.close()

        with open_dialog(self.strings.rename) as dialog:
            field = ui.input(self.strings.rename, value=entry.title).classes("full")
            field.props(f"outlined dense autofocus maxlength={TITLE_LENGTH}")
            field.on("keydown.enter", save, [])
            button_row(self.strings.cancel, dialog.close, self.strings.save, save)

    def _open_delete(self, entry: HistoryEntry) -> None:
        async def delete() -> None:
            dialog.close()
            with self._list, notify_errors(self.strings):  # the dialog is gone
                await self.conversations.delete(entry.id, self.owner)
                if self._current() == entry.id:
                    await self._open(None)

        with open_dialog(self.strings.delete) as dialog:
            ui.label(self.strings.confirm_delete.format(entry.title or "…"))
            cancel, confirm = button_row(self.strings.cancel, dialog.close, self.strings.delete, delete)
            cancel.props("autofocus")
            confirm.classes("danger")
