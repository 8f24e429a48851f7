"""Texts that tokenizers split in different ways: scripts, digits, spaces, marks, and what pre-tokenizers have rules for."""

from itertools import product
from pathlib import Path

_SENTENCES = (
    "The ship left at dawn; nobody knew why.", "Où est passée l'étoile du matin ?",
    "¿Cuánto cuestan 3 kilos de manzanas?", "Die Straße führt über die Brücke.",
    "Съешь ещё этих мягких булок.", "Η γλώσσα είναι ελληνική.", "今日は雨が降っています。",
    "今天天气很好，我们去公园。", "오늘은 날씨가 좋습니다.", "هذا نص عربي قصير.", "זה משפט קצר בעברית.",
    "यह एक छोटा वाक्य है।", "นี่คือประโยคสั้น ๆ", "Đây là một câu ngắn.", "Bu kısa bir cümle, İstanbul'dan.",
    "Þetta er stutt setning.", "To jest krótkie zdanie: żółć.", "ეს მოკლე წინადადებაა.",
    "Սա կարճ նախադասություն է։", "これは 12 個と３個です")
_FORMS = ("{}", " {}", "  {}\n", "\t{} 2024", "{}\n\n{}", "({}) 1234567", "3.14 {} 10,000", "x={};", "{}!!!", "don't {} I'LL",
          "#{}…", "{}\r\n\r\n  end")
_OTHER = ("", " ", "   ", "\n", "\n\n\n", "\t\t x", "é e\u0301", "👩‍🚀🇫🇷 👍🏽", "a" * 200, "1" * 40, "12 345 6789",
          "½²Ⅷ٣４", "x²+y²=z²", "def f(x):\n    return x ** 2  # ok", "http://example.org/a?b=c&d=%20", "\u200b\ufeff\u00a0",
          "CamelCaseWord snake_case", "''' \"\"\" ``` ~~~", "$\\frac{1}{2}$", "...…——––", "<b>bold</b> &amp;", "100%€£¥₹",
          "\\n\\t", "I'm we've they'd it's")


def texts_of(files: list[Path]) -> list[str]:
    """The texts of this file, and the lines of others."""
    texts = [form.replace("{}", sentence) for sentence, form in product(_SENTENCES, _FORMS)] + list(_OTHER)
    return texts + [line for file in files for line in file.read_text("utf-8").splitlines() if line.strip()]
