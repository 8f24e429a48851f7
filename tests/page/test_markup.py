"""What the page shows as text: what models write is made harmless, formulas and code are drawn, two languages are spoken."""

import re
from dataclasses import fields
from html import unescape
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spoutnik.errors import RunError
from spoutnik.page.markup import MAX_FORMULA_LENGTH, Labels, StreamingMarkdown, formula, render
from spoutnik.page.strings import EN, FR, strings_for

OURS = {"p", "br", "em", "strong", "s", "code", "pre", "span", "div", "button", "a", "ul", "ol", "li", "blockquote", "hr",
        "sup", "table", "thead", "tbody", "tr", "th", "td", *(f"h{n}" for n in range(1, 7))}


class Harmless(HTMLParser):
    """Every element is one of ours, none can run or fetch anything, and formulas hold text alone."""

    in_formula = False

    def handle_starttag(self, tag, attrs):
        assert tag in OURS, tag
        assert not self.in_formula
        self.in_formula = tag == "span" and (dict(attrs).get("class") or "").startswith("formula")
        for name, value in attrs:
            assert not name.startswith("on") and name not in ("src", "srcset", "xlink:href", "action"), name
            assert name != "style" or tag in ("th", "td") and re.fullmatch("text-align:(left|right|center)", value), value
            if name == "href":
                assert tag == "a" and not re.match(r"\s*(javascript|vbscript|file|data:(?!image/))", value, re.I), value

    def handle_endtag(self, tag):
        self.in_formula = False


def harmless(html: str) -> str:
    Harmless().feed(html)
    return html


HOSTILE = ["<script>alert(1)</script>", "<img src=x onerror=alert(1)>", "[x](javascript:alert(1))",
           "![x](http://elsewhere/x.png)",
           r"$\text{<script>alert(1)</script>}$", r"\(\href{javascript:alert(1)}{x}\)",
           r"$$\style{background:url(http://x)}{y}$$",
           r"\[\text{</math><img src=x onerror=alert(1)>}\]", "```\"><script>\nx\n```", "`<b>`", "<svg onload=alert(1)>",
           r"$\text{&lt;img src=x onerror=alert(1)&gt;}$", "<a href=javascript:alert(1)>x</a>", "&lt;b&gt;",
           "[x]: javascript:alert(1)\n\n[x]", "<!--", "|a|b|\n|-|-|\n|<b>|$x$|", "> $$\n> x\n> $$", "$", "$$", "\\[", "\n", " ",
           "a", "1", "*", "- ", "\\boxed{", "}", "\\begin{cases}", "\\end{cases}"]


@given(st.lists(st.sampled_from(HOSTILE), max_size=12).map("".join))
def test_whatever_a_model_writes_is_harmless(text):
    harmless(render(text))


@given(st.text(st.sampled_from("\\{}$^_&<>\"'a1 frctexhlsyb()[]\n"), max_size=60))
def test_any_formula_is_harmless(source):
    for complete in (True, False):
        assert unescape(re.sub("<.*?>", "", harmless(formula(source, True, complete)))) == source
    harmless(render(f"${source}$ $${source}$$"))


def inline(source):
    return f'<span class="formula">{source}</span>'


def display(source):
    return f'<span class="formula display">{source}</span>'


@pytest.mark.parametrize("text, shown", [
    (r"$x^2$", inline("x^2")), (r"\(x\)", inline("x")), ("$$\nx\n- y\n$$", display("x\n- y")),
    ("so \\[ x \\] it is", f"<p>so {display('x')} it is</p>"), ("text\n$$\nx\n$$\nmore", f"<p>{display('x')}</p>\n<p>more"),
    ("- item\n  $$x$$\n", f"<li>item<p>{display('x')}</p>"), ("> $$\n> x\n> $$", display("x")),
    (r"$a\$b$", inline(r"a\$b")), (r"$\text{if $x$}$", inline(r"\text{if $x$}")), ("$ x^2 $", inline("x^2")),
    ("\\begin{align*}\na &= b\n\\end{align*}\nso", "a &amp;= b\n\\end{align*}</span></p>\n<p>so"),
    ("```math\nx\n```", display("x")), ("`$x$`", "<code>$x$</code>"),
    (r"**Answer:** \boxed{\frac{1}{2}}.", "<strong>Answer:</strong> " + inline(r"\boxed{\frac{1}{2}}")),
    (r"\boxed{a\}b}", inline(r"\boxed{a\}b}")), (r"\boxed{a", r"<p>\boxed{a</p>"), (r"`\boxed{1}`", r"<code>\boxed{1}</code>"),
    ("\\begin{pmatrix}\n1 \\\\ 2\n\\end{pmatrix}", display("\\begin{pmatrix}\n1 \\\\ 2\n\\end{pmatrix}")),
    (r"A = \begin{bmatrix} 1 \\ 2 \end{bmatrix}", "A = " + inline(r"\begin{bmatrix} 1 \\ 2 \end{bmatrix}")),
    ("\\begin{aligned}\nx &= \\begin{cases} 1 \\\\ 2 \\end{cases}\n\\end{aligned}\nso", "</span></p>\n<p>so"),
    (r"\begin{matrix} x", r"<p>\begin{matrix} x</p>"), ("$`x^2`$", inline("x^2")),
    ("Let $ x $ be $ n - 1 $.", f"Let {inline('x')} be {inline('n - 1')}."), ("5 $ a 6 $", "<p>5 $ a 6 $</p>"),
    ("|a|b|\n|-|-|\n|\\(|x|\\)|\\[|y|\\]|", "<td>" + inline(r"\vert{}x\vert{}") + "</td>\n<td>" + display(r"\vert{}y\vert{}")),
    ("It costs $5 or $6.", "It costs $5 or $6."), ("from $ 5 to 6 $ now", "from $ 5 to 6 $ now"),
    ("|a|b|\n|-|-|\n|$|x|$|$5|", "<td>" + inline(r"\vert{}x\vert{}") + "</td>\n<td>$5</td>"),
    ("|a|b|\n|-|-|\n|costs $5|and $6|", "<td>costs $5</td>\n<td>and $6</td>"),
    ("```\n|$a|b$|\n```", "|$a|b$|"),
    ("a\nb", "a<br>\nb"),
    ("![cat](http://e.example/c.png)", '<a href="http://e.example/c.png" rel="noopener noreferrer">cat</a>'),
    ("```python\nx = 1\n```", '<span class="n">x</span>'), ("```\n<b>\n```", "&lt;b&gt;"), ("~~no~~", "<s>no</s>"),
    ("|a|\n|-|\n|b|", "<td>b</td>"),
    ("- [ ] a", '<li class="task"><span class="box" role="img" aria-label="To do"></span>a</li>'),
    ("1. [X] **a**", '<li class="task"><span class="box done" role="img" aria-label="Done"></span><strong>a</strong></li>'),
    ("- [x](/y)", '<li><a href="/y"'), ("- [ ]", "<li>[ ]</li>"), ("[x] a", "<p>[x] a</p>"),
    ("so[^1] it is", "so<sup>1</sup> it is"), ("[^1]: word", '<p class="footnote"><sup>1</sup> word</p>'),
])
def test_markdown_formulas_and_code(text, shown):
    assert shown in harmless(render(text))


def test_the_words_of_rendered_text_are_the_readers():
    labels = Labels("Copier", "Fait", "À faire")
    assert 'aria-label="Fait"' in render("- [x] a", labels) and ">Copier</button>" in render("```\nx\n```", labels)


def test_a_formula_without_end_is_shown_as_it_is():
    assert "<span" not in render("$" + "x+" * MAX_FORMULA_LENGTH + "y$")
    assert formula("x" * (MAX_FORMULA_LENGTH + 1), False).startswith('<span class="formula-source">')


@pytest.mark.parametrize("text", ["$$\n\\frac{a", "\\[ \\frac{a", "so \\( \\frac{a", "\\begin{align}\n\\frac{a",
                                  "```math\n\\frac{a",
                                  "so \\boxed{\\frac{a", "\\begin{pmatrix}\n\\frac{a", "so \\begin{cases} \\frac{a"])
def test_a_formula_that_is_still_written_is_source(text):
    rendered = harmless(render(text, streaming=True))
    assert '<span class="formula-source' in rendered and "\\frac{a</span>" in rendered


@given(st.lists(st.sampled_from([*HOSTILE, "\n\n", "Words. ", "1. one\n", "# Title\n", "```py\nx\n```\n", "\n\\]",
                                 "$$\nx\n$$\n"]), max_size=14).map("".join), st.integers(1, 9))
def test_a_text_that_grows_ends_as_if_it_had_come_at_once(text, step):
    """Apart from references, which the end may define for what stands before it."""
    if re.search(r"\[x\]:", text):
        return
    growing, settled = StreamingMarkdown(), ""
    for end in range(step, len(text) + step, step):
        growing._due = 0.0
        new = growing.feed(text[:end])
        settled += new[0] if new else ""
    settled += growing.feed(text, final=True)[0]
    assert settled == render(text)


def test_rendering_leaves_time_for_other_things():
    growing = StreamingMarkdown()
    assert growing.feed("a") and growing.feed("a") is None and growing.feed("ab") is None
    assert growing.feed("ab", final=True) == ("<p>ab</p>\n", "")


# ----------------------------------------------------------------------------------------------------------- its words

def test_both_languages_say_everything_with_the_same_blanks():
    for one in fields(EN):
        for strings in (EN, FR):
            value = getattr(strings, one.name)
            assert value if isinstance(value, str) else all(value)
        if isinstance(getattr(EN, one.name), str):
            assert getattr(EN, one.name).count("{}") == getattr(FR, one.name).count("{}"), one.name
    assert set(EN.efforts) == set(FR.efforts)
    same = {one.name for one in fields(EN) if getattr(EN, one.name) == getattr(FR, one.name)}
    assert same == {"conversations", "effort", "pause", "vote_count", "votes"}  # French words, too: nothing is left in English


@pytest.mark.parametrize("accepted, chosen, language", [
    ("fr-CH, fr;q=0.9, en;q=0.8", None, "fr"), ("de, en;q=0.5, fr;q=0.7", None, "fr"), ("en-GB,en", None, "en"),
    ("", None, "en"), ("*", None, "en"), ("fr;q=0, en;q=0.1", None, "en"), ("fr;q=x", None, "en"),
    ("en", "fr", "fr"), ("fr", "xx", "fr")])
def test_the_language_is_the_readers(accepted, chosen, language):
    assert strings_for(accepted, chosen).language == language


def test_errors_are_said_in_the_readers_language_without_paths(tmp_path):
    error = RunError(f"{tmp_path}/history.db: is damaged.")
    assert EN.failure(error) == "That did not work. history.db: is damaged."
    assert FR.failure(error) == f"{FR.error} Le serveur dit, en anglais\u00a0: history.db: is damaged."
    assert FR.failure("too many", "Busy") == FR.errors["Busy"]
    assert EN.failure("as histories once kept them") == "That did not work. as histories once kept them"


def test_warnings_and_numbers_are_said_in_the_readers_language():
    assert FR.warning({"code": "thought_budget", "tokens": 12}) == FR.cut_warning.format(12)
    assert FR.warning({"code": "repetition", "tokens": 3}) == FR.circles_warning.format(3)
    assert FR.warning({"code": "unclosed_thought", "tokens": 3}) == FR.unclosed_warning
    assert FR.warning({"code": "unfinished_vote", "tokens": 3, "detail": ""}) == FR.unfinished_vote.format(3)
    assert FR.warning({"code": "tied_vote", "tokens": 2, "detail": ""}) == FR.tied_vote.format(2)
    assert "call of a tool" in FR.warning({"code": "cut_call", "tokens": 3, "detail": ""})
    assert FR.warning("the thought went in circles") == "the thought went in circles"  # as histories once kept them
    assert EN.tokens(1) == "1 token" and EN.tokens(1840) == "1,840 tokens" and FR.tokens(1840) == "1\u202f840 jetons"
    assert EN.seconds(0.44) == "0.4\u00a0s" and FR.seconds(9.4) == "9,4\u00a0s" and EN.seconds(75) == "1\u00a0min 15\u00a0s"
