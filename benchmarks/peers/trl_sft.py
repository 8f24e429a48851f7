"""Measure TRL's SFTTrainer, with PEFT's LoRA or without; needs the versions in peers-constraints.txt.

Run it with the peers' own Python. It reads one JSON object on stdin and prints one as its last stdout line: core-seconds,
seconds and loss of every step, and the process's peak memory. Keys: model (a folder; without a tokenizer, token ids are words),
adapter (a folder of PEFT's, where training begins) or rank (of a new one) or neither (all weights), rows ([ids, loss_from] in
the order in which they are trained), rows_per_step, micro_batch, learning_rate, threads, precision (fp32 | bf16_weights | bf16,
which is autocast over float32 weights), attention (eager | sdpa), device (cpu | cuda). Nothing touches the network.
"""

import os

os.environ.update(HF_HUB_OFFLINE="1", HF_HUB_DISABLE_TELEMETRY="1", TOKENIZERS_PARALLELISM="false")

import json
import resource
import sys
import tempfile
import time
from pathlib import Path

import datasets
import peft
import torch
import transformers
import trl
from torch.utils.data import SequentialSampler
from trl_grpo import make_tokenizer


class Trainer(trl.SFTTrainer):
    """Rows in their order; the exact loss of each step, which the log rounds."""

    def _get_train_sampler(self, *_, **__):
        return SequentialSampler(self.train_dataset)

    def training_step(self, *arguments, **named):
        loss = super().training_step(*arguments, **named)
        self.losses[-1] += float(loss)
        return loss


class Meter(transformers.TrainerCallback):
    def __init__(self, trainer: Trainer):
        self.trainer, self.seconds, self.wall, trainer.losses = trainer, [], [], [0.0]

    def on_train_begin(self, *_, **__):
        self.began, self.wall_began = time.process_time(), time.perf_counter()

    def on_step_end(self, *_, **__):
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        now, wall = time.process_time(), time.perf_counter()
        self.seconds.append(now - self.began)
        self.wall.append(wall - self.wall_began)
        self.began, self.wall_began = now, wall
        self.trainer.losses.append(0.0)


def tokenizer_of(model: str, config: transformers.PretrainedConfig, folder: str) -> transformers.PreTrainedTokenizerBase:
    if (Path(model) / "tokenizer.json").exists():
        return transformers.AutoTokenizer.from_pretrained(model)
    return make_tokenizer(config.vocab_size, 0, 1, folder)


def main() -> None:
    options = json.load(sys.stdin)
    torch.set_num_threads(options["threads"])
    dtype = torch.bfloat16 if options["precision"] == "bf16_weights" else torch.float32
    model = transformers.AutoModelForCausalLM.from_pretrained(options["model"], dtype=dtype,
                                                              attn_implementation=options["attention"])
    if options.get("adapter"):
        model = peft.PeftModel.from_pretrained(model, options["adapter"], is_trainable=True)
    elif options.get("rank"):
        model = peft.get_peft_model(model, peft.LoraConfig(r=options["rank"], lora_alpha=2 * options["rank"],
                                                           target_modules="all-linear"))
    on_cpu = options.get("device", "cpu") == "cpu"
    rows = datasets.Dataset.from_list([{"input_ids": ids, "labels": [-100] * start + ids[start:]}
                                       for ids, start in options["rows"]])
    micro = options["micro_batch"]
    with tempfile.TemporaryDirectory() as folder:
        config = trl.SFTConfig(
            output_dir=folder, use_cpu=on_cpu, bf16=options["precision"] == "bf16", fp16=False,
            per_device_train_batch_size=micro,
            gradient_accumulation_steps=options["rows_per_step"] // micro, max_steps=len(rows) // options["rows_per_step"],
            learning_rate=options["learning_rate"], lr_scheduler_type="constant", warmup_steps=0, weight_decay=0.0,
            adam_beta1=0.9, adam_beta2=0.95, adam_epsilon=1e-10, max_grad_norm=1.0, completion_only_loss=True, max_length=None,
            gradient_checkpointing=False, logging_strategy="no", report_to=[], save_strategy="no", disable_tqdm=True,
            dataset_kwargs={"skip_prepare_dataset": True}, dataloader_num_workers=0)
        trainer = Trainer(model, args=config, train_dataset=rows,
                          processing_class=tokenizer_of(options["model"], model.config, folder))
        meter = Meter(trainer)
        trainer.add_callback(meter)
        trainer.train()
    print(json.dumps({"core_seconds": meter.seconds, "seconds": meter.wall, "losses": trainer.losses[:len(meter.seconds)],
                      "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
                      "versions": {module.__name__: module.__version__ for module in (trl, peft, transformers, torch)}}))


if __name__ == "__main__":
    main()
