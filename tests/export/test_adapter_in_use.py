"""`--adapter` of eval and serve: what is asked is the sum, as in a merged folder."""

import asyncio
import json

import pytest
import tiny

from spoutnik.commands.main import app
from spoutnik.export.writer import export
from spoutnik.generation.catalog import EngineOptions, list_models, load_llm
from spoutnik.generation.service import GenerationService


@pytest.fixture(scope="module")
def folders(adapter_of, tmp_path_factory):
    """A base, its adapter, and the folder of their sum."""
    folder, path, _ = adapter_of(tiny.QWEN | {"max_position_embeddings": 512}, 0.3)
    merged = tmp_path_factory.mktemp("merged") / "out"
    export(folder, "merged", merged, "f32", adapter=path)
    return folder, path, merged


def test_eval_with_an_adapter_asks_the_merged_model(folders, tmp_path):
    folder, path, merged = folders
    file = tmp_path / "test.jsonl"
    file.write_text("".join(json.dumps({"question": f"{n} and one?", "answer": f"#### {n + 1}"}) + "\n" for n in range(3)))
    replies = []
    for name, model, options in (("beside", folder, ("--adapter", path)), ("merged", merged, ()), ("base", folder, ())):
        asked = ["eval", model, *options, "--bench", "gsm8k", "--data", file, "--samples", 1, "--temperature", 1,
                 "--max-tokens", 12, "--out", tmp_path / name, "--json"]
        app([str(argument) for argument in asked], standalone_mode=False)
        rows = [json.loads(line) for line in (tmp_path / name / "gsm8k" / "samples.jsonl").read_text().splitlines()]
        replies.append([(row["thought"], row["answer"]) for row in rows])
    assert len(replies[0]) == 3 and replies[0] == replies[1] != replies[2]


def test_a_server_with_an_adapter_answers_as_the_merged_model(folders, api):
    folder, path, merged = folders

    async def ask(model, adapter):
        service = GenerationService(list_models(str(model)), lambda served: load_llm(served, EngineOptions(adapter=adapter)))
        async with api(service) as client:
            reply = await client.post("/v1/chat/completions", json={
                "model": model.name, "messages": [{"role": "user", "content": "12 + 30"}], "temperature": 0, "max_tokens": 12})
        message = reply.json()["choices"][0]["message"]
        return message["content"], message.get("reasoning_content")

    beside, summed, alone = (asyncio.run(ask(*pair)) for pair in ((folder, path), (merged, None), (folder, None)))
    assert beside == summed != alone
