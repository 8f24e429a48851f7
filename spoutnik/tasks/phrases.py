"""How the solver speaks in each language: openings, repairs of a slip, checks. Procedures live with the families."""

import random

TEXT = {
    "en": {
        "opening": ("", "", "Let me see. ", "Let me think. ", "Step by step. "),
        "repair": ("Wait, {fix}.", "Wait, that is wrong: {fix}.", "Mistake. {fix}.", "Let me verify. No, {fix}."),
        "check": ("Check: {what}.", "Let me check: {what}.", "Verify: {what}."),
        "retry": ("Wait,", "Retry:", "Wrong. Retry:", "But no. Wait,"),
    },
    "fr": {
        "opening": ("", "", "Voyons. ", "Je réfléchis. ", "Pas à pas. "),
        "repair": ("Attends, {fix}.", "Attends, c'est faux : {fix}.", "Erreur. {fix}.", "Vérifions. Non, {fix}."),
        "check": ("Vérifions : {what}.", "Je vérifie : {what}.", "Vérification : {what}."),
        "retry": ("Attends,", "J'essaie encore :", "C'est faux. J'essaie :", "Mais non. Attends,"),
    },
}


def opening(rng: random.Random, language: str) -> str:
    """A first-person start, often empty, that ends with a space when it is not."""
    return rng.choice(TEXT[language]["opening"])


def repair(rng: random.Random, language: str, fix: str) -> str:
    """A sentence that notices a slip and states the right fact `fix` (without final period)."""
    return rng.choice(TEXT[language]["repair"]).format(fix=fix)


def check(rng: random.Random, language: str, what: str) -> str:
    """A sentence that announces a check and states it."""
    return rng.choice(TEXT[language]["check"]).format(what=what)


def retry(rng: random.Random, language: str) -> str:
    """The words between a failed attempt and the next one."""
    return rng.choice(TEXT[language]["retry"])


def wait(language: str) -> str:
    """The word that turns a thought around after a contradiction."""
    return {"en": "Wait.", "fr": "Attends."}[language]
