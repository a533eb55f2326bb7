// Keeps an open page up to date: replaces the sections that changed, says when no word comes.
"use strict";
(() => {
  const STALE_AFTER_MS = 5000;
  const stale = document.getElementById("stale");
  const linkState = document.getElementById("link-state");
  const asOf = document.getElementById("as-of");
  const waiting = new Map();
  let source = null;
  let paused = false;
  let heard = performance.now();

  // The text that a person selects, and a focus, must survive the update.
  function isSelected(section) {
    const selection = document.getSelection();
    return selection && !selection.isCollapsed && section.contains(selection.anchorNode);
  }

  function keyOf(element) {
    return element.getAttribute("href") || element.getAttribute("aria-label")
      || element.closest("[data-key]")?.dataset.key;
  }

  function replace(section, html) {
    const open = new Set([...section.querySelectorAll("details[open]")].map((it) => it.dataset.key));
    const focused = section.contains(document.activeElement) ? keyOf(document.activeElement) : null;
    const scrolled = new Map([...section.querySelectorAll(".scroll")]
      .map((it) => [it.getAttribute("aria-label"), it.scrollLeft]));
    section.innerHTML = html;
    for (const details of section.querySelectorAll("details")) {
      details.open = open.has(details.dataset.key);
    }
    for (const region of section.querySelectorAll(".scroll")) {
      region.scrollLeft = scrolled.get(region.getAttribute("aria-label")) ?? 0;
    }
    if (focused) {
      const all = [...section.querySelectorAll("a, summary, .scroll")];
      all.find((it) => keyOf(it) === focused)?.focus({ preventScroll: true });
    }
    const title = section.querySelector("[data-title]");
    if (title) document.title = title.dataset.title;
  }

  function show() {
    if (paused) return;
    for (const [id, html] of waiting) {
      let section = document.getElementById(id);
      if (!section) {
        section = document.createElement("section");
        section.id = id;
        document.getElementById("main").append(section);
      }
      if (isSelected(section)) continue;
      replace(section, html);
      waiting.delete(id);
    }
  }

  function connect() {
    if (source) return;
    source = new EventSource(document.body.dataset.events);
    source.addEventListener("section", (event) => {
      const { id, html } = JSON.parse(event.data);
      waiting.set(id, html);
    });
    source.addEventListener("beat", (event) => {
      heard = performance.now();
      show();
      if (!paused) asOf.textContent = event.data;
      tellAge();
    });
    // The browser does not try again after an answer that is no event stream.
    source.addEventListener("error", () => {
      if (source && source.readyState === EventSource.CLOSED) disconnect();
    });
  }

  function disconnect() {
    source?.close();
    source = null;
  }

  function tellAge() {
    const silent = performance.now() - heard;
    const isStale = silent > STALE_AFTER_MS;
    linkState.textContent = paused ? "Paused at" : isStale ? "Stale, as of" : "Live,";
    if (isStale) stale.dataset.stale = "client";
    else delete stale.dataset.stale;
    const text = isStale
      ? "No word from the daemon for 5 s or more. The page shows the last that it knows."
      : "";
    // A screen reader reads each change aloud.
    if (stale.textContent !== text) stale.textContent = text;
  }

  const button = document.createElement("button");
  button.type = "button";
  button.textContent = "Pause";
  button.addEventListener("click", () => {
    paused = !paused;
    button.textContent = paused ? "Resume" : "Pause";
    show();
    tellAge();
  });
  document.querySelector(".live").append(" ", button);

  // A page in the background does not hold a connection.
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) disconnect();
    else {
      heard = performance.now();
      connect();
    }
  });
  setInterval(() => {
    if (!document.hidden) {
      connect();
      tellAge();
    }
  }, 1000);
  if (!document.hidden) connect();
})();
