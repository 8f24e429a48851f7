"""The wordings and the facts of the general prompts. A row is (English subject, answer, French subject, answer)."""

from typing import Literal

from spoutnik.tasks.general_more import ANY_WISHES, MORE_ROWS, table_rows
from spoutnik.tasks.names import NAMES

TEXT = {  # per kind: how to ask, how to answer well (q is the subject, a the content that must be there)
    "en": {
        "greeting": (("Hello, I am {q}.", "Hi! My name is {q}."), ("Hello {a}! How can I help you today?", "Hi {a}! It is nice to meet you.")),
        "goodbye": (("Goodbye, says {q}.", "{q} has to go now. Bye!"), ("Goodbye {a}! Have a nice day.", "See you soon, {a}! Take care.")),
        "thanks": (("Thank you for {q}.", "Thanks a lot for {q}!"), ("You are welcome! I am glad that {a} helped you.",)),
        "identity": (("{q}",), ("I am {a}, a small reasoning model that runs on your machine.", "My name is {a}. I am a small model that likes to reason.")),
        "privacy": (("{q}",), ("No, I am private: everything stays on your {a}.", "I run on your {a}, so nothing leaves it.")),
        "feeling": (("{q}",), ("I am a program, but everything works {a}. Thank you for asking!",)),
        "wish": (("Wish me {q}.", "Please wish me {q}."), ("I wish you {a}!", "With pleasure: I wish you {a}!")),
        "capital": (("What is the capital of {q} ?", "Which city is the capital of {q} ?"), ("The capital of {q} is {a}.", "It is {a}, the capital of {q}.")),
        "opposite": (('What is the opposite of "{q}" ?', 'Give the opposite of "{q}".'), ('The opposite of "{q}" is "{a}".',)),
        "colour": (("What colour is {q} ?", "Tell me the colour of {q}."), ("The colour of {q} is {a}.", "Usually, {q} is {a}.")),
        "animal": (("Which animal {q} ?", "Name an animal that {q}."), ("The animal that {q} is {a}.", "It is {a} that {q}.")),
        "translate": (('Translate "{q}" into French.', 'How do you say "{q}" in French ?'), ('In French, "{q}" is "{a}".', 'The French word for "{q}" is "{a}".')),
        "repeat": (("Say {q}.", "Please say {q}."), ("Of course: {a}!", "With pleasure: {a}!")),
        "list": (("List three {q}.", "Name three {q}."), ("Here are three {q}: {a}.", "Three {q} are {a}.")),
        "count": (("Count from {q}.", "Please count from {q}."), ("Of course, here it is: {a}.", "I count from {q}: {a}.")),
        "hello": (("{q}",), ("Hello! How can I {a} you today?", "Hi! What can I do to {a} you?")),
        "bye": (("{q}",), ("Goodbye! Have a {a}.", "See you soon! I wish you a {a}.")),
        "thank": (("{q}",), ("You are {a}!", "You are {a}! I am glad to help.")),
        "abilities": (("{q}",), ("I can compute, count letters and solve {a}.", "I am good at sums, at letters and at {a}.")),
        "limits": (("{q}",), ("I am a {a}: that is more than I know. Ask me for a sum or a puzzle.",
                              "That is too much for a {a}. I know sums, letters and puzzles.")),
        "about": (("What do you know about {q} ?", "Tell me a fact about {q}.", "Tell me about {q}."), ("{a}.",)),
    },
    "fr": {
        "greeting": (("Bonjour, je suis {q}.", "Salut ! Je m'appelle {q}."), ("Bonjour {a} ! Comment puis-je vous aider ?", "Salut {a} ! Je suis content de vous connaître.")),
        "goodbye": (("Au revoir, dit {q}.", "{q} doit partir. Au revoir !"), ("Au revoir {a} ! Passez une bonne journée.", "À bientôt, {a} ! Prenez soin de vous.")),
        "thanks": (("Merci pour {q}.", "Merci beaucoup pour {q} !"), ("Je vous en prie ! Je suis content que {a} vous aide.",)),
        "identity": (("{q}",), ("Je suis {a}, un petit modèle qui raisonne sur votre machine.", "Mon nom est {a}. Je suis un petit modèle qui aime raisonner.")),
        "privacy": (("{q}",), ("Non, je suis privé : tout reste sur votre {a}.", "Je fonctionne sur votre {a}, donc rien ne sort.")),
        "feeling": (("{q}",), ("Je suis un programme, mais tout va {a}. Merci de votre question !",)),
        "wish": (("Souhaite-moi {q}.", "Peux-tu me souhaiter {q} ?"), ("Je vous souhaite {a} !", "Avec plaisir : je vous souhaite {a} !")),
        "capital": (("Quelle est la capitale {q} ?", "Quelle ville est la capitale {q} ?"), ("La capitale {q} est {a}.", "C'est {a}, la capitale {q}.")),
        "opposite": (('Quel est le contraire de "{q}" ?', 'Donne le contraire de "{q}".'), ('Le contraire de "{q}" est "{a}".',)),
        "colour": (("De quelle couleur est {q} ?", "Dis-moi de quelle couleur est {q}."), ("La couleur est simple : {q} est {a}.", "En général, {q} est {a}.")),
        "animal": (("Quel animal {q} ?", "Nomme un animal qui {q}."), ("L'animal qui {q} est {a}.", "C'est {a} qui {q}.")),
        "translate": (('Traduis "{q}" en anglais.', 'Comment dit-on "{q}" en anglais ?'), ('En anglais, "{q}" se dit "{a}".', 'Le mot anglais pour "{q}" est "{a}".')),
        "repeat": (("Dis {q}.", "Peux-tu dire {q} ?"), ("Bien sûr : {a} !", "Avec plaisir : {a} !")),
        "list": (("Cite trois {q}.", "Nomme trois {q}."), ("Voici trois {q} : {a}.", "Trois {q} sont {a}.")),
        "count": (("Compte de {q}.", "Peux-tu compter de {q} ?"), ("Bien sûr, voici : {a}.", "Je compte de {q} : {a}.")),
        "hello": (("{q}",), ("Bonjour ! Comment puis-je vous {a} ?", "Salut ! Que puis-je faire pour vous {a} ?")),
        "bye": (("{q}",), ("Au revoir ! Passez une {a}.", "À bientôt ! Je vous souhaite une {a}.")),
        "thank": (("{q}",), ("Je vous en {a} !", "Je vous en {a} ! Je suis content de vous aider.")),
        "abilities": (("{q}",), ("Je sais calculer, compter les lettres et résoudre des {a}.",
                                 "Je suis fort en calcul, en lettres et en {a}.")),
        "limits": (("{q}",), ("Je suis un {a} : je n'en sais pas tant. Demandez-moi un calcul ou une énigme.",
                              "C'est trop pour un {a}. Je connais les calculs, les lettres et les énigmes.")),
        "about": (("Que sais-tu {q} ?", "Dis-moi ce que tu sais {q}.", "Qu'as-tu appris {q} ?"), ("{a}.",)),
    },
}  # fmt: skip


_NAMED = tuple((name, name, name, name) for name in NAMES)
_NUMBERS = {"three": ("trois", 3), "four": ("quatre", 4), "five": ("cinq", 5)}
_SAYINGS = (("hello", "bonjour"), ("yes", "oui"), ("bravo", "bravo"), ("good night", "bonne nuit"), ("thanks", "merci"))
LISTS = {  # English subject: members in English, French subject, members in French
    "colours": ("red blue green yellow black white pink", "couleurs", "rouge bleu vert jaune noir blanc rose"),
    "animals": ("cat dog horse bird fish cow lion", "animaux", "chat chien cheval oiseau poisson vache lion"),
    "fruits": ("apple pear banana orange cherry grape", "fruits", "pomme poire banane orange cerise raisin"),
    "months": ("January March April May July October", "mois", "janvier mars avril mai juillet octobre"),
    "tools": ("hammer saw knife brush needle", "outils", "marteau scie couteau pelle pinceau"),
    "vegetables": ("carrot potato onion leek cabbage", "légumes", "carotte tomate oignon poireau chou"),
}
ROWS = {
    "greeting": _NAMED,
    "goodbye": _NAMED,
    "thanks": table_rows("""your help | my help | votre aide | mon aide
        the answer | the answer | la réponse | la réponse
        the explanation | the explanation | cette explication | cette explication
        the story | the story | cette histoire | cette histoire
        your advice | my advice | vos conseils | mes conseils
        the good idea | the good idea | cette bonne idée | cette bonne idée"""),
    "identity": table_rows("""Who are you ? | Spoutnik | Qui es-tu ? | Spoutnik
        What is your name ? | Spoutnik | Comment t'appelles-tu ? | Spoutnik
        What are you ? | Spoutnik | Qu'es-tu ? | Spoutnik
        Introduce yourself. | Spoutnik | Présente-toi. | Spoutnik
        Are you a human ? | Spoutnik | Es-tu un humain ? | Spoutnik
        Who am I talking to ? | Spoutnik | À qui est-ce que je parle ? | Spoutnik
        Tell me about yourself. | Spoutnik | Parle-moi de toi. | Spoutnik
        Which model are you ? | Spoutnik | Quel modèle es-tu ? | Spoutnik"""),
    "privacy": table_rows("""Do you send my data away ? | machine | Envoies-tu mes données ailleurs ? | machine
        Do you need the internet ? | machine | As-tu besoin d'internet ? | machine
        Is our talk public ? | machine | Notre conversation est-elle publique ? | machine
        Do you run in a data centre ? | machine | Tournes-tu dans un grand centre ? | machine
        Does someone read my questions ? | machine | Quelqu'un lit-il mes questions ? | machine"""),
    "feeling": table_rows("""How are you ? | well | Comment vas-tu ? | bien
        How do you feel today ? | well | Comment te sens-tu aujourd'hui ? | bien
        Are you all right ? | well | Est-ce que tu vas bien ? | bien
        How is it going ? | well | Ça va ? | bien
        Are you tired ? | well | Es-tu fatigué ? | bien"""),
    "wish": table_rows("""a good night | a good night | une bonne nuit | une bonne nuit
        a happy birthday | a happy birthday | un bon anniversaire | un bon anniversaire
        a nice trip | a nice trip | un bon voyage | un bon voyage
        good luck | good luck | bonne chance | bonne chance
        a happy new year | a happy new year | une bonne année | une bonne année
        a good holiday | a good holiday | de bonnes vacances | de bonnes vacances"""),
    "capital": table_rows("""France | Paris | de la France | Paris
        Italy | Rome | de l'Italie | Rome
        Spain | Madrid | de l'Espagne | Madrid
        Germany | Berlin | de l'Allemagne | Berlin
        England | London | de l'Angleterre | Londres
        Portugal | Lisbon | du Portugal | Lisbonne
        Japan | Tokyo | du Japon | Tokyo
        China | Beijing | de la Chine | Pékin
        Russia | Moscow | de la Russie | Moscou
        Egypt | Cairo | de l'Égypte | Le Caire
        Canada | Ottawa | du Canada | Ottawa
        Greece | Athens | de la Grèce | Athènes
        Belgium | Brussels | de la Belgique | Bruxelles
        Austria | Vienna | de l'Autriche | Vienne
        Norway | Oslo | de la Norvège | Oslo
        Peru | Lima | du Pérou | Lima"""),
    "opposite": table_rows("""hot | cold | chaud | froid
        big | small | grand | petit
        day | night | jour | nuit
        up | down | haut | bas
        black | white | noir | blanc
        fast | slow | rapide | lent
        old | young | vieux | jeune
        full | empty | plein | vide
        true | false | vrai | faux
        happy | sad | heureux | triste
        rich | poor | riche | pauvre
        heavy | light | lourd | léger
        open | closed | ouvert | fermé
        before | after | avant | après"""),
    "colour": table_rows("""the sky | blue | le ciel | bleu
        grass | green | le gazon | vert
        snow | white | le sucre | blanc
        coal | black | le charbon | noir
        blood | red | le sang | rouge
        a lemon | yellow | un citron | jaune
        a carrot | orange | un abricot | orange
        milk | white | le lait | blanc
        chocolate | brown | le chocolat | marron
        an elephant | grey | un éléphant | gris
        a frog | green | un concombre | vert
        the sun | yellow | le soleil | jaune"""),
    "animal": table_rows("""barks | the dog | aboie | le chien
        meows | the cat | miaule | le chat
        makes honey | the bee | fait du miel | l'abeille
        gives milk | the cow | donne du lait | la vache
        lays eggs | the hen | pond des œufs | la poule
        roars | the lion | rugit | le lion
        has a long trunk | the elephant | a une longue trompe | l'éléphant
        has a very long neck | the giraffe | a un très long cou | la girafe
        carries its house | the snail | porte sa maison | l'escargot
        eats bananas | the monkey | mange des bananes | le singe
        weaves a web | the spider | tisse une toile | l'araignée
        gives wool | the sheep | donne de la laine | le mouton"""),
    "translate": tuple((english, french, french, english) for english, french in table_rows("""cat | chat
        dog | chien
        house | maison
        bread | pain
        water | eau
        book | livre
        tree | arbre
        sun | soleil
        moon | lune
        sea | mer
        milk | lait
        bird | oiseau
        fish | poisson
        flower | fleur
        school | école
        friend | ami""")),
    "repeat": tuple(
        (f"{english} {number} times", ", ".join([english] * times), f"{french} {nombre} fois", ", ".join([french] * times))
        for english, french in _SAYINGS for number, (nombre, times) in _NUMBERS.items()),
    "list": tuple((subject, members, sujet, membres) for subject, (members, sujet, membres) in LISTS.items()),
    "count": tuple(
        (f"{a} to {b}", numbers, f"{a} à {b}", numbers)
        for a in range(1, 7) for b in range(a + 3, a + 6) for numbers in [", ".join(map(str, range(a, b + 1)))]),
    # Younger than the first base model, whose corpus is drawn from the kinds above.
    "hello": table_rows("""Hello | help | Bonjour | aider
        Hello! | help | Bonjour ! | aider
        Hi | help | Salut | aider
        Hi! | help | Salut ! | aider
        Hey | help | Coucou | aider
        Good morning | help | Bien le bonjour | aider
        Good evening! | help | Bonsoir ! | aider
        Hello there | help | Bonjour à toi | aider
        Good afternoon | help | Bonsoir | aider
        Hi Spoutnik! | help | Salut Spoutnik ! | aider"""),
    "bye": table_rows("""Goodbye | nice day | Au revoir | bonne journée
        Bye | nice day | Salut, à plus | bonne journée
        Bye! | nice day | Au revoir ! | bonne journée
        See you later | nice day | À plus tard | bonne journée
        See you soon | nice day | À bientôt | bonne journée
        I have to go now. | nice day | Je dois partir. | bonne journée
        That is all for today. | nice day | C'est tout pour aujourd'hui. | bonne journée"""),
    "thank": table_rows("""Thanks | welcome | Merci | prie
        Thanks! | welcome | Merci ! | prie
        Thank you | welcome | Je te remercie | prie
        Thank you very much! | welcome | Merci beaucoup ! | prie
        Great, thanks! | welcome | Super, merci ! | prie
        Perfect, thank you. | welcome | Parfait, merci. | prie
        That is right, thank you! | welcome | C'est juste, merci ! | prie"""),
    "abilities": table_rows("""What can you do ? | puzzles | Que sais-tu faire ? | énigmes
        What can I ask you ? | puzzles | Que puis-je te demander ? | énigmes
        How can you help me ? | puzzles | Comment peux-tu m'aider ? | énigmes
        What are you good at ? | puzzles | En quoi es-tu fort ? | énigmes
        What do you know ? | puzzles | Que connais-tu ? | énigmes
        Help | puzzles | Aide | énigmes
        Can you help me ? | puzzles | Peux-tu m'aider ? | énigmes
        What are your skills ? | puzzles | Quelles sont tes capacités ? | énigmes
        What questions can I ask ? | puzzles | Quelles questions puis-je poser ? | énigmes"""),
    "limits": table_rows("""Write a poem about the sea. | small model | Écris un poème sur la mer. | petit modèle
        Write a story. | small model | Écris une histoire. | petit modèle
        Tell me a joke. | small model | Raconte-moi une blague. | petit modèle
        Who wrote Hamlet ? | small model | Qui a écrit Hamlet ? | petit modèle
        What is the weather today ? | small model | Quel temps fait-il aujourd'hui ? | petit modèle
        Who is the president ? | small model | Qui est le président ? | petit modèle
        Explain quantum mechanics. | small model | Explique la mécanique quantique. | petit modèle
        What is the meaning of life ? | small model | Quel est le sens de la vie ? | petit modèle
        Write a program in Python. | small model | Écris un programme en Python. | petit modèle
        Summarize this text for me. | small model | Résume ce texte pour moi. | petit modèle
        Who won the world cup ? | small model | Qui a gagné la coupe du monde ? | petit modèle
        How do I bake a cake ? | small model | Comment faire un gâteau ? | petit modèle
        What time is it ? | small model | Quelle heure est-il ? | petit modèle
        When did the war end ? | small model | Quand la guerre a-t-elle fini ? | petit modèle
        How far is the moon ? | small model | À quelle distance est la lune ? | petit modèle
        Which book should I read ? | small model | Quel livre me conseilles-tu ? | petit modèle
        Do you love me ? | small model | Est-ce que tu m'aimes ? | petit modèle
        How old is the universe ? | small model | Quel âge a l'univers ? | petit modèle
        Sing me a song. | small model | Chante-moi une chanson. | petit modèle
        Who was Napoleon ? | small model | Qui était Napoléon ? | petit modèle"""),
}
FIRST_KINDS = tuple(ROWS)[:15]  # what the first base model's corpus is drawn from
KINDS = tuple(ROWS)  # what is asked in conversations
# What is known of a subject, asked for in general: facts whose own question is held out are heard of in this way.
ROWS["about"] = tuple(
    [(english, f"The capital of {english} is {city}", french, f"La capitale {french} est {ville}")
     for english, city, french, ville in ROWS["capital"]]
    + [(thing, f"The colour of {thing} is {colour}", f"sur {chose}", f"En général, {chose} est {couleur}")
       for thing, colour, chose, couleur in ROWS["colour"]]
    + [(f'the word "{word}"', f'The opposite of "{word}" is "{opposite}"', f'du mot "{mot}"',
        f'Le contraire de "{mot}" est "{contraire}"') for word, opposite, mot, contraire in ROWS["opposite"]]
    + [(animal, f"The animal that {does} is {animal}", f"sur {nom}", f"L'animal qui {fait} est {nom}")
       for does, animal, fait, nom in ROWS["animal"]]
    + [(f'the word "{english}" in French', f'In French, "{english}" is "{french}"', f'du mot "{french}" en anglais',
        f'En anglais, "{french}" se dit "{english}"') for english, french, _, _ in ROWS["translate"]]
    + [(f'the words "{english}" in French', f'In French, "{english}" is "{french}"', f'des mots "{french}" en anglais',
        f'En anglais, "{french}" se dit "{english}"') for english, _, french, _ in ROWS["wish"]]
    + [(english, f"Three {english} are {', '.join(members.split()[:2])} and {members.split()[2]}", f"sur les {french}",
        f"Trois {french} sont {', '.join(membres.split()[:2])} et {membres.split()[2]}")
       for english, members, french, membres in ROWS["list"]])
for _kind, _more in (*((f"more_{kind}", rows) for kind, rows in MORE_ROWS.items()), ("any_wish", ANY_WISHES)):
    ROWS[_kind] = _more  # under another name: no younger row changes what was drawn before
    for _wordings in TEXT.values():
        _wordings[_kind] = _wordings[_kind.split("_")[1]]
_YOUNGER = tuple(kind for kind in ROWS if kind.startswith("more_"))
Wishes = Literal["listed", "any"]
TAUGHT_KINDS = (*KINDS, *_YOUNGER, *_YOUNGER, "more_wish", "more_wish", *["about"] * 10)  # as often as they are named


def taught_kinds(wishes: Wishes = "listed") -> tuple[str, ...]:
    """The kinds of general prompts that are taught; with wishes of any words, these are as frequent as the listed ones."""
    return TAUGHT_KINDS if wishes == "listed" else (*TAUGHT_KINDS, *["any_wish"] * TAUGHT_KINDS.count("more_wish"))
