"""Measure TRL's GRPOTrainer with a tiny Qwen2, of random weights or another's; needs the versions in peers-constraints.txt.

Run it with the peers' own Python. It reads one JSON object, a line of stdin (the keys are in DEFAULTS), and prints one JSON
object as its last stdout line. Before that it may ask, a line of JSON each, and wait for a line of answer: with `judged`
{"judge": {"prompts": [ids], "completions": [ids]}} for the list of rewards, and with `look_every` {"look": steps,
"seconds": of training} when the weights of now lie in `look_dir`, for true if it shall go on. What a look takes does not count.
Nothing touches the network. Example:

    echo '{"prompts": [[5, 6, 7], [8, 9]]}' | .venv-peers/bin/python benchmarks/peers/trl_grpo.py
"""

import os

os.environ.update(HF_HUB_OFFLINE="1", HF_HUB_DISABLE_TELEMETRY="1", TOKENIZERS_PARALLELISM="false")

import json
import platform
import resource
import statistics
import sys
import tempfile
import time

import accelerate
import datasets
import peft
import torch
import transformers
import trl
from tokenizers import Tokenizer, models, pre_tokenizers

DEFAULTS = {
    "model": {
        "vocab_size": 1024,
        "hidden_size": 128,
        "intermediate_size": 384,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "tie_word_embeddings": True,
    },
    "prompts": None,  # lists of token ids, or strings (taken as UTF-8 bytes, one token a byte, id = byte + 3)
    "group_size": 8,  # completions per prompt
    "prompts_per_step": 32,  # prompts per optimizer step
    "max_completion_length": 64,  # tokens, EOS included
    "steps": 5,  # measured optimizer steps, after `warmup_steps`
    "warmup_steps": 1,
    "seed": 0,
    "learning_rate": 1e-6,
    "temperature": 1.0,
    "loss_type": "dapo",  # TRL's own default
    "pad_id": 0,
    "eos_id": 1,
    "eos_probability": None,  # chance of EOS at each token under the initial weights; None keeps plain random weights
    "model_dir": None,  # begin with these weights, not with random ones
    "rank": None,  # of LoRA on all linear maps (PEFT); None trains all weights
    "judged": False,  # ask for the rewards; else they are the share of even token ids
    "look_every": None,  # steps between looks
    "look_dir": None,  # where they find the weights
    "scale_rewards": "group",  # TRL's own default: advantages over the group's standard deviation | "none"
    "save_model_dir": None,  # where to write the initial weights, so that another trainer can start from the same
    "threads": 2,
    # What is TRL's to choose. The defaults had the best median of those tried on two shared AMD EPYC cores.
    "precision": "bf16",  # fp32 | bf16 (autocast over fp32 weights) | bf16_weights (all in bf16, AdamW state too)
    "micro_batch": 64,  # completions per forward and backward
    "compile": False,  # torch_compile=True of the Trainer
    "continuous_batching": False,  # use_transformers_continuous_batching=True
    "cache_implementation": None,  # None (dynamic) | "static"
    "attention": "eager",  # eager | sdpa
    "device": "cpu",  # cpu | cuda
}


def make_tokenizer(vocab_size: int, pad_id: int, eos_id: int, folder: str) -> transformers.PreTrainedTokenizerFast:
    """A tokenizer in which token id i is the word "i", written to and read back from `folder`."""
    words = Tokenizer(models.WordLevel({str(i): i for i in range(vocab_size)}, unk_token=str(pad_id)))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token=str(pad_id), eos_token=str(eos_id), padding_side="left"
    )
    fast.save_pretrained(folder)
    return transformers.PreTrainedTokenizerFast.from_pretrained(folder)


def prompt_text(prompt: list[int] | str) -> str:
    ids = [byte + 3 for byte in prompt.encode()] if isinstance(prompt, str) else prompt
    return " ".join(map(str, ids))


@torch.no_grad()
def set_eos_probability(model: transformers.Qwen2ForCausalLM, eos_id: int, probability: float) -> None:
    """Edit random weights so that EOS has about `probability` at each token.

    Every token embedding gets the same first coordinate, which the residual stream carries to the head as a constant;
    the EOS row of the head reads it with a weight found by bisection.
    """
    embedding, head = model.get_input_embeddings().weight, model.get_output_embeddings().weight
    embedding[:, 0] = embedding.std() * embedding.shape[1] ** 0.5
    if head is not embedding:
        head[:, 0] = 0.0
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(3, embedding.shape[0], (32, 32), generator=generator)
    low, high = -10.0, 10.0
    for _ in range(30):
        head[eos_id, 0] = (low + high) / 2
        mean = model(ids).logits.float().softmax(-1)[..., eos_id].mean().item()
        low, high = (low, (low + high) / 2) if mean > probability else ((low + high) / 2, high)


def make_model(options: dict) -> transformers.PreTrainedModel:
    torch.manual_seed(options["seed"])
    dtype = torch.bfloat16 if options["precision"] == "bf16_weights" else torch.float32
    if options["model_dir"]:
        return transformers.AutoModelForCausalLM.from_pretrained(
            options["model_dir"], dtype=dtype, attn_implementation=options["attention"]
        )
    config = transformers.Qwen2Config(
        **options["model"],
        max_position_embeddings=2048,
        pad_token_id=options["pad_id"],
        eos_token_id=options["eos_id"],
        bos_token_id=None,
        attn_implementation=options["attention"],
    )
    model = transformers.Qwen2ForCausalLM(config)
    if options["eos_probability"] is not None:
        set_eos_probability(model, options["eos_id"], options["eos_probability"])
    if options["save_model_dir"]:
        model.save_pretrained(options["save_model_dir"])
    return model.to(dtype)


def ask(question: dict) -> object:
    print(json.dumps(question), flush=True)
    return json.loads(sys.stdin.readline())


class Meter(transformers.TrainerCallback):
    """Counts true completion tokens, as the reward function sees them, and the time between ends of steps."""

    def __init__(self, options: dict):
        self.options, self.paused = options, 0.0
        self.tokens, self.rewards, self.generation, self.ends = [], [], [], []

    def reward(self, prompts: list[str], completion_ids: list[list[int]], **_) -> list[float]:
        """What is answered; else the share of even token ids in each completion."""
        self.tokens.append(sum(map(len, completion_ids)))
        if self.options["judged"]:
            asked = [[int(word) for word in prompt.split()] for prompt in prompts]
            rewards = ask({"judge": {"prompts": asked, "completions": completion_ids}})
        else:
            rewards = [sum(i % 2 == 0 for i in ids) / len(ids) for ids in completion_ids]
        self.rewards.append(statistics.fmean(rewards))
        return rewards

    def now(self) -> float:
        return time.perf_counter() - self.paused

    def on_train_begin(self, *_, **__):
        self.ends.append(self.now())

    def on_step_end(self, args, state, control, model=None, **_):
        self.ends.append(self.now())
        if self.options["look_every"] and state.global_step % self.options["look_every"] == 0:
            began = time.perf_counter()
            model.save_pretrained(self.options["look_dir"])
            control.should_training_stop = not ask({"look": state.global_step, "seconds": self.ends[-1] - self.ends[0]})
            self.paused += time.perf_counter() - began

    def watch_generation(self, trainer: trl.GRPOTrainer) -> None:
        """Time TRL's private generation method, which TRL itself reports only to hosted trackers."""
        generate = trainer._generate_single_turn

        def timed(*args, **kwargs):
            start = time.perf_counter()
            result = generate(*args, **kwargs)
            self.generation.append(time.perf_counter() - start)
            return result

        trainer._generate_single_turn = timed


def train(options: dict, folder: str) -> tuple[Meter, int]:
    """Run the warm-up and the measured steps; returns the meter and the number of parameters."""
    model = make_model(options)
    completions = options["prompts_per_step"] * options["group_size"]
    micro_batch = min(options["micro_batch"], completions)
    if completions % micro_batch:
        raise ValueError(f"micro_batch {micro_batch} does not divide the {completions} completions of a step")
    prompts = [prompt_text(prompt) for prompt in options["prompts"]]
    prompts *= -(-options["prompts_per_step"] // len(prompts))  # a step needs at least as many rows as prompts
    arguments = trl.GRPOConfig(
        output_dir=folder,
        use_cpu=options["device"] == "cpu",
        bf16=options["precision"] != "fp32",
        activation_checkpointing=False,
        per_device_train_batch_size=micro_batch,
        gradient_accumulation_steps=completions // micro_batch,
        generation_batch_size=completions,  # one generation for each optimizer step: on-policy
        num_generations=options["group_size"],
        max_completion_length=options["max_completion_length"],
        max_steps=options["warmup_steps"] + options["steps"],
        learning_rate=options["learning_rate"],
        lr_scheduler_type="constant",
        temperature=options["temperature"],
        beta=0.0,
        loss_type=options["loss_type"],
        scale_rewards=options["scale_rewards"],
        optim="adamw_torch_fused",
        seed=options["seed"],
        torch_compile=options["compile"],
        cache_implementation=options["cache_implementation"],
        use_transformers_continuous_batching=options["continuous_batching"],
        logging_strategy="no",
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        dataloader_pin_memory=False,
    )
    meter = Meter(options)
    trainer = trl.GRPOTrainer(
        model=model,
        reward_funcs=meter.reward,
        args=arguments,
        train_dataset=datasets.Dataset.from_dict({"prompt": prompts}),
        processing_class=make_tokenizer(model.config.vocab_size, options["pad_id"], options["eos_id"], folder),
        callbacks=[meter],
        peft_config=options["rank"] and peft.LoraConfig(r=options["rank"], lora_alpha=2 * options["rank"],
                                                        target_modules="all-linear"),
    )
    meter.watch_generation(trainer)
    trainer.train()
    return meter, model.num_parameters()


def main() -> None:
    given = json.loads(sys.stdin.readline())
    unknown = given.keys() - DEFAULTS.keys()
    if unknown or not given.get("prompts"):
        sys.exit(f"unknown keys {sorted(unknown)}" if unknown else "the key 'prompts' is missing or empty")
    options = {**DEFAULTS, **given, "model": {**DEFAULTS["model"], **given.get("model", {})}}
    torch.set_num_threads(options["threads"])
    with tempfile.TemporaryDirectory() as folder:
        meter, parameters = train(options, folder)
    skip = options["warmup_steps"]
    seconds = [end - start for start, end in zip(meter.ends, meter.ends[1:], strict=False)][skip:]
    tokens, generation = meter.tokens[skip:], meter.generation[skip:]
    wanted = len(seconds) if options["look_every"] else options["steps"]  # a look may end it
    if not len(seconds) == len(tokens) == len(generation) == wanted:
        sys.exit(f"TRL ran {len(seconds)} steps with {len(tokens)} generations where {options['steps']} were expected")
    result = {
        "completion_tokens": tokens,  # true tokens of each step: EOS counts, the padding after it does not
        "seconds": seconds,  # of each whole step
        "generation_seconds": generation,
        "update_seconds": [whole - part for whole, part in zip(seconds, generation, strict=True)],  # all the rest
        "tokens_per_second": statistics.median(t / s for t, s in zip(tokens, seconds, strict=True)),
        "mean_reward": meter.rewards[skip:],
        "parameters": parameters,
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "options": {key: value for key, value in options.items() if key != "prompts"},
        "versions": {m.__name__: m.__version__ for m in (torch, trl, transformers, datasets, accelerate)}
        | {"python": platform.python_version()},
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
