"""Saved samples made by hand, as `spoutnik eval` writes them."""

import json
from pathlib import Path


def row(problem: str, sample: int, correct: float, answer: str = "5", **other) -> dict:
    """A line of samples.jsonl."""
    return {"task": "gsm8k", "problem": problem, "sample": sample, "level": 1, "language": "en", "stratum": "",
            "prompt": "How many?", "gold": "5", "thought": "so", "answer": answer, "correct": correct, "finished": True,
            "well_formed": True, "answered": True, "extracted": answer, "tokens": 9, "thought_tokens": 4} | other


def rows_of(grades: list[list[float]]) -> list[dict]:
    """A row for each grade of each problem; right answers are "5", wrong ones "6"."""
    return [row(f"p{number}", sample, grade, "5" if grade == 1 else "6")
            for number, each in enumerate(grades) for sample, grade in enumerate(each)]


def save(folder: Path, rows: list[dict], name: str = "m", end: str = "", **identity) -> Path:
    """An evaluation on disk. name: the model's. end: text after the last line."""
    folder.mkdir(parents=True, exist_ok=True)
    whole = {"bench": "gsm8k", "temperature": 0.6} | identity
    described = {"model": name, "bench": "gsm8k", "style": "chat", "scores": {}, "identity": whole,
                 "hash": str(sorted(whole.items()))}
    (folder / "samples.jsonl").write_text("".join(json.dumps(each) + "\n" for each in rows) + end, "utf-8")
    (folder / "evaluation.json").write_text(json.dumps(described), "utf-8")
    return folder
