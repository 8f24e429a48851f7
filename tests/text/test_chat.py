"""Chat with any published checkpoint: where replies end, what is thought, what the greeting says."""

import io
import json
import shutil

import pytest
import tiny
from rich.console import Console

from spoutnik import chat
from spoutnik.chat import Chat
from spoutnik.engine.outputs import CompletionOutput, RequestOutput
from spoutnik.engine.params import SamplingParams
from spoutnik.errors import UserError
from spoutnik.model.weights import save_model
from spoutnik.text.tokenizer import Tokenizer

PARAMS = SamplingParams(max_tokens=20)


@pytest.fixture
def checkpoint(checkpoints, tmp_path):
    """name -> a whole checkpoint: a tokenizer of that family and a model with random weights."""
    def make(name):
        folder = tmp_path / name
        shutil.copytree(checkpoints[name][0], folder)
        save_model(folder, tiny.model(tiny.QWEN, vocab_size=400, max_position_embeddings=256))
        return folder
    return make


def says(talk, monkeypatch, *parts):
    """Lets the model choose these texts and token ids; returns the prompts it was given."""
    prompts = []
    ids = [i for part in parts for i in (talk.tokenizer.encode(part) if isinstance(part, str) else [part])]

    def chosen(prompt, params):
        prompts.append(prompt)
        for token in ids:
            over = token in talk.llm.core.eos_ids
            yield RequestOutput("0", None, prompt, [CompletionOutput(0, "", [token], finish_reason="stop" if over else None)])
            if over:
                return

    monkeypatch.setattr(talk.llm, "stream", chosen)
    return prompts


@pytest.mark.parametrize("name", ["r1", "llama3", "qwen3", "chatml"])
def test_a_published_checkpoint_answers_and_repeats_itself(name, checkpoint, checkpoints):
    folder = checkpoint(name)
    replies = [Chat(folder, PARAMS, seed=3).ask("Hi", None) for _ in range(2)]
    assert replies[0] == replies[1] and 0 < replies[0]["tokens"] <= 20
    assert bool(replies[0]["thought"]) == (name == "r1")  # its template opens the thought, and 20 tokens do not close it


def test_a_reply_stops_at_every_token_that_ends_one(checkpoint, monkeypatch):
    talk = Chat(checkpoint("llama3"), PARAMS, 0)
    main, other = talk.tokenizer.eos_ids
    assert talk.llm.core.eos_ids == {main, other}
    says(talk, monkeypatch, "Yes.", other, "never said")
    reply = talk.ask("Hi", None)
    assert (reply["answer"], reply["finish_reason"], reply["tokens"]) == ("Yes.", "stop", len(talk.tokenizer.encode("Yes.")))
    assert talk.messages[-1] == {"role": "assistant", "content": "Yes."}


def test_a_thought_that_the_model_opens_is_kept_from_the_answer_and_the_next_prompt(checkpoint, monkeypatch):
    talk = Chat(checkpoint("qwen3"), PARAMS, 0)
    prompts = says(talk, monkeypatch, talk.tokenizer.think_id, "\nhm\n", talk.tokenizer.end_think_id, "\n\nYes")
    screen = Console(file=io.StringIO(), width=80)
    reply = talk.ask("Hi", screen)
    assert (reply["thought"], reply["answer"]) == ("hm", "Yes")
    assert screen.file.getvalue().split() == ["hm", "Yes"]
    talk.ask("And?", None)
    assert "Yes" in talk.tokenizer.decode(prompts[1]) and "hm" not in talk.tokenizer.decode(prompts[1])


def test_a_base_model_is_refused_before_its_weights_are_read(checkpoint, monkeypatch):
    folder = checkpoint("chatml")
    (folder / "chat_template.jinja").unlink()
    monkeypatch.setattr(chat, "LLM", lambda *folder, **options: pytest.fail("read the weights"))
    assert Tokenizer.load(folder).chat_template is None
    with pytest.raises(UserError, match="so this model cannot chat"):
        Chat(folder, PARAMS, 0)


@pytest.mark.parametrize("manifest, said", [(None, "A qwen2 model."), ({"files": {}}, "A qwen2 model."),
                                            ({"stage": "base"}, "the problem families of its recipe")])
def test_the_greeting_says_whose_model_it_is(manifest, said, checkpoint):
    folder = checkpoint("chatml")
    if manifest is not None:
        (folder / "manifest.json").write_text(json.dumps(manifest))
    screen = Console(file=io.StringIO(), width=500)
    screen.input = lambda prompt: ""
    Chat(folder, PARAMS, 0).converse(screen, folder)
    assert said in screen.file.getvalue() and str(folder) in screen.file.getvalue()
