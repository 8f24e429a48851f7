"""What `spoutnik adapt` finds in a user's data: its shape, the method that it fits, the held-out part, and the problems whose
answers a verifier can compare."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from spoutnik.errors import UserError
from spoutnik.files import LONGEST_LINE
from spoutnik.row_files import files_at, read_values
from spoutnik.tasks.answer_kinds import final_answer
from spoutnik.tasks.catalog import find_task, is_file_name, is_pattern, task_names
from spoutnik.tasks.identification import UNDETERMINED, identify
from spoutnik.tasks.own import ScriptTask, read_task
from spoutnik.tasks.own.reading import read_rows
from spoutnik.train.data.conversations import Learn
from spoutnik.train.data.loading import LoadedData, load_data
from spoutnik.train.data.preferences import is_pair, load_preferences
from spoutnik.train.data.split import hold_out, is_held_out
from spoutnik.train.traces import Traces
from spoutnik.validation import did_you_mean

Method = Literal["sft", "grpo", "dpo", "kto"]
METHODS = ("sft", "grpo", "dpo", "kto")
PREFERENCES = ("dpo", "kto")  # methods that learn from opinions on replies
MATCHES = ("exact", "math", "numeric")  # verifiers that need nothing but the answers
NO_VERIFIER = "none"
_REPLIES = {"exact", "math", "numeric", "judge"}  # verifiers of rows whose answers are also what a model may learn to reply
LONGEST_ANSWER = 80  # characters of an answer that is compared as a whole
_COMPARABLE = 0.95  # of the answers must be that short
_NUMERIC = 0.9  # of them must hold a digit, or be a formula, to be compared as mathematics
_LANGUAGES = ("en", "fr", "de", "es", "it", "pt", "nl")  # what a comma in a number means
_SHARES = (0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4)  # of the held-out part
_WANTED, _FEW = 24, 5  # rows of it; of few rows, one in five


@dataclass(frozen=True)
class Verifier:
    """How answers are compared. kind: of the rows of problems ("exact", "math", "numeric"), "script" (a Python file), "task"
    (of the catalog, which poses its own problems), "rows" (each names its own), or "none". name: as the user gives it.
    sentence: what it is and why, for people."""

    kind: str
    name: str
    sentence: str


@dataclass(frozen=True)
class AdaptData:
    """traces: to train on, and held_out beside them (of dpo pairs, of kto replies with a label); both None where the rows are
    problems alone. problems: rows of a file of problems, with their splits; empty where nothing is compared. notes:
    sentences."""

    path: Path
    method: Method
    shape: str
    share: float
    traces: Traces | None
    held_out: Traces | None
    verifier: Verifier
    problems: list[dict]
    notes: list[str]

    @property
    def held_out_problems(self) -> int:
        return sum(row["split"] == "held_out" for row in self.problems)


def read_adapt_data(path: Path, method: Method | None, verifier: str | None, columns: Mapping[str, str], learn: Learn,
                    share: float | None) -> AdaptData:
    """Reads and checks the data. method, verifier, share: None where the data decides.

    Raises:
        UserError: for whatever is wrong with it, or does not fit the method.
    """
    if _names_verifiers(path):
        return _of_problem_rows(path, method, verifier, columns, share)
    loaded = load_data(path, columns, learn)
    if loaded.preferences:
        return _of_preferences(path, loaded, method, verifier, columns, share)
    method = method or "sft"
    if method in PREFERENCES:
        raise UserError(f"--method {method}: learns from opinions on replies, and {path} holds single replies "
                        f"({loaded.shape}). They fit --method sft; dpo needs rows with chosen and rejected, kto with "
                        "completion and label.")
    share = held_out_share(loaded.rows) if share is None else share
    traces, held_out = hold_out(loaded, share)
    chosen = choose_verifier(verifier, loaded.rows, path, method)
    problems, notes = ([], []) if chosen.kind in (NO_VERIFIER, "task") else problems_of(loaded.rows, share, chosen)
    if chosen.kind not in (NO_VERIFIER, "task") and not any(row["split"] == "held_out" for row in problems):
        problems, notes = [], [*notes, "No held-out row has a question of its own whose answer can be compared."]
    if method == "grpo" and not {row["split"] for row in problems} >= {"train", "held_out"}:
        raise UserError(f"--method grpo: rewards answers to single questions, and {path} ({loaded.shape}) has none of them to "
                        "train on and to hold out. --method sft learns from its replies.")
    return AdaptData(path, method, loaded.description, share, traces, held_out, chosen, problems, notes)


def held_out_share(rows: Sequence[Mapping]) -> float:
    """A tenth; more where that holds out fewer than 24 rows and fewer than one in five: hashes fall unevenly on few."""
    wanted = min(_WANTED, len(rows) // _FEW)
    return next((share for share in _SHARES if sum(is_held_out(row, share) for row in rows) >= wanted), _SHARES[-1])


def _names_verifiers(path: Path) -> bool:
    """Whether the first row is a problem that names its verifier (docs/tasks.md)."""
    for file in files_at(path):
        for _, value in read_values(file, LONGEST_LINE):
            return isinstance(value, dict) and "verifier" in value
    return False


def _of_problem_rows(path: Path, method: Method | None, verifier: str | None, columns: Mapping[str, str],
                     share: float | None) -> AdaptData:
    if method in PREFERENCES:
        raise UserError(f"--method {method}: learns from opinions on replies, and {path} holds problems that name their "
                        "verifiers (docs/tasks.md). They fit --method grpo, or sft.")
    if verifier is not None or columns:
        option = "--verifier" if verifier is not None else "--columns"
        raise UserError(f"{option}: the rows of {path} name their verifiers themselves (docs/tasks.md). Leave {option} out, or "
                        "the key 'verifier' of the rows.")
    rows = [row for file in files_at(path) for _, row in read_rows(file)]
    share = held_out_share([{"prompt": row.prompt} for row in rows]) if share is None else share
    problems = [row.model_dump(mode="json", by_alias=True, exclude_unset=True, exclude={"split"})
                | {"split": row.split or _split({"prompt": row.prompt}, share)} for row in rows]
    counts = [sum(row["split"] == split for row in problems) for split in ("train", "held_out")]
    if not all(counts):
        raise UserError(f"{path}: {counts[0]} of its problems are to train on and {counts[1]} held out, and both are needed. "
                        "Give more problems, or another --held-out-share.")
    kinds = ", ".join(dict.fromkeys(row.verifier for row in rows))
    if method == "sft" and not {row.verifier for row in rows} <= _REPLIES:
        raise UserError(f"--method sft: {path} holds problems that name their verifiers ({kinds}; docs/tasks.md), and only "
                        f"answers of {', '.join(sorted(_REPLIES))} are replies that can be learned. They fit --method grpo. To "
                        "learn the answers as they are, leave the key 'verifier' out of the rows.")
    shape = f"{path.name}: {len(rows):,} problems that name their verifiers ({kinds})"
    own = Verifier("rows", kinds, f"the rows' own ({kinds})")
    traces, held_out = hold_out(load_data(path), share) if method == "sft" else (None, None)
    return AdaptData(path, method or "grpo", shape, share, traces, held_out, own, problems, [])


def _of_preferences(path: Path, loaded: LoadedData, method: Method | None, verifier: str | None, columns: Mapping[str, str],
                    share: float | None) -> AdaptData:
    method = method or ("dpo" if is_pair(loaded.rows[0]) else "kto")
    if method not in PREFERENCES:
        raise UserError(f"--method {method}: {path} is preference data ({loaded.shape}), which fits --method dpo or kto. "
                        + ("Fine-tuning learns from single replies: --columns prompt=prompt,completion=chosen."
                           if method == "sft" else "grpo needs questions with answers and a verifier."))
    if verifier not in (None, NO_VERIFIER):
        raise UserError(f"--verifier {verifier}: there is no answer to compare in preference data. Leave it out.")
    pairs = load_preferences(path, "pairs" if method == "dpo" else "replies", columns)
    share = held_out_share(pairs.rows) if share is None else share
    traces, held_out = hold_out(pairs, share)
    none = Verifier(NO_VERIFIER, NO_VERIFIER, "none: the loss of held-out replies tells what was learned")
    return AdaptData(path, method, pairs.description, share, traces, held_out, none, [], [])


def choose_verifier(given: str | None, rows: Sequence[dict], path: Path, method: Method) -> Verifier:
    """The verifier that was asked for, or the one that the answers fit.

    Raises:
        UserError: there is none of that name, or the method needs one and the answers fit none.
    """
    if given == NO_VERIFIER and method != "grpo":
        return Verifier(NO_VERIFIER, NO_VERIFIER, "none: the loss of held-out replies alone tells what was learned")
    if given in MATCHES:
        return Verifier(given, given, f"'{given}', as asked for")
    if given is not None and given != NO_VERIFIER:
        return _named_verifier(given, path, method)
    golds = [gold_of(row) for row in rows]
    short = [gold for gold in golds if len(gold) <= LONGEST_ANSWER]
    if len(short) < _COMPARABLE * len(golds):
        if method == "grpo":
            raise UserError(f"--method grpo: {len(golds) - len(short):,} of {len(golds):,} answers in {path} are longer than "
                            f"{LONGEST_ANSWER} characters, and no verifier can tell whether a reply says the same. Give "
                            "--verifier a Python file with verify(prompt, answer, gold), or use --method sft.")
        return Verifier(NO_VERIFIER, NO_VERIFIER, f"none, since most answers are longer than {LONGEST_ANSWER} characters: the "
                        "loss of held-out replies alone tells what was learned")
    if given == NO_VERIFIER:
        raise UserError("--verifier none: --method grpo rewards by a verifier. Leave --verifier out, or name one.")
    formulas = sum(any(character.isdigit() or character == "\\" for character in gold) for gold in short)
    if formulas >= _NUMERIC * len(short):
        return Verifier("math", "math", "'math', since the answers have numbers: a reply is right whose final answer is equal "
                                        "to the row's, in whatever form")
    return Verifier("exact", "exact", "'exact', since the answers are short texts: a reply is right whose final answer is the "
                                      "row's, but for case and punctuation")


def _named_verifier(given: str, path: Path, method: Method) -> Verifier:
    """A Python file, or a task of the catalog."""
    if given.endswith(".py"):
        file = Path(given).expanduser()
        if not file.is_file():
            raise UserError(f"--verifier {given}: there is no such file. Give a Python file with verify(prompt, answer, gold).")
        return Verifier("script", given, f"verify() of {file.name}")
    if is_file_name(given) or is_pattern(given):
        raise UserError(f"--verifier {given}: must be {', '.join(MATCHES)} or {NO_VERIFIER}, a Python file with verify(prompt, "
                        "answer, gold), or the name of one task.")
    if given not in task_names():
        names = (*MATCHES, NO_VERIFIER, *task_names())
        raise UserError(f"--verifier {given}: there is no such verifier.{did_you_mean(given, names)} Give "
                        f"{', '.join(MATCHES)}, {NO_VERIFIER}, a Python file with verify(prompt, answer, gold), or a task that "
                        "`spoutnik tasks` lists.")
    if method == "grpo":
        raise UserError(f"--verifier {given}: this task poses its own problems, and {path} would not be looked at. Write a "
                        f"recipe with `tasks: [{given}]` instead (recipes/adapt.yaml shows how).")
    return Verifier("task", given, f"the task '{given}', which poses its own held-out problems: {find_task(given).about}")


def gold_of(row: Mapping) -> str:
    """What of a trace's answer a reply is compared with."""
    return final_answer(row["answer"])


def problems_of(rows: Sequence[dict], share: float, verifier: Verifier) -> tuple[list[dict], list[str]]:
    """Problems of the traces that answer a single question, for a file of `tasks.own`; notes on those that are none. A question
    that is answered in several ways has no answer to compare with."""
    golds: dict[str, set[str]] = {}
    splits: dict[str, str] = {}
    single = [row for row in rows if not row.get("messages") and not row.get("history") and not row.get("tools")]
    for row in single:
        golds.setdefault(row["prompt"], set()).add(gold_of(row))
        splits.setdefault(row["prompt"], _split(row, share))
    clear = {prompt: next(iter(answers)) for prompt, answers in golds.items()
             if len(answers) == 1 and 0 < len(next(iter(answers))) <= (LONGEST_ANSWER if verifier.kind in MATCHES else 1 << 20)}
    language = identify(" ".join(list(clear)[:50])[:5000], _LANGUAGES)
    common = {"language": "en" if language == UNDETERMINED else language}
    if verifier.kind in MATCHES:
        common["verifier"] = verifier.kind
    if verifier.kind == "exact":
        common |= {"ignore_case": True, "ignore_punctuation": True}
    problems = [{"prompt": prompt, "answer": gold, "split": splits[prompt]} | common
                for prompt, gold in clear.items()]
    several = sum(len(answers) > 1 for answers in golds.values())
    left_out = [(len(rows) - len(single), "with earlier turns, a system text or tools"),
                (several, "with several answers"), (len(golds) - several - len(clear), "with long answers")]
    return problems, [f"Not compared by the verifier, but learned like the others: {count:,} {what}."
                      for count, what in left_out if count]


def _split(row: Mapping, share: float) -> str:
    return "held_out" if is_held_out(row, share) else "train"


def own_task(path: Path) -> None:
    """Raises UserError where a file of problems cannot be asked, or its verifier cannot be loaded."""
    task = read_task(path)
    if isinstance(task, ScriptTask):
        task.script.close()
