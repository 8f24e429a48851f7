"""The server's settings; every default is safe on a personal machine."""

from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Settings:
    """host, port: where it listens; uds: a Unix socket instead. root_path: the path below which a proxy offers it.
    data: the folder of keys, history and feedback. require_key: every request needs an API key (the page asks for one too).
    api_keys: secrets of keys besides those of the folder.
    max_queue: generations that run or wait. max_body_bytes, max_header_bytes: of a request. requests_per_minute,
        tokens_per_minute: of each key, None for no limit. cors_origins: pages of other origins that may call the API.
    log_prompts: prompts and answers may be written to the log. history: the page keeps conversations. passphrase: encrypts
        them. page: the chat page is served.
    runtime_adapters: a folder whose adapters clients may load and unload; None: they may not.
    ping_seconds: a stream that has no event for so long sends a ping. resume_seconds: a stream that was cut off can be resumed
        for so long. shutdown_seconds: how long active generations may go on at a stop.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    uds: Path | None = None
    root_path: str = ""
    data: Path = field(default_factory=lambda: Path.home() / ".local" / "share" / "spoutnik")
    require_key: bool = False
    api_keys: tuple[str, ...] = field(default=(), repr=False)
    max_queue: int = 256
    max_body_bytes: int = 8 << 20
    max_header_bytes: int = 64 << 10
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    cors_origins: tuple[str, ...] = ()
    log_prompts: bool = False
    history: bool = True
    passphrase: str | None = field(default=None, repr=False)
    page: bool = True
    runtime_adapters: Path | None = None
    ping_seconds: float = 15.0
    resume_seconds: float = 300.0
    shutdown_seconds: float = 30.0
