"""More subjects for kinds of general prompts, taught after the bases: with few subjects a small model learns them by heart,
with many it learns to take the subject from the question.

Rows as in `general_text`. None of them is asked by the measure of helpfulness.
"""

import random

from spoutnik.tasks.vocabulary import any_phrase


def table_rows(table: str) -> tuple[tuple[str, ...], ...]:
    """Rows written one per line, columns separated by bars."""
    return tuple(tuple(cell.strip() for cell in line.split("|")) for line in table.strip().splitlines())


def _combined() -> tuple[tuple[str, str, str, str], ...]:
    """Wishes of an adjective and a noun: no model can learn them all by heart."""
    adjectives = table_rows("""nice | beau | belle
        great | grand | grande
        good | bon | bonne
        quiet | doux | douce
        long | long | longue
        fine | joli | jolie
        sunny | vrai | vraie
        lovely | agréable | agréable
        splendid | superbe | superbe
        calm | calme | calme""")
    nouns = table_rows("""day | matin | m
        evening | soirée | f
        week | semaine | f
        month | mois | m
        party | fête | f
        dinner | dîner | m
        lunch | repas | m
        walk | promenade | f
        game | partie | f
        journey | voyage | m
        lesson | leçon | f
        school year | rentrée | f
        bath | bain | m
        winter | hiver | m
        summer | été | m
        garden | jardin | m
        house | maison | f
        job | travail | m
        book | livre | m
        dream | rêve | m
        story | histoire | f
        song | chanson | f
        race | course | f
        visit | visite | f
        letter | lettre | f
        boat trip | sortie | f
        cake | gâteau | m
        present | cadeau | m
        morning | matinée | f""")
    french = {"m": "un {0} {2}", "f": "une {1} {2}"}
    return tuple((f"a {english} {noun}",) * 2 + (french[gender].format(his, hers, nom),) * 2
                 for english, his, hers in adjectives for noun, nom, gender in nouns)


def _of_any_words() -> tuple[tuple[str, str, str, str], ...]:
    """Wishes that no list of wishes has: they teach to copy what was said, whether it is known or not."""
    rng = random.Random("wishes")
    return tuple((english, english, french, french)
                 for english, french in ((any_phrase(rng, "en"), any_phrase(rng, "fr")) for _ in range(600)))


ANY_WISHES = _of_any_words()
MORE_ROWS = {
    "wish": _combined() + tuple((english, english, french, french) for english, french in table_rows("""
        a good evening | une bonne soirée
        a nice weekend | un bon week-end
        a merry Christmas | un joyeux Noël
        a safe journey | un bon retour
        a good start | un bon début
        a quick recovery | un prompt rétablissement
        a long life | une longue vie
        good health | une bonne santé
        a nice morning | une bonne matinée
        a nice afternoon | un bon après-midi
        courage | du courage
        patience | de la patience
        success | du succès
        a good meal | un bon repas
        a happy wedding | un beau mariage
        sweet dreams | de beaux rêves
        a good game | un bon match
        a great concert | un beau concert
        a good film | un bon film
        a lovely summer | un bel été
        a mild winter | un hiver doux
        a happy Easter | de joyeuses Pâques
        a good walk | une bonne promenade
        a good exam | un bon examen
        a new friend | un nouvel ami
        much fun | beaucoup de plaisir
        some rest | du repos
        a quiet night | une nuit calme
        a good week | une bonne semaine
        a fine spring | un beau printemps
        a happy anniversary | un heureux anniversaire
        a good month | un bon mois
        happy days | des jours heureux
        a good new job | un bon nouveau travail
        a happy name day | une bonne fête""")),
    "capital": table_rows("""Sweden | Stockholm | de la Suède | Stockholm
        Finland | Helsinki | de la Finlande | Helsinki
        Denmark | Copenhagen | du Danemark | Copenhague
        Poland | Warsaw | de la Pologne | Varsovie
        Hungary | Budapest | de la Hongrie | Budapest
        Romania | Bucharest | de la Roumanie | Bucarest
        Bulgaria | Sofia | de la Bulgarie | Sofia
        Ireland | Dublin | de l'Irlande | Dublin
        Iceland | Reykjavik | de l'Islande | Reykjavik
        Turkey | Ankara | de la Turquie | Ankara
        Cuba | Havana | de Cuba | La Havane
        Mexico | Mexico City | du Mexique | Mexico
        Brazil | Brasilia | du Brésil | Brasilia
        Chile | Santiago | du Chili | Santiago
        Argentina | Buenos Aires | de l'Argentine | Buenos Aires
        Morocco | Rabat | du Maroc | Rabat
        Tunisia | Tunis | de la Tunisie | Tunis
        Algeria | Algiers | de l'Algérie | Alger
        Senegal | Dakar | du Sénégal | Dakar
        Kenya | Nairobi | du Kenya | Nairobi
        India | New Delhi | de l'Inde | New Delhi
        Nepal | Katmandu | du Népal | Katmandou
        Vietnam | Hanoi | du Vietnam | Hanoï
        Thailand | Bangkok | de la Thaïlande | Bangkok
        Australia | Canberra | de l'Australie | Canberra
        Ukraine | Kyiv | de l'Ukraine | Kiev
        Croatia | Zagreb | de la Croatie | Zagreb
        Serbia | Belgrade | de la Serbie | Belgrade"""),
    "animal": table_rows("""makes milk for cheese | the goat | donne du lait de chèvre | la chèvre
        has black stripes | the zebra | a des rayures noires | le zèbre
        jumps very far | the kangaroo | saute très loin | le kangourou
        hoots at night | the owl | hulule la nuit | le hibou
        lives in a shell | the turtle | vit dans une carapace | la tortue
        croaks in the pond | the frog | coasse dans la mare | la grenouille
        hops in the garden | the rabbit | saute dans le jardin | le lapin
        swims in the sea | the fish | nage dans la mer | le poisson
        neighs | the horse | hennit | le cheval
        eats cheese | the mouse | mange du fromage | la souris
        hunts mice | the fox | chasse les souris | le renard
        howls at the moon | the wolf | hurle à la lune | le loup
        stings | the wasp | pique | la guêpe
        has eight arms | the octopus | a huit bras | la pieuvre
        sleeps all winter | the bear | dort tout l'hiver | l'ours
        crows in the morning | the rooster | chante le matin | le coq
        digs tunnels | the mole | creuse des tunnels | la taupe
        eats nuts | the squirrel | mange des noisettes | l'écureuil"""),
    "translate": tuple((english, french, french, english) for english, french in table_rows("""table | table
        chair | chaise
        door | porte
        window | fenêtre
        garden | jardin
        apple | pomme
        king | roi
        queen | reine
        horse | cheval
        cow | vache
        snow | neige
        rain | pluie
        fire | feu
        wind | vent
        hand | main
        head | tête
        night | nuit
        day | jour
        city | ville
        street | rue
        song | chanson
        cheese | fromage
        sugar | sucre
        salt | sel
        boat | bateau
        train | train
        letter | lettre
        kitchen | cuisine
        bed | lit
        clock | horloge
        sky | ciel
        summer | été
        winter | hiver""")),
    "opposite": table_rows("""long | short | long | court
        strong | weak | fort | faible
        near | far | proche | loin
        clean | dirty | propre | sale
        early | late | tôt | tard
        easy | hard | facile | difficile
        wet | dry | mouillé | sec
        sweet | bitter | sucré | amer
        thick | thin | épais | mince
        good | bad | bon | mauvais
        love | hate | amour | haine
        war | peace | guerre | paix
        left | right | gauche | droite
        first | last | premier | dernier
        high | low | élevé | bas"""),
    "colour": table_rows("""a banana | yellow | une banane | jaune
        a tomato | red | une tomate | rouge
        a cherry | red | une cerise | rouge
        the night | black | la nuit | noir
        a cloud | white | un nuage | blanc
        a leaf | green | une feuille | vert
        an orange | orange | une orange | orange
        a mouse | grey | une souris | gris
        the sea | blue | la mer | bleu
        a crow | black | un corbeau | noir
        salt | white | le sel | blanc
        a pea | green | un petit pois | vert
        wood | brown | le bois | marron
        a flamingo | pink | un flamant | rose"""),
    "list": table_rows("""
        days | Monday Tuesday Wednesday Thursday Friday Sunday | jours | lundi mardi mercredi jeudi vendredi samedi
        countries | France Italy Spain Japan Egypt Peru | pays | Italie Espagne Japon Canada Chine Norvège
        cities | Paris Rome Madrid London Tokyo Berlin | villes | Paris Rome Madrid Londres Tokyo Berlin
        drinks | water milk tea coffee juice | boissons | eau lait thé café jus
        clothes | shirt skirt coat hat sock | vêtements | chemise jupe manteau chapeau robe
        metals | gold silver iron copper tin | métaux | or argent fer cuivre zinc
        sports | tennis football judo rugby golf | sports | tennis football judo rugby golf
        numbers | one two three four five six | nombres | un deux trois quatre cinq six
        trees | oak pine maple willow birch | arbres | chêne pin érable saule bouleau
        flowers | rose tulip lily poppy daisy | fleurs | rose tulipe lilas pivoine violette
        birds | eagle owl crow swan robin | oiseaux | aigle hibou corbeau cygne merle
        seasons | spring summer autumn winter | saisons | printemps été automne hiver"""),
    "feeling": table_rows("""Are you okay ? | well | Tout va bien ? | bien
        Are you fine ? | well | Es-tu en forme ? | bien
        Are you happy ? | well | Es-tu content ? | bien
        Is everything all right ? | well | Est-ce que tout va bien ? | bien
        How do you do ? | well | Comment ça va ? | bien
        How are you today ? | well | Comment vas-tu aujourd'hui ? | bien
        Are you sad ? | well | Es-tu triste ? | bien
        Are you well ? | well | Vas-tu bien ? | bien
        Do you feel good ? | well | Te sens-tu bien ? | bien"""),
}
