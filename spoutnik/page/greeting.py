"""What an empty conversation shows: what the model can do, by its card, and examples that it was trained for."""

from collections.abc import Callable, Mapping
from typing import TypeVar

from nicegui import ui

from spoutnik.generation.catalog import ships_with_package
from spoutnik.generation.service import GenerationService
from spoutnik.generation.session import ChatOptions
from spoutnik.page.strings import Strings
from spoutnik.page.widgets import Handler, button

MAX_EXAMPLES = 6
Text = TypeVar("Text")


class Greeting:
    """The greeting of the model that `options` names; `update` is called when that changes. ask: called with an example.
    open_models: offered where the model is the one that ships with the package."""

    def __init__(self, service: GenerationService, strings: Strings, options: ChatOptions, ask: Callable[[str], object],
                 open_models: Handler | None = None):
        self.service, self.strings, self.options = service, strings, options
        self._ask, self._open_models = ask, open_models
        self.element = ui.element("div").classes("greeting")
        self.update()

    def update(self) -> None:
        strings, served = self.strings, self.service.named(self.options.model)
        card = served.card
        description = card and _in_language(card.description, strings.language)
        self.element.clear()
        with self.element:
            ui.label(strings.greeting).classes("greeting-title").props("role=heading aria-level=2")
            ui.label(description or strings.neutral_description.format(served.id)).classes("description")
            ui.label(strings.greeting_help if served.thinks else strings.thoughtless).classes("muted")
            with ui.element("div").classes("examples"):
                for text in ((card and _in_language(card.examples, strings.language)) or [])[:MAX_EXAMPLES]:
                    button(text, lambda text=text: self._ask(text)).classes("example")
            if self._open_models is not None and ships_with_package(served.folder):
                ui.label(strings.tiny_model).classes("muted")
                button(strings.more_models, self._open_models, "download").classes("pill")


def _in_language(texts: Mapping[str, Text], language: str) -> Text | None:
    """In the reader's language, else in English, else in any: a model may know one language alone."""
    return texts.get(language) or texts.get("en") or next(iter(texts.values()), None)
