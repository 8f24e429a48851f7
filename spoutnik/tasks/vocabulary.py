"""A larger vocabulary to spell: common English and French words, and words made of the syllables of both languages.

`word_list` stays as it is beside it: the first base model's corpus is drawn from that list.
"""

import random
from functools import cache

WORDS = tuple(dict.fromkeys("""
    ant arm art bag bat bed bee bell belt bike blue boot bowl box boy bread bridge broom brown bus cab cage camel camera
    candle candy cap card carpet carrot cat cave cellar cherry chess chest chin church city class clock cloth clown coach
    coat cookie copper corner cotton cow crab cream creek crown cup curtain daisy dance dawn deer desert desk dish doctor
    dog doll dollar dolphin donkey door dragon dream dress drill drum duck eagle ear earth egg elbow elephant engine
    envelope eraser evening eye face fairy family farm farmer father feather fence ferry field film finger fire flag flame
    flood floor flower flute fly fog fork fox freckle freezer friend fridge frost funnel fur galaxy game gate giant giraffe
    girl glass globe glove goat gold goose grass gravy green grocery hair hall hand harbor hat hawk head heart helmet hen
    hill honey hook hospital hotel hour house ink iron ivory jam jar jeans jelly jewel kettle key king kite knee knife koala
    ladder lady lamb lamp lawyer leather lemon letter library light lion lip lizard lobster lock lunch magic mailbox mango
    map maple marble meadow meal melon mirror mitten mixer monkey month morning mosquito motor mountain mouse mouth movie
    muffin mushroom music nail napkin neck nephew nickel night noodle noon north nose notebook nurse oak oasis office olive
    onion orange orchard otter oven owl pan panda paper parrot party pasta path peach peanut pear pearl pebble pen people
    person piano picture pie pig pigeon pilot pin pine pizza plane plant plate plum pocket pond pony pool popcorn poppy
    potato powder prince printer purple purse queen quilt raccoon radio raft railroad raisin raspberry rattle raven recipe
    red referee ring river road roof room rooster root rope rose ruby ruler sailor salad salt sand sandwich saucer scarf
    school scissors screw sea seal season seed shark sheet shelf shell shirt shoe shop shoulder shower singer sister skirt
    sky slipper smile smoke snail snake soap sock sofa soup south spinach spoon spring squirrel stairs station stone storm
    story stove street string success suit sunset supper swallow sweater table tailor tea teeth telephone tennis tent
    theater thunder tie toast tomato tongue tooth tower town toy tractor tree triangle trousers truck trumpet tulip turkey
    twilight uncle vase village vinegar volcano wagon waiter wall walnut water weather week whale wheat wheel whistle willow
    wing winner wire witch woman wood wool world worm yard year yogurt zipper zoo accident address adventure airplane
    alligator alphabet ambulance animal apartment apology apricot architect artichoke asparagus assassin association
    astronaut attention autumn avocado baby balloon bamboo banana barbecue baseball basketball bathroom battery beautiful
    bedroom blackberry blueberry bookkeeper breakfast broccoli bubble buffalo building business butterfly cabbage calculator
    calendar cappuccino caravan carpenter cathedral celebration century challenge champion chocolate cinnamon classroom
    coconut collection committee community computer concert congress cooperation country courage cranberry crocodile
    cucumber customer daughter decision dictionary difference difficulty dinosaur direction discovery distance elevator
    embarrass emergency employee energy environment evidence excellent exercise experience experiment factory february
    festival firefighter fireplace football forever forgotten freedom furniture gardener generation gentleman geography
    gooseberry government grammar grandfather grandmother grapefruit grasshopper guarantee gymnasium hamburger happiness
    headache helicopter hippopotamus history holiday horizon hurricane illness important independence information innovation
    intelligence internet interview introduction invitation jellyfish journey kangaroo keyboard kindergarten knowledge
    laboratory landscape language laughter leadership lemonade library lighthouse literature machine magazine magician
    marmalade marriage mathematics mayonnaise medicine membership memory message millennium miniature minute mississippi
    moment necessary neighbor newspaper nightmare notebook occasion occurrence ocean opportunity orchestra organization
    overwhelm parallel parliament passenger peninsula pepperoni permission philosophy photograph pineapple pomegranate
    population possession possible president principle privilege probability problem professor programming project
    pronunciation quarter question reasoning recommend refrigerator relationship remember restaurant rhinoceros rhythm
    satellite scientist secretary september skeleton skyscraper snowflake society software spaghetti sparrow statistics
    strength suggestion sunflower supermarket surprise teacher technology television temperature tennessee tomorrow
    tournament tradition transformer translation transport treasure umbrella understand university vacation vegetable
    vocabulary volunteer waterfall watermelon wednesday wilderness windmill woodpecker yesterday abeille abricot accordéon
    addition adresse affaire agneau aiguille aile album alphabet ami amour ananas ancre âne animal année anniversaire
    appartement appareil appel araignée arbre argent armoire arrosoir artiste ascenseur assiette atelier aubergine automne
    avenir avocat baguette baignoire balcon baleine balle ballon banane banc barbe barrière bataille bâton beurre
    bibliothèque bicyclette bijou biscuit bonbon bonheur bonjour bonnet botte bouche boucle bougie boulanger boulangerie
    bouteille boutique bouton branche bras brebis brioche brosse brouillard bruit bureau cabane cacahuète cadeau café cahier
    calendrier camarade camion campagne canapé cannelle caramel carotte carré carrosse carte casserole cerise chaise chaleur
    chambre champ champignon chance chanson chapeau chariot charpentier chasseur château chaussette chaussure chemise cheveu
    chèvre chiffre chocolat ciel cigale cigogne cinéma ciseaux citron citrouille clarinette classe clavier clé cloche clou
    coccinelle cochon coeur coffre coiffeur colère colline colombe commerce comprendre concombre confiture copain coq
    coquille corbeau corde costume cou coude cour courage couronne cousin couteau couverture crabe craie crapaud crayon
    crème crêpe crevette crocodile cuillère cuisine dauphin début déjeuner dent dentiste dessert dessin développement
    dimanche dindon directeur doigt dormir douche drap eau échelle éclair école écran écriture écureuil église éléphant
    élève enfant ennemi enveloppe épaule épinard erreur escalier escargot espace étagère étoile étudiant faim farine fatigue
    fauteuil fenêtre ferme fête feu ficelle figure fille fils flamme flèche fleuve flocon forêt fourchette fourmi foyer
    fraise framboise frère froid fruit fumée fusée gant garage garçon gâteau gazelle gazon géant genou girafe glace gomme
    gorge goutte graine grand grange grenier grenouille griffe grillon groseille guêpe guirlande habit hamac hanche haricot
    hérisson herbe héros hibou hirondelle histoire homard homme honneur hôpital horizon huile île image immeuble infirmier
    insecte intelligence invitation jambe jambon janvier jardinier jeu joie joue jouet journal jour juillet jumelle jupe jus
    lac laine lait lampadaire langue lapin larme légume lettre lézard libellule liberté limonade lion lit locomotive lumière
    lune lunettes lundi madame magasin magicien main maman mandarine manteau marchand mariage marmite marron marteau matin
    médecin mer mercredi mère merveille message métro miel miroir moineau moment monde monsieur montagne montre morceau
    mosquée moteur mouche mouchoir moulin moustache moustique mur mystère nappe neveu nez nid noisette nombre nourriture
    nuit océan oeuf oignon oiseau olive ombre oncle orage orange orchestre ordinateur oreille oreiller orteil ours outil
    page pain palais palmier pamplemousse pantalon paon papa papier papillon parapluie parc parent paresse parfum parrain
    passage passoire pastèque patience pâtisserie patte paysage peau pêche peigne peinture pelle pelouse perroquet perruque
    personne petit peur phare photographie piano pied pierre pigeon pinceau pingouin piscine plafond planche planète plante
    plat plume poche poêle poil poire poisson poivre poivron police pomme pompier pont porte portefeuille poteau poubelle
    pouce poulet poupée poussin prairie présent prince printemps problème professeur programme promenade puits puzzle pyjama
    quartier question queue racine radis raisin rame raquette rasoir récolte recette réfrigérateur réponse reine rêve requin
    restaurant rhinocéros rideau rire rivière riz robinet rocher roi rose roue rouge royaume ruban rue ruisseau sable sac
    salade salle samedi sanglier sapin saucisse sauterelle savon science seau sel semaine serpent serrure serviette silence
    singe soldat sommeil sorcière soupe sourire souvenir stylo sucre surprise tableau tablier tambour tante tapis tasse
    taupe taureau téléphone télévision tempête temps terrain terre tête théâtre thé tigre tiroir tissu toboggan toit tomate
    tonnerre torchon tortue toupie tour tournesol tracteur train traîneau travail trésor tricot trompette trottoir trousse
    truite tulipe tunnel usine vacances vache vaisselle valise vallée vanille vélo vendredi vent ventre verre veste viande
    victoire vie vinaigre violon visage vitre voisin voiture voix volcan voleur voyage voyelle wagon yeux zèbre
""".split()))
_ONSETS = tuple("""b c d f g h j k l m n p r s t v w y z b c d f g l m n p r s t v bl br ch cl cr dr fl fr gl gr pl pr qu sc
    sh sk sl sm sn sp st str sw th tr wh ph sch spr spl thr gn""".split())
_VOWELS = tuple("a e i o u a e i o u a e i o y ai au ea ee ei eu ia ie io oa oi oo ou ue ui".split())
_CODAS = ("", "", "", "", *"""b c d g l m n p r s t x ck ct ff ft ld ll lt mb mm mp nd ng nk nn nt pp pt rd rk rm rn rr rs rt ss
    st tt zz tch ght""".split())
_LEADING = {"en": ("", "a ", "a good ", "a happy ", "the ", "my dear "),
            "fr": ("", "un ", "une ", "un bon ", "une bonne ", "de bons ", "mon cher ")}
_ALPHABET = "abcdefghijklmnopqrstuvwxyz"


def made_up_word(rng: random.Random, shortest: int, longest: int) -> str:
    """Syllables of both languages up to a length; one word in ten is letters at random."""
    length = rng.randint(shortest, longest)
    if rng.random() < 0.1:
        return "".join(rng.choice(_ALPHABET) for _ in range(length))
    word, repeated = "", rng.choice(_VOWELS) if rng.random() < 0.3 else ""  # one vowel in all syllables
    while len(word) < length:
        word += rng.choice(_ONSETS) + (repeated or rng.choice(_VOWELS)) + rng.choice(_CODAS)
    return word[:length]


@cache
def _words_of(shortest: int, longest: int) -> tuple[str, ...]:
    return tuple(word for word in WORDS if shortest <= len(word) <= longest)


def any_word(rng: random.Random, shortest: int, longest: int) -> str:
    """A word of `shortest` to `longest` letters, real half of the time."""
    return rng.choice(_words_of(shortest, longest)) if rng.random() < 0.5 else made_up_word(rng, shortest, longest)


def any_phrase(rng: random.Random, language: str) -> str:
    """One to three of any words, mostly behind a short beginning of the language: something to say again."""
    return rng.choice(_LEADING[language]) + " ".join(any_word(rng, 1, 10) for _ in range(rng.randint(1, 3)))
