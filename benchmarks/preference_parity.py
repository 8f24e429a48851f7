"""DPO and KTO against TRL's trainers, in one process: losses, rewards and gradients of one step on the same tokens. Needs trl,
peft and transformers, which Spoutnik does not.

    python benchmarks/preference_parity.py [--record tests/train/trl_preferences.json]

The models are tiny and their weights a formula (tests/formula_model.py), so that what TRL computed can be kept for tests: that
is what --record does. The policy differs from the reference, with the whole model trained and with an adapter.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

import torch
import transformers
from datasets import Dataset
from peft import PeftConfig, set_peft_model_state_dict
from safetensors.torch import load_file
from trl import DPOConfig, DPOTrainer, KTOConfig, KTOTrainer
from trl.trainer.dpo_trainer import DataCollatorForPreference
from trl.trainer.kto_trainer import DataCollatorForUnpairedPreference

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
import formula_model

from spoutnik.model.adapter_file import Adapter, base_hash, write_adapter
from spoutnik.model.lora import LoraConfig, adapters_of, add_lora
from spoutnik.model.transformer import Transformer
from spoutnik.model.weights import save_model
from spoutnik.text.tokenizer import Tokenizer
from spoutnik.train.dpo import DPOSettings, dpo_gradient
from spoutnik.train.kto import KTOSettings, kto_gradient, mismatched
from spoutnik.train.preference_losses import kto_reference
from spoutnik.train.preferences import documents_of, reply_log_probs

transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()
_TOKENS = 10_000  # of a micro-batch: one holds all


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--record", type=Path)
    record = parser.parse_args().record
    rows, recorded = [], {}
    with tempfile.TemporaryDirectory() as temporary:
        for name, options in formula_model.CASES.items():
            for adapted in (False, True):
                theirs, ours = compare(Path(temporary) / f"{name}-{adapted}", name.split(" ")[0], options, adapted)
                case = f"{name}, {'adapter' if adapted else 'whole model'}"
                recorded[case] = theirs
                rows.append({"case": case} | {key: _difference(theirs[key], ours[key]) for key in theirs}
                            | {"largest gradient": max(map(abs, theirs["gradient"].values()))})
                print(rows[-1])
    if record:
        record.write_text(json.dumps(recorded, indent=1) + "\n")
    print(json.dumps(rows))


def compare(work: Path, method: str, options: dict, adapted: bool) -> tuple[dict, dict]:
    """TRL's numbers and ours of one step."""
    reference, policy = formula_model.model(0), formula_model.model(0 if adapted else -1)
    base = formula_model.model(0)
    work.mkdir()
    save_model(work / "base", base, torch.float32)
    save_model(work / "policy", policy, torch.float32)
    tokenizer = Tokenizer.train(["a b c d e f"] * 9, 300)
    if adapted:
        add_lora(policy, LoraConfig(2, 4.0), torch.Generator().manual_seed(0))
        formula_model.fill_adapters(policy)
        write_adapter(work / "adapter", Adapter(adapters_of(policy), "base", base_hash(policy, adapters_of(policy))))
    ours = _ours(policy, reference, method, options)
    peer = transformers.AutoModelForCausalLM.from_pretrained(work / "policy", dtype=torch.float32)
    against = None if adapted else transformers.AutoModelForCausalLM.from_pretrained(work / "base", dtype=torch.float32)
    tokenizer.save(work / "tokenizer")
    adapter = work / "adapter" if adapted else None
    return _theirs(peer, against, adapter, work / "tokenizer", method, options, work), ours


def _ours(policy: Transformer, reference: Transformer, method: str, options: dict) -> dict:
    parameters = [parameter for parameter in policy.parameters() if parameter.requires_grad]
    examples = formula_model.pairs() if method == "DPO" else formula_model.thumbs()
    references = reply_log_probs(reference, documents_of(examples), _TOKENS)
    if method == "DPO":
        step, _ = dpo_gradient(policy, examples, references, parameters, DPOSettings(learning_rate=0.1, **options))
    else:
        others = mismatched(examples, 64)
        kl = kto_reference(reply_log_probs(policy, others, _TOKENS) - reply_log_probs(reference, others, _TOKENS))
        settings = KTOSettings(learning_rate=0.1, **options)
        step, _ = kto_gradient(policy, examples, references, kl, parameters, settings, settings.weights_of(examples))
    names = [name for name, parameter in policy.named_parameters() if parameter.requires_grad]
    return formula_model.numbers(step.metrics, dict(zip(names, step.gradients)))


def _theirs(peer, reference, adapter: Path | None, tokenizer: Path, method: str, options: dict, work: Path) -> dict:
    common = {"output_dir": str(work / "out"), "beta": options["beta"], "bf16": False, "report_to": [], "use_cpu": True,
              "gradient_checkpointing": False, "disable_dropout": True}
    processing = transformers.PreTrainedTokenizerFast(tokenizer_file=str(tokenizer / "tokenizer.json"), pad_token="a",
                                                      eos_token="b")
    # An adapter that is there already would be its own reference.
    new = {"peft_config": PeftConfig.from_pretrained(adapter)} if adapter else {}
    if adapter:
        new["peft_config"].inference_mode = False
    if method == "DPO":
        if options.get("nll_weight"):
            common |= {"loss_type": ["sigmoid", "sft"], "loss_weights": [1.0, options["nll_weight"]]}
        data = Dataset.from_list([{"prompt": "a", "chosen": "b", "rejected": "c"}] * 2)
        trainer = DPOTrainer(peer, reference, DPOConfig(**common), train_dataset=data, processing_class=processing,
                             **new)
        batch = DataCollatorForPreference(pad_token_id=0)([
            {"prompt_ids": _prompt(pair.chosen), "chosen_ids": _reply(pair.chosen), "rejected_ids": _reply(pair.rejected)}
            for pair in formula_model.pairs()])
    else:
        weights = {key: options[key] for key in ("desirable_weight", "undesirable_weight")}
        data = Dataset.from_list([{"prompt": "a", "completion": "b", "label": True},
                                  {"prompt": "b", "completion": "c", "label": False}] * 2)
        trainer = KTOTrainer(peer, reference, KTOConfig(**common, **weights, per_device_train_batch_size=2), train_dataset=data,
                             processing_class=processing, **new)
        thumbs = formula_model.thumbs()
        batch = DataCollatorForUnpairedPreference(pad_token_id=0)([
            {"prompt_ids": _prompt(thumb.document), "completion_ids": _reply(thumb.document), "label": thumb.good,
             "KL_completion_ids": _reply(other)} for thumb, other in zip(thumbs, mismatched(thumbs, 64))])
    if adapter:
        set_peft_model_state_dict(trainer.model, load_file(adapter / "adapter_model.safetensors"))
    trainer.model.train()
    loss = trainer.compute_loss(trainer.model, batch)
    loss.backward()
    said = {key: values[-1] for key, values in trainer._metrics["train"].items()}
    metrics = {"loss": float(loss.detach()), "chosen_reward": said["rewards/chosen"],
               "rejected_reward": said["rewards/rejected"], "margin": said["rewards/margins"]}
    if method == "KTO":
        metrics["kl"] = said["kl"]
    gradients = {_our_name(name): parameter.grad for name, parameter in trainer.model.named_parameters()
                 if parameter.grad is not None}
    return formula_model.numbers(metrics, gradients)


def _prompt(document) -> list[int]:
    return list(document.ids[:document.loss_from])


def _reply(document) -> list[int]:
    return list(document.ids[document.loss_from:])


def _our_name(name: str) -> str:
    """Of a parameter of transformers, or of PEFT beside it."""
    name = name.removeprefix("base_model.model.").removeprefix("model.")
    return name.replace(".lora_A.default.weight", ".adapter.lora_A").replace(".lora_B.default.weight", ".adapter.lora_B")


def _difference(theirs: float | dict, ours: float | dict) -> float:
    if not isinstance(theirs, dict):
        return abs(theirs - ours)
    assert theirs.keys() == ours.keys(), theirs.keys() ^ ours.keys()
    return max(abs(theirs[key] - ours[key]) for key in theirs)


if __name__ == "__main__":
    main()
