"""Rotary position embedding (Su et al. 2021) with YaRN as in DeepSeek (Peng et al. 2023), Llama 3's scaling, linear scaling."""

import math

import torch
from torch import Tensor

from spoutnik.model.config import LinearScaling, Llama3Scaling, ModelConfig, YarnScaling


def yarn_mscale(factor: float, mscale: float) -> float:
    """YaRN's temperature on the attention logits (eq. 22 of the paper): 0.1 * mscale * ln(factor) + 1."""
    return 0.1 * mscale * math.log(factor) + 1.0 if factor > 1 else 1.0


def yarn_correction_range(scaling: YarnScaling, width: int, theta: float) -> tuple[int, int]:
    """The frequency indices between which YaRN blends: fast ones stay, slow ones are stretched. V3: (10, 23)."""
    def index_of(rotations: float) -> float:
        length = scaling.original_max_position_embeddings
        return width * math.log(length / (rotations * 2 * math.pi)) / (2 * math.log(theta))

    low, high = math.floor(index_of(scaling.beta_fast)), math.ceil(index_of(scaling.beta_slow))
    return max(low, 0), min(high, width - 1)


def inverse_frequencies(config: ModelConfig) -> Tensor:
    """(width / 2) rotation speeds in radians per position. YaRN is applied at every length."""
    width = config.rope_width
    frequencies = config.rope_theta ** (-torch.arange(0, width, 2, dtype=torch.float32) / width)
    match config.rope_scaling:
        case YarnScaling() as scaling:
            return _yarn(frequencies, scaling, config.rope_theta)
        case Llama3Scaling() as scaling:
            return _llama3(frequencies, scaling)
        case LinearScaling(factor=factor):
            return frequencies / factor
    return frequencies


def _yarn(frequencies: Tensor, scaling: YarnScaling, theta: float) -> Tensor:
    low, high = yarn_correction_range(scaling, 2 * len(frequencies), theta)
    ramp = (torch.arange(len(frequencies), dtype=torch.float32) - low) / max(high - low, 0.001)
    keep = 1 - ramp.clamp(0, 1)
    return frequencies / scaling.factor * (1 - keep) + frequencies * keep


def _llama3(frequencies: Tensor, scaling: Llama3Scaling) -> Tensor:
    """Waves that turn often within the original context stay, those that do not are stretched, a blend lies between."""
    turns = frequencies * scaling.original_max_position_embeddings / (2 * math.pi)
    keep = ((turns - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor)).clamp(0, 1)
    return frequencies / scaling.factor * (1 - keep) + frequencies * keep


def softmax_scale(config: ModelConfig) -> float:
    """1/sqrt(d), times YaRN's mscale squared on MLA (docs/deepseek-pitfalls.md#mscale-squared). V3: 0.1352338."""
    scale = config.qk_head_dim ** -0.5
    scaling = config.rope_scaling
    if config.is_mla and isinstance(scaling, YarnScaling) and scaling.mscale_all_dim:
        scale *= yarn_mscale(scaling.factor, scaling.mscale_all_dim) ** 2
    return scale


def rotary_magnitude(config: ModelConfig) -> float:
    """What YaRN multiplies cosines and sines by: its `attention_factor`, or the ratio of its two mscales (1.0 for V3)."""
    scaling = config.rope_scaling
    if not isinstance(scaling, YarnScaling):
        return 1.0
    if scaling.attention_factor is not None:
        return scaling.attention_factor
    return yarn_mscale(scaling.factor, scaling.mscale) / yarn_mscale(scaling.factor, scaling.mscale_all_dim)


def rotary_table(config: ModelConfig, positions: int) -> Tensor:
    """(positions, 2, width/2) cosines and sines, float32."""
    angles = torch.outer(torch.arange(positions, dtype=torch.float32), inverse_frequencies(config))
    table, magnitude = torch.empty(positions, 2, angles.shape[1], device=angles.device), rotary_magnitude(config)
    torch.cos(angles, out=table[:, 0])
    torch.sin(angles, out=table[:, 1])
    return table if magnitude == 1 else table.mul_(magnitude)


def rotate_interleaved(x: Tensor, rotary: Tensor) -> Tensor:
    """Rotates adjacent pairs (2i, 2i+1) of the last axis: DeepSeek's layout.

    x (T, ..., width); rotary (T, 2, width/2) for the tokens' positions.
    """
    return _rotate(x, rotary, x[..., 0::2], x[..., 1::2], interleaved=True)


def rotate_halves(x: Tensor, rotary: Tensor) -> Tensor:
    """Rotates pairs (i, i + width/2): the layout of Llama and Qwen."""
    half = x.shape[-1] // 2
    return _rotate(x, rotary, x[..., :half], x[..., half:], interleaved=False)


def _rotate(x: Tensor, rotary: Tensor, first: Tensor, second: Tensor, interleaved: bool) -> Tensor:
    rotary = rotary.to(x.dtype)
    shape = (x.shape[0],) + (1,) * (x.dim() - 2) + (-1,)
    cos, sin = rotary[:, 0].reshape(shape), rotary[:, 1].reshape(shape)
    rotated = (first * cos - second * sin, first * sin + second * cos)
    return torch.stack(rotated, dim=-1).flatten(-2) if interleaved else torch.cat(rotated, dim=-1)
