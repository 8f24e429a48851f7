"""What this machine computes in, whatever machine it is: the processor's capabilities are put in its place."""

import pytest
import torch

from spoutnik.engine import llm_checks
from spoutnik.engine.llm_checks import dtype_of
from spoutnik.hardware import compute_dtype

CPU = torch.device("cpu")
CAPABILITIES = {"architecture": "x86_64", "avx512_f": True, "avx512_bw": True, "avx512_vnni": True}


@pytest.mark.parametrize("capabilities, dtype", [
    (CAPABILITIES | {"avx512_bf16": False, "amx_bf16": False}, torch.float32),  # oneDNN emulates: Ice Lake, Cascade Lake
    (CAPABILITIES | {"avx512_bf16": True, "amx_bf16": False}, torch.bfloat16),
    (CAPABILITIES | {"avx512_bf16": False, "amx_bf16": True}, torch.bfloat16),
    ({"architecture": "x86_64", "avx2": True}, torch.float32),
])
@pytest.mark.parametrize("onednn", [False, True])
def test_of_an_x86_processor_only_its_instructions_count(monkeypatch, capabilities, dtype, onednn):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: onednn)
    assert compute_dtype("auto", CPU) == dtype


@pytest.mark.parametrize("onednn, dtype", [(False, torch.float32), (True, torch.bfloat16)])
def test_of_another_processor_onednn_is_asked(monkeypatch, onednn, dtype):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"architecture": "aarch64"})
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: onednn)
    assert compute_dtype("auto", CPU) == dtype


def test_a_model_that_answers_is_bfloat16_wherever_the_native_kernels_read_it(monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: CAPABILITIES)
    monkeypatch.setattr(llm_checks, "library", lambda: object())
    assert dtype_of("auto", CPU) == torch.bfloat16 and dtype_of("float32", CPU) == dtype_of(torch.float32, CPU) == torch.float32
    monkeypatch.setattr(llm_checks, "library", lambda: None)
    assert dtype_of("auto", CPU) == torch.float32
