"""How much of a data sheet's peak is reached, and on which published points that was calibrated. Does not import torch.

Every number of `PYTORCH`, `MEGATRON`, `DEEPSEEK` and `SERVING` marked [calibrated] was set so that the named point comes out;
`benchmarks/planner.py` marks these points and judges the planner by all others. What is not marked is a count, or a share taken
over from where it is measured, as said beside it, and was not moved afterwards.
"""

from dataclasses import dataclass, replace

HBM = 0.80  # of the memory's bandwidth, streaming (STREAM-like kernels on A100 and H100 reach 0.8 to 0.9)
# A step of reinforcement learning takes so many times the sum of its work: padding, stragglers, engines that sleep and wake,
# weights brought to another layout. [calibrated] on NeMo-RL 0.4's GRPO of Llama-3.1-8B on 16 H100: 97.7 s.
RL_LOOP = 1.827
LINK = 0.75  # of NVLink (nccl-tests on DGX H100: about 350 of 450 GB/s)
NETWORK = 0.80  # of the network (DeepEP between nodes: 40 to 45 of 50 GB/s)


@dataclass(frozen=True)
class Software:
    """A training stack.

    matmul_bf16, matmul_fp8: of the peak, products of dense models. grouped_bf16, grouped_fp8: of models with experts, where
    products are smaller. attention: of bf16's peak, forward and backward; ring: of that, where the sequence is divided.
    eager: how many times the fused passes what lies between products takes. tensor_overlap: the share of tensor-parallel
    traffic that computation hides; expert_overlap, data_overlap: the share of computation that can hide messages to experts
    and FSDP's traffic. once_a_node: a token is sent once to a node, whatever experts it has there. dispatch_bytes: of a number
    on its way to an expert (1: FP8); outputs come back in bf16. launch: seconds of a layer's forward pass below which it does
    not come, however few tokens it has (some twenty kernels of PyTorch without graphs).
    """

    name: str
    matmul_bf16: float
    matmul_fp8: float
    grouped_bf16: float
    grouped_fp8: float
    attention: float
    ring: float
    eager: float = 1.0
    tensor_overlap: float = 0.0
    expert_overlap: float = 0.0
    data_overlap: float = 0.9
    once_a_node: bool = False
    dispatch_bytes: int = 2
    launch: float = 100e-6


# [calibrated] on torchtitan's Llama-3.1-8B on 8 H100 of 500 W (benchmarks/llama3_h100_202412, December 2024), tokens/s/GPU:
# matmul_bf16 on FSDP + compile, 6,667; matmul_fp8 on + Float8, 8,532; attention on 32,768 tokens, 3,890; ring on context 4,
# 1,071. grouped_bf16 on its DeepSeek-V3 on 256 B200 in bf16, 651 (PyTorch and Nebius, March 2026).
_RATIO = 0.3987 / 0.5413  # of what fp8 reaches to what bf16 reaches, taken over where only one of them is calibrated
PYTORCH = Software("pytorch", matmul_bf16=0.5413, matmul_fp8=0.3987, grouped_bf16=0.1238, grouped_fp8=0.1238 * _RATIO,
                   attention=0.2760, ring=0.7585)
# Without torch.compile: [calibrated] eager on torchtitan's first row, 5,762.
PYTORCH_EAGER = replace(PYTORCH, name="pytorch-eager", eager=3.739)
PYTORCH_ASYNC = replace(PYTORCH, name="pytorch-async", tensor_overlap=0.5)  # with asynchronous tensor parallelism
PYTORCH_DEEPEP = replace(PYTORCH_EAGER, name="pytorch-deepep", once_a_node=True)
# [calibrated] matmul_fp8 on Megatron-Bridge's Llama-3-8B on 8 H100 (25.11), 14,451 tokens/s/GPU; grouped_bf16 on DeepSeek-V2's
# 172.8K H800-hours for 10^12 tokens. attention: FlashAttention 3's figures for causal heads of 128 (2407.08608). Half of
# tensor-parallel traffic hides behind products; the published runs do not overlap messages to experts (moe_a2a_overlap: false).
MEGATRON = Software("megatron", matmul_bf16=0.5002 / _RATIO, matmul_fp8=0.5002, grouped_bf16=0.2666,
                    grouped_fp8=0.2666 * _RATIO, attention=0.5, ring=0.9, tensor_overlap=0.5, once_a_node=True)
# The same kernels under DualPipe: messages to experts in FP8, which computation hides (DeepSeek-V3, 3.2).
DEEPSEEK = replace(MEGATRON, name="deepseek", expert_overlap=1.0, dispatch_bytes=1)
SOFTWARE = {software.name: software for software in (PYTORCH, PYTORCH_EAGER, PYTORCH_ASYNC, PYTORCH_DEEPEP, MEGATRON, DEEPSEEK)}


@dataclass(frozen=True)
class Serving:
    """An inference engine (vLLM, SGLang, TensorRT-LLM, DeepSeek's).

    matmul, grouped, attention: of the peaks, dense products, routed experts', attention. imbalance: how many times the slowest
    rank's experts and messages take longer with real routing. prefill_overlap, decode_overlap: so much of computation can hide
    messages where a batch goes in two halves. launch, eager_launch: seconds of a layer beside its work, in a CUDA graph and
    without. link_latency, network_latency: of a collective, within a node and beyond.
    memory_share: of the memory that weights and cache may take; reserve: bytes of activations and buffers in it. most_requests:
    decoded at a time by a tensor-parallel group. prefill_tokens: computed at a time. few: tokens on a rank up to which messages
    go straight to each expert's rank, with the least delay, and not once to a node.
    """

    matmul: float
    grouped: float
    attention: float
    imbalance: float
    prefill_overlap: float = 1.0
    decode_overlap: float = 0.5
    launch: float = 40e-6
    eager_launch: float = 600e-6
    link_latency: float = 10e-6
    network_latency: float = 60e-6
    memory_share: float = 0.95
    reserve: float = 4e9
    most_requests: float = 2048
    prefill_tokens: float = 16384
    few: float = 1024


# [calibrated] matmul on TensorRT-LLM's Llama-3.3-70B in FP8 on 2 H200, 1,000 tokens in and out: 2,587 tokens/s/GPU; grouped on
# DeepSeek's profile of prefill (4,096 tokens, EP32, balanced): 62,713 tokens/s a node of H800; imbalance on SGLang's prefill of
# the same with real routing: 50,302; decode_overlap on DeepSeek's profile of decoding (128 requests, EP128): 18,598.
# attention: as in training; FlashMLA's figure on H800 is above it. launch: some ten kernels of 4 us in a graph.
SERVING = Serving(matmul=0.5513, grouped=0.3284, attention=0.5, imbalance=1.500, decode_overlap=0.5454)
