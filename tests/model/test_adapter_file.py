"""Adapters on disk: PEFT's names, shapes and options, written by hand here; logits against transformers with the sum in it."""

import json
import math
import re
from pathlib import Path

import pytest
import tiny
import torch
import transformers
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from spoutnik.engine.llm import LLM
from spoutnik.engine.sampling_params import SamplingParams
from spoutnik.errors import RunError, UserError
from spoutnik.loading import load_adapted
from spoutnik.model.adapter_file import Adapter, attach_adapter, base_hash, folded, read_adapter, write_adapter
from spoutnik.model.lora import LoraConfig, LowRank, adapters_of, add_lora
from spoutnik.model.weights import load_model, save_model

transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()
# What PEFT 0.21 writes beside what decides the result.
BESIDE = {"auto_mapping": None, "base_model_name_or_path": "org/base", "bias": "none", "fan_in_fan_out": False,
          "inference_mode": True, "init_lora_weights": True, "layers_pattern": None, "layers_to_transform": None,
          "loftq_config": {}, "lora_bias": False, "megatron_core": "megatron.core", "modules_to_save": None,
          "qalora_group_size": 16, "target_parameters": None, "trainable_token_indices": None, "use_qalora": False,
          "peft_version": "0.21.2", "task_type": "CAUSAL_LM", "ensure_weight_tying": False, "arrow_config": None}


def write_peft(folder, config, shapes, magnitudes=(), outputs=None):
    """A folder as PEFT writes it. shapes: map -> (rank, inputs, outputs). outputs: of magnitudes, where they are wrong."""
    folder.mkdir(parents=True, exist_ok=True)
    generator, tensors = torch.Generator().manual_seed(5), {}
    for name, (rank, inputs, rows) in shapes.items():
        tensors[f"base_model.model.model.{name}.lora_A.weight"] = 0.3 * torch.randn(rank, inputs, generator=generator)
        tensors[f"base_model.model.model.{name}.lora_B.weight"] = 0.3 * torch.randn(rows, rank, generator=generator)
        if name in magnitudes:
            length = torch.rand(rows if outputs is None else outputs, generator=generator) + 0.5
            tensors[f"base_model.model.model.{name}.lora_magnitude_vector"] = length
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    (folder / "adapter_config.json").write_text(json.dumps(BESIDE | {"peft_type": "LORA"} | config))
    return tensors


Q, OUT, DOWN = "layers.0.self_attn.q_proj", "layers.1.self_attn.o_proj", "layers.1.mlp.down_proj"
SHAPES = {Q: (4, 32, 48), OUT: (2, 48, 32), DOWN: (4, 48, 32)}  # map -> (rank, inputs, outputs)
PLAIN = {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "o_proj", "down_proj"], "rank_pattern": {"o_proj": 2},
         "alpha_pattern": {}, "use_rslora": False, "use_dora": False}
CASES = {
    "patterns": (PLAIN | {"alpha_pattern": {r"layers\.1\.mlp\.down_proj": 64, "proj_o": 3}}, {Q: 2.0, OUT: 4.0, DOWN: 16.0}),
    "rslora": (PLAIN | {"use_rslora": True}, {Q: 4.0, OUT: 8 / math.sqrt(2), DOWN: 4.0}),
    "dora": (PLAIN | {"use_dora": True}, {Q: 2.0, OUT: 4.0, DOWN: 2.0}),
}


def summed(folder, tensors, scales):
    """transformers' model of the folder with W + s B A (and DoRA's rescaled rows) in its weights."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    with torch.no_grad():
        for name, scale in scales.items():
            a, b = (tensors[f"base_model.model.model.{name}.lora_{half}.weight"] for half in "AB")
            weight = model.get_parameter(f"model.{name}.weight")
            weight += scale * b @ a
            if (m := tensors.get(f"base_model.model.model.{name}.lora_magnitude_vector")) is not None:
                weight *= (m / weight.norm(dim=1))[:, None]
    return model


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("base")
    save_model(folder, tiny.model(tiny.QWEN3), torch.float32)
    return folder


@pytest.mark.parametrize("case", CASES)
def test_peft_s_folders_give_the_logits_of_the_sum_and_go_out_in_the_form_that_every_reader_takes(case, base, tmp_path):
    config, scales = CASES[case]
    tensors = write_peft(tmp_path / "theirs", config, SHAPES, scales if config["use_dora"] else ())
    ids, model = tiny.tokens(2, 20), load_model(base)
    plain = model(ids)
    attach_adapter(model, read_adapter(tmp_path / "theirs"), tmp_path / "theirs")
    expected = summed(base, tensors, scales)(ids).logits
    assert (expected - plain).abs().max() > 1
    assert (model(ids) - expected).abs().max() < 2e-4

    write_adapter(tmp_path / "ours", Adapter(adapters_of(model), "org/base"))
    written = json.loads((tmp_path / "ours" / "adapter_config.json").read_text())
    assert not written["use_rslora"] and not written["rank_pattern"] and not written["alpha_pattern"] and written["r"] == 4
    ours = load_file(tmp_path / "ours" / "adapter_model.safetensors")
    scale = written["lora_alpha"] / written["r"]  # all that vLLM and llama.cpp know of it
    assert (summed(base, ours, dict.fromkeys(scales, scale))(ids).logits - expected).abs().max() < 2e-4


def test_what_is_written_has_peft_s_names_shapes_and_types_and_repeats_to_the_byte(tmp_path):
    model = add_lora(tiny.model(tiny.LLAMA), LoraConfig(4, 8.0, dropout=0.1), torch.Generator().manual_seed(0))
    for name in ("one", "two"):
        write_adapter(tmp_path / name, Adapter(adapters_of(model), "org/base", base_hash(model, adapters_of(model))))
    with safe_open(tmp_path / "one" / "adapter_model.safetensors", "pt") as file:
        shapes = {name: file.get_slice(name).get_shape() for name in file.keys()}
        assert file.metadata() == {"format": "pt"} and {file.get_tensor(name).dtype for name in shapes} == {torch.float32}
    expected = {}
    for layer in range(2):
        for name, (inputs, outputs) in {
                "self_attn.q_proj": (32, 32), "self_attn.k_proj": (32, 16), "self_attn.v_proj": (32, 16),
                "self_attn.o_proj": (32, 32), "mlp.gate_proj": (32, 48), "mlp.up_proj": (32, 48),
                "mlp.down_proj": (48, 32)}.items():
            expected[f"base_model.model.model.layers.{layer}.{name}.lora_A.weight"] = [4, inputs]
            expected[f"base_model.model.model.layers.{layer}.{name}.lora_B.weight"] = [outputs, 4]
    assert shapes == expected
    for file in ("adapter_config.json", "adapter_model.safetensors", "base.json"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()
    text = (tmp_path / "one" / "adapter_config.json").read_text()
    config = json.loads(text)
    assert list(config) == sorted(config) and str(tmp_path) not in text
    assert (config["r"], config["lora_alpha"], config["lora_dropout"]) == (4, 8, 0.1)
    assert config["base_model_name_or_path"] == "org/base"
    assert config["target_modules"] == ["down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj"]


def test_maps_of_some_layers_alone_are_named_in_full(tmp_path):
    part = LowRank(torch.ones(2, 32), torch.ones(32, 2), 1.0)
    write_adapter(tmp_path, Adapter({"layers.1.self_attn.o_proj": part}))
    assert json.loads((tmp_path / "adapter_config.json").read_text())["target_modules"] == ["model.layers.1.self_attn.o_proj"]


def test_folding_keeps_every_sum():
    generator = torch.Generator().manual_seed(0)
    parts = {str(rank): LowRank(torch.randn(rank, 6, generator=generator), torch.randn(5, rank, generator=generator), scale)
             for rank, scale in ((1, 2.0), (3, 2.0), (4, 0.5))}
    uniform = folded(parts)
    assert {(part.rank, part.scale) for part in uniform.values()} == {(4, 2.0)}
    for name, part in parts.items():
        torch.testing.assert_close(uniform[name].delta(), part.delta())


def edited(**changes):
    def edit(folder):
        write_peft(folder, PLAIN | changes, SHAPES)
    return edit


def renamed(old, new):
    def edit(folder):
        tensors = write_peft(folder, PLAIN, SHAPES)
        save_file({name.replace(old, new): tensor for name, tensor in tensors.items()}, folder / "adapter_model.safetensors")
    return edit


def changed(change):
    """One tensor of the file replaced by what `change` makes of it."""
    def edit(folder):
        tensors = write_peft(folder, PLAIN, SHAPES)
        name = min(tensors)
        save_file(tensors | {name: change(tensors[name])}, folder / "adapter_model.safetensors")
    return edit


def removed(name):
    def edit(folder):
        write_peft(folder, PLAIN, SHAPES)
        (folder / name).unlink()
    return edit


@pytest.mark.parametrize("edit, words", [
    (edited(modules_to_save=["lm_head"]), "modules_to_save.*not computed here"),
    (edited(lora_bias=True), "lora_bias"), (edited(bias="all"), "bias = 'all'"),
    (edited(fan_in_fan_out=True), "fan_in_fan_out"),
    (edited(trainable_token_indices=[3]), "trainable_token_indices"), (edited(layer_replication=[[0, 2]]), "layer_replication"),
    (edited(alora_invocation_tokens=[1]), "alora_invocation_tokens"), (edited(use_qalora=True), "use_qalora"),
    (edited(target_parameters=["mlp.experts.down_proj"]), "target_parameters"), (edited(invented={"a": 1}), "invented"),
    (edited(peft_type="IA3"), "peft_type = 'IA3'"), (edited(init_lora_weights="pissa"), "init_lora_weights = 'pissa'"),
    (edited(rank_pattern={}), "rank 4.*do not belong together"), (edited(use_dora=True), "no lora_magnitude_vector"),
    (renamed("model.layers.0.self_attn.q_proj", "lm_head"), "lm_head.*leave out"),
    (renamed(".mlp.", ".mlp.experts."), "routed experts"), (renamed("q_proj.lora_A", "q_proj.lora_embedding_A"), "leave out"),
    (removed("adapter_config.json"), "holds no adapter_config.json"),
    (removed("adapter_model.safetensors"), "adapter_model.safetensors: is missing"),
    (edited(lora_alpha="16"), "lora_alpha = '16': must be a number"), (edited(lora_alpha=float("nan")), "lora_alpha = nan"),
    (edited(alpha_pattern={"q_proj": "32"}), "alpha_pattern.q_proj = '32'"), (edited(r="4"), "r = '4': must be a number"),
    (edited(lora_alpha=None), "lora_alpha = None: must be a number"), (edited(r=0), "r = 0: must be a rank, 1 or more"),
    (edited(rank_pattern={"o_proj": 0}), "rank_pattern.o_proj = 0: must be a rank"),
    (edited(lora_dropout="much"), "lora_dropout = 'much': must be a number"),
    (edited(target_modules=["o_proj", "down_proj"]), r"q_proj, which target_modules = \['o_proj', 'down_proj'\] in .*leaves"),
    (edited(target_modules=r".*\.(o|down)_proj"), "q_proj, which target_modules"),
    (edited(exclude_modules=["q_proj"]), r"layers.0.self_attn.q_proj, which exclude_modules = \['q_proj'\]"),
    (edited(exclude_modules=r".*down_proj"), "down_proj, which exclude_modules"),
    (edited(layers_to_transform=[1]), r"layers.0.self_attn.q_proj, which layers_to_transform = \[1\]"),
    (edited(layers_to_transform=0), "layers.1.*which layers_to_transform = 0"),
    (edited(target_modules="(q_proj"), r"target_modules = '\(q_proj': must be a list of names, or a pattern"),
    (edited(exclude_modules=3), "exclude_modules = 3: must be a list of names, or a pattern"),
    (changed(lambda tensor: tensor[0].clone()), "tensors of 1 axes"),
    (lambda folder: write_peft(folder, PLAIN | {"use_dora": True}, SHAPES, {Q: 1, OUT: 1, DOWN: 1}, outputs=7),
     r"magnitudes of \[7\] and"),
    (lambda folder: (write_peft(folder, PLAIN, SHAPES), (folder / "adapter_config.json").write_text("[]")),
     "adapter_config.json: must hold a JSON object, not a list"),
    (lambda folder: (write_peft(folder, PLAIN, SHAPES), (folder / "base.json").write_text("[]")), "base.json: must hold a"),
    (edited(rank_pattern={"(q_proj": 4}), r"rank_pattern: '\(q_proj' is no pattern"),
    (edited(alpha_pattern=["q_proj"]), "alpha_pattern = .*must be an object"),
    (changed(lambda tensor: tensor * float("inf")), "not finite.*earlier checkpoint"),
    (changed(lambda tensor: tensor.to(torch.int8)), "holds int8, not floating-point numbers"),
    (renamed("layers.0", "layers.7"), "layers.7.*this model has not.*org/base"),
    (lambda folder: write_peft(folder, PLAIN, SHAPES | {Q: (4, 32, 40)}), "40 x 32.*48 x 32.*org/base"),
], ids=lambda value: re.sub(r"\W+", "-", value) if isinstance(value, str) else "")
def test_what_is_not_computed_or_does_not_fit_is_refused_by_name(edit, words, base, tmp_path):
    edit(tmp_path)
    with pytest.raises((UserError, RunError), match=words):
        attach_adapter(load_model(base), read_adapter(tmp_path), tmp_path)


@pytest.mark.parametrize("options", [
    {"layers_to_transform": [0, 1], "layers_pattern": "layers"}, {"exclude_modules": ["lm_head"]},
    {"target_modules": "all-linear"}, {"target_modules": r".*\.layers\.\d\.(self_attn|mlp)\.\w+_proj"},
    {"target_modules": [f"model.{Q}", "o_proj", "down_proj"]}],
    ids=["layers", "excluded", "all", "pattern", "whole-name"])
def test_options_that_choose_what_the_file_holds_change_nothing(options, base, tmp_path):
    write_peft(tmp_path, PLAIN | options, SHAPES)
    assert attach_adapter(load_model(base), read_adapter(tmp_path), tmp_path)
    assert read_adapter(tmp_path).parts.keys() == SHAPES.keys()


def test_a_damaged_file_is_a_sentence(tmp_path):
    write_peft(tmp_path, PLAIN, SHAPES)
    file = tmp_path / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(RunError, match="is damaged"):
        read_adapter(tmp_path)


def test_an_adapter_of_other_weights_of_the_same_shapes_is_refused_and_a_copy_in_bfloat16_is_none(tmp_path):
    model = tiny.model(tiny.LLAMA)
    save_model(tmp_path / "bf16", model, torch.bfloat16)
    model = add_lora(model, LoraConfig(4, 8.0), torch.Generator().manual_seed(0))
    write_adapter(tmp_path / "adapter", Adapter(adapters_of(model), "org/base", base_hash(model, adapters_of(model))))
    attach_adapter(load_model(tmp_path / "bf16"), read_adapter(tmp_path / "adapter"), tmp_path / "adapter")
    with pytest.raises(UserError, match="other weights.*org/base"):
        attach_adapter(tiny.model(tiny.LLAMA, seed=1), read_adapter(tmp_path / "adapter"), tmp_path / "adapter")


def test_the_engine_loads_a_model_with_an_adapter_and_keeps_float32_where_bfloat16_would_lose_it(
        base, tmp_path, capsys):
    write_peft(tmp_path / "large", PLAIN, SHAPES)
    write_peft(tmp_path / "small", PLAIN | {"lora_alpha": 1e-4}, SHAPES)
    assert load_adapted(base, tmp_path / "large", torch.bfloat16).embed_tokens.weight.dtype == torch.bfloat16
    assert not capsys.readouterr().err
    kept = load_adapted(base, tmp_path / "small", torch.bfloat16)
    assert "would survive rounding to bfloat16, so the model computes in float32" in capsys.readouterr().err
    assert kept.embed_tokens.weight.dtype == kept.compute_dtype == torch.float32
    prompts = [tiny.tokens(8).tolist()]
    model = load_model(base)
    attach_adapter(model, read_adapter(tmp_path / "large"), tmp_path / "large")
    params = SamplingParams(max_tokens=20)
    with_it, sum_of, without = (llm.generate(prompts, params, seed=1)[0].outputs[0].token_ids for llm in (
        LLM(base, adapter=tmp_path / "large", dtype="float32"), LLM(model), LLM(base, dtype="float32")))
    assert with_it == sum_of != without
    with pytest.raises(UserError, match="is of a model's folder"):
        LLM(model, adapter=tmp_path / "large")


def test_a_name_before_a_path_is_told_where_it_belongs(tmp_path):
    with pytest.raises(UserError, match=r"law=.*: holds no adapter_config.json.*here give .*/mine alone"):
        read_adapter(Path(f"law={tmp_path}/mine"))
