"""Adapters of routed experts: what they compute, their gradients, and their form on disk."""

import json

import pytest
import tiny
import torch
from safetensors.torch import load_file, save_file
from torch.func import functional_call

from spoutnik.errors import UserError
from spoutnik.model.adapter_file import Adapter, attach_adapter, base_hash, read_adapter, write_adapter
from spoutnik.model.adapter_merge import survival
from spoutnik.model.expert_lora import ExpertsLowRank
from spoutnik.model.lora import LoraConfig, adapters_of, add_lora, merged_copy

CONFIG = LoraConfig(4, 8.0, target_modules=("o_proj",), experts=True)


@pytest.fixture
def model():
    """With an adapter of attention's outputs and of each routed expert, B not zero."""
    adapted = add_lora(tiny.model(tiny.DEEPSEEK), CONFIG, torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(1)
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, 0, 0.1, generator=generator)
    return adapted


def test_a_new_adapter_changes_nothing():
    ids = tiny.tokens(1, 30)
    before = tiny.model(tiny.DEEPSEEK)(ids)
    assert torch.equal(add_lora(tiny.model(tiny.DEEPSEEK), CONFIG, torch.Generator().manual_seed(0))(ids), before)


def test_logits_and_gradients_are_those_of_the_sums(model):
    """The twin has W + scale * B A in its weights, as functions of A and B."""
    plain, ids, summed, trained = tiny.model(tiny.DEEPSEEK), tiny.tokens(1, 30), {}, {}
    for name, module in model.named_modules():
        if not isinstance(module, ExpertsLowRank):
            continue
        pairs = {(kind, projection): value for kind, values in (("A", module.lora_A), ("B", module.lora_B))
                 for projection, value in values.items()}
        trained |= {(name, *key): value for key, value in pairs.items()}
        delta = {p: 2.0 * pairs["B", p] @ pairs["A", p] for p in ("gate_proj", "up_proj", "down_proj")}
        owner = name.removesuffix(".adapter")
        summed[f"{owner}.gate_up_proj"] = (plain.get_parameter(f"{owner}.gate_up_proj")
                                           + torch.cat([delta["gate_proj"], delta["up_proj"]], dim=1))
        summed[f"{owner}.down_proj"] = plain.get_parameter(f"{owner}.down_proj") + delta["down_proj"]
    for name, part in ((name, part) for name, part in adapters_of(model).items() if name.endswith("o_proj")):
        summed[f"{name}.weight"] = part.merged(plain.get_parameter(f"{name}.weight")).detach()
    theirs, ours = functional_call(plain, summed, (ids,)), model(ids)
    assert (ours - tiny.model(tiny.DEEPSEEK)(ids)).abs().max() > 0.1
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)
    for a, b in zip(*(torch.autograd.grad(logits.square().mean(), list(trained.values())) for logits in (ours, theirs))):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-3)
    torch.testing.assert_close(merged_copy(model)(ids), theirs, atol=1e-4, rtol=1e-4)
    assert survival(model, torch.float32).share == pytest.approx(1, abs=1e-4)


def test_files_have_peft_s_names_of_experts_as_modules_and_come_back(model, tmp_path):
    parts = adapters_of(model)
    write_adapter(tmp_path / "a", Adapter(parts, "base", base_hash(model, parts)))
    tensors = load_file(tmp_path / "a" / "adapter_model.safetensors")
    prefix = "base_model.model.model.layers.2.mlp.experts.7."
    assert {name: tuple(tensor.shape) for name, tensor in tensors.items() if name.startswith(prefix)} == {
        f"{prefix}{projection}.lora_{kind}.weight": shape for projection, (inputs, outputs) in
        {"gate_proj": (32, 16), "up_proj": (32, 16), "down_proj": (16, 32)}.items()
        for kind, shape in (("A", (4, inputs)), ("B", (outputs, 4)))}
    config = json.loads((tmp_path / "a" / "adapter_config.json").read_text())
    assert config["target_modules"] == ["down_proj", "gate_proj", "o_proj", "up_proj"]
    back = attach_adapter(tiny.model(tiny.DEEPSEEK), read_adapter(tmp_path / "a"), tmp_path / "a")
    assert torch.equal(back(tiny.tokens(1, 30)), model(tiny.tokens(1, 30)))


def test_stacked_experts_are_refused_by_name(model, tmp_path):
    parts = adapters_of(model)
    write_adapter(tmp_path / "a", Adapter(parts, "base"))
    file = tmp_path / "a" / "adapter_model.safetensors"
    save_file(load_file(file) | {"base_model.model.model.layers.1.mlp.experts.lora_A.weight": torch.zeros(32, 32)}, file)
    with pytest.raises(UserError, match="routed experts, stacked"):
        read_adapter(tmp_path / "a")
