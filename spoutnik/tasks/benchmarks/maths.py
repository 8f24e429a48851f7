"""Benchmarks of mathematics: GSM8K, MATH and its 500, AIME, MGSM, SVAMP, CMATH; graded by spoutnik.tasks.maths."""

import re

from spoutnik.tasks.benchmarks.benchmark import Benchmark, fingerprint
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
        from spoutnik.tasks.maths import equal

        extracted = self.extract(problem, answer)
        return float(extracted is not None and equal(problem.answer, extracted, language=problem.language))

    def extract(self, problem: Problem, answer: str) -> str | None:
        from spoutnik.tasks.maths import extract

        return extract(answer)

    def same(self, one: str, other: str) -> bool:
        from spoutnik.tasks.maths import equal

        return one.strip() == other.strip() or equal(one, other, language=self.languages[0])

    def asked(self, question: str, answer: str, own_id: object = None, stratum: str = "", level: int = 1) -> Problem:
        return self.problem(f"{question.strip()}\n{INSTRUCTIONS[self.languages[0]]}", answer,
                            own_id if own_id is not None else fingerprint(question), stratum, level)


def gsm8k(benchmark: MathsBenchmark, record: Record) -> Problem:
    """`question`, `answer` whose gold number stands after #### (openai/gsm8k)."""
    match = _GSM8K.search(record.text("answer"))
    if match is None:
        raise record.error("the answer has no '#### number' at its end. Use GSM8K's own file.")
    return benchmark.asked(record.text("question"), match[1].replace(",", ""))


def math(benchmark: MathsBenchmark, record: Record) -> Problem:
    """`problem`, `answer` or the last box of `solution`, `subject` or `type`, `level`; of MATH and MATH-500."""
    from spoutnik.tasks.maths import extract

    level = re.search(r"\d", str(record.values.get("level", "")))
    stratum = record.values.get("subject") or record.values.get("type") or ""
    answer = record.number("answer") if isinstance(record.values.get("answer"), int | float) else \
        record.text("answer") if record.has("answer") else extract(record.text("solution"))
    if answer is None:
        raise record.error("the solution has no \\boxed{answer}. Give MATH's own file.")
    own_id = record.values.get("unique_id")
    return benchmark.asked(record.text("problem", "question"), answer, own_id, str(stratum), int(level[0]) if level else 1)


def aime(benchmark: MathsBenchmark, record: Record) -> Problem:
    """`problem` or `question`, and `answer`, an integer from 0 to 999 ("033" too), as the hub's several copies write them."""
    answer = record.number("answer", "Answer")
    value = re.fullmatch(r"\$?(?:\\boxed\{)?(\d{1,3})(?:\^\\circ)?\}?\$?", answer.strip())
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
