"""Tiny checkpoints as transformers publishes them: models of three kinds, a byte-level tokenizer, a chat template with marks of
thought or without."""

from pathlib import Path

import torch
from plain_marks import CHATML, SPECIAL
from thought_templates import QWEN3
from tokenizers import AddedToken, decoders, models, pre_tokenizers, trainers
from tokenizers import Tokenizer as BPE
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedTokenizerFast, Qwen2Config, Qwen3Config

TEXTS = ["What is 3 + 4? 7", "How many sides have 2 triangles? 6", "<think>\nTwo and five make seven.\n</think>\n\n7"] * 9
SIZES = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
         "max_position_embeddings": 256, "initializer_range": 0.2}
KINDS = {"llama": (LlamaConfig, CHATML, {"tie_word_embeddings": True}), "qwen2": (Qwen2Config, CHATML, {}),
         "qwen3": (Qwen3Config, QWEN3, {"head_dim": 12})}


def write(folder: Path, kind: str = "llama", seed: int = 0, template: str | None = None, **sizes: object) -> Path:
    """A checkpoint of that kind; qwen3's template and vocabulary know thoughts. template: "" for none."""
    config_class, usual, special = KINDS[kind]
    bpe = _tokenizer(thoughts=kind == "qwen3")
    wrapped = PreTrainedTokenizerFast(tokenizer_object=bpe, bos_token="<|im_start|>", eos_token="<|im_end|>",
                                      pad_token="<|endoftext|>", extra_special_tokens=["<|endoftext|>"])
    wrapped.chat_template = (usual if template is None else template) or None
    wrapped.save_pretrained(folder)
    torch.manual_seed(seed)
    config = config_class(**SIZES | special | sizes, vocab_size=bpe.get_vocab_size() + 6, bos_token_id=1, eos_token_id=2,
                          pad_token_id=0)
    model = AutoModelForCausalLM.from_config(config)
    model.generation_config.update(do_sample=True, temperature=0.2, top_p=0.9)
    model.to(torch.bfloat16).save_pretrained(folder)
    return folder


def _tokenizer(thoughts: bool) -> BPE:
    bpe = BPE(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True),
                                                 pre_tokenizers.ByteLevel(add_prefix_space=False)])
    bpe.decoder = decoders.ByteLevel()
    bpe.train_from_iterator(TEXTS, trainers.BpeTrainer(
        vocab_size=330, show_progress=False, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=[AddedToken(token, special=True, normalized=False) for token in SPECIAL]))
    if thoughts:
        bpe.add_tokens([AddedToken(token, special=False, normalized=False) for token in ("<think>", "</think>")])
    return bpe
