"""The application (API, authentication, metrics, chat page) and the server that runs it."""

import asyncio
import warnings
from dataclasses import replace

from fastapi import FastAPI
from rich.console import Console
from rich.status import Status

from spoutnik.engine.llm import LLM
from spoutnik.generation.catalog import EngineOptions, list_models, load_llm
from spoutnik.generation.service import GenerationService, ServedModel
from spoutnik.serve import auth, metrics
from spoutnik.serve.app import make_app
from spoutnik.serve.keys import FILE, Keys
from spoutnik.serve.server import Server, bind, forbid_telemetry, log_texts, log_to_stderr
from spoutnik.serve.settings import Settings
from spoutnik.store.history import FILE as HISTORY_FILE
from spoutnik.store.history import History


def serve(model: str | None, stage: str | None, engine: EngineOptions, settings: Settings, console: Console,
          as_json: bool = False) -> None:
    """Runs the server until it is stopped. Errors in the settings are raised before a model is loaded."""
    forbid_telemetry()
    auth.check_binding(settings, Keys(settings.data / FILE))
    if settings.page:
        _history(settings)  # raises where the passphrase is wrong
    models = list_models(model, stage)
    with bind(settings.host, settings.port) as listener, console.status("") as status:
        settings = replace(settings, port=listener.getsockname()[1])
        service = GenerationService(models, lambda served: _load(served, engine, status), settings.max_queue)
        if settings.log_prompts:
            service.on_end.append(log_texts)
        log_to_stderr()
        server = Server(make_application(service, settings), service, settings, status, as_json)
        with asyncio.Runner(loop_factory=server.config.get_loop_factory()) as runner:  # uvloop where it is installed
            runner.run(server.serve([listener]))


def make_application(service: GenerationService, settings: Settings) -> FastAPI:
    app, keys = make_app(service, settings), Keys(settings.data / FILE)
    if settings.page:
        from spoutnik import page
        warnings.filterwarnings("ignore", "`torch.distributed", FutureWarning)  # NiceGUI inspects all objects
        page.mount(app, service, settings, _history(settings), keys)
    auth.install(app, settings, keys)
    service.on_end.append(auth.charge)
    metrics.install(app, service)
    return app


def _history(settings: Settings) -> History | None:
    return History(settings.data / HISTORY_FILE, settings.passphrase) if settings.history else None


def _load(served: ServedModel, engine: EngineOptions, status: Status) -> LLM:
    status.update(f"Reading {served.id}")
    return load_llm(served, engine, lambda done, of: status.update(f"Quantizing {served.id}, once: {done / of:.0%}"))
