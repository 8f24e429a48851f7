// Clipboard, keys, scrolling and cookies. Nothing is sent anywhere.
window.spoutnik = {
  setCookie(name, value) {
    document.cookie = `${name}=${encodeURIComponent(value)}; path=/; max-age=31536000; samesite=strict`;
  },
  // Whether the page scrolls with what grows: while an answer does, and a moment longer, unless the reader has scrolled up.
  following: true,
  followUntil: 0,
  follow() {
    this.following = true;
    this.followUntil = performance.now() + 700;
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
  let last = 0;
  addEventListener("scroll", () => {
    const end = page.scrollHeight - page.clientHeight, atEnd = end - page.scrollTop < 8;
    // What shrinks moves the page up, too, but to its end.
    if (page.scrollTop < last && !atEnd) spoutnik.following = false;
    else if (atEnd) spoutnik.following = true;
    last = page.scrollTop;
    document.body.classList.toggle("scrolled-up", end - last > 120);
  }, { passive: true });

  const grown = () => {
    const now = performance.now();
    if (document.querySelector("#messages [aria-busy=true]")) spoutnik.followUntil = now + 700;
    if (spoutnik.following && now < spoutnik.followUntil) spoutnik.scrollToEnd();
    document.body.classList.toggle("scrolled-up", page.scrollHeight - page.clientHeight - page.scrollTop > 120);
  };
  const sizes = new ResizeObserver(grown);
  const find = new MutationObserver(() => {
    const messages = document.querySelector("#messages"), popup = document.querySelector("#popup");
    if (!messages || !popup) return;
    find.disconnect();
    sizes.observe(messages);
    popup.setAttribute("role", "alert");
  });
  find.observe(document.body, { childList: true, subtree: true });
}
