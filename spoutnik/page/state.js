// What survives a reload: drafts, which stay in the browser, and the address of what is shown.

// Drafts are in this tab's storage, so that two tabs do not overwrite each other's, and where KEEP_DRAFTS is true also in the
// browser's, for the time after the tab was closed. With an encrypted history, or none, they end with the tab.
const draftStores = KEEP_DRAFTS ? [sessionStorage, localStorage] : [sessionStorage];

function readDraft(key) {
  for (const store of draftStores) {
    const text = store.getItem(key);
    if (text !== null) return text;
  }
  return "";
}

function writeDraft(key, text) {
  const before = sessionStorage.getItem(key);
  for (const store of [...draftStores].reverse())
    try {
      if (text) store.setItem(key, text);
      else if (store.getItem(key) === before) store.removeItem(key); // else it is another tab's
    } catch {} // it is full: the draft is in the field all the same
}

Object.assign(spoutnik, {
  // A question is on its way: it stays a draft until the server says that it has come.
  sending(field) {
    if (field.dataset.draft) sessionStorage.setItem(`sent:${field.dataset.draft}`, field.value);
  },
  openDraft(key, asked) {
    const field = document.querySelector("[data-question]");
    const draftKey = `draft:${key}`, first = !field.dataset.draft;
    const lost = sessionStorage.getItem(`sent:${draftKey}`);
    sessionStorage.removeItem(`sent:${draftKey}`);
    let text = readDraft(draftKey);
    if (text.trim() === asked) text = "";
    if (lost && lost.trim() !== asked && !text.includes(lost)) text = text ? `${lost}\n${text}` : lost;
    field.dataset.draft = draftKey;
    if (first && field.value) writeDraft(draftKey, (text = field.value)); // typed before the page was ready
    this.fill(field, text);
    for (const [name, content] of JSON.parse(sessionStorage.getItem(`files:${draftKey}`) || "[]"))
      emitEvent("spoutnik_file", key, name, content);
  },
  keepFiles(files, key) {
    try {
      sessionStorage.setItem(`files:draft:${key}`, JSON.stringify(files));
    } catch {} // some megabytes: they are kept until the page is closed
  },
  dropDraft(question, key) {
    const field = document.querySelector("[data-question]");
    const before = field.dataset.draft, sent = `sent:${before}`;
    sessionStorage.removeItem(`files:${before}`);
    if (sessionStorage.getItem(sent)?.trim() === question.trim()) sessionStorage.removeItem(sent);
    if (readDraft(before).trim() === question.trim()) writeDraft(before, "");
    field.dataset.draft = `draft:${key}`;
    if (before !== field.dataset.draft && field.value.trim() && field.value.trim() !== question.trim()) {
      writeDraft(before, ""); // typed since: it belongs to the conversation that has just begun
      writeDraft(field.dataset.draft, field.value);
    }
  },
  // Another field than the question's, which has one draft wherever it is shown.
  restoreDraft(id) {
    const field = getHtmlElement(id), { draft } = field.dataset;
    const lost = sessionStorage.getItem(`sent:${draft}`);
    sessionStorage.removeItem(`sent:${draft}`);
    if (!field.value) this.fill(field, readDraft(draft) || lost || "");
  },
  // Of a question that is edited: its draft replaces what it was.
  restoreEdit(id) {
    const field = getHtmlElement(id), { draft } = field.dataset;
    this.fill(field, sessionStorage.getItem(`sent:${draft}`) || readDraft(draft) || field.value);
  },
  dropEdit(draft) {
    sessionStorage.removeItem(`sent:${draft}`);
    for (const store of draftStores) store.removeItem(draft);
  },
  dropSent(id) {
    const { draft } = getHtmlElement(id).dataset;
    sessionStorage.removeItem(`sent:${draft}`);
    if (!getHtmlElement(id).value) writeDraft(draft, "");
  },
  fill(field, text) {
    if (field.value === text) return;
    field.value = text;
    field.dispatchEvent(new Event("input", { bubbles: true }));
  },
  setAddress(query, push) {
    if (location.search !== query)
      history[push ? "pushState" : "replaceState"](null, "", query || location.pathname);
  },
});

document.addEventListener("input", (e) => {
  if (e.target.dataset.draft) writeDraft(e.target.dataset.draft, e.target.value);
});

addEventListener("popstate", () => emitEvent("spoutnik_address", location.search));

spoutnik.setCookie("spoutnik_zone", Intl.DateTimeFormat().resolvedOptions().timeZone);
