"""`spoutnik chat`: a conversation in the terminal."""

import sys
from typing import Annotated, Optional

import typer

from spoutnik.commands.console import print_json
from spoutnik.commands.data_folder import data_folder
from spoutnik.commands.options import AdapterList, Data, Device, Drafts, Json, Memory, Quantize, Speculate, Stage
from spoutnik.commands.progress import quantization_progress


def chat(
    run: Annotated[Optional[str], typer.Argument(help="A run's folder, a model's, a GGUF file (.gguf), "
                                                  "a name of `spoutnik models` or on the hub "
                                                  "(org/model) [default: the newest run under ./runs, or the nano of the "
                                                  "package].")] = None,
    stage: Stage = None,
    temperature: Annotated[Optional[float], typer.Option(help="0 is greedy [default: what the model's makers advise, else "
                                                         "0.6].")] = None,
    top_p: Annotated[Optional[float], typer.Option(help="Share of the probability to sample from [default: as advised, else "
                                                   "0.95].")] = None,
    max_tokens: Annotated[Optional[int], typer.Option(min=1, help="Longest reply, thought included [default: as many as the "
                                                      "model has room for].")] = None,
    max_thinking_tokens: Annotated[Optional[int], typer.Option(min=0, help="Longest thought; then it is closed and answered.")
                                   ] = None,
    effort: Annotated[Optional[str], typer.Option(help="The thought's share of the reply: none, minimal, low, medium, high, "
                                                  "xhigh, max.")] = None,
    system: Annotated[Optional[str], typer.Option(help="What the model is told before everything.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Same seed, same reply.")] = 0,
    adapter: AdapterList = None,
    quantize: Quantize = None,
    memory: Memory = None,
    device: Device = "auto",
    speculate: Speculate = None,
    drafts: Drafts = 1,
    prompt: Annotated[Optional[str], typer.Option(help="Ask this one question and leave.")] = None,
    no_markdown: Annotated[bool, typer.Option("--no-markdown", help="Show answers as the model writes them, marks and all. "
                                              "(What is piped or written to a file always is.)")] = False,
    no_history: Annotated[bool, typer.Option("--no-history", help="Do not remember questions for the arrow keys of the next "
                                             "time.")] = False,
    data: Data = None,
    json_: Json = False,
):
    """Talk to a model in the terminal: the thought is dimmed, the answer shown as Markdown. /help shows what else can be said.
    Piped or into a file, the answer alone goes to standard output; thought and notes go to standard error. --json has both."""
    from spoutnik.commands.adapters import Adapters
    from spoutnik.commands.reply_printer import ReplyPrinter, as_text
    from spoutnik.engine.generation_config import generation_defaults
    from spoutnik.engine.llm import NO_DRAFTS
    from spoutnik.engine.sampling_params import SamplingParams
    from spoutnik.errors import UserError
    from spoutnik.generation.catalog import default_model
    from spoutnik.generation.chat import Chat, chat_llm
    from spoutnik.generation.options import GenerationOptions
    from spoutnik.locate import locate
    from spoutnik.model.checkpoint import origin

    if json_ and prompt is None:
        raise UserError("--json needs --prompt: a conversation has no single result. Add --prompt \"...\".")
    adapters = Adapters.parse(adapter or ())
    if len(adapters.named) > 1:
        raise UserError(f"--adapter: {len(adapters.named)} of them, and a conversation has one. Give one, or serve them "
                        "(spoutnik serve).")
    folder = default_model(stage) if run is None else locate(run, stage)
    given = {name: value for name, value in (("temperature", temperature), ("top_p", top_p)) if value is not None}
    options = GenerationOptions(SamplingParams(**generation_defaults(folder) | given), max_tokens, max_thinking_tokens, effort)
    with quantization_progress(json_) as progress:
        llm = chat_llm(folder, adapter=adapters.merged, adapters=adapters.named, device=device, quantize=quantize,
                       memory=memory, speculate=speculate, num_speculative_tokens=drafts, progress=progress)
    if speculate is not None and llm.core.drafter is None:
        print(NO_DRAFTS, file=sys.stderr)
    session = Chat(llm.with_adapter(next(iter(adapters.named), None)), options, seed, system)
    if prompt is None:
        from spoutnik.commands.chat_terminal import converse
        converse(session, ReplyPrinter.standard(not no_markdown), folder, None if no_history else
                 data_folder(data) / "chat_history")
        return
    reply = session.ask(as_text(prompt), None if json_ else ReplyPrinter.standard(not no_markdown))
    if json_:
        print_json({"model": str(origin(folder))} | reply)
    if reply["finish_reason"] == "abort":
        raise KeyboardInterrupt
