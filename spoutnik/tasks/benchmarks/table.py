"""The benchmarks that can be read: what their files are called, and where the hub has them."""

from collections.abc import Callable, Iterable
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


_PARQUET = ("**/test-*.parquet",)
_MATHS, _CHOICE, _CODE = maths.MathsBenchmark, choice.ChoiceBenchmark, code.CodeBenchmark

SOURCES = {source.name: source for source in (
    Source("gsm8k", "word problems of school mathematics (1,319)", ("gsm8k",), (*_any_of("test", "gsm8k_test", "gsm8k"),
           "main/test-*.parquet", *_PARQUET), Hub("openai/gsm8k", configs=("main",)), _MATHS, _each(maths.gsm8k),
           training=(*_any_of("train"), "main/train-*.parquet")),
    Source("math500", "500 problems of MATH's test", ("math500", "math"), _any_of("math500*", "MATH-500*"),
           Hub("HuggingFaceH4/MATH-500"), _MATHS, _each(maths.math)),
    Source("math", "competition mathematics (5,000)", ("math",), (*_any_of("math_test_5000", "math_test", "test"), *_PARQUET),
           Hub("DigitalLearningGmbH/MATH-lighteval"), _MATHS, _each(maths.math),
           training=_any_of("math_train*", "train")),
    Source("aime24", "AIME of 2024 (30)", ("aime24",), (*_any_of("aime24*", "aime_2024*", "aime2024*", "test", "train"),
           "**/train-*.parquet"), Hub("HuggingFaceH4/aime_2024", "train"), _MATHS, _each(maths.aime)),
    Source("aime25", "AIME of 2025 (30)", ("aime25",), (*_any_of("aime25*", "aime_2025*", "aime2025*", "test", "train"),
           "**/t*-*.parquet"), Hub("math-ai/aime25"), _MATHS, _each(maths.aime)),
    Source("svamp", "word problems with varied wording", ("svamp",), (*_any_of("svamp", "test"), *_PARQUET), Hub("ChilleD/SVAMP"),
           _MATHS, _each(maths.svamp)),
    Source("cmath", "Chinese school mathematics (1,098)", ("cmath",), _any_of("cmath_test", "cmath", "test"),
           Hub("weitianwen/cmath"), _MATHS, _each(maths.cmath), languages=("zh",)),
    *(Source(f"mgsm-{language}", f"250 problems of GSM8K in another language ({language})", ("mgsm",),
             _any_of(f"mgsm_{language}"), Hub("juletxara/mgsm", files=(f"mgsm_{language}.tsv",)), _MATHS, _each(maths.mgsm),
             languages=(language,)) for language in maths.MGSM_LANGUAGES),
    Source("mmlu", "57 subjects, four options (14,042)", ("mmlu",), ("test__*_test.csv", "test/*_test.csv", "*_test.csv",
           *_any_of("mmlu", "test"), "all/test-*.parquet", *_PARQUET), Hub("cais/mmlu", configs=("all",)), _CHOICE,
           _each(choice.mmlu), training=("dev__*_dev.csv", "dev/*_dev.csv", "*_dev.csv", "all/dev-*.parquet")),
    Source("gpqa", "questions for experts, the diamond set (198)", ("gpqa",), (*_any_of("gpqa_diamond", "gpqa", "test"),
           "*diamond*.parquet"), Hub("Idavidrein/gpqa", "train", ("gpqa_diamond",)), _CHOICE, _each(choice.gpqa)),
    Source("truthfulqa", "questions with popular false answers, one right option (MC1)", ("truthfulqa",), 
           ("mc_task.json", *_any_of("truthfulqa", "TruthfulQA"), "multiple_choice/validation-*.parquet"),
           Hub("truthfulqa/truthful_qa", "validation", ("multiple_choice",)), _CHOICE, _each(choice.truthfulqa)),
    *(Source(f"bbh-{name}", f"BIG-Bench Hard: {name.replace('_', ' ')}", ("bbh",), (*_any_of(name), f"{name}/*.parquet"),
             Hub("lukaemon/bbh", configs=(name,)), bbh.BBH, bbh.read) for name in bbh.NAMES),
    Source("bbh", "BIG-Bench Hard, all 27 tasks", ("bbh",), ("*.json", "*.jsonl", "*/test-*.parquet"),
           Hub("lukaemon/bbh", configs=bbh.NAMES), bbh.BBH, bbh.read),
    Source("humaneval", "Python functions from their docstrings (164)", ("humaneval",), (*_any_of("HumanEval", "humaneval", "test"),
           "**/test-*.parquet"), Hub("openai/openai_humaneval"), _CODE, _each(code.humaneval)),
    Source("mbpp", "short Python functions (the test's 500)", ("mbpp",), (*_any_of("mbpp", "mbpp_test", "sanitized-mbpp", "test"),
           "full/test-*.parquet", *_PARQUET), Hub("google-research-datasets/mbpp", configs=("full",)), _CODE, code.mbpp),
    Source("livecodebench", "contest programming with hidden tests", ("livecodebench",), 
           ("test*.jsonl", "livecodebench*.jsonl", "*.jsonl", *_PARQUET),
           Hub("livecodebench/code_generation_lite", files=("test.jsonl", *(f"test{n}.jsonl" for n in range(2, 7)))), _CODE,
           _each(code.livecodebench)),
    Source("ifeval", "instructions that a program verifies (541)", ("ifeval",), (*_any_of("input_data", "ifeval*", "test", "train"),
           "**/train-*.parquet"), Hub("google/IFEval", "train"), ifeval.IFEval, _each(ifeval.read)),
)}
