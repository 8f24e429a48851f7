"""A base in 8 or 4 bits under adapters: loss and gradients are those of the dequantized weights, which are nowhere at once."""

import pytest
import tiny
import torch
from packed_reference import unpack

from spoutnik.engine.quantization.packed_base import PackedLinear, pack_base, rounding
from spoutnik.engine.quantization.packed_matrix import pack, unpack_rows
from spoutnik.model.adapter_file import base_hash
from spoutnik.model.lora import LoraConfig, adaptable, adapters_of, add_lora, merged_copy
from spoutnik.native import library
from spoutnik.train.batches import Document
from spoutnik.train.language_model import language_model_gradient
from spoutnik.train.sft import SFTSettings

pytestmark = pytest.mark.skipif(library() is None, reason="no compiler here: recipes refuse a packed base")
KINDS = ["int8", "int4"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("out, inputs", [(48, 32), (130, 70), (7, 33)])
def test_unpacked_rows_are_those_of_the_reference(kind, out, inputs):
    packed = pack([torch.randn(out, inputs), 3 * torch.randn(out, inputs)], kind)
    for number in range(2):
        assert torch.equal(unpack_rows(packed, 0, out, number), unpack(packed)[number])
    if out > 64:
        assert torch.equal(unpack_rows(packed, 64, out), unpack(packed)[0][64:])


def pair(base, kind):
    """The model packed, and its twin with the dequantized weights whole; the same adapters in both."""
    models = []
    for _ in range(2):
        model = tiny.model(base)
        if models:
            for name, module in adaptable(models[0]).items():
                model.get_submodule(name).weight.data = module.weight
        else:
            pack_base(model, kind)
        add_lora(model, LoraConfig(4, 8.0, 0.1), torch.Generator().manual_seed(0))
        for part in adapters_of(model).values():
            torch.nn.init.normal_(part.lora_B, 0, 0.05, generator=torch.Generator().manual_seed(1))
        models.append(model)
    return models


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("base", [tiny.QWEN, tiny.DEEPSEEK], ids=["qwen2", "deepseek_v3"])
def test_loss_and_gradients_are_those_of_the_whole_dequantized_weights(base, kind):
    packed, whole = pair(base, kind)
    documents = [Document(tiny.tokens(length, seed=length).tolist(), 1) for length in (40, 12, 60)]
    settings = SFTSettings(learning_rate=0.01)
    ours, theirs = (language_model_gradient(model, documents, [p for p in model.parameters() if p.requires_grad], settings)[0]
                    for model in (packed, whole))
    assert ours.metrics["loss"] == pytest.approx(theirs.metrics["loss"], rel=1e-6)
    assert any(float(gradient.abs().max()) > 1e-4 for gradient in ours.gradients)
    for a, b in zip(ours.gradients, theirs.gradients, strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-4)


def test_the_sum_and_the_hash_are_those_of_the_packed_and_the_stored_base():
    packed, whole = pair(tiny.QWEN, "int4")
    ids = tiny.tokens(1, 20)
    torch.testing.assert_close(merged_copy(packed)(ids), merged_copy(whole)(ids))
    assert base_hash(packed, adapters_of(packed)) == base_hash(tiny.model(tiny.QWEN), adapters_of(packed))
    assert base_hash(packed, adapters_of(packed)) != base_hash(whole, adapters_of(packed))


def test_frozen_weights_lie_in_their_packed_bytes_alone():
    model = pack_base(tiny.model(tiny.QWEN, hidden_size=128, intermediate_size=256, num_attention_heads=4), "int4")
    module = model.layers[0].mlp.down_proj
    assert isinstance(module, PackedLinear) and module.packed.nbytes < 0.65 * module.in_features * module.out_features
    assert not any(name.endswith("_proj.weight") for name in model.state_dict())
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_how_far_the_rounding_is_in_lengths_of_the_adapter():
    model = tiny.model(tiny.QWEN)
    stored = {name: module.weight.detach().clone() for name, module in adaptable(model).items()}
    add_lora(pack_base(model, "int4"), LoraConfig(4, 8.0, target_modules=("q_proj",)), torch.Generator().manual_seed(0))
    assert rounding(model) == 0  # nothing is added yet
    for part in adapters_of(model).values():
        torch.nn.init.normal_(part.lora_B, 0, 0.05, generator=torch.Generator().manual_seed(1))
    names = [name for name in stored if name.endswith("q_proj")]
    error = sum(float((model.get_submodule(name).weight - stored[name]).square().sum()) for name in names)
    delta = sum(float(part.delta().square().sum()) for part in adapters_of(model).values())
    assert rounding(model) == pytest.approx((error / delta) ** 0.5, rel=1e-4)
