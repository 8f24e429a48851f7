"""Synthetic responses to IFEval's prompts, for a comparison of checks: constructed from the settings, then disturbed."""

import json
import random
import re

SENTENCES = (
    "The garden behind the house is small, but it feeds the whole family.",
    "Dr. Smith arrived at 9 a.m. and left before noon.", "Is that really what you want?",
    "We measured 3.5 litres of rain in one night!", "Mr. and Mrs. Jones moved to the U.S. in 1999.",
    "She wrote: \"I will not come back.\" Nobody answered.", "Wait... there is more to say about this.", "It works well",
    "The U.K. has four parts, e.g. Scotland.", "He asked (twice!) for the bill.", "Our plan has three steps.",
    "NASA launched it in July.", "First, open the box; then read the manual.", "I'm SURE you CAN do this.",
    "Prof. Lee (see fig. 2) disagrees.", "Why not?!", "Visit https://www.example.com/page.html for details.",
    "The meeting is on Jan. 5 at the station.", "Prices rose by 2.7 percent.", "People with these skills are rare",
    "Vitamin C. The rest is known.", "A well-known EU-wide rule applies here.", "Thank you, and good night.",
    "\"Stop!\" he cried. The dog stopped.", "They live at No. 10 in a quiet street.", "Nothing else matters.",
    "J. K. Rowling wrote it.", "This is *important* to remember.", "You should know that **time** is short.",
    "Version 2.0. of the program is ready.")
LANGUAGES = {
    "en": "The weather is fine today and we are going to the market. There we want to buy bread and milk for the children.",
    "fr": "Il fait beau aujourd'hui et nous allons au marché. Nous voulons y acheter du pain et du lait pour les enfants.",
    "de": "Heute ist das Wetter schön und wir gehen auf den Markt. Dort wollen wir Brot und Milch für die Kinder kaufen.",
    "it": "Oggi il tempo è bello e andiamo al mercato. Lì vogliamo comprare il pane e il latte per i bambini.",
    "pt": "Hoje o tempo está bom e nós vamos ao mercado. Lá queremos comprar pão e leite para as crianças.",
    "es": "Hoy hace buen tiempo y vamos al mercado. Allí queremos comprar pan y leche para los niños.",
    "fi": "Tänään on kaunis sää ja menemme torille. Siellä haluamme ostaa leipää ja maitoa lapsille.",
    "vi": "Hôm nay thời tiết đẹp và chúng tôi đi chợ. Ở đó chúng tôi muốn mua bánh mì và sữa cho các con.",
    "sw": "Leo hali ya hewa ni nzuri na tunaenda sokoni. Huko tunataka kununua mkate na maziwa kwa ajili ya watoto.",
    "ru": "Сегодня хорошая погода, и мы идём на рынок. Там мы хотим купить хлеб и молоко для детей.",
    "bg": "Днес времето е хубаво и отиваме на пазара. Там искаме да купим хляб и мляко за децата.",
    "ar": "الطقس جميل اليوم ونحن ذاهبون إلى السوق. نريد أن نشتري هناك الخبز والحليب للأطفال.",
    "fa": "امروز هوا خوب است و ما به بازار می‌رویم. می‌خواهیم آنجا برای بچه‌ها نان و شیر بخریم.",
    "ur": "آج موسم اچھا ہے اور ہم بازار جا رہے ہیں۔ وہاں ہم بچوں کے لیے روٹی اور دودھ خریدنا چاہتے ہیں۔",
    "hi": "आज मौसम अच्छा है और हम बाज़ार जा रहे हैं। वहाँ हम बच्चों के लिए रोटी और दूध खरीदना चाहते हैं।",
    "mr": "आज हवामान छान आहे आणि आम्ही बाजारात जात आहोत. तिथे आम्हाला मुलांसाठी भाकरी आणि दूध विकत घ्यायचे आहे.",
    "ne": "आज मौसम राम्रो छ र हामी बजार जाँदैछौं। त्यहाँ हामी केटाकेटीका लागि रोटी र दूध किन्न चाहन्छौं।",
    "bn": "আজ আবহাওয়া ভালো এবং আমরা বাজারে যাচ্ছি। সেখানে আমরা বাচ্চাদের জন্য রুটি ও দুধ কিনতে চাই।",
    "gu": "આજે હવામાન સારું છે અને અમે બજારમાં જઈએ છીએ. ત્યાં અમે બાળકો માટે રોટલી અને દૂધ ખરીદવા માંગીએ છીએ.",
    "pa": "ਅੱਜ ਮੌਸਮ ਚੰਗਾ ਹੈ ਅਤੇ ਅਸੀਂ ਬਾਜ਼ਾਰ ਜਾ ਰਹੇ ਹਾਂ। ਉੱਥੇ ਅਸੀਂ ਬੱਚਿਆਂ ਲਈ ਰੋਟੀ ਅਤੇ ਦੁੱਧ ਖਰੀਦਣਾ ਚਾਹੁੰਦੇ ਹਾਂ।",
    "ta": "இன்று வானிலை நன்றாக இருக்கிறது, நாங்கள் சந்தைக்குச் செல்கிறோம். அங்கே குழந்தைகளுக்கு ரொட்டியும் பாலும் வாங்க விரும்புகிறோம்.",
    "te": "ఈ రోజు వాతావరణం బాగుంది, మేము మార్కెట్‌కు వెళ్తున్నాము. అక్కడ పిల్లల కోసం రొట్టె మరియు పాలు కొనాలనుకుంటున్నాము.",
    "kn": "ಇಂದು ಹವಾಮಾನ ಚೆನ್ನಾಗಿದೆ ಮತ್ತು ನಾವು ಮಾರುಕಟ್ಟೆಗೆ ಹೋಗುತ್ತಿದ್ದೇವೆ. ಅಲ್ಲಿ ಮಕ್ಕಳಿಗಾಗಿ ರೊಟ್ಟಿ ಮತ್ತು ಹಾಲು ಖರೀದಿಸಲು ಬಯಸುತ್ತೇವೆ.",
    "th": "วันนี้อากาศดีและเรากำลังไปตลาด ที่นั่นเราอยากซื้อขนมปังและนมให้เด็ก ๆ",
    "ko": "오늘은 날씨가 좋아서 우리는 시장에 갑니다. 거기서 아이들을 위해 빵과 우유를 사고 싶습니다."}
PREAMBLES = ("Sure! Here is what you asked for:", "**Response:**", "Of course, I can help with that.")
CLOSINGS = ("I hope this helps!", "Let me know if you need anything else.", "---")


def prose(rng: random.Random, count: int, between: str = " ") -> str:
    return between.join(rng.choice(SENTENCES) for _ in range(count))


def obeying(row: dict, rng: random.Random) -> str:
    """A response that should obey: a body that each instruction adds to, then the frame that each puts around it."""
    settings = dict(zip(row["instruction_id_list"], row["kwargs"], strict=True))
    text = _body(settings, rng)
    for name in ("change_case:english_capital", "change_case:english_lowercase"):
        if name in settings:
            text = text.upper() if "capital" in name else text.lower()
    if "punctuation:no_comma" in settings:
        text = text.replace(",", "")
    return _frame(text, settings, row)


def _body(settings: dict, rng: random.Random) -> str:
    kind = {name.split(":")[1]: value for name, value in settings.items()}
    if "response_language" in kind:
        return LANGUAGES[kind["response_language"]["language"]]
    words = list(kind.get("existence", {}).get("keywords", []))
    if "frequency" in kind:
        wanted = kind["frequency"]
        words += [wanted["keyword"]] * (wanted["frequency"] - (wanted["relation"] == "less than"))
    count = _threshold(kind.get("number_sentences"), "num_sentences", rng) or rng.randint(3, 9)
    text = prose(rng, count) + "".join(f" And {word} too." for word in words)
    length = _threshold(kind.get("number_words"), "num_words", rng)
    while length and len(re.findall(r"\w+", text)) < length:
        text += " " + rng.choice(SENTENCES)
    if "letter_frequency" in kind:
        text += f" {kind['letter_frequency']['letter']}" * kind["letter_frequency"]["let_frequency"]
    if "capital_word_frequency" in kind:
        text += " REALLY" * _threshold(kind["capital_word_frequency"], "capital_frequency", rng)
    text += " [name]" * kind.get("number_placeholders", {}).get("num_placeholders", 0)
    text += " *key part*" * kind.get("number_highlighted_sections", {}).get("num_highlights", 0)
    bullets = kind.get("number_bullet_lists", {}).get("num_bullets", 0)
    return text + "".join(f"\n{rng.choice('*-')} {rng.choice(SENTENCES)}" for _ in range(bullets))


def _threshold(settings: dict | None, name: str, rng: random.Random) -> int:
    """A count near the limit, on one of its sides."""
    return max(1, settings[name] + rng.choice((-1, 0, 0, 1))) if settings else 0


def _frame(text: str, settings: dict, row: dict) -> str:
    kind = {name.split(":")[1]: value for name, value in settings.items()}
    if "number_paragraphs" in kind:
        text = "\n***\n".join([text] * kind["number_paragraphs"]["num_paragraphs"])
    if "nth_paragraph_first_word" in kind:
        wanted = kind["nth_paragraph_first_word"]
        paragraphs = [text] * wanted["num_paragraphs"]
        paragraphs[wanted["nth_paragraph"] - 1] = wanted["first_word"].capitalize() + ", " + text
        text = "\n\n".join(paragraphs)
    if "multiple_sections" in kind:
        name, number = kind["multiple_sections"]["section_spliter"], kind["multiple_sections"]["num_sections"]
        text = "\n\n".join(f"{name} {index + 1}\n{text}" for index in range(number))
    if "constrained_response" in kind:
        text = "My answer is maybe."
    if "two_responses" in kind:
        text = f"{text}\n******\nAnother one: {text}"
    if "title" in kind:
        text = f"<<a title>>\n\n{text}"
    if "postscript" in kind:
        text += f"\n\n{kind['postscript']['postscript_marker']} Write soon."
    if "json_format" in kind:
        text = f"```json\n{json.dumps({'text': text})}\n```"
    if "repeat_prompt" in kind:
        text = f"{kind['repeat_prompt']['prompt_to_repeat']}\n\n{text}"
    if "end_checker" in kind:
        text += "\n" + kind["end_checker"]["end_phrase"]
    return f'"{text}"' if "quotation" in kind else text


def spoiled(text: str, rng: random.Random) -> str:
    """The text with one thing changed."""
    words = text.split(" ")
    place = rng.randrange(len(words))
    match rng.randrange(7):
        case 0:
            return text[1:]
        case 1:
            return text[:-1]
        case 2:
            return " ".join(words[:place] + words[place + 1:])
        case 3:
            return text.replace("\n", "\n\n", 1)
        case 4:
            return " ".join(words[:place] + [words[place].swapcase()] + words[place:])
        case 5:
            return text.replace("*", "**")
    return text + rng.choice((",", "!", "\n* one more", "\n\nOne more.", " ***", "[x]", "\nP.S.", "\"", "}"))


def rambling(row: dict, rng: random.Random) -> str:
    """As a very small model answers: it repeats the request, then itself."""
    loop = prose(rng, 2)
    return f"{row['prompt'][:rng.randint(20, 200)]}\n\n" + f"{loop} " * rng.randint(2, 12) + loop[:rng.randint(1, len(loop))]


def shape(rng: random.Random) -> str:
    """Forms that replies have: lists, headings, tables, JSON, dialogue, capitals, quotes, other languages."""
    some = [rng.choice(SENTENCES) for _ in range(rng.randint(1, 6))]
    return rng.choice((
        "\n".join(f"{number}. {sentence}" for number, sentence in enumerate(some, 1)), "\n".join(f"- {each}" for each in some),
        "\n\n".join(f"## Part {number}\n\n{each}" for number, each in enumerate(some, 1)), "\n\n***\n\n".join(some),
        json.dumps(some), json.dumps({"a": some, "b": None}, indent=1), "| a | b |\n|---|---|\n| 1, 2 | [x] |",
        "\n".join(f"A: {each}\nB: OK!" for each in some), " ".join(some).upper(), " ".join(some).lower(),
        f'"{" ".join(some)}"', rng.choice(list(LANGUAGES.values())), "", "\n", "42", "...", "My answer is yes.",
        " ".join(some) + "\n******\n" + some[0], "<<" + some[0] + ">>\n" + " ".join(some), "```python\nprint('a, b')\n```",
        "HELLO", "ok", "* " * 9, "\u200f" + some[0]))


def respond(kind: str, row: dict, rows: list[dict], rng: random.Random) -> str:
    match kind:
        case "chat":
            return f"{rng.choice(PREAMBLES)}\n{obeying(row, rng)}\n{rng.choice(CLOSINGS)}"
        case "bold":
            return f"**{obeying(row, rng)}**"
        case "spoiled":
            return spoiled(obeying(row, rng), rng)
        case "rambling":
            return rambling(row, rng)
        case "prose":
            return prose(rng, rng.randint(1, 40), rng.choice((" ", " ", "\n", "\n\n")))
        case "shape":
            return shape(rng)
        case "another":
            return obeying(rng.choice(rows), rng)
    return obeying(row, rng)


RESPONSES = ("obeying", "obeying", "chat", "bold", "spoiled", "spoiled", "spoiled", "rambling", "prose", "prose", "shape",
             "another")
