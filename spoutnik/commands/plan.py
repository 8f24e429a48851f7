"""`spoutnik plan`: what a recipe or a model takes on a cluster, on paper."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from spoutnik.commands.console import console, print_json, print_pairs
from spoutnik.commands.options import Json

if TYPE_CHECKING:
    from spoutnik.scale.hardware import Cluster
    from spoutnik.scale.recipe_plan import PlannedStage


def plan(
    subject: Annotated[str, typer.Argument(metavar="RECIPE-OR-MODEL", help="A recipe (nano, or a .yaml file); or a model: a "
                                           "preset (deepseek-v3), a config.json, or a folder with one.")],
    cluster: Annotated[str, typer.Option(help="The machines, as gpus=2048,kind=h800,price=2 (of a GPU-hour); also "
                                         "per_node, network (Gb/s of each GPU), and memory, bandwidth (GB/s), watts where they "
                                         "differ from the data sheet.")],
    layout: Annotated[Optional[str], typer.Option(help="As tensor=8,pipeline=16,expert=64; also context, chunks, schedule "
                                                  "(1f1b, zero-bubble), sharding (fsdp, optimizer) [default: the fastest that "
                                                  "fits].")] = None,
    train: Annotated[Optional[str], typer.Option(help="Of a model: tokens=14.8T,batch=1024; also sequence, micro_batch, "
                                                 "precision (bf16, fp8), recompute (none, cheap, selective, full), software "
                                                 "(pytorch, megatron, deepseek ...), mtp (no, yes).")] = None,
    rl: Annotated[Optional[str], typer.Option(help="Of a model: prompts=512,group_size=16; also response, longest, "
                                              "prompt, updates, scorings, steps, precision, recompute, software, and of the "
                                              "samplers tensor, expert, rollout_precision, graphs.")] = None,
    serve: Annotated[Optional[str], typer.Option(help="Of a model: input=2000,output=1000; also cached, batch, tensor, expert, "
                                                 "precision, cache (bf16, fp8), drafts, acceptance, separate, balanced, "
                                                 "graphs, two_batches, whole, requests.")] = None,
    json_: Json = False,
):
    """Plan on paper: memory of each GPU, tokens per second, time and cost on a cluster, and what binds. A recipe's stages; or
    pretraining, RL steps and serving of a model (those that options ask for; without any, pretraining). How far this may be
    trusted, and on what it was tried: docs/scale.md."""
    from spoutnik.errors import UserError
    from spoutnik.scale.hardware import parse_cluster

    machines = parse_cluster(cluster)
    if _is_recipe(subject):
        for option, text in (("--train", train), ("--rl", rl), ("--serve", serve)):
            if text is not None:
                raise UserError(f"{option}: is for a model; {subject} is a recipe, whose stages say that. Leave it out.")
        _plan_recipe(subject, machines, layout, json_)
        return
    _plan_model(subject, machines, layout, train, rl, serve, json_)


def _is_recipe(subject: str) -> bool:
    from spoutnik.recipe.shipped import shipped_recipes

    return subject in shipped_recipes() or Path(subject).suffix in (".yaml", ".yml")


def _plan_recipe(subject: str, machines: "Cluster", layout: str | None, json_: bool) -> None:
    from dataclasses import asdict

    from spoutnik.recipe.shipped import find_recipe
    from spoutnik.scale.describe import describe_cluster
    from spoutnik.scale.layout import parse_layout
    from spoutnik.scale.recipe_plan import plan_recipe_on

    stages = plan_recipe_on(find_recipe(Path(subject)), machines, parse_layout(layout) if layout else None)
    if json_:
        print_json({"cluster": _cluster_json(machines), "stages": [asdict(stage) for stage in stages]})
        return
    print_pairs(console(), describe_cluster(machines), width=8)
    _print_stages(stages)


def _print_stages(stages: list["PlannedStage"]) -> None:
    from rich.table import Table

    from spoutnik.tables import print_table
    from spoutnik.units import duration, short, size

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("stage", "kind", "GPUs", "trained", "generated", "memory", "time", "GPU-h", "cost", "binds"):
        table.add_column(column, justify="left" if column in ("stage", "kind", "binds") else "right", no_wrap=True)
    for stage in stages:
        table.add_row(stage.name, stage.kind, f"{stage.gpus:,}", short(stage.tokens_trained).strip(),
                      short(stage.tokens_generated).strip(), size(stage.memory_bytes), duration(stage.seconds),
                      f"{stage.gpu_hours:,.3g}", "–" if stage.cost is None else f"{stage.cost:,.2f}", stage.binds)
    print_table(console(), table)
    hours, seconds = sum(stage.gpu_hours for stage in stages), sum(stage.seconds for stage in stages)
    price = "" if stages and stages[0].cost is None else f", {sum(stage.cost for stage in stages):,.2f} at the given price"
    console().print(f"In all {duration(seconds)}, {hours:,.3g} GPU-hours{price}. GPUs: those that a stage's batch can feed. "
                    "Evaluations are not in it.", highlight=False)


def _plan_model(subject: str, machines: "Cluster", layout: str | None, train: str | None, rl: str | None, serve: str | None,
                json_: bool) -> None:
    from spoutnik.scale.costs import PlannedModel
    from spoutnik.scale.describe import describe_cluster, describe_rl, describe_serving, describe_training
    from spoutnik.scale.layout import parse_layout
    from spoutnik.scale.planner import plan_rl, plan_serving, plan_training, serving_json
    from spoutnik.scale.rl import parse_rl
    from spoutnik.scale.serving import parse_serving
    from spoutnik.scale.training import parse_training

    model, divided = PlannedModel(_config(subject)), parse_layout(layout) if layout else None
    if train is None and rl is None and serve is None:
        train = ""
    works = parse_training(train) if train is not None else None, parse_rl(rl) if rl is not None else None
    served = parse_serving(serve) if serve is not None else None
    facts, lines = {"cluster": _cluster_json(machines)}, describe_cluster(machines)
    if works[0] is not None:
        planned = plan_training(model, machines, divided, works[0], works[0].recompute if "recompute" in train else None)
        facts["training"] = planned.as_json()
        lines += describe_training(planned)
    if works[1] is not None:
        stepped = plan_rl(model, machines, divided, works[1])
        facts["rl"] = stepped.as_json()
        lines += describe_rl(stepped)
    if served is not None:
        served, engine = plan_serving(model, machines, served)
        facts["serving"] = serving_json(served, engine, machines)
        lines += describe_serving(engine, served, machines)
    print_json(facts) if json_ else print_pairs(console(), lines, width=8)


def _config(subject: str):
    from spoutnik.errors import RunError
    from spoutnik.files import read_json
    from spoutnik.model.config import ModelConfig
    from spoutnik.model.presets import preset

    path = Path(subject)
    if not path.exists() and "/" not in subject and not path.suffix == ".json":
        return preset(subject).config
    if path.suffix != ".json":
        from spoutnik.locate import locate
        return ModelConfig.load(locate(subject, weights=False))
    values = read_json(path)
    if not isinstance(values, dict):
        raise RunError(f"{path}: must hold a JSON object.")
    return ModelConfig.read(values, str(path))


def _cluster_json(machines: "Cluster") -> dict:
    from dataclasses import asdict

    return asdict(machines)
