"""A tiny model whose weights are a formula, and preferences of a few tokens: the same numbers under every version of torch.
`benchmarks/preference_parity.py` records what TRL computes of them, and tests compute it again."""

from collections.abc import Mapping

import torch

from spoutnik.model.config import ModelConfig
from spoutnik.model.lora import adapters_of
from spoutnik.model.transformer import Transformer
from spoutnik.train.batches import Document
from spoutnik.train.preferences import Pair, Thumb

CONFIG = {"model_type": "llama", "vocab_size": 320, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2,
          "num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 64}
CASES = {"DPO": {"beta": 0.3}, "DPO with NLL": {"beta": 0.1, "nll_weight": 0.5},
         "KTO": {"beta": 0.3, "desirable_weight": 1.0, "undesirable_weight": 1.5}}
METRICS = ("loss", "chosen_reward", "rejected_reward", "margin", "kl")


def _filled(count: int, phase: float) -> torch.Tensor:
    return torch.sin(torch.arange(count, dtype=torch.float64) * 0.7 + phase).float()


def model(variant: int) -> Transformer:
    """Variant -1 is variant 0 after some training, as it were: replies to other prompts are likelier under it."""
    network = Transformer(ModelConfig.parse(CONFIG, "formula"))
    with torch.no_grad():
        for number, parameter in enumerate(network.parameters()):
            values = _filled(parameter.numel(), number).view_as(parameter) * 0.3 + (parameter.dim() == 1)
            parameter.copy_(values + 0.02 * variant * _filled(parameter.numel(), 100 + number).view_as(parameter))
    return network


def fill_adapters(network: Transformer) -> None:
    """Values in place of the drawn and the zero ones."""
    with torch.no_grad():
        for number, part in enumerate(adapters_of(network).values()):
            for k, parameter in enumerate(part.parameters()):
                parameter.copy_(0.1 * _filled(parameter.numel(), 200 + 2 * number + k).view_as(parameter))


def document(prompt: int, reply: int, length: int) -> Document:
    """Tokens that follow from two numbers."""
    ids = [5 + 7 * prompt + 3 * i for i in range(3 + prompt)]
    return Document([*ids, *((11 * reply + 13 * i) % 300 + 2 for i in range(length))], loss_from=len(ids))


def pairs() -> list[Pair]:
    return [Pair(document(0, 1, 3), document(0, 2, 6)), Pair(document(1, 3, 4), document(1, 4, 2)),
            Pair(document(2, 5, 1), document(2, 6, 5))]


def thumbs() -> list[Thumb]:
    return [Thumb(document(0, 1, 3), True), Thumb(document(1, 2, 6), False), Thumb(document(2, 3, 4), True),
            Thumb(document(3, 4, 2), False), Thumb(document(4, 5, 5), False)]


def numbers(metrics: Mapping[str, float], gradients: Mapping[str, torch.Tensor]) -> dict:
    """What is compared: metrics, and of every gradient its length and its sum with the formula's weights."""
    chosen = {}
    for name, gradient in sorted(gradients.items()):
        chosen[f"{name} length"] = float(gradient.double().norm())
        chosen[f"{name} sum"] = float((gradient.double().flatten() * _filled(gradient.numel(), 0.0).double()).sum())
    return {key: metrics[key] for key in METRICS if key in metrics} | {"gradient": chosen}
