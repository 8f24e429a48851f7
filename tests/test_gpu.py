"""A GPU computes what the processor computes: sampling, gradients, whole recipes. Run there by `pytest -m cuda`."""

import copy
from pathlib import Path

import pytest
import tiny
import torch

from spoutnik.commands.progress import SilentDisplay
from spoutnik.engine.llm import LLM
from spoutnik.engine.llm_checks import device_of
from spoutnik.engine.sampling_params import SamplingParams
from spoutnik.errors import UserError
from spoutnik.files import read_jsonl
from spoutnik.hardware import compute_device, compute_dtype
from spoutnik.recipe.run import run_recipe
from spoutnik.recipe.schema import load_recipe
from spoutnik.train.batches import Document
from spoutnik.train.grpo import GRPOSettings, Rollouts, policy_batches, policy_gradient
from spoutnik.train.language_model import language_model_gradient
from spoutnik.train.settings import LanguageModelSettings

SETTINGS = LanguageModelSettings(learning_rate=1e-3, optimizer="adamw", micro_batch_tokens=64)
PROMPTS = [tiny.tokens(length, seed=length).tolist() for length in (5, 9, 17)]


@pytest.fixture(params=["deepseek_v3", "qwen2"])
def pair(request, gpu):
    """The same model on the processor and on the GPU."""
    model = tiny.model(tiny.ALL[request.param])
    return model, copy.deepcopy(model).to(gpu)


@pytest.mark.cuda
def test_samples_are_the_processors(pair):
    params = SamplingParams(n=2, temperature=0.7, max_tokens=12)
    engines = [LLM(model, eos_token_ids=[]) for model in pair]
    here, there = ([output.outputs for output in engine.generate(PROMPTS, params, seed=3)] for engine in engines)
    for group, other in zip(here, there):
        assert [c.token_ids for c in group] == [c.token_ids for c in other]
        for a, b in zip(group, other):
            torch.testing.assert_close(torch.tensor(a.logprobs), torch.tensor(b.logprobs), atol=1e-3, rtol=1e-3)


@pytest.mark.cuda
def test_gradients_of_documents_are_the_processors(pair):
    documents = [Document(tiny.tokens(length, seed=length).tolist(), 3) for length in (12, 30, 45, 7)]
    here, there = (language_model_gradient(model, documents, list(model.parameters()), SETTINGS)[0] for model in pair)
    assert here.metrics == pytest.approx(there.metrics, rel=1e-4)
    for a, b in zip(here.gradients, there.gradients):
        torch.testing.assert_close(a, b.cpu(), atol=1e-5, rtol=1e-3)


@pytest.mark.cuda
def test_gradients_of_rollouts_are_the_processors(pair):
    settings = GRPOSettings(steps=1, learning_rate=1e-3, group_size=4, max_tokens=10, micro_batch_tokens=96)
    params = SamplingParams(n=4, temperature=1.0, top_p=1.0, max_tokens=10)
    groups = [output.outputs for output in LLM(pair[0], eos_token_ids=[]).generate(PROMPTS, params, seed=3)]
    rewards = torch.tensor([[float(sum(c.token_ids) % 2) for c in group] for group in groups])
    gradients = []
    for model in pair:
        batches, _ = policy_batches(Rollouts(PROMPTS, groups, rewards, {}), settings, device=model.device)
        gradients.append(policy_gradient(model, batches, [p for p in model.parameters()], settings))
    here, there = gradients
    assert here.metrics == pytest.approx(there.metrics, rel=1e-3, abs=1e-6) and there.metrics["mismatch_kl"] < 1e-6
    for a, b in zip(here.gradients, there.gradients):
        torch.testing.assert_close(a, b.cpu(), atol=1e-5, rtol=1e-3)


@pytest.mark.cuda
def test_a_recipe_runs_there_and_says_so(gpu, tmp_path):
    text = (Path(__file__).parent / "recipe" / "tiny.yaml").read_text()
    recipe = tmp_path / "tiny.yaml"
    recipe.write_text(text.replace("dtype: float32", f"dtype: float32\ndevice: {gpu}"))
    result = run_recipe(recipe, tmp_path / "out", SilentDisplay(), until="reasoning_rl")
    machine = result.artifacts[-1].manifest["machine"]
    assert ("gpu" in machine) == (gpu.type == "cuda")
    rows = read_jsonl(result.artifacts[-1].folder / "log.jsonl")
    assert all(row["mismatch_kl"] < 1e-4 for row in rows)


def test_a_device_that_is_not_there_is_refused():
    with pytest.raises(UserError, match=r"recipe\.yaml: device 'cuda:99': torch sees \d+ GPUs here"):
        compute_device("cuda:99", "recipe.yaml: ")
    with pytest.raises(UserError, match="'gpu': is no device. Write auto, cpu, cuda"):
        compute_device("gpu")
    with pytest.raises(UserError, match="'meta': Spoutnik computes on cpu and cuda"):
        compute_device("meta")


def test_auto_is_the_gpu_but_for_packed_weights(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    assert device_of("auto", None).type == "cuda" and device_of("auto", "int8").type == device_of(None, None).type == "cpu"
    assert compute_dtype("auto", torch.device("cuda")) == torch.float32  # Turing emulates bfloat16
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    assert compute_dtype("auto", torch.device("cuda")) == torch.bfloat16


def test_a_recipe_on_the_processor_computes_in_the_processors_type(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr("spoutnik.hardware._processor_multiplies_bfloat16", lambda: False)
    recipe = load_recipe(Path(__file__).parent / "recipe" / "tiny.yaml").model_copy(update={"dtype": "auto"})
    assert recipe.computes_in() == torch.bfloat16
    assert recipe.model_copy(update={"device": "cpu"}).computes_in() == torch.float32
