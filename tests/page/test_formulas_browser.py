"""Rendered text in a real browser: formulas are drawn and can do no harm, tables keep their words, lists their tasks."""

import random

import pytest
from page.browser_fixtures import PHONE, answered, ask, page_server, visitor
from scripted import scripted_service

from spoutnik.page.markup import render

# What models write, and what its drawing must hold.
FORMULAS = [
    (r"\begin{aligned} a &= b + c \\ &= d \end{aligned}", ".mtable"),
    (r"\begin{align*} x &= 1 & y &= 2 \end{align*}", ".mtable"),
    (r"\begin{align} a &= b \tag{7} \\ c &= d \end{align}", ".katex-tag"),
    (r"\begin{equation} E = mc^2 \end{equation}", ".eqn-num"),
    (r"\begin{gather*} a = b \\ c = d \end{gather*}", ".mtable"), (r"\begin{multline} a + b \\ + c \end{multline}", ".mtable"),
    (r"\begin{eqnarray} a &=& b \\ c &=& d \end{eqnarray}", ".mtable"),
    (r"\begin{split} a &= b \\ &= c \end{split}", ".mtable"),
    (r"\left\{\begin{align} x &= 1 \\ y &= 2 \end{align}\right.", ".delimsizing"),
    (r"f(x) = \begin{cases} x^2 & \text{if } x \ge 0 \\ -x & \text{otherwise} \end{cases}", ".delimsizing"),
    (r"\begin{pmatrix} a & b \\ c & d \end{pmatrix} \begin{bmatrix} 1 \\ 2 \end{bmatrix}", ".delimsizing"),
    (r"\begin{vmatrix} a & b \\ c & d \end{vmatrix} \begin{smallmatrix} a \\ b \end{smallmatrix}", ".mtable"),
    (r"\left( \begin{array}{cc|c} 1 & 2 & 3 \\ \hline 4 & 5 & 6 \end{array} \right)", ".katex-hline"),
    (r"\begin{tabular}{|c|c|} \hline a & b \\ \hline \end{tabular}", ".vertical-separator"),
    (r"\left\{ \frac{\frac{a}{b}}{c} \right\} \left. \frac{df}{dx} \right|_{x=0} \left\lfloor x \right\rfloor", ".delimsizing"),
    (r"\sum_{i=1}^{n} i^2 \int_0^1 x\,dx \lim_{x \to 0} \frac{\sin x}{x} \prod\limits_k a_k \max_{a \in A} Q", ".op-limits"),
    (r"\frac{\cancel{2}x}{\cancel{2}} \bcancel{y} \xcancel{z} \cancelto{0}{w} \sout{u}", ".katex-sout"),
    (r"\underbrace{a + b}_{2 \text{ terms}} \overbrace{x + y}^{n} \overline{ab} \underline{x}", ".brace-left"),
    (r"\sum_{\substack{i<n \\ j<m}} a_{ij} \binom{n}{k} \dbinom{n}{k} {n \choose k} \genfrac{(}{)}{0pt}{}{n}{k}", ".mtable"),
    (r"x = 1 \text{ and $y$ is } 2, \textbf{bold}, \textit{it}, \text{50% of A & B_1} \text{ été }", ".textbf"),
    (r"\boldsymbol{\alpha} \bm{\beta} \mathbf{x} \mathbb{R} \mathcal{L} \mathfrak{g} \mathsf{A} \mathtt{t}", ".mathbb"),
    (r"\hat{x} \bar{x} \vec{v} \dot{x} \ddot{x} \tilde{x} \widehat{abc} \overset{\frown}{AB} \mathscr{F}", ".katex-accent"),
    (r"\overrightarrow{AB} \xrightarrow{f} \xleftarrow[g]{f} \stackrel{!}{=} \overset{a}{b} \underset{x}{y} \iff", ".x-arrow"),
    (r"\boxed{x = 42} \fbox{text} \phantom{x} \textcolor{blue}{b} \color{red} r", ".fbox"),
    (r"a \equiv b \pmod{n} \quad a \bmod b \quad \operatorname{lcm}(a,b) \operatorname*{argmax}_x f \gcd \lcm", ".mop"),
    (r"\sqrt[3]{x^2 + \sqrt{y}} \dfrac{a}{b} \tfrac{a}{b} \cfrac{1}{1+\cfrac{1}{x}} \frac12", ".sqrt"),
    (r"\big( \Big[ \bigg\{ \Bigg| \lvert x \rvert \lVert x \rVert \langle x \rangle \left\| v \right\|", ".delimsizing"),
    (r"{}_a^b X \prescript{14}{6}{C} f''(x) x_{1}^{2} \mathbf{A}^{\mathsf{T}}", ".msupsub"),
    (r"\ce{2H2 + O2 -> 2H2O} \pu{5 kg} \SI{5}{kg}", ".mord"), (r"\require{cancel} x \label{eq:a} \eqref{eq:a}", ".mord"),
    (r"\displaystyle \int_{-\infty}^{\infty} e^{-x^2} \, dx = \sqrt{\pi} \quad \textstyle \sum_i", ".mop"),
    (r"3{,}000 \times 2 \div 4 \pm 1 \cdot 2 \ne 5 \le 6 \approx 7 \to \infty \% \$ \& \#", ".mord"),
    (r"\dv{f}{x} \pdv{f}{x} \abs{x} \norm{x} \bra{x} \braket{x|y} \unknowncommand{x}", ".mfrac"),
]
HOSTILE = [
    r"\href{javascript:document.title='broken'}{x}", r"\url{javascript:alert(1)}", r"\includegraphics{http://elsewhere/x.png}",
    r"\htmlClass{q-dialog}{x}", r"\htmlData{copy=x}{y}", r"\htmlStyle{position:fixed}{x}", r"\htmlId{question}{x}",
    r"\text{<img src=x onerror=document.title='broken'>}", r"\text{</span><script>document.title='broken'</script>}",
    "<svg onload=document.title='broken'>", r"\color{red;background:url(http://elsewhere/x)}{x}", r"\rule{9000em}{9000em}",
    r"\hspace{-9000em} x", r"\raisebox{9000em}{x}", r"\kern9000em x", r"\def\x{\x\x}\x", r"\newcommand{\a}{\a\a}\a",
    "{" * 1500 + "}" * 1500, r"\frac{" * 600, r"\left(" * 300, "^" * 50, "x_" * 40, "\\" * 31, r"\begin{matrix}" * 80,
    "&" * 40, "\u202e\u0000x", r"\\" * 900, r"\class{__proto__}{x}", "constructor", r"\Huge " * 50 + "x",
]
TABLE = """| Property | Internationalisation | Value |
|---|:-:|--:|
| Incomprehensibilities | the unquestionable responsibilities of administrators | 3,000.5 kg |
| $|x|$ | https://example.org/a/long/address/without/any/break/that/goes/on/and/on/and/on | x |

- [ ] first, with $\\frac{1}{2}$
- [x] **second**
  - [X] nested

Plain[^1] text.

[^1]: The note.
"""


@pytest.fixture(scope="module")
def server(make_service, tmp_path_factory):
    """The address of a page whose service replies the text in `service.text`, and the service."""
    service = scripted_service(make_service)(reply=lambda _: ("I think.", service.text))
    with page_server(service, tmp_path_factory.mktemp("site")) as url:
        yield url, service


@pytest.fixture
def site(chromium, server):
    with visitor(chromium, server[0]) as visit:
        yield server[1], visit


def answer_with(site, text, **changes):
    """A page with one question, answered with this text, and its formulas drawn."""
    service, visit = site
    service.text = text
    page = visit(**changes)
    ask(page)
    answered(page)
    page.wait_for_function("!document.querySelector('.formula:not(.drawn, .broken)')")
    page.evaluate("document.fonts.ready.then(() => true)")
    return page


def test_formulas_are_drawn(site):
    """In a display and within a line: nothing is left as source, and what makes each what it is is there, and visible."""
    page = answer_with(site, "\n\n".join(f"$$\n{source}\n$$\n\nwithin ${source}$ a line" for source, _ in FORMULAS))
    assert page.evaluate("[...document.querySelectorAll('.formula.broken, .formula-source')].map((e) => e.textContent)") == []
    drawn = page.locator(".reply .formula.drawn")
    assert drawn.count() == 2 * len(FORMULAS)
    missing = page.evaluate("""(parts) => [...document.querySelectorAll('.formula.display')].filter(
      (e, place) => !e.querySelector(`.katex-html ${parts[place]}`)).map((e) => e.textContent)""",
                            [part for _, part in FORMULAS])
    assert missing == []
    flat = page.evaluate("""[...document.querySelectorAll('.formula .katex-html')].filter((e) => {
      const box = e.getBoundingClientRect();
      return box.width < 4 || box.height < 4;
    }).length""")
    assert flat == 0
    assert page.evaluate("document.fonts.check('16px KaTeX_Main', 'x')")
    assert page.locator(".formula math").count() == 2 * len(FORMULAS)  # for screen readers


@pytest.mark.parametrize("text", ["In ${}$ a line", r"In \({}\) a line", "Without any: {} on a line", "{}", "$$\n{}\n$$"],
                         ids=["dollar", "parenthesis", "bare", "block", "display"])
def test_a_commutative_diagram_is_a_display_wherever_it_stands(site, text):
    """LaTeX and MathJax draw it within a line too; KaTeX does not."""
    page = answer_with(site, text.replace("{}", r"\begin{CD} A @>f>> B \\ @VgVV @AAhA \\ C @= D \end{CD}"))
    assert page.locator(".formula.display.drawn .mtable .x-arrow").count() == 2  # the arrow above, the equality below
    assert page.locator(".formula").count() == 1
    box, line = (page.locator(where).bounding_box() for where in (".formula .katex-html", ".reply"))
    assert box["height"] > 60 and abs(box["x"] + box["width"] / 2 - line["x"] - line["width"] / 2) < 8  # centered, three rows


def test_delimiters_stretch_and_limits_stand_above(site):
    page = answer_with(site, r"$$\left( \frac{\frac{a}{b}}{\frac{c}{d}} \right) \sum_{i=1}^{n} x \underbrace{a+b+c}_{3}$$")
    box = """(selector) => {
      const {top, bottom, left, right} = document.querySelector(`.reply .katex-html ${selector}`).getBoundingClientRect();
      return {top, bottom, left, right, height: bottom - top, width: right - left};
    }"""
    fraction, bracket = page.evaluate(box, ".mfrac"), page.evaluate(box, ".delimsizing")
    assert bracket["height"] > 0.8 * fraction["height"]
    sign, below, above = (page.evaluate(box, f".op-limits {part}") for part in (
        ".op-symbol", ".vlist > span:first-child .mtight", ".vlist > span:last-child .mtight"))
    assert above["bottom"] < sign["bottom"] and below["top"] > sign["top"] and above["bottom"] < below["top"]
    assert below["left"] < sign["right"] and above["left"] < sign["right"]
    brace = page.evaluate(box, ".katex-stretchy")
    assert brace["width"] > 2 * brace["height"]


def test_no_formula_does_harm(site):
    """Hostile formulas and random ones, displayed: nothing runs, nothing is fetched, nothing leaves the answer's column."""
    page = answer_with(site, "x")
    rng = random.Random(0)
    pieces = [*r"{}&^_$%#<>\"'x1~é[]()", r"\\", r"\frac", r"\text", r"\left", r"\right", r"\begin{", r"\end{", "matrix}",
              "align}", r"\sqrt", r"\href", r"\cancel", r"\tag", r"\\["]
    formulas = HOSTILE + ["".join(rng.choices(pieces, k=rng.randint(1, 20))) for _ in range(300)]
    texts = [f"before\n\n$$\n{source}\n$$\n\n\\({source}\\) after" for source in formulas]
    wrong = page.evaluate("""async (texts) => {
      const reply = document.querySelector('.reply'), wrong = [];
      for (const [text, html] of texts) {
        const holder = document.createElement('div');
        holder.setHTML(html);
        reply.append(holder);
        await new Promise((resolve) => setTimeout(resolve));  // the observer draws
        const elements = [...holder.querySelectorAll('*')];
        const bad = elements.filter((e) => /^(script|img|iframe|object|embed|a|link|style|form|input)$/i.test(e.tagName) || e.id
          || [...e.attributes].some((a) => /^on|^(src|href|xlink:href|action|formaction)$|^data-copy/i.test(a.name)
            || a.name === 'style' && /url|fixed|expression/i.test(a.value)));
        const undrawn = holder.querySelector('.formula:not(.drawn, .broken)');
        if (bad.length || undrawn || document.documentElement.scrollWidth > innerWidth) wrong.push([text, bad[0]?.outerHTML]);
        const box = holder.getBoundingClientRect();
        if (box.height > 12 * innerHeight) wrong.push([text, `height ${box.height}`]);
        holder.remove();
      }
      return wrong;
    }""", [[text, render(text)] for text in texts])
    assert wrong == []
    assert page.title() == "Spoutnik" and page.locator("#question").count() == 1


def test_a_text_that_grows_never_breaks_the_page(site):
    """Every beginning of an answer can be shown, as while it is streamed."""
    page = answer_with(site, "x")
    text = ("So $a^2$ and $$\n\\begin{cases} a & b \\\\ c \\end{cases}\n$$ then\n\n\\[ \\frac{1}{2} \\]\n\n" +
            TABLE + "```py\nx = '$'\n```\n")
    shown = page.evaluate("""async (rendered) => {
      const holder = document.createElement('div'), broken = [];
      document.querySelector('.reply').append(holder);
      for (const html of rendered) {
        holder.setHTML(html);
        await new Promise((resolve) => setTimeout(resolve));
        if (holder.querySelector('.katex-error')) broken.push(html);
      }
      const count = holder.querySelectorAll('.formula.drawn').length;
      return [broken, count, document.documentElement.scrollWidth <= innerWidth];
    }""", [render(text[:end], streaming=end < len(text)) for end in range(len(text) + 1)])
    assert shown == [[], 5, True]


@pytest.mark.parametrize("how", [{}, PHONE], ids=["desktop", "phone"])
def test_tables_keep_their_words_whole_and_lists_their_tasks(site, how):
    page = answer_with(site, TABLE, **how)
    broken = page.evaluate(r"""() => {
      const broken = [];
      for (const cell of document.querySelectorAll('.reply :is(th, td)'))
        for (const node of cell.childNodes) if (node.nodeType === 3)
          for (const word of node.textContent.matchAll(/\S+/g)) {
            const range = document.createRange();
            range.setStart(node, word.index);
            range.setEnd(node, word.index + word[0].length);
            if (range.getClientRects().length > 1 && word[0].length < 30) broken.push(word[0]);
          }
      return broken;
    }""")
    assert broken == []
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    tasks = page.locator(".reply li.task > .box")
    assert [task.get_attribute("aria-label") for task in tasks.all()] == ["To do", "Done", "Done"]
    assert page.locator(".reply li.task li.task").count() == 1 and page.locator(".reply sup").count() == 2
    assert page.locator(".reply td .formula.drawn").count() == 1


def test_a_formula_that_cannot_be_drawn_stays_its_source(site):
    page = answer_with(site, r"Bad: $\frac{1}{$ and good: $\frac{1}{2}$.")
    assert page.locator(".formula.broken").inner_text() == r"\frac{1}{"
    assert page.locator(".formula.drawn").count() == 1


def test_formulas_of_a_conversation_that_is_opened_again(site):
    page = answer_with(site, "$$\\frac{1}{2}$$")
    page.reload()
    page.locator(".formula.drawn .mfrac").first.wait_for()
    assert page.locator(".formula").get_attribute("class") == "formula display drawn"
