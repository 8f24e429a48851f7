"""`spoutnik serve`: the API and the chat page."""

from typing import Annotated, Optional

import typer

from spoutnik.commands.data import data_folder, history_passphrase
from spoutnik.commands.options import Data, Drafts, Json, Memory, Passphrase, Quantize, Speculate


def serve(
    model: Annotated[Optional[str], typer.Argument(help="A run's folder, a model's, or a name on the hub (org/model) [default: "
                                                   "the newest run under ./runs, or the nano base of the package].")] = None,
    host: Annotated[str, typer.Option(help="Where to listen; other addresses than 127.0.0.1 need an API key.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes one that is free.")] = 8000,
    stage: Annotated[Optional[str], typer.Option(help="Of a run, offer this stage's model alone [default: all, each read when "
                                                 "it is first asked for].")] = None,
    quantize: Quantize = None,
    memory: Memory = None,
    speculate: Speculate = None,
    drafts: Drafts = 1,
    max_num_seqs: Annotated[int, typer.Option(min=1, help="Replies computed at the same time, of each model.")] = 256,
    max_queue: Annotated[int, typer.Option(min=1, help="Replies under way or waiting; beyond, clients are asked to come "
                                           "again.")] = 256,
    require_key: Annotated[bool, typer.Option("--require-key", help="Refuse to start without an API key. (As soon as there is "
                                              "one, every request needs one.)")] = False,
    requests_per_minute: Annotated[Optional[int], typer.Option(min=1, help="Of each key.")] = None,
    tokens_per_minute: Annotated[Optional[int], typer.Option(min=1, help="Of each key, prompts included.")] = None,
    cors_origin: Annotated[Optional[list[str]], typer.Option(help="A web page's origin, as https://ui.example, that may call "
                                                             "the API from a browser; may be repeated.")] = None,
    data: Data = None,
    no_history: Annotated[bool, typer.Option("--no-history", help="The page keeps no conversations.")] = False,
    no_page: Annotated[bool, typer.Option("--no-page", help="The API alone.")] = False,
    passphrase: Passphrase = False,
    log_prompts: Annotated[bool, typer.Option("--log-prompts", help="Write what is asked and answered to the log.")] = False,
    json_: Json = False,
):
    """Serve a model: a chat page, and an API that OpenAI's clients understand. Nothing leaves the machine."""
    from rich.console import Console

    from spoutnik.commands.application import serve as run
    from spoutnik.generation.catalog import EngineOptions
    from spoutnik.serve.settings import Settings

    folder = data_folder(data)
    settings = Settings(
        host=host, port=port, data=folder, require_key=require_key, max_queue=max_queue,
        requests_per_minute=requests_per_minute, tokens_per_minute=tokens_per_minute, cors_origins=tuple(cors_origin or ()),
        log_prompts=log_prompts, history=not no_history, page=not no_page, passphrase=history_passphrase(passphrase, folder))
    run(model, stage, EngineOptions(quantize, memory, speculate, drafts, max_num_seqs), settings, Console(stderr=True), json_)
