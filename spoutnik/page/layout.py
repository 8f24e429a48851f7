"""The page around both tabs: header, drawer with the conversations, and an aria-live region for screen readers."""

from nicegui import ui

from spoutnik.page.arena import ArenaTab
from spoutnik.page.chat import ChatTab
from spoutnik.page.controls import set_cookie
from spoutnik.page.conversations import Conversation, Conversations
from spoutnik.page.strings import Strings
from spoutnik.page.widgets import button, button_row, icon_button, open_dialog

DRAWER_BREAKPOINT = 1000  # pixels; from this width on the drawer stands beside the tabs, not over them
THEMES = {"auto": (None, "brightness_auto"), "light": (False, "light_mode"), "dark": (True, "dark_mode")}


class Layout:
    """main: the element that holds the tabs."""

    def __init__(self, conversations: Conversations, strings: Strings, owner: str | None, theme: str | None):
        self.conversations, self.strings, self.owner = conversations, strings, owner
        self.theme = theme if theme in THEMES else "auto"
        self.chat: ChatTab | None = None
        self._announced: tuple[Conversation | None, str] = None, "over"
        ui.colors(primary="#2f5fd0")
        self._dark = ui.dark_mode(THEMES[self.theme][0])
        self._build_header()
        with ui.left_drawer(value=None, bordered=False).classes("drawer") as self._drawer:
            self._drawer.props(f"width=270 breakpoint={DRAWER_BREAKPOINT}").props.update({"aria-label": strings.conversations})
            self._build_drawer()
        self.main = ui.element("div").classes("main")
        self._status = ui.label().classes("visually-hidden").props("role=status aria-live=polite")
        ui.element("div").classes("visually-hidden").props(f'id=copied role=status data-text="{strings.copied}"')

    def _build_header(self) -> None:
        strings = self.strings
        with ui.header(elevated=False).classes("header"):
            ui.link(strings.skip_link, "#question").classes("skip-link")
            icon_button("menu", strings.conversations, lambda: self._drawer.toggle())
            ui.label("Spoutnik").classes("brand").props("role=heading aria-level=1")
            ui.space()
            with ui.tabs(value="chat", on_change=self._show_tab).props("dense no-caps").classes("tabs") as self.tabs:
                ui.tab("chat", strings.chat)
                ui.tab("arena", strings.arena)
            ui.space()
            button(strings.other_language.upper(), self._switch_language).classes("language").props.update(
                {"aria-label": strings.other_language_name, "title": strings.other_language_name,
                 "lang": strings.other_language})
            self._theme = icon_button(THEMES[self.theme][1], strings.theme_button, self._next_theme)

    def _build_drawer(self) -> None:
        strings = self.strings
        button(strings.new_conversation, lambda: self.open(None), "add").props("align=left").classes("new")
        self._list = ui.element("nav").classes("conversation-list").props(f'aria-label="{strings.conversations}"')
        ui.label(strings.history_off if self.conversations.history is None else strings.privacy).classes("muted small privacy")

    def add_tabs(self, chat: ChatTab, arena: ArenaTab) -> None:
        self.chat, self.arena = chat, arena
        arena.element.set_visibility(False)
        self.update_list()

    def update_list(self) -> None:
        self._list.clear()
        with self._list:
            titles = self.conversations.titles(self.owner)
            if not titles and self.conversations.history is not None:
                ui.label(self.strings.no_conversations).classes("muted small")
            for conversation_id, title in titles:
                self._build_entry(conversation_id, title or "…")

    def _build_entry(self, conversation_id: str, title: str) -> None:
        current = self.chat is not None and self.chat.conversation.id == conversation_id
        with ui.element("div").classes("entry current" if current else "entry"):
            with button("", lambda: self.open(conversation_id)).props("align=left").classes("entry-name") as entry:
                ui.label(title).classes("ellipsis")
            entry.props.update({"title": title} | ({"aria-current": "page"} if current else {}))
            with icon_button("more_horiz", f"{self.strings.rename}, {self.strings.delete}: {title}", classes="more"):
                with ui.menu().props("auto-close"):
                    ui.menu_item(self.strings.rename, lambda: self._open_rename(conversation_id, title))
                    ui.menu_item(self.strings.delete, lambda: self._open_delete(conversation_id, title))

    async def open(self, conversation_id: str | None) -> None:
        self.tabs.value = "chat"
        self.chat.open(conversation_id)
        self.update_list()
        if await ui.run_javascript(f"innerWidth < {DRAWER_BREAKPOINT}"):
            self._drawer.hide()

    def _open_rename(self, conversation_id: str, title: str) -> None:
        def save() -> None:
            self.conversations.rename(conversation_id, field.value, self.owner)
            dialog.close()
            self.update_list()

        with open_dialog() as dialog:
            field = ui.input(self.strings.rename, value=title).props("outlined dense autofocus maxlength=60").classes("full")
            field.on("keydown.enter", save, [])
            button_row(self.strings.cancel, dialog.close, self.strings.save, save)

    def _open_delete(self, conversation_id: str, title: str) -> None:
        def delete() -> None:
            dialog.close()
            self.conversations.delete(conversation_id, self.owner)
            if self.chat.conversation.id == conversation_id:
                self.chat.open(None)
            self.update_list()

        with open_dialog() as dialog:
            ui.label(self.strings.confirm_delete.format(title))
            cancel, confirm = button_row(self.strings.cancel, dialog.close, self.strings.delete, delete)
            cancel.props("autofocus")
            confirm.classes("danger")

    def _show_tab(self) -> None:
        if self.chat is not None:
            self.chat.element.set_visibility(self.tabs.value == "chat")
            self.arena.element.set_visibility(self.tabs.value == "arena")

    def _switch_language(self) -> None:
        set_cookie("spoutnik_language", self.strings.other_language)
        ui.run_javascript("location.reload()")

    def _next_theme(self) -> None:
        names = list(THEMES)
        self.theme = names[(names.index(self.theme) + 1) % len(names)]
        self._dark.value, self._theme.icon = THEMES[self.theme]
        set_cookie("spoutnik_theme", self.theme)

    def tick(self) -> None:
        """Announces to screen readers when a thought begins and when an answer is complete."""
        conversation = self.chat.conversation
        current = conversation, conversation.turn.phase if conversation.turn is not None else "over"
        if current != self._announced:
            texts = {"thinking": self.strings.thinking, "over": self.strings.answer_complete}
            self._status.text = texts.get(current[1], "") if self._announced[0] is conversation else ""
            self._announced = current
