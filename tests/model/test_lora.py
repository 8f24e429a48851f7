"""LoRA, rsLoRA and DoRA: the papers' equations against plain matrices, on every type of model; what is trained, what not."""

import pytest
import tiny
import torch
import torch.nn.functional as F

from spoutnik.engine.llm import LLM
from spoutnik.engine.quantization.packed_base import PackedLinear
from spoutnik.engine.sampling_params import SamplingParams
from spoutnik.errors import UserError
from spoutnik.model.adapter_merge import Survival, survival
from spoutnik.model.adapter_switches import dropout_from
from spoutnik.model.cache import Cache
from spoutnik.model.layers import Linear
from spoutnik.model.lora import LoraConfig, LowRank, adaptable, adapters_of, add_lora, lora_scale, merged_copy
from spoutnik.model.packing import PackedSequences
from spoutnik.native import operations
from spoutnik.train.batches import Document
from spoutnik.train.language_model import language_model_gradient
from spoutnik.train.losses import token_log_probs
from spoutnik.train.settings import LanguageModelSettings

VARIANTS = {"lora": {}, "rslora": {"use_rslora": True}, "dora": {"use_dora": True}}


def adapted(base=tiny.LLAMA, rank=4, alpha=8.0, **options):
    """A model whose adapters add something (new ones add nothing)."""
    model = add_lora(tiny.model(base), LoraConfig(rank, alpha, **options), torch.Generator().manual_seed(1))
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for part in adapters_of(model).values():
            part.lora_B.normal_(0, 0.05, generator=generator)
            if part.magnitude is not None:
                part.magnitude *= 1 + 0.1 * torch.rand(part.magnitude.shape, generator=generator)
    return model


@pytest.mark.parametrize("base", tiny.ALL)
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_new_adapter_changes_nothing_and_a_trained_one_is_its_sum_with_the_weights(base, variant):
    ids = tiny.tokens(2, 20)
    plain = tiny.model(tiny.ALL[base])(ids)
    new = add_lora(tiny.model(tiny.ALL[base]), LoraConfig(4, 8.0, **VARIANTS[variant]), torch.Generator().manual_seed(1))
    assert (new(ids) - plain).abs().max() < 1e-4
    model = adapted(tiny.ALL[base], **VARIANTS[variant])
    assert (model(ids) - plain).abs().max() > 0.1
    assert (model(ids) - merged_copy(model)(ids)).abs().max() < 1e-4


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_equations_of_the_papers(variant):
    generator = torch.Generator().manual_seed(0)
    weight, x = torch.randn(6, 5, generator=generator), torch.randn(3, 5, generator=generator)
    a, b, m = (torch.randn(*shape, generator=generator) for shape in ((2, 5), (6, 2), (6,)))
    options = VARIANTS[variant]
    part = LowRank(a, b, LoraConfig(2, 3.0, **options).scale, m if "use_dora" in options else None)
    scale = 3.0 / 2 ** 0.5 if variant == "rslora" else 3.0 / 2
    total = weight + scale * b @ a
    if variant == "dora":
        total = torch.stack([m[i] * row / row.norm() for i, row in enumerate(total)])
    torch.testing.assert_close(part.merged(weight), total)
    torch.testing.assert_close(part(x, x @ weight.T, weight), x @ total.T)
    assert lora_scale(16, 64, True) == 2.0 and lora_scale(16, 64, False) == 0.25


def test_a_new_a_is_uniform_as_peft_initializes_it_and_repeats_with_its_seed():
    parts = [adapters_of(add_lora(tiny.model(tiny.LLAMA), LoraConfig(16, 8.0), torch.Generator().manual_seed(seed)))
             for seed in (1, 1, 2)]
    first, again, other = (part["layers.1.mlp.down_proj"].lora_A for part in parts)
    assert torch.equal(first, again) and not torch.equal(first, other)
    bound = 48 ** -0.5  # of kaiming_uniform_ with a = sqrt(5)
    assert 0.98 * bound < first.abs().max() <= bound and abs(first.std() / (bound / 3 ** 0.5) - 1) < 0.05


@pytest.mark.parametrize("base", ["llama", "qwen2", "qwen3", "deepseek_v2", "deepseek_v3"])
def test_all_linear_leaves_out_router_routed_experts_head_embedding_and_mtp(base):
    model = add_lora(tiny.model(tiny.ALL[base]), LoraConfig(2, 4.0), torch.Generator().manual_seed(0))
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert trained == {f"{name}.adapter.lora_{half}" for name in adaptable(model) for half in "AB"}
    last = {name.rpartition(".")[2] for name in adaptable(model)}
    if base.startswith("deepseek"):
        assert {"q_a_proj", "kv_b_proj", "o_proj", "down_proj"} <= last
        assert any("shared_experts" in name for name in trained)
    assert not any(part in name for name in trained for part in ("lm_head", "embed", "gate.", "mtp", ".experts."))


def test_chosen_targets_alone_are_adapted():
    model = add_lora(tiny.model(tiny.LLAMA), LoraConfig(2, 4.0, target_modules=("v_proj", "q_proj")), torch.Generator())
    assert set(adapters_of(model)) == {f"layers.{i}.self_attn.{name}" for i in (0, 1) for name in ("q_proj", "v_proj")}


@pytest.mark.parametrize("config, words", [
    (LoraConfig(17, 1.0), ("adapter.rank = 17", "k_proj", "16 x 32")),
    (LoraConfig(2, 1.0, target_modules=("q_porj",)), ("q_porj", "Did you mean 'q_proj'")),
    (LoraConfig(2, 1.0, target_modules=("lm_head",)), ("is the head",)),
    (LoraConfig(2, 1.0, target_modules=("experts",)), ("are the routed experts", "experts: true")),
    (LoraConfig(2, 1.0, experts=True), ("experts = true", "no routed experts")),
    (LoraConfig(2, 1.0, target_modules=()), ("adapter.target_modules = []", "nothing would be trained", "q_proj"))],
    ids=["rank", "typo", "head", "experts", "no experts", "none"])
def test_targets_that_cannot_be_are_refused_and_the_model_stays(config, words):
    model = tiny.model(tiny.LLAMA)
    with pytest.raises(UserError) as raised:
        add_lora(model, config, torch.Generator())
    assert all(word in str(raised.value) for word in words), str(raised.value)
    assert not adapters_of(model) and all(parameter.requires_grad for parameter in model.parameters())


# Training

DOCUMENTS = [Document(tiny.tokens(length, seed=length).tolist(), loss_from=3) for length in (9, 14, 20)]
SETTINGS = LanguageModelSettings(learning_rate=1e-2, balance_loss_alpha=0.0, mtp_loss_weight=0.0)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("base", ["llama", "qwen3", "deepseek_v3"])
def test_gradients_equal_those_of_a_twin_with_summed_weights(base, variant):
    model = adapted(tiny.ALL[base], **VARIANTS[variant])
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    gradient, _ = language_model_gradient(model, DOCUMENTS, parameters, SETTINGS)

    twin, scale = tiny.model(tiny.ALL[base]), LoraConfig(4, 8.0, **VARIANTS[variant]).scale
    thin = {name: [p.detach().clone().requires_grad_() for p in part.parameters()] for name, part in adapters_of(model).items()}
    summed = {}
    for name, (a, b, *magnitude) in thin.items():
        total = twin.get_parameter(f"{name}.weight").detach() + scale * b @ a
        if magnitude:  # its norm is a constant to the gradient
            total = total * (magnitude[0] / total.detach().norm(dim=1))[:, None]
        summed[f"{name}.weight"] = total

    def loss(ids, sequences):
        hidden = torch.func.functional_call(_Hidden(twin), {f"model.{name}": t for name, t in summed.items()}, (ids, sequences))
        logits = hidden @ twin.lm_head.weight.detach().T
        rows, start = [], 0
        for document in DOCUMENTS:
            rows += list(range(start + document.loss_from - 1, start + len(document.ids) - 1))
            start += len(document.ids)
        rows = torch.tensor(rows)
        return F.cross_entropy(logits[rows], ids[rows + 1])

    ids = torch.tensor([i for document in DOCUMENTS for i in document.ids])
    value = loss(ids, PackedSequences.of([len(document.ids) for document in DOCUMENTS], ids.device))
    expected = torch.autograd.grad(value, [p for of_map in thin.values() for p in of_map])
    assert gradient.metrics["loss"] == pytest.approx(float(value.detach()), rel=1e-5)
    for ours, theirs in zip(gradient.gradients, expected, strict=True):
        torch.testing.assert_close(ours, theirs, atol=2e-5, rtol=1e-3)


class _Hidden(torch.nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, ids, sequences):
        return self.model.hidden(ids, sequences)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_step_of_either_optimizer_moves_the_adapter_alone_and_lowers_the_loss(optimizer):
    model = add_lora(tiny.model(tiny.DEEPSEEK), LoraConfig(4, 8.0), torch.Generator().manual_seed(0))
    chosen = SETTINGS.model_copy(update={"optimizer": optimizer, "weight_decay": 0.0})
    steps = chosen.make_optimizer(model)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    losses = []
    for _ in range(8):
        gradient, _ = language_model_gradient(model, DOCUMENTS, steps.parameters, chosen)
        losses.append(gradient.metrics["loss"])
        steps.step(gradient.gradients, 1.0)
    assert losses[-1] < losses[0] - 0.05
    moved = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert moved == {name for name in before if ".adapter." in name}
    assert sum(state.numel() for state in steps.tensors().values() if state.dim() > 0) <= 2 * sum(
        p.numel() for p in model.parameters() if p.requires_grad)


def test_a_frozen_head_costs_no_gradient_and_gives_the_same_one_to_the_states():
    hidden, weight = torch.randn(7, 8), torch.randn(20, 8)
    targets = torch.arange(7)
    gradients = []
    for trained in (True, False):
        states, head = hidden.clone().requires_grad_(), weight.clone().requires_grad_(trained)
        token_log_probs(states, head, targets)[0].sum().backward()
        gradients.append(states.grad)
        assert (head.grad is not None) == trained
    torch.testing.assert_close(*gradients)


def test_dropout_is_a_function_of_the_step_and_is_off_outside_of_training():
    model = adapted(dropout=0.5)
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    first, again, other = (language_model_gradient(model, DOCUMENTS, parameters, SETTINGS, step)[0].metrics["loss"]
                           for step in (3, 3, 4))
    assert first == again != other
    ids = tiny.tokens(1, 20)
    assert torch.equal(model(ids), model(ids))
    assert (model(ids) - merged_copy(model)(ids)).abs().max() < 1e-4


@pytest.mark.parametrize("variant", VARIANTS)
def test_dropout_keeps_the_expected_value_and_leaves_the_frozen_product_alone(variant):
    model = adapted(dropout=0.3, **VARIANTS[variant])
    module = model.layers[0].self_attn.o_proj
    x, generator = torch.randn(4, 32, generator=torch.Generator().manual_seed(0)), torch.Generator().manual_seed(1)
    with dropout_from(generator), torch.no_grad():
        mean = torch.stack([module(x) for _ in range(4000)]).mean(0)
    assert (mean - module(x)).abs().max() < 0.05


# What reads the weights

@pytest.mark.parametrize("base", ["llama", "deepseek_v3"])
def test_decoding_and_the_engine_read_the_sum(base):
    model = adapted(tiny.ALL[base])
    ids = tiny.tokens(9)
    cache = Cache.empty(model.config, 1, 32, torch.float32)
    with torch.no_grad():
        model.prefill(ids[:-1], PackedSequences.of([8], ids.device), cache)
        last = model.logits(model.decode(ids[-1:], cache))
    torch.testing.assert_close(last[0], model(ids[None])[0, -1], atol=1e-4, rtol=1e-4)
    greedy = SamplingParams(temperature=0.0, max_tokens=12, ignore_eos=True)
    one, other = (LLM(each, eos_token_ids=[1]).generate([ids.tolist()], greedy)[0].outputs[0].token_ids
                  for each in (model, merged_copy(model)))
    assert one == other != LLM(tiny.model(tiny.ALL[base]), eos_token_ids=[1]).generate(
        [ids.tolist()], greedy)[0].outputs[0].token_ids


def test_survival_is_one_in_float32_and_nearly_nothing_for_a_small_delta_in_bfloat16():
    def measured(alpha, dtype):
        model = tiny.model(tiny.LLAMA)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.copy_(parameter.bfloat16())
        add_lora(model, LoraConfig(4, alpha), torch.Generator().manual_seed(0))
        for part in adapters_of(model).values():
            torch.nn.init.normal_(part.lora_B, 0, 0.05, generator=torch.Generator().manual_seed(3))
        return survival(model, dtype)

    assert measured(8.0, torch.float32).share == pytest.approx(1.0, abs=1e-5)
    assert measured(8.0, torch.bfloat16).share == pytest.approx(1.0, abs=0.01)
    assert measured(8e-4, torch.bfloat16).share < 0.3
    with pytest.raises(UserError, match="--dtype f32"):
        measured(8e-4, torch.bfloat16).refuse_loss("adapter", "bf16")
    assert Survival().share == 1.0


def test_survival_counts_what_is_kept_of_the_delta():
    result, base = Survival(), torch.zeros(2)
    result.add(base, torch.tensor([3.0, 4.0]), torch.tensor([3.0, 0.0]))
    assert result.share == pytest.approx(9 / 25) and result.error == pytest.approx(0.8)


def test_the_sum_in_one_pass_is_the_one_step_by_step():
    part = LowRank(torch.randn(4, 12), torch.randn(10, 4), 2.5)
    x, weight = torch.randn(7, 12, requires_grad=True), torch.randn(10, 12)
    results = []
    for fused in (True, False):
        y = part(x, x @ weight.T, weight) if fused else x @ weight.T + 2.5 * ((x @ part.lora_A.T) @ part.lora_B.T)
        results.append([y.detach(), *torch.autograd.grad(y.square().sum(), (x, part.lora_A, part.lora_B))])
    for ours, plain in zip(*results, strict=True):
        torch.testing.assert_close(ours, plain, rtol=1e-4, atol=1e-3)


def small_part(kind: str) -> tuple[torch.nn.Module, LowRank, torch.Tensor]:
    """A frozen map, an adapter that adds less than half of the last digit to nearly all of its products, and rows."""
    generator = torch.Generator().manual_seed(0)
    module = Linear(64, 96, bias=False)
    module.weight = torch.nn.Parameter(torch.randn(96, 64, generator=generator).bfloat16(), requires_grad=False)
    if kind == "packed":
        module = PackedLinear(module, "int8")
    part = LowRank(torch.randn(4, 64, generator=generator) / 8, 2e-3 * torch.randn(96, 4, generator=generator), 2.0)
    return module, part, torch.randn(256, 64, generator=generator).bfloat16()


@pytest.fixture(params=["torch", "native", "packed"])
def kind(request, monkeypatch):
    if request.param == "native":
        rows = torch.zeros(64, 64, dtype=torch.bfloat16)
        if not operations.has_float32_products(rows, rows):
            pytest.skip("this processor does not multiply bfloat16")
        monkeypatch.setattr(operations, "has_fast_matmul", lambda x, weight: x.dtype == torch.bfloat16)
    return request.param


def test_in_bfloat16_the_map_s_rounding_does_not_swallow_what_the_adapter_adds(kind):
    module, part, x = small_part(kind)
    base = module(x).float()
    module.adapter = part
    added = part.product(x.float()).detach()
    assert added.abs().max() < base.abs().mean() / 64

    def share(y: torch.Tensor) -> float:
        """Of what the adapter adds, how much is there on average."""
        return float((y.detach().float() - base).mul(added).mean() / added.square().mean())

    assert share(module(x)) == pytest.approx(1, abs=0.1)
    assert share(part(x, base.bfloat16(), module.weight)) < 0.7  # rounded twice: this is what the test is for
    exact = (x.float() @ module.weight.bfloat16().float().T + part.product(x).float()).bfloat16()
    assert (module(x) == exact).float().mean() > 0.99  # but for the order of sums


def test_in_bfloat16_the_gradients_are_those_of_the_sum(kind):
    found = []
    for dtype in (torch.bfloat16, torch.float32):
        module, part, x = small_part(kind)
        module.adapter, x = part, x.to(dtype).requires_grad_(True)
        module(x).float().square().sum().backward()
        found.append([grad.float() for grad in (x.grad, part.lora_A.grad, part.lora_B.grad)])
    for grad, exact in zip(*found):
        assert (grad - exact).norm() < 0.01 * exact.norm()
