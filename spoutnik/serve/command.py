"""`spoutnik serve`: from what was asked for to a server that runs until it is stopped."""

import asyncio
import contextlib
import errno
import gc
import json
import logging
import os
import signal
import socket
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import uvicorn
from fastapi import FastAPI
from rich.console import Console
from rich.status import Status

import spoutnik
from spoutnik.engine.llm import LLM, NO_DRAFTS
from spoutnik.errors import RunError, UserError
from spoutnik.loading import load_tokenizer
from spoutnik.locate import locate, models_of
from spoutnik.model.config import ModelConfig
from spoutnik.serve import guard, history, keys, metrics
from spoutnik.serve.app import make_app
from spoutnik.serve.keys import Keys
from spoutnik.serve.protocol import bounded
from spoutnik.serve.reply import Reply
from spoutnik.serve.service import LiveReply, Served, Service
from spoutnik.serve.settings import Settings

log = logging.getLogger("spoutnik.serve")


@dataclass(frozen=True)
class Engine:
    """What each model's LLM is told; drafts are its num_speculative_tokens."""

    quantize: str | None = None
    memory: str | None = None
    speculate: str | None = None
    drafts: int = 1
    max_num_seqs: int = 256


def serve(model: str | None, stage: str | None, engine: Engine, settings: Settings, console: Console,
          as_json: bool = False) -> None:
    """Returns when the server has been stopped. Whatever is wrong is said before a model is read."""
    _forbid_telemetry()
    guard.check_binding(settings, Keys(settings.data / keys.FILE))
    if settings.page:
        history.of(settings)
    models = offers(model, stage)
    with _bound(settings.host, settings.port) as listener, console.status("") as status:
        settings = replace(settings, port=listener.getsockname()[1])
        service = Service(models, lambda served: _read(served, engine, status), settings.max_queue)
        if settings.log_prompts:
            service.on_end.append(_log_texts)
        _log_to_stderr()
        server = Server(whole_app(service, settings), service, settings, status, as_json)
        with asyncio.Runner(loop_factory=server.config.get_loop_factory()) as runner:  # uvloop, where there is one
            runner.run(server.serve([listener]))


def whole_app(service: Service, settings: Settings) -> FastAPI:
    """The API with its door, its meters and its page."""
    app, known = make_app(service, settings), Keys(settings.data / keys.FILE)
    if settings.page:
        from spoutnik.serve import page
        warnings.filterwarnings("ignore", "`torch.distributed", FutureWarning)  # NiceGUI looks at every object there is
        page.mount(app, service, settings, history.of(settings), known)
    guard.install(app, settings, known)
    service.on_end.append(guard.charge)
    metrics.install(app, service)
    return app


# ------------------------------------------------------------------------------------------------------------ the models

def offers(model: str | None, stage: str | None = None) -> list[Served]:
    """The models of a folder, a run or the hub, the one that clients get who name none first. None: the newest run under
    ./runs, or what ships with the package."""
    if model is None:
        run = _newest_run(Path("runs"))
        if run is None:
            shipped = next((Path(spoutnik.__file__).parent / "prebuilt").glob("base-*"))
            return [_served("nano", shipped, "The base that ships with the package: taught to read, not yet to reason.")]
        model = str(run)
    main, path = locate(model, stage), Path(model)
    name = path.resolve().name if path.exists() else model
    if stage is not None:
        return [_served(f"{name}:{stage}", main, f"Stage {stage} of {path}.")]
    if path == main or not path.exists():
        return [_served(name, main, str(model))]
    stages = {folder: stage for stage, folder in models_of(path).items()}
    others = [_served(f"{name}:{stage}", folder, f"Stage {stage} of {path}.")
              for folder, stage in stages.items() if folder != main]
    return [_served(name, main, f"Stage {stages[main]} of {path}, its last."), *others]


def _newest_run(runs: Path) -> Path | None:
    for index in sorted(runs.glob("*/run.json"), key=lambda index: index.stat().st_mtime, reverse=True):
        with contextlib.suppress(RunError, UserError):  # no model yet
            models_of(index.parent)
            return index.parent
    return None


def _served(name: str, folder: Path, about: str) -> Served:
    positions = ModelConfig.load(folder).max_position_embeddings
    return Served(name, folder, load_tokenizer(folder), positions, about, int((folder / "config.json").stat().st_mtime))


def _read(served: Served, engine: Engine, status: Status) -> LLM:
    status.update(f"Reading {served.id}")
    llm = LLM(served.folder, served.tokenizer, quantize=engine.quantize, memory=engine.memory, speculate=engine.speculate,
              num_speculative_tokens=engine.drafts, max_num_seqs=engine.max_num_seqs,
              progress=lambda done, of: status.update(f"Quantising {served.id}, once: {done / of:.0%}"))
    if engine.speculate is not None and llm.core.drafter is None:
        print(f"{served.id}: {NO_DRAFTS}", file=sys.stderr)
    return llm


# ------------------------------------------------------------------------------------------------------------ the server

class Server(uvicorn.Server):
    """Reads the first model before it listens, and says when it is ready. The first Ctrl-C (or SIGTERM) lets what is under way
    end, the second one does not."""

    def __init__(self, app, service: Service, settings: Settings, status: Status, as_json: bool):
        super().__init__(uvicorn.Config(
            app, http=bounded(4 * settings.max_header_bytes), ws_max_size=settings.max_body_bytes, lifespan="on",
            log_config=None, server_header=False, timeout_keep_alive=75,
            timeout_graceful_shutdown=max(int(settings.shutdown_seconds), 1)))
        self.service, self.settings, self.status, self.as_json = service, settings, status, as_json

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await self.service.model(None)
        # What is here now stays: a collector that walks through all of it again and again stops every reply meanwhile. And
        # it looks after some tens of requests, not several times in each.
        gc.collect()
        gc.freeze()
        gc.set_threshold(20_000, 20, 20)
        self.status.stop()
        await super().startup(sockets)
        self._say_ready()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Unlike uvicorn's, raises none again at the end: a stop that was asked for is no failure."""
        before = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def handle_exit(self, sig: int, frame: object) -> None:
        if self.should_exit or not self.started:
            os._exit(130)
        self.should_exit = self.service.draining = True
        under_way = len(self.service.live)
        if under_way:
            print(f"\nStopping when {under_way} replies have ended, in {self.settings.shutdown_seconds:g} s at the latest. "
                  "Ctrl-C again stops at once.", file=sys.stderr)

    def _say_ready(self) -> None:
        settings, names = self.settings, list(self.service.models)
        here = guard.is_loopback(settings.host)
        host = "localhost" if settings.host in ("0.0.0.0", "::") else settings.host
        url = f"http://{f'[{host}]' if ':' in host else host}:{settings.port}"
        if self.as_json:
            print(json.dumps({"url": url, "api": f"{url}/v1", "models": names}), flush=True)
            return
        page = [f"Page    {url}/"] if settings.page else []
        reach = "Nothing leaves this machine." if here else "Other machines can reach it, with an API key."
        print("\n".join([*page, f"API     {url}/v1", f"Models  {', '.join(names)}", f"{reach} Ctrl-C stops it."]), flush=True)


def _bound(host: str, port: int) -> socket.socket:
    """Taken before the model is read; it listens when that is done."""
    listener = None
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        return listener
    except OSError as error:
        if listener is not None:
            listener.close()
        if error.errno == errno.EADDRINUSE:
            raise UserError(f"--port {port}: something else uses it, perhaps another `spoutnik serve`. Stop that, or choose "
                            f"another: --port {port % 65535 + 1}.") from error
        if error.errno == errno.EACCES:
            raise UserError(f"--port {port}: this user may not use it. Choose one above 1023, and let a proxy pass on what "
                            "comes to lower ones.") from error
        raise UserError(f"--host {host}: is no address of this machine ({error.strerror}). Take 127.0.0.1, or 0.0.0.0 for "
                        "all.") from error


# ------------------------------------------------------------------------------------------------------------- the log

class WithoutQuery(logging.Filter):
    """The access log names paths alone, and not the page's many small files."""

    def filter(self, record: logging.LogRecord) -> bool:
        client, method, path, version, status = record.args
        record.args = client, method, path.partition("?")[0], version, status
        return not path.startswith("/_nicegui")


def _log_to_stderr() -> None:
    logging.basicConfig(format="%(asctime)s %(message)s", datefmt="%H:%M:%S", stream=sys.stderr)
    access = logging.getLogger("uvicorn.access")
    access.setLevel(logging.INFO)
    access.addFilter(WithoutQuery())
    log.setLevel(logging.INFO)


def _log_texts(live: LiveReply) -> None:
    """For --log-prompts alone."""
    tokenizer = live.served.tokenizer
    said = [strand.ids if isinstance(live.reply, Reply) else strand.sample.token_ids for strand in live.reply.strands]
    for ids in said:
        log.info("%s %s: %r", live.name, live.served.id, tokenizer.decode([*live.plan.prompt, *ids], keep_special=True))


def _forbid_telemetry() -> None:
    """FastAPI would send traces where the environment asks it to, and the hub's library counts its users."""
    os.environ.pop("FASTAPI_OTEL_AUTO_CONFIGURE", None)
    os.environ.update(OTEL_SDK_DISABLED="true", HF_HUB_DISABLE_TELEMETRY="1")
