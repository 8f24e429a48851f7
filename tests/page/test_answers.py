"""Answers of the page without a browser: steered, stopped, continued and voted on; what goes wrong is part of them."""

import asyncio

import pytest
from page.conversation_fixtures import answered
from scripted import ANSWER, THOUGHT

from spoutnik.generation.service import Busy
from spoutnik.generation.session import ChatOptions, ChatTurn


def test_steering_reaches_the_reply(with_conversations):
    async def test(conversations, service):
        conversation = await conversations.open(None, None)
        await conversations.ask(conversation, "How?", [], ChatOptions("one"))
        turn = conversation.turn
        await turn.end_thought()  # too early: there is nothing to steer
        while turn.phase != "thinking":
            await asyncio.sleep(0)
        await turn.toggle_pause()
        assert turn.paused and turn.handle.paused
        held = turn.thought_seconds
        await asyncio.sleep(0.01)
        assert turn.thought_seconds == held > 0
        await turn.toggle_pause()
        assert not turn.paused and not turn.handle.paused
        await turn.insert("Check the sum.")
        await turn.insert("  ")
        assert turn.handle.inserted == [" Check the sum. "]
        await turn.end_thought()
        said = await answered(conversation)
        assert "Check the sum." in said.thought and THOUGHT not in said.thought and said.content == ANSWER
        assert said.extras["warnings"] == [{"code": "thought_budget", "tokens": 20, "detail": ""}]

    with_conversations(test, held=True)


def test_stop_keeps_what_is_there_and_the_next_question_leaves_it_out(with_conversations):
    async def test(conversations, service):
        conversation = await conversations.open(None, None)
        await conversations.ask(conversation, "How?", [], ChatOptions("one"))
        while conversation.turn.phase != "thinking":
            await asyncio.sleep(0)
        conversation.turn.stop()
        said = await answered(conversation)
        assert said.extras["finish_reason"] == "abort" and said.thought and not said.content
        assert service.started[0].aborted
        service.held = False
        await conversations.ask(conversation, "Why?", [], ChatOptions("one"))
        assert [message["content"] for message in conversation.turn.messages] == ["Why?"]
        await answered(conversation)
        assert [one.role for one in (await conversations.open(conversation.id, None)).messages] == ["user", "assistant"] * 2

    with_conversations(test, held=True)


@pytest.mark.parametrize("thought, answer", [("First I", ""), ("First I look.", "The roots"), ("", "The roots")])
def test_an_answer_that_was_broken_off_goes_on_where_it_was(with_conversations, thought, answer):
    async def test(conversations, service):
        history = conversations.history
        name = history.create("How?")
        history.append(name, "user", "How?")
        extras = {"tokens": 7, "thought_tokens": 5, "thought_seconds": 60.0}
        history.append(name, "assistant", answer, thought, "one", extras, finished=False)
        conversation = await conversations.open(name, None)
        begun = conversation.messages[-1]
        await conversations.go_on(conversation, begun, ChatOptions("two", thoughts=3))
        gone_on = await answered(conversation)
        prompt = service.models["one"].tokenizer.decode(service.started[-1].plan.prompt)
        assert prompt.endswith(answer or thought) and thought in prompt and prompt.count("How?") == 1
        assert (gone_on.model, gone_on.content) == ("one", f"{answer} and so on.")
        assert gone_on.thought == thought + " and on" * (not answer)
        assert gone_on.extras["tokens"] > 7 and gone_on.extras["thought_seconds"] >= 60 and "agreement" not in gone_on.extras
        stored = [(one.content, one.thought) for one in history.messages(name)]
        assert stored == [("How?", ""), (answer, thought), (gone_on.content, gone_on.thought)]
        assert conversation.tree.versions(gone_on) == [begun, gone_on]

    with_conversations(test, reply=lambda number: (" and on", " and so on."))


def test_what_failed_can_be_asked_again(with_conversations):
    async def test(conversations, service):
        generate = service.generate

        def busy(*args, **changes):
            raise Busy("too many replies.", 1)

        service.generate = busy
        conversation = await conversations.open(None, None)
        await conversations.ask(conversation, "How?", [], ChatOptions("one"))
        failed = await answered(conversation)
        assert failed.extras["error"] == "too many replies."
        service.generate = generate
        await conversations.retry(conversation, failed, ChatOptions("one"))
        assert (await answered(conversation)).content == ANSWER and "error" not in conversation.messages[1].extras

    with_conversations(test)


def test_a_long_conversation_goes_on_without_its_oldest_questions(with_conversations):
    async def test(conversations, service):
        conversation, counts = await conversations.open(None, None), []
        for number in range(8):
            await conversations.ask(conversation, f"Question {number}? " + "word " * 40, [],
                              ChatOptions("one", system="Be brief.", temperature=0.0))
            said = await answered(conversation)
            assert said.content == "yes" and "error" not in said.extras
            counts.append(said.extras.get("left_out", 0))
        assert counts[0] == 0 and counts == sorted(counts) and counts[-1] >= 3
        prompt = service.models["one"].tokenizer.decode(service.started[-1].plan.prompt, keep_special=True)
        assert "Be brief." in prompt and "Question 7?" in prompt and "Question 0?" not in prompt
        assert service.started[-1].plan.params.temperature == 0.0
        assert len(conversation.messages) == 16  # all of it stays on the page
        await conversations.ask(conversation, "Now?", [], ChatOptions("two"))  # a model's own count
        await answered(conversation)

    with_conversations(test, reply=lambda number: ("", "yes"))


def test_several_thoughts_vote(with_conversations):
    async def test(conversations, service):
        conversation = await conversations.open(None, None)
        await conversations.ask(conversation, "How many?", [], ChatOptions("one", thoughts=4))
        said = await answered(conversation)
        assert said.content == "5" and said.extras["thoughts"] == 4
        assert said.extras["agreement"] == 0.75 and said.extras["runners_up"] == [["4", 1]]
        assert said.extras["thought_tokens"] == 120

    with_conversations(test, reply=lambda number: ("", "4" if number == 0 else "5"))


def test_what_goes_wrong_is_part_of_the_answer(with_conversations):
    async def test(conversations, service):
        conversation = await conversations.open(None, None)
        await conversations.ask(conversation, "word " * 2000, [], ChatOptions("one"))
        said = await answered(conversation)
        assert "leaves no room" in said.extras["error"] and not said.content
        await conversations.retry(conversation, conversation.messages[1], ChatOptions("one"))
        await conversations.delete(conversation.id, None)  # while it is answered
        await answered(conversation)
        assert await conversations.entries(None) == []
        with pytest.raises(KeyError):
            await conversations.ask(conversation, "More?", [], ChatOptions("one"))

    with_conversations(test)


def test_a_broken_model_is_said_and_no_task_is_left_behind(with_conversations):
    async def test(conversations, service):
        def fail(number):
            raise RuntimeError("bug")

        service.reply = fail
        turn = ChatTurn(service, [{"role": "user", "content": "How?"}], ChatOptions("one"))
        await turn.wait()
        assert turn.phase == "over" and turn.message.extras["error"] == "RuntimeError"
        assert turn._task.exception() is not None and turn.handle is None

    with_conversations(test)


def test_what_changes_in_the_settings_is_for_the_next_answer(with_conversations):
    async def test(conversations, service):
        options = ChatOptions("one")
        await conversations.ask(await conversations.open(None, None), "How?", [], options)
        options.model, options.thoughts = "two", 3
        while not service.started:
            await asyncio.sleep(0)
        assert service.started[0].served.id == "one" and service.started[0].plan.params.n == 1

    with_conversations(test)
