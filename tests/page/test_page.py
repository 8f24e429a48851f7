"""The page without a browser: conversations survive, nobody sees another's, nothing comes from elsewhere."""

import asyncio
import gc
import re
from contextlib import asynccontextmanager

import httpx
import pytest
from fastapi import FastAPI
from scripted import ANSWER, THOUGHT, scripted_service

from spoutnik import page
from spoutnik.generation import generation
from spoutnik.generation.session import ChatOptions, ChatTurn
from spoutnik.page.controls import wish_from
from spoutnik.page.strings import EN, FR
from spoutnik.page.tab import ChatTab
from spoutnik.serve.keys import Keys
from spoutnik.serve.settings import Settings
from spoutnik.store.feedback import Feedback
from spoutnik.store.history import History


@pytest.fixture
def scripted(make_service):
    return scripted_service(make_service)


@pytest.fixture
def in_room(scripted, tmp_path):
    """Runs a test(room, service) in an event loop. Changes are those of ScriptedService."""
    def run(test, history=True, **changes):
        async def main():
            service = scripted(**changes)
            room = ChatTab(service, Feedback(tmp_path / "feedback"), History(tmp_path / "history.db") if history else None)
            await test(room, service)
            await service.close(0)

        asyncio.run(main())

    return run


async def answered(talk):
    while talk.turn is not None:
        await talk.turn.wait()
    return talk.said[-1]


def test_an_answer_is_kept_with_all_that_is_known_of_it(in_room):
    async def test(room, service):
        talk = room.open(None, None)
        room.ask(talk, "Find the roots.", [("notes.txt", "x^2")], ChatOptions("one"))
        said = await answered(talk)
        assert (said.content, said.thought, said.model) == (ANSWER, THOUGHT, "one")
        assert said.extras["thought_tokens"] == 30 and said.extras["finish_reason"] == "stop"
        assert room.titles(None) == [(talk.id, "Find the roots.")]
        name = talk.id
        del talk
        gc.collect()
        question, answer = room.open(name, None).said
        assert question.content == "Find the roots.\n\nnotes.txt:\n```\nx^2\n```"
        assert question.extras == {"question": "Find the roots.", "files": ["notes.txt"]}
        assert (answer.content, answer.thought, answer.extras) == (ANSWER, THOUGHT, said.extras)

    in_room(test)


def test_a_tab_that_is_opened_again_finds_the_answer_under_way(in_room):
    async def test(room, service):
        room.ask(room.open(None, None), "How?", [], ChatOptions("one"))
        while not service.started:
            await asyncio.sleep(0)
        (name, _), = room.titles(None)
        gc.collect()
        talk = room.open(name, None)
        assert talk.turn is not None and [one.role for one in talk.said] == ["user"]
        service.go.set()
        assert (await answered(talk)).content == ANSWER

    in_room(test, held=True)


def test_steering_reaches_the_reply(in_room):
    async def test(room, service):
        talk = room.open(None, None)
        room.ask(talk, "How?", [], ChatOptions("one"))
        turn = talk.turn
        await turn.end_thought()  # too early: there is nothing to steer
        while turn.phase != "thinking":
            await asyncio.sleep(0)
        await turn.pause()
        assert turn.paused and turn.live.paused
        held = turn.thought_seconds
        await asyncio.sleep(0.01)
        assert turn.thought_seconds == held > 0
        await turn.pause()
        assert not turn.paused and not turn.live.paused
        await turn.insert("Check the sum.")
        await turn.insert("  ")
        assert turn.live.inserted == [" Check the sum. "]
        await turn.end_thought()
        said = await answered(talk)
        assert "Check the sum." in said.thought and THOUGHT not in said.thought and said.content == ANSWER
        assert said.extras["warnings"] == [generation.CUT.format(20)]

    in_room(test, held=True)


def test_stop_keeps_what_is_there_and_the_next_question_leaves_it_out(in_room):
    async def test(room, service):
        talk = room.open(None, None)
        room.ask(talk, "How?", [], ChatOptions("one"))
        while talk.turn.phase != "thinking":
            await asyncio.sleep(0)
        talk.turn.stop()
        said = await answered(talk)
        assert said.extras["finish_reason"] == "abort" and said.thought and not said.content
        assert service.started[0].aborted
        service.held = False
        room.ask(talk, "Why?", [], ChatOptions("one"))
        assert [message["content"] for message in talk.turn.messages] == ["Why?"]
        await answered(talk)
        assert [one.role for one in room.open(talk.id, None).said] == ["user", "assistant"] * 2

    in_room(test, held=True)


def test_retry_and_edit_replace_what_followed(in_room):
    async def test(room, service):
        talk = room.open(None, None)
        for question, files in (("First?", [("f.txt", "text")]), ("Second?", [])):
            room.ask(talk, question, files, ChatOptions("one"))
            await answered(talk)
        room.retry(talk, 3, ChatOptions("two"))
        assert [message["role"] for message in talk.turn.messages] == ["user", "assistant", "user"]
        assert talk.turn.messages[1]["reasoning_content"] == "t0"  # the template decides what becomes of it
        await answered(talk)
        assert [one.content for one in talk.said] == ["First?\n\nf.txt:\n```\ntext\n```", "a0", "Second?", "a2"]
        assert talk.said[-1].model == "two"
        room.edit(talk, 0, "Other?", ChatOptions("one"))
        await answered(talk)
        kept = room.history.open(talk.id)
        assert [one.content for one in kept] == ["Other?\n\nf.txt:\n```\ntext\n```", "a3"]
        assert kept[0].extras["question"] == "Other?"

    in_room(test, said=lambda number: (f"t{number}", f"a{number}"))


def test_several_thoughts_vote(in_room):
    async def test(room, service):
        talk = room.open(None, None)
        room.ask(talk, "How many?", [], ChatOptions("one", thoughts=4))
        said = await answered(talk)
        assert said.content == "5" and said.extras["thoughts"] == 4
        assert said.extras["agreement"] == 0.75 and said.extras["runners_up"] == [["4", 1]]
        assert said.extras["thought_tokens"] == 120

    in_room(test, said=lambda number: ("", "4" if number == 0 else "5"))


def test_what_goes_wrong_is_part_of_the_answer(in_room):
    async def test(room, service):
        talk = room.open(None, None)
        room.ask(talk, "word " * 2000, [], ChatOptions("one"))
        said = await answered(talk)
        assert "leaves no room" in said.extras["error"] and not said.content
        room.retry(talk, 1, ChatOptions("one"))
        room.delete(talk.id, None)  # while it is answered
        await answered(talk)
        assert room.titles(None) == []
        with pytest.raises(KeyError):
            room.ask(talk, "More?", [], ChatOptions("one"))

    in_room(test)


def test_nobody_sees_what_belongs_to_another_key(in_room):
    async def test(room, service):
        talk = room.open(None, "ann")
        room.ask(talk, "A secret?", [], ChatOptions("one"))
        await answered(talk)
        name = talk.id
        for other in ("bob", None):
            assert room.titles(other) == [] and room.open(name, other).said == []
            room.rename(name, "Mine", other)
            room.delete(name, other)
        assert room.titles("ann") == [(name, "A secret?")] and len(room.open(name, "ann").said) == 2
        room._owners.clear()  # a server that was started anew
        assert room.titles("bob") == [] and room.titles("ann") == [(name, "A secret?")]

    in_room(test)


def test_without_history_nothing_is_written(in_room, tmp_path):
    async def test(room, service):
        talk = room.open(None, None)
        room.ask(talk, "How?", [], ChatOptions("one"))
        await answered(talk)
        room.retry(talk, 1, ChatOptions("one"))
        await answered(talk)
        name = talk.id
        del talk
        gc.collect()
        assert len(room.open(name, None).said) == 2 and room.titles(None) == []  # a reload finds it all the same

    in_room(test, history=False)
    assert list(tmp_path.iterdir()) == []


def test_opinions_come_back_with_their_answers(in_room):
    async def test(room, service):
        talk = room.open(None, None)
        room.ask(talk, "How?", [], ChatOptions("one"))
        await answered(talk)
        room.judge(talk, 1, "down", "So.")
        name = talk.id
        del talk
        gc.collect()
        assert room.open(name, None).said[1].extras["rating"] == "down"
        assert room.open(name, None).said[1].extras["correction"] == "So."
        assert (room.feedback.folder / "tasks.jsonl").read_text() == '{"prompt": "How?", "answer": "So."}\n'

    in_room(test)


def test_a_broken_model_is_said_and_no_task_is_left_behind(in_room):
    async def test(room, service):
        def fail(number):
            raise RuntimeError("bug")

        service.said = fail
        turn = ChatTurn(service, [{"role": "user", "content": "How?"}], ChatOptions("one"))
        await turn.wait()
        assert turn.phase == "over" and turn.said.extras["error"] == "RuntimeError"
        assert turn._task.exception() is not None and turn.live is None

    in_room(test)


def test_what_was_chosen_last_is_read_from_the_cookie(scripted, tmp_path):
    room = ChatTab(scripted(), Feedback(tmp_path), None)
    assert wish_from("two%7Clow%7C8", room) == ChatOptions("two", "low", 8)  # as browsers send it
    for cookie in (None, "", "three|huge|99", "|||", "\x00|\x00", "one|high|-1"):
        assert wish_from(cookie, room) == ChatOptions("one", "high", 1)


# ------------------------------------------------------------------------------------------------------------ its door

@asynccontextmanager
async def mounted(service, settings, history=None, keys=None, key=None):
    """A client of a bare app with the page. key: whom the guard has let in."""
    app = FastAPI()
    app.get("/v1/models")(lambda: {"object": "list"})
    page.mount(app, service, settings, history, keys)

    async def guarded(scope, receive, send):
        scope.setdefault("state", {})["key"] = key
        await app(scope, receive, send)

    async with app.router.lifespan_context(app):
        async with httpx.AsyncClient(transport=httpx.ASGITransport(guarded), base_url="http://localhost") as client:
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
