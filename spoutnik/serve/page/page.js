// What must happen in the browser itself: the clipboard, keys, scrolling, cookies. Nothing is sent anywhere.
window.spoutnik = {
  remember(name, value) {
    document.cookie = `${name}=${encodeURIComponent(value)}; path=/; max-age=31536000; samesite=strict`;
  },
  following: true,
  follow() {
    this.following = true;
    setTimeout(() => scrollTo({ top: document.documentElement.scrollHeight }), 50);
  },
  async copy(text) {
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      // Without https there is no clipboard to write to.
      const area = Object.assign(document.createElement("textarea"), { value: text });
      document.body.append(area);
      area.select();
      document.execCommand("copy");
      area.remove();
    }
  },
};

document.addEventListener("click", (e) => {
  const code = e.target.closest(".copy-code"), copied = e.target.closest("[data-copy]");
  const link = e.target.closest(".prose a[href]");
  if (code) spoutnik.copy(code.closest(".code").querySelector("pre").textContent);
  else if (copied) spoutnik.copy(copied.dataset.copy);
  if (code || copied) {
    const button = code || copied;
    button.classList.add("copied");
    setTimeout(() => button.classList.remove("copied"), 1500);
  }
  if (link) {
    e.preventDefault();
    open(link.href, "_blank", "noopener,noreferrer");
  }
});

document.addEventListener("keydown", (e) => {
  if (e.key === "Escape" && !document.querySelector(".q-dialog, .q-menu"))
    [...document.querySelectorAll("[data-stop]")].find((button) => button.offsetParent)?.click();
});

// An answer that grows stays in sight, unless its reader has scrolled away from its end.
addEventListener("scroll", () => {
  const { scrollHeight, scrollTop, clientHeight } = document.documentElement;
  spoutnik.following = scrollHeight - scrollTop - clientHeight < 120;
}, { passive: true });
new MutationObserver(() => {
  if (spoutnik.following && document.querySelector("#talk [aria-busy=true]"))
    scrollTo({ top: document.documentElement.scrollHeight });
}).observe(document.body, { childList: true, subtree: true, characterData: true });
