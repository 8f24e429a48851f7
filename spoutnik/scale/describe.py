"""Plans as labels and texts."""

from spoutnik.scale.hardware import Cluster
from spoutnik.scale.planner import RLPlan, TrainingPlan
from spoutnik.scale.serving import Pass, ServingPlan, ServingWork
from spoutnik.units import duration, short, size

Lines = list[tuple[str, str]]


def describe_cluster(cluster: Cluster) -> Lines:
    gpu = cluster.gpu
    fp8 = f", {short(gpu.fp8)}FLOP/s in fp8" if gpu.fp8 else ""
    return [("cluster", f"{cluster.gpus:,} x {gpu.name}, {cluster.per_node} joined by {size(gpu.link)}/s, "
             f"{size(cluster.network)}/s each to other nodes"),
            ("one GPU", f"{size(gpu.memory)} at {size(gpu.bandwidth)}/s, {short(gpu.bf16)}FLOP/s in bf16{fp8} ({gpu.source})")]


def describe_training(plan: TrainingPlan) -> Lines:
    step, memory, work = plan.step, plan.memory, plan.work
    parts = {"weights": memory.weights, "gradients": memory.gradients, "master weights": memory.master,
             "moments": memory.moments, "gathered layers": memory.gathered,
             "activations": memory.activations, "logits": memory.logits}
    return [
        ("TRAINING", f"{short(work.tokens)} tokens, {work.batch:,} sequences of {work.sequence:,} a step, {work.precision}, "
         f"recompute {work.recompute}, software {work.software.name}"),
        ("layout", f"{plan.layout} ({plan.layout.data(plan.cluster.gpus):,})"),
        ("memory", f"{size(memory.total)} a GPU: " + ", ".join(f"{name} {size(each)}" for name, each in parts.items() if each)),
        ("speed", f"{step.tokens_per_second_per_gpu * plan.cluster.gpus:,.0f} tokens/s, "
         f"{step.tokens_per_second_per_gpu:,.1f} a GPU; a step takes {duration(step.seconds)}"),
        ("takes", _bill(plan.seconds, plan.gpu_hours, plan.cluster)),
        ("binds", f"{step.binds}: " + _shares({"products": step.products, "attention": step.attention, "memory": step.memory,
                  "tensor traffic": step.tensor, "expert traffic": step.expert, "data traffic": step.data,
                  "pipeline bubble": step.bubble, "launches": step.launch, "optimizer": step.optimizer}))]


def describe_rl(plan: RLPlan) -> Lines:
    work, step = plan.work, plan.step
    return [
        ("RL", f"{work.prompts:,} prompts x {work.group_size} completions of {work.response:,.0f} tokens (longest "
         f"{work.longest:,.0f}) a step, {work.updates} updates, software {work.training.software.name}"),
        ("layout", f"{plan.training.layout} ({plan.training.layout.data(plan.cluster.gpus):,}); samplers tensor "
         f"{work.rollout.tensor}, expert {work.rollout.expert}, {work.rollout.precision}"),
        ("memory", f"{size(plan.training.memory.total)} a GPU in training"),
        ("step", f"{duration(step.seconds)}: " + _shares({"sampling": step.sampling, "scoring": step.scoring,
                 "training": step.training, "weight transfer": step.transfer})),
        ("takes", f"{work.steps:,} steps: " + _bill(plan.seconds, plan.gpu_hours, plan.cluster)),
        ("binds", step.binds)]


def describe_serving(plan: ServingPlan, work: ServingWork, cluster: Cluster) -> Lines:
    hours = 1e6 / plan.tokens_per_second / 3600
    money = cluster.cost(hours)
    price = "" if money is None else f", {money:,.2f} at the given price"
    role = "a GPU that decodes" if work.separate else "a GPU that does both"
    return [
        ("SERVING", f"{work.input:,.0f} tokens in ({work.cached:.0%} cached), {work.output:,.0f} out, {work.precision} "
         f"weights, {work.cache} cache, tensor {work.tensor}, expert {work.expert}" + (", MTP drafts" if work.drafts else "")),
        ("memory", f"{size(plan.weight_bytes + plan.cache_bytes)} a GPU: weights {size(plan.weight_bytes)}, cache of "
         f"{plan.batch * work.tensor:,.0f} requests {size(plan.cache_bytes)} ({plan.cache_bytes_per_token:,.0f} a token)"),
        ("prefill", f"{plan.prefill_rate:,.0f} tokens/s a GPU, binds {plan.prefill.binds}: {_pass(plan.prefill)}"),
        ("decode", f"{plan.decode_rate:,.0f} tokens/s a GPU, {1 / plan.seconds_per_token:,.1f} a request, binds "
         f"{plan.decode.binds}: {_pass(plan.decode)}"),
        ("speed", f"{plan.tokens_per_second:,.0f} output tokens/s of {role}, "
         f"{plan.tokens_per_second * cluster.gpus:,.0f} of {cluster.gpus:,} such"),
        ("cost", f"{hours:,.3f} GPU-hours for a million output tokens{price}")]


def _pass(step: Pass) -> str:
    return _shares({"products": step.products, "attention": step.attention, "network": step.network, "launches": step.launch})


def _shares(parts: dict[str, float]) -> str:
    whole = sum(parts.values()) or 1.0
    return ", ".join(f"{name} {part / whole:.0%}" for name, part in parts.items() if part / whole >= 0.005)


def _bill(seconds: float, gpu_hours: float, cluster: Cluster) -> str:
    days = f" ({seconds / 86400:,.1f} days)" if seconds >= 2 * 86400 else ""
    money = cluster.cost(gpu_hours)
    price = "" if money is None else f", {money:,.2f} at the given price"
    return f"{duration(seconds)}{days}, {gpu_hours:,.4g} GPU-hours{price}"
