"""The models to choose from, as the browser's own <select>: those that the server offers now, adapters among them."""

from collections.abc import Callable

from nicegui import ui

from spoutnik.generation.service import GenerationService
from spoutnik.generation.session import ChatOptions
from spoutnik.page.strings import Strings


class Select:
    """The browser's own <select>, for screen readers and phones. options: value -> text. on_change: called with what the user
    has chosen."""

    def __init__(self, label: str, options: dict[str, str], value: str, on_change: Callable[[str], None]):
        self._on_change = on_change
        self._items: dict[str, ui.element] = {}
        self.element = ui.element("select").classes("choice").props("autocomplete=off")
        self.element.props.update({"aria-label": label, "title": label})
        self.element.on("change", lambda event: self._choose(event.args), js_handler="(e) => emit(e.target.value)")
        self.show(options, value)

    def show(self, options: dict[str, str], value: str) -> None:
        if list(options) != list(self._items):
            self.element.clear()
            with self.element:
                self._items = {key: ui.element("option") for key in options}
        for key, item in self._items.items():
            item.props.update({"value": key, "label": options[key], "selected": key == value})

    def _choose(self, chosen: str) -> None:
        if chosen in self._items:  # it may have gone since the browser showed it
            for key, item in self._items.items():  # a menu that is opened again is built from these
                item.props.update({"selected": key == chosen})
            self._on_change(chosen)


class ModelPicker:
    """The model that answers next. Hidden where there is only one. `update` is called when the options name another model, or
    others are served. on_change: called with the model that the user has chosen."""

    def __init__(self, service: GenerationService, strings: Strings, options: ChatOptions, on_change: Callable[[str], None]):
        self.service, self.options = service, options
        self._select = Select(strings.model, {}, "", on_change)
        self._select.element.classes("picker")
        self.update()

    def update(self) -> None:
        names = {name: name for name in self.service.models}
        self._select.show(names, self.options.model)
        self._select.element.set_visibility(len(names) > 1)
