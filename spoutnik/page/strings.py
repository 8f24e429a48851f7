"""Texts of the page, in English and in French."""

import re
from dataclasses import dataclass

from spoutnik.generation import generation


@dataclass(frozen=True)
class Strings:
    language: str
    other_language: str  # the one that the language button switches to
    other_language_name: str
    chat: str
    arena: str
    new_conversation: str
    conversations: str
    no_conversations: str
    privacy: str
    history_off: str
    rename: str
    delete: str
    confirm_delete: str
    cancel: str
    save: str
    close: str
    theme_button: str
    greeting: str
    greeting_help: str
    examples: tuple[str, ...]
    question_placeholder: str
    question_label: str
    send: str
    stop: str
    attach_file: str
    remove_file: str
    file_too_large: str
    file_not_text: str
    options: str
    model: str
    effort: str
    efforts: dict[str, str]
    thoughts: str
    thoughts_help: str
    one_thought: str
    many_thoughts: str
    thought_limit: str
    no_thinking: str
    you: str
    waiting: str
    thinking: str
    thoughts_done: str
    paused: str
    thought_took: str
    thoughts_took: str
    one_token: str
    many_tokens: str
    stopped: str
    cut_off: str
    answer_now: str
    pause: str
    resume: str
    insert: str
    insert_hint: str
    copy: str
    copied: str
    edit: str
    submit_edit: str
    retry: str
    good_answer: str
    bad_answer: str
    correct_answer: str
    correct_answer_help: str
    feedback_saved: str
    your_correction: str
    followup_feedback: str
    agreement: str
    no_agreement: str
    other_answers: str
    votes: str
    error: str
    answer_complete: str
    scroll_to_end: str
    skip_link: str
    arena_intro: str
    arena_placeholder: str
    any_model: str
    side_and_model: str
    model_a: str
    model_b: str
    a_better: str
    b_better: str
    tie: str
    both_bad: str
    vote_question: str
    revealed: str
    next_question: str
    ratings: str
    rating: str
    interval: str
    vote_count: str
    ratings_help: str
    no_votes: str
    needs_two_models: str
    cut_warning: str
    circles_warning: str
    unclosed_warning: str

    def warning(self, text: str) -> str:
        """What the engine says in English."""
        for template, said in ((generation.CUT, self.cut_warning), (generation.CIRCLES, self.circles_warning),
                               (generation.UNCLOSED, self.unclosed_warning)):
            if match := re.fullmatch(re.escape(template).replace(r"\{\}", r"(\d+)"), text):
                return said.format(*match.groups())
        return text

    def number(self, value: int) -> str:
        return f"{value:,}".replace(",", "\u202f" if self.language == "fr" else ",")

    def tokens(self, count: int) -> str:
        return self.one_token if count == 1 else self.many_tokens.format(self.number(count))

    def seconds(self, value: float) -> str:
        whole = round(value)
        if whole < 10:
            return f"{value:.1f}\u00a0s".replace(".", "," if self.language == "fr" else ".")
        return f"{whole}\u00a0s" if whole < 60 else f"{whole // 60}\u00a0min {whole % 60}\u00a0s"


EN = Strings(
    language="en", other_language="fr", other_language_name="Français", chat="Chat", arena="Arena",
    new_conversation="New conversation", conversations="Conversations", no_conversations="Nothing here yet.",
    privacy="Kept on this machine, nowhere else.", history_off="History is off: nothing is written to disk.", rename="Rename",
    delete="Delete", confirm_delete="Delete “{}”? It cannot be brought back.", cancel="Cancel", save="Save", close="Close",
    theme_button="Light, dark or as the system", greeting="What shall we think about?",
    greeting_help="The model thinks first, then answers. You can watch the thought, steer it, or end it.",
    examples=("Use 3, 5, 8 once each to make 16.", "What is 17 + 26?", "How many times is the letter r in strawberry?"),
    question_placeholder="Ask anything", question_label="Your question", send="Send", stop="Stop (Escape)",
    attach_file="Attach a text file", remove_file="Remove {}", file_too_large="{} is too large: at most {} KB.",
    file_not_text="{} is not a text file (UTF-8).", options="Model and thinking", model="Model", effort="Effort",
    efforts={"none": "no thought", "minimal": "minimal", "low": "low", "medium": "medium", "high": "high",
             "xhigh": "very high", "max": "longest"}, thoughts="Parallel thoughts",
    thoughts_help="Several thoughts vote; the answer of the majority is shown.", one_thought="1 thought",
    many_thoughts="{} thoughts", thought_limit="{}: up to about {} tokens of thought", no_thinking="{}: answers at once",
    you="You", waiting="Waiting for the model…", thinking="Thinking", thoughts_done="{} of {} thoughts done", paused="Paused",
    thought_took="Thought for {}, {}", thoughts_took="{} thoughts for {}, {}", one_token="1 token", many_tokens="{} tokens",
    stopped="Stopped.", cut_off="The answer was cut: there was no room for more.", answer_now="Answer now", pause="Pause",
    resume="Continue", insert="Add to the thought", insert_hint="A sentence to put into the thought", copy="Copy",
    copied="Copied", edit="Edit", submit_edit="Ask again", retry="Answer again", good_answer="Good answer",
    bad_answer="Bad answer", correct_answer="Correct this answer",
    correct_answer_help="Write the answer as it should have been. It is kept on this machine, as a task and as a preference "
                        "pair.", feedback_saved="Noted, on this machine.", your_correction="You corrected this answer:",
    followup_feedback="Noted. It will not become a training line: the question means nothing without what was said before it.",
    agreement="{} of {} thoughts agree", no_agreement="The thoughts came to no common answer", other_answers="Other answers",
    votes="{}×", error="That did not work.", answer_complete="The answer is complete.", scroll_to_end="To the end",
    skip_link="Skip to the question",
    arena_intro="Two models answer, and you do not know which is which. Which answer is better?",
    arena_placeholder="A question for both", any_model="Any model", side_and_model="{}: {}", model_a="Model A",
    model_b="Model B", a_better="A is better", b_better="B is better", tie="A tie", both_bad="Both are bad",
    vote_question="Which answer is better?", revealed="{} against {}", next_question="Another question", ratings="Ratings",
    rating="Rating", interval="95 % interval", vote_count="Votes",
    ratings_help="Bradley and Terry's model: 400 points more are odds of ten to one. One drawn game is assumed between every "
                 "two models; the interval shows what the same number of votes could have said by chance.",
    no_votes="No votes yet.",
    needs_two_models="The arena needs two models. Start the server with two, or with a run of which several stages are models.",
    cut_warning="The thought reached its budget of {} tokens and was closed; the answer was written without the rest of it.",
    circles_warning="The thought went in circles and was closed after {} tokens.",
    unclosed_warning="The model ended inside its thought; it was closed and asked for the answer.")

FR = Strings(
    language="fr", other_language="en", other_language_name="English", chat="Discussion", arena="Arène",
    new_conversation="Nouvelle conversation", conversations="Conversations", no_conversations="Rien encore.",
    privacy="Gardé sur cette machine, nulle part ailleurs.",
    history_off="L’historique est désactivé\u00a0: rien n’est écrit sur le disque.", rename="Renommer", delete="Supprimer",
    confirm_delete="Supprimer «\u00a0{}\u00a0»\u00a0? C’est définitif.", cancel="Annuler", save="Enregistrer", close="Fermer",
    theme_button="Clair, sombre ou comme le système", greeting="À quoi allons-nous réfléchir\u00a0?",
    greeting_help="Le modèle réfléchit d’abord, puis répond. Vous pouvez suivre sa réflexion, la guider ou l’arrêter.",
    examples=("Utilise 3, 5, 8 une fois chacun pour obtenir 16.", "Combien font 17 + 26 ?",
              "Combien de fois la lettre r est-elle dans le mot fraise ?"), question_placeholder="Posez votre question",
    question_label="Votre question", send="Envoyer", stop="Arrêter (Échap)", attach_file="Joindre un fichier texte",
    remove_file="Retirer {}", file_too_large="{} est trop gros\u00a0: {} Ko au plus.",
    file_not_text="{} n’est pas un fichier texte (UTF-8).", options="Modèle et réflexion", model="Modèle", effort="Effort",
    efforts={"none": "sans réflexion", "minimal": "minimal", "low": "faible", "medium": "moyen", "high": "élevé",
             "xhigh": "très élevé", "max": "le plus long"}, thoughts="Réflexions parallèles",
    thoughts_help="Plusieurs réflexions votent\u00a0; la réponse de la majorité est montrée.", one_thought="1 réflexion",
    many_thoughts="{} réflexions", thought_limit="{}\u00a0: environ {} jetons de réflexion au plus",
    no_thinking="{}\u00a0: répond aussitôt", you="Vous", waiting="En attente du modèle…", thinking="Réfléchit",
    thoughts_done="{} réflexions finies sur {}", paused="En pause", thought_took="A réfléchi {}, {}",
    thoughts_took="{} réflexions en {}, {}", one_token="1 jeton", many_tokens="{} jetons", stopped="Arrêté.",
    cut_off="La réponse a été coupée\u00a0: il n’y avait plus de place.", answer_now="Répondre maintenant", pause="Pause",
    resume="Continuer", insert="Ajouter à la réflexion", insert_hint="Une phrase à glisser dans la réflexion", copy="Copier",
    copied="Copié", edit="Modifier", submit_edit="Redemander", retry="Répondre à nouveau", good_answer="Bonne réponse",
    bad_answer="Mauvaise réponse", correct_answer="Corriger cette réponse",
    correct_answer_help="Écrivez la réponse telle qu’elle aurait dû être. Elle est gardée sur cette machine, comme exercice "
                        "et comme paire de préférence.", feedback_saved="C’est noté, sur cette machine.",
    your_correction="Vous avez corrigé cette réponse\u00a0:",
    followup_feedback="C’est noté. Ce ne sera pas une ligne d’entraînement\u00a0: la question ne veut rien dire sans ce qui "
                      "la précède.", agreement="{} réflexions sur {} s’accordent",
    no_agreement="Les réflexions n’ont pas de réponse commune", other_answers="Autres réponses", votes="{}×",
    error="Cela n’a pas marché.", answer_complete="La réponse est complète.", scroll_to_end="Aller à la fin",
    skip_link="Aller à la question",
    arena_intro="Deux modèles répondent, sans que vous sachiez lequel est lequel. Quelle réponse est la meilleure\u00a0?",
    arena_placeholder="Une question pour les deux", any_model="Modèle au hasard", side_and_model="{}\u00a0: {}",
    model_a="Modèle A", model_b="Modèle B", a_better="A est meilleure", b_better="B est meilleure", tie="Égalité",
    both_bad="Les deux sont mauvaises", vote_question="Quelle réponse est la meilleure\u00a0?", revealed="{} contre {}",
    next_question="Une autre question", ratings="Classement", rating="Cote", interval="Intervalle à 95 %", vote_count="Votes",
    ratings_help="Modèle de Bradley et Terry\u00a0: 400 points de plus, c’est dix contre un. Une partie nulle est supposée "
                 "entre deux modèles quelconques\u00a0; l’intervalle montre ce que le hasard d’autant de votes aurait pu "
                 "donner.", no_votes="Aucun vote encore.",
    needs_two_models="L’arène a besoin de deux modèles. Démarrez le serveur avec deux, ou avec une recette dont plusieurs "
                     "étapes sont des modèles.",
    cut_warning="La réflexion a atteint sa limite de {} jetons et a été close\u00a0; la réponse a été écrite sans le reste.",
    circles_warning="La réflexion tournait en rond\u00a0; elle a été close après {} jetons.",
    unclosed_warning="Le modèle s’est arrêté dans sa réflexion\u00a0; elle a été close et la réponse demandée.")

LANGUAGES = {"en": EN, "fr": FR}


def strings_for(accept_language: str, chosen: str | None = None) -> Strings:
    """The texts in the language `chosen` by the user, else in the best one of the Accept-Language header, else in English."""
    if chosen in LANGUAGES:
        return LANGUAGES[chosen]
    ranked: list[tuple[float, str]] = []
    for part in accept_language.lower().split(","):
        tag, _, quality = part.strip().partition(";q=")
        try:
            ranked.append((-float(quality or 1), tag.split("-")[0]))
        except ValueError:
            continue
    best = next((tag for quality, tag in sorted(ranked, key=lambda one: one[0]) if tag in LANGUAGES and quality < 0), "en")
    return LANGUAGES[best]
