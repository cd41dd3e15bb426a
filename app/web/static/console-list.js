// The list of calls beyond its forms and links: keys, rows that change by themselves, small helps. Everything works without it.
// Rule: nothing moves under a hand. What changes of a row that is shown is changed in place; a new row waits as long as somebody
// points at the table, has a row in focus, or has scrolled on; a button says how many wait.
"use strict";
(() => {
  const table = document.getElementById("calls");
  const live = document.getElementById("live");
  const news = document.getElementById("live-news");
  const links = () => [...document.querySelectorAll("table.calls tr.call > th a")];
  const typing = (it) => it.closest("input:not([type=checkbox]), select, textarea, dialog[open], details.menu[open]");

  // ---- keys

  function move(step) {
    const all = links();
    const at = all.indexOf(document.activeElement?.closest("tr.call")?.querySelector("th a"));
    const next = all[at < 0 ? (step > 0 ? 0 : all.length - 1) : Math.min(all.length - 1, Math.max(0, at + step))];
    next?.focus({ preventScroll: true });
    next?.closest("tr").scrollIntoView({ block: "nearest" });
  }

  const filters = document.querySelector("details.narrow");
  const keys = {
    j: () => move(1), ArrowDown: () => move(1), k: () => move(-1), ArrowUp: () => move(-1),
    "/": () => { const search = document.getElementById("search"); search.focus(); search.select(); },
    f: () => { filters.open = !filters.open; (filters.open ? filters.querySelector("select, input:not([type=hidden])") : filters.firstElementChild).focus(); },
    n: () => document.querySelector(".pages a[rel=next]")?.click(),
    p: () => document.querySelector(".pages a[rel=prev]")?.click(),
    r: () => show(),
    "?": () => document.getElementById("keys").showModal(),
  };

  document.addEventListener("keydown", (event) => {
    if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "Escape") {
      if (filters.open) {
        filters.open = false;
        filters.firstElementChild.focus();
      } else if (event.target.id === "search" && !event.target.value) event.target.blur();
      return;
    }
    const arrow = event.key.startsWith("Arrow");
    if (typing(event.target) || (arrow && event.target !== document.body && !table?.parentElement.contains(event.target))) return;
    if (arrow && !table) return;
    if (!Object.hasOwn(keys, event.key)) return;
    event.preventDefault();
    keys[event.key]();
  });

  // ---- hands

  table?.classList.add("follows");
  table?.addEventListener("click", (event) => {
    const row = event.target.closest("tr.call");
    if (!row || event.target.closest("a, button, input") || getSelection().toString()) return;
    const link = row.querySelector("th a");
    if (event.ctrlKey || event.metaKey) open(link.href, "_blank", "noopener");
    else link.click();
  });
  document.addEventListener("click", (event) => {
    if (filters.open && !filters.contains(event.target)) filters.open = false;
  });
  document.addEventListener("submit", (event) => {
    const form = event.target;
    if (form.matches("[data-download]")) { // the page stays
      form.closest("dialog")?.close();
      setTimeout(() => form.querySelectorAll("button").forEach((button) => { button.disabled = false; }), 1500);
      return;
    }
    if (form.id === "filters") { // an address without what was not filled in
      const empty = [...form.elements].filter((it) => it.name && it.value === "" && !it.disabled);
      for (const it of empty) it.disabled = true;
      setTimeout(() => { for (const it of empty) it.disabled = false; }, 1000);
    }
    if (form.method !== "dialog") document.documentElement.classList.add("leaving");
  });
  document.addEventListener("click", (event) => {
    const link = event.target.closest("main a[href]");
    if (link && !event.defaultPrevented && !event.ctrlKey && !event.metaKey && !event.shiftKey && event.button === 0) {
      document.documentElement.classList.add("leaving");
    }
  });
  addEventListener("pagehide", () => document.documentElement.classList.remove("leaving"));

  // ---- what goes on

  if (!news) return;
  const held = new Map();
  let first = true, gone = 0, away = false;

  const busy = () => table.matches(":hover") || table.contains(document.activeElement) || live.getBoundingClientRect().top < 0;

  function tell() {
    const waiting = held.size;
    const words = away ? "Live updates are paused: the database cannot be reached" :
      waiting ? `${waiting} new call${waiting === 1 ? "" : "s"}` : gone ? "Calls have ended meanwhile" : "";
    if ((news.textContent || "") === words) return;
    news.replaceChildren();
    if (!words) return;
    const it = document.createElement(away ? "p" : "button");
    if (!away) Object.assign(it, { type: "button", className: "small", onclick: show });
    it.textContent = words;
    news.append(it);
  }

  function show() {
    if (gone) return location.reload();
    for (const row of held.values()) insert(row);
    held.clear();
    tell();
  }

  function insert(row) {
    row.classList.add("arrived");
    live.prepend(row);
    remember(row);
  }

  function change(old, row) {
    old.className = row.className;
    [...row.cells].forEach((cell, number) => {
      const was = old.cells[number];
      if (was && !was.isEqualNode(cell)) was.replaceWith(cell);
    });
    remember(old);
  }

  news.addEventListener("rows", (event) => {
    const parsed = new DOMParser().parseFromString(`<table>${event.detail.data}</table>`, "text/html");
    for (const row of [...parsed.querySelectorAll("tr.call")].map((it) => document.adoptNode(it))) {
      const old = document.getElementById(row.id);
      if (old) change(old, row);
      else if (!table) return location.reload(); // the list was empty
      else if (held.has(row.id)) held.set(row.id, row);
      else if (row.classList.contains("is-live") || !first) busy() ? held.set(row.id, row) : insert(row);
    }
    first = false;
    tell();
  });

  news.addEventListener("live", (event) => {
    if (!live) return;
    const now = new Set(event.detail.data.split(" ").map((name) => `c-${name}`));
    const over = [...live.querySelectorAll("tr.is-live")].filter((row) => !now.has(row.id));
    for (const row of over) { // it ended while nobody listened
      row.classList.remove("is-live");
      row.querySelector("[data-ticks]")?.removeAttribute("data-ticks");
      const badge = row.querySelector(".badge.live");
      if (badge) Object.assign(badge, { className: "badge", textContent: "ended" });
    }
    gone += over.length;
    tell();
  });

  for (const [name, is] of [["away", true], ["back", false]]) news.addEventListener(name, () => { away = is; tell(); });
  news.addEventListener("htmx:sse:error", (event) => {
    if (event.detail.status === 401) location.reload(); // signed out: the door says where to go
  });

  // A call goes on between two messages. Our clock may be wrong, so it counts on from what the server said.
  const began = new WeakMap();
  function remember(row) {
    const it = row.querySelector("[data-ticks]");
    if (it && !began.has(it)) began.set(it, performance.now() - it.textContent.split(":").reduce((sum, part) => sum * 60 + Number(part), 0) * 1000);
  }
  function tick() {
    for (const it of document.querySelectorAll("[data-ticks]")) {
      const s = Math.floor((performance.now() - began.get(it)) / 1000), two = (n) => String(n).padStart(2, "0");
      it.textContent = s >= 3600 ? `${Math.floor(s / 3600)}:${two(Math.floor(s / 60) % 60)}:${two(s % 60)}` : `${Math.floor(s / 60)}:${two(s % 60)}`;
    }
    if (held.size && !busy()) show();
  }
  document.querySelectorAll("tr.is-live").forEach(remember);
  setInterval(tick, 1000);
})();
