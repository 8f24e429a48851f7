"""Files of weights that change under a server."""

import asyncio
import os

import pytest
import tiny
import torch

from spoutnik.engine.llm import LLM
from spoutnik.engine.quantization import packed_cache
from spoutnik.engine.runners.native_runner import NativeRunner
from spoutnik.generation.service import GenerationService, ServedModel
from spoutnik.model.weights import save_model
from spoutnik.native import library

PATH = "/v1/chat/completions"
SHORT = {"messages": [{"role": "user", "content": "what is 12 + 30?"}], "max_tokens": 24, "temperature": 0}
native = pytest.mark.skipif(library() is None, reason="no compiler here: the plain twin is what runs")


def saved(folder, tokenizer, base: dict, **changes):
    model = tiny.model(base, vocab_size=tokenizer.vocab_size, max_position_embeddings=1024, rope_scaling=None, **changes)
    save_model(folder, model, torch.float32)
    return folder


def service_of(folder, tokenizer, memory, quantize: str | None = None) -> GenerationService:
    return GenerationService([ServedModel("tiny", folder, tokenizer, 1024)], lambda served: LLM(
        served.folder, tokenizer, dtype="float32", memory=memory, quantize=quantize, max_num_seqs=4))


@pytest.mark.parametrize("quantize", [None, pytest.param("int8", marks=native)])
def test_a_checkpoint_may_be_emptied_while_it_is_served(api, tokenizer, tmp_path, quantize, monkeypatch, request):
    """Neither its answers nor anything else change: it is in memory."""
    if quantize is None:
        request.getfixturevalue("plain_kernels")
    monkeypatch.setattr(packed_cache, "cache_folder", lambda: tmp_path / "cache")
    folder = saved(tmp_path / "model", tokenizer, tiny.QWEN)

    async def work():
        async with api(service_of(folder, tokenizer, "64MB", quantize)) as client:
            before = (await client.post(PATH, json=SHORT)).json()["choices"]
            for path in folder.rglob("*.safetensors"):
                os.truncate(path, 0)
            assert (await client.post(PATH, json=SHORT)).json()["choices"] == before
            assert (await client.get("/health")).status_code == 200

    asyncio.run(work())


@pytest.fixture
def offloaded(tokenizer, tmp_path, monkeypatch):
    """A service whose model leaves its experts in a packed file, and that file."""
    monkeypatch.setattr(packed_cache, "cache_folder", lambda: tmp_path / "cache")
    folder = saved(tmp_path / "model", tokenizer, tiny.DEEPSEEK, moe_intermediate_size=1024)
    whole = NativeRunner.of_folder(folder, torch.float32, "int8")
    experts = sum(packed.nbytes for key, packed in whole.packed.items() if ".experts_" in key)
    service = service_of(folder, tokenizer, whole.weights_nbytes - experts // 2, "int8")
    path, = (folder / "spoutnik-packed").iterdir()
    return service, path


@native
@pytest.mark.parametrize("when", ["between two requests", "in the middle of one", "in the middle of a stream"])
def test_experts_on_disk_that_were_changed_are_said_and_not_served(api, offloaded, tmp_path, when):
    service, path = offloaded
    words = "was changed while it was in use"

    async def work():
        async with api(service) as client:
            await service.model(None)
            service.default.prefix_warmer.add = lambda *_: None  # no steps but those of the requests
            assert (await client.post(PATH, json=SHORT)).status_code == 200
            core = service.default.llm.core
            assert core.runner.offload is not None
            step, streams = core.step, when == "in the middle of a stream"
            if when == "between two requests":
                os.utime(path, (1, 1))
            else:
                core.step = lambda: (os.utime(path, (1, 1)), step())[1]
                reply = await client.post(PATH, json=SHORT | {"stream": streams})
                assert words in reply.text and "DONE" not in reply.text and reply.status_code == (200 if streams else 503)
            for reply in await client.get("/health"), await client.post(PATH, json=SHORT):
                assert reply.status_code == 503 and f"{path.name}: {words}" in reply.text
                assert str(tmp_path) not in reply.text

    asyncio.run(work())
