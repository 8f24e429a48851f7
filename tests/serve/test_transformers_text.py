"""Texts and log-probabilities of plain prompts are transformers', for tokenizers of every kind: whole, streamed, over HTTP."""

import asyncio
import json

import httpx
import pytest
import tokenizer_kinds
import torch
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from spoutnik.engine.llm import LLM
from spoutnik.engine.sampling_params import SamplingParams
from spoutnik.generation.service import GenerationService, ServedModel
from spoutnik.serve.app import make_app
from spoutnik.serve.settings import Settings
from spoutnik.text.tokenizer import Tokenizer

PROMPTS = ["Once upon a", "the time", " two cats", "naïve 猫\n", "x"]
GREEDY = SamplingParams(temperature=0, max_tokens=24, logprobs=2)


class Oracle:
    """transformers' model and tokenizer of a folder."""

    def __init__(self, folder):
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.model = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32)

    def __call__(self, prompt):
        """(what the reply adds to the prompt's text, its log-probabilities)"""
        ids = self.tokenizer(prompt, return_tensors="pt")["input_ids"]
        output = self.model.generate(ids, do_sample=False, max_new_tokens=24, output_logits=True, return_dict_in_generate=True)
        whole = output.sequences[0].tolist()
        start = self.tokenizer.decode(ids[0], skip_special_tokens=True)
        text = self.tokenizer.decode(whole, skip_special_tokens=True)
        assert text.startswith(start)
        logprobs = [logits[0].log_softmax(-1)[token].item() for logits, token in zip(output.logits, whole[len(ids[0]):])]
        return text[len(start):], logprobs


@pytest.fixture(scope="module", params=list(tokenizer_kinds.KINDS))
def folder(request, tmp_path_factory):
    folder = tokenizer_kinds.write(request.param, tmp_path_factory.mktemp(request.param))
    eos = Tokenizer.load(folder).eos_id
    torch.manual_seed(3)
    config = LlamaConfig(vocab_size=450, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
                         num_key_value_heads=2, max_position_embeddings=128, initializer_range=0.3, eos_token_id=eos,
                         bos_token_id=3 - eos)
    model = LlamaForCausalLM(config)
    model.generation_config.eos_token_id = eos
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def expected(folder):
    oracle = Oracle(folder)
    return [oracle(prompt) for prompt in PROMPTS]


@pytest.fixture(scope="module")
def llm(folder):
    return LLM(folder, dtype="float32", memory="64MB")


def test_greedy_text_and_log_probabilities(llm, expected):
    for output, (text, logprobs) in zip(llm.generate(PROMPTS, GREEDY), expected):
        assert output.outputs[0].text == text
        assert output.outputs[0].logprobs == pytest.approx(logprobs, abs=2e-5)


def test_a_stream_adds_up_to_it(llm, expected):
    for prompt, (text, _) in zip(PROMPTS, expected):
        assert "".join(piece.text for part in llm.stream(prompt, GREEDY) for piece in part.outputs) == text


def test_a_stop_text_ends_it_where_it_stands(llm, expected):
    for prompt, (text, _) in zip(PROMPTS, expected):
        stop = text[len(text) // 2:][:2]
        if "\ufffd" in stop or not stop:
            continue
        output, = llm.generate(prompt, SamplingParams(temperature=0, max_tokens=24, stop=stop))
        assert output.outputs[0].text == text[:text.index(stop)] and output.outputs[0].stop_reason == stop


def test_completions_give_it_too(llm, folder, expected):
    service = GenerationService([ServedModel("m", folder, llm.tokenizer, 128)], load=lambda served: llm)
    app = make_app(service, Settings(shutdown_seconds=0.0))

    async def work():
        async with app.router.lifespan_context(app), httpx.AsyncClient(
                transport=httpx.ASGITransport(app), base_url="http://test", timeout=60) as client:
            for prompt, (text, logprobs) in zip(PROMPTS, expected):
                await check(client, prompt, text, logprobs)

    asyncio.run(work())


async def check(client, prompt, text, logprobs):
    body = {"prompt": prompt, "temperature": 0, "max_tokens": 24, "logprobs": 1}
    choice = (await client.post("/v1/completions", json=body)).json()["choices"][0]
    assert choice["text"] == text and choice["logprobs"]["token_logprobs"] == pytest.approx(logprobs, abs=2e-5)
    tokens = [token for token in choice["logprobs"]["tokens"] if token not in ("<s>", "</s>", "<unk>")]
    if not any(token.startswith("bytes:") for token in tokens):
        assert "".join(tokens) == text
    whole = (await client.post("/v1/completions", json=body | {"echo": True})).json()["choices"][0]
    assert whole["text"] == prompt + text
    first = next(token for token in whole["logprobs"]["tokens"] if token not in ("<s>", "<unk>"))
    assert prompt.startswith(first) or not prompt.isascii()
    lines = (await client.post("/v1/completions", json=body | {"stream": True})).text.splitlines()
    events = [json.loads(line[6:]) for line in lines if line.startswith("data: {")]
    assert "".join(choice["text"] for event in events for choice in event["choices"]) == text
