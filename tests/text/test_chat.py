"""Chat with any published checkpoint: where replies end, what is thought, what the greeting says."""

import io
import json
import shutil

import pytest
import tiny
from rich.console import Console

from spoutnik.commands.chat_terminal import converse
from spoutnik.commands.reply_printer import ReplyPrinter
from spoutnik.engine.sampling_params import SamplingParams
from spoutnik.errors import UserError
from spoutnik.generation import chat
from spoutnik.generation.chat import Chat, chat_llm
from spoutnik.generation.options import GenerationOptions
from spoutnik.model.weights import save_model
from spoutnik.text.tokenizer import Tokenizer

OPTIONS = GenerationOptions(SamplingParams(), max_tokens=20)


@pytest.fixture
def checkpoint(checkpoints, tmp_path):
    """name -> a whole checkpoint: a tokenizer of that family and a model with random weights."""
    def make(name):
        folder = tmp_path / name
        shutil.copytree(checkpoints[name][0], folder)
        save_model(folder, tiny.model(tiny.QWEN, vocab_size=400, max_position_embeddings=256))
        return folder
    return make


def says(llm, *parts):
    """Lets the model choose these texts and token ids, one after the other."""
    ids = [i for part in parts for i in (llm.tokenizer.encode(part) if isinstance(part, str) else [part])]
    forward, coming = llm.core.runner.forward, iter(ids)

    def chosen(batch):
        logits, hidden = forward(batch)
        if len(logits):
            logits.fill_(0.0)[:, next(coming)] = 1000.0
        return logits, hidden

    llm.core.runner.forward, llm.core.max_multi_steps = chosen, 1


@pytest.mark.parametrize("name", ["r1", "llama3", "qwen3", "chatml"])
def test_a_published_checkpoint_answers_and_repeats_itself(name, checkpoint, checkpoints):
    llm = chat_llm(checkpoint(name))
    replies = [Chat(llm, OPTIONS, seed=3).ask("Hi", None) for _ in range(2)]
    assert replies[0] == replies[1] and 0 < replies[0]["tokens"] <= 20 and replies[0]["answer"]
    assert bool(replies[0]["thought"]) == (name == "r1")  # its template opens the thought


def test_a_reply_stops_at_every_token_that_ends_one(checkpoint):
    llm = chat_llm(checkpoint("llama3"))
    main, other = llm.tokenizer.eos_ids
    assert llm.core.eos_ids == {main, other}
    says(llm, "Yes.", other, "never said")
    talk = Chat(llm, OPTIONS)
    reply = talk.ask("Hi", None)
    assert (reply["answer"], reply["finish_reason"], reply["tokens"]) == ("Yes.", "stop", len(llm.tokenizer.encode("Yes.")) + 1)
    assert talk.messages[-1] == {"role": "assistant", "content": "Yes."}


def test_a_thought_that_the_model_opens_is_kept_from_the_answer_and_the_next_prompt(checkpoint):
    llm = chat_llm(checkpoint("qwen3"))
    tokenizer = llm.tokenizer
    says(llm, tokenizer.think_id, "\nhm\n", tokenizer.end_think_id, "\n\nYes", tokenizer.eos_id)
    screen, talk = Console(file=io.StringIO(), width=80), Chat(llm, OPTIONS)
    reply = talk.ask("Hi", ReplyPrinter(screen, screen))
    assert (reply["thought"], reply["answer"]) == ("hm", "Yes")
    assert screen.file.getvalue().split() == ["<think>", "hm", "</think>", "Yes"]
    following = tokenizer.render([*talk.messages, {"role": "user", "content": "And?"}])
    assert "Yes" in following and "hm" not in following


def test_a_base_model_is_refused_before_its_weights_are_read(checkpoint, monkeypatch):
    folder = checkpoint("chatml")
    (folder / "chat_template.jinja").unlink()
    monkeypatch.setattr(chat, "LLM", lambda *folder, **options: pytest.fail("read the weights"))
    assert Tokenizer.load(folder).chat_template is None
    with pytest.raises(UserError, match="so this model cannot chat"):
        chat_llm(folder)


@pytest.mark.parametrize("manifest, sentence", [(None, "A qwen2 model."), ({"files": {}}, "A qwen2 model."),
                                            ({"stage": "base"}, "the problem families of its recipe")])
def test_the_greeting_says_whose_model_it_is(manifest, sentence, checkpoint):
    folder = checkpoint("chatml")
    if manifest is not None:
        (folder / "manifest.json").write_text(json.dumps(manifest))
    screen = Console(file=io.StringIO(), width=500)
    converse(Chat(chat_llm(folder), OPTIONS), ReplyPrinter(screen, screen), folder, None, lambda prompt: "")
    assert sentence in screen.file.getvalue() and str(folder) in screen.file.getvalue()
