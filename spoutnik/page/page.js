// Clipboard, keys, scrolling and cookies. Nothing is sent anywhere.
window.spoutnik = {
  setCookie(name, value) {
    document.cookie = `${name}=${encodeURIComponent(value)}; path=/; max-age=31536000; samesite=strict`;
  },
  following: true,
  follow() {
    this.following = true;
    setTimeout(() => scrollTo({ top: document.documentElement.scrollHeight }), 50);
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
  if (link) {
    e.preventDefault();
    open(link.href, "_blank", "noopener,noreferrer");
  }
});

document.addEventListener("keydown", (e) => {
  if (e.key === "Escape" && !document.querySelector(".q-dialog, .q-menu"))
    [...document.querySelectorAll("[data-stop]")].find((button) => button.offsetParent)?.click();
});

// The page scrolls with a growing answer, unless the reader has scrolled up.
addEventListener("scroll", () => {
  const { scrollHeight, scrollTop, clientHeight } = document.documentElement;
  spoutnik.following = scrollHeight - scrollTop - clientHeight < 120;
  document.body.classList.toggle("scrolled-up", !spoutnik.following);
}, { passive: true });
new MutationObserver(() => {
  if (spoutnik.following && document.querySelector("#messages [aria-busy=true]"))
    scrollTo({ top: document.documentElement.scrollHeight });
}).observe(document.body, { childList: true, subtree: true, characterData: true });
