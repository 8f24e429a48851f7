"""Adapters as models of their own: named by requests, loaded and unloaded while the server runs."""

import asyncio

import pytest
import tiny
import torch
from lora_parts import adapter_folder, random_parts, summed
from typer.testing import CliRunner

from spoutnik import LLM, SamplingParams
from spoutnik.commands.adapters import Adapters
from spoutnik.commands.main import app as commands
from spoutnik.errors import UserError
from spoutnik.generation.service import GenerationService, ServedModel, adapter_model
from spoutnik.model.weights import save_model

POSITIONS = 256
ASK = {"prompt": "what is 12 + 30?", "max_tokens": 12, "temperature": 0, "ignore_eos": True}


@pytest.fixture(scope="module")
def folder(tokenizer, tmp_path_factory):
    """A base, and adapters in a folder beside it."""
    root = tmp_path_factory.mktemp("served")
    model = tiny.model(tiny.QWEN, vocab_size=tokenizer.vocab_size, max_position_embeddings=POSITIONS)
    save_model(root / "base", model, torch.float32)
    tokenizer.save(root / "base")
    for seed, name in enumerate(("law", "tickets", "more")):
        adapter_folder(root / "adapters" / name, model, seed)
    adapter_folder(root / "adapters" / "foreign", tiny.model(tiny.DEEPSEEK), 0)
    return root


@pytest.fixture
def service(folder, tokenizer):
    base = ServedModel("base", folder / "base", tokenizer, POSITIONS)
    base.adapters = {name: folder / "adapters" / name for name in ("law", "tickets")}
    beside = [adapter_model(name, path, base) for name, path in base.adapters.items()]
    return GenerationService([base, *beside], lambda served: LLM(served.folder, served.tokenizer, adapters=served.adapters,
                                                                 dtype="float32", max_num_seqs=8, memory="64MB"))


@pytest.fixture(scope="module")
def expected(folder, tokenizer):
    """What each merged model says to ASK, the base's under ""."""
    model = tiny.model(tiny.QWEN, vocab_size=tokenizer.vocab_size, max_position_embeddings=POSITIONS)
    models = {name: summed(model, random_parts(model, seed)) for seed, name in enumerate(("law", "tickets", "more"))}
    params = SamplingParams(temperature=0, max_tokens=ASK["max_tokens"], ignore_eos=True)
    return {name: LLM(one, tokenizer).generate(ASK["prompt"], params)[0].outputs[0].text
            for name, one in (models | {"base": model}).items()}


def with_client(api, service, work, **changes):
    async def run():
        async with api(service, **changes) as client:
            await work(client)

    asyncio.run(run())


async def said(client, name: str) -> str:
    reply = await client.post("/v1/completions", json=ASK | {"model": name})
    assert reply.status_code == 200, reply.text
    return reply.json()["choices"][0]["text"]


def test_each_is_a_model_of_its_own(api, service, expected):
    async def work(client):
        listed = {model["id"]: model["parent"] for model in (await client.get("/v1/models")).json()["data"]}
        assert listed == {"base": None, "law": "base", "tickets": "base"}
        replies = await asyncio.gather(*(said(client, name) for name in ("law", "base", "tickets", "law")))
        assert replies == [expected[name] for name in ("law", "base", "tickets", "law")]
        assert len(set(expected.values())) == 4
        assert {served.engine_thread for served in service.models.values()} == {service.default.engine_thread}

    with_client(api, service, work)


def test_a_base_with_several_ends_of_a_turn_is_listed(api, tokenizer, tmp_path):
    """As most published instruct models have: eos_token_id is a list. Every page that names a model says its size."""
    model = tiny.model(tiny.LLAMA, vocab_size=tokenizer.vocab_size, max_position_embeddings=POSITIONS, eos_token_id=[1, 0])
    save_model(tmp_path / "base", model, torch.float32)
    tokenizer.save(tmp_path / "base")
    service = GenerationService([ServedModel("base", tmp_path / "base", tokenizer, POSITIONS)],
                                lambda served: LLM(served.folder, served.tokenizer, dtype="float32", memory="64MB"))

    async def work(client):
        for path in ("/v1/models", "/v1/models/base", "/api/tags"):
            reply = await client.get(path)
            assert reply.status_code == 200, (path, reply.text)
        listed, = (await client.get("/v1/models")).json()["data"]
        assert listed["meta"]["n_params"] == sum(tensor.numel() for tensor in model.parameters())

    with_client(api, service, work)


def test_every_api_chooses_by_the_model_s_name(api, service):
    """Chat, Anthropic's messages, Ollama's chat and embeddings: an adapter's replies are not the base's."""
    message = {"messages": [{"role": "user", "content": "what is 12 + 30?"}], "temperature": 0, "max_tokens": 24}
    bodies = {"/v1/chat/completions": message, "/v1/messages": message, "/v1/responses": {"input": "hello", "temperature": 0,
                                                                                         "max_output_tokens": 24},
              "/api/chat": message | {"stream": False, "options": {"temperature": 0, "num_predict": 24}},
              "/v1/embeddings": {"input": "hello"}}
    async def work(client):
        for path, body in bodies.items():
            replies = [(await client.post(path, json=body | {"model": name})).json() for name in ("base", "law")]
            said_by = [next(str(reply[key]) for key in ("choices", "content", "output", "message", "data") if key in reply)
                       for reply in replies]
            assert said_by[0] != said_by[1], path
        unknown = await client.post("/v1/chat/completions", json=message | {"model": "lav"})
        assert unknown.status_code == 404 and unknown.json()["error"]["code"] == "model_not_found"
        assert "law" in unknown.json()["error"]["message"]

    with_client(api, service, work)


def test_they_come_and_go_while_the_server_runs(api, service, folder, expected):
    async def work(client):
        loaded = await client.post("/v1/load_lora_adapter", json={"lora_name": "new", "lora_path": "more"})
        assert (loaded.status_code, loaded.text) == (200, "Success: LoRA adapter 'new' added successfully.")
        assert await said(client, "new") == expected["more"]
        law = {"lora_name": "new", "lora_path": str(folder / "adapters" / "law")}
        again = await client.post("/v1/load_lora_adapter", json=law)
        assert again.status_code == 400 and "served already" in again.json()["error"]["message"]
        gone = await client.post("/v1/unload_lora_adapter", json={"lora_name": "new"})
        assert (gone.status_code, gone.text) == (200, "Success: LoRA adapter 'new' removed successfully.")
        assert (await client.post("/v1/completions", json=ASK | {"model": "new"})).status_code == 404
        await client.post("/v1/load_lora_adapter", json=law)
        assert await said(client, "new") == expected["law"]

    with_client(api, service, work, runtime_adapters=folder / "adapters")


def test_a_reply_under_way_ends_with_the_adapter_that_it_began_with(api, service, folder, expected):
    async def work(client):
        await said(client, "law")
        thread = service.default.engine_thread
        reply = asyncio.create_task(said(client, "law"))
        while not service.active:
            await asyncio.sleep(0)
        assert (await client.post("/v1/unload_lora_adapter", json={"lora_name": "law"})).status_code == 200
        await client.post("/v1/load_lora_adapter", json={"lora_name": "law", "lora_path": "tickets"})
        assert await reply == expected["law"] and await said(client, "law") == expected["tickets"]
        assert not thread.core.adapters._in_use

    with_client(api, service, work, runtime_adapters=folder / "adapters")


@pytest.mark.parametrize("given, status, sentence", [
    ({"lora_name": "x", "lora_path": "foreign"}, 400, "which this model has not"),
    ({"lora_name": "x", "lora_path": "nowhere"}, 404, "there is no such folder"),
    ({"lora_name": "x", "lora_path": "../base"}, 403, "lies outside of the folder"),
    ({"lora_name": "x", "lora_path": "/etc"}, 403, "lies outside of the folder"),
    ({"lora_name": "base", "lora_path": "law"}, 400, "served already"),
    ({"lora_name": "x", "lora_path": "law", "load_inplace": True}, 400, "load_inplace"),
], ids=["foreign", "nowhere", "beside", "root", "the base's name", "in place"])
def test_what_cannot_be_loaded(given, status, sentence, api, service, folder):
    async def work(client):
        reply = await client.post("/v1/load_lora_adapter", json=given)
        assert reply.status_code == status and sentence in reply.json()["error"]["message"]
        assert str(folder) not in reply.text

    with_client(api, service, work, runtime_adapters=folder / "adapters")


def test_clients_load_nothing_where_the_owner_has_not_said_so(api, service):
    async def work(client):
        for path, body in (("load", {"lora_name": "x", "lora_path": "law"}), ("unload", {"lora_name": "law"})):
            reply = await client.post(f"/v1/{path}_lora_adapter", json=body)
            assert reply.status_code == 403 and "--runtime-adapters" in reply.json()["error"]["message"]
        assert "law" in service.models

    with_client(api, service, work)


def test_the_base_is_not_unloaded(api, service, folder):
    async def work(client):
        for name in ("base", "nobody"):
            reply = await client.post("/v1/unload_lora_adapter", json={"lora_name": name})
            assert reply.status_code == 404 and "no adapter of this name" in reply.json()["error"]["message"]

    with_client(api, service, work, runtime_adapters=folder / "adapters")


# The command's option

def test_a_path_alone_is_merged_and_a_name_stands_beside(tmp_path):
    (tmp_path / "a=b").mkdir()
    assert Adapters.parse(["law=x/y", "tickets=z"]).named.keys() == {"law", "tickets"}
    assert Adapters.parse([str(tmp_path / "a=b")]).merged == tmp_path / "a=b"
    assert Adapters.parse(["./x=y"]).merged is not None and Adapters.parse([]) == Adapters()


@pytest.mark.parametrize("texts, sentence", [(["a=x", "a=y"], "has the name a"), (["x", "y"], "merged into the base"),
                                             (["x", "a=y"], "merged into the base"), (["=x"], "must be NAME=PATH"),
                                             (["a="], "must be NAME=PATH")], ids=str)
def test_options_that_contradict_each_other(texts, sentence):
    with pytest.raises(UserError, match=sentence):
        Adapters.parse(texts)


@pytest.mark.parametrize("name, adapter, sentence", [
    ("base", "law", "a model has this name"), ("x", "foreign", "which this model has not"), ("x", "nowhere", "holds no")],
    ids=["taken", "foreign", "nowhere"])
def test_serve_says_before_it_reads_weights_what_is_wrong(name, adapter, sentence, folder, tmp_path, monkeypatch):
    monkeypatch.setattr("spoutnik.commands.application.load_llm", lambda *_: pytest.fail("the model was read"))
    given = f"{name}={folder / 'adapters' / adapter}"
    result = CliRunner().invoke(commands, ["serve", str(folder / "base"), "--adapter", given, "--data", str(tmp_path)])
    assert result.exit_code != 0 and sentence in str(result.exception) + result.output


def test_chat_talks_to_an_adapter_beside_its_base(folder, tmp_path):
    def reply(*options: str) -> str:
        result = CliRunner().invoke(commands, ["chat", str(folder / "base"), "--prompt", "what is 12 + 30?", "--json", "--data",
                                               str(tmp_path), "--temperature", "0", "--max-tokens", "16", *options])
        assert result.exit_code == 0, result.output
        return result.stdout

    law = folder / "adapters" / "law"
    assert reply("--adapter", f"law={law}") == reply("--adapter", str(law)) != reply()
