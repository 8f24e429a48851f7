"""Controls of the composer: model, effort and number of thoughts, and the files that go with a question."""

from collections.abc import Callable
from dataclasses import dataclass, field
from urllib.parse import unquote

from nicegui import events, ui

from spoutnik.generation.options import EFFORTS
from spoutnik.generation.session import ChatOptions
from spoutnik.page.conversations import Conversations
from spoutnik.page.strings import Strings
from spoutnik.page.widgets import button, icon_button

EFFORT_NAMES = list(EFFORTS)
MAX_THOUGHTS = 16
MAX_FILE_BYTES = 512 * 1024
OPTIONS_COOKIE = "spoutnik_wish"


def options_from(cookie: str | None, conversations: Conversations) -> ChatOptions:
    """The options that this browser used last, as far as they are still valid."""
    options = ChatOptions(conversations.service.default.id)
    model, effort, thoughts = [*unquote(cookie or "").split("|"), "", "", ""][:3]
    if model in conversations.service.models:
        options.model = model
    if effort in EFFORTS:
        options.effort = effort
    if thoughts.isdigit() and 1 <= int(thoughts) <= MAX_THOUGHTS:
        options.thoughts = int(thoughts)
    return options


def set_cookie(name: str, value: str) -> None:
    ui.run_javascript(f"spoutnik.setCookie({name!r}, {value!r})")


class OptionsMenu:
    """A button that shows the options and opens a menu to change them. with_model: can the model be chosen?"""

    def __init__(self, conversations: Conversations, strings: Strings, options: ChatOptions, with_model: bool = True):
        self.conversations, self.strings, self.options, self._with_model = conversations, strings, options, with_model
        with button("", lambda: None).classes("pill setting") as self.button:
            ui.icon("tune").props("aria-hidden=true")
            self._label = ui.label().classes("ellipsis")
            with _Menu(value=None).classes("panel") as menu:
                menu.props('anchor="top left" self="bottom left" :offset="[0, 10]" max-height=80vh')
                self._build_menu()
        self.button.props.update({"aria-haspopup": "dialog"})
        self._update()

    def _build_menu(self) -> None:
        strings, options = self.strings, self.options
        with ui.element("div").classes("panel-body").props("role=group").props(f'aria-label="{strings.options}"'):
            if self._with_model:
                models = {name: name for name in self.conversations.service.models}
                with ui.element("div").classes("field"):
                    ui.label(strings.model).classes("field-name").props("aria-hidden=true")
                    select(strings.model, models, options.model, lambda model: self._set("model", model))
            self._effort = Slider(strings.effort, 0, len(EFFORT_NAMES) - 1, EFFORT_NAMES.index(options.effort),
                                  lambda value: self._set("effort", EFFORT_NAMES[value]))
            self._thoughts = Slider(strings.thoughts, 1, MAX_THOUGHTS, options.thoughts,
                                    lambda value: self._set("thoughts", value))

    def _set(self, option: str, value: str | int) -> None:
        setattr(self.options, option, value)
        self._update()
        if self._with_model:  # the arena's options are not remembered
            set_cookie(OPTIONS_COOKIE, f"{self.options.model}|{self.options.effort}|{self.options.thoughts}")

    def _update(self) -> None:
        strings, options = self.strings, self.options
        tokens = int(self.conversations.service.models[options.model].max_model_len * EFFORTS[options.effort])
        effort = strings.efforts[options.effort]
        thoughts = strings.one_thought if options.thoughts == 1 else strings.many_thoughts.format(options.thoughts)
        self._effort.describe((strings.thought_limit if tokens else strings.no_thinking).format(effort, strings.number(tokens)))
        self._thoughts.describe(f"{thoughts}. {strings.thoughts_help}" if options.thoughts > 1 else thoughts)
        summary = [options.model] * self._with_model + [effort] + [thoughts] * (options.thoughts > 1)
        self._label.text = " · ".join(summary)
        self.button.props.update({"aria-label": f"{strings.options}: {', '.join(summary)}"})


class _Menu(ui.menu):
    """A menu whose state only the browser knows: through the server, Escape would return the focus to the button too late."""

    LOOPBACK = None


def select(label: str, options: dict[str, str], value: str, on_change: Callable[[str], None]) -> ui.element:
    """The browser's own <select>, for screen readers and phones. options: value -> text."""
    with ui.element("select").classes("choice") as element:
        for key, text in options.items():
            option = ui.element("option")
            option.props.update({"value": key, "label": text, "selected": key == value})
    element.props.update({"aria-label": label, "title": label})
    return element.on("change", lambda event: on_change(event.args) if event.args in options else None,
                      js_handler="(e) => emit(e.target.value)")


class Slider:
    """The browser's own range input, with a line below that describes the value."""

    def __init__(self, label: str, low: int, high: int, value: int, on_change: Callable[[int], None]):
        with ui.element("label").classes("field"):
            ui.label(label).classes("field-name")
            self._input = ui.element("input").props("type=range step=1").classes("slider")
            # Not `value`: an update from the server would move the thumb back while it is dragged.
            self._input.props.update({"min": low, "max": high, "defaultValue": value})
            self._input.on("input", lambda event: on_change(min(max(int(event.args), low), high)),
                           js_handler="(e) => emit(e.target.value)")
            self._description = ui.label().classes("field-help").props("aria-hidden=true")
        self._input.props.update({"aria-label": label})

    def describe(self, text: str) -> None:
        self._description.text = text
        self._input.props.update({"aria-valuetext": text})


# The browser reads the file and sends its text with the event, so that nothing is stored on the server's disk.
_READ_FILES = """async (e) => {
  for (const file of e.target.files) {
    let text = null, wrong = file.size > MAX ? "large" : "";
    if (!wrong)
      try { text = new TextDecoder("utf-8", {fatal: true}).decode(await file.arrayBuffer()); } catch { wrong = "binary"; }
    emit(file.name, text, text !== null && text.includes("\\0") ? "binary" : wrong);
  }
  e.target.value = "";
}""".replace("MAX", str(MAX_FILE_BYTES))


@dataclass
class Attachments:
    """The files (name, text) that will go with the next question. element: where they are listed."""

    strings: Strings
    element: ui.element
    files: list[tuple[str, str]] = field(default_factory=list)

    def button(self) -> None:
        with ui.element("label").classes("icon attach").props(f'title="{self.strings.attach_file}"'):
            ui.icon("attach_file").props("aria-hidden=true")
            file_input = ui.element("input").props("type=file multiple").classes("visually-hidden")
            file_input.props.update({"aria-label": self.strings.attach_file})
            file_input.on("change", self._add, js_handler=_READ_FILES)

    def _add(self, event: events.GenericEventArguments) -> None:
        name, text, wrong = event.args
        if wrong or not isinstance(text, str) or len(text.encode()) > MAX_FILE_BYTES:
            template = self.strings.file_not_text if wrong == "binary" else self.strings.file_too_large
            ui.notify(template.format(name, MAX_FILE_BYTES // 1024), type="negative")
            return
        self.files.append((str(name), text))
        self._update()

    def clear(self) -> None:
        self.files = []
        self._update()

    def _update(self) -> None:
        self.element.clear()
        with self.element:
            for index, (name, _) in enumerate(self.files):
                with ui.element("span").classes("file"):
                    ui.icon("description").props("aria-hidden=true")
                    ui.label(name).classes("ellipsis")
                    icon_button("close", self.strings.remove_file.format(name), lambda index=index: self._remove(index))

    def _remove(self, index: int) -> None:
        del self.files[index]
        self._update()
