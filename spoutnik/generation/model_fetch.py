"""Fetches open models while a service runs, and adds them to what it serves."""

import asyncio
from dataclasses import dataclass
from pathlib import Path

from spoutnik import hub
from spoutnik.errors import RunError, UserError
from spoutnik.generation.catalog import served_model
from spoutnik.generation.offers import Machine, OfferedModel, offers
from spoutnik.generation.service import GenerationService


@dataclass
class Fetch:
    """A fetch under way or ended. done, total: bytes. error: why it ended, if not well."""

    done: int = 0
    total: int = 0
    error: UserError | RunError | None = None
    stopping: bool = False
    task: asyncio.Task | None = None

    @property
    def running(self) -> bool:
        return self.task is not None and not self.task.done()


class ModelFetches:
    """The fetches of a service, by the model's name. What was fetched is served under that name, at the precision that fits
    this machine best."""

    def __init__(self, service: GenerationService):
        self.service = service
        self.fetches: dict[str, Fetch] = {}
        self._machine: Machine | None = None

    async def offers(self) -> list[OfferedModel]:
        """What there is to fetch, seen from this machine, whose memory is measured the first time."""
        if self._machine is None:
            self._machine = await asyncio.to_thread(Machine.measure)
        return await asyncio.to_thread(offers, self._machine)

    def start(self, offered: OfferedModel) -> Fetch:
        """Fetches a model, or goes on with it; served when it is here."""
        fetch = self.fetches.get(offered.name)
        if fetch is None or not fetch.running:
            fetch = self.fetches[offered.name] = Fetch(total=offered.preset.offer.download_bytes)
            fetch.task = asyncio.create_task(self._run(offered, fetch))
        return fetch

    def stop(self, name: str) -> None:
        """What is there of the model stays, and `start` goes on behind it."""
        if name in self.fetches:
            self.fetches[name].stopping = True

    def serve(self, offered: OfferedModel, folder: Path) -> None:
        """Adds a model that is here to those that are served."""
        if offered.name not in self.service.models:
            served = served_model(offered.name, folder, offered.preset.offer.about["en"])
            served.quantize = offered.quantize
            self.service.models[offered.name] = served

    async def _run(self, offered: OfferedModel, fetch: Fetch) -> None:
        def progress(done: int, total: int) -> None:
            fetch.done, fetch.total = done, total
            if fetch.stopping:
                raise hub.Stopped

        try:
            folder = await asyncio.to_thread(hub.fetch, offered.preset.offer.repository, True, progress)
            await asyncio.to_thread(self.serve, offered, folder)
        except hub.Stopped:
            pass
        except (UserError, RunError) as error:
            fetch.error = error
        except Exception as error:  # a mistake of ours: whoever waits must be told
            fetch.error = RunError(type(error).__name__)
            raise
