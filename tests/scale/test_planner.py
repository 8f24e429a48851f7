"""Plans by hand: what divides what, which part binds, what is refused and how."""

from dataclasses import replace

import pytest
from tiny import DEEPSEEK, LLAMA, V3, config

from spoutnik.errors import UserError
from spoutnik.model.accounting import account
from spoutnik.scale.costs import PlannedModel, distinct_nodes
from spoutnik.scale.hardware import GPUS, limited, parse_cluster
from spoutnik.scale.layout import Layout, check_layout, parse_layout
from spoutnik.scale.memory import training_memory
from spoutnik.scale.planner import plan_rl, plan_serving, plan_training
from spoutnik.scale.rl import parse_rl, rl_time
from spoutnik.scale.serving import parse_serving, serving_plan
from spoutnik.scale.training import expert_seconds, micro_batches, parse_training, training_time

LLAMA_70B = LLAMA | {"vocab_size": 128256, "hidden_size": 8192, "intermediate_size": 28672, "num_hidden_layers": 80,
                     "num_attention_heads": 64, "num_key_value_heads": 8}


@pytest.fixture(scope="module")
def v3():
    return PlannedModel(config(V3))


@pytest.fixture(scope="module")
def llama():
    return PlannedModel(config(LLAMA_70B))


def test_counts_agree_with_the_accounting(v3):
    counts = account(v3.config)
    assert v3.sizes.total == counts.total_parameters + counts.mtp_parameters - 59 * 256  # correction biases are buffers
    forward = v3.costs.dense + v3.costs.experts + v3.costs.head
    assert forward == pytest.approx(counts.flops_per_token, rel=1e-4)
    assert v3.costs.position == counts.attention_flops_per_position
    assert v3.mtp_costs.moe_layers == v3.costs.moe_layers + 1


def test_tokens_go_to_few_nodes():
    few = config(DEEPSEEK)  # 3 of 8 experts, in groups of which 2 are chosen
    assert distinct_nodes(few, 1) == 0
    assert distinct_nodes(few, 2) == pytest.approx(2 * (1 - 0.5 ** 3) / 2)
    assert distinct_nodes(config(V3), 8) == pytest.approx(4 * 7 / 8)  # at most 4 of 8, one in eight its own


def test_pipeline_bubble_and_interleaving(llama):
    cluster, work = parse_cluster("gpus=64,kind=h100"), parse_training("batch=64,sequence=4096")
    whole, halves = (training_time(llama, cluster, Layout(tensor=8, pipeline=8, chunks=chunks), work) for chunks in (1, 2))
    busy = whole.products + whole.attention + whole.memory + whole.tensor
    assert whole.bubble == pytest.approx(busy * 7 / 64) and halves.bubble == pytest.approx(whole.bubble / 2)


def test_a_divided_model_needs_less_memory_and_more_traffic(llama):
    cluster, work = parse_cluster("gpus=64,kind=h100"), parse_training("batch=64,sequence=4096")
    one, eight = (training_memory(llama, cluster, Layout(tensor=tensor, pipeline=4), work, 8) for tensor in (1, 8))
    assert eight.total < one.total and eight.activations == pytest.approx(one.activations / 8)
    assert training_time(llama, cluster, Layout(tensor=8, pipeline=4), work).tensor > 0
    slow = replace(cluster, gpu=replace(cluster.gpu, link=1e9))
    assert training_time(llama, slow, Layout(tensor=8, pipeline=4), work).binds == "network"


def test_messages_to_experts_within_a_node_are_cheaper(v3):
    cluster = parse_cluster("gpus=64,kind=h100")
    near, far = (expert_seconds(v3, cluster, ranks, 58, False, 2) for ranks in (8, 64))
    assert 0 < near < far and expert_seconds(v3, cluster, 1, 58, False, 2) == 0
    assert expert_seconds(v3, cluster, 64, 58, True, 1) < far


def test_the_chosen_layout_fits_and_is_no_slower_than_one_that_is_given(llama):
    cluster, work = parse_cluster("gpus=64,kind=h100"), parse_training("batch=512,sequence=4096")
    chosen = plan_training(llama, cluster, None, work)
    given = plan_training(llama, cluster, parse_layout("tensor=8,pipeline=2"), work)
    assert chosen.memory.total < 0.92 * 80e9 and chosen.step.seconds <= given.step.seconds
    assert chosen.gpu_hours == pytest.approx(chosen.seconds * 64 / 3600)


def test_v3_decodes_from_latents_and_70b_from_keys_and_values(v3, llama):
    cluster = parse_cluster("gpus=128,kind=h800")
    _, latent = plan_serving(v3, cluster, parse_serving("input=4096,output=1,batch=128,expert=128,precision=fp8"))
    assert latent.cache_bytes_per_token == 70272
    _, grouped = plan_serving(llama, cluster, parse_serving("tensor=8"))
    assert grouped.cache_bytes_per_token == 2 * 80 * 2 * 8 * 128 / 8
    _, one = plan_serving(llama, parse_cluster("gpus=8,kind=h200"), parse_serving("tensor=8,batch=0.125"))
    assert one.decode.binds == "memory bandwidth"  # a single request
    _, busy = plan_serving(llama, parse_cluster("gpus=8,kind=h200"), parse_serving("tensor=8,input=100,output=100"))
    assert busy.decode.binds == "compute" and busy.tokens_per_second > 20 * one.tokens_per_second


def test_longer_longest_completions_cost_sampling_alone(llama):
    cluster, layout = parse_cluster("gpus=64,kind=h100"), parse_layout("tensor=8")
    text = "prompts=64,group_size=8,response=2000,updates=4,tensor=8,longest="
    short, long = (rl_time(llama, cluster, layout, parse_rl(f"{text}{longest}")) for longest in (2000, 16000))
    assert long.sampling > 1.5 * short.sampling and long.training == short.training
    assert plan_rl(llama, cluster, layout, parse_rl(f"{text}4000,steps=10")).seconds > 0


def test_a_lower_power_limit_slows_products_by_its_cube_root():
    gpu = GPUS["h100"]
    slow = limited(gpu, 500, gpu.memory, gpu.bandwidth)
    assert slow.bf16 == pytest.approx(gpu.bf16 * (5 / 7) ** (1 / 3)) and slow.bandwidth == gpu.bandwidth
    assert limited(gpu, 900, gpu.memory, gpu.bandwidth).bf16 == gpu.bf16


REFUSED = {
    "an unknown GPU": ("gpus=8,kind=h1000", "'h1000'.*Did you mean 'h100'.*a100, h100, h800"),
    "no GPU": ("gpus=0,kind=h100", "gpus = '0'.*above 0"),
    "half a GPU": ("gpus=1.5,kind=h100", "gpus = '1.5'.*whole number"),
    "no kind": ("gpus=8", "kind is missing"),
    "no number": ("gpus=many,kind=h100", "gpus = 'many'.*must be a number"),
    "a broken node": ("gpus=12,kind=h100", "gpus = 12.*per_node = 8"),
    "an unknown key": ("gpus=8,kind=h100,prize=2", "prize.*Did you mean 'price'"),
    "a key twice": ("gpus=8,gpus=16,kind=h100", "gpus is given twice"),
    "no pair": ("8,kind=h100", "'8' is no key=value"),
    "a wrong size": ("gpus=8,kind=h100,memory=big", "memory = 'big'"),
}


@pytest.mark.parametrize("text, sentence", REFUSED.values(), ids=REFUSED)
def test_a_wrong_cluster_is_refused_with_a_sentence(text, sentence):
    with pytest.raises(UserError, match=sentence):
        parse_cluster(text)


@pytest.mark.parametrize("text, sentence", [
    ("tensor=3", "tensor x pipeline x context = 3 does not divide gpus = 64"),
    ("expert=7", "does not divide n_routed_experts = 256"),
    ("pipeline=64,chunks=2", "128 stages, and the model has 61 layers"),
    ("pipeline=16,expert=8", "does not divide the 4 GPUs of a pipeline stage"),
    ("schedule=none", "1f1b, zero-bubble"),
], ids=["product", "experts", "stages", "stage", "schedule"])
def test_a_layout_that_does_not_divide_is_refused(v3, text, sentence):
    with pytest.raises(UserError, match=sentence):
        check_layout(parse_layout(text), v3.config, parse_cluster("gpus=64,kind=h100"))


def test_experts_of_a_dense_model_and_heads_that_do_not_divide(llama):
    cluster = parse_cluster("gpus=48,kind=h100")
    with pytest.raises(UserError, match="the model has no routed experts"):
        check_layout(parse_layout("expert=8"), llama.config, cluster)
    with pytest.raises(UserError, match="tensor = 3 does not divide num_attention_heads = 64. Give one of 1, 2, 4, 8."):
        check_layout(parse_layout("tensor=3"), llama.config, cluster)
    with pytest.raises(UserError, match="does not divide num_attention_heads"):
        plan_serving(llama, cluster, parse_serving("tensor=3"))


def test_a_batch_that_does_not_divide_is_refused(llama):
    cluster, work = parse_cluster("gpus=64,kind=h100"), parse_training("batch=60")
    with pytest.raises(UserError, match="batch = 60 sequences are not 64 data-parallel ranks"):
        micro_batches(work, Layout(), cluster)
    with pytest.raises(UserError, match="batch = 1 sequences cannot be dealt evenly"):
        plan_training(PlannedModel(config(LLAMA)), parse_cluster("gpus=64,kind=h100"), None, parse_training("batch=1"))


def test_a_model_that_cannot_fit_says_the_least_number_of_gpus(llama):
    with pytest.raises(UserError, match=r"does not fit 8 x h100 of 80 GB.*At least (16|32) of these GPUs") as error:
        plan_training(llama, parse_cluster("gpus=8,kind=h100"), None, parse_training("batch=64"))
    least = int(str(error.value).split("At least ")[1].split()[0])
    assert plan_training(llama, parse_cluster(f"gpus={least},kind=h100"), None, parse_training("batch=64"))
    with pytest.raises(UserError, match="a GPU would need"):
        plan_training(llama, parse_cluster("gpus=8,kind=h100"), parse_layout("tensor=8"), parse_training("batch=64"))
    with pytest.raises(UserError, match="weights take 1.. GB, and one has 80.*tensor, expert"):
        plan_serving(llama, parse_cluster("gpus=8,kind=h100"), parse_serving("tensor=1"))
    with pytest.raises(UserError, match="batch = 5000: the cache of [0-9]+ requests fits"):
        plan_serving(llama, parse_cluster("gpus=8,kind=h100"), parse_serving("tensor=8,batch=5000"))


def test_what_the_gpu_or_the_model_does_not_have(llama):
    cluster = parse_cluster("gpus=64,kind=a100")
    with pytest.raises(UserError, match="--train: precision = fp8: a100 does not.*h100"):
        plan_training(llama, cluster, None, parse_training("precision=fp8"))
    with pytest.raises(UserError, match="--serve: precision = fp8: a100"):
        plan_serving(llama, cluster, parse_serving("precision=fp8"))
    with pytest.raises(UserError, match="mtp = yes: the model has no MTP module"):
        plan_training(llama, cluster, None, parse_training("mtp=yes"))
    with pytest.raises(UserError, match="context = 8 does not divide sequence = 4100"):
        plan_training(llama, cluster, parse_layout("context=8"), parse_training("sequence=4100"))


def test_what_is_not_given_is_chosen(v3, llama):
    work, _ = plan_serving(llama, parse_cluster("gpus=8,kind=h100"), parse_serving("precision=fp8"))
    assert work.tensor > 1 and work.expert == 1
    work, plan = plan_serving(v3, parse_cluster("gpus=64,kind=h800"), parse_serving("precision=fp8"))
    assert work.tensor == 1 and work.expert > 8 and plan.weight_bytes + plan.cache_bytes < 80e9


def test_requests_of_one_length_take_whole_waves(v3):
    """By hand: a wave's time is its prefill and its steps; one request more than a wave holds takes nearly another one."""
    cluster, work = parse_cluster("gpus=8,kind=h200"), "input=1024,output=4096,expert=8,precision=fp8,cache=fp8"
    endless, full = (serving_plan(v3, cluster, parse_serving(work + more)) for more in ("", ",whole=yes"))
    assert full.batch == pytest.approx(endless.batch * (1024 + 2048) / (1024 + 4096))  # of its last token
    batch = full.batch
    once, one_more, twice = (serving_plan(v3, cluster, parse_serving(f"{work},requests={8 * count}"))
                             for count in (batch, batch + 1, 2 * batch))
    seconds = batch * 1024 / full.prefill_rate + 4096 * full.decode.seconds
    assert once.tokens_per_second == pytest.approx(batch * 4096 / seconds)
    assert twice.tokens_per_second == pytest.approx(once.tokens_per_second)
    assert one_more.tokens_per_second < 0.85 * once.tokens_per_second


def test_messages_to_experts_are_waited_for_without_two_batches(v3):
    cluster, work = parse_cluster("gpus=8,kind=h200"), "input=4096,output=1000,expert=8,precision=fp8"
    hidden, seen = (serving_plan(v3, cluster, parse_serving(work + more)) for more in ("", ",two_batches=no"))
    assert hidden.prefill.network == 0 < seen.prefill.network and seen.prefill_rate < hidden.prefill_rate


@pytest.mark.parametrize("parse, text, sentence", [
    (parse_training, "tokens=-1", "tokens = '-1'"), (parse_training, "precision=fp4", "bf16, fp8"),
    (parse_training, "recompute=some", "none, cheap, selective, full"), (parse_rl, "longest=10,response=20", "longest = 10"),
    (parse_rl, "prompts=1,group_size=2,updates=4", "updates = 4"), (parse_rl, "scorings=1.5", "whole"),
    (parse_serving, "cached=1", "cached = 1"), (parse_serving, "outputs=3", "Did you mean 'output'"),
    (parse_serving, "requests=8,separate=yes", "requests = 8 with separate = yes"),
], ids=["tokens", "precision", "recompute", "longest", "updates", "scorings", "cached", "key", "waves"])
def test_wrong_work_is_refused(parse, text, sentence):
    with pytest.raises(UserError, match=sentence):
        parse(text)
