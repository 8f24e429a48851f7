"""`spoutnik serve`: the API and the chat page."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Optional

import typer

from spoutnik.commands.data_folder import data_folder, history_passphrase
from spoutnik.commands.options import AdapterList, Data, Device, Drafts, Json, Memory, Passphrase, Quantize, Speculate
from spoutnik.errors import UserError


def serve(
    model: Annotated[Optional[str], typer.Argument(help="A run's folder, a model's, a GGUF file (.gguf), "
                                                  "or a name on the hub (org/model) [default: "
                                                   "the newest run under ./runs, or the nano of the package].")] = None,
    host: Annotated[str, typer.Option(help="Where to listen; other addresses than 127.0.0.1 need an API key.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes one that is free.")] = 8000,
    uds: Annotated[Optional[Path], typer.Option(help="Listen at a Unix socket of this path, not at a port.")] = None,
    root_path: Annotated[str, typer.Option(help="The path below which a reverse proxy offers this server, as /chat.")] = "",
    served_model_name: Annotated[Optional[list[str]], typer.Option(help="The model's name in the API, not its folder's; may be "
                                                                   "repeated: it answers to each.")] = None,
    max_model_len: Annotated[Optional[int], typer.Option(min=2, help="Tokens that prompt and reply may have together [default: "
                                                         "the model's positions].")] = None,
    stage: Annotated[Optional[str], typer.Option(help="Of a run, offer this stage's model alone [default: all, each read when "
                                                 "it is first asked for].")] = None,
    adapter: AdapterList = None,
    runtime_adapters: Annotated[Optional[Path], typer.Option(help="Clients may load adapters of this folder, and unload them "
                                                             "(/v1/load_lora_adapter).")] = None,
    quantize: Quantize = None,
    memory: Memory = None,
    device: Device = "auto",
    speculate: Speculate = None,
    drafts: Drafts = 1,
    max_num_seqs: Annotated[int, typer.Option(min=1, help="Replies computed at the same time, of each model.")] = 256,
    logprobs_mode: Annotated[str, typer.Option(help="What log-probabilities are of: raw_logprobs, the model's own, or "
                                               "processed_logprobs, with penalties, biases and temperature.")] = "raw_logprobs",
    max_queue: Annotated[int, typer.Option(min=1, help="Replies under way or waiting; beyond, clients are asked to come "
                                           "again.")] = 256,
    require_key: Annotated[bool, typer.Option("--require-key", help="Refuse to start without an API key. (As soon as there is "
                                              "one, every request needs one.)")] = False,
    api_key: Annotated[Optional[list[str]], typer.Option(
        envvar="SPOUTNIK_API_KEY", help="A key that requests must bring, besides those of `spoutnik keys`; may be repeated. "
        "Others on this machine can see a command's arguments: the variable hides it, or several with spaces between.")] = None,
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

    from spoutnik.commands.adapters import Adapters
    from spoutnik.commands.application import serve as run
    from spoutnik.engine.sampling_params import check_logprobs_mode
    from spoutnik.generation.catalog import EngineOptions
    from spoutnik.serve.settings import Settings

    check_logprobs_mode(logprobs_mode)
    folder = data_folder(data)
    settings = Settings(
        host=host, port=port, uds=uds, root_path=normalize_root_path(root_path), data=folder, require_key=require_key,
        api_keys=tuple(map(check_api_key, api_key or ())), max_queue=max_queue,
        requests_per_minute=requests_per_minute, tokens_per_minute=tokens_per_minute, cors_origins=tuple(cors_origin or ()),
        log_prompts=log_prompts, history=not no_history, page=not no_page, passphrase=history_passphrase(passphrase, folder),
        runtime_adapters=check_adapters_folder(runtime_adapters))
    adapters = Adapters.parse(adapter or ())
    engine = EngineOptions(quantize, memory, speculate, drafts, max_num_seqs, max_model_len, logprobs_mode, adapters.merged,
                           device)
    run(model, stage, engine, settings, Console(stderr=True), json_, check_names(served_model_name or ()), adapters.named)


def normalize_root_path(path: str) -> str:
    """Without the slash at its end."""
    from spoutnik.serve.connection import PREFIX

    path = path.rstrip("/")
    if path and not PREFIX.fullmatch(path):
        raise UserError(f"--root-path {path}: must be a path that begins with /, as /chat.")
    return path


def check_api_key(secret: str) -> str:
    if not secret.isascii() or not secret.isprintable() or secret.split() != [secret]:
        raise UserError("--api-key: must be one word of ASCII, and not empty.")
    return secret


def check_adapters_folder(folder: Path | None) -> Path | None:
    if folder is not None and not folder.is_dir():
        raise UserError(f"--runtime-adapters {folder}: is no folder. Make it, or correct the path.")
    return folder


def check_names(names: Sequence[str]) -> Sequence[str]:
    for name in names:
        if not name.strip() or not name.isprintable():
            raise UserError(f"--served-model-name {name!r}: must be a name.")
    return names
