"""What `spoutnik eval` can ask: benchmarks read from files, our families' held-out problems, reasoning-gym, own tasks."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from spoutnik.errors import UserError
from spoutnik.evals.identity import problems_hash
from spoutnik.evals.protocol import held_out_problems
from spoutnik.evals.rewording import REWORDINGS, reword
from spoutnik.evals.samples import Sample, problem_id
from spoutnik.files import read_json
from spoutnik.tasks import FAMILIES, SPLITS, Problem, Task, accuracy_reward
from spoutnik.tasks.benchmarks import BENCHMARKS, read_benchmark
from spoutnik.tasks.catalog import find_task, find_tasks, is_file_name, task_names
from spoutnik.tasks.gym import SETTINGS, gym_problems
from spoutnik.validation import did_you_mean

HELD_OUT, GYM = "held-out", "gym-"
PER_FAMILY, GYM_PROBLEMS = 48, 200  # held-out problems of each family, and of a gym set, where no limit is given


@dataclass(frozen=True)
class Bench:
    """Problems to ask.

    data: hash of all of them, those beyond the limit too; "" where they are drawn. training: others, for few-shot examples.
    notes: sentences on what was left out. by_family: scores are also given for each task. score: the name of pass@1.
    regrade: a second score's name, and its grade of a sample. reworded: what its problems are a rewording of.
    """

    name: str
    problems: list[Problem]
    data: str = ""
    training: Sequence[Problem] = ()
    notes: tuple[str, ...] = ()
    by_family: bool = False
    regrade: tuple[str, Callable[[Sample], float]] | None = None
    score: str = "pass@1"
    reworded: "Reworded | None" = None


@dataclass(frozen=True)
class Reworded:
    """bench: the name of the one with the problems as they are. pairs: ids of the problems there and here."""

    bench: str
    source: str
    pairs: tuple[tuple[str, str], ...]


def reworded_bench(bench: Bench, rewording: str) -> Bench:
    """The same problems in other words, as a bench beside it. Raises UserError for a rewording that does not suit them."""
    pairs = reword(bench.problems, rewording)
    source = REWORDINGS[rewording].source
    note = f"{bench.name}-{rewording}: {len(pairs)} of {len(bench.problems)} problems reworded. Source: {source}."
    return Bench(f"{bench.name}-{rewording}", [new for _, new in pairs], bench.data, bench.training, (note,),
                 reworded=Reworded(bench.name, source, tuple((problem_id(old), problem_id(new)) for old, new in pairs)))


def bench_names() -> list[str]:
    """All that need no path."""
    return list(dict.fromkeys([HELD_OUT, *BENCHMARKS, *(f"{GYM}{name}" for name in SETTINGS), *task_names()]))


def find_bench(name: str, data: Path | None, limit: int | None, seed: int, trained: Sequence[Task],
               split: str = "held_out") -> Bench:
    """The bench of a name, or of the path of a task of one's own.

    Args:
        trained: the tasks that the model was trained on.
        split: of a task of one's own, "held_out", "train" or "all".

    Raises:
        UserError: there is none, its data are missing or broken, or it has no problem.
    """
    if name == HELD_OUT:
        drawn = held_out_problems(trained, limit or PER_FAMILY)
        return replace(_distinct(name, drawn), by_family=True)
    if name.removeprefix(GYM) in SETTINGS and name.startswith(GYM):
        return _gym(name, limit or GYM_PROBLEMS, seed)
    if name in BENCHMARKS:
        return _listed(read_benchmark(name, data), name, limit, data)
    if is_file_name(name):
        return _listed(find_task(name), name, limit, Path(name), split)
    if name not in bench_names() and not name.startswith(GYM):
        shown = ", ".join([HELD_OUT, *BENCHMARKS, *(f"{GYM}{name}" for name in SETTINGS), *FAMILIES])
        raise UserError(f"--bench {name}: unknown.{did_you_mean(name, bench_names())} There are {shown}, other sets of "
                        "reasoning-gym, and tasks of your own by their path.")
    return _listed(find_task(name), name, limit, None)


def _listed(task: Task, name: str, limit: int | None, source: Path | None, split: str = "held_out") -> Bench:
    if task.problems("held_out") is None:
        return _distinct(name, held_out_problems([task], limit or PER_FAMILY))
    by_split = {each: task.problems(each) or () for each in SPLITS}
    problems = [problem for each in SPLITS if split in (each, "all") for problem in by_split[each]]
    if not problems:
        own = " Those of the other split are asked with --split all." if any(by_split.values()) else ""
        raise UserError(f"{source or name}: has no problem for {name}. Give a file that has some.{own}")
    bench = _distinct(name, problems[:limit])
    notes = (*task.notes, *bench.notes)
    total = sum(map(len, by_split.values()))
    if is_file_name(name) and len(problems) < total:
        notes += (f"{name}: {len(problems)} of {total} problems are of the split {split}; --split all asks all of them.",)
    if limit is not None and limit < len(problems):
        notes += (f"{name}: the first {limit} of {len(problems)} problems.",)
    training = () if split != "held_out" else by_split["train"]
    return replace(bench, data=problems_hash(task, problems), training=training, notes=notes,
                   by_family=len({problem.task.name for problem in bench.problems}) > 1)


def _distinct(name: str, problems: Sequence[Problem]) -> Bench:
    """Each problem once, however often it stands there."""
    distinct = {problem_id(problem): problem for problem in problems}
    twice = len(problems) - len(distinct)
    notes = (f"{name}: {twice} of {len(problems)} problems stand there twice and are asked once.",) if twice else ()
    return Bench(name, list(distinct.values()), notes=notes)


class _GymScore(Task):
    """The gym's own scorer over problems of ours."""

    about = "problems of a gym set in our wording, graded by the gym's own scorer"

    def __init__(self, name: str, pairs: Sequence[tuple[Problem, Callable[[str], bool]]]):
        self.name = name
        self._scorers = {problem.key: scorer for problem, scorer in pairs}

    def verify(self, problem: Problem, answer: str) -> float:
        return float(self._scorers[problem.key](answer))


def _gym(name: str, count: int, seed: int) -> Bench:
    try:
        pairs = gym_problems(name.removeprefix(GYM), count, seed)
    except ValueError as error:
        raise UserError(f"--bench {name}: {error}") from error
    task = _GymScore(name, pairs)
    ours = {}
    for problem, _ in pairs:
        ours.setdefault(problem_id(replace(problem, task=task)), problem)
    bench = _distinct(name, [replace(problem, task=task) for problem, _ in pairs])
    return replace(bench, score="pass@1 by reasoning-gym's scorer",
                   regrade=("pass@1 by our verifier", partial(_grade_by_ours, ours)),
                   notes=(*bench.notes, f"{name}: problems generated by reasoning-gym, in our wording."))


def _grade_by_ours(ours: dict[str, Problem], sample: Sample) -> float:
    return accuracy_reward(ours[sample.problem], sample.answer) if sample.well_formed else 0.0


def trained_tasks(folder: Path | None) -> list[Task]:
    """The families the model's recipe trained it on, with what that held out; all of them where nothing says which, and of an
    endpoint's model."""
    manifest = None if folder is None else folder / "manifest.json"
    settings = read_json(manifest)["settings"] if manifest is not None and manifest.exists() else {}
    return find_tasks(settings.get("families", FAMILIES), settings.get("held_out", "instance"))
