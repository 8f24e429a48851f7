"""Rollout routing replay (R3, arXiv 2510.11370): training sends each token to the experts that the sampler chose for it.

A sampler that computes in another precision or with other kernels than the trainer chooses other experts for some tokens (vLLM
against FSDP: about a tenth of all choices, and nearly every token in some layer), and then the two are different policies. With
its choices replayed the network is the same, its weights are the trainer's, and the gradient reaches the router through the
chosen experts' scores. How often the trainer would have chosen otherwise is counted.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from spoutnik.errors import RunError
from spoutnik.model.moe import RouterTrace
from spoutnik.model.transformer import Transformer
from spoutnik.train.batches import PackedBatch

UNKNOWN = -1


def router_names(model: Transformer) -> list[str]:
    """Of the layers that have routed experts, in their order; the MTP module's left out, which no sampler's tokens pass."""
    return [f"layers.{layer}" for layer in range(model.config.num_hidden_layers) if model.config.is_moe_layer(layer)]


def document_routes(routes: Tensor, tokens: int, layers: int) -> Tensor:
    """A sampler's record (n, layers, K) of the first n tokens of a prompt with its completion, to (tokens, layers, K): the last
    token was never computed, and what is not known is UNKNOWN.

    Raises:
        RunError: the record is of another model.
    """
    n = len(routes)
    if routes.dim() != 3 or n > tokens or routes.shape[1] != layers:
        raise RunError(f"the sampler's record of experts has the shape {tuple(routes.shape)}, and of {tokens} tokens of this "
                       f"model it is ({tokens} at most, {layers} layers, experts). Sample with the model that is trained.")
    return torch.cat([routes.long(), routes.new_full((tokens - n, *routes.shape[1:]), UNKNOWN, dtype=torch.long)])


def stream_routes(routes: Sequence[Tensor], batch: PackedBatch, names: Sequence[str]) -> dict[str, Tensor]:
    """What each router of a packed batch is to replay, (T, K), of its documents' routes (tokens, layers, K) in their order."""
    padding = routes[0].new_full((batch.sequences.padding, *routes[0].shape[1:]), UNKNOWN)
    stream = torch.cat([*(routes[document] for document in batch.documents), padding])
    return {name: stream[:, layer] for layer, name in enumerate(names)}


def known_tokens(replayed: dict[str, Tensor]) -> int:
    """Tokens whose experts the sampler told."""
    first = next(iter(replayed.values()), None)
    return 0 if first is None else int((first >= 0).all(-1).sum())


def difference_metrics(trace: RouterTrace, known: int) -> dict[str, float]:
    """Of all known choices of a step: the share of (token, layer) in which the trainer's router would have chosen otherwise,
    and the share of tokens with such a layer. Summed over micro-batches."""
    if not trace.differing or not known:
        return {}
    differing = torch.stack([trace.differing[name] for name in trace.replayed])
    return {"routes_differ": float(differing.sum()) / (known * len(differing)),
            "tokens_differ": float(differing.any(0).sum()) / known}
