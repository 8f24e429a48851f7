"""`spoutnik data make` as a command, and the teacher behind an endpoint: failures, refusals, log-probabilities."""

import json
import threading
from pathlib import Path

import pytest
from documents.scripted_teacher import documents, teacher
from endpoint_server import Answer, completion, endpoint_server, failure

from spoutnik.commands.main import app, how_to_go_on
from spoutnik.commands.progress import SilentDisplay
from spoutnik.documents.journal import Journal
from spoutnik.documents.making import MakeSettings, make_rows
from spoutnik.documents.output import check_out
from spoutnik.documents.teacher import Ask, EndpointTeacher, ask_all
from spoutnik.endpoint import Endpoint
from spoutnik.errors import RunError, UserError


@pytest.fixture
def docs(tmp_path) -> Path:
    return documents(tmp_path / "docs")


def make(docs: Path, asked: EndpointTeacher):
    journal = docs.parent / "q.journal"
    return make_rows([docs], lambda: asked, lambda: Journal(journal), MakeSettings(), SilentDisplay())


@pytest.fixture
def command(capsys):
    def run(*arguments: object) -> str:
        capsys.readouterr()
        app(["data", "make", *map(str, arguments)], standalone_mode=False)
        return capsys.readouterr().out

    return run


def respond(body: dict) -> Answer:
    return completion(teacher(body["messages"][0]["content"]))


def test_the_command_with_an_endpoint_writes_rows_report_and_journal(docs, command):
    out = docs.parent / "made" / "q.jsonl"
    with endpoint_server(respond) as server:
        arguments = (docs, "--teacher", server.url, "--model", "t", "--out", out)
        text = command(*arguments)
        assert "8 documents (8 .txt): 8 passages asked about" in text and "kept 16 (100% of the questions)" in text
        assert "spoutnik data" in text and len(server.requests) == 24
        facts = json.loads(command(*arguments, "--json"))  # again: nobody is asked, the same is written
        assert len(server.requests) == 24 and facts["kept"] == 16 and facts["teacher"]["model"] == "t"
        assert facts["libraries"].keys() == {"pypdf", "beautifulsoup4", "markdown-it-py"}
        assert server.requests[0][1].keys() == {"model", "messages", "stream", "temperature", "top_p", "max_tokens", "seed"}
        assert {file.name for file in out.parent.iterdir()} >= {"q.jsonl", "q.journal", "q.report"}
        out.write_text(out.read_text() + "\n")
        with pytest.raises(UserError, match="is there already, and is not what this command last wrote"):
            command(*arguments)
        assert "16 traces read" in _shown(command, out)


def _shown(command, out: Path) -> str:
    from typer.testing import CliRunner

    return CliRunner().invoke(app, ["data", str(out)], prog_name="spoutnik").output


class Pauses(list):
    async def __call__(self, seconds: float) -> None:
        self.append(seconds)


def test_failures_that_pass_are_waited_out_and_refusals_are_counted(docs):
    trouble = iter([failure(429, "slow down"), failure(500, "oops"), Answer(200, b"<html>"), Answer(200, b'{"choices": []}')])

    def answer(body: dict) -> Answer:
        text = body["messages"][0]["content"]
        if "Ada" in text and text.startswith("Write"):
            return failure(400, "content filter")
        if "Bea" in text and text.startswith("Write"):
            return completion("I cannot help with that.")
        return next(trouble, None) or respond(body)

    with endpoint_server(answer) as server:
        asked = EndpointTeacher(Endpoint(server.url, "t", sleep=Pauses()), concurrency=1)
        rows, report, _ = make(docs, asked)
    assert (report.refused, report.unreadable, report.kept, len(asked.endpoint.sleep)) == (1, 1, 12, 4)
    sentences = "\n".join(report.sentences())
    assert "of the replies 1 in no form that can be read, 1 refused" in sentences and "kept 12" in sentences


def test_an_endpoint_that_stops_leaves_what_was_answered(docs):
    released, journal = threading.Event(), docs.parent / "q.journal"

    def answer(body: dict) -> Answer:
        if len(server.requests) > 5:
            released.wait(10)
        return respond(body)

    with endpoint_server(answer) as server:
        asked = EndpointTeacher(Endpoint(server.url, "t", timeout=0.3, retries=1, sleep=Pauses()), concurrency=1)
        with pytest.raises(RunError, match="no whole answer within 0.3 s"):
            make(docs, asked)
        assert len(journal.read_text().splitlines()) == 5
        released.set()


def test_log_probabilities_are_asked_for_where_they_are_known(tmp_path):
    likeliest = [{"token": "Yes", "logprob": -0.1}, {"token": "No", "logprob": -2.5}]
    choice = {"message": {"content": "Yes"}, "finish_reason": "stop",
              "logprobs": {"content": [likeliest[0] | {"top_logprobs": likeliest}]}}

    def answer(body: dict) -> Answer:
        return Answer(200, json.dumps({"choices": [choice]}).encode())

    def refuse(body: dict) -> Answer:
        return failure(400, "unknown field logprobs") if "logprobs" in body else completion("Yes")

    asks = [Ask(f"Are {number} and {number} the same?", 16, yes_no=True) for number in range(4)]
    for number, (responding, yes) in enumerate(((answer, 0.9168), (refuse, None))):
        with endpoint_server(responding) as server:
            journal = Journal(tmp_path / f"{number}.journal")
            replies = ask_all(EndpointTeacher(Endpoint(server.url, "t"), 4), journal, asks, lambda *_: None)
            assert [reply.text for reply in replies] == ["Yes"] * 4
            assert all(reply.yes == (None if yes is None else pytest.approx(yes, abs=1e-3)) for reply in replies)
            assert server.requests[0][1]["top_logprobs"] == 5


def test_wrong_requests_are_sentences(docs, command):
    url = ("--teacher", "http://127.0.0.1:9/v1")
    for arguments, sentence in (((docs, *url), "serves models by name"), ((docs, *url, "--model", "t", "--dtype", "float32"),
                                                                        "are of models that run here"),
                                ((docs, "--teacher", docs, "--model", "t"), "are of endpoints"),
                                ((docs, "--teacher", docs.parent / "none"), "there is no folder of this name"),
                                ((docs, *url, "--model", "t", "--held-out-share", "1"), "must be below 1"),
                                ((docs, *url, "--model", "t", "--language", "xx"), "There is no language 'xx'"),
                                ((docs, *url, "--model", "t", "--out", docs / "q.csv"), r"must end in \.jsonl"),
                                ((docs / "none", *url, "--model", "t", "--out", docs.parent / "n.jsonl"), "is not there")):
        with pytest.raises(UserError, match=sentence):
            command(*arguments)
    (docs.parent / "own.jsonl").write_text("{}")
    with pytest.raises(UserError, match="is there already"):
        check_out(docs.parent / "own.jsonl")
    assert "run the same command again" in how_to_go_on(["data", "make", "docs"]) and not how_to_go_on(["data", "my.jsonl"])


def test_nothing_kept_writes_no_rows_and_says_so(docs, command):
    out = docs.parent / "none.jsonl"
    with endpoint_server(lambda body: completion("NONE")) as server, pytest.raises(RunError, match="none of 0 questions was"):
        command(docs, "--teacher", server.url, "--model", "t", "--out", out)
    assert not out.exists() and out.with_suffix(".report").exists()


def test_rows_of_an_earlier_run_stay_where_nothing_new_is_kept_and_it_is_told(docs, command):
    out = docs.parent / "q.jsonl"
    with endpoint_server(respond) as server:
        command(docs, "--teacher", server.url, "--model", "t", "--out", out)
        rows, facts = out.read_bytes(), json.loads(out.with_suffix(".report").read_text())
        for file in docs.iterdir():
            file.write_text("Something else entirely, of which no fact is stated in any of these many words.\n")
        server.respond = lambda body: completion("NONE")
        with pytest.raises(RunError, match=r"it still holds the rows of an earlier run .* remove .*q\.journal"):
            command(docs, "--teacher", server.url, "--model", "t", "--out", out)
        assert out.read_bytes() == rows and facts["kept"] == 16
        server.respond = respond
        with pytest.raises(RunError, match="still holds the rows"):  # and it is still this command's own file
            command(docs, "--teacher", server.url, "--model", "t", "--out", out)
