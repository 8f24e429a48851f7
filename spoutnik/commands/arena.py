"""`spoutnik arena`: a blind comparison of models in the terminal."""

import asyncio
from typing import Annotated, Optional

import typer

from spoutnik.commands.console import print_json
from spoutnik.commands.options import Data, Device, Json, Memory, Passphrase, Quantize


def arena(
    models: Annotated[Optional[list[str]], typer.Argument(help="A run, whose stages meet; or several runs, models or names on "
                                                          "the hub [default: the newest run under ./runs].")] = None,
    stage: Annotated[Optional[list[str]], typer.Option(help="Of a run, these stages alone; may be repeated.")] = None,
    ratings: Annotated[bool, typer.Option("--ratings", help="Show the ratings that the votes give, and leave.")] = False,
    effort: Annotated[str, typer.Option(help="How long the thoughts may be: none, minimal, low, medium, high, xhigh, max."
                                        )] = "high",
    quantize: Quantize = None,
    memory: Memory = None,
    device: Device = "auto",
    data: Data = None,
    no_history: Annotated[bool, typer.Option("--no-history", help="Forget the votes at the end.")] = False,
    passphrase: Passphrase = False,
    json_: Json = False,
):
    """Compare models blindly: two answer side by side, you say which is better. Votes are kept with the page's."""
    from rich.console import Console

    from spoutnik.arena.compare import compare, show_ratings
    from spoutnik.arena.matches import VoteStore
    from spoutnik.arena.ratings import rate
    from spoutnik.commands.data_folder import open_history
    from spoutnik.errors import UserError
    from spoutnik.generation.catalog import EngineOptions

    store = VoteStore(None if no_history else open_history(data, passphrase, create=not ratings))
    if ratings:
        votes = store.votes()
        rows = [row.as_json() for row in rate(votes)]
        print_json({"votes": len(votes), "ratings": rows}) if json_ else show_ratings(store, Console())
        return
    if json_:
        raise UserError("--json needs --ratings: a comparison has no single result. Add --ratings.")
    service = service_of(models or [], stage or [], EngineOptions(quantize, memory, max_num_seqs=1, device=device))
    asyncio.run(compare(service, store, Console(), effort))


def service_of(models: list[str], stages: list[str], engine):
    """A service of the models to compare: the stages of one run, or one model of each of several."""
    from spoutnik.errors import UserError
    from spoutnik.generation.catalog import list_models, load_llm
    from spoutnik.generation.service import GenerationService

    if stages and len(models) != 1:
        raise UserError(f"--stage {stages[0]}: belongs to one run, and {len(models)} were given. Give one, or leave it out.")
    if len(models) > 1:
        served = [list_models(model)[0] for model in models]
    elif stages:
        served = [model for stage in stages for model in list_models(models[0], stage)]
    else:
        served = list_models(models[0] if models else None)
    names = [model.id for model in served]
    if len(set(names)) < len(names):
        raise UserError(f"MODELS: two bear the same name, {', '.join(names)}. Nobody could tell their votes apart: rename a "
                        "folder, or name others.")
    return GenerationService(served, lambda model: load_llm(model, engine))
