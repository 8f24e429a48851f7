"""A question as people type it: with other spaces and signs, synonyms, capitals and courtesies."""

import random
import re

COURTESIES = {
    "en": ("Please: {p}", "Hello! {p}", "Hi, {p}", "Question: {p}", "{p} Thanks!", "Now {p}"),
    "fr": ("S'il te plaît : {p}", "Bonjour ! {p}", "Salut, {p}", "Question : {p}", "{p} Merci !", "Maintenant, {p}"),
}

SYNONYMS = {  # of how a computation begins
    "en": {"What is ": ("How much is ", "What's ", "How much are ", ""), "Compute ": ("What is ", "Can you compute ", "")},
    "fr": {"Combien font ": ("Combien fait ", "Que vaut ", "C'est quoi ", ""),
           "Calcule ": ("Combien font ", "Peux-tu calculer ", "")},
}


def as_typed(prompt: str, language: str, rng: random.Random) -> str:
    """A third of the prompts as they are; in the others, each of these is changed now and then."""
    if rng.random() < 0.35:
        return prompt
    if prompt.endswith(" ?"):
        shape = rng.random()
        prompt = prompt if shape < 0.2 else prompt[:-2] + ("" if shape > 0.85 else "?")
    elif prompt.endswith(".") and rng.random() < 0.3:
        prompt = prompt[:-1]
    for usual, others in SYNONYMS[language].items():
        if prompt.startswith(usual) and prompt[len(usual)].isdigit() and rng.random() < 0.15:
            prompt = rng.choice(others) + prompt[len(usual):]
    if rng.random() < 0.15:
        prompt = re.sub(r"(?<=\d) ([-+*]) (?=\d)", r"\1", prompt)
    if rng.random() < 0.15:
        prompt = prompt[:1].lower() + prompt[1:]
    if rng.random() < 0.06:
        prompt = rng.choice(COURTESIES[language]).format(p=prompt)
    return prompt
