"""`spoutnik tasks`: what can be trained and evaluated on."""

import random
from typing import TYPE_CHECKING, Annotated

import typer

from spoutnik.commands.console import console, print_json, print_pairs, say
from spoutnik.commands.help import Command, Group
from spoutnik.commands.options import Json
from spoutnik.errors import UserError

if TYPE_CHECKING:
    from spoutnik.tasks import Problem, Task

tasks = typer.Typer(
    cls=Group, invoke_without_command=True, epilog="Example: spoutnik tasks show countdown --seed 3",
    help="Tasks: kinds of problems that are verified, for training, rejection sampling, distillation and evaluation. Without a "
    "command: a list of them.")


@tasks.callback()
def list_(context: typer.Context, json_: Json = False):
    """List them: name, languages, what they are."""
    if context.invoked_subcommand is not None:
        if json_:
            raise UserError(f"--json: write it behind {context.invoked_subcommand}.")
        return
    from spoutnik.tasks.catalog import find_task, task_names

    listed = [find_task(name) for name in task_names()]
    if json_:
        print_json({"tasks": [{"name": task.name, "languages": task.languages, "about": _about(task)} for task in listed]})
        return
    print_pairs(console(), [(task.name, f"{_about(task)} ({', '.join(task.languages)})") for task in listed])
    say("\nSee problems of one: spoutnik tasks show NAME. Try its verifier: spoutnik audit NAME.")


@tasks.command("show", cls=Command, epilog="Example: spoutnik tasks show countdown --seed 3")
def show(
    name: Annotated[str, typer.Argument(help="Of a task.")],
    seed: Annotated[int, typer.Option(min=0, help="Another seed, another problem.")] = 0,
    split: Annotated[str, typer.Option(help="train or held_out.")] = "train",
    json_: Json = False,
):
    """Show a problem: its prompt, its answer, a worked solution where the task has one, and what the verifier says."""
    from spoutnik.tasks.catalog import find_task

    if split not in ("train", "held_out"):
        raise UserError(f"--split {split}: must be train or held_out.")
    task = find_task(name)
    facts = _facts(task, seed, split)
    if json_:
        print_json(facts)
        return
    rows = [("task", f"{task.name}: {_about(task)}"), ("language", facts["language"]), ("prompt", facts["prompt"]),
            ("answer", facts["answer"] or "none of its own: several are right")]
    if facts["thought"] is not None:
        rows.append(("thought", facts["thought"]))
    rows += [("verifier", f"{verdict['answer']!r} is graded {verdict['grade']:g}") for verdict in facts["verdicts"]]
    print_pairs(console(), rows)


def _facts(task: "Task", seed: int, split: str) -> dict:
    """Of one problem. verdicts: on its own answer, on that of another problem, and on none."""
    rng = random.Random(f"{seed} show {task.name}")
    problem, other = _problem(task, rng, split), _problem(task, rng, split)
    trace = task.solve(problem, rng, "careful")
    answers = [problem.answer, other.answer if other.answer != problem.answer else f"not {problem.answer}", ""]
    return {"task": task.name, "seed": seed, "split": split, "level": problem.level, "language": problem.language,
            "prompt": problem.prompt, "answer": problem.answer, "thought": None if trace is None else trace.thought,
            "verdicts": [{"answer": answer, "grade": float(task.verify(problem, answer))} for answer in dict.fromkeys(answers)]}


def _problem(task: "Task", rng: random.Random, split: str) -> "Problem":
    """Of the split; drawn, or one of those that were read."""
    listed = task.problems(split)
    if listed is None:
        return task.sample(rng, split)
    if not listed:
        raise UserError(f"{task.name} has no {split} problems. Choose the other split.")
    return rng.choice(list(listed))


def _about(task: "Task") -> str:
    from spoutnik.tasks.examples import ABOUT

    return task.about or ABOUT["en"].get(task.name, "")
