"""Pieces of the page that chat and arena share: a text that grows, the fold of a thought, an answer with what belongs to it."""

from collections.abc import Awaitable, Callable

from nicegui import ui

from spoutnik.generation.session import ChatMessage, ChatTurn
from spoutnik.page.markup import Growing
from spoutnik.page.strings import Strings

Handler = Callable[[], Awaitable[None] | None]


def icon_button(icon: str, label: str, handler: Handler | None = None, classes: str = "") -> ui.button:
    """A button that shows an icon; its label is for screen readers and those who point at it."""
    button = ui.button(icon=icon, on_click=handler, color=None).props("flat round dense").classes(f"icon {classes}")
    button.props.update({"aria-label": label, "title": label})
    return button


def button(text: str, handler: Handler, icon: str | None = None) -> ui.button:
    return ui.button(text, icon=icon, on_click=handler, color=None).props("flat dense no-caps")


class Prose:
    """Rendered Markdown. While it grows only its settled part is read out by screen readers, each paragraph once."""

    def __init__(self, strings: Strings, classes: str = "", live: bool = False):
        self._growing = Growing(strings.copy)
        with ui.element("div").classes(f"prose {classes}"):
            self._settled = ui.element("div")
            self._tail = ui.html("").props("aria-hidden=true")
        if live:
            self._settled.props("aria-live=polite")

    def show(self, text: str, over: bool = False) -> None:
        new = self._growing.feed(text, over)
        if new is None:
            return
        if new[0]:
            with self._settled:
                ui.html(new[0])
        self._tail.content = new[1]


class Thought:
    """The fold: a line on how long it took, and the thought itself when it is open. Under way it can be steered."""

    def __init__(self, said: ChatMessage, strings: Strings, turn: ChatTurn | None = None):
        self.message, self.strings, self.turn = said, strings, turn
        self._prose: Prose | None = None
        self._open = turn is not None
        with ui.element("details").classes("thought") as self.box:
            with ui.element("summary"):
                ui.icon("chevron_right").classes("turn").props("aria-hidden=true")
                self._summary = ui.label()
            self._body = ui.element("div").classes("thought-body")
            if turn is not None:
                self._steering()
        if turn is None:
            self.box.on("toggle", self._fill, [])  # long thoughts are rendered when somebody looks
        else:
            self.box.props("open")
            self._fill()
        self.tick()

    def _fill(self) -> None:
        if self._prose is None:
            with self._body:
                self._prose = Prose(self.strings)
                self._prose.show(self.message.thought, over=self.turn is None)

    def _steering(self) -> None:
        turn, strings = self.turn, self.strings
        with ui.element("div").classes("steer") as self._steer:
            button(strings.answer_now, turn.end_thought, "bolt").classes("pill end")
            self._pause = button(strings.pause, turn.toggle_pause, "pause").classes("pill pause")
            if turn.options.thoughts == 1:
                self._sentence = ui.input(placeholder=strings.add_hint).props("dense borderless").classes("sentence")
                self._sentence.props.update({"aria-label": strings.add, "maxlength": 500})
                self._sentence.on("keydown.enter", self._insert, [])
                icon_button("subdirectory_arrow_left", strings.add, self._insert)

    async def _insert(self) -> None:
        text, self._sentence.value = self._sentence.value, ""
        await self.turn.insert(text)

    def tick(self) -> None:
        said, turn = self.message, self.turn
        self.box.set_visibility(bool(said.thought or turn is not None and turn.phase in ("waiting", "thinking")))
        self._summary.text = self._progress()
        if turn is None:
            return
        self._pause.text = self.strings.go_on if turn.paused else self.strings.pause
        self._pause.icon = "play_arrow" if turn.paused else "pause"
        goes_on = turn.phase in ("waiting", "thinking")
        self._prose.show(said.thought, over=not goes_on)
        self._steer.set_visibility(turn.phase == "thinking")
        if goes_on != self._open:
            self._open = goes_on
            self.box.props("open" if goes_on else None, remove=None if goes_on else "open")
        if turn.phase == "over":
            self.turn = None

    def _progress(self) -> str:
        strings, turn, extras = self.strings, self.turn, self.message.extras
        seconds = extras.get("thought_seconds", 0.0) if turn is None else turn.thought_seconds
        spent = strings.seconds(seconds), strings.tokens(extras.get("thought_tokens", 0))
        if turn is None or turn.phase in ("answering", "over"):
            several = extras.get("thoughts", 1)
            return strings.thought_of.format(several, *spent) if several > 1 else strings.thought_for.format(*spent)
        if turn.phase == "waiting":
            return strings.waiting
        doing = strings.paused if turn.paused else strings.thinking
        if turn.options.thoughts > 1:
            doing = strings.thinking_many.format(turn.finished_thoughts, turn.options.thoughts)
        return f"{doing} · {spent[0]} · {spent[1]}"


class Answer:
    """One answer: its thought, its text, and what must be said about it. feet: builds what stands below it when it is over."""

    def __init__(self, said: ChatMessage, strings: Strings, name: str, turn: ChatTurn | None = None,
                 feet: Callable[["Answer"], None] = lambda answer: None):
        self.message, self.strings, self.turn, self._feet = said, strings, turn, feet
        with ui.element("article").classes("answer") as self.box:
            self.box.props.update({"aria-label": name, "aria-busy": str(turn is not None).lower()})
            self._thought = Thought(said, strings, turn)
            self._prose = Prose(strings, "reply", live=turn is not None)
            self._notes = ui.element("div").classes("notes")
            self._foot = ui.element("div").classes("foot")
        if self.turn is None:
            self._finish()

    def tick(self) -> None:
        """Called again and again while it is under way."""
        if self.turn is None:
            return
        self._thought.tick()
        if self.turn.phase == "over":
            self.turn = None
            self._finish()
        else:
            self._prose.show(self.message.content)

    def _finish(self) -> None:
        self.box.props.update({"aria-busy": "false"})
        self._prose.show(self.message.content, over=True)
        self.notes()
        with self._foot:
            self._feet(self)

    def notes(self) -> None:
        """Warnings, agreement, other answers, a correction: whatever there is to say."""
        extras, strings = self.message.extras, self.strings
        self._notes.clear()
        with self._notes:
            for warning in extras.get("warnings", []):
                note("info", strings.warning(warning))
            if "error" in extras:
                note("error_outline", f"{strings.error} {extras['error']}", "bad")
            if extras.get("finish_reason") in ("abort", "length"):
                note("stop_circle", strings.stopped if extras["finish_reason"] == "abort" else strings.cut)
            if "agreement" in extras:
                self._agreement()
            if extras.get("correction"):
                note("edit_note", strings.corrected)
                Prose(strings, "correction").show(extras["correction"], over=True)

    def _agreement(self) -> None:
        extras, strings = self.message.extras, self.strings
        agree = round(extras["agreement"] * extras["thoughts"])
        said = strings.agreement.format(agree, extras["thoughts"]) if agree > 1 else strings.no_agreement
        note("how_to_vote", said, "agreement")
        if extras["runners_up"]:
            with ui.element("details").classes("others"):
                with ui.element("summary"):
                    ui.icon("chevron_right").classes("turn").props("aria-hidden=true")
                    ui.label(strings.others)
                for answer, votes in extras["runners_up"]:
                    with ui.element("div").classes("other"):
                        ui.label(strings.votes.format(votes)).classes("count")
                        Prose(strings).show(answer, over=True)


def note(icon: str, text: str, classes: str = "") -> None:
    with ui.element("div").classes(f"note {classes}").props("role=note"):
        ui.icon(icon).props("aria-hidden=true")
        ui.label(text)
