"""Benchmarks of mathematics: GSM8K, MATH and its 500, AIME, MGSM, SVAMP, CMATH; graded by spoutnik.tasks.maths."""

import re

from spoutnik.tasks.benchmarks.benchmark import Benchmark
from spoutnik.tasks.benchmarks.records import Record
from spoutnik.tasks.problem import Problem

# R1's line for mathematics (appendix J), in Chinese as DeepSeek gives it; the others say the same.
INSTRUCTIONS = {
    "en": "Please reason step by step, and put your final answer within \\boxed{}.",
    "zh": "请逐步推理，并将最终答案放在 \\boxed{} 中。",
    "fr": "Raisonne étape par étape et mets ta réponse finale dans \\boxed{}.",
    "de": "Bitte denke Schritt für Schritt nach und setze deine endgültige Antwort in \\boxed{}.",
    "es": "Razona paso a paso y pon tu respuesta final dentro de \\boxed{}.",
    "ru": "Рассуждай шаг за шагом и запиши окончательный ответ в \\boxed{}.",
    "ja": "段階を追って考え、最終的な答えを \\boxed{} の中に書いてください。",
    "sw": "Tafadhali fikiri hatua kwa hatua, kisha weka jibu lako la mwisho ndani ya \\boxed{}.",
    "bn": "ধাপে ধাপে চিন্তা করো এবং চূড়ান্ত উত্তরটি \\boxed{} এর মধ্যে লেখো।",
    "te": "దశలవారీగా ఆలోచించి, తుది సమాధానాన్ని \\boxed{} లో రాయండి.",
    "th": "โปรดคิดทีละขั้นตอน แล้วใส่คำตอบสุดท้ายไว้ใน \\boxed{}",
}
MGSM_LANGUAGES = ("bn", "de", "en", "es", "fr", "ja", "ru", "sw", "te", "th", "zh")
_GSM8K = re.compile(r"####\s*(-?[\d,]+(?:\.\d+)?)\s*$")


class MathsBenchmark(Benchmark):
    """Problems with one mathematical answer each."""

    def verify(self, problem: Problem, answer: str) -> float:
        from spoutnik.tasks.maths import answers

        extracted = self.extract(problem, answer)
        return float(extracted is not None and answers(problem.prompt, problem.answer, extracted, problem.language))

    def extract(self, problem: Problem, answer: str) -> str | None:
        from spoutnik.tasks.maths import extract
        from spoutnik.tasks.maths.percent import asks_percent, without_percent

        extracted = extract(answer)  # of a percentage its number: votes, too, are counted for what is the same there
        return without_percent(extracted) if extracted and asks_percent(problem.prompt) else extracted

    def same(self, one: str, other: str) -> bool:
        from spoutnik.tasks.maths import equal

        return one.strip() == other.strip() or equal(one, other, language=self.languages[0])

    def asked(self, question: str, answer: str, own_id: object = None, stratum: str = "", level: int = 1) -> Problem:
        prompt = f"{question.strip()}\n{INSTRUCTIONS[self.languages[0]]}"
        return self.problem(question, prompt, answer, own_id, stratum, level)


def gsm8k(benchmark: MathsBenchmark, record: Record) -> Problem:
    """`question`, `answer` whose gold number stands after #### (openai/gsm8k)."""
    match = _GSM8K.search(record.text("answer"))
    if match is None:
        raise record.error("the answer has no '#### number' at its end. Use GSM8K's own file.")
    return benchmark.asked(record.text("question"), match[1].replace(",", ""))


def math(benchmark: MathsBenchmark, record: Record) -> Problem:
    """`problem`, `answer` or the last box of `solution`, `subject` or `type`, `level`; of MATH and MATH-500."""
    from spoutnik.tasks.maths.extraction import last_box

    level = re.search(r"\d", str(record.values.get("level", "")))
    stratum = record.values.get("subject") or record.values.get("type") or ""
    if record.has("answer"):
        value = record.get("answer")
        answer = record.text("answer") if isinstance(value, str) else record.number("answer")
    else:
        answer = last_box(record.text("solution"))
    if not answer or not answer.strip():
        raise record.error("the solution has no \\boxed{answer} with anything in it. Give MATH's own file.")
    own_id = record.values.get("unique_id")
    return benchmark.asked(record.text("problem", "question"), answer, own_id, str(stratum), int(level[0]) if level else 1)


def aime(benchmark: MathsBenchmark, record: Record) -> Problem:
    """`problem` or `question`, and `answer`, an integer from 0 to 999 ("033" too), as the hub's several copies write them; one
    of them has it in the box of `solution` alone."""
    answer = record.number("answer", "Answer", "solution")
    value = re.search(r"(?:^|\\boxed\{)\s*\$?(\d{1,3})(?:\^\\circ)?\$?\}?$", answer)
    if value is None:
        raise record.error(f"the answer {answer[:40]!r} is no integer from 0 to 999, as those of AIME are. Mend it.")
    own_id = record.values.get("id", record.values.get("ID", record.values.get("unique_id")))
    return benchmark.asked(record.text("problem", "question", "Problem"), str(int(value[1])), own_id)


def mgsm(benchmark: MathsBenchmark, record: Record) -> Problem:
    """Question and number, as the columns of the TSV or by name; the numbers have English thousands in every language."""
    if record.names:
        question, gold = record.text("question"), record.number("answer_number", "answer")
    else:
        if len(record.values) != 2:
            raise record.error(f"has {len(record.values)} columns, where a question and a number belong. Give MGSM's own file.")
        question, gold = record.text("0"), record.number("1")
    return benchmark.asked(question, gold.replace(",", ""))


def svamp(benchmark: MathsBenchmark, record: Record) -> Problem:
    """`Body`, `Question`, `Answer` (145.0), `Type`, `ID`."""
    body = record.text("Body").strip()
    body += "" if body.endswith((".", "?", "!", ",")) else "."
    answer = record.number("Answer").removesuffix(".0")
    return benchmark.asked(f"{body} {record.text('Question').strip()}", answer, record.values.get("ID"),
                           str(record.values.get("Type") or ""))


def cmath(benchmark: MathsBenchmark, record: Record) -> Problem:
    """`question`, `golden`, `grade`, in Chinese."""
    grade = record.values.get("grade")
    level = int(grade) if isinstance(grade, int) or str(grade).isdigit() else 1
    return benchmark.asked(record.text("question"), record.number("golden", "answer"), stratum=f"grade {level}", level=level)
