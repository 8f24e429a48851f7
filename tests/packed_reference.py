"""The packed forms of native/packed_matrix.h and native/bf12.h read in plain PyTorch: the twin of packed products."""

import numpy as np
import torch
from torch import Tensor

from spoutnik.engine.quantization.packed_matrix import PackedMatrices, bf12_exceptions, panel_widths
from spoutnik.native import library
from spoutnik.native.structs import GROUP_SIZE, KINDS


def unpack(packed: PackedMatrices) -> Tensor:
    """The matrices that the packed form stands for: (count, out, in) float32."""
    out, inputs = packed.out_features, packed.in_features
    if packed.kind == KINDS["bf12"]:
        return torch.stack([_unpack_bf12(data.numpy(), inputs, out) for data in packed.data])
    per_output = library().spoutnik_packed_nbytes(packed.kind, inputs, out) // sum(panel_widths(out))
    panels, start = [], 0
    for outputs in panel_widths(out):
        part = packed.data[:, start:start + outputs * per_output].contiguous()
        panels.append(_unpack_panel(part, packed, outputs))
        start += outputs * per_output
    return torch.cat(panels, dim=1)[:, :out, :inputs]


def _unpack_bf12(data: np.ndarray, inputs: int, out: int) -> Tensor:
    """One matrix (out, in)."""
    i, stored, start, panels = np.arange(128), inputs + inputs % 2, 0, []
    order = i // 64 * 64 + i % 32 // 8 * 16 + i // 32 % 2 * 8 + i % 8
    for outputs in panel_widths(out):
        end = start + 64 + -(-stored * outputs // 128) * 192
        table, records = data[start:start + 16].astype(np.uint16), data[start + 64:end].reshape(-1, 192)
        codes = np.concatenate([records[:, :64] & 15, records[:, :64] >> 4], axis=1)
        panels.append((table[codes] << 8 | records[:, 64:])[:, order].reshape(-1)[:stored * outputs])
        start = end
    for panel, exceptions in zip(panels, bf12_exceptions(data, inputs, out)):
        panel[exceptions["index"]] = exceptions["value"]
    halves = [torch.from_numpy(panel.view(np.int16)).view(torch.bfloat16).view(stored // 2, -1, 2) for panel in panels]
    return torch.cat([half.transpose(0, 1).flatten(1) for half in halves]).float()[:out, :inputs]


def _unpack_panel(part: Tensor, packed: PackedMatrices, outputs: int) -> Tensor:
    count = len(part)
    if packed.kind == KINDS["float32"]:
        return part.view(torch.float32).view(count, -1, outputs).transpose(1, 2)
    if packed.kind == KINDS["bfloat16"]:
        return part.view(torch.bfloat16).view(count, -1, outputs, 2).transpose(1, 2).flatten(2).float()
    if packed.kind == KINDS["int4"]:
        return _unpack_int4(part, packed, outputs)
    records = part.view(count, -1, outputs * (GROUP_SIZE + 2))  # one per group of inputs
    numbers = records[..., :outputs * GROUP_SIZE].reshape(*records.shape[:2], GROUP_SIZE // 4, outputs, 4)
    numbers = numbers.permute(0, 3, 1, 2, 4).int() - 128
    scales = _halves(records[..., outputs * GROUP_SIZE:]).transpose(1, 2)  # count, output, group
    return (numbers.flatten(3) * (scales * packed.units.float()[:, None, None])[..., None]).flatten(2)


def _unpack_int4(part: Tensor, packed: PackedMatrices, outputs: int) -> Tensor:
    units = _halves(part[:, :2 * outputs]) * packed.units.float()[:, None]
    records = part[:, 2 * outputs:].reshape(len(part), -1, outputs * (GROUP_SIZE // 2 + 2))
    numbers = records[..., :outputs * GROUP_SIZE // 2].reshape(*records.shape[:2], GROUP_SIZE // 8, outputs, 4)
    numbers = torch.stack([numbers & 15, numbers >> 4], dim=3)  # count, group, step, half, output, 4
    numbers = numbers.permute(0, 4, 1, 2, 3, 5).flatten(3).float()  # count, output, group, input
    zeros, scales = records[..., outputs * GROUP_SIZE // 2:].unflatten(-1, (outputs, 2)).float().transpose(1, 2).unbind(-1)
    return ((numbers - zeros[..., None] / 16) * (scales * units[..., None])[..., None]).flatten(2)


def _halves(data: Tensor) -> Tensor:
    return data.contiguous().view(torch.float16).float()


def quantized_rows(x: Tensor) -> Tensor:
    """x (rows, in) as products with quantized weights read it: groups of 32 rounded to 8 bits, the largest number filling the
    range."""
    padded = torch.nn.functional.pad(x, (0, -x.shape[1] % GROUP_SIZE)).unflatten(1, (-1, GROUP_SIZE))
    scales = padded.abs().amax(-1, keepdim=True) / 127
    whole = padded / scales.clamp(min=1e-30)
    whole = (whole + torch.where(whole < 0, -0.5, 0.5)).trunc()
    return (whole * scales).flatten(1)[:, :x.shape[1]]
