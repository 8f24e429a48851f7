"""The address of what is shown, which survives a reload, and which the browser's Back and Forward go through:
`?c=` a conversation, `tab=arena`, `round=` two answers of the arena."""

import json
from urllib.parse import parse_qs, urlencode

from nicegui import events, ui

from spoutnik.page.arena import ArenaTab
from spoutnik.page.chat import ChatTab
from spoutnik.page.strings import Strings


class Navigation:
    """Keeps both tabs and the address together. query: the address that was asked for, as `?c=...`."""

    def __init__(self, chat: ChatTab, arena: ArenaTab, tabs: ui.tabs, strings: Strings, query: str):
        self.chat, self.arena, self.tabs, self.strings = chat, arena, tabs, strings
        self._following = False
        tabs.on_value_change(self._show_tab)
        ui.on("spoutnik_address", self._on_address)
        tabs.value = _parameter(query, "tab") or "chat"
        self._show_elements()
        self._check_conversation(query)

    @property
    def query(self) -> str:
        in_arena = self.tabs.value == "arena"
        parameters = {"c": self.chat.conversation.id, "tab": "arena" if in_arena else "",
                      "round": self.arena.round.id if in_arena and self.arena.round is not None else ""}
        given = {name: value for name, value in parameters.items() if value}
        return f"?{urlencode(given)}" if given else ""

    def show(self, tab: str) -> None:
        """Shows a tab, with whatever is in it now, at an address of its own."""
        self.tabs.value = tab
        self._set_address(push=True)

    def replace(self) -> None:
        """What is shown has got another address, as a conversation by its first question."""
        self._set_address(push=False)

    def _set_address(self, push: bool) -> None:
        ui.run_javascript(f"spoutnik.setAddress({json.dumps(self.query)}, {json.dumps(push)})")

    def _show_tab(self) -> None:
        self._show_elements()
        if not self._following:  # the browser's own address: it may be elsewhere by the time ours arrived
            self._set_address(push=True)

    def _show_elements(self) -> None:
        self.chat.element.set_visibility(self.tabs.value == "chat")
        self.arena.element.set_visibility(self.tabs.value == "arena")

    async def _on_address(self, event: events.GenericEventArguments) -> None:
        """The browser has gone back or forward."""
        query = str(event.args)
        conversation_id = _parameter(query, "c")
        if conversation_id != self.chat.conversation.id:
            await self.chat.open(conversation_id)
        tab = _parameter(query, "tab") or "chat"
        if tab == "arena":
            self.arena.open(_parameter(query, "round"))
        self._following = True
        self.tabs.value = tab
        self._following = False
        self._check_conversation(query)

    def _check_conversation(self, query: str) -> None:
        if _parameter(query, "c") != self.chat.conversation.id:
            ui.notify(self.strings.conversation_gone, type="warning", position="top")
            self.replace()


def _parameter(query: str, name: str) -> str:
    value = parse_qs(query.removeprefix("?")).get(name, [""])[0]
    return value if name != "tab" or value in ("chat", "arena") else ""
