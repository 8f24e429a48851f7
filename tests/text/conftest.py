"""Checkpoints shaped like the published ones: real byte-level vocabularies, small, written by transformers."""

import os
from dataclasses import dataclass
from pathlib import Path

import pytest
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, processors, trainers
from tokenizers import Tokenizer as BPE
from transformers import PreTrainedTokenizerFast

SPLIT = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"  # much as Qwen's

LLAMA = """{{- bos_token }}
{%- if tools is not none %}{{- "<|start_header_id|>system<|end_header_id|>\\n\\n" }}
{%- for t in tools %}{{- t | tojson(indent=4) }}{{- "\\n\\n" }}{%- endfor %}{{- "<|eot_id|>" }}{%- endif %}
{%- for message in messages %}
    {%- if 'tool_calls' in message %}
        {%- if not message.tool_calls|length == 1 %}
            {{- raise_exception("This model only supports single tool-calls at once!") }}
        {%- endif %}
        {%- set call = message.tool_calls[0].function %}
        {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n{"name": "' + call.name + '", "parameters": ' }}
        {{- call.arguments | tojson }}{{- "}<|eot_id|>" }}
    {%- else %}
        {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' + message['content'] | trim + '<|eot_id|>' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{%- endif %}
"""

QWEN3 = """{%- if tools %}
    {{- '<|im_start|>system\\n# Tools\\n<tools>' }}
    {%- for tool in tools %}{{- "\\n" }}{{- tool | tojson }}{%- endfor %}
    {{- "\\n</tools><|im_end|>\\n" }}
{%- endif %}
{%- set ns = namespace(last=messages|length - 1, searching=true) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.searching and message.role == "user" %}{%- set ns.searching = false %}{%- set ns.last = index %}{%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- if message.content is string %}{%- set content = message.content %}{%- else %}{%- set content = '' %}{%- endif %}
    {%- if message.role == "assistant" %}
        {%- set thought = '' %}
        {%- if message.reasoning_content is string %}
            {%- set thought = message.reasoning_content %}
        {%- elif '</think>' in content %}
            {%- set thought = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}
            {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
        {%- endif %}
        {{- '<|im_start|>assistant\\n' }}
        {%- if loop.index0 > ns.last and thought %}{{- '<think>\\n' + thought + '\\n</think>\\n\\n' }}{%- endif %}
        {{- content }}
        {%- for call in message.tool_calls %}
            {{- '\\n<tool_call>\\n{"name": "' }}{{- call.function.name }}{{- '", "arguments": ' }}
            {%- if call.function.arguments is string %}{{- call.function.arguments }}
            {%- else %}{{- call.function.arguments | tojson }}{%- endif %}{{- '}\\n</tool_call>' }}
        {%- endfor %}
        {{- '<|im_end|>\\n' }}
    {%- else %}{{- '<|im_start|>' + message.role + '\\n' + content + '<|im_end|>\\n' }}{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}{{- '<think>\\n\\n</think>\\n\\n' }}{%- endif %}
{%- endif %}
"""

CHATML = ("{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n'}}"
          "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}")

R1 = ("{{ bos_token }}{% for m in messages %}{% if m['role'] == 'system' %}{{ m['content'] }}{% elif m['role'] == 'user' %}"
      "{{ '<｜User｜>' + m['content'] }}{% else %}{% set c = m['content'] %}{% if '</think>' in c %}"
      "{% set c = c.split('</think>')[-1] %}{% endif %}{{ '<｜Assistant｜>' + c + eos_token }}{% endif %}{% endfor %}"
      "{% if add_generation_prompt %}{{ '<｜Assistant｜><think>\\n' }}{% endif %}")


@dataclass(frozen=True)
class Shape:
    """What tells one family of published tokenizers from another."""

    template: str
    named: dict[str, str]
    special: tuple[str, ...]
    added: tuple[str, ...] = ()
    eos_ids: tuple[str, ...] = ()  # in generation_config.json
    normalizer: object = None
    puts_bos: bool = False


SHAPES = {
    "r1": Shape(R1, {"bos_token": "<｜begin▁of▁sentence｜>", "eos_token": "<｜end▁of▁sentence｜>",
                     "pad_token": "<｜end▁of▁sentence｜>"},
                ("<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"),
                ("<｜User｜>", "<｜Assistant｜>", "<think>", "</think>", "<｜tool▁calls▁begin｜>", "<｜tool▁call▁begin｜>",
                 "<｜tool▁sep｜>", "<｜tool▁call▁end｜>", "<｜tool▁calls▁end｜>", "<｜tool▁outputs▁begin｜>",
                 "<｜tool▁output▁begin｜>", "<｜tool▁output▁end｜>", "<｜tool▁outputs▁end｜>"), puts_bos=True),
    "llama3": Shape(LLAMA, {"bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>"},
                    ("<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
                    eos_ids=("<|end_of_text|>", "<|eot_id|>"), puts_bos=True),
    "qwen3": Shape(QWEN3, {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"},
                   ("<|endoftext|>", "<|im_start|>", "<|im_end|>"), ("<tool_call>", "</tool_call>", "<think>", "</think>"),
                   eos_ids=("<|im_end|>", "<|endoftext|>"), normalizer=normalizers.NFC()),
    "chatml": Shape(CHATML, {"bos_token": "<s>", "eos_token": "<|im_end|>", "unk_token": "<unk>"},
                    ("<unk>", "<s>", "<|im_start|>", "<|im_end|>")),
}


def make_checkpoint(shape: Shape, folder: Path) -> PreTrainedTokenizerFast:
    """Writes the tokenizer of a checkpoint into `folder` and returns transformers' view of it."""
    bpe = BPE(models.BPE())
    if shape.normalizer is not None:
        bpe.normalizer = shape.normalizer
    bpe.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(SPLIT), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    bpe.decoder = decoders.ByteLevel()
    texts = ["system user assistant: think about the weather in Paris, \"name\": \"value\"\n\n", "<tools>\n</tools> 1 + 2 a"]
    bpe.train_from_iterator(texts * 4, trainers.BpeTrainer(
        vocab_size=380, show_progress=False, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    bpe.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in shape.special])
    bpe.add_tokens([AddedToken(token, normalized=False) for token in shape.added])
    if shape.puts_bos:  # as published: whoever encodes a rendered conversation with it gets the token twice
        bos = shape.named["bos_token"]
        bpe.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", special_tokens=[(bos, bpe.token_to_id(bos))])
    theirs = PreTrainedTokenizerFast(tokenizer_object=bpe, chat_template=shape.template, **shape.named)
    theirs.save_pretrained(folder)
    if shape.eos_ids:
        ids = [bpe.token_to_id(token) for token in shape.eos_ids]
        (folder / "generation_config.json").write_text(f'{{"eos_token_id": {ids}}}')
    return theirs


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory):
    """name -> (folder, transformers' tokenizer)."""
    checkpoints = {}
    for name, shape in SHAPES.items():
        folder = tmp_path_factory.mktemp(name)
        checkpoints[name] = folder, make_checkpoint(shape, folder)
    return checkpoints


@pytest.fixture(scope="session")
def tokenizer_data():
    """Published templates and test vectors; they live beside the repository, not in it."""
    beside = Path(__file__).parents[2].parent / "shared" / "data"
    folder = Path(os.environ.get("SPOUTNIK_DATA", beside)) / "tokenizers"
    if not folder.exists():
        pytest.skip("no published tokenizer data here: set SPOUTNIK_DATA to its folder")
    return folder
