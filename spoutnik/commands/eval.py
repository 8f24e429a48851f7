"""`spoutnik eval`: a model on benchmarks; `spoutnik eval compare`: two evaluations."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from spoutnik.commands.console import console, print_json, say
from spoutnik.commands.help import Command, Group
from spoutnik.commands.options import Adapter, Device, Json, Memory, Quantize, Stage
from spoutnik.commands.progress import display
from spoutnik.units import duration

if TYPE_CHECKING:
    from spoutnik.evals.models import EvaluatedModel


class _ModelOrCompare(Group):
    """`eval MODEL ...` evaluates, `eval compare A B` compares: a first argument that is no command is a model."""

    def parse_args(self, ctx, args):
        return super().parse_args(ctx, args if args and args[0] in self.commands else [_MODEL, *args])

    def format_commands(self, ctx, formatter) -> None:
        """None: its help is that of the evaluation."""


class _EvaluateContext(Command.context_class):
    @property
    def command_path(self) -> str:
        """Without the name of the command, which nobody types."""
        return self.parent.command_path


class _Evaluate(Command):
    context_class = _EvaluateContext


_MODEL = "model"
evals = typer.Typer(cls=_ModelOrCompare, help="Evaluate a model by R1's protocol, or compare two evaluations (eval compare).")


@evals.command(_MODEL, cls=_Evaluate, epilog="Example: spoutnik eval runs/nano --bench gsm8k,math500 --data benchmarks/ "
               "--samples 4. Two evaluations are compared by: spoutnik eval compare A B")
def evaluate(
    run: Annotated[str, typer.Argument(metavar="MODEL", help="A run's folder, a model's, a GGUF file (.gguf), "
                                                  "a name on the hub (org/model), or the "
                                       "address of an OpenAI-compatible endpoint (http://host:8000/v1).")],
    bench: Annotated[Optional[str], typer.Option(help="One or several, with commas: gsm8k, math500, aime24, mmlu, gpqa, "
                                                 "humaneval, mbpp, livecodebench, ifeval, mgsm-fr, bbh, truthfulqa; held-out "
                                                 "(the families of the model's recipe); gym-countdown and other sets of "
                                                 "reasoning-gym; the path of a task of your own (.jsonl, .py).")] = None,
    data: Annotated[Optional[Path], typer.Option(help="The folder of the benchmarks' own files, or one such file. Alone: a "
                                                 "task of your own.")] = None,
    stage: Stage = None,
    split: Annotated[str, typer.Option(help="Which problems of a task of your own: held_out, train or all.")] = "held_out",
    style: Annotated[Optional[str], typer.Option(help="chat; for base models forum or textbook (the layouts of our pretraining "
                                                 "text), few-shot, r1-zero [default: chat].")] = None,
    samples: Annotated[int, typer.Option(min=1, help="Samples per problem; pass@1 is their mean. R1 took 64 for AIME and "
                                         "GPQA, 16 for MATH.")] = 4,
    limit: Annotated[Optional[int], typer.Option(min=1, help="Only the first N problems (held-out: of each family).")] = None,
    max_tokens: Annotated[Optional[int], typer.Option(min=2, help="Longest reply [default: 32768, R1's, within the model's "
                                                      "positions].")] = None,
    temperature: Annotated[float, typer.Option(help="R1 uses 0.6; 0 is greedy.")] = 0.6,
    top_p: Annotated[float, typer.Option(help="R1 uses 0.95.")] = 0.95,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    k: Annotated[Optional[str], typer.Option(help="Also pass@k and cons@k (majority of k), as 4,16; below --samples.")] = None,
    reword: Annotated[Optional[list[str]], typer.Option(help="Also asks the same problems reworded, and tells what that "
                                                        "changes: spaces, courtesy, frame, typed; may be repeated.")] = None,
    out: Annotated[Optional[Path], typer.Option(help="Folder of samples and results; what is there is not asked again "
                                                "[default: evals/NAME].")] = None,
    model: Annotated[Optional[str], typer.Option(help="An endpoint's name of the model.")] = None,
    key_variable: Annotated[Optional[str], typer.Option(help="Environment variable that holds the endpoint's key.")] = None,
    concurrency: Annotated[int, typer.Option(min=1, help="Requests to an endpoint at one time.")] = 8,
    sandbox: Annotated[Optional[str], typer.Option(help="Where code of replies runs: bubblewrap, or rlimit where that does not "
                                                   "start (weaker: network and files stay open) [default: "
                                                   "bubblewrap].")] = None,
    dtype: Annotated[str, typer.Option(help="float32, bfloat16, or auto: bfloat16 where the native kernels run "
                                       "or the device multiplies it.")] = "auto",
    adapter: Adapter = None,
    quantize: Quantize = None,
    memory: Memory = None,
    device: Device = "auto",
    json_: Json = False,
):
    """Evaluate a model by R1's protocol: T 0.6, top-p 0.95, k samples, pass@1 as their mean, thought stripped.

    Every sample is kept; the same command again goes on with what is missing. `spoutnik eval compare A B` compares two."""
    from pydantic import ValidationError

    from spoutnik.errors import UserError
    from spoutnik.evals.asking import AskingSettings
    from spoutnik.evals.benches import find_bench, reworded_bench, trained_tasks
    from spoutnik.evals.evaluate import Evaluation
    from spoutnik.evals.models import LocalModel
    from spoutnik.validation import sentences

    names, data = _benches(bench, data)
    try:
        settings = AskingSettings(samples=samples, temperature=temperature, top_p=top_p, max_tokens=max_tokens, seed=seed)
    except ValidationError as error:
        raise UserError(f"the options of eval: {sentences(error, AskingSettings)}") from error
    ks = _ks(k, samples)
    _check_split(split, names)
    _choose_sandbox(sandbox)
    open_model, folder, name = _find_model(run, stage, model, key_variable, concurrency, dtype, quantize, memory, adapter,
                                           device)
    found = [find_bench(each, data, limit, seed, trained_tasks(folder), split) for each in names]
    found += [reworded_bench(each, name) for name in (reword or ()) for each in found]
    evaluated = open_model()
    if not isinstance(evaluated, LocalModel) and (quantize or memory or adapter or dtype != "auto" or device != "auto"):
        raise UserError("--adapter, --quantize, --memory, --dtype and --device are of models that run here, not of an "
                        "endpoint's. Leave them out.")
    shown = display(json_)
    out = out or Path("evals") / (name if style in (None, "chat") else f"{name}-{style}")
    shown.log(f"At most {evaluated.limit(settings):,} tokens a reply"
              + ("" if max_tokens else " (R1's 32,768, within the model's positions)") + f"; samples go to {out}.")
    results = Evaluation(evaluated, settings, out, style, ks).run(found, shown)
    if json_:
        print_json(results[0] if len(results) == 1 else results)
        return
    for result in results:
        _print(result)


@evals.command("compare", cls=Command, epilog="Example: spoutnik eval compare evals/before evals/after --margin 2")
def compare(
    reference: Annotated[Path, typer.Argument(metavar="A", help="The folder of an evaluation (evals/NAME), or of one benchmark "
                                              "in it.")],
    others: Annotated[list[Path], typer.Argument(metavar="B...", help="One or several to compare with it.")],
    margin: Annotated[Optional[float], typer.Option(help="Points that would not matter: also tests for 'not worse' and for 'as "
                                                    "good' (TOST).")] = None,
    json_: Json = False,
):
    """Compare evaluations problem by problem: the difference with its interval, a sign-flip test, Holm over several.

    Refused where the evaluations were made otherwise: the sentence says in what."""
    from dataclasses import asdict

    from spoutnik.errors import UserError
    from spoutnik.evals.results import compare_folders

    if margin is not None and not 0 < margin < 100:
        raise UserError(f"--margin {margin}: must be points between 0 and 100, such as 2.")
    comparisons, notes = compare_folders(reference, others, None if margin is None else margin / 100)
    if json_:
        print_json({"comparisons": [asdict(each) for each in comparisons], "notes": notes})
        return
    for each in comparisons:
        for sentence in each.sentences:
            say(sentence)
    for note in notes:
        say(note)


def _benches(bench: str | None, data: Path | None) -> tuple[list[str], Path | None]:
    """The names of the benches, and where benchmarks are read. A file alone is a task of one's own."""
    from spoutnik.errors import UserError
    from spoutnik.tasks.benchmarks import BENCHMARKS

    if bench is None:
        if data is None:
            raise UserError("--bench: name a benchmark (gsm8k, held-out, ...), or give a task of your own: --data my.jsonl.")
        return [str(data)], None
    names = list(dict.fromkeys(name.strip() for name in bench.split(",") if name.strip()))
    if not names:
        raise UserError(f"--bench {bench!r}: names no benchmark.")
    if data is not None and not any(name in BENCHMARKS for name in names):
        raise UserError(f"--data {data}: only benchmarks that lie in files read it, not {', '.join(names)}. Leave it out.")
    return names, data


def _ks(k: str | None, samples: int) -> tuple[int, ...]:
    from spoutnik.errors import UserError

    try:
        ks = tuple(int(part) for part in (k or "").split(",") if part.strip())
    except ValueError as error:
        raise UserError(f"--k {k}: must be whole numbers with commas, such as 4,16.") from error
    for each in ks:
        if not 2 <= each < samples:
            raise UserError(f"--k {each}: must be from 2 to less than --samples, {samples} here: k are drawn of more than k.")
    return ks


def _check_split(split: str, names: list[str]) -> None:
    """Raises UserError for a split that there is not, or that a benchmark would ignore."""
    from spoutnik.errors import UserError
    from spoutnik.tasks import SPLITS
    from spoutnik.tasks.catalog import is_file_name

    if split not in (*SPLITS, "all"):
        raise UserError(f"--split {split}: must be held_out, train or all.")
    others = [name for name in names if not is_file_name(name)]
    if split != "held_out" and others:
        raise UserError(f"--split {split}: is of tasks of your own, and {', '.join(others)} is none. Leave it out, or ask them "
                        "one after the other.")


def _choose_sandbox(kind: str | None) -> None:
    if kind is not None:
        from spoutnik.tasks.code import Sandbox, use_sandbox

        use_sandbox(Sandbox(kind))


def _find_model(run: str, stage: str | None, model: str | None, key_variable: str | None, concurrency: int, dtype: str,
                quantize: str | None, memory: str | None, adapter: Path | None = None,
                device: str = "auto"):
    """(what opens it, its folder, its name in paths). Weights are read after the benchmarks."""
    from spoutnik.errors import UserError
    from spoutnik.evals.models import LocalModel, endpoint_model
    from spoutnik.locate import SHIPPED, SHIPPED_RUN, locate, path_of

    if run.startswith(("http://", "https://")):
        if stage is not None:
            raise UserError("--stage: is of a run, not of an endpoint. Leave it out.")
        opened: EvaluatedModel = endpoint_model(run, {"model": model, "key_variable": key_variable}, concurrency)
        return lambda: opened, None, opened.name.replace("/", "--")
    if model or key_variable:
        raise UserError("--model and --key-variable are of endpoints (http://...), and this is a model of this machine. Leave "
                        "them out.")
    path = path_of(run)
    if run == SHIPPED and not path.exists():
        path = SHIPPED_RUN
    folder = locate(path if path.exists() else run, stage)
    name = path.resolve().name if path.exists() else run.replace("/", "--")
    if path.is_file():
        name = folder.name
    elif path.exists() and path.resolve() != folder.resolve():
        name += f"-{stage or folder.name.rpartition('-')[0] or folder.name}"
    if adapter is not None:
        name += f"-{adapter.resolve().name}"
    return lambda: LocalModel(folder, name, adapter=adapter, dtype=dtype, quantize=quantize, memory=memory,
                              device=device), folder, name


def _print(result: dict) -> None:
    terminal, shares = console(), result["shares"]
    for name, value in result["scores"].items():
        terminal.print(f"{name}: [bold]{value['mean']:.1%}[/] (95 % interval {value['low']:.1%} to {value['high']:.1%}), "
                       f"{value['problems']} problems x {result['samples']} samples", highlight=False)
    terminal.print(f"well-formed {shares['well_formed']:.1%}, cut {shares['truncated']:.1%}, without an answer "
                   f"{shares['without_answer']:.1%}; {shares['tokens']:,.0f} tokens a reply, {shares['thought_tokens']:,.0f} "
                   f"of them thought; {duration(result['cost']['seconds'])}", highlight=False)
    trust = [f"{name.replace('_', ' ')} {score['mean']:.3f} ({score['low']:.3f} to {score['high']:.3f})"
             for name, score in result["metrics"].items() if name in ("brier", "ece", "abstained", "accuracy_when_answering")]
    terminal.print("; ".join(trust), highlight=False)
    for sentence in result.get("sensitivity", {}).get("sentences", ()):
        say(f"reworded: {sentence}")
