"""Words to spell: common ones of both languages, without accents, and pronounceable ones made of syllables."""

import random

COMMON = tuple("""
    bird boat book cake duck fish frog lake leaf milk moon nest rain ship snow star tree wind wolf apple bread chair
    cloud eagle fruit grape horse juice lemon money ocean paper queen river sheep tiger water zebra banana garden
    window summer winter yellow kitten rabbit butter cheese bottle pepper puzzle rocket silver castle coffee dinner
    forest guitar hammer island jacket ladder market needle pencil pillow planet ribbon salmon spider street temple
    ticket tunnel turtle velvet violin wallet chicken kitchen teacher blanket pumpkin
    ours pain pont robe loup chat vent arbre avion balle canard chien fille fleur herbe hiver lampe livre neige nuage
    plage pluie pomme porte poule reine route sable sirop tarte train vague ville bateau cahier cheval chemin girafe
    jardin maison mouton oiseau panier renard salade soleil souris tortue valise couleur cuisine drapeau famille
    feuille fromage horloge musique poisson village voiture
""".split())
CONSONANTS = "bcdfglmnprstv"
VOWELS = "aeiou"


def pseudo_word(rng: random.Random, length: int, vowel: str = "") -> str:
    """A pronounceable word: consonants and vowels alternate; with `vowel`, all its vowels are that one."""
    start = rng.randrange(2)
    return "".join(rng.choice(CONSONANTS) if (start + i) % 2 else vowel or rng.choice(VOWELS) for i in range(length))


def word(rng: random.Random, shortest: int, longest: int) -> str:
    """A word of `shortest` to `longest` letters, a common one half of the time."""
    if rng.random() < 0.5:
        return rng.choice([common for common in COMMON if shortest <= len(common) <= longest])
    return pseudo_word(rng, rng.randint(shortest, longest))


def word_with_count(rng: random.Random, shortest: int, longest: int, count: int) -> tuple[str, str]:
    """A word and a letter that appears in it exactly `count` times."""
    while True:
        repeated = rng.choice(VOWELS) if count > 1 and rng.random() < 0.5 else ""
        drawn = pseudo_word(rng, rng.randint(shortest, longest), repeated) if repeated else word(rng, shortest, longest)
        letters = [letter for letter in sorted(VOWELS + CONSONANTS) if drawn.count(letter) == count]
        if letters:
            return drawn, rng.choice(letters)
