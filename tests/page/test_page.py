"""The page without a browser: conversations survive, nobody sees another's, nothing comes from elsewhere."""

import asyncio
import gc
import random
import re
from contextlib import asynccontextmanager
from dataclasses import replace
from urllib.parse import quote

import httpx
import pytest
from fastapi import FastAPI
from scripted import ANSWER, THOUGHT, scripted_service

from spoutnik import page
from spoutnik.files import write_json
from spoutnik.generation.service import Busy
from spoutnik.generation.session import ChatOptions, ChatTurn
from spoutnik.page.controls import MAX_SYSTEM_LENGTH, cookie_of, options_from
from spoutnik.page.conversations import Conversations
from spoutnik.page.strings import EN, FR
from spoutnik.serve.keys import Keys
from spoutnik.serve.settings import Settings
from spoutnik.store.feedback import FeedbackStore
from spoutnik.store.history import History
from spoutnik.text.chat_template import ChatTemplates
from spoutnik.text.tokenizer import Tokenizer


@pytest.fixture
def scripted(make_service):
    return scripted_service(make_service)


@pytest.fixture
def with_conversations(scripted, tmp_path):
    """Runs test(conversations, service) in an event loop. Changes are those of ScriptedService."""
    def run(test, history=True, **changes):
        async def main():
            service = scripted(**changes)
            conversations = Conversations(service, FeedbackStore(tmp_path / "feedback"),
                                          History(tmp_path / "history.db") if history else None, save_seconds=0.001)
            await test(conversations, service)
            await service.close(0)

        asyncio.run(main())

    return run


def titles(conversations, owner=None):
    return [(entry.id, entry.title) for entry in conversations.entries(owner)]


async def answered(conversation):
    while conversation.turn is not None:
        await conversation.turn.wait()
    return conversation.messages[-1]


def test_an_answer_is_kept_with_all_that_is_known_of_it(with_conversations):
    async def test(conversations, service):
        conversation = conversations.open(None, None)
        conversations.ask(conversation, "Find the roots.", [("notes.txt", "x^2")], ChatOptions("one"))
        said = await answered(conversation)
        assert (said.content, said.thought, said.model) == (ANSWER, THOUGHT, "one")
        assert said.extras["thought_tokens"] == 30 and said.extras["finish_reason"] == "stop"
        assert titles(conversations) == [(conversation.id, "Find the roots.")]
        name = conversation.id
        del conversation
        gc.collect()
        question, answer = conversations.open(name, None).messages
        assert question.content == "Find the roots.\n\nnotes.txt:\n```\nx^2\n```"
        assert question.extras == {"question": "Find the roots.", "files": ["notes.txt"]}
        assert (answer.content, answer.thought, answer.extras) == (ANSWER, THOUGHT, said.extras)

    with_conversations(test)


def test_a_tab_that_is_opened_again_finds_the_answer_under_way(with_conversations):
    async def test(conversations, service):
        conversations.ask(conversations.open(None, None), "How?", [], ChatOptions("one"))
        while not service.started:
            await asyncio.sleep(0)
        (name, _), = titles(conversations)
        gc.collect()
        conversation = conversations.open(name, None)
        assert conversation.turn is not None and [one.role for one in conversation.messages] == ["user", "assistant"]
        service.go.set()
        assert (await answered(conversation)).content == ANSWER

    with_conversations(test, held=True)


def test_steering_reaches_the_reply(with_conversations):
    async def test(conversations, service):
        conversation = conversations.open(None, None)
        conversations.ask(conversation, "How?", [], ChatOptions("one"))
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
        conversation = conversations.open(None, None)
        conversations.ask(conversation, "How?", [], ChatOptions("one"))
        while conversation.turn.phase != "thinking":
            await asyncio.sleep(0)
        conversation.turn.stop()
        said = await answered(conversation)
        assert said.extras["finish_reason"] == "abort" and said.thought and not said.content
        assert service.started[0].aborted
        service.held = False
        conversations.ask(conversation, "Why?", [], ChatOptions("one"))
        assert [message["content"] for message in conversation.turn.messages] == ["Why?"]
        await answered(conversation)
        assert [one.role for one in conversations.open(conversation.id, None).messages] == ["user", "assistant"] * 2

    with_conversations(test, held=True)


def contents(messages):
    return [message.content for message in messages]


def test_retry_and_edit_add_versions(with_conversations):
    first = "First?\n\nf.txt:\n```\ntext\n```"

    async def test(conversations, service):
        conversation = conversations.open(None, None)
        for question, files in (("First?", [("f.txt", "text")]), ("Second?", [])):
            conversations.ask(conversation, question, files, ChatOptions("one"))
            await answered(conversation)
        conversations.retry(conversation, conversation.messages[3], ChatOptions("two"))
        assert [message["role"] for message in conversation.turn.messages] == ["user", "assistant", "user"]
        assert conversation.turn.messages[1]["reasoning_content"] == "t0"  # the template decides what becomes of it
        await answered(conversation)
        assert contents(conversation.messages) == [first, "a0", "Second?", "a2"] and conversation.messages[-1].model == "two"
        conversations.edit(conversation, conversation.messages[0], "Other?", ChatOptions("one"))
        assert [message["content"] for message in conversation.turn.messages] == [first.replace("First", "Other")]
        await answered(conversation)
        assert contents(conversation.messages) == [first.replace("First", "Other"), "a3"]
        assert conversation.messages[0].extras["question"] == "Other?"
        restarted = Conversations(service, conversations.feedback, conversations.history).open(conversation.id, None)
        for shown in (conversation, restarted):
            assert contents(shown.messages) == [first.replace("First", "Other"), "a3"]
            assert contents(shown.tree.versions(shown.messages[0])) == [first, first.replace("First", "Other")]
        conversations.show(conversation, conversation.tree.versions(conversation.messages[0])[0])
        assert contents(conversation.messages) == [first, "a0", "Second?", "a2"]
        conversations.show(conversation, conversation.tree.versions(conversation.messages[3])[0])
        assert contents(conversation.messages)[-1] == "a1"
        restarted = Conversations(service, conversations.feedback, conversations.history).open(conversation.id, None)
        assert contents(restarted.messages) == [first, "a0", "Second?", "a1"]
        conversations.ask(conversation, "Third?", [], ChatOptions("one"))  # goes on after the version that is shown
        await answered(conversation)
        assert contents(conversation.messages)[3:] == ["a1", "Third?", "a4"]

    with_conversations(test, reply=lambda number: (f"t{number}", f"a{number}"))


def test_a_version_may_be_flipped_to_while_another_is_answered(with_conversations):
    async def test(conversations, service):
        conversation = conversations.open(None, None)
        conversations.ask(conversation, "How?", [], ChatOptions("one"))
        first = conversation.messages[1]
        service.go.set()
        await answered(conversation)
        service.go.clear()
        conversations.retry(conversation, first, ChatOptions("one"))
        conversations.show(conversation, first)
        assert conversation.messages[1] is first and conversation.turn is not None
        service.go.set()
        await answered(conversation)
        second, = [one for one in conversation.tree.versions(first) if one is not first]
        assert second.content == ANSWER and conversation.messages[1] is first
        assert [message.content for message in conversations.history.messages(conversation.id)][1:] == [ANSWER, ANSWER]

    with_conversations(test, held=True)


def test_a_server_that_is_killed_keeps_what_was_written_and_is_asked_again(with_conversations):
    async def test(conversations, service):
        conversation = conversations.open(None, None)
        conversations.ask(conversation, "How?", [], ChatOptions("one"))
        stored = conversations.history.messages(conversation.id)
        assert [(one.content, one.finished) for one in stored] == [("How?", True), ("", False)]
        while conversation.turn.phase != "thinking":
            await asyncio.sleep(0)
        while not conversations.history.messages(conversation.id)[-1].thought:  # what is written at intervals has come
            await asyncio.sleep(0)
        started_anew = Conversations(service, conversations.feedback, History(conversations.history.path))
        found = started_anew.open(conversation.id, None)
        assert found.messages[1].extras["finish_reason"] == "interrupted" and THOUGHT.startswith(found.messages[1].thought)
        assert found.messages[1].thought and found.turn is None
        service.go.set()
        started_anew.retry(found, found.messages[1], ChatOptions("one"))
        assert (await answered(found)).content == ANSWER and len(found.tree.versions(found.messages[1])) == 2
        await answered(conversation)

    with_conversations(test, held=True)


@pytest.mark.parametrize("thought, answer", [("First I", ""), ("First I look.", "The roots"), ("", "The roots")])
def test_an_answer_that_was_broken_off_goes_on_where_it_was(with_conversations, thought, answer):
    async def test(conversations, service):
        history = conversations.history
        name = history.create("How?")
        history.append(name, "user", "How?")
        extras = {"tokens": 7, "thought_tokens": 5, "thought_seconds": 60.0}
        history.append(name, "assistant", answer, thought, "one", extras, finished=False)
        conversation = conversations.open(name, None)
        begun = conversation.messages[-1]
        conversations.go_on(conversation, begun, ChatOptions("two", thoughts=3))
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


def test_writing_an_answer_while_it_grows_has_a_bounded_cost(with_conversations):
    async def test(conversations, service):
        written = []

        class CountingHistory(History):
            def update(self, *args):
                written.append(args)
                super().update(*args)

        conversations.history = CountingHistory(conversations.history.path)
        conversation = conversations.open(None, None)
        conversations.ask(conversation, "How?", [], ChatOptions("one"))
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
        conversation = conversations.open(name, None)
        assert [one.role for one in conversation.messages] == ["user"]
        conversations.answer(conversation, conversation.messages[-1], ChatOptions("one"))
        assert (await answered(conversation)).content == ANSWER and len(conversation.messages) == 2

    with_conversations(test)


def test_what_failed_can_be_asked_again(with_conversations):
    async def test(conversations, service):
        generate, service.generate = service.generate, None

        def busy(*args, **changes):
            raise Busy("too many replies.", 1)

        service.generate = busy
        conversation = conversations.open(None, None)
        conversations.ask(conversation, "How?", [], ChatOptions("one"))
        failed = await answered(conversation)
        assert failed.extras["error"] == "too many replies."
        service.generate = generate
        conversations.retry(conversation, failed, ChatOptions("one"))
        assert (await answered(conversation)).content == ANSWER and "error" not in conversation.messages[1].extras

    with_conversations(test)


def test_a_long_conversation_goes_on_without_its_oldest_questions(with_conversations):
    async def test(conversations, service):
        conversation, counts = conversations.open(None, None), []
        for number in range(8):
            conversations.ask(conversation, f"Question {number}? " + "word " * 40, [],
                              ChatOptions("one", system="Be brief.", temperature=0.0))
            said = await answered(conversation)
            assert said.content == "yes" and "error" not in said.extras
            counts.append(said.extras.get("left_out", 0))
        assert counts[0] == 0 and counts == sorted(counts) and counts[-1] >= 3
        prompt = service.models["one"].tokenizer.decode(service.started[-1].plan.prompt, keep_special=True)
        assert "Be brief." in prompt and "Question 7?" in prompt and "Question 0?" not in prompt
        assert service.started[-1].plan.params.temperature == 0.0
        assert len(conversation.messages) == 16  # all of it stays on the page
        conversations.ask(conversation, "Now?", [], ChatOptions("two"))  # a model's own count
        await answered(conversation)

    with_conversations(test, reply=lambda number: ("", "yes"))


def test_two_tabs_do_not_overwrite_each_other(with_conversations):
    async def test(conversations, service):
        one = conversations.open(None, None)
        conversations.ask(one, "How?", [], ChatOptions("one"))
        await answered(one)
        other = conversations.open(one.id, None)
        assert other is one
        # And two servers on one history, each of which knows only what it has read.
        second = Conversations(service, conversations.feedback, History(conversations.history.path))
        there = second.open(one.id, None)
        for server, conversation, question in ((conversations, one, "Here?"), (second, there, "There?")):
            server.ask(conversation, question, [], ChatOptions("one"))
            await answered(conversation)
        stored = conversations.history.messages(one.id)
        assert [m.content for m in stored if m.role == "user"] == ["How?", "Here?", "There?"]
        assert [m.parent for m in stored if m.content in ("Here?", "There?")] == [stored[1].id] * 2
        assert all(m.content == ANSWER for m in stored if m.role == "assistant")

    with_conversations(test)


def test_several_thoughts_vote(with_conversations):
    async def test(conversations, service):
        conversation = conversations.open(None, None)
        conversations.ask(conversation, "How many?", [], ChatOptions("one", thoughts=4))
        said = await answered(conversation)
        assert said.content == "5" and said.extras["thoughts"] == 4
        assert said.extras["agreement"] == 0.75 and said.extras["runners_up"] == [["4", 1]]
        assert said.extras["thought_tokens"] == 120

    with_conversations(test, reply=lambda number: ("", "4" if number == 0 else "5"))


def test_what_goes_wrong_is_part_of_the_answer(with_conversations):
    async def test(conversations, service):
        conversation = conversations.open(None, None)
        conversations.ask(conversation, "word " * 2000, [], ChatOptions("one"))
        said = await answered(conversation)
        assert "leaves no room" in said.extras["error"] and not said.content
        conversations.retry(conversation, conversation.messages[1], ChatOptions("one"))
        conversations.delete(conversation.id, None)  # while it is answered
        await answered(conversation)
        assert titles(conversations) == []
        with pytest.raises(KeyError):
            conversations.ask(conversation, "More?", [], ChatOptions("one"))

    with_conversations(test)


def test_nobody_sees_what_belongs_to_another_key(with_conversations):
    async def test(conversations, service):
        conversation = conversations.open(None, "ann")
        conversations.ask(conversation, "A secret?", [], ChatOptions("one"))
        await answered(conversation)
        name = conversation.id
        for other in ("bob", None):
            assert titles(conversations, other) == [] and conversations.open(name, other).messages == []
            assert await conversations.search("secret", other) == []
            conversations.rename(name, "Mine", other)
            conversations.delete(name, other)
        assert titles(conversations, "ann") == [(name, "A secret?")] and len(conversations.open(name, "ann").messages) == 2
        conversations = Conversations(service, conversations.feedback, conversations.history)  # started anew
        assert titles(conversations, "bob") == [] and titles(conversations, "ann") == [(name, "A secret?")]

    with_conversations(test)


def test_without_history_nothing_is_written(with_conversations, tmp_path):
    async def test(conversations, service):
        conversation = conversations.open(None, None)
        conversations.ask(conversation, "How?", [], ChatOptions("one"))
        await answered(conversation)
        conversations.retry(conversation, conversation.messages[1], ChatOptions("one"))
        await answered(conversation)
        name = conversation.id
        del conversation
        gc.collect()
        assert len(conversations.open(name, None).messages) == 2  # a reload finds it all the same
        assert titles(conversations) == []

    with_conversations(test, history=False)
    assert list(tmp_path.iterdir()) == []


def test_feedback_comes_back_with_their_answers(with_conversations):
    async def test(conversations, service):
        conversation = conversations.open(None, None)
        conversations.ask(conversation, "How?", [], ChatOptions("one"))
        await answered(conversation)
        conversations.record_feedback(conversation, conversation.messages[1], "down", "So.")
        name = conversation.id
        del conversation
        gc.collect()
        assert conversations.open(name, None).messages[1].extras["rating"] == "down"
        assert conversations.open(name, None).messages[1].extras["correction"] == "So."
        assert (conversations.feedback.folder / "tasks.jsonl").read_text() == '{"prompt": "How?", "answer": "So."}\n'

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


def test_what_was_chosen_last_is_read_from_the_cookie(scripted, tmp_path):
    conversations = Conversations(scripted(), FeedbackStore(tmp_path), None)
    assert options_from("two%7Clow%7C8", conversations) == ChatOptions("two", "low", 8)  # as browsers send it
    for cookie in (None, "", "three|huge|99", "|||", "\x00|\x00", "one|high|-1", "one|high|²", "one|high|1|nan|%%%",
                   "one|high|1|9|x", "one|high|1|-0.1|" + "A" * 3000):
        assert options_from(cookie, conversations) == ChatOptions("one", "high", 1)


@pytest.mark.parametrize("options", [ChatOptions("two", "max", 16, "Réponds | en vers.\n« oui »", 0.0), ChatOptions("one"),
                                     ChatOptions("one", temperature=2.0), ChatOptions("one", system="x" * MAX_SYSTEM_LENGTH)])
def test_what_is_chosen_fits_the_cookie_and_comes_back(scripted, tmp_path, options):
    conversations = Conversations(scripted(), FeedbackStore(tmp_path), None)
    assert options_from(quote(cookie_of(options)), conversations) == options


def test_a_system_prompt_that_no_cookie_holds_is_known_as_such():
    rng = random.Random(0)
    system = "".join(chr(rng.randrange(0x4e00, 0x9fff)) for _ in range(MAX_SYSTEM_LENGTH))
    assert cookie_of(ChatOptions("one", system=system)) is None


def test_what_the_page_samples_with_is_the_models_recommendation(scripted, tmp_path):
    served = scripted().default
    assert ChatOptions("one").generation_options(served).params.temperature == 0.6
    served = replace(served, folder=tmp_path)
    write_json(tmp_path / "generation_config.json", {"temperature": 0.7, "top_k": 20})
    params = ChatOptions("one").generation_options(served).params
    assert (params.temperature, params.top_k) == (0.7, 20)
    assert ChatOptions("one", temperature=0.0).generation_options(served).params.temperature == 0.0


def test_what_changes_in_the_settings_is_for_the_next_answer(with_conversations):
    async def test(conversations, service):
        options = ChatOptions("one")
        conversations.ask(conversations.open(None, None), "How?", [], options)
        options.model, options.thoughts = "two", 3
        while not service.started:
            await asyncio.sleep(0)
        assert service.started[0].served.id == "one" and service.started[0].plan.params.n == 1

    with_conversations(test)


@pytest.mark.parametrize("template, thinks", [
    ("{{ messages[0].content }}", False), ("{{ messages[0].content }}<think>\n", True),
    ("{{ messages[0].content.split('</think>')[-1] }}", True)])
def test_whether_a_model_thinks_is_read_from_its_template(scripted, tokenizer, template, thinks):
    served = scripted().default
    assert served.thinks
    plain = Tokenizer(tokenizer.bpe, ChatTemplates({"default": template}, "chat_template.jinja"), tokenizer.config)
    assert replace(served, tokenizer=plain).thinks is thinks


# --------------------------------------------------------------------------------------------------------- over HTTP

@asynccontextmanager
async def mounted(service, settings, history=None, keys=None, key=None):
    """A client of a bare app with the page. key: the one that authentication has found."""
    app = FastAPI()
    app.get("/v1/models")(lambda: {"object": "list"})
    page.mount(app, service, settings, history, keys)

    async def authenticated(scope, receive, send):
        scope.setdefault("state", {})["key"] = key
        await app(scope, receive, send)

    async with app.router.lifespan_context(app):
        async with httpx.AsyncClient(transport=httpx.ASGITransport(authenticated), base_url="http://localhost") as client:
            yield client
    await service.close(0)


def test_the_page_loads_nothing_from_elsewhere_and_leaves_other_paths_alone(scripted, tmp_path):
    async def main():
        async with mounted(scripted(), Settings(data=tmp_path)) as client:
            got = await client.get("/", headers={"accept-language": "fr"})
            assert got.status_code == 200 and FR.greeting.replace("\u00a0", " ") in got.text.replace("\u00a0", " ")
            loaded = re.findall(r"""(?:src|href)=["']([^"']+)|@import url\(["']?([^"')]+)|"imports": \{(.*?)\}""", got.text)
            addresses = [address for found in loaded for address in found if address]
            assert addresses and not [address for address in addresses if "//" in address], addresses
            for address in addresses:
                if address.endswith((".js", ".css")):
                    part = await client.get(address)
                    assert part.status_code == 200
                    assert not re.search(r"@import|url\(['\"]?(https?:)?//|src:\s*url\(['\"]?http", part.text[:200_000])
            assert (await client.get("/favicon.ico")).status_code == 200
            assert (await client.get("/v1/models")).json() == {"object": "list"}
            for path in ("/v1/nothing", "/nothing"):
                missing = await client.get(path)
                assert missing.status_code == 404 and missing.json() == {"detail": "Not Found"}
            assert (await client.post("/v1/models")).status_code == 405

    asyncio.run(main())


def test_where_there_must_be_a_key_nothing_is_shown_without_one(scripted, tmp_path):
    keys = Keys(tmp_path / "keys.json")
    secret = keys.add("ann")

    async def main():
        for changes, known in (({"require_key": True}, None), ({"host": "0.0.0.0"}, None), ({}, keys)):
            settings = Settings(data=tmp_path, **changes)
            async with mounted(scripted(), settings, keys=known) as client:
                got = await client.get("/")
                assert got.status_code == 401 and EN.greeting not in got.text
            async with mounted(scripted(), settings, keys=known, key=keys.find(secret)) as client:
                assert (await client.get("/")).status_code == 200

    asyncio.run(main())
