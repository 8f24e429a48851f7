"""Dense students are trained by the same methods as the mixture, and what comes out is what other tools load."""

from pathlib import Path

import pytest
import torch
import transformers
import yaml
from transformers import AutoModelForCausalLM, AutoTokenizer

from spoutnik.commands.progress import SilentDisplay
from spoutnik.export.writer import export
from spoutnik.model.weights import load_model
from spoutnik.recipe.run import run_recipe
from spoutnik.text.tokenizer import Tokenizer

transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()
TINY = Path(__file__).with_name("tiny.yaml")
LLAMA3 = {"type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 64}


@pytest.mark.parametrize("shape, architecture", [
    ({"model_type": "qwen2", "tie_word_embeddings": True}, "Qwen2ForCausalLM"),
    ({"model_type": "qwen3", "head_dim": 16}, "Qwen3ForCausalLM"),
    ({"model_type": "llama", "rope_scaling": LLAMA3}, "LlamaForCausalLM")], ids=lambda value: str(value)[:24])
def test_a_dense_student_is_pretrained_distilled_and_reinforced_and_then_loads_elsewhere(shape, architecture, tmp_path):
    recipe = yaml.safe_load(TINY.read_text())
    recipe["models"] = {"student": {
        "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2,
        "num_key_value_heads": 1, "max_position_embeddings": 256} | shape}
    stages = recipe["stages"]
    grpo = stages["reasoning_rl"] | {"from": "distilled"}
    distilled = stages["cold_start"] | {"kind": "distill", "from": "student_base"}
    recipe["stages"] = {"student_base": stages["student_base"], "distilled": distilled, "reinforced": grpo}
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe, sort_keys=False))
    # So small a model may earn no reward at all: this test is about shapes, not about learning.
    base, taught, reinforced = run_recipe(path, tmp_path / "run", SilentDisplay(), accept=["reinforced"]).artifacts

    weights = [load_model(artifact.folder).state_dict() for artifact in (base, taught, reinforced)]
    assert all(not torch.equal(weights[0][name], weights[1][name]) for name in weights[0])  # distillation moved everything
    assert len(reinforced.log) == 5 and all("reward" in row for row in reinforced.log)

    written = export(taught.folder, "hf", tmp_path / "export")
    assert written.architecture == architecture
    theirs, loading = AutoModelForCausalLM.from_pretrained(tmp_path / "export", dtype=torch.float32,
                                                           output_loading_info=True)
    assert type(theirs).__name__ == architecture
    assert not loading["missing_keys"] and not loading["unexpected_keys"]
    messages = [{"role": "user", "content": "What is 12 + 30?"}]
    ours = load_model(taught.folder)
    ids = Tokenizer.load(taught.folder).chat_ids(messages)
    tokens = AutoTokenizer.from_pretrained(tmp_path / "export").apply_chat_template(messages, add_generation_prompt=True)
    assert list(tokens["input_ids"]) == ids
    with torch.no_grad():
        difference = ours(torch.tensor([ids])) - theirs(torch.tensor([ids])).logits
    assert difference.abs().max() < 1e-4
