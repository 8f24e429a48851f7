"""What a question is asked with: the model, the effort, the number of thoughts; and the files that go with it."""

from collections.abc import Callable
from dataclasses import dataclass, field
from urllib.parse import unquote

from nicegui import events, ui

from spoutnik.generation.options import EFFORTS
from spoutnik.generation.session import ChatOptions
from spoutnik.page.conversations import Conversations
from spoutnik.page.parts import button, icon_button
from spoutnik.page.strings import Strings

NAMES = list(EFFORTS)
MOST_THOUGHTS = 16
MOST_BYTES = 512 * 1024  # of a file
COOKIE = "spoutnik_wish"


def options_from(cookie: str | None, conversations: Conversations) -> ChatOptions:
    """What was chosen last in this browser, where that still exists."""
    options = ChatOptions(conversations.service.default.id)
    model, effort, thoughts = [*unquote(cookie or "").split("|"), "", "", ""][:3]
    if model in conversations.service.models:
        options.model = model
    if effort in EFFORTS:
        options.effort = effort
    if thoughts.isdigit() and 1 <= int(thoughts) <= MOST_THOUGHTS:
        options.thoughts = int(thoughts)
    return options


def remember(cookie: str, value: str) -> None:
    """In this browser alone."""
    ui.run_javascript(f"spoutnik.remember({cookie!r}, {value!r})")


class Controls:
    """A button that says what is set, and opens the panel to set it. models: can the model be chosen?"""

    def __init__(self, conversations: Conversations, strings: Strings, options: ChatOptions, models: bool = True):
        self.conversations, self.strings, self.options, self._models = conversations, strings, options, models
        with button("", lambda: None).classes("pill setting") as self.button:
            ui.icon("tune").props("aria-hidden=true")
            self._label = ui.label().classes("ellipsis")
            with Panel(value=None).classes("panel") as panel:
                panel.props('anchor="top left" self="bottom left" :offset="[0, 10]" max-height=80vh')
                self._panel()
        self.button.props.update({"aria-haspopup": "dialog"})
        self._say()

    def _panel(self) -> None:
        strings, options = self.strings, self.options
        with ui.element("div").classes("panel-body").props("role=group").props(f'aria-label="{strings.options}"'):
            if self._models:
                models = {name: name for name in self.conversations.service.models}
                with ui.element("div").classes("field"):
                    ui.label(strings.model).classes("field-name").props("aria-hidden=true")
                    choice(strings.model, models, options.model, lambda model: self._set(model=model))
            self._effort = Slider(strings.effort, 0, len(NAMES) - 1, NAMES.index(options.effort),
                                  lambda value: self._set(effort=NAMES[value]))
            self._thoughts = Slider(strings.thoughts, 1, MOST_THOUGHTS, options.thoughts,
                                    lambda value: self._set(thoughts=value))

    def _set(self, **changes: str | int) -> None:
        for key, value in changes.items():
            setattr(self.options, key, value)
        self._say()
        if self._models:  # what the arena is set to is for the arena
            remember(COOKIE, f"{self.options.model}|{self.options.effort}|{self.options.thoughts}")

    def _say(self) -> None:
        strings, options = self.strings, self.options
        tokens = int(self.conversations.service.models[options.model].max_model_len * EFFORTS[options.effort])
        effort = strings.efforts[options.effort]
        thoughts = strings.one_thought if options.thoughts == 1 else strings.many_thoughts.format(options.thoughts)
        self._effort.say((strings.most_tokens if tokens else strings.no_thinking).format(effort, strings.number(tokens)))
        self._thoughts.say(f"{thoughts}. {strings.thoughts_help}" if options.thoughts > 1 else thoughts)
        said = [options.model] * self._models + [effort] + [thoughts] * (options.thoughts > 1)
        self._label.text = " · ".join(said)
        self.button.props.update({"aria-label": f"{strings.options}: {', '.join(said)}"})


class Panel(ui.menu):
    """A menu whose browser alone knows whether it is open, which the value None leaves to it. By way of the server, the focus
    would go back to the button a moment after Escape, when whoever pressed it is writing elsewhere already."""

    LOOPBACK = None


def choice(name: str, options: dict[str, str], value: str, changed: Callable[[str], None]) -> ui.element:
    """One of some values, shown under their names. The browser's own list, which every screen reader and every thumb knows."""
    with ui.element("select").classes("choice") as select:
        for key, text in options.items():
            option = ui.element("option")
            option.props.update({"value": key, "label": text, "selected": key == value})
    select.props.update({"aria-label": name, "title": name})
    return select.on("change", lambda event: changed(event.args) if event.args in options else None,
                     js_handler="(e) => emit(e.target.value)")


class Slider:
    """The browser's own, likewise; below it stands what its value means."""

    def __init__(self, name: str, low: int, high: int, value: int, changed: Callable[[int], None]):
        with ui.element("label").classes("field"):
            ui.label(name).classes("field-name")
            self._input = ui.element("input").props("type=range step=1").classes("slider")
            # Not `value`: the browser alone knows where the thumb is while it is dragged.
            self._input.props.update({"min": low, "max": high, "defaultValue": value})
            self._input.on("input", lambda event: changed(min(max(int(event.args), low), high)),
                           js_handler="(e) => emit(e.target.value)")
            self._help = ui.label().classes("field-help").props("aria-hidden=true")
        self._input.props.update({"aria-label": name})

    def say(self, text: str) -> None:
        self._help.text = text
        self._input.props.update({"aria-valuetext": text})


# A file is read in the browser and comes with the events, so that nothing is kept on the server's disk.
_READ = """async (e) => {
  for (const file of e.target.files) {
    let text = null, wrong = file.size > MOST ? "large" : "";
    if (!wrong)
      try { text = new TextDecoder("utf-8", {fatal: true}).decode(await file.arrayBuffer()); } catch { wrong = "binary"; }
    emit(file.name, text, text !== null && text.includes("\\0") ? "binary" : wrong);
  }
  e.target.value = "";
}""".replace("MOST", str(MOST_BYTES))


@dataclass
class Attached:
    """The files that will go with the question. shown: where they are listed."""

    strings: Strings
    shown: ui.element
    files: list[tuple[str, str]] = field(default_factory=list)

    def button(self) -> None:
        with ui.element("label").classes("icon attach").props(f'title="{self.strings.attach}"'):
            ui.icon("attach_file").props("aria-hidden=true")
            chooser = ui.element("input").props("type=file multiple").classes("unseen")
            chooser.props.update({"aria-label": self.strings.attach})
            chooser.on("change", self._chosen, js_handler=_READ)

    def _chosen(self, event: events.GenericEventArguments) -> None:
        name, text, wrong = event.args
        if wrong or not isinstance(text, str) or len(text.encode()) > MOST_BYTES:
            said = self.strings.no_text if wrong == "binary" else self.strings.too_large
            ui.notify(said.format(name, MOST_BYTES // 1024), type="negative")
            return
        self.files.append((str(name), text))
        self._show()

    def take(self) -> list[tuple[str, str]]:
        taken, self.files = self.files, []
        self._show()
        return taken

    def _show(self) -> None:
        self.shown.clear()
        with self.shown:
            for place, (name, _) in enumerate(self.files):
                with ui.element("span").classes("file"):
                    ui.icon("description").props("aria-hidden=true")
                    ui.label(name).classes("ellipsis")
                    icon_button("close", self.strings.detach.format(name), lambda place=place: self._drop(place))

    def _drop(self, place: int) -> None:
        del self.files[place]
        self._show()
