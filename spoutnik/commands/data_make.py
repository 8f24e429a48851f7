"""`spoutnik data make`: questions with answers, and the spans that prove them, from documents."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from spoutnik.commands.console import print_json, say
from spoutnik.commands.options import Device, Json, Memory, Quantize, Stage
from spoutnik.commands.progress import display

if TYPE_CHECKING:
    from spoutnik.documents.making import MakeSettings
    from spoutnik.documents.teacher import Teacher


def make(
    docs: Annotated[list[Path], typer.Argument(metavar="DOCS...", help="Text files, Markdown, HTML or PDF; folders of such, or "
                                               "patterns in quotes ('manuals/*.pdf').")],
    teacher: Annotated[str, typer.Option(help="Who asks and answers: the address of an OpenAI-compatible endpoint "
                                         "(http://host:8000/v1), or a model that runs here: a folder, a GGUF file, a run, a "
                                         "name on the hub.")],
    out: Annotated[Path, typer.Option(help="The file of rows (.jsonl). Beside it stay what the teacher answered (.journal) and "
                                      "a report (.report).")] = Path("questions.jsonl"),
    per_passage: Annotated[int, typer.Option(min=1, max=20, help="Questions to ask for about each passage.")] = 3,
    held_out_share: Annotated[float, typer.Option(min=0.0, help="The share of the passages whose questions are held out, by "
                                                  "their words' hash.")] = 0.1,
    limit: Annotated[Optional[int], typer.Option(min=1, help="Only the first N passages.")] = None,
    judged: Annotated[bool, typer.Option("--judged", help="Also keep answers that no program can compare, where the teacher "
                                         "finds that both of its own say the same. They get the verifier judge.")] = False,
    language: Annotated[Optional[str], typer.Option(help="Of the documents (ISO 639-1) [default: found out for each "
                                                    "passage].")] = None,
    max_tokens: Annotated[int, typer.Option(min=16, help="Longest reply; more for a teacher that thinks.")] = 2048,
    temperature: Annotated[float, typer.Option(min=0.0, max=2.0, help="Of the questions. Answers are checked greedily.")] = 0.6,
    model: Annotated[Optional[str], typer.Option(help="An endpoint's name of the model.")] = None,
    key_variable: Annotated[Optional[str], typer.Option(help="Environment variable that holds the endpoint's key.")] = None,
    concurrency: Annotated[int, typer.Option(min=1, help="Requests to an endpoint at one time.")] = 8,
    stage: Stage = None,
    dtype: Annotated[str, typer.Option(help="Of a model that runs here: float32, bfloat16, or auto.")] = "auto",
    quantize: Quantize = None,
    memory: Memory = None,
    device: Device = "auto",
    json_: Json = False,
):
    """Make questions with answers from documents, each with the span of the source that proves it.

    A teacher writes them and answers each again with only the span before its eyes; what it cannot answer so is dropped.
    The same command again goes on where it was stopped."""
    from spoutnik.documents.journal import Journal
    from spoutnik.documents.making import MakeSettings, make_rows
    from spoutnik.documents.output import check_out, journal_of, report_of, write_output
    from spoutnik.errors import RunError
    from spoutnik.files import exclusive

    settings = MakeSettings(per_passage, held_out_share, max_tokens, temperature, judged, language, limit)
    _check(settings)
    check_out(out)
    open_teacher = _teacher(teacher, model, key_variable, concurrency, stage, dtype, quantize, memory, device)
    journal = journal_of(out)
    with exclusive(journal.with_name(f".{journal.name}.lock"), f"{out}: {{holder}} is writing it. Wait for it, or name another "
                                                                "--out."):
        rows, report, opened = make_rows(docs, open_teacher, lambda: Journal(journal), settings, display(json_))
        facts = write_output(out, rows, report, opened, settings)
    if json_:
        print_json({"out": str(out), **facts})
    else:
        for sentence in report.sentences():
            say(sentence)
    if not rows:
        written = "it still holds the rows of an earlier run" if out.exists() else "no file was written"
        raise RunError(f"{out}: none of {report.questions:,} questions was kept, so {written} ({report_of(out)} says why, with "
                       f"examples). Take a larger model as the teacher; to have the same one asked again, remove {journal}.")
    if not json_:
        say(f"{out}: look at it with `spoutnik data {out}`, train on it with `file: {out}` in a recipe, reward and evaluate it "
            f"with `tasks: [{out}]`. What was dropped, with examples: {report_of(out)}")


def _check(settings: "MakeSettings") -> None:
    from spoutnik.errors import UserError
    from spoutnik.tasks.identification import check_language

    if settings.held_out_share >= 1:
        raise UserError(f"--held-out-share {settings.held_out_share:g}: must be below 1.")
    if settings.language is not None:
        try:
            check_language(settings.language)
        except ValueError as error:
            raise UserError(f"--language {settings.language}: {error}") from error


def _teacher(name: str, model: str | None, key_variable: str | None, concurrency: int, stage: str | None, dtype: str,
             quantize: str | None, memory: str | None, device: str):
    """What opens the teacher: weights are read after the documents. Raises UserError for what can be wrong before."""
    from spoutnik.documents.teacher import EndpointTeacher, LocalTeacher
    from spoutnik.errors import UserError
    from spoutnik.evals.models import LocalModel, endpoint_model
    from spoutnik.locate import locate
    from spoutnik.tasks.prompt_styles import Chat

    if name.startswith(("http://", "https://")):
        if stage or quantize or memory or dtype != "auto" or device != "auto":
            raise UserError("--stage, --dtype, --device, --quantize and --memory are of models that run here, not of an "
                            "endpoint's. Leave them out.")
        endpoint = endpoint_model(name, {"model": model, "key_variable": key_variable}, concurrency).endpoint
        return lambda: EndpointTeacher(endpoint, concurrency)
    if model or key_variable:
        raise UserError("--model and --key-variable are of endpoints (http://...), and the teacher is a model of this machine. "
                        "Leave them out.")
    folder = locate(name, stage)

    def open_model() -> "Teacher":
        local = LocalModel(folder, dtype=dtype, quantize=quantize, memory=memory, device=device)
        local.check(Chat(), False)
        return LocalTeacher(local)

    return open_model
