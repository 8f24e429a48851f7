"""IFEval (Zhou et al., 2023): instructions that a program verifies; the strict verdict over a prompt, as R1 reports it."""

from spoutnik.errors import UserError
from spoutnik.tasks.benchmarks.benchmark import Benchmark
from spoutnik.tasks.benchmarks.records import Record
from spoutnik.tasks.problem import Problem


class IFEval(Benchmark):
    """Prompts with one to three instructions; right is what obeys all of them, as it is."""

    def verify(self, problem: Problem, answer: str) -> float:
        from spoutnik.tasks.instructions import follows

        return float(follows(problem.data["row"], answer).prompt_strict)


def read(benchmark: IFEval, record: Record) -> Problem:
    """`key`, `prompt`, `instruction_id_list`, `kwargs`."""
    from spoutnik.tasks.instructions import instructions_of

    row = {"prompt": record.text("prompt"), "instruction_id_list": record.texts("instruction_id_list"),
           "kwargs": record.get("kwargs")}
    try:
        instructions_of(row)
    except UserError as error:
        raise record.error(str(error)) from error
    kinds = {name.partition(":")[0] for name in row["instruction_id_list"]}
    stratum = kinds.pop() if len(kinds) == 1 else "several"
    return benchmark.problem(row["prompt"], "", record.values.get("key"), stratum, row=row)
