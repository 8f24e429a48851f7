"""A conversation in the terminal: commands, several lines, Ctrl-C, what is remembered."""

import io
import json
import os
import pty
import select
import signal
import sys
import time
from dataclasses import replace

import pytest
import tiny
from rich.console import Console

from spoutnik.commands.chat_terminal import converse
from spoutnik.commands.reply_printer import ReplyPrinter
from spoutnik.engine.llm import LLM
from spoutnik.engine.sampling_params import SamplingParams
from spoutnik.errors import RunError
from spoutnik.generation.chat import Chat
from spoutnik.generation.generation import Generation
from spoutnik.generation.options import GenerationOptions

FIELDS = {"prompt", "thought", "answer", "tokens", "reasoning_tokens", "finish_reason", "warning"}


@pytest.fixture(scope="module")
def llm(tokenizer):
    """It says anything at all, but for ends of sentence: replies are as long as they may be."""
    model = tiny.model(tiny.QWEN, vocab_size=tokenizer.vocab_size, max_position_embeddings=512)
    return LLM(model, tokenizer, max_num_seqs=1, memory="32MB")


@pytest.fixture
def talk(llm):
    return Chat(llm, GenerationOptions(SamplingParams(logit_bias={llm.tokenizer.eos_id: -100}), max_tokens=24,
                                       detect_loops=False))


def typed(talk, *lines):
    """What the screen shows when these lines are typed."""
    screen, coming = Console(file=io.StringIO(), width=1000), iter([*lines, ""])
    converse(talk, ReplyPrinter(screen, screen), "model", None, lambda prompt: next(coming))
    return screen.file.getvalue()


def test_a_reply_has_its_fields_and_repeats_itself(talk, llm):
    reply = talk.ask("What is 12 + 30?", None)
    assert set(reply) == FIELDS and reply["thought"] and reply["answer"] and reply["finish_reason"] == "length"
    assert reply["tokens"] <= 24 and reply["reasoning_tokens"] >= 18 and "budget of 18 tokens" in reply["warning"]
    assert reply == Chat(llm, talk.options).ask("What is 12 + 30?", None)
    assert talk.messages[1] == {"role": "assistant", "content": reply["answer"], "reasoning_content": reply["thought"]}


def test_thought_and_answer_are_shown_apart_with_what_there_is_to_say_of_them(talk):
    screen = Console(file=io.StringIO(), width=1000)
    reply = talk.ask("Hi", ReplyPrinter(screen, screen))
    shown = screen.file.getvalue()
    assert shown.startswith(f"<think>\n{reply['thought']}\n</think>\n{reply['answer']}\n(the thought reached its budget")
    assert shown.endswith("(cut off: the reply reached its longest)\n")


def test_what_was_asked_for_and_is_otherwise_is_said(talk):
    talk.options = replace(talk.options, max_tokens=9999, max_thinking_tokens=3)
    screen = Console(file=io.StringIO(), width=1000)
    reply = talk.ask("long " * 70, ReplyPrinter(screen, screen))
    assert reply["warning"].startswith("max_tokens = 9999: with a prompt of ") and "so many were taken; the" in reply["warning"]
    assert "(max_tokens = 9999: " in screen.file.getvalue()


def test_effort_and_think_bound_the_thought(talk):
    assert "effort: low" in typed(talk, "/effort low")
    assert talk.ask("Hi", None)["warning"].startswith("the thought reached its budget of 3 tokens")
    typed(talk, "/think off")
    assert talk.ask("Hi", None)["thought"] == ""
    typed(talk, "/effort none", "/think on")
    assert talk.ask("Hi", None)["thought"]
    assert "Choose none, minimal" in typed(talk, "/effort lunch") and "on or off" in typed(talk, "/think maybe")


def test_retry_and_edit_take_the_last_turn_back(talk):
    typed(talk, "first", "second")
    answers = [message["content"] for message in talk.messages]
    typed(talk, "/retry")
    assert len(talk.messages) == 4 and talk.messages[2]["content"] == "second" and talk.messages[3]["content"] != answers[3]
    typed(talk, "/edit", "third")
    assert [talk.messages[0]["content"], talk.messages[2]["content"]] == ["first", "third"] and len(talk.messages) == 4
    typed(talk, "/new")
    assert talk.messages == [] and "no question yet" in typed(talk, "/retry")


@pytest.fixture
def prompts(llm, monkeypatch):
    """The prompts that the model is shown."""
    shown, start = [], Generation.start

    def noting(reply):
        shown.append(llm.tokenizer.decode(reply.plan.prompt))
        start(reply)

    monkeypatch.setattr(Generation, "start", noting)
    return shown


def test_system_is_told_before_everything(talk, prompts):
    typed(talk, "/system Speak Latin.", "Hi", "/system", "Hi")
    assert prompts[0].startswith("Speak Latin.") and "Latin" not in prompts[1] and talk.messages[0]["role"] == "user"


def test_past_thoughts_are_not_in_the_next_prompt(talk, prompts):
    reply = talk.ask("Hi", None)
    talk.ask("And?", None)
    assert reply["answer"] in prompts[1] and reply["thought"] not in prompts[1]


def test_save_and_load(talk, llm, tmp_path):
    path = tmp_path / "talk.json"
    typed(talk, "/system Be brief.", "Hi", f"/save {path}")
    question, answer = json.loads(path.read_text())["messages"]  # as the API takes them
    assert set(question) == {"role", "content"} and set(answer) == {"role", "content", "reasoning_content"}
    other = Chat(llm, talk.options)
    shown = typed(other, f"/load {path}")
    assert other.messages == talk.messages and other.system == "Be brief." and "> Hi" in shown
    for content, said in (("{", "not valid JSON"), ('{"messages": [1]}', "no conversation"), ("[]", "no conversation")):
        path.write_text(content)
        assert said in typed(other, f"/load {path}")
    assert other.messages == talk.messages
    assert "needs a file" in typed(other, "/save") and "not found" in typed(other, f"/load {tmp_path / 'none'}")


def test_several_lines_are_one_message(talk):
    typed(talk, '"""one', "two", 'three"""', "four \\", "five", ' /etc/hosts is a file', '"""six"""')
    assert [m["content"] for m in talk.messages if m["role"] == "user"] == ["one\ntwo\nthree", "four \nfive",
                                                                           "/etc/hosts is a file", "six"]


def test_stats_help_and_unknown_commands(talk):
    typed(talk, "Hi")
    assert f"{talk.stats.tokens} tokens ({talk.stats.thought_tokens} of thought)" in typed(talk, "/stats")
    assert "/retry" in typed(talk, "/help") and "is no command" in typed(talk, "/lunch")
    assert "of 512 tokens, 2 messages" in typed(talk, "/stats")


def test_a_conversation_that_outgrows_the_context_goes_on(talk):
    talk.system = "Be brief."
    talk.messages = [{"role": "user", "content": "long " * 600}, {"role": "assistant", "content": "Yes."}]
    assert "its first question was left out, with the answers)" in typed(talk, "Hi")
    assert len(talk.messages) == 4  # nothing is forgotten that /save would write
    assert "its first question was left out" in talk.ask("And now?")["warning"]
    typed(talk, "/new")
    assert "left out" not in typed(talk, "Hello") and len(talk.messages) == 2


def test_a_question_longer_than_the_context_is_refused_and_the_conversation_stays(talk):
    typed(talk, "Hi")
    assert "leaves no room for a reply" in typed(talk, "long " * 600)
    assert len(talk.messages) == 2
    assert "left out" not in typed(talk, "And now?") and len(talk.messages) == 4


def pressing(monkeypatch, *steps):
    """Ctrl-C after these steps of the next reply."""
    advance, calls = Generation.advance, []

    def pressed(reply):
        calls.append(1)
        if len(calls) in steps:
            signal.raise_signal(signal.SIGINT)
        advance(reply)

    monkeypatch.setattr(Generation, "advance", pressed)


@pytest.fixture
def interruptible():
    """What starts the tests in the background may have them ignore Ctrl-C."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_ctrl_c_in_a_thought_asks_for_the_answer(talk, monkeypatch, interruptible):
    pressing(monkeypatch, 5)
    reply = talk.ask("Hi", None)
    assert reply["finish_reason"] == "length" and reply["answer"] and reply["warning"] is None
    assert reply["thought"].endswith("here is my answer.")
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.parametrize("steps, kept", [((5, 8), 2), ((22,), 2)])
def test_ctrl_c_again_or_in_an_answer_stops(talk, monkeypatch, interruptible, steps, kept):
    pressing(monkeypatch, *steps)
    reply = talk.ask("Hi", None)
    assert reply["finish_reason"] == "abort" and reply["answer"] and reply["tokens"] < 24
    assert len(talk.messages) == kept and not talk.llm.core.requests
    monkeypatch.undo()
    assert talk.ask("Hi", None)["finish_reason"] == "length"  # the engine is as it was


def test_a_model_that_gives_no_numbers_is_a_sentence(talk, monkeypatch):
    monkeypatch.setattr(talk.llm.core.runner, "forward", lambda batch: (_ for _ in ()).throw(RunError("no numbers")))
    assert "no numbers" in typed(talk, "Hi") and talk.messages == []
    monkeypatch.undo()
    assert talk.ask("Hi", None)["answer"]


def test_on_a_real_terminal_arrows_bring_back_and_ctrl_c_does_not_leave(run, tmp_path):
    """Keys as they are typed, in a pseudo-terminal."""
    child, screen = pty.fork()
    if child == 0:
        os.environ["TERM"] = "xterm"
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.execv(sys.executable, [sys.executable, "-m", "spoutnik", "chat", str(run), "--max-tokens", "8",
                                  "--data", str(tmp_path / "data")])
    shown = b""

    def comes(text, times=1, seconds=60.0):
        nonlocal shown
        deadline = time.monotonic() + seconds
        while shown.count(text) < times:
            if not select.select([screen], [], [], max(deadline - time.monotonic(), 0))[0]:
                return False
            shown += os.read(screen, 1 << 16)
        return True

    def until(text, times=1):
        assert comes(text, times), shown

    def until_asked_again(text, times=1):
        """Waits for the prompt after a text: a key that comes before it meets a terminal that is not readline's yet, which
        would make a NUL of Ctrl-D."""
        until(text, times)
        until(b"> ", 1 + shown[:shown.rindex(text)].count(b"> "))

    until(b"> ")
    for _ in range(30):  # Python's readline sleeps through a signal that comes right after the prompt, until the next key
        os.write(screen, b"\x03")
        if comes(b"leaves", seconds=2):
            break
    until_asked_again(b"leaves")
    os.write(screen, b"/effort low\r")
    until_asked_again(b"effort: low")
    os.write(screen, b"\x1b[A\r")  # arrow up
    until_asked_again(b"effort: low", 2)
    os.write(screen, b"\x04")
    assert os.waitpid(child, 0)[1] == 0
    os.close(screen)
    remembered = tmp_path / "data" / "chat_history"
    assert "/effort low" in remembered.read_text() and remembered.stat().st_mode & 0o777 == 0o600
