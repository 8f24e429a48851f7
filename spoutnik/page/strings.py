"""What the page says, in English and in French."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Strings:
    language: str
    other: str  # the language one can switch to
    other_name: str
    chat: str
    arena: str
    new: str
    conversations: str
    none_yet: str
    private: str
    forgotten: str
    rename: str
    delete: str
    delete_sure: str
    cancel: str
    save: str
    close: str
    theme: str
    greeting: str
    hint: str
    examples: tuple[str, ...]
    placeholder: str
    question: str
    send: str
    stop: str
    attach: str
    detach: str
    too_large: str
    no_text: str
    options: str
    model: str
    effort: str
    efforts: dict[str, str]
    thoughts: str
    thoughts_help: str
    one_thought: str
    many_thoughts: str
    most_tokens: str
    no_thinking: str
    you: str
    waiting: str
    thinking: str
    thinking_many: str
    paused: str
    thought_for: str
    thought_of: str
    token: str
    some_tokens: str
    stopped: str
    cut: str
    answer_now: str
    pause: str
    go_on: str
    add: str
    add_hint: str
    copy: str
    copied: str
    edit: str
    edit_send: str
    retry: str
    good: str
    bad: str
    correct: str
    correct_help: str
    thanks: str
    corrected: str
    later_turn: str
    agreement: str
    no_agreement: str
    others: str
    votes: str
    error: str
    over: str
    latest: str
    skip: str
    arena_intro: str
    arena_ask: str
    any_model: str
    named: str
    left: str
    right: str
    a_better: str
    b_better: str
    tie: str
    both_bad: str
    which: str
    revealed: str
    again: str
    ratings: str
    rating: str
    interval: str
    games: str
    ratings_help: str
    no_votes: str
    two_needed: str
    cut_warning: str
    circles_warning: str
    unclosed_warning: str

    def warning(self, warning: str | dict) -> str:
        """A GenerationWarning's fields in words. Old histories have English sentences: these stay as they are."""
        if isinstance(warning, str):
            return warning
        sentences = {"thought_budget": self.cut_warning, "repetition": self.circles_warning,
                     "unclosed_thought": self.unclosed_warning}
        return sentences[warning["code"]].format(warning["tokens"])

    def number(self, value: int) -> str:
        return f"{value:,}".replace(",", "\u202f" if self.language == "fr" else ",")

    def tokens(self, count: int) -> str:
        return self.token if count == 1 else self.some_tokens.format(self.number(count))

    def seconds(self, value: float) -> str:
        whole = round(value)
        if whole < 10:
            return f"{value:.1f}\u00a0s".replace(".", "," if self.language == "fr" else ".")
        return f"{whole}\u00a0s" if whole < 60 else f"{whole // 60}\u00a0min {whole % 60}\u00a0s"


EN = Strings(
    language="en", other="fr", other_name="Français", chat="Chat", arena="Arena", new="New conversation",
    conversations="Conversations", none_yet="Nothing here yet.", private="Kept on this machine, nowhere else.",
    forgotten="History is off: nothing is written to disk.", rename="Rename", delete="Delete",
    delete_sure="Delete “{}”? It cannot be brought back.", cancel="Cancel", save="Save", close="Close",
    theme="Light, dark or as the system", greeting="What shall we think about?",
    hint="The model thinks first, then answers. You can watch the thought, steer it, or end it.",
    examples=("Use 3, 5, 8 once each to make 16.", "What is 17 + 26?", "How many times is the letter r in strawberry?"),
    placeholder="Ask anything", question="Your question", send="Send", stop="Stop (Escape)", attach="Attach a text file",
    detach="Remove {}", too_large="{} is too large: at most {} KB.", no_text="{} is not a text file (UTF-8).",
    options="Model and thinking", model="Model", effort="Effort",
    efforts={"none": "no thought", "minimal": "minimal", "low": "low", "medium": "medium", "high": "high",
             "xhigh": "very high", "max": "longest"},
    thoughts="Parallel thoughts", thoughts_help="Several thoughts vote; the answer of the majority is shown.",
    one_thought="1 thought", many_thoughts="{} thoughts", most_tokens="{}: up to about {} tokens of thought",
    no_thinking="{}: answers at once", you="You", waiting="Waiting for the model…", thinking="Thinking",
    thinking_many="{} of {} thoughts done", paused="Paused", thought_for="Thought for {}, {}",
    thought_of="{} thoughts for {}, {}", token="1 token", some_tokens="{} tokens", stopped="Stopped.",
    cut="The answer was cut: there was no room for more.", answer_now="Answer now", pause="Pause", go_on="Continue",
    add="Add to the thought", add_hint="A sentence to put into the thought", copy="Copy", copied="Copied", edit="Edit",
    edit_send="Ask again", retry="Answer again", good="Good answer", bad="Bad answer", correct="Correct this answer",
    correct_help="Write the answer as it should have been. It is kept on this machine, as a task and as a preference pair.",
    thanks="Noted, on this machine.", corrected="You corrected this answer:",
    later_turn="Noted. It will not become a training line: the question means nothing without what was said before it.",
    agreement="{} of {} thoughts agree", no_agreement="The thoughts came to no common answer", others="Other answers",
    votes="{}×", error="That did not work.", over="The answer is complete.", latest="To the end",
    skip="Skip to the question", arena_intro="Two models answer, and you do not know which is which. Which answer is better?",
    arena_ask="A question for both", any_model="Any model", named="{}: {}", left="Model A", right="Model B",
    a_better="A is better", b_better="B is better", tie="A tie", both_bad="Both are bad",
    which="Which answer is better?", revealed="{} against {}", again="Another question", ratings="Ratings", rating="Rating",
    interval="95 % interval", games="Votes",
    ratings_help="Bradley and Terry's model: 400 points more are odds of ten to one. One drawn game is assumed between "
                 "every two models; the interval shows what the same number of votes could have said by chance.",
    no_votes="No votes yet.",
    two_needed="The arena needs two models. Start the server with two, or with a run of which several stages are models.",
    cut_warning="The thought reached its budget of {} tokens and was closed; the answer was written without the rest of it.",
    circles_warning="The thought went in circles and was closed after {} tokens.",
    unclosed_warning="The model ended inside its thought; it was closed and asked for the answer.")

FR = Strings(
    language="fr", other="en", other_name="English", chat="Discussion", arena="Arène", new="Nouvelle conversation",
    conversations="Conversations", none_yet="Rien encore.", private="Gardé sur cette machine, nulle part ailleurs.",
    forgotten="L’historique est désactivé\u00a0: rien n’est écrit sur le disque.", rename="Renommer", delete="Supprimer",
    delete_sure="Supprimer «\u00a0{}\u00a0»\u00a0? C’est définitif.", cancel="Annuler", save="Enregistrer", close="Fermer",
    theme="Clair, sombre ou comme le système", greeting="À quoi allons-nous réfléchir\u00a0?",
    hint="Le modèle réfléchit d’abord, puis répond. Vous pouvez suivre sa réflexion, la guider ou l’arrêter.",
    examples=("Utilise 3, 5, 8 une fois chacun pour obtenir 16.", "Combien font 17 + 26 ?",
              "Combien de fois la lettre r est-elle dans le mot fraise ?"),
    placeholder="Posez votre question", question="Votre question", send="Envoyer", stop="Arrêter (Échap)",
    attach="Joindre un fichier texte", detach="Retirer {}", too_large="{} est trop gros\u00a0: {} Ko au plus.",
    no_text="{} n’est pas un fichier texte (UTF-8).", options="Modèle et réflexion", model="Modèle", effort="Effort",
    efforts={"none": "sans réflexion", "minimal": "minimal", "low": "faible", "medium": "moyen", "high": "élevé",
             "xhigh": "très élevé", "max": "le plus long"},
    thoughts="Réflexions parallèles", thoughts_help="Plusieurs réflexions votent\u00a0; la réponse de la majorité est montrée.",
    one_thought="1 réflexion", many_thoughts="{} réflexions", most_tokens="{}\u00a0: environ {} jetons de réflexion au plus",
    no_thinking="{}\u00a0: répond aussitôt", you="Vous", waiting="En attente du modèle…", thinking="Réfléchit",
    thinking_many="{} réflexions finies sur {}", paused="En pause", thought_for="A réfléchi {}, {}",
    thought_of="{} réflexions en {}, {}", token="1 jeton", some_tokens="{} jetons", stopped="Arrêté.",
    cut="La réponse a été coupée\u00a0: il n’y avait plus de place.", answer_now="Répondre maintenant", pause="Pause",
    go_on="Continuer", add="Ajouter à la réflexion", add_hint="Une phrase à glisser dans la réflexion", copy="Copier",
    copied="Copié", edit="Modifier", edit_send="Redemander", retry="Répondre à nouveau", good="Bonne réponse",
    bad="Mauvaise réponse", correct="Corriger cette réponse",
    correct_help="Écrivez la réponse telle qu’elle aurait dû être. Elle est gardée sur cette machine, comme exercice et comme "
                 "paire de préférence.",
    thanks="C’est noté, sur cette machine.", corrected="Vous avez corrigé cette réponse\u00a0:",
    later_turn="C’est noté. Ce ne sera pas une ligne d’entraînement\u00a0: la question ne veut rien dire sans ce qui la "
               "précède.",
    agreement="{} réflexions sur {} s’accordent", no_agreement="Les réflexions n’ont pas de réponse commune",
    others="Autres réponses", votes="{}×", error="Cela n’a pas marché.", over="La réponse est complète.",
    latest="Aller à la fin", skip="Aller à la question",
    arena_intro="Deux modèles répondent, sans que vous sachiez lequel est lequel. Quelle réponse est la meilleure\u00a0?",
    arena_ask="Une question pour les deux", any_model="Modèle au hasard", named="{}\u00a0: {}", left="Modèle A",
    right="Modèle B", a_better="A est meilleure", b_better="B est meilleure", tie="Égalité", both_bad="Les deux sont mauvaises",
    which="Quelle réponse est la meilleure\u00a0?", revealed="{} contre {}", again="Une autre question", ratings="Classement",
    rating="Cote", interval="Intervalle à 95 %", games="Votes",
    ratings_help="Modèle de Bradley et Terry\u00a0: 400 points de plus, c’est dix contre un. Une partie nulle est supposée "
                 "entre deux modèles quelconques\u00a0; l’intervalle montre ce que le hasard d’autant de votes aurait pu "
                 "donner.",
    no_votes="Aucun vote encore.",
    two_needed="L’arène a besoin de deux modèles. Démarrez le serveur avec deux, ou avec une recette dont plusieurs étapes "
               "sont des modèles.",
    cut_warning="La réflexion a atteint sa limite de {} jetons et a été close\u00a0; la réponse a été écrite sans le reste.",
    circles_warning="La réflexion tournait en rond\u00a0; elle a été close après {} jetons.",
    unclosed_warning="Le modèle s’est arrêté dans sa réflexion\u00a0; elle a été close et la réponse demandée.")

WORDS = {"en": EN, "fr": FR}


def choose(accepted: str, chosen: str | None = None) -> Strings:
    """accepted: the header Accept-Language; the best of our languages in it, English where there is none. chosen: by hand."""
    if chosen in WORDS:
        return WORDS[chosen]
    ranked: list[tuple[float, str]] = []
    for part in accepted.lower().split(","):
        tag, _, quality = part.strip().partition(";q=")
        try:
            ranked.append((-float(quality or 1), tag.split("-")[0]))
        except ValueError:
            continue
    best = next((tag for quality, tag in sorted(ranked, key=lambda one: one[0]) if tag in WORDS and quality < 0), "en")
    return WORDS[best]
