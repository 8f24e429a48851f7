"""Controls of the composer: effort, number of thoughts, temperature, system prompt, and the files of a question."""

import base64
import binascii
import json
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from urllib.parse import unquote

from nicegui import events, ui

from spoutnik.generation.options import EFFORTS
from spoutnik.generation.service import ServedModel
from spoutnik.generation.session import ChatOptions
from spoutnik.page.conversations import Conversations
from spoutnik.page.strings import Strings
from spoutnik.page.widgets import button, icon_button

EFFORT_NAMES = list(EFFORTS)
MAX_THOUGHTS = 16
MAX_TEMPERATURE = 2.0
MAX_SYSTEM_LENGTH = 4000  # characters
MAX_FILE_BYTES = 512 * 1024
OPTIONS_COOKIE = "spoutnik_wish"
MAX_COOKIE_BYTES = 3800  # browsers drop cookies of more than 4096 with their name


def options_from(cookie: str | None, conversations: Conversations) -> ChatOptions:
    """The options that this browser used last, as far as they are still valid."""
    options = ChatOptions(conversations.service.default.id)
    model, effort, thoughts, temperature, system = [*unquote(cookie or "").split("|"), *[""] * 5][:5]
    if model in conversations.service.models:
        options.model = model
    if effort in EFFORTS:
        options.effort = effort
    if thoughts.isdecimal() and thoughts.isascii() and 1 <= int(thoughts[:3]) <= MAX_THOUGHTS:
        options.thoughts = int(thoughts)
    try:
        if 0 <= float(temperature) <= MAX_TEMPERATURE:
            options.temperature = round(float(temperature), 1)
    except ValueError:
        pass
    options.system = _unpack(system)
    return options


def cookie_of(options: ChatOptions) -> str | None:
    """The cookie that `options_from` reads; None where it would be too long."""
    temperature = "" if options.temperature is None else options.temperature
    cookie = f"{options.model}|{options.effort}|{options.thoughts}|{temperature}|{_pack(options.system)}"
    return cookie if len(cookie.encode()) <= MAX_COOKIE_BYTES else None


def _pack(text: str) -> str:
    return base64.urlsafe_b64encode(zlib.compress(text.encode("utf-8", "replace"))).decode() if text else ""


def _unpack(packed: str) -> str:
    try:
        raw = zlib.decompressobj().decompress(base64.urlsafe_b64decode(packed), 4 * MAX_SYSTEM_LENGTH)
        return raw.decode("utf-8")[:MAX_SYSTEM_LENGTH]
    except (binascii.Error, zlib.error, ValueError):  # not a cookie of ours
        return ""


def set_cookie(name: str, value: str) -> None:
    ui.run_javascript(f"spoutnik.setCookie({json.dumps(name)}, {json.dumps(value)})")


def remember(options: ChatOptions) -> None:
    """Has this browser keep the options, without a system prompt that is too long for a cookie."""
    set_cookie(OPTIONS_COOKIE, cookie_of(options) or cookie_of(replace(options, system="")))


class OptionsMenu:
    """A button that shows the options and opens a menu to change them.

    with_model: False in the arena, where two models are compared: neither temperature nor system prompt is chosen there, and
    nothing is remembered. `update` is called when the model has changed, or what is served.
    """

    def __init__(self, conversations: Conversations, strings: Strings, options: ChatOptions, with_model: bool = True):
        self.conversations, self.strings, self.options, self._with_model = conversations, strings, options, with_model
        with button("", lambda: None).classes("pill setting") as self.button:
            ui.icon("tune").props("aria-hidden=true")
            self._label = ui.label().classes("ellipsis")
            with _Menu(value=None).classes("panel") as menu:
                menu.props('anchor="top left" self="bottom left" :offset="[0, 10]" max-height=80vh role=dialog')
                menu.props.update({"aria-label": strings.options})
                self._build_menu()
        self.button.props.update({"aria-haspopup": "dialog"})
        self.update()

    @property
    def _served(self) -> ServedModel:
        return self.conversations.service.named(self.options.model)

    @property
    def _thinks(self) -> bool:
        models = [self._served] if self._with_model else self.conversations.service.models.values()
        return any(served.thinks for served in models)

    def _build_menu(self) -> None:
        strings, options = self.strings, self.options
        with ui.element("div").classes("panel-body"):
            if self._with_model:
                self._thoughtless = ui.label(strings.thoughtless).classes("field-help")
            self._effort = Slider(strings.effort, 0, len(EFFORT_NAMES) - 1, EFFORT_NAMES.index(options.effort),
                                  lambda value: self._set("effort", EFFORT_NAMES[value]))
            self._thoughts = Slider(strings.thoughts if self._thinks else strings.answers, 1, MAX_THOUGHTS, options.thoughts,
                                    lambda value: self._set("thoughts", value))
            if self._with_model:
                self._temperature = Slider(strings.temperature, 0, round(10 * MAX_TEMPERATURE),
                                           round(10 * self._temperature_in_force), self._set_temperature)
                self._build_system()

    def _build_system(self) -> None:
        strings = self.strings
        with ui.element("div").classes("field"):
            ui.label(strings.system).classes("field-name").props("aria-hidden=true")
            area = ui.textarea(value=self.options.system, placeholder=strings.system_placeholder,
                               on_change=lambda event: self._set("system", event.value or ""))
            area.props(f"outlined dense autogrow maxlength={MAX_SYSTEM_LENGTH}").classes("system")
            area.props.update({"aria-label": strings.system})
            self._too_long = ui.label(strings.system_too_long).classes("field-help")

    @property
    def _default_temperature(self) -> float:
        return replace(self.options, temperature=None).generation_options(self._served).params.temperature

    @property
    def _temperature_in_force(self) -> float:
        return self.options.generation_options(self._served).params.temperature

    def _set_temperature(self, tenths: int) -> None:
        value = tenths / 10
        self._set("temperature", None if value == round(self._default_temperature, 1) else value)

    def _set(self, option: str, value: str | int | float | None) -> None:
        setattr(self.options, option, value)
        self.update()
        if self._with_model:
            remember(self.options)

    def update(self) -> None:
        strings, options, thinks = self.strings, self.options, self._thinks
        tokens = int(self._served.max_model_len * EFFORTS[options.effort])
        effort = strings.efforts[options.effort]
        self._effort.describe((strings.thought_limit if tokens else strings.no_thinking).format(effort, strings.number(tokens)),
                              EFFORT_NAMES.index(options.effort))
        self._effort.element.set_visibility(thinks)
        one, many = (strings.one_thought, strings.many_thoughts) if thinks else (strings.one_answer, strings.many_answers)
        thoughts = one if options.thoughts == 1 else many.format(options.thoughts)
        help_text = strings.thoughts_help if thinks else strings.answers_help
        self._thoughts.describe(f"{thoughts}. {help_text}" if options.thoughts > 1 else thoughts, options.thoughts)
        self._thoughts.rename(strings.thoughts if thinks else strings.answers)
        summary = [effort] * thinks + [thoughts] * (options.thoughts > 1)
        if self._with_model:
            self._thoughtless.set_visibility(not thinks)
            self._too_long.set_visibility(cookie_of(options) is None)
            value = self._temperature_in_force
            description = strings.temperature_default if options.temperature is None else strings.temperature_help
            self._temperature.describe(description.format(strings.decimal(value)), round(10 * value))
            if len(self.conversations.service.models) == 1:  # else the picker beside it shows it
                summary = [options.model, *summary]
            if options.temperature is not None:
                summary.append(strings.temperature_short.format(strings.decimal(value)))
            summary += [strings.system_short] * bool(options.system.strip())
        self._label.text = " · ".join(summary) or thoughts
        self.button.props.update({"aria-label": f"{strings.options}: {', '.join(summary) or thoughts}"})


class _Menu(ui.menu):
    """A menu whose state only the browser knows: through the server, Escape would return the focus to the button too late."""

    LOOPBACK = None


class Slider:
    """The browser's own range input, with a line below that describes the value."""

    def __init__(self, label: str, low: int, high: int, value: int, on_change: Callable[[int], None]):
        with ui.element("label").classes("field") as self.element:
            self._name = ui.label(label).classes("field-name")
            self._input = ui.element("input").props("type=range step=1 autocomplete=off").classes("slider")
            # Not `value`: an update from the server would move the thumb back while it is dragged. The default follows, since
            # a menu that is opened again is built from it.
            self._input.props.update({"min": low, "max": high, "defaultValue": value})
            self._input.on("input", lambda event: on_change(min(max(int(event.args), low), high)),
                           js_handler="(e) => emit(e.target.value)")
            self._description = ui.label().classes("field-help").props("aria-hidden=true")
        self.rename(label)

    def rename(self, label: str) -> None:
        self._name.text = label
        self._input.props.update({"aria-label": label})

    def describe(self, text: str, value: int) -> None:
        self._description.text = text
        self._input.props.update({"aria-valuetext": text, "defaultValue": value})


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
    """The files (name, text) that will go with the next question. element: where they are listed. on_change: called when the
    user has added or removed one."""

    strings: Strings
    element: ui.element
    on_change: Callable[[], None]
    files: list[tuple[str, str]] = field(default_factory=list)

    def button(self) -> None:
        with ui.element("label").classes("icon attach").props(f'title="{self.strings.attach_file}"'):
            ui.icon("attach_file").props("aria-hidden=true")
            file_input = ui.element("input").props("type=file multiple").classes("visually-hidden")
            file_input.props.update({"aria-label": self.strings.attach_file})
            file_input.on("change", self._add, js_handler=_READ_FILES)

    def _add(self, event: events.GenericEventArguments) -> None:
        if self.add(*event.args):
            self.on_change()

    def add(self, name: str, text: str, wrong: str = "") -> bool:
        """Adds a file, or says why not. wrong: "binary", or "large"."""
        if wrong or not isinstance(text, str) or len(text.encode()) > MAX_FILE_BYTES:
            template = self.strings.file_not_text if wrong == "binary" else self.strings.file_too_large
            ui.notify(template.format(name, MAX_FILE_BYTES // 1024), type="negative")
            return False
        self.files.append((str(name), text))
        self._update()
        return True

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
        self.on_change()
