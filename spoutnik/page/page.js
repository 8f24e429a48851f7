// Clipboard, keys, scrolling and cookies. Nothing is sent anywhere.
window.spoutnik = {
  setCookie(name, value) {
    document.cookie = `${name}=${encodeURIComponent(value)}; path=/; max-age=31536000; samesite=strict`;
  },
  // following: the page scrolls with a growing answer; not once the reader has scrolled up. expecting: an answer is under way,
  // or was a moment ago.
  following: true,
  expecting: false,
  follow() {
    this.following = this.expecting = true;
    this.scrollToEnd();
  },
  scrollToEnd() {
    scrollTo({ top: document.documentElement.scrollHeight, behavior: "instant" });
  },
  // The box of the tab that is shown.
  question() {
    return [...document.querySelectorAll(".question textarea")].find((area) => area.offsetParent);
  },
  // A touch screen would open its keyboard over what is to be read.
  focusQuestion(always = false) {
    if (always || !matchMedia("(pointer: coarse)").matches) this.question()?.focus();
  },
  async copy(text, button) {
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      // Without https browsers have no navigator.clipboard.
      const area = Object.assign(document.createElement("textarea"), { value: text });
      document.body.append(area);
      area.select();
      document.execCommand("copy");
      area.remove();
    }
    const status = document.querySelector("#copied");
    status.textContent = status.dataset.text;
    button.classList.add("copied");
    setTimeout(() => {
      status.textContent = "";
      button.classList.remove("copied");
    }, 1500);
  },
};

document.addEventListener("click", (e) => {
  const code = e.target.closest(".copy-code"), copied = e.target.closest("[data-copy]");
  const link = e.target.closest(".prose a[href]");
  if (code) spoutnik.copy(code.closest(".code").querySelector("pre").textContent, code);
  else if (copied) spoutnik.copy(copied.dataset.copy, copied);
  if (e.target.closest("[data-scroll-end]")) spoutnik.follow();
  if (e.target.closest(".skip-link")) {
    e.preventDefault();
    spoutnik.focusQuestion(true);
  }
  if (e.target.closest("summary")) spoutnik.following = false; // what opens is read from its beginning
  if (e.target.closest("[data-stop], .example")) spoutnik.focusQuestion(); // these vanish, and would take the focus along
  if (link) {
    e.preventDefault();
    open(link.href, "_blank", "noopener,noreferrer");
  }
});

document.addEventListener("keydown", (e) => {
  if (document.querySelector(".q-dialog, .q-menu")) return;
  if (e.key === "Escape") [...document.querySelectorAll("[data-stop]")].find((button) => button.offsetParent)?.click();
  // Who types without having chosen a field means the question.
  const types = e.key.length === 1 && e.key !== " " && !e.ctrlKey && !e.metaKey && !e.altKey && !e.isComposing;
  if (types && document.activeElement === document.body) spoutnik.focusQuestion();
});

{
  const page = document.documentElement;
  const fromEnd = () => page.scrollHeight - page.clientHeight - page.scrollTop;
  let last = { top: 0, height: 0 }, touched = -Infinity; // the page as it was seen last; when the reader moved something
  addEventListener("scroll", () => {
    // What shrinks moves the page up, too: that is the reader's doing only if they have just moved something.
    const shrunk = page.scrollHeight < last.height && performance.now() - touched > 600;
    if (fromEnd() < 8) spoutnik.following = true;
    else if (page.scrollTop < last.top - 1 && !shrunk) spoutnik.following = false;
    seen();
  }, { passive: true });

  const seen = () => {
    last = { top: page.scrollTop, height: page.scrollHeight };
    document.body.classList.toggle("scrolled-up", fromEnd() > 120);
  };
  const isBusy = () => document.querySelector("#messages [aria-busy=true]") !== null;
  let settled = 0; // until then, a finished answer may still grow: its formulas are drawn
  const grown = () => {
    const busy = isBusy(), now = performance.now();
    spoutnik.expecting ||= busy;
    if (spoutnik.following && (spoutnik.expecting || now < settled) && getSelection().isCollapsed) spoutnik.scrollToEnd();
    if (spoutnik.expecting && !busy) {
      spoutnik.expecting = false;
      settled = now + 700;
    }
    seen();
  };
  for (const input of ["pointerdown", "wheel", "touchmove", "keydown"])
    addEventListener(input, () => {
      settled = 0;
      spoutnik.expecting = isBusy();
      if (input !== "pointerdown") touched = performance.now();
    }, { capture: true, passive: true });
  const sizes = new ResizeObserver(grown);
  // A session that has ended is refused the connection for ever: a reload leads to the log-in, and from there back.
  const checkSession = async () => {
    const answer = await fetch(`${window.path_prefix || ""}/v1/models`, { cache: "no-store" }).catch(() => null);
    if (answer?.status === 401) location.reload();
  };
  const find = new MutationObserver(() => {
    const messages = document.querySelector("#messages"), popup = document.querySelector("#popup");
    if (!messages || !popup) return;
    find.disconnect();
    sizes.observe(messages);
    window.socket.on("connect_error", checkSession);
    popup.setAttribute("role", "alert");
  });
  find.observe(document.body, { childList: true, subtree: true });
}
