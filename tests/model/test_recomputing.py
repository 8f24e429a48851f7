"""Gradient checkpointing: the same bits of loss, gradients and routing, and less kept in memory."""

import pytest
import tiny
import torch

from spoutnik.model.adapter_switches import dropout_from
from spoutnik.model.lora import LoraConfig, add_lora
from spoutnik.model.moe import RouterTrace
from spoutnik.train.batches import Document, pack_documents


def step(model, checkpointing):
    """Loss, gradients, loads, balance losses and the bytes that the layers' autograd kept."""
    model.gradient_checkpointing = checkpointing
    batch = pack_documents([Document(tiny.tokens(length, seed=length).tolist(), 1) for length in (40, 12, 60)], [0, 1, 2])
    trace, kept = RouterTrace(True), {}

    def keep(tensor):
        kept[tensor.data_ptr()] = tensor.nbytes
        return tensor

    weights = {parameter.data_ptr() for parameter in model.parameters()}
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        with dropout_from(torch.Generator().manual_seed(3)):
            hidden = model.hidden(batch.input_ids, batch.sequences, trace)
        balance = torch.stack(trace.balance_losses).sum() if trace.balance_losses else 0
        loss = hidden.float().square().mean() + balance
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
    loads = {name: load.tolist() for name, load in trace.loads.items()}
    return float(loss.detach()), gradients, loads, sum(size for address, size in kept.items() if address not in weights)


@pytest.mark.parametrize("base, adapter", [(tiny.DEEPSEEK, None), (tiny.DEEPSEEK, LoraConfig(4, 8.0, 0.2)),
                                           (tiny.QWEN, LoraConfig(4, 8.0, 0.2, use_dora=True))],
                         ids=["experts", "experts with dropout", "dense with dropout"])
def test_recomputed_layers_give_the_same_bits_and_keep_less(base, adapter):
    model = tiny.model(base)
    if adapter is not None:
        add_lora(model, adapter, torch.Generator().manual_seed(0))
    plain, again = step(model, False), step(model, True)
    assert plain[0] == again[0] and plain[2] == again[2]
    assert [g is None for g in plain[1]] == [g is None for g in again[1]] and any(g is not None for g in plain[1])
    assert all(torch.equal(a, b) for a, b in zip(plain[1], again[1]) if a is not None)
    assert again[3] < plain[3] / 4
