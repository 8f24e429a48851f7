"""A user's file as a task: its rows are problems, and each row's verifier grades."""

import hashlib
import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from spoutnik.errors import UserError
from spoutnik.row_files import Place
from spoutnik.tasks.judge import Judge
from spoutnik.tasks.own.reading import read_rows
from spoutnik.tasks.own.rows import CodeRow, JudgeRow, Row
from spoutnik.tasks.problem import SPLITS, Problem, Task, check_split, held_out_by_hash, side_by_side


@dataclass(frozen=True)
class OwnProblem(Problem):
    """A problem of a user's row."""

    row: Row | None = None


class OwnTask(Task):
    """Problems that were read. A row goes where its `split` says, else one in eight, by the hash of its prompt, is held out.

    Args:
        others: files that rows come from besides `path`.

    Attributes:
        path: of the file.
        content: SHA-256 of the files that were read.
        notes: sentences on what is not as it was written: equal rows, a split that is empty.
    """

    def __init__(self, path: Path, rows: Sequence[tuple[Place, Row]], others: Sequence[Path] = ()):
        self.name, self.path, self.notes = path.name, path, []
        self.content = hashlib.sha256(b"\0".join(file.read_bytes() for file in (path, *others))).hexdigest()
        rows = self._without_duplicates(rows)
        self.languages = tuple(dict.fromkeys(row.language for row in rows))
        self.about = f"{len(rows)} problem{'s' if len(rows) > 1 else ''} of {path.name}"
        self._problems = {split: [self._problem(row) for row in rows if split_of(row) == split] for split in SPLITS}
        for split, problems in self._problems.items():
            if not problems:
                self.notes.append(f"{path}: has no problem that is {split.replace('_', ' ')}. Give some rows "
                                  f'"split": "{split}" if you need one.')

    def problems(self, split: str = "held_out") -> Sequence[Problem]:
        check_split(split)
        return tuple(self._problems[split])

    def sample(self, rng: random.Random, split: str = "train") -> Problem:
        """One of the problems. Raises UserError where the split has none."""
        check_split(split)
        if not self._problems[split]:
            raise UserError(f"{self.path}: none of its problems is {split.replace('_', ' ')}. Give some rows "
                            f'"split": "{split}", or add problems: without "split" one in eight is held out.')
        return rng.choice(self._problems[split])

    def verify(self, problem: Problem, answer: str) -> float:
        assert isinstance(problem, OwnProblem) and problem.row is not None
        return problem.row.verify(answer) if isinstance(answer, str) else 0.0

    def verify_all(self, asked: Sequence[tuple[Problem, str]]) -> list[float]:
        """Judges are asked about all their answers at one time, programs run on all cores."""
        grades, judged, programs = [0.0] * len(asked), defaultdict(list), []
        for number, (problem, answer) in enumerate(asked):
            row = problem.row if isinstance(answer, str) else None
            if isinstance(row, JudgeRow):
                judged[row.judge].append(number)
            elif isinstance(row, CodeRow):
                programs.append(number)
            else:
                grades[number] = self.verify(problem, answer)
        for judge, numbers in judged.items():
            verdicts = judge.grade_all([asked[number][0].row.case(asked[number][1]) for number in numbers])
            for number, verdict in zip(numbers, verdicts):
                grades[number] = verdict.grade
        for number, grade in zip(programs, side_by_side(self.verify, [asked[number] for number in programs])):
            grades[number] = grade
        return grades

    def judges(self) -> list[Judge]:
        """The judges of its rows; each has a `report()`. Raises UserError for a row that names none."""
        rows = [problem.row for problems in self._problems.values() for problem in problems]
        return list(dict.fromkeys(row.judge for row in rows if isinstance(row, JudgeRow)))

    def _problem(self, row: Row) -> OwnProblem:
        return OwnProblem(self, row.level, row.language, row.question, row.gold, {"prompt": row.prompt}, row=row)

    def _without_duplicates(self, rows: Sequence[tuple[Place, Row]]) -> list[Row]:
        """The rows, of equal ones the first. Raises UserError where the same prompt has two answers: one of them is wrong."""
        first: dict[str, tuple[Place, Row]] = {}
        again = []
        for place, row in rows:
            known_place, known = first.setdefault(row.prompt, (place, row))
            if known is row:
                continue
            if known.model_dump(exclude={"id", "metadata"}) != row.model_dump(exclude={"id", "metadata"}):
                raise UserError(f"{place}: has the prompt of {known_place.where} ({row.prompt[:60]!r}), but is another row. "
                                "Remove one of them, or change its prompt.")
            again.append(place)
        if again:
            places = ", ".join(place.where for place in again[:5]) + (", ..." if len(again) > 5 else "")
            self.notes.append(f"{self.path}: {len(again)} row{'s are' if len(again) > 1 else ' is'} there twice and counted "
                              f"once ({places}).")
        return [row for _, row in first.values()]


def split_of(row: Row) -> str:
    """The split of a row: its own, or by its prompt alone, so that it stays where it is when others come and go."""
    return row.split or ("held_out" if held_out_by_hash(row.prompt) else "train")


def read_file(path: Path) -> OwnTask:
    """The task of a file of rows. Raises UserError for whatever is wrong with it."""
    return OwnTask(path, read_rows(path))
