"""A tiny model behind the API: as an ASGI app for one test, and as a real server on a free port for all of them."""

import time
from contextlib import asynccontextmanager

import httpx
import openai
import pytest
import tiny
from listening import listening

from spoutnik.engine.llm import LLM
from spoutnik.generation.service import GenerationService, ServedModel
from spoutnik.serve.app import make_app
from spoutnik.serve.settings import Settings

POSITIONS = 1024


@pytest.fixture(scope="session")
def make_service(tokenizer, tmp_path_factory):
    """Makes services of models with random weights, which say anything at all. Changes: GenerationService's."""
    folder = tmp_path_factory.mktemp("model")

    def load(served: ServedModel) -> LLM:
        model = tiny.model(tiny.QWEN, vocab_size=tokenizer.vocab_size, max_position_embeddings=POSITIONS)
        return LLM(model, tokenizer, max_num_seqs=8, memory="64MB")

    def make(names=("tiny",), **changes) -> GenerationService:
        return GenerationService([ServedModel(name, folder, tokenizer, POSITIONS) for name in names],
                                 **{"load": load} | changes)

    return make


@pytest.fixture(scope="session")
def api(make_service):
    """`async with api() as client`: a client of an app of one's own, with `client.app`. Changes are those of Settings."""

    @asynccontextmanager
    async def open_api(service: GenerationService | None = None, **changes):
        app = make_app(service or make_service(), Settings(**{"shutdown_seconds": 0.0} | changes))
        async with app.router.lifespan_context(app):
            transport = httpx.ASGITransport(app)
            async with httpx.AsyncClient(transport=transport, base_url="http://test", timeout=60) as client:
                client.app, client.service = app, app.state.serving.service
                yield client

    return open_api


@pytest.fixture(scope="session")
def server_app(make_service):
    return make_app(make_service(), Settings(shutdown_seconds=1.0))


@pytest.fixture(scope="session")
def server(server_app):
    """A real server's address."""
    with listening(server_app) as url:
        yield url


@pytest.fixture
def openai_client(server):
    with openai.OpenAI(base_url=f"{server}/v1", api_key="none", max_retries=0) as client:
        yield client


@pytest.fixture
def idle(server_app):
    """Waits until the server has no reply under way."""
    def wait(seconds: float = 20.0) -> bool:
        deadline = time.monotonic() + seconds
        while server_app.state.serving.service.active and time.monotonic() < deadline:
            time.sleep(0.005)
        return not server_app.state.serving.service.active

    return wait


@pytest.fixture(scope="session")
def endless(tokenizer):
    """Bias that keeps a thought from ending by itself."""
    return {str(token): -100 for token in (*tokenizer.eos_ids, tokenizer.end_think_id)}
