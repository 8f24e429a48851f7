"""What stands around both tabs: the bar at the top, the list of conversations, and a voice for screen readers."""

from nicegui import ui

from spoutnik.page.arena import Arena
from spoutnik.page.chat import Chat
from spoutnik.page.controls import remember
from spoutnik.page.conversations import Conversation, Conversations
from spoutnik.page.parts import button, icon_button
from spoutnik.page.strings import Strings

WIDE = 1000  # pixels: the list of conversations stands beside the tabs, not over them
THEMES = {"auto": (None, "brightness_auto"), "light": (False, "light_mode"), "dark": (True, "dark_mode")}


class Frame:
    """main: where the tabs are built."""

    def __init__(self, conversations: Conversations, strings: Strings, owner: str | None, theme: str | None):
        self.conversations, self.strings, self.owner = conversations, strings, owner
        self.theme = theme if theme in THEMES else "auto"
        self.chat: Chat | None = None
        self._heard: tuple[Conversation | None, str] = None, "over"
        ui.colors(primary="#2f5fd0")
        self._dark = ui.dark_mode(THEMES[self.theme][0])
        self._header()
        with ui.left_drawer(value=None, bordered=False).props(f"width=270 breakpoint={WIDE}").classes("drawer") as self._drawer:
            self._drawer.props.update({"aria-label": strings.conversations})
            self._side()
        self.main = ui.element("div").classes("main")
        self._voice = ui.label().classes("unseen").props("role=status aria-live=polite")
        ui.element("div").classes("unseen").props(f'id=copied role=status data-said="{strings.copied}"')

    def _header(self) -> None:
        strings = self.strings
        with ui.header(elevated=False).classes("header"):
            ui.link(strings.skip, "#question").classes("skip")
            icon_button("menu", strings.conversations, lambda: self._drawer.toggle())
            ui.label("Spoutnik").classes("brand")
            ui.space()
            with ui.tabs(value="chat", on_change=self._turn_to).props("dense no-caps").classes("tabs") as self.tabs:
                ui.tab("chat", strings.chat)
                ui.tab("arena", strings.arena)
            ui.space()
            button(strings.other.upper(), self._other_language).classes("language").props.update(
                {"aria-label": strings.other_name, "title": strings.other_name, "lang": strings.other})
            self._theme = icon_button(THEMES[self.theme][1], strings.theme, self._next_theme)

    def _side(self) -> None:
        strings = self.strings
        button(strings.new, lambda: self.open(None), "add").props("align=left").classes("new")
        self._talks = ui.element("nav").classes("talks").props(f'aria-label="{strings.conversations}"')
        ui.label(strings.forgotten if self.conversations.history is None else strings.private).classes("muted small private")

    def join(self, chat: Chat, arena: Arena) -> None:
        self.chat, self.arena = chat, arena
        arena.box.set_visibility(False)
        self.list_talks()

    # --------------------------------------------------------------------------------------------- the conversations

    def list_talks(self) -> None:
        self._talks.clear()
        with self._talks:
            titles = self.conversations.titles(self.owner)
            if not titles and self.conversations.history is not None:
                ui.label(self.strings.none_yet).classes("muted small")
            for name, title in titles:
                self._entry(name, title or "…")

    def _entry(self, name: str, title: str) -> None:
        here = self.chat is not None and self.chat.conversation.id == name
        with ui.element("div").classes("entry here" if here else "entry"):
            with button("", lambda: self.open(name)).props("align=left").classes("entry-name") as entry:
                ui.label(title).classes("ellipsis")
            entry.props.update({"title": title} | ({"aria-current": "page"} if here else {}))
            with icon_button("more_horiz", f"{self.strings.rename}, {self.strings.delete}: {title}", classes="more"):
                with ui.menu().props("auto-close"):
                    ui.menu_item(self.strings.rename, lambda: self._rename(name, title))
                    ui.menu_item(self.strings.delete, lambda: self._delete(name, title))

    async def open(self, name: str | None) -> None:
        self.tabs.value = "chat"
        self.chat.open(name)
        self.list_talks()
        if await ui.run_javascript(f"innerWidth < {WIDE}"):
            self._drawer.hide()

    def _rename(self, name: str, title: str) -> None:
        with ui.dialog(value=True) as dialog, ui.card().classes("dialog"):
            field = ui.input(self.strings.rename, value=title).props("outlined dense autofocus maxlength=60").classes("full")

            def save() -> None:
                self.conversations.rename(name, field.value, self.owner)
                dialog.close()
                self.list_talks()

            field.on("keydown.enter", save, [])
            with ui.element("div").classes("choices"):
                button(self.strings.cancel, dialog.close)
                button(self.strings.save, save).classes("main-choice")
        dialog.on("hide", dialog.delete)

    def _delete(self, name: str, title: str) -> None:
        with ui.dialog(value=True) as dialog, ui.card().classes("dialog"):
            ui.label(self.strings.delete_sure.format(title))

            def delete() -> None:
                dialog.close()
                self.conversations.delete(name, self.owner)
                if self.chat.conversation.id == name:
                    self.chat.open(None)
                self.list_talks()

            with ui.element("div").classes("choices"):
                button(self.strings.cancel, dialog.close).props("autofocus")
                button(self.strings.delete, delete).classes("main-choice danger")
        dialog.on("hide", dialog.delete)

    # ------------------------------------------------------------------------------------------------------ the bar

    def _turn_to(self) -> None:
        if self.chat is not None:
            self.chat.box.set_visibility(self.tabs.value == "chat")
            self.arena.box.set_visibility(self.tabs.value == "arena")

    def _other_language(self) -> None:
        remember("spoutnik_language", self.strings.other)
        ui.run_javascript("location.reload()")

    def _next_theme(self) -> None:
        names = list(THEMES)
        self.theme = names[(names.index(self.theme) + 1) % len(names)]
        self._dark.value, self._theme.icon = THEMES[self.theme]
        remember("spoutnik_theme", self.theme)

    def tick(self) -> None:
        """Says what has begun or ended, for those who do not see it."""
        conversation = self.chat.conversation
        now = conversation, conversation.turn.phase if conversation.turn is not None else "over"
        if now != self._heard:
            said = {"thinking": self.strings.thinking, "over": self.strings.over}
            self._voice.text = said.get(now[1], "") if self._heard[0] is conversation else ""
            self._heard = now
