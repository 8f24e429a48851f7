"""A dialog with open models for this machine: what each is and costs, fetched with progress, then talked to."""

from collections.abc import Callable

from nicegui import ui

from spoutnik.generation.model_fetch import ModelFetches
from spoutnik.generation.offers import OfferedModel
from spoutnik.page.strings import Strings
from spoutnik.page.widgets import button, open_dialog

TICK = 0.5  # seconds between two looks at how much has arrived


class ModelList:
    """choose: called with the name of a model to talk to."""

    def __init__(self, fetches: ModelFetches, strings: Strings, choose: Callable[[str], None]):
        self.fetches, self.strings, self._choose = fetches, strings, choose

    async def open(self) -> None:
        strings = self.strings
        with open_dialog(strings.more_models) as dialog:
            self._dialog = dialog
            ui.label(strings.more_models).classes("dialog-title").props("role=heading aria-level=2")
            ui.label(strings.more_models_help).classes("muted")
            measuring = ui.label(strings.measuring).classes("muted").props("role=status")
            rows = ui.element("ul").classes("offers")
            with ui.element("div").classes("choices"):
                button(strings.close, dialog.close)
        offered = await self.fetches.offers()
        if dialog.is_deleted:  # it was closed meanwhile
            return
        measuring.delete()
        with rows:
            views = [_OfferView(self, model) for model in offered]
            ui.timer(TICK, lambda: [view.update() for view in views])

    def talk(self, model: OfferedModel) -> None:
        if model.name not in self.fetches.service.models:
            self.fetches.serve(model, model.folder)
        self._dialog.close()
        self._choose(model.name)


class _OfferView:
    """One model of the list."""

    def __init__(self, models: ModelList, model: OfferedModel):
        self.models, self.model = models, model
        strings, offer = models.strings, model.preset.offer
        with ui.element("li").classes("offer"):
            with ui.element("div").classes("offer-text"):
                ui.label(model.name).classes("offer-name")
                ui.label(offer.about[strings.language])
                ui.label(self._cost()).classes("muted small")
                self._status = ui.label().classes("small").props("role=status")
            self._fetch = button(strings.fetch.format(strings.gigabytes(offer.download_bytes)), self._start).classes("pill")
            self._stop = button(strings.pause, self._pause).classes("pill")
            self._talk = button(strings.talk_to_it, lambda: models.talk(model)).classes("pill primary")
        for one in (self._fetch, self._stop, self._talk):
            one.props.update({"aria-label": f"{one.text} ({model.name})"})
        self.update()

    def _cost(self) -> str:
        strings, best = self.models.strings, self.model.best
        licence = self.model.preset.offer.licence
        if best is None:
            least = min(fit.memory_bytes for fit in self.model.fits)
            return strings.does_not_fit.format(strings.gigabytes(least), licence)
        return strings.fits.format(strings.gigabytes(best.memory_bytes), best.precision,
                                   strings.number(round(best.tokens_per_second)), licence)

    def _start(self) -> None:
        self.models.fetches.start(self.model)
        self.update()

    def _pause(self) -> None:
        self.models.fetches.stop(self.model.name)
        self.update()

    def update(self) -> None:
        strings, model, fetch = self.models.strings, self.model, self.models.fetches.fetches.get(self.model.name)
        running = fetch is not None and fetch.running
        here = model.folder is not None or model.name in self.models.fetches.service.models
        self._fetch.set_visibility(not running and not here and model.best is not None)
        self._stop.set_visibility(running and not fetch.stopping)
        self._talk.set_visibility(here and not running)
        self._status.text = ""
        if running and fetch.stopping:
            self._status.text = strings.stopping
        elif running:
            share = round(100 * fetch.done / max(fetch.total, 1))
            self._status.text = strings.fetching.format(strings.gigabytes(fetch.done), strings.gigabytes(fetch.total), share)
        elif fetch is not None and fetch.error is not None:
            self._status.text = strings.failure(fetch.error)
