// Formulas: KaTeX draws what the server sends as <span class="formula">source</span>. What KaTeX cannot parse stays source, and
// nothing that a formula holds becomes a link, a script or HTML (trust: false).
{
  const folder = () => `${window.path_prefix || ""}/_nicegui/katex/`;
  const gobble = (shown) => `\\@secondoftwo{#1}{${shown}}`;
  // Commands that models use and KaTeX lacks.
  const macros = {
    "\\cancelto": "{\\cancel{#2}}^{#1}", "\\prescript": "{}^{#1}_{#2}{#3}", "\\sideset": "#1{#3}#2",
    "\\overparen": "\\overset{\\frown}{#1}", "\\wideparen": "\\overset{\\frown}{#1}", "\\overarc": "\\overset{\\frown}{#1}",
    "\\underparen": "\\underset{\\smile}{#1}", "\\mspace": "\\mkern #1", "\\require": gobble(""), "\\label": gobble(""),
    "\\ref": "\\text{#1}", "\\eqref": "(\\text{#1})", "\\enclose": gobble("\\boxed{#2}"), "\\longdiv": "\\overline{)#1}",
    "\\class": gobble("#2"), "\\cssId": gobble("#2"), "\\style": gobble("#2"), "\\mathlarger": "#1",
    "\\SI": "#1\\,\\mathrm{#2}", "\\si": "\\mathrm{#1}", "\\num": "#1", "\\mbox": "\\text{#1}", "\\textsc": "\\text{#1}",
    "\\abs": "\\left|#1\\right|", "\\norm": "\\left\\|#1\\right\\|", "\\mathds": "\\mathbb{#1}",
    "\\dv": "\\frac{\\mathrm{d}#1}{\\mathrm{d}#2}", "\\pdv": "\\frac{\\partial #1}{\\partial #2}",
    "\\euro": "\\text{€}", "\\textdegree": "{}^\\circ", "\\hdots": "\\ldots", "\\hfill": "\\qquad", "\\Q": "\\mathbb{Q}",
    "\\C": "\\mathbb{C}", "\\E": "\\mathbb{E}", "\\iddots": "⋰", "\\displaylines": "\\begin{gathered}#1\\end{gathered}",
    "\\matrix": "\\begin{matrix}#1\\end{matrix}", "\\pmatrix": "\\begin{pmatrix}#1\\end{pmatrix}",
    "\\cases": "\\begin{cases}#1\\end{cases}", "\\eqalign": "\\begin{aligned}#1\\end{aligned}",
  };
  for (const name of ["lcm", "Tr", "tr", "diag", "rank", "Var", "Cov", "sgn", "sign", "arccot", "arcsec", "arccsc", "sech",
    "csch", "erf", "pgcd", "ppcm", "Arcsin", "Arccos", "Arctan"])
    macros[`\\${name}`] = `\\operatorname{${name}}`;

  // Environments that KaTeX lacks, then (nested) those that it takes at the top level of a display only.
  // Per cents begin no comments here, and what stands in \text is text.
  const plain = (text) => text.includes("$") ? text : text.replace(/(?<!\\)[&_#]/g, "\\$&");
  const known = (source) => source
    .replace(/(?<!\\)%/g, "\\%").replace(/\\(text|mbox|textbf|textit|textrm)\{[^{}]*\}/g, plain)
    .replace(/\\(begin|end)\{multline\*?\}/g, "\\$1{gather*}").replace(/\\(begin|end)\{flalign(\*?)\}/g, "\\$1{align$2}")
    .replace(/\\begin\{eqnarray\*?\}/g, "\\begin{array}{rcl}").replace(/\\end\{eqnarray\*?\}/g, "\\end{array}")
    .replace(/\\(begin|end)\{tabular\}/g, "\\$1{array}").replace(/\\(begin|end)\{(math|displaymath|center)\}/g, "");
  const nested = (source) => source
    .replace(/\\(begin|end)\{(align|gather)(at)?\*?\}/g, "\\$1{$2ed$3}").replace(/\\(begin|end)\{split\}/g, "\\$1{aligned}")
    .replace(/\\(begin|end)\{equation\*?\}/g, "")
    .replace(/\\tag\*?\{([^{}]*)\}/g, "\\qquad(\\text{$1})").replace(/\\(notag|nonumber)\b/g, "");

  function html(source, displayMode) {
    // The last attempt shows unknown commands by their names, and the rest of the formula.
    for (const [form, throwOnError] of [[known(source), true], [nested(known(source)), true], [nested(known(source)), false]]) {
      try {
        const drawn = katex.renderToString(form, { displayMode, throwOnError, trust: false, strict: "ignore", maxSize: 40,
          maxExpand: 500, macros: { ...macros }, errorColor: "inherit" });
        if (!drawn.includes('class="katex-error"')) return drawn;
      } catch { /* the next attempt, then the source */ }
    }
    return null;
  }

  const drawings = new Map(); // a growing answer draws the same formulas again and again
  function drawing(source, displayMode) {
    const key = `${displayMode}${source}`;
    if (!drawings.has(key)) {
      if (drawings.size > 2000) drawings.clear();
      drawings.set(key, html(source, displayMode));
    }
    return drawings.get(key);
  }

  function draw() {
    const undrawn = [...document.querySelectorAll(".formula:not(.drawn, .broken)")];
    for (const element of undrawn) {
      const drawn = drawing(element.textContent, element.classList.contains("display"));
      element.classList.add(drawn ? "drawn" : "broken");
      if (drawn) element.innerHTML = drawn;
    }
    // What is too wide scrolls, also with the keyboard. To measure at once would lay the page out in the middle of a change.
    if (undrawn.length)
      requestAnimationFrame(() => undrawn.filter((element) => element.scrollWidth > element.clientWidth && element.clientWidth)
        .forEach((element) => { element.tabIndex = 0; }));
  }

  const load = (tag, attributes) => new Promise((resolve, reject) =>
    document.head.append(Object.assign(document.createElement(tag), attributes, { onload: resolve, onerror: reject })));
  const script = (name) => load("script", { src: `${folder()}${name}.min.js` });
  let loading = null, loaded = false;
  async function loadKatex() {
    try {
      await Promise.all([load("link", { rel: "stylesheet", href: `${folder()}katex.min.css` }), script("katex")]);
      await Promise.all([script("mhchem"), script("copy-tex")]);
      loaded = true;
      draw();
    } catch { // the next formula tries again
      loading = null;
    }
  }
  addEventListener("DOMContentLoaded", () => loading ??= loadKatex());
  new MutationObserver(() => {
    if (loaded) draw();
    else if (document.querySelector(".formula")) loading ??= loadKatex();
  }).observe(document.body, { childList: true, subtree: true });
}
