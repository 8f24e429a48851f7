"""A frozen base in 8 or 4 bits under trained adapters (QLoRA, Dettmers et al. 2023): the linear maps inside the network hold
packed weights, and products read them dequantized, a block of rows at a time, in both directions.

What is trained so is an adapter beside the rounded weights. Beside the unrounded ones it is another model: `PackedLinear.error`
says how far the two are apart.
"""

import torch
from torch import Tensor

from spoutnik.engine.quantization.packed_matrix import PackedMatrices, pack, panel_outputs, unpack_rows
from spoutnik.model.adapter_switches import are_off
from spoutnik.model.layers import Linear, linear, linear_plus
from spoutnik.model.lora import LowRank, adaptable
from spoutnik.model.transformer import Transformer
from spoutnik.native.structs import GROUP_SIZE

_BLOCK = 1 << 20  # numbers that are dequantized at a time: 4 MB in each thread


class _Product(torch.autograd.Function):
    """x (T, in) times a packed matrix transposed, plus addend (T, out) if there is one: (T, out), in the type of x. Twins:
    `linear` and `linear_plus` with the whole weight."""

    @staticmethod
    def forward(ctx, x: Tensor, packed: PackedMatrices, addend: Tensor | None) -> Tensor:
        ctx.packed, ctx.adds = packed, addend is not None
        y = x.new_empty(len(x), packed.out_features)
        for first, last in blocks(packed):
            weight = unpack_rows(packed, first, last)
            y[:, first:last] = linear(x, weight) if addend is None else linear_plus(x, weight, addend[:, first:last])
        return y

    @staticmethod
    def backward(ctx, grad: Tensor):
        packed = ctx.packed
        x_grad = grad.new_zeros(len(grad), packed.in_features)
        for first, last in blocks(packed):
            x_grad.addmm_(grad[:, first:last], unpack_rows(packed, first, last).to(grad.dtype))
        return x_grad, None, grad if ctx.adds else None


def blocks(packed: PackedMatrices) -> list[tuple[int, int]]:
    """The outputs in ranges of whole panels."""
    width = panel_outputs()
    step = max(1, _BLOCK // (packed.in_features * width)) * width
    return [(first, min(first + step, packed.out_features)) for first in range(0, packed.out_features, step)]


class PackedLinear(Linear):
    """A linear map with a frozen weight in 8 or 4 bits. error: |packed - stored|^2, the sum over the weight."""

    is_packed = True

    def __init__(self, module: Linear, kind: str):
        torch.nn.Module.__init__(self)
        self.in_features, self.out_features = module.in_features, module.out_features
        self.bias, self.adapter = module.bias, None
        stored = module.weight.detach()
        self._first_row = stored[0].clone()
        self.packed = pack([stored], kind)
        self.error = sum(float((unpack_rows(self.packed, first, last) - stored[first:last].float()).square().sum())
                         for first, last in blocks(self.packed))

    @property
    def weight(self) -> Tensor:
        """(out, in), float32: dequantized at each use."""
        return unpack_rows(self.packed, 0, self.out_features)

    def first_row(self) -> Tensor:
        return self._first_row

    def forward(self, x: Tensor) -> Tensor:
        rows = x.reshape(-1, x.shape[-1])
        assert getattr(self.adapter, "magnitude", None) is None, "DoRA needs the whole weight at each step"
        rounded_once = isinstance(self.adapter, LowRank) and x.dtype != torch.float32 and not are_off()  # LowRank.mapped
        added = self.adapter.product(rows) if rounded_once else None
        y = _Product.apply(rows, self.packed, added).view(*x.shape[:-1], self.out_features)
        if self.adapter is not None and not rounded_once:
            y = self.adapter(x, y, None)
        return y if self.bias is None else y + self.bias.to(y.dtype)


def pack_base(model: Transformer, kind: str) -> Transformer:
    """Puts the linear maps inside the network into `kind`, int8 or int4, one after the other, and freezes the model. Routed
    experts, router, embedding, head and the MTP module stay as they are."""
    model.requires_grad_(False)
    for name, module in adaptable(model).items():
        owner, _, last = name.rpartition(".")
        setattr(model.get_submodule(owner), last, PackedLinear(module, kind))
    return model


def predicted_bytes(kind: str) -> float:
    """Of a weight, with its part of the group's scale."""
    return {"int8": 1.0, "int4": 0.5}[kind] + 2 / GROUP_SIZE


def packed_and_back(weight: Tensor, kind: str) -> Tensor:
    """What a weight (out, in) is in a packed base: float32."""
    return unpack_rows(pack([weight], kind), 0, len(weight))


def rounding(model: Transformer) -> float:
    """|packed - stored| / |what the adapters add|, over the adapted weights: how far the adapter is from the same one beside
    unrounded weights, in lengths of the adapter."""
    error = delta = 0.0
    for module in adaptable(model).values():
        if module.is_packed and module.adapter is not None:
            error += module.error
            delta += float(module.adapter.delta().detach().square().sum())
    return (error / delta) ** 0.5 if delta else 0.0
