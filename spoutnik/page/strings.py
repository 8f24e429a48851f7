"""Texts of the page, in English and in French."""

import contextlib
from dataclasses import dataclass, field

from spoutnik.errors import hide_paths
from spoutnik.generation.delta import GenerationWarning


@dataclass(frozen=True)
class Strings:
    """All texts, in English by default; another language replaces each."""

    language: str = "en"
    other_language: str = "fr"  # the one that the language button switches to
    other_language_name: str = "Français"
    chat: str = "Chat"
    arena: str = "Arena"
    new_conversation: str = "New conversation"
    conversations: str = "Conversations"
    no_conversations: str = "Nothing here yet."
    privacy: str = "Kept on this machine, nowhere else."
    history_off: str = "History is off: nothing is written to disk."
    rename: str = "Rename"
    delete: str = "Delete"
    confirm_delete: str = "Delete “{}”? It cannot be brought back."
    cancel: str = "Cancel"
    save: str = "Save"
    close: str = "Close"
    theme_button: str = "Light, dark or as the system"
    log_out: str = "Log out"
    greeting: str = "What shall we think about?"
    greeting_help: str = "The model thinks first, then answers. You can watch the thought, steer it, or end it."
    neutral_description: str = "You are talking to {}, which runs on this machine."  # of a model that brings no card
    thoughtless: str = "This model answers at once, without a visible thought."
    question_placeholder: str = "Ask anything"
    question_label: str = "Your question"
    send: str = "Send"
    stop: str = "Stop (Escape)"
    attach_file: str = "Attach a text file"
    remove_file: str = "Remove {}"
    file_too_large: str = "{} is too large: at most {} KB."
    file_not_text: str = "{} is not a text file (UTF-8)."
    options: str = "Settings"
    model: str = "Model"
    model_gone: str = "{} is not served any more. {} answers from now on."
    effort: str = "Effort"
    efforts: dict[str, str] = field(default_factory=lambda: {
        "none": "no thought", "minimal": "minimal", "low": "low", "medium": "medium", "high": "high", "xhigh": "very high",
        "max": "longest"})
    thoughts: str = "Parallel thoughts"
    thoughts_help: str = "Several thoughts vote; the answer of the majority is shown."
    one_thought: str = "1 thought"
    many_thoughts: str = "{} thoughts"
    thought_limit: str = "{}: up to about {} tokens of thought"
    no_thinking: str = "{}: answers at once"
    answers: str = "Parallel answers"  # of a model without thoughts
    answers_help: str = "Several answers vote; that of the majority is shown."
    one_answer: str = "1 answer"
    many_answers: str = "{} answers"
    temperature: str = "Temperature"
    temperature_default: str = "{}: the default"
    temperature_help: str = "{}: lower is steadier, higher is more varied"
    temperature_short: str = "temperature {}"
    system: str = "System prompt"
    system_placeholder: str = "What the model should know or keep to, in every conversation"
    system_too_long: str = "Too long to be remembered: it holds until this page is closed."
    system_short: str = "system prompt"
    you: str = "You"
    waiting: str = "Waiting for the model…"
    thinking: str = "Thinking"
    thoughts_done: str = "{} of {} thoughts done"
    answers_done: str = "{} of {} answers done"
    paused: str = "Paused"
    thought_took: str = "Thought for {}, {}"
    thoughts_took: str = "{} thoughts for {}, {}"
    one_token: str = "1 token"
    many_tokens: str = "{} tokens"
    endings: dict[str, str] = field(default_factory=lambda: {
        "abort": "Stopped.", "length": "The answer was cut: there was no room for more.",
        "interrupted": "Interrupted: the server stopped in the middle of this answer."})
    answer_now: str = "Answer now"
    pause: str = "Pause"
    resume: str = "Continue"
    insert: str = "Add to the thought"
    insert_hint: str = "A sentence to put into the thought"
    copy: str = "Copy"
    copied: str = "Copied"
    done: str = "Done"  # in a list of tasks
    to_do: str = "To do"
    edit: str = "Edit"
    submit_edit: str = "Ask again"
    retry: str = "Answer again"
    good_answer: str = "Good answer"
    bad_answer: str = "Bad answer"
    correct_answer: str = "Correct this answer"
    correct_answer_help: str = ("Write the answer as it should have been. It is kept on this machine, as a task and as a "
                                "preference pair.")
    feedback_saved: str = "Noted, on this machine."
    your_correction: str = "You corrected this answer:"
    followup_feedback: str = ("Noted. It will not become a training line: the question means nothing without what was said "
                              "before it.")
    agreement: str = "{} of {} thoughts agree"
    no_agreement: str = "The thoughts came to no common answer"
    answers_agreement: str = "{} of {} answers agree"
    no_answers_agreement: str = "The answers have nothing in common"
    other_answers: str = "Other answers"
    votes: str = "{}×"
    error: str = "That did not work."
    server_says: str = "{}"  # an error's own sentence, which is English
    errors: dict[str, str] = field(default_factory=lambda: {
        "Busy": "The server is busy: too many answers are under way. Try again in a moment.",
        "ContextOverflow": "The question is too long for this model. Shorten it, or begin a new conversation."})
    answer_complete: str = "The answer is complete."
    scroll_to_end: str = "To the end"
    skip_link: str = "Skip to the question"
    arena_intro: str = "Two models answer, and you do not know which is which. Which answer is better?"
    arena_placeholder: str = "A question for both"
    any_model: str = "Any model"
    side_and_model: str = "{}: {}"
    model_a: str = "Model A"
    model_b: str = "Model B"
    a_better: str = "A is better"
    b_better: str = "B is better"
    tie: str = "A tie"
    both_bad: str = "Both are bad"
    vote_question: str = "Which answer is better?"
    revealed: str = "{} against {}"
    next_question: str = "Another question"
    ratings: str = "Ratings"
    rating: str = "Rating"
    interval: str = "95 % interval"
    vote_count: str = "Votes"
    ratings_help: str = ("Bradley and Terry's model: 400 points more are odds of ten to one. One drawn game is assumed "
                         "between every two models; the interval shows what the same number of votes could have said by "
                         "chance.")
    no_votes: str = "No votes yet."
    needs_two_models: str = ("The arena needs two models. Start the server with two, or with a run of which several stages "
                             "are models.")
    cut_warning: str = ("The thought reached its budget of {} tokens and was closed; the answer was written without the rest "
                        "of it.")
    circles_warning: str = "The thought went in circles and was closed after {} tokens."
    unclosed_warning: str = "The model ended inside its thought; it was closed and asked for the answer."
    unfinished_vote: str = ("None of the {} thoughts came to a finished answer, so that nothing was voted on; this is one of "
                            "them.")
    dropped_insertion: str = ("The text that was to be put into the thought was left out: the thought had ended, or had no "
                              "room left for it.")
    tied_vote: str = "The vote is a tie: several answers have {} each. This is the one that came first."

    # open models to fetch
    more_models: str = "Other models"
    more_models_help: str = ("Open models that run on this machine. Fetching one is the only time that anything is asked of "
                             "the network.")
    tiny_model: str = "This model is tiny: it knows a few kinds of problems. For a real assistant, fetch another one."
    measuring: str = "Measuring this machine…"
    fetch: str = "Fetch ({})"
    stopping: str = "Stops at the next piece…"
    talk_to_it: str = "Talk to it"
    fetching: str = "{} of {} ({} %)"
    fits: str = "Takes {} of memory here ({}), about {} tokens a second. Licence: {}."
    does_not_fit: str = "Does not fit here: needs {} of memory. Licence: {}."

    # conversations, their versions and their history
    ask_again: str = "Ask again"
    unanswered: str = "This question has no answer yet."
    busy: str = "An answer is under way. Wait for its end, or stop it."
    conversation_gone: str = "That conversation is not here any more."
    one_left_out: str = ("The conversation has outgrown what the model can read: its first question was left out, with its "
                         "answer.")
    many_left_out: str = ("The conversation has outgrown what the model can read: its first {} questions were left out, with "
                          "their answers.")
    version: str = "Version {} of {}"
    previous_version: str = "Previous version"
    next_version: str = "Next version"
    search_history: str = "Search conversations"
    nothing_matches: str = "No conversation holds these words."
    actions: str = "Actions for {}"
    export_markdown: str = "Export as Markdown"
    export_json: str = "Export as JSON"
    export_all: str = "Export all"
    thought: str = "Thought"
    answer: str = "Answer"
    other_version: str = "Another version of message {}"
    today: str = "Today"
    yesterday: str = "Yesterday"
    last_7_days: str = "Last 7 days"
    last_30_days: str = "Last 30 days"
    months: tuple[str, ...] = ("January", "February", "March", "April", "May", "June", "July", "August", "September", "October",
                               "November", "December")

    def left_out(self, count: int) -> str:
        return self.one_left_out if count == 1 else self.many_left_out.format(self.number(count))

    def warning(self, warning: str | dict) -> str:
        """A GenerationWarning's fields in words. Old histories have English sentences: these stay as they are."""
        if isinstance(warning, str):
            return warning
        sentences = {"thought_budget": self.cut_warning, "repetition": self.circles_warning,
                     "unclosed_thought": self.unclosed_warning, "unfinished_vote": self.unfinished_vote,
                     "tied_vote": self.tied_vote, "dropped_insertion": self.dropped_insertion}
        if warning["code"] not in sentences:  # of tools, which only the API has
            return str(GenerationWarning(**warning))
        return sentences[warning["code"]].format(warning["tokens"])

    def failure(self, error: str | Exception, kind: str = "") -> str:
        """An error in words, without paths of this machine. kind: its class's name, from a history; older ones have none."""
        kind = kind or type(error).__name__
        return self.errors.get(kind) or f"{self.error} {self.server_says.format(hide_paths(str(error)))}"

    def decimal(self, value: float) -> str:
        return f"{value:.1f}".replace(".", "," if self.language == "fr" else ".")

    def gigabytes(self, count: int) -> str:
        return f"{self.decimal(count / 1e9)}\u00a0{'Go' if self.language == 'fr' else 'GB'}"

    def number(self, value: int) -> str:
        return f"{value:,}".replace(",", "\u202f" if self.language == "fr" else ",")

    def tokens(self, count: int) -> str:
        return self.one_token if count == 1 else self.many_tokens.format(self.number(count))

    def seconds(self, value: float) -> str:
        whole = round(value)
        if whole < 10:
            return f"{self.decimal(value)}\u00a0s"
        return f"{whole}\u00a0s" if whole < 60 else f"{whole // 60}\u00a0min {whole % 60}\u00a0s"


EN = Strings()

FR = Strings(
    language="fr", other_language="en", other_language_name="English", chat="Discussion", arena="Arène",
    new_conversation="Nouvelle conversation", conversations="Conversations", no_conversations="Rien encore.",
    privacy="Gardé sur cette machine, nulle part ailleurs.",
    history_off="L’historique est désactivé\u00a0: rien n’est écrit sur le disque.", rename="Renommer", delete="Supprimer",
    confirm_delete="Supprimer «\u00a0{}\u00a0»\u00a0? C’est définitif.", cancel="Annuler", save="Enregistrer", close="Fermer",
    theme_button="Clair, sombre ou comme le système", log_out="Se déconnecter", greeting="À quoi allons-nous réfléchir\u00a0?",
    greeting_help="Le modèle réfléchit d’abord, puis répond. Vous pouvez suivre sa réflexion, la guider ou l’arrêter.",
    neutral_description="Vous parlez à {}, qui tourne sur cette machine.",
    thoughtless="Ce modèle répond aussitôt, sans réflexion visible.", answers="Réponses parallèles",
    answers_help="Plusieurs réponses votent\u00a0; celle de la majorité est montrée.", one_answer="1 réponse",
    many_answers="{} réponses", answers_done="{} réponses finies sur {}", answers_agreement="{} réponses sur {} s’accordent",
    no_answers_agreement="Les réponses n’ont rien en commun", temperature="Température",
    temperature_default="{}\u00a0: valeur par défaut",
    temperature_help="{}\u00a0: plus basse, plus constante\u00a0; plus haute, plus variée", temperature_short="température {}",
    system="Consignes (system prompt)", system_placeholder="Ce que le modèle doit savoir ou respecter, dans chaque discussion",
    system_too_long="Trop long pour être retenu\u00a0: vaut jusqu’à la fermeture de cette page.", system_short="consignes",
    server_says="Le serveur dit, en anglais\u00a0: {}",
    errors={"Busy": "Le serveur est occupé\u00a0: trop de réponses sont en cours. Réessayez dans un moment.",
            "ContextOverflow": "La question est trop longue pour ce modèle. Raccourcissez-la ou commencez une autre "
                               "discussion."},
    question_placeholder="Posez votre question",
    question_label="Votre question", send="Envoyer", stop="Arrêter (Échap)", attach_file="Joindre un fichier texte",
    remove_file="Retirer {}", file_too_large="{} est trop gros\u00a0: {} Ko au plus.",
    file_not_text="{} n’est pas un fichier texte (UTF-8).", options="Réglages", model="Modèle",
    model_gone="{} n’est plus servi. C’est {} qui répond désormais.", effort="Effort",
    efforts={"none": "sans réflexion", "minimal": "minimal", "low": "faible", "medium": "moyen", "high": "élevé",
             "xhigh": "très élevé", "max": "le plus long"}, thoughts="Réflexions parallèles",
    thoughts_help="Plusieurs réflexions votent\u00a0; la réponse de la majorité est montrée.", one_thought="1 réflexion",
    many_thoughts="{} réflexions", thought_limit="{}\u00a0: environ {} jetons de réflexion au plus",
    no_thinking="{}\u00a0: répond aussitôt", you="Vous", waiting="En attente du modèle…", thinking="Réfléchit",
    thoughts_done="{} réflexions finies sur {}", paused="En pause", thought_took="A réfléchi {}, {}",
    thoughts_took="{} réflexions en {}, {}", one_token="1 jeton", many_tokens="{} jetons", endings={
        "abort": "Arrêté.", "length": "La réponse a été coupée\u00a0: il n’y avait plus de place.",
        "interrupted": "Interrompu\u00a0: le serveur s’est arrêté au milieu de cette réponse."},
    answer_now="Répondre maintenant", pause="Pause",
    resume="Continuer", insert="Ajouter à la réflexion", insert_hint="Une phrase à glisser dans la réflexion", copy="Copier",
    copied="Copié", done="Fait", to_do="À faire",
    edit="Modifier", submit_edit="Redemander", retry="Répondre à nouveau", good_answer="Bonne réponse",
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
    unclosed_warning="Le modèle s’est arrêté dans sa réflexion\u00a0; elle a été close et la réponse demandée.",
    more_models="Autres modèles",
    more_models_help="Des modèles ouverts qui tournent sur cette machine. Le réseau ne sert qu’à en télécharger un.",
    tiny_model="Ce modèle est minuscule\u00a0: il connaît quelques sortes de problèmes. Pour un vrai assistant, téléchargez-en "
               "un autre.",
    measuring="Mesure de cette machine…", fetch="Télécharger ({})",
    stopping="S’arrête au prochain morceau…", talk_to_it="Lui parler",
    fetching="{} sur {} ({}\u00a0%)", fits="Prend {} de mémoire ici ({}), environ {} jetons par seconde. Licence\u00a0: {}.",
    does_not_fit="Ne tient pas ici\u00a0: il faut {} de mémoire. Licence\u00a0: {}.",
    ask_again="Redemander", unanswered="Cette question n’a pas encore de réponse.",
    busy="Une réponse est en cours. Attendez sa fin, ou arrêtez-la.",
    conversation_gone="Cette conversation n’est plus là.",
    one_left_out="La conversation dépasse ce que le modèle peut lire\u00a0: sa première question a été laissée de côté, avec "
                 "sa réponse.",
    many_left_out="La conversation dépasse ce que le modèle peut lire\u00a0: ses {} premières questions ont été laissées de "
                  "côté, avec leurs réponses.",
    version="Version {} sur {}", previous_version="Version précédente", next_version="Version suivante",
    search_history="Chercher une conversation", nothing_matches="Aucune conversation ne contient ces mots.",
    actions="Actions pour {}", export_markdown="Exporter en Markdown", export_json="Exporter en JSON",
    export_all="Tout exporter", thought="Réflexion", answer="Réponse",
    other_version="Une autre version du message {}", today="Aujourd’hui", yesterday="Hier",
    last_7_days="7 derniers jours", last_30_days="30 derniers jours",
    months=("janvier", "février", "mars", "avril", "mai", "juin", "juillet", "août", "septembre", "octobre", "novembre",
            "décembre"),
    unfinished_vote="Aucune des {} réflexions n’a abouti à une réponse complète\u00a0: il n’y a pas eu de vote, et ceci est "
                    "l’une d’elles.",
    dropped_insertion="Le texte à glisser dans la réflexion a été laissé de côté\u00a0: elle était finie, ou n’avait plus de "
                      "place pour lui.",
    tied_vote="Le vote est à égalité\u00a0: plusieurs réponses ont {} voix. Voici celle qui est venue la première.")

LANGUAGES = {"en": EN, "fr": FR}


def strings_for(accept_language: str, chosen: str | None = None) -> Strings:
    """The texts in the language `chosen` by the user, else in the best one of the Accept-Language header, else in English."""
    if chosen in LANGUAGES:
        return LANGUAGES[chosen]
    best, best_quality = "en", 0.0
    for part in accept_language.lower().split(","):
        tag, _, quality = part.strip().partition(";q=")
        language = tag.split("-")[0]
        with contextlib.suppress(ValueError):
            if language in LANGUAGES and float(quality or 1) > best_quality:
                best, best_quality = language, float(quality or 1)
    return LANGUAGES[best]
