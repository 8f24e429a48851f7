"""The page around both tabs: header, drawer with the conversations, and an aria-live region for screen readers."""

import contextlib

from nicegui import ui

from spoutnik.page.arena import ArenaTab
from spoutnik.page.chat import ChatTab
from spoutnik.page.controls import set_cookie
from spoutnik.page.conversations import Conversation, Conversations
from spoutnik.page.dates import Calendar
from spoutnik.page.history_view import HistoryView
from spoutnik.page.navigation import Navigation
from spoutnik.page.strings import Strings
from spoutnik.page.widgets import Handler, button, icon_button
from spoutnik.store.history import Conversation as HistoryEntry

DRAWER_BREAKPOINT = 1000  # pixels; from this width on the drawer stands beside the tabs, not over them
THEMES = {"auto": (None, "brightness_auto"), "light": (False, "light_mode"), "dark": (True, "dark_mode")}


class Layout:
    """main: the element that holds the tabs. open_models: opens the list of models to fetch; None where that is not for this
    visitor."""

    def __init__(self, conversations: Conversations, strings: Strings, calendar: Calendar, owner: str | None,
                 theme: str | None, open_models: Handler | None = None):
        self.conversations, self.strings, self.calendar, self.owner = conversations, strings, calendar, owner
        self.theme = theme if theme in THEMES else "auto"
        self.chat: ChatTab | None = None
        self._open_models = open_models
        self._announced: tuple[Conversation | None, str, int] = None, "over", 0
        ui.colors(primary="#2f5fd0")
        self._dark = ui.dark_mode(THEMES[self.theme][0])
        self._build_header()
        # The browser opens it where there is room, and says so. With `value=None` the server would ask each browser, and fail
        # where one does not answer within a second.
        with ui.left_drawer(value=False, bordered=False).classes("drawer") as self._drawer:
            self._drawer.props(f"show-if-above width=270 breakpoint={DRAWER_BREAKPOINT}")
            self._drawer.props.update({"aria-label": strings.conversations})
            self._build_drawer()
        self.main = ui.element("div").classes("main")
        self._status = ui.label().classes("visually-hidden").props("role=status aria-live=polite")
        ui.element("div").classes("visually-hidden").props(f'id=copied role=status data-text="{strings.copied}"')

    def _build_header(self) -> None:
        strings = self.strings
        with ui.header(elevated=False).classes("header") as self._header:
            ui.link(strings.skip_link, "#question").classes("skip-link")
            icon_button("menu", strings.conversations, lambda: self._drawer.toggle())
            ui.label("Spoutnik").classes("brand").props("role=heading aria-level=1")
            ui.space()
            with ui.tabs(value="chat").props("dense no-caps").classes("tabs") as self.tabs:
                ui.tab("chat", strings.chat)
                ui.tab("arena", strings.arena)
            ui.space()
            button(strings.other_language.upper(), self._switch_language).classes("language").props.update(
                {"aria-label": strings.other_language_name, "title": strings.other_language_name,
                 "lang": strings.other_language})
            self._theme = icon_button(THEMES[self.theme][1], strings.theme_button, self._next_theme)

    def add_log_out(self, address: str) -> None:
        """For who came in by the log-in page."""
        with self._header, ui.element("form") as form:
            form.props.update({"method": "post", "action": address})
            icon_button("logout", self.strings.log_out).props("type=submit")

    def _build_drawer(self) -> None:
        strings = self.strings
        button(strings.new_conversation, lambda: self.open(None), "add").props("align=left").classes("new")
        self.history = HistoryView(self.conversations, strings, self.calendar, self.owner,
                                   lambda: "" if self.chat is None else self.chat.conversation.id, self.open)
        if self._open_models is not None:
            button(strings.more_models, self._open_models, "download").props("align=left").classes("new")
        ui.label(strings.history_off if self.conversations.history is None else strings.privacy).classes("muted small privacy")

    def add_tabs(self, chat: ChatTab, arena: ArenaTab, query: str, entries: list[HistoryEntry]) -> None:
        """query: the address that was asked for. entries: the owner's conversations."""
        self.chat = chat
        self.navigation = Navigation(chat, arena, self.tabs, self.strings, query)
        self.history.show_all(entries)

    def update_address(self) -> None:
        """A tab shows something else."""
        self.navigation.replace()

    async def open(self, conversation_id: str | None) -> None:
        """Shows another conversation; None: a new one."""
        await self.chat.open(conversation_id)
        self.navigation.show("chat")
        with contextlib.suppress(TimeoutError):  # a browser that is busy keeps its drawer as it is
            if await ui.run_javascript(f"innerWidth < {DRAWER_BREAKPOINT}", timeout=10):
                self._drawer.hide()

    def _switch_language(self) -> None:
        set_cookie("spoutnik_language", self.strings.other_language)
        ui.run_javascript("location.reload()")

    def _next_theme(self) -> None:
        names = list(THEMES)
        self.theme = names[(names.index(self.theme) + 1) % len(names)]
        self._dark.value, self._theme.icon = THEMES[self.theme]
        set_cookie("spoutnik_theme", self.theme)

    async def tick(self) -> None:
        """Keeps the list of conversations, and tells screen readers when a thought begins and when an answer is complete."""
        await self.history.tick()
        conversation = self.chat.conversation
        phase = "over" if conversation.turn is None else conversation.turn.phase
        current = conversation, phase, len(conversation.tree.messages)  # an answer may be over before it is looked at
        if current != self._announced:
            texts = {"thinking": self.strings.thinking, "over": self._ending()}
            self._status.text = texts.get(phase, "") if self._announced[0] is conversation else ""
            self._announced = current

    def _ending(self) -> str:
        """How the last answer has ended."""
        extras = self.chat.conversation.messages[-1].extras if self.chat.conversation.messages else {}
        if "error" in extras:
            return self.strings.error
        return self.strings.endings.get(extras.get("finish_reason"), self.strings.answer_complete)
