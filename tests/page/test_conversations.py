"""Conversations without a browser: they survive, nothing that was said is lost, and nobody sees another's."""

import asyncio
import gc
import threading

import pytest
from page.conversation_fixtures import answered
from scripted import ANSWER, THOUGHT

from spoutnik.generation.session import ChatOptions
from spoutnik.page.conversations import Conversations
from spoutnik.store.history import History


async def titles(conversations, owner=None):
    return [(entry.id, entry.title) for entry in await conversations.entries(owner)]


def test_an_answer_is_kept_with_all_that_is_known_of_it(with_conversations):
    async def test(conversations, service):
        conversation = await conversations.open(None, None)
        await conversations.ask(conversation, "Find the roots.", [("notes.txt", "x^2")], ChatOptions("one"))
        said = await answered(conversation)
        assert (said.content, said.thought, said.model) == (ANSWER, THOUGHT, "one")
        assert said.extras["thought_tokens"] == 30 and said.extras["finish_reason"] == "stop"
        assert await titles(conversations) == [(conversation.id, "Find the roots.")]
        name = conversation.id
        del conversation
        gc.collect()
        question, answer = (await conversations.open(name, None)).messages
        assert question.content == "Find the roots.\n\nnotes.txt:\n```\nx^2\n```"
        assert question.extras == {"question": "Find the roots.", "files": ["notes.txt"]}
        assert (answer.content, answer.thought, answer.extras) == (ANSWER, THOUGHT, said.extras)

    with_conversations(test)


def test_a_tab_that_is_opened_again_finds_the_answer_under_way(with_conversations):
    async def test(conversations, service):
        await conversations.ask(await conversations.open(None, None), "How?", [], ChatOptions("one"))
        while not service.started:
            await asyncio.sleep(0)
        (name, _), = await titles(conversations)
        gc.collect()
        conversation = await conversations.open(name, None)
        assert conversation.turn is not None and [one.role for one in conversation.messages] == ["user", "assistant"]
        service.go.set()
        assert (await answered(conversation)).content == ANSWER

    with_conversations(test, held=True)


def contents(messages):
    return [message.content for message in messages]


def test_retry_and_edit_add_versions(with_conversations):
    first = "First?\n\nf.txt:\n```\ntext\n```"

    async def test(conversations, service):
        conversation = await conversations.open(None, None)
        for question, files in (("First?", [("f.txt", "text")]), ("Second?", [])):
            await conversations.ask(conversation, question, files, ChatOptions("one"))
            await answered(conversation)
        await conversations.retry(conversation, conversation.messages[3], ChatOptions("two"))
        assert [message["role"] for message in conversation.turn.messages] == ["user", "assistant", "user"]
        assert conversation.turn.messages[1]["reasoning_content"] == "t0"  # the template decides what becomes of it
        await answered(conversation)
        assert contents(conversation.messages) == [first, "a0", "Second?", "a2"] and conversation.messages[-1].model == "two"
        await conversations.edit(conversation, conversation.messages[0], "Other?", ChatOptions("one"))
        assert [message["content"] for message in conversation.turn.messages] == [first.replace("First", "Other")]
        await answered(conversation)
        assert contents(conversation.messages) == [first.replace("First", "Other"), "a3"]
        assert conversation.messages[0].extras["question"] == "Other?"
        restarted = await Conversations(service, conversations.feedback, conversations.history).open(conversation.id, None)
        for shown in (conversation, restarted):
            assert contents(shown.messages) == [first.replace("First", "Other"), "a3"]
            assert contents(shown.tree.versions(shown.messages[0])) == [first, first.replace("First", "Other")]
        await conversations.show(conversation, conversation.tree.versions(conversation.messages[0])[0])
        assert contents(conversation.messages) == [first, "a0", "Second?", "a2"]
        await conversations.show(conversation, conversation.tree.versions(conversation.messages[3])[0])
        assert contents(conversation.messages)[-1] == "a1"
        restarted = await Conversations(service, conversations.feedback, conversations.history).open(conversation.id, None)
        assert contents(restarted.messages) == [first, "a0", "Second?", "a1"]
        await conversations.ask(conversation, "Third?", [], ChatOptions("one"))  # goes on after the version that is shown
        await answered(conversation)
        assert contents(conversation.messages)[3:] == ["a1", "Third?", "a4"]

    with_conversations(test, reply=lambda number: (f"t{number}", f"a{number}"))


def test_a_version_may_be_flipped_to_while_another_is_answered(with_conversations):
    async def test(conversations, service):
        conversation = await conversations.open(None, None)
        await conversations.ask(conversation, "How?", [], ChatOptions("one"))
        first = conversation.messages[1]
        service.go.set()
        await answered(conversation)
        service.go.clear()
        await conversations.retry(conversation, first, ChatOptions("one"))
        await conversations.show(conversation, first)
        assert conversation.messages[1] is first and conversation.turn is not None
        service.go.set()
        await answered(conversation)
        second, = [one for one in conversation.tree.versions(first) if one is not first]
        assert second.content == ANSWER and conversation.messages[1] is first
        assert [message.content for message in conversations.history.messages(conversation.id)][1:] == [ANSWER, ANSWER]

    with_conversations(test, held=True)


def test_a_server_that_is_killed_keeps_what_was_written_and_is_asked_again(with_conversations):
    async def test(conversations, service):
        conversation = await conversations.open(None, None)
        await conversations.ask(conversation, "How?", [], ChatOptions("one"))
        stored = conversations.history.messages(conversation.id)
        assert [(one.content, one.finished) for one in stored] == [("How?", True), ("", False)]
        while conversation.turn.phase != "thinking":
            await asyncio.sleep(0)
        while not conversations.history.messages(conversation.id)[-1].thought:  # what is written at intervals has come
            await asyncio.sleep(0)
        started_anew = Conversations(service, conversations.feedback, History(conversations.history.path))
        found = await started_anew.open(conversation.id, None)
        assert found.messages[1].extras["finish_reason"] == "interrupted" and THOUGHT.startswith(found.messages[1].thought)
        assert found.messages[1].thought and found.turn is None
        service.go.set()
        await started_anew.retry(found, found.messages[1], ChatOptions("one"))
        assert (await answered(found)).content == ANSWER and len(found.tree.versions(found.messages[1])) == 2
        await answered(conversation)

    with_conversations(test, held=True)


def test_writing_an_answer_while_it_grows_has_a_bounded_cost(with_conversations):
    async def test(conversations, service):
        written = []

        class CountingHistory(History):
            def update(self, *args):
                written.append(args)
                super().update(*args)

        conversations.history = CountingHistory(conversations.history.path)
        conversation = await conversations.open(None, None)
        await conversations.ask(conversation, "How?", [], ChatOptions("one"))
        while not written:
            await asyncio.sleep(0)
        for _ in range(20):  # nothing is added to the thought meanwhile
            await asyncio.sleep(conversations.save_seconds)
        assert len(written) == 1
        service.go.set()
        await answered(conversation)
        assert written[-1][-1] is True  # finished
        assert conversations.pause_after(3.0) == 60.0 and conversations.pause_after(0.0) == conversations.save_seconds

    with_conversations(test, held=True)


def test_a_question_without_an_answer_can_be_answered(with_conversations):
    """As histories have it whose server was killed before it wrote answers from their beginning."""
    async def test(conversations, service):
        name = conversations.history.create("How?")
        conversations.history.append(name, "user", "How?")
        conversation = await conversations.open(name, None)
        assert [one.role for one in conversation.messages] == ["user"]
        await conversations.answer(conversation, conversation.messages[-1], ChatOptions("one"))
        assert (await answered(conversation)).content == ANSWER and len(conversation.messages) == 2

    with_conversations(test)


def test_two_tabs_do_not_overwrite_each_other(with_conversations):
    async def test(conversations, service):
        one = await conversations.open(None, None)
        await conversations.ask(one, "How?", [], ChatOptions("one"))
        await answered(one)
        other = await conversations.open(one.id, None)
        assert other is one
        # And two servers on one history, each of which knows only what it has read.
        second = Conversations(service, conversations.feedback, History(conversations.history.path))
        there = await second.open(one.id, None)
        for server, conversation, question in ((conversations, one, "Here?"), (second, there, "There?")):
            await server.ask(conversation, question, [], ChatOptions("one"))
            await answered(conversation)
        stored = conversations.history.messages(one.id)
        assert [m.content for m in stored if m.role == "user"] == ["How?", "Here?", "There?"]
        assert [m.parent for m in stored if m.content in ("Here?", "There?")] == [stored[1].id] * 2
        assert all(m.content == ANSWER for m in stored if m.role == "assistant")

    with_conversations(test)


def test_nobody_sees_what_belongs_to_another_key(with_conversations):
    async def test(conversations, service):
        conversation = await conversations.open(None, "ann")
        await conversations.ask(conversation, "A secret?", [], ChatOptions("one"))
        await answered(conversation)
        name = conversation.id
        for other in ("bob", None):
            assert await titles(conversations, other) == [] and (await conversations.open(name, other)).messages == []
            assert await conversations.search("secret", other) == []
            await conversations.rename(name, "Mine", other)
            await conversations.delete(name, other)
        assert await titles(conversations, "ann") == [(name, "A secret?")]
        assert len((await conversations.open(name, "ann")).messages) == 2
        conversations = Conversations(service, conversations.feedback, conversations.history)  # started anew
        assert await titles(conversations, "bob") == [] and await titles(conversations, "ann") == [(name, "A secret?")]

    with_conversations(test)


def test_without_history_nothing_is_written(with_conversations, tmp_path):
    async def test(conversations, service):
        conversation = await conversations.open(None, None)
        await conversations.ask(conversation, "How?", [], ChatOptions("one"))
        await answered(conversation)
        await conversations.retry(conversation, conversation.messages[1], ChatOptions("one"))
        await answered(conversation)
        name = conversation.id
        del conversation
        gc.collect()
        assert len((await conversations.open(name, None)).messages) == 2  # a reload finds it all the same
        assert await titles(conversations) == []

    with_conversations(test, history=False)
    assert list(tmp_path.iterdir()) == []


def test_feedback_comes_back_with_their_answers(with_conversations):
    async def test(conversations, service):
        conversation = await conversations.open(None, None)
        await conversations.ask(conversation, "How?", [], ChatOptions("one"))
        await answered(conversation)
        await conversations.record_feedback(conversation, conversation.messages[1], "down", "So.")
        name = conversation.id
        del conversation
        gc.collect()
        assert (await conversations.open(name, None)).messages[1].extras["rating"] == "down"
        assert (await conversations.open(name, None)).messages[1].extras["correction"] == "So."
        assert (conversations.feedback.folder / "tasks.jsonl").read_text() == '{"prompt": "How?", "answer": "So."}\n'

    with_conversations(test)


class SlowHistory(History):
    """Its writes of one kind wait until the disk is `ready`. written: what was written of them, in this order."""

    def __init__(self, path, slow):
        super().__init__(path)
        self.slow, self.ready, self.waiting, self.written = slow, threading.Event(), threading.Event(), []

    def _wait(self, kind, value):
        if kind == self.slow:
            self.waiting.set()
            assert self.ready.wait(20)
        self.written.append(value)

    def append(self, conversation, role, content, *args, **named):
        self._wait("append", content)
        return super().append(conversation, role, content, *args, **named)

    def update(self, conversation, message, content, thought, extras, finished):
        if finished:
            self._wait("update", content)
        super().update(conversation, message, content, thought, extras, finished)

    def rename(self, conversation, title):
        self._wait("rename", title)
        super().rename(conversation, title)


async def waits(slow):
    """The event loop goes on while a write waits for the disk."""
    async with asyncio.timeout(20):
        while not slow.waiting.is_set():
            await asyncio.sleep(0)
    for _ in range(100):
        await asyncio.sleep(0)


def test_a_question_is_written_beside_the_event_loop_and_accepted_once_it_is(with_conversations):
    async def test(conversations, service):
        slow = conversations.history = SlowHistory(conversations.history.path, "append")
        conversation = await conversations.open(None, None)
        asking = asyncio.create_task(conversations.ask(conversation, "How?", [], ChatOptions("one")))
        await waits(slow)
        assert conversation.busy and conversation.turn is None and not asking.done() and not service.started
        with pytest.raises(AssertionError):  # the tabs do not let anybody ask meanwhile
            await conversations.ask(conversation, "And?", [], ChatOptions("one"))
        slow.ready.set()
        await asking
        assert [one.content for one in History(slow.path).messages(conversation.id)] == ["How?", ""]  # before it is accepted
        assert (await answered(conversation)).content == ANSWER

    with_conversations(test)


def test_an_answer_is_over_once_it_is_written(with_conversations):
    async def test(conversations, service):
        slow = conversations.history = SlowHistory(conversations.history.path, "update")
        conversation = await conversations.open(None, None)
        await conversations.ask(conversation, "How?", [], ChatOptions("one"))
        turn = conversation.turn
        await waits(slow)
        assert turn.phase != "over" and conversation.turn is turn and turn.message.content == ANSWER
        slow.ready.set()
        await turn.wait()
        stored = History(slow.path).messages(conversation.id)[1]
        assert turn.phase == "over" and conversation.turn is None and (stored.content, stored.finished) == (ANSWER, True)

    with_conversations(test)


def test_writes_keep_their_order_and_none_is_lost_with_who_asked_for_it(with_conversations):
    async def test(conversations, service):
        conversation = await conversations.open(None, None)
        await conversations.ask(conversation, "How?", [], ChatOptions("one"))
        await answered(conversation)
        slow = conversations.history = SlowHistory(conversations.history.path, "rename")
        renaming = [asyncio.create_task(conversations.rename(conversation.id, title, None)) for title in "ab"]
        await waits(slow)
        asking = asyncio.create_task(conversations.ask(conversation, "Why?", [], ChatOptions("one")))
        await asyncio.sleep(0)
        for task in (asking, renaming[0]):  # their tabs are closed
            task.cancel()
        slow.ready.set()
        await asyncio.gather(asking, *renaming, return_exceptions=True)
        await conversations.entries(None)  # after all that
        assert slow.written == ["a", "b", "Why?", ""]
        assert not conversation.busy and (await titles(conversations))[0][1] == "b"

    with_conversations(test)
