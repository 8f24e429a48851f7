"""A page with scripted models as a process of its own, which a test can kill: `python page_process.py FOLDER PORT`."""

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

TESTS = Path(__file__).parents[1]


class PageProcess:
    """Serves the page on what is kept in `folder`; `kill` and `start` again on the same port. Thoughts stop at their middle."""

    def __init__(self, folder: Path):
        self.folder, self.port = folder, 0
        self.start()

    def start(self) -> None:
        command = [sys.executable, __file__, self.folder, str(self.port)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self.port = int(self.process.stdout.readline())

    def kill(self) -> None:
        self.process.kill()  # SIGKILL: nothing in it can run any more
        self.process.wait()
        self.process.stdout.close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"


@contextlib.contextmanager
def page_process(folder: Path) -> Iterator[PageProcess]:
    server = PageProcess(folder)
    try:
        yield server
    finally:
        server.kill()


def serve(folder: Path, port: int) -> None:
    import socket

    import tiny
    import uvicorn
    from fastapi import FastAPI
    from scripted import ScriptedService

    from spoutnik import page
    from spoutnik.engine.llm import LLM
    from spoutnik.generation.service import ServedModel
    from spoutnik.serve.settings import Settings
    from spoutnik.store.history import History

    def load(served: ServedModel) -> LLM:
        model = tiny.model(tiny.QWEN, vocab_size=tokenizer.vocab_size, max_position_embeddings=1024)
        return LLM(model, tokenizer, max_num_seqs=8, memory="64MB")

    tokenizer, app = tiny.tokenizer(), FastAPI()
    service = ScriptedService([ServedModel(name, folder, tokenizer, 1024) for name in ("alpha", "beta")], load, held=True)
    page.mount(app, service, Settings(data=folder), History(folder / "history.db"))
    listener = socket.create_server(("127.0.0.1", port))
    print(listener.getsockname()[1], flush=True)
    uvicorn.Server(uvicorn.Config(app, log_level="error")).run([listener])


if __name__ == "__main__":
    sys.path.insert(0, str(TESTS))
    serve(Path(sys.argv[1]), int(sys.argv[2]))
