"""What is asked of vLLM, by a stand-in with the interface of its documentation: weights under published names, one request a
prompt, the engine stepped. That vLLM itself answers so is not shown here."""

import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import pytest
import tiny
import torch

from spoutnik.engine.sampling_params import SamplingParams
from spoutnik.errors import RunError
from spoutnik.model.lora import LoraConfig, add_lora, merged_copy
from spoutnik.model.weights import published_tensors
from spoutnik.scale.policy import Policy, policy_tensors
from spoutnik.scale.rollout_worker import RolloutWorker, Work
from spoutnik.scale.vllm_engine import LoadsPolicy
from spoutnik.scale.weight_updates import Snapshot


class Model:
    def __init__(self):
        self.loaded = {}

    def load_weights(self, weights):
        self.loaded = dict(weights)


@dataclass
class Engine:
    """Answers in another order than it is asked, after some steps."""

    waiting: dict = field(default_factory=dict)
    steps: int = 0

    def add_request(self, request_id, prompt, params):
        self.waiting[request_id] = prompt["prompt_token_ids"], params

    def has_unfinished_requests(self):
        return bool(self.waiting)

    def step(self):
        self.steps += 1
        if self.steps % 2:
            return []
        request_id, (prompt, params) = self.waiting.popitem()
        outputs = [SimpleNamespace(index=i, token_ids=(prompt[0] + i, params.seed % 7), finish_reason="stop",
                                   logprobs=[{prompt[0] + i: SimpleNamespace(logprob=-0.5)},
                                             {params.seed % 7: SimpleNamespace(logprob=-1.0)}]) for i in range(params.n)]
        return [SimpleNamespace(request_id=request_id, outputs=outputs[::-1], finished=True)]


class LLM:
    made = []

    def __init__(self, model, **options):
        self.config, self.options = (Path(model) / "config.json").read_text(), options
        self.llm_engine, self.reset = Engine(), 0
        self.worker = SimpleNamespace(model_runner=SimpleNamespace(model=Model()))
        LLM.made.append(self)

    def collective_rpc(self, method, args):
        assert self.options["worker_extension_cls"] == "spoutnik.scale.vllm_engine.LoadsPolicy"
        getattr(LoadsPolicy, method)(self.worker, *args)

    def reset_prefix_cache(self):
        self.reset += 1


@pytest.fixture
def vllm(monkeypatch):
    LLM.made.clear()
    kinds = SimpleNamespace(RequestOutputKind=SimpleNamespace(FINAL_ONLY="final"))
    fake = SimpleNamespace(LLM=LLM, SamplingParams=SimpleNamespace, sampling_params=kinds)
    monkeypatch.setitem(sys.modules, "vllm", fake)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # which a worker sets


@pytest.mark.parametrize(["kind", "adapter"], [("deepseek_v3", None), ("qwen2", LoraConfig(2, 4.0))])
def test_vllm_gets_the_published_tensors_and_its_answers_come_in_our_order(vllm, kind, adapter, tmp_path):
    model = tiny.model(tiny.ALL[kind])
    if adapter is not None:
        add_lora(model, adapter, torch.Generator().manual_seed(0))
    worker = RolloutWorker(Policy.of(model, [1], "v"), "vllm", 1, 2, 60.0, tmp_path / "stacks")
    worker.update(Snapshot.of(0, policy_tensors(model)).whole())
    params = SamplingParams(n=2, temperature=1.0, top_p=1.0, max_tokens=4)
    sampled = worker.sample(Work(0, "v", [[5, 6], [9], [7]], params, 3, [4, 1, 2]))
    assert [[c.token_ids[0] for c in group] for group in sampled.groups] == [[5, 6], [9, 10], [7, 8]]
    first = sampled.groups[0][0]
    assert first.logprobs == [-0.5, -1.0] and first.finished
    llm, = LLM.made
    assert llm.options["tensor_parallel_size"] == 2 and llm.reset == 1
    merged = model if adapter is None else merged_copy(model, model.compute_dtype)
    expected = {name: tensor for name, tensor in published_tensors(merged)
                if adapter is not None or f".layers.{model.config.num_hidden_layers}." not in name}
    loaded = llm.worker.model_runner.model.loaded
    assert loaded.keys() == expected.keys()
    assert all(torch.equal(loaded[name], expected[name]) for name in expected)


def test_without_vllm_a_sentence_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "vllm", None)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    model = tiny.model(tiny.QWEN)
    with pytest.raises(RunError, match=r"vllm is not installed on a worker's machine. .*pip install 'spoutnik\[vllm\]'"):
        RolloutWorker(Policy.of(model, [1], "v"), "vllm", 1, 1, 60.0, tmp_path / "stacks")
