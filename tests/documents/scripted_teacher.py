"""Documents, and a teacher that writes and answers questions about them."""

import re
from pathlib import Path

NAMES = ("Ada", "Bea", "Cleo", "Dora", "Eva", "Fay", "Gil", "Hal")
CITIES = ("Paris", "Lyon", "Lille", "Nice", "Brest", "Dijon", "Tours", "Metz")


def documents(folder: Path) -> Path:
    """Eight files of a passage each, with a weight and a city."""
    folder.mkdir()
    for weight, (name, city) in enumerate(zip(NAMES, CITIES), 11):
        text = f"The pump {name} weighs {weight} kg without its oil. It is built with care in {city}, "
        (folder / f"{name}.txt").write_text(f"{text}where its {name.lower()} valve is cast.\n")
    return folder


def written(text: str) -> str:
    """The questions about the passage that a prompt holds."""
    name, weight, city = re.search(r"The pump (\w+) weighs (\d+) kg.* in (\w+),", text, re.DOTALL).groups()
    return (f"Question: How much does the pump {name} weigh without its oil?\nAnswer: {weight} kg\n"
            f"Quote: The pump {name} weighs {weight} kg without its oil.\n\n"
            f"Question: Where is the {name.lower()} valve cast?\nAnswer: {city}\n"
            f"Quote: It is built with care in {city}, where its {name.lower()} valve is cast.")


def answered(text: str) -> str:
    """From the quote alone."""
    quote = text.split('"""')[1]
    return re.search(r"(\d+) kg" if "weigh" in text else r"in (\w+),", quote)[1]


def teacher(text: str) -> str:
    return written(text) if text.startswith("Write") else answered(text)
