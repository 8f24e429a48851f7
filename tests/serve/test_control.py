"""A reply is steered while it runs, and its stream is read again."""

import asyncio
import json

import httpx
import pytest

from spoutnik.serve.errors import ApiError
from spoutnik.serve.sse import NUMBERED_PING, PING
from spoutnik.serve.streams import StreamRecording, StreamRegistry

PATH = "/v1/chat/completions"


@pytest.fixture
def endless_body(endless):
    """A thought that goes on for as long as it may."""
    return {"messages": [{"role": "user", "content": "Why?"}], "seed": 4, "logit_bias": endless, "stream": True,
            "detect_loops": False, "max_tokens": 900}


class Reader:
    """Reads a stream event by event: id, thought and content so far, the numbers of the events."""

    def __init__(self, response: httpx.Response):
        assert response.status_code == 200
        self.lines = response.iter_lines()
        self.id, self.thought, self.content, self.numbers = "", "", "", []
        self.finish_reason = self.error = None
        self.over = False

    def next(self) -> "Reader":
        """To the next event.

        Raises:
            EOFError: there is none, and whoever waits for something would wait for ever.
        """
        for line in self.lines:
            if line.startswith("id: "):
                self.numbers.append(int(line[4:]))
            elif line == "data: [DONE]":
                self.over = True
                return self
            elif line.startswith("data: "):
                self._take(json.loads(line[6:]))
                return self
        raise EOFError(self.error)

    def _take(self, data: dict) -> None:
        self.error = data.get("error")
        if self.error is None:
            self.id = data["id"]
            for choice in data["choices"]:
                self.thought += choice["delta"].get("reasoning", "")
                self.content += choice["delta"].get("content", "")
                self.finish_reason = choice["finish_reason"]

    def until_thought(self) -> "Reader":
        while not self.thought:
            self.next()
        return self

    def to_the_end(self) -> "Reader":
        while not self.over and self.error is None:
            self.next()
        return self


def control(server: str, id: str, action: str, **more) -> httpx.Response:
    return httpx.post(f"{server}{PATH}/{id}/control", json={"action": action} | more)


def test_a_thought_is_ended(server, endless_body):
    with httpx.stream("POST", server + PATH, json=endless_body) as response:
        reader = Reader(response).until_thought()
        assert response.headers["x-request-id"] == reader.id
        assert control(server, reader.id, "end_thought").json() == {"id": reader.id, "action": "end_thought", "success": True}
        reader.to_the_end()
    assert reader.content and reader.finish_reason and "here is my answer" in reader.thought


def test_a_thought_is_ended_as_llama_cpp_does(server, endless_body):
    with httpx.stream("POST", server + PATH, json=endless_body) as response:
        reader = Reader(response).until_thought()
        done = httpx.post(f"{server}/v1/chat/completions/control", json={"id": reader.id, "action": "reasoning_end"})
        assert done.status_code == 200
        assert reader.to_the_end().content


def test_a_sentence_is_put_into_a_thought_that_paused(server, endless_body):
    with httpx.stream("POST", server + PATH, json=endless_body) as response:
        reader = Reader(response).until_thought()
        for action, more in (("pause", {}), ("insert", {"text": " But wait."}), ("pause", {}), ("continue", {}),
                             ("end_thought", {})):
            assert control(server, reader.id, action, **more).status_code == 200, action
        reader.to_the_end()
    assert " But wait." in reader.thought and reader.content


def test_what_cannot_be_steered(server, endless_body):
    with httpx.stream("POST", server + PATH, json=endless_body | {"max_thinking_tokens": 0}) as response:
        reader = Reader(response)
        while not reader.content:
            reader.next()
        for action, more in (("end_thought", {}), ("insert", {"text": "hm"})):
            refused = control(server, reader.id, action, **more)
            assert refused.status_code == 409 and refused.json()["error"]["param"] == "action"
        for action, more in (("insert", {}), ("pause", {"text": "x"}), ("insert", {"text": ""}), ("sing", {})):
            assert control(server, reader.id, action, **more).status_code == 400
        reader.to_the_end()
    assert control(server, reader.id, "pause").status_code == 404
    assert control(server, "no-such-id", "pause").json()["error"]["param"] == "id"


def test_a_stream_that_was_cut_is_read_on(server, idle, endless_body):
    body = endless_body | {"max_tokens": 400}
    with httpx.stream("POST", server + PATH, json=body) as response:
        whole = Reader(response).to_the_end()
    with httpx.stream("POST", server + PATH, json=body | {"resumable": True}) as response:
        first = Reader(response).until_thought()
    rest = []
    url = f"{server}{PATH}/{first.id}/stream"
    for how in ({"headers": {"Last-Event-ID": str(first.numbers[-1])}}, {"params": {"after": first.numbers[-1]}}):
        with httpx.stream("GET", url, **how) as response:
            rest.append(Reader(response).to_the_end())
    assert idle()
    for reader in rest:
        assert first.numbers + reader.numbers == list(range(len(first.numbers + reader.numbers)))
        assert first.thought + reader.thought == whole.thought and reader.content == whole.content and whole.content
    with httpx.stream("GET", url) as response:
        again = Reader(response).to_the_end()
    assert (again.thought, again.content) == (whole.thought, whole.content)
    # A browser's EventSource would come back for ever after the end of a stream, unless it is told that there is no more.
    assert httpx.get(url, headers={"Last-Event-ID": str(again.numbers[-1])}).status_code == 204  # [DONE]


def test_only_a_resumable_reply_goes_on_without_its_reader(server, idle, endless_body):
    with httpx.stream("POST", server + PATH, json=endless_body) as response:
        cut = Reader(response).until_thought()
    assert idle()
    with httpx.stream("GET", f"{server}{PATH}/{cut.id}/stream") as response:
        assert response.status_code == 200  # what there was can be read, and it has an end
        assert b"[DONE]" not in response.read()
    assert httpx.get(f"{server}{PATH}/none/stream").status_code == 404
    assert httpx.get(f"{server}{PATH}/{cut.id}/stream", headers={"Last-Event-ID": "x"}).status_code == 400
    assert httpx.get(f"{server}{PATH}/{cut.id}/stream", params={"after": -1}).status_code == 400


# Recordings by themselves


async def texts(*items):
    for text in items:
        if isinstance(text, Exception):
            raise text
        yield text


async def read(recording: StreamRecording, start: int = 0, numbered: bool = True) -> bytes:
    return b"".join([piece async for piece in recording.follow(start, 60.0, numbered)])


def test_readers_come_and_go():
    async def work():
        recording = StreamRecording()
        early = asyncio.create_task(read(recording))
        await asyncio.sleep(0)
        await recording.record(texts("one", "two"))
        assert await early == await read(recording) == b"id: 0\ndata: one\n\nid: 1\ndata: two\n\n"
        assert await read(recording, 1) == b"id: 1\ndata: two\n\n" and await read(recording, 9) == b""
        assert await read(recording, numbered=False) == b"data: one\n\ndata: two\n\n"
        assert recording.readers == 0

    asyncio.run(work())


@pytest.mark.parametrize("numbered, ping, late", [(True, NUMBERED_PING, b"id: 0\ndata: late\n\n"),
                                                  (False, PING, b"data: late\n\n")])
def test_silence_is_filled_with_pings(numbered, ping, late):
    async def work():
        recording, released = StreamRecording(), asyncio.Event()

        async def slow():
            await released.wait()
            yield "late"

        recorded, pieces = asyncio.create_task(recording.record(slow())), []
        async for piece in recording.follow(0, 0.001, numbered):
            pieces.append(piece)
            if len(pieces) == 3:
                released.set()
        await recorded
        assert pieces[:3] == [ping] * 3 and pieces[-1] == late

    asyncio.run(work())


def test_an_error_in_mid_stream_is_the_last_event():
    async def work():
        recording = StreamRecording()
        await recording.record(texts("one", ApiError(500, "broken"), "two"))
        return await read(recording)

    first, second, rest = asyncio.run(work()).split(b"\n\n")
    assert first == b"id: 0\ndata: one" and rest == b""
    assert json.loads(second.partition(b"data: ")[2])["error"]["message"] == "broken"


def test_what_is_kept_is_bounded(monkeypatch):
    monkeypatch.setattr("spoutnik.serve.streams.MAX_STREAM_BYTES", 100)
    monkeypatch.setattr("spoutnik.serve.streams.MAX_FINISHED", 3)

    async def work():
        streams = StreamRegistry(60.0, 60.0)
        for name in "abcdef":
            streams.open(name, texts("x" * 60, "y" * 60))
            await streams.recordings[name].task
        assert list(streams.recordings) == ["c", "d", "e", "f"]
        late = streams.recordings["f"]
        assert late.size <= 100 and b"forgotten" in await read(late)
        assert await read(late, 1) == b"id: 1\ndata: " + b"y" * 60 + b"\n\n"
        streams.seconds = 0.0
        with pytest.raises(ApiError, match="no such stream"):
            streams.resume("f", 0)
        assert not streams.recordings

    asyncio.run(work())
