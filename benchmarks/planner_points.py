"""Published measurements that the planner is calibrated on and tried on, as the options of `spoutnik plan` that describe them.

A point says where its number is published. What the source leaves open and had to be assumed stands in `assumed`. Points were
listed from their sources as they stand there: every row whose model and hardware the planner knows.
"""

from dataclasses import dataclass

LLAMA_8B, LLAMA_70B = "deepseek-r1-distill-llama-8b", "deepseek-r1-distill-llama-70b"  # the shapes of Llama-3.1-8B and 70B
LLAMA_405B, QWEN_32B = "llama-3.1-405b", "qwen3-32b"  # planner_configs/
V2, V3 = "deepseek-v2", "deepseek-v3"

_TITAN = "kind=h100,memory=96GB,bandwidth=2400,watts=500"  # HBM2e, 500 W
_TITAN_TABLE = "torchtitan, llama3_h100_202412, "
_BRIDGE = "Megatron-Bridge performance summary, "
_EP = "LMSYS, 5 May 2025, "
_TRT = "TensorRT-LLM perf overview"
_V3_PAPER = "DeepSeek-V3, table 1"


@dataclass(frozen=True)
class Point:
    """measure: what is compared, the name of a field of the plan (see planner.py). published: its value."""

    name: str
    source: str
    model: str
    cluster: str
    work: str  # of --train, --rl or --serve, by the measure
    layout: str
    measure: str
    published: float
    calibrates: str = ""
    assumed: str = ""


def _titan(table: str, name: str, model: str, gpus: int, layout: str, work: str, published: float, **more) -> Point:
    return Point(f"torchtitan {name}", _TITAN_TABLE + f"table {table}", model, f"gpus={gpus},{_TITAN}", work, layout,
                 "tokens/s/GPU", published, **more)


def _titan_8b() -> list[Point]:
    eight, many = "sequence=8192,batch=16,micro_batch=2,recompute=selective", \
        "sequence=8192,batch=256,micro_batch=2,recompute=selective"
    points = [
        _titan("1", "8B", LLAMA_8B, 8, "", f"{eight},software=pytorch-eager", 5762, calibrates="eager"),
        _titan("1", "8B compile", LLAMA_8B, 8, "", eight, 6667, calibrates="matmul_bf16"),
        _titan("1", "8B float8", LLAMA_8B, 8, "", f"{eight},precision=fp8", 8532, calibrates="matmul_fp8"),
        _titan("3", "8B, 128 GPUs", LLAMA_8B, 128, "", f"{many},software=pytorch-eager", 5605),
        _titan("3", "8B compile, 128 GPUs", LLAMA_8B, 128, "", many, 6514),
        _titan("3", "8B float8, 128 GPUs", LLAMA_8B, 128, "", f"{many},precision=fp8", 8380)]
    for context, published in ((1, 3890), (2, 2540), (4, 1071), (8, 548)):
        points.append(_titan("2", f"8B, {32 * context}k tokens", LLAMA_8B, 8, f"context={context}",
                             f"sequence={32768 * context},batch={8 // context},recompute=full,precision=fp8", published,
                             calibrates={1: "attention", 4: "ring"}.get(context, "")))
    return points


def _titan_large() -> list[Point]:
    long, eight = "sequence=8192,batch=512,micro_batch=16,recompute=full,precision=fp8", "sequence=8192,batch=256,micro_batch=4"
    split, micro = "tensor=8,pipeline=8", "a step of as many micro-batches as stages, the default then"
    points = [
        _titan("4", "70B", LLAMA_70B, 256, "tensor=8", long, 829),
        _titan("4", "70B async TP", LLAMA_70B, 256, "tensor=8", f"{long},software=pytorch-async", 876),
        _titan("5", "405B 1F1B", LLAMA_405B, 512, split, f"{eight},recompute=full,precision=fp8,software=pytorch-async", 100,
               assumed=micro),
        _titan("5", "405B interleaved", LLAMA_405B, 512, f"{split},chunks=2",
               f"{eight},recompute=full,precision=fp8,software=pytorch-async", 128, assumed=f"{micro}; two stages a rank")]
    for context, published in ((1, 76), (2, 47), (4, 31), (8, 16)):
        points.append(_titan("6", f"405B, {32 * context}k tokens", LLAMA_405B, 512, f"{split},context={context}",
                             f"sequence={32768 * context},batch={64 // context},recompute=full,precision=fp8,"
                             "software=pytorch-async", published))
    for gpus, published in ((32, 10938), (64, 10753)):
        points.append(Point(f"torchtitan 8B float8, {gpus} H200", "torchtitan, llama3_8b_h200_2025-06", LLAMA_8B,
                            f"gpus={gpus},kind=h200", f"sequence=8192,batch={2 * gpus},micro_batch=2,recompute=selective,"
                            "precision=fp8", "", "tokens/s/GPU", published))
    layout, unsaid = "expert=32", "4,096 tokens, 4 sequences a GPU, EP 32, selective recomputation (the published config's)"
    work, source = "sequence=4096,batch=1024,micro_batch=4,recompute=selective", "PyTorch and Nebius, March 2026"
    return points + [
        Point("torchtitan V3, 256 B200", source, V3, "gpus=256,kind=b200", f"{work},software=pytorch-eager", layout,
              "tokens/s/GPU", 651, "grouped_bf16", unsaid),
        Point("torchtitan V3 DeepEP, 256 B200", source, V3, "gpus=256,kind=b200", f"{work},software=pytorch-deepep", layout,
              "tokens/s/GPU", 859, assumed=unsaid),
        Point("torchtitan V3 DeepEP MXFP8, 256 B200", source, V3, "gpus=256,kind=b200",
              f"{work},precision=fp8,software=pytorch-deepep", layout, "tokens/s/GPU", 918,
              assumed=f"{unsaid}; FP8 everywhere, though only the experts had it")]


def _bridge(release: str, name: str, model: str, cluster: str, layout: str, work: str, published: float, **more) -> Point:
    return Point(f"Megatron {name} ({release})", _BRIDGE + release, model, cluster, f"{work},recompute=none,software=megatron",
                 layout, "tokens/s/GPU", published, **more)


def _megatron() -> list[Point]:
    fp8, zero1 = "sequence=8192,precision=fp8", "sharding=optimizer"
    h70, h405 = f"tensor=4,pipeline=8,chunks=5,{zero1}", f"tensor=8,pipeline=8,context=2,chunks=8,{zero1}"
    v3, b200 = "sequence=4096,precision=fp8", f"pipeline=16,expert=8,{zero1}"
    gb = "kind=gb200,per_node=64"
    return [
        _bridge("25.11", "8B, 8 H100", LLAMA_8B, "gpus=8,kind=h100", "", f"{fp8},batch=128", 14451, calibrates="matmul_fp8"),
        _bridge("25.11", "70B, 64 H100", LLAMA_70B, "gpus=64,kind=h100", h70, f"{fp8},batch=128", 1602),
        _bridge("26.02", "70B, 64 H100", LLAMA_70B, "gpus=64,kind=h100", h70, f"{fp8},batch=256", 1621),
        _bridge("25.11", "405B, 1024 H100", LLAMA_405B, "gpus=1024,kind=h100", h405, f"{fp8},batch=512", 292),
        _bridge("26.02", "405B, 1024 H100", LLAMA_405B, "gpus=1024,kind=h100", h405, f"{fp8},batch=1536", 311),
        _bridge("25.11", "8B, 8 B200", LLAMA_8B, "gpus=8,kind=b200", zero1, f"{fp8},batch=128,micro_batch=2", 30624),
        _bridge("25.11", "405B, 128 B200", LLAMA_405B, "gpus=128,kind=b200", f"tensor=4,pipeline=8,context=2,chunks=8,{zero1}",
                f"{fp8},batch=64", 661),
        _bridge("25.11", "8B, 8 GB200", LLAMA_8B, "gpus=8,kind=gb200", zero1, f"{fp8},batch=128,micro_batch=2", 31508),
        _bridge("25.11", "70B, 64 GB200", LLAMA_70B, f"gpus=64,{gb}", "", f"{fp8},batch=256,micro_batch=2", 4312),
        _bridge("25.11", "405B, 256 GB200", LLAMA_405B, f"gpus=256,{gb}", f"tensor=4,pipeline=16,chunks=4,{zero1}",
                f"{fp8},batch=1536", 813),
        _bridge("25.09", "V3, 1024 H100", V3, "gpus=1024,kind=h100", f"tensor=2,pipeline=8,expert=64,chunks=4,{zero1}",
                f"{v3},batch=8192,mtp=yes", 1297),
        _bridge("25.11", "V3 bf16, 256 GB200", V3, f"gpus=256,{gb}", f"pipeline=4,expert=64,chunks=4,{zero1}",
                "sequence=4096,batch=4096", 3139),
        _bridge("25.11", "V3, 256 GB200", V3, f"gpus=256,{gb}", f"pipeline=8,expert=32,chunks=4,{zero1}", f"{v3},batch=4096",
                4018),
        _bridge("25.11", "V3, 256 B200", V3, "gpus=256,kind=b200", b200, f"{v3},batch=2048,mtp=yes", 2139),
        _bridge("26.02", "V3, 256 B200", V3, "gpus=256,kind=b200", b200, f"{v3},batch=4096,mtp=yes", 2689)]


def _papers() -> list[Point]:
    zero = "schedule=zero-bubble,sharding=optimizer"
    v3 = "precision=fp8,recompute=cheap,software=deepseek,mtp=yes"
    llama, meta = "recompute=none,software=megatron", "Llama 3 (2407.21783), table 4"
    stages, unsaid = "tensor=8,pipeline=16,chunks=4", "four stages a pipeline rank; FLOPs of causal attention counted half"
    flops = 3 * (2 * 403.75e9 + 8257536 * 4096), 3 * (2 * 403.75e9 + 8257536 * 65536)  # of a token, forward and backward
    return [
        Point("DeepSeek-V2, 172.8K h for 1T", "DeepSeek-V2, 3.2.3", V2, "gpus=1024,kind=h800",
              "tokens=1T,sequence=4096,batch=9216,recompute=cheap,software=deepseek", f"pipeline=16,expert=8,{zero}",
              "GPU-hours", 172.8e3, "grouped_bf16", "1,024 GPUs"),
        Point("DeepSeek-V3, 180K h for 1T", "DeepSeek-V3, 3", V3, "gpus=2048,kind=h800",
              f"tokens=1T,sequence=4096,batch=15360,{v3}", f"pipeline=16,expert=64,{zero}", "GPU-hours", 180e3),
        Point("DeepSeek-V3's bill of pretraining", _V3_PAPER, V3, "gpus=2048,kind=h800,price=2",
              f"tokens=14.8T,sequence=4096,batch=15360,{v3}", f"pipeline=16,expert=64,{zero}", "money", 5.328e6),
        Point("Llama 3 405B, 8,192 H100", meta, LLAMA_405B, "gpus=8192,kind=h100", f"sequence=8192,batch=2048,{llama}", stages,
              "tokens/s/GPU", 430e12 / flops[0], assumed=unsaid),
        Point("Llama 3 405B, 16,384 H100", meta, LLAMA_405B, "gpus=16384,kind=h100", f"sequence=8192,batch=2048,{llama}",
              stages, "tokens/s/GPU", 400e12 / flops[0], assumed=unsaid),
        Point("Llama 3 405B, 131k tokens", meta, LLAMA_405B, "gpus=16384,kind=h100", f"sequence=131072,batch=128,{llama}",
              f"{stages},context=16", "tokens/s/GPU", 380e12 / flops[1], assumed=unsaid)]


def _offline(input_tokens: int, output_tokens: int) -> str:
    """TensorRT-LLM's published way of measuring (the same page): a number of requests by length, all of the same length and all
    queued at once; a request begins where its last token will fit (the scheduler's default); 8-bit cache."""
    requests = {1000: 3000, 8192: 1500, 32768: 1000}[max(input_tokens, output_tokens)]
    return f"input={input_tokens},output={output_tokens},requests={requests},whole=yes,precision=fp8,cache=fp8"


def _serving() -> list[Point]:
    points = []
    for kind, rows in (("h200", ((1000, 1000, 2587), (1024, 8192, 2009), (8192, 1024, 537), (32768, 1024, 120))),
                       ("h100", ((1000, 1000, 2209), (8192, 1024, 398)))):
        points += [Point(f"TensorRT-LLM 70B, {kind.upper()}, {i}/{o}", _TRT, LLAMA_70B, f"gpus=2,kind={kind}",
                         f"{_offline(i, o)},tensor=2", "", "output tokens/s/GPU", published,
                         "matmul (serving)" if published == 2587 else "") for i, o, published in rows]
    points += [Point(f"TensorRT-LLM R1, H200, {i}/{o}", _TRT, V3, "gpus=8,kind=h200",
                     f"{_offline(i, o)},expert=8,two_batches=no", "", "output tokens/s/GPU", published)
               for i, o, published in ((1000, 1000, 1627), (1024, 8192, 1218), (1024, 32768, 438))]
    one, node = "output=1,precision=fp8,separate=yes", "input tokens/s/node"
    points.append(Point("DeepSeek's profile of prefill", "deepseek-ai/profile-data", V3, "gpus=32,kind=h800",
                        f"input=4096,expert=32,balanced=yes,{one}", "", node, 62713, "grouped (serving)"))
    for length, published in ((1024, 57674), (2048, 54543), (4096, 50302)):
        points.append(Point(f"SGLang prefill, {length}", _EP + "prefill", V3, "gpus=32,kind=h100",
                            f"input={length},expert=32,{one}", "", node, published, "imbalance" if length == 4096 else ""))
    points.append(Point("SGLang prefill, 4096, balanced", _EP + "profile", V3, "gpus=32,kind=h100",
                        f"input=4096,expert=32,balanced=yes,{one}", "", node, 59337))
    out, both = "output tokens/s/node", "precision=fp8,separate=yes"
    return points + [
        Point("DeepSeek's profile of decoding", "deepseek-ai/profile-data", V3, "gpus=128,kind=h800",
              f"input=4096,output=1,batch=128,expert=128,balanced=yes,{both}", "", out, 18598, "decode_overlap"),
        Point("SGLang decoding, 2,000", _EP + "decode", V3, "gpus=72,kind=h100",
              f"input=2000,output=100,batch=256,expert=72,{both}", "", out, 22282),
        Point("SGLang decoding with simulated MTP, 4,000", _EP + "decode", V3, "gpus=72,kind=h100",
              f"input=4000,output=100,batch=128,expert=72,drafts=yes,acceptance=1,{both}", "", out, 17373),
        Point("DeepSeek's day, prefill", "DeepSeek inference overview, Feb 2025", V3, "gpus=32,kind=h800",
              f"input=4000,cached=0.563,expert=32,{one}", "", node, 73700, assumed="4,000 tokens of input"),
        Point("DeepSeek's day, decoding", "DeepSeek inference overview, Feb 2025", V3, "gpus=144,kind=h800",
              f"input=4489,output=1000,batch=128,expert=144,{both}", "", out, 14800,
              assumed="128 requests a GPU, 1,000 tokens of output (the mean context, 4,989, is published)")]


def _rl() -> list[Point]:
    nemo, colocated = "NeMo-RL 0.4 performance summary", "software=megatron,recompute=none"
    return [
        Point("NeMo-RL GRPO 8B, 16 H100", nemo, LLAMA_8B, "gpus=16,kind=h100",
              f"prompts=128,group_size=16,prompt=100,response=960,longest=4096,updates=4,tensor=1,{colocated}", "pipeline=2",
              "step seconds", 97.7, "RL_LOOP", "100 tokens of prompt; bf16"),
        Point("NeMo-RL GRPO Qwen3-32B, 32 H100", nemo, QWEN_32B, "gpus=32,kind=h100",
              f"prompts=128,group_size=16,prompt=100,response=3106,longest=4096,updates=4,tensor=4,{colocated}",
              "tensor=4,pipeline=4", "step seconds", 393, assumed="100 tokens of prompt; bf16"),
        Point("NeMo-RL GRPO V3, 256 H100", nemo, V3, "gpus=256,kind=h100",
              "prompts=32,group_size=16,prompt=100,response=645,longest=1536,updates=1,tensor=32,expert=32,software=megatron",
              "pipeline=16,expert=16", "step seconds", 154, assumed="100 tokens of prompt; bf16; full recomputation"),
        Point("verl GRPO V3, 96 H20", "verl docs/perf/dpsk, and its script", V3, "gpus=96,kind=h20",
              "prompts=96,group_size=8,prompt=150,response=1960,longest=9632,updates=3,tensor=32,expert=32,graphs=no,"
              "software=megatron", "tensor=8,pipeline=12,expert=8", "step seconds", 1700, assumed="150 tokens of prompt")]


def points() -> list[Point]:
    return [*_titan_8b(), *_titan_large(), *_megatron(), *_papers(), *_serving(), *_rl()]


# (name, model, gpus, layout, work, GiB): the memory columns of torchtitan's tables, peak of the allocator. None was used to
# calibrate anything.
def memory_points() -> list[tuple[str, str, int, str, str, float]]:
    published = {"8B": 82.4, "8B compile": 77.0, "8B float8": 76.8, "8B, 128 GPUs": 67.0, "8B compile, 128 GPUs": 62.0,
                 "8B float8, 128 GPUs": 61.8, "8B, 32k tokens": 83.9, "8B, 64k tokens": 84.2, "8B, 128k tokens": 84.0,
                 "8B, 256k tokens": 84.5, "70B": 71.9, "70B async TP": 67.6, "405B 1F1B": 82.5, "405B interleaved": 72.7,
                 "405B, 32k tokens": 75.3, "405B, 64k tokens": 75.9, "405B, 128k tokens": 77.1, "405B, 256k tokens": 84.9}
    named = {point.name.removeprefix("torchtitan "): point for point in (*_titan_8b(), *_titan_large())}
    return [(name, named[name].model, named[name].cluster, named[name].layout, named[name].work, gib)
            for name, gib in published.items()]
