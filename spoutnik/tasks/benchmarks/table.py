"""The benchmarks that can be read: what their files are called, and where the hub has them."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from spoutnik.tasks.benchmarks import bbh, choice, code, ifeval, maths
from spoutnik.tasks.benchmarks.benchmark import Benchmark
from spoutnik.tasks.benchmarks.records import Record
from spoutnik.tasks.problem import Problem


class Hub(NamedTuple):
    """A data set on the hub. configs: all are read. files: read as they are, where the hub has no table of them."""

    repository: str
    split: str = "test"
    configs: tuple[str | None, ...] = (None,)
    files: tuple[str, ...] = ()


@dataclass(frozen=True)
class Source:
    """How a benchmark is read.

    folders: where its files are under --data, if they are not there themselves. files, training: patterns of their names; the
    first that matches anything counts. task: makes the task; read: its problems from the records of the files.
    """

    name: str
    about: str
    folders: tuple[str, ...]
    files: tuple[str, ...]
    hub: Hub
    task: type[Benchmark]
    read: Callable[[Benchmark, Iterable[Record]], list[Problem]]
    training: tuple[str, ...] = ()
    languages: tuple[str, ...] = ("en",)


def _each(read: Callable[[Benchmark, Record], Problem]) -> Callable[[Benchmark, Iterable[Record]], list[Problem]]:
    return lambda benchmark, records: [read(benchmark, record) for record in records]


def _any_of(*stems: str) -> tuple[str, ...]:
    """Patterns of these stems in the formats that are read, the plain ones first."""
    return tuple(f"{stem}{suffix}" for stem in stems
                 for suffix in (".jsonl", ".jsonl.gz", ".json", ".csv", ".tsv", ".parquet"))


def _tables(split: str = "test") -> str:
    """The pattern of a clone's parquet files."""
    return f"**/{split}-*.parquet"


def _maths(name: str, about: str, stems: Sequence[str], hub: Hub, read: Callable[[maths.MathsBenchmark, Record], Problem],
           training: tuple[str, ...] = (), folders: tuple[str, ...] = (), languages: tuple[str, ...] = ("en",)) -> Source:
    files = (*_any_of(*stems), _tables(hub.split))
    return Source(name, about, folders or (name,), files, hub, maths.MathsBenchmark, _each(read), training, languages)


_MATHS = (
    _maths("gsm8k", "word problems of school mathematics (1,319)", ("test", "gsm8k_test", "gsm8k", "main/test-*"),
           Hub("openai/gsm8k", configs=("main",)), maths.gsm8k, (*_any_of("train"), "main/train-*.parquet")),
    _maths("math500", "500 problems of MATH's test", ("math500*", "MATH-500*"), Hub("HuggingFaceH4/MATH-500"), maths.math,
           folders=("math500", "math")),
    _maths("math", "competition mathematics (5,000)", ("math_test_5000", "math_test", "test"),
           Hub("DigitalLearningGmbH/MATH-lighteval"), maths.math, _any_of("math_train", "train")),
    _maths("aime24", "AIME of 2024 (30)", ("aime24*", "aime_2024*", "aime2024*", "test", "train"),
           Hub("HuggingFaceH4/aime_2024", "train"), maths.aime),
    _maths("aime25", "AIME of 2025 (30)", ("aime25*", "aime_2025*", "aime2025*", "test", "train"), Hub("math-ai/aime25"),
           maths.aime),
    _maths("svamp", "word problems with varied wording", ("svamp", "test"), Hub("ChilleD/SVAMP"), maths.svamp),
    _maths("cmath", "Chinese school mathematics (1,098)", ("cmath_test", "cmath", "test"), Hub("weitianwen/cmath"), maths.cmath,
           languages=("zh",)),
    *(_maths(f"mgsm-{language}", f"250 problems of GSM8K in another language ({language})", (f"mgsm_{language}",),
             Hub("juletxara/mgsm", files=(f"mgsm_{language}.tsv",)), maths.mgsm, folders=("mgsm",), languages=(language,))
      for language in maths.MGSM_LANGUAGES))

_CHOICE = (
    Source("mmlu", "57 subjects, four options (14,042)", ("mmlu",),
           ("test__*_test.csv", "test/*_test.csv", "*_test.csv", *_any_of("mmlu", "test"), "all/test-*.parquet", _tables()),
           Hub("cais/mmlu", configs=("all",)), choice.ChoiceBenchmark, _each(choice.mmlu),
           training=("dev__*_dev.csv", "dev/*_dev.csv", "*_dev.csv", "all/dev-*.parquet")),
    Source("gpqa", "questions for experts, the diamond set (198)", ("gpqa",),
           (*_any_of("gpqa_diamond", "gpqa", "test"), "**/*diamond*.parquet"),
           Hub("Idavidrein/gpqa", "train", ("gpqa_diamond",)), choice.ChoiceBenchmark, _each(choice.gpqa)),
    Source("truthfulqa", "questions with popular false answers, one right option (MC1)", ("truthfulqa",),
           ("mc_task.json", *_any_of("truthfulqa", "TruthfulQA"), "multiple_choice/validation-*.parquet"),
           Hub("truthfulqa/truthful_qa", "validation", ("multiple_choice",)), choice.ChoiceBenchmark, _each(choice.truthfulqa)))

_BBH = (
    Source("bbh", "BIG-Bench Hard, all 27 tasks", ("bbh",), ("*.json", "*.jsonl", "*/test-*.parquet"),
           Hub("lukaemon/bbh", configs=bbh.NAMES), bbh.BBH, bbh.read),
    *(Source(f"bbh-{name}", f"BIG-Bench Hard: {name.replace('_', ' ')}", ("bbh",), (*_any_of(name), f"{name}/*.parquet"),
             Hub("lukaemon/bbh", configs=(name,)), bbh.BBH, bbh.read) for name in bbh.NAMES))

_CODE = (
    Source("humaneval", "Python functions from their docstrings (164)", ("humaneval",),
           (*_any_of("HumanEval", "humaneval", "test"), _tables()), Hub("openai/openai_humaneval"), code.HumanEval,
           _each(code.humaneval)),
    Source("mbpp", "short Python functions (the test's 500)", ("mbpp",),
           (*_any_of("mbpp", "mbpp_test", "sanitized-mbpp", "test"), "full/test-*.parquet", _tables()),
           Hub("google-research-datasets/mbpp", configs=("full",)), code.MBPP, code.mbpp),
    Source("livecodebench", "contest programming with hidden tests", ("livecodebench",),
           ("test*.jsonl", "livecodebench*.jsonl", "*.jsonl", _tables()),
           Hub("livecodebench/code_generation_lite", files=("test.jsonl", *(f"test{number}.jsonl" for number in range(2, 7)))),
           code.LiveCodeBench, _each(code.livecodebench)))

_INSTRUCTIONS = (
    Source("ifeval", "instructions that a program verifies (541)", ("ifeval",),
           (*_any_of("input_data", "ifeval*", "test", "train"), _tables("train")), Hub("google/IFEval", "train"), ifeval.IFEval,
           _each(ifeval.read)),)

SOURCES = {source.name: source for source in (*_MATHS, *_CHOICE, *_BBH, *_CODE, *_INSTRUCTIONS)}
