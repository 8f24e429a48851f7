"""The application (API, authentication, metrics, chat page) and the server that runs it."""

import asyncio
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from fastapi import FastAPI
from rich.console import Console
from rich.status import Status

from spoutnik.engine.adapters import read_for
from spoutnik.engine.llm import LLM
from spoutnik.errors import UserError
from spoutnik.generation.catalog import EngineOptions, list_models, load_llm
from spoutnik.generation.service import GenerationService, ServedModel, adapter_model
from spoutnik.model.adapter_file import read_adapter
from spoutnik.model.config import ModelConfig
from spoutnik.serve import auth, metrics
from spoutnik.serve.app import make_app
from spoutnik.serve.connection import HeadRequests, ReverseProxy, Starting
from spoutnik.serve.keys import FILE, Keys
from spoutnik.serve.server import Server, forbid_telemetry, listen, log_texts, log_to_stderr
from spoutnik.serve.settings import Settings
from spoutnik.store.history import FILE as HISTORY_FILE
from spoutnik.store.history import History


def serve(model: str | None, stage: str | None, engine: EngineOptions, settings: Settings, console: Console,
          as_json: bool = False, names: Sequence[str] = (), adapters: Mapping[str, Path] | None = None) -> None:
    """Runs the server until it is stopped. Errors in the settings are raised before a model is loaded. names: of the first
    model, in place of its folder's. adapters: folders of those that stand beside it, by name."""
    forbid_telemetry()
    auth.check_binding(settings, _keys(settings))
    if settings.page:
        _history(settings)  # raises where the passphrase is wrong
    models = list_models(model, stage)
    if engine.adapter is not None:
        if len(models) > 1:
            raise UserError(f"--adapter {engine.adapter}: is of one model, and {model} has {len(models)}. Say which with "
                            "--stage.")
        read_adapter(engine.adapter)  # raises now rather than when somebody asks
    if names:
        models[0].id, models[0].aliases = names[0], tuple(names[1:])
    models += _adapter_models(adapters or {}, models)
    with listen(settings) as listener, console.status("") as status:
        if settings.uds is None:
            settings = replace(settings, port=listener.getsockname()[1])
        service = GenerationService(models, lambda served: _load(served, engine, status), settings.max_queue)
        if settings.log_prompts:
            service.on_end.append(log_texts)
        log_to_stderr()
        server = Server(make_application(service, settings), service, settings, status, as_json)
        with asyncio.Runner(loop_factory=server.config.get_loop_factory()) as runner:  # uvloop where it is installed
            runner.run(server.serve([listener]))


def make_application(service: GenerationService, settings: Settings) -> FastAPI:
    app, keys = make_app(service, settings), _keys(settings)
    if settings.page:
        from spoutnik import page
        warnings.filterwarnings("ignore", "`torch.distributed", FutureWarning)  # NiceGUI inspects all objects
        page.mount(app, service, settings, _history(settings), keys)
    app.add_middleware(Starting, service=service)
    auth.install(app, settings, keys)
    service.on_end.append(auth.charge)
    metrics.install(app, service)
    app.add_middleware(HeadRequests)
    app.add_middleware(ReverseProxy, root_path=settings.root_path)  # the outermost
    return app


def _adapter_models(adapters: Mapping[str, Path], models: list[ServedModel]) -> list[ServedModel]:
    """Models of their own beside the first one, which reads them when it is read; what can be wrong with them is said now."""
    base, taken = models[0], {name for served in models for name in (served.id, *served.aliases)}
    for name, folder in adapters.items():
        if name in taken:
            raise UserError(f"--adapter {name}={folder}: a model has this name. Choose another for the adapter, or one for the "
                            "model (--served-model-name).")
        read_for(ModelConfig.load(base.folder), folder)
    base.adapters = dict(adapters)
    return [adapter_model(name, folder, base) for name, folder in adapters.items()]


def _keys(settings: Settings) -> Keys:
    return Keys(settings.data / FILE, settings.api_keys)


def _history(settings: Settings) -> History | None:
    return History(settings.data / HISTORY_FILE, settings.passphrase) if settings.history else None


def _load(served: ServedModel, engine: EngineOptions, status: Status) -> LLM:
    status.update(f"Reading {served.id}")
    return load_llm(served, engine, lambda done, of: status.update(f"Quantizing {served.id}, once: {done / of:.0%}"))
