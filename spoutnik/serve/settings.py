"""What a server is told when it starts; every value has a default that is safe on a machine of one's own."""

from dataclasses import dataclass, field
from pathlib import Path

LOOPBACK = ("127.0.0.1", "::1", "localhost")


@dataclass(frozen=True)
class Settings:
    """host, port: where it listens. data: the folder of keys, history and feedback.

    require_key: only requests with an API key are served (the page asks for one too).
    max_queue: replies under way or waiting. max_body_bytes, max_header_bytes: of a request. requests_per_minute,
    tokens_per_minute: of each key, None for no limit.
    cors_origins: web pages of other origins that may call the API. passphrase: what the history is encrypted with, if it is.
    log_prompts: texts of users may be written to the log. history: conversations of the page are kept. page: it is there.
    ping_seconds: a sign of life at least so often while a stream has nothing to say. resume_seconds: a stream that was cut can
        be read again for so long. shutdown_seconds: what is under way may end, at a stop.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    data: Path = field(default_factory=lambda: Path.home() / ".local" / "share" / "spoutnik")
    require_key: bool = False
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
    ping_seconds: float = 15.0
    resume_seconds: float = 300.0
    shutdown_seconds: float = 30.0
