"""The HTTP server: its socket, its signals and its log."""

import contextlib
import errno
import gc
import json
import logging
import os
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import uvicorn
from rich.status import Status

from spoutnik.errors import UserError
from spoutnik.generation.generation import Generation
from spoutnik.generation.service import GenerationHandle, GenerationService
from spoutnik.serve import auth
from spoutnik.serve.http_limits import limited_protocol
from spoutnik.serve.settings import Settings

log = logging.getLogger("spoutnik.serve")
BACKLOG = 2048  # connections that wait, uvicorn's default


class Server(uvicorn.Server):
    """Listens, loads the first model (`Starting` turns requests away meanwhile) and says when it is ready. The first Ctrl-C (or
    SIGTERM) lets active generations end, the second one does not."""

    def __init__(self, app, service: GenerationService, settings: Settings, status: Status, as_json: bool):
        super().__init__(uvicorn.Config(
            app, http=limited_protocol(4 * settings.max_header_bytes), ws_max_size=settings.max_body_bytes, lifespan="on",
            log_config=None, server_header=False, timeout_keep_alive=75, forwarded_allow_ips="*" if settings.uds else None,
            timeout_graceful_shutdown=max(int(settings.shutdown_seconds), 1)))
        self.service, self.settings, self.status, self.as_json = service, settings, status, as_json

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self.service.starting = True
        await super().startup(sockets)
        try:
            await self.service.model(None)
        except Exception:
            await self.lifespan.shutdown()  # else its task is cancelled, and uvicorn logs that with a traceback
            raise
        # What is here now stays: collections that walk through all of it would stop every generation meanwhile. And they
        # run after some tens of requests, not several times in each.
        gc.collect()
        gc.freeze()
        gc.set_threshold(20_000, 20, 20)
        self.status.stop()
        self.service.starting = False
        self._print_ready()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Unlike uvicorn's, does not raise them again at the end: a requested stop is no failure."""
        previous = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

    def handle_exit(self, sig: int, frame: object) -> None:
        if self.should_exit or not self.started or self.service.starting:
            os._exit(130)
        self.should_exit = self.service.draining = True
        active = len(self.service.active)
        if active:
            print(f"\nStopping when {active} replies have ended, in {self.settings.shutdown_seconds:g} s at the latest. "
                  "Ctrl-C again stops at once.", file=sys.stderr)

    def _print_ready(self) -> None:
        settings, names = self.settings, list(self.service.models)
        if settings.uds is not None:
            url = f"unix:{settings.uds}"
        else:
            host = "localhost" if settings.host in ("0.0.0.0", "::") else settings.host
            url = f"http://{f'[{host}]' if ':' in host else host}:{settings.port}{settings.root_path}"
        if self.as_json:
            print(json.dumps({"url": url, "api": f"{url}/v1", "models": names}), flush=True)
            return
        page = [f"Page    {url}/"] if settings.page else []
        reach = "Nothing leaves this machine." if auth.is_local(settings) else "Other machines can reach it, with an API key."
        print("\n".join([*page, f"API     {url}/v1", f"Models  {', '.join(names)}", f"{reach} Ctrl-C stops it."]), flush=True)


@contextlib.contextmanager
def listen(settings: Settings) -> Iterator[socket.socket]:
    """The socket. It listens at once: until then another server could take the same port (SO_REUSEADDR)."""
    listener = _listen_at_path(settings.uds) if settings.uds is not None else bind(settings.host, settings.port)
    try:
        with listener:
            yield listener
    finally:
        if settings.uds is not None:
            settings.uds.unlink(missing_ok=True)


def bind(host: str, port: int) -> socket.socket:
    listener = None
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # else nobody could restart a server for a minute
        listener.bind(address)
        listener.listen(BACKLOG)
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


def _listen_at_path(path: Path) -> socket.socket:
    """A Unix socket in place of one that nobody listens at any more."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if path.is_socket():
            if not _is_deserted(path):
                raise UserError(f"--uds {path}: another server listens there. Stop that, or choose another path.")
            path.unlink()
        listener.bind(str(path))
        listener.listen(BACKLOG)
        return listener
    except OSError as error:
        listener.close()
        raise UserError(f"--uds {path}: no socket can be made there ({error.strerror or error}). Choose a path in a folder "
                        "that this user may write to.") from error
    except UserError:
        listener.close()
        raise


def _is_deserted(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        try:
            client.connect(str(path))
        except ConnectionRefusedError:
            return True
    return False


def filter_access(record: logging.LogRecord) -> bool:
    """Logs paths without their queries, and not the page's many small files."""
    client, method, path, version, status = record.args
    record.args = client, method, path.partition("?")[0], version, status
    return not path.startswith("/_nicegui")


def log_to_stderr() -> None:
    logging.basicConfig(format="%(asctime)s %(message)s", datefmt="%H:%M:%S", stream=sys.stderr)
    access = logging.getLogger("uvicorn.access")
    access.setLevel(logging.INFO)
    access.addFilter(filter_access)
    log.setLevel(logging.INFO)


def log_texts(handle: GenerationHandle) -> None:
    """For --log-prompts alone."""
    tokenizer = handle.served.tokenizer
    for choice in handle.job.choices:
        ids = choice.ids if isinstance(handle.job, Generation) else choice.sample.token_ids
        log.info("%s %s: %r", handle.name, handle.served.id, tokenizer.decode([*handle.plan.prompt, *ids], keep_special=True))


def forbid_telemetry() -> None:
    """FastAPI sends traces where the environment asks it to, and huggingface_hub counts its users."""
    os.environ.pop("FASTAPI_OTEL_AUTO_CONFIGURE", None)
    os.environ.update(OTEL_SDK_DISABLED="true", HF_HUB_DISABLE_TELEMETRY="1")
