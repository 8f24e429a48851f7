"""Widgets that the chat and the arena share: buttons, dialogs, Markdown, and an answer with its thought."""

import contextlib
from collections.abc import Awaitable, Callable, Iterator

from nicegui import events, ui

from spoutnik.errors import RunError, UserError
from spoutnik.generation.session import ChatMessage, ChatTurn
from spoutnik.page.markup import Labels, StreamingMarkdown
from spoutnik.page.strings import Strings

Handler = Callable[[], Awaitable[None] | None]

# Enter sends, except with Shift, while a character is being composed, while an answer is generated, or without a connection.
# The browser empties the field, not the server after the round trip: what is typed meanwhile would be lost.
_SEND_ON_ENTER = """(e) => {
  if (e.shiftKey || e.isComposing) return;
  e.preventDefault();
  if (e.target.closest(".composer")?.querySelector("[data-stop]").offsetParent) return;
  if (window.did_handshake && !window.socket.connected) return;
  spoutnik.sending(e.target);
  emit(e.target.value);
  e.target.value = "";
  e.target.dispatchEvent(new Event("input"));
}"""


def icon_button(icon: str, label: str, handler: Handler | None = None, classes: str = "") -> ui.button:
    """A button that shows an icon; its label is the tooltip and the accessible name."""
    button = ui.button(icon=icon, on_click=handler, color=None).props("flat round dense").classes(f"icon {classes}")
    button.props.update({"aria-label": label, "title": label})
    return button


def button(text: str, handler: Handler, icon: str | None = None) -> ui.button:
    return ui.button(text, icon=icon, on_click=handler, color=None).props("flat dense no-caps")


def text_area(send: Callable[[str], Awaitable[bool]], label: str, placeholder: str = "", value: str = "") -> ui.textarea:
    """A text area that sends on Enter. send: whether it accepted the text; what it refuses comes back into the field."""
    area = ui.textarea(placeholder=placeholder, value=value).props("autogrow borderless dense")
    area.props.update({"aria-label": label})

    async def entered(event: events.GenericEventArguments) -> None:
        if not await send(event.args):  # the value is restored once the server knows that the browser has emptied the field
            ui.timer(0.2, lambda: area.set_value(area.value or event.args), once=True)

    return area.on("keydown.enter", entered, js_handler=_SEND_ON_ENTER)


async def submit(area: ui.textarea, send: Callable[[str], Awaitable[bool]]) -> None:
    question = area.value
    if await send(question) and area.value == question:  # else something was typed meanwhile
        area.value = ""


@contextlib.contextmanager
def notify_errors(strings: Strings) -> Iterator[None]:
    """Shows errors that a user can cause or remedy as notifications."""
    try:
        yield
    except (UserError, RunError) as error:
        ui.notify(strings.failure(error), type="negative", position="top", multi_line=True, timeout=0,
                  close_button=strings.close)


@contextlib.contextmanager
def open_dialog(label: str) -> Iterator[ui.dialog]:
    """A dialog that is open from the start and deleted when it closes. label: its name for screen readers. It belongs to the
    page, not to the element whose button opens it, which may be built anew meanwhile."""
    with ui.context.client.content, ui.dialog(value=True) as dialog, ui.card().classes("dialog"):
        dialog.props.update({"aria-label": label})
        yield dialog
    dialog.on("hide", dialog.delete)


def button_row(cancel: str, on_cancel: Handler, confirm: str, on_confirm: Handler) -> tuple[ui.button, ui.button]:
    with ui.element("div").classes("choices"):
        return button(cancel, on_cancel), button(confirm, on_confirm).classes("primary")


class MarkdownView:
    """Rendered Markdown that may grow: settled blocks are sent once, the last one again each time."""

    def __init__(self, strings: Strings, classes: str = ""):
        self._markdown = StreamingMarkdown(Labels(strings.copy, strings.done, strings.to_do))
        with ui.element("div").classes(f"prose {classes}"):
            self._settled = ui.element("div")
            self._tail = ui.html("")

    def update(self, text: str, final: bool = False) -> None:
        if rendered := self._markdown.feed(text, final):
            settled, self._tail.content = rendered
            if settled:
                with self._settled:
                    ui.html(settled)


class ThoughtView:
    """A collapsible thought: a summary of its time and length, the text, and while it is generated the steering controls."""

    def __init__(self, message: ChatMessage, strings: Strings, turn: ChatTurn | None = None):
        self.message, self.strings, self.turn = message, strings, turn
        self._markdown: MarkdownView | None = None
        self._open = turn is not None
        self._thinks = turn is None or turn.service.named(turn.options.model).thinks
        with ui.element("details").classes("thought") as self.element:
            with ui.element("summary"):
                ui.icon("chevron_right").classes("chevron").props("aria-hidden=true")
                self._summary = ui.label()
            self._body = ui.element("div").classes("thought-body")
            if turn is not None:
                self._build_steering()
        if turn is None:
            self.element.on("toggle", self._render, [])  # long thoughts are rendered when they are opened
        else:
            self.element.props("open")
            self._render()
        self.tick()

    def _render(self) -> None:
        if self._markdown is None:
            with self._body:
                self._markdown = MarkdownView(self.strings)
                self._markdown.update(self.message.thought, final=self.turn is None)

    def _build_steering(self) -> None:
        turn, strings = self.turn, self.strings
        with ui.element("div").classes("steer") as self._steering:
            button(strings.answer_now, turn.end_thought, "bolt").classes("pill end")
            self._pause = button(strings.pause, turn.toggle_pause, "pause").classes("pill pause")
            if turn.options.thoughts == 1:
                self._input = ui.input(placeholder=strings.insert_hint).props("dense borderless").classes("insert")
                self._input.props.update({"aria-label": strings.insert, "maxlength": 500})
                self._input.on("keydown.enter", self._insert, [])
                icon_button("subdirectory_arrow_left", strings.insert, self._insert)

    async def _insert(self) -> None:
        text, self._input.value = self._input.value, ""
        await self.turn.insert(text)

    def tick(self) -> None:
        message, turn = self.message, self.turn
        self.element.set_visibility(bool(message.thought or turn is not None and turn.phase in ("waiting", "thinking")))
        self._summary.text = self._status()
        if turn is None:
            return
        self._pause.text = self.strings.resume if turn.paused else self.strings.pause
        self._pause.icon = "play_arrow" if turn.paused else "pause"
        unfinished = turn.phase in ("waiting", "thinking")
        self._markdown.update(message.thought, final=not unfinished)
        self._steering.set_visibility(turn.phase == "thinking")
        if unfinished != self._open:
            self._open = unfinished
            self.element.props("open" if unfinished else None, remove=None if unfinished else "open")
        if turn.phase == "over":
            self.turn = None

    def _status(self) -> str:
        strings, turn, extras = self.strings, self.turn, self.message.extras
        seconds = extras.get("thought_seconds", 0.0) if turn is None else turn.thought_seconds
        spent = strings.seconds(seconds), strings.tokens(extras.get("thought_tokens", 0))
        if turn is None or turn.phase in ("answering", "over"):
            thoughts = extras.get("thoughts", 1)
            return strings.thoughts_took.format(thoughts, *spent) if thoughts > 1 else strings.thought_took.format(*spent)
        if turn.phase == "waiting":
            return strings.waiting
        status = strings.paused if turn.paused else strings.thinking
        if turn.options.thoughts > 1:
            done = strings.thoughts_done if self._thinks else strings.answers_done
            status = done.format(turn.finished_thoughts, turn.options.thoughts)
        return f"{status} · {spent[0]} · {spent[1]}"


class AnswerView:
    """An answer: thought, text, notes, and the actions that `build_actions` adds once it is complete."""

    def __init__(self, message: ChatMessage, strings: Strings, label: str, turn: ChatTurn | None = None,
                 build_actions: Callable[["AnswerView"], None] = lambda answer: None):
        self.message, self.strings, self.turn, self._build_actions = message, strings, turn, build_actions
        with ui.element("article").classes("answer") as self.element:
            self.element.props.update({"aria-label": label, "aria-busy": str(turn is not None).lower()})
            self._thought = ThoughtView(message, strings, turn)
            self._markdown = MarkdownView(strings, "reply")
            self._notes = ui.element("div").classes("notes")
            self._actions = ui.element("div").classes("actions")
        if turn is None:
            self._finish()

    def tick(self) -> None:
        """Called on a timer while the answer is generated."""
        if self.turn is None:
            return
        self._thought.tick()
        if self.turn.phase == "over":
            self.turn = None
            self._finish()
        else:
            self._markdown.update(self.message.content)

    def _finish(self) -> None:
        self.element.props.update({"aria-busy": "false"})
        self._markdown.update(self.message.content, final=True)
        self.update_notes()
        with self._actions:
            self._build_actions(self)

    def update_notes(self) -> None:
        """Warnings, errors, the vote's agreement and the user's correction."""
        extras, strings = self.message.extras, self.strings
        self._notes.clear()
        with self._notes:
            for warning in extras.get("warnings", []):
                note("info", strings.warning(warning))
            if "error" in extras:
                note("error_outline", strings.failure(extras["error"], extras.get("error_kind", "")), "bad")
            if extras.get("left_out"):
                note("history", strings.left_out(extras["left_out"]))
            if extras.get("finish_reason") in strings.endings:
                note("stop_circle", strings.endings[extras["finish_reason"]])
            if "agreement" in extras:
                self._agreement()
            if extras.get("correction"):
                note("edit_note", strings.your_correction)
                MarkdownView(strings, "correction").update(extras["correction"], final=True)

    def _agreement(self) -> None:
        extras, strings = self.message.extras, self.strings
        agree = round(extras["agreement"] * extras["thoughts"])
        some, none = ((strings.agreement, strings.no_agreement) if self.message.thought else
                      (strings.answers_agreement, strings.no_answers_agreement))
        text = some.format(agree, extras["thoughts"]) if agree > 1 else none
        note("how_to_vote", text, "agreement")
        if extras["runners_up"]:
            with ui.element("details").classes("others"):
                with ui.element("summary"):
                    ui.icon("chevron_right").classes("chevron").props("aria-hidden=true")
                    ui.label(strings.other_answers)
                for answer, votes in extras["runners_up"]:
                    with ui.element("div").classes("other"):
                        ui.label(strings.votes.format(votes)).classes("count")
                        MarkdownView(strings).update(answer, final=True)


def note(icon: str, text: str, classes: str = "") -> None:
    with ui.element("div").classes(f"note {classes}").props("role=note"):
        ui.icon(icon).props("aria-hidden=true")
        ui.label(text)
