"""The checks of what an LLM is given, and of what came of its requests."""

import torch

from spoutnik.engine.outputs import RequestOutput
from spoutnik.errors import RunError, UserError
from spoutnik.hardware import compute_device, compute_dtype
from spoutnik.model.config import ModelConfig
from spoutnik.native import library
from spoutnik.parallel import CPU

SPECULATIONS = ("mtp", "prompt_lookup")


def device_of(device: str | torch.device | None, quantize: str | None) -> torch.device:
    """Raises UserError: there is no such device here."""
    if device is None or device == "auto" and quantize is not None:  # packed weights are multiplied on the processor alone
        return CPU
    return compute_device(str(device))


def dtype_of(dtype: str | torch.dtype, device: torch.device = CPU) -> torch.dtype:
    """"auto" is bfloat16 where the native kernels run, also on a processor that has no instruction for it: decoding waits for
    weights, of which bfloat16 has half. Elsewhere it is what the device multiplies."""
    if dtype == "auto" and device.type == "cpu" and library() is not None:
        return torch.bfloat16
    if dtype in ("auto", "float32", "bfloat16", "float16"):
        return compute_dtype(dtype, device)
    if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
        raise UserError(f"dtype = {dtype!r}: unknown. Choose auto, float32, bfloat16 or float16.")
    return dtype


def check_max_model_len(value: int | None, config: ModelConfig) -> int:
    positions = config.max_position_embeddings
    if value is not None and (type(value) is not int or not 2 <= value <= positions):
        raise UserError(f"max_model_len = {value!r}: must be 2 to {positions}, the positions that the model has.")
    return positions if value is None else value


def check_speculation(speculate: str | None, drafts: int, config: ModelConfig) -> None:
    if speculate is None:
        return
    if speculate not in SPECULATIONS:
        raise UserError(f"speculate = {speculate!r}: unknown. Choose mtp or prompt_lookup, or leave it out.")
    if not isinstance(drafts, int) or drafts < 1:
        raise UserError(f"num_speculative_tokens = {drafts!r}: must be at least 1.")
    if speculate == "mtp" and not config.num_nextn_predict_layers:
        raise UserError("speculate = 'mtp': needs a model with an MTP module (num_nextn_predict_layers 1): this one has none. "
                        "Choose prompt_lookup, or leave it out.")


def raise_if_all_failed(outputs: list[RequestOutput]) -> None:
    completions = [completion for output in outputs for completion in output.outputs]
    reasons = [completion.stop_reason for completion in completions if completion.finish_reason == "error"]
    if reasons and len(reasons) == len(completions):
        raise RunError(str(reasons[0]))
