// What the console does beyond its forms and links. Everything works without it, only less comfortably.
"use strict";

// Light or dark at once, and kept by the server in a cookie.
document.addEventListener("submit", (event) => {
  const form = event.target;
  if (form.matches("[data-theme-form]")) {
    event.preventDefault();
    const dark = getComputedStyle(document.documentElement).colorScheme.startsWith("dark") ||
      (getComputedStyle(document.documentElement).colorScheme.includes("light dark") && matchMedia("(prefers-color-scheme: dark)").matches);
    const chosen = dark ? "light" : "dark";
    document.documentElement.dataset.theme = chosen;
    const data = new URLSearchParams(new FormData(form));
    data.set("theme", chosen);
    fetch(form.action, { method: "POST", body: data, redirect: "manual", headers: { "HX-Request": "true" } });
    return;
  }
  if (form.dataset.confirm && !confirm(form.dataset.confirm)) {
    event.preventDefault();
    return;
  }
  // A second click must not send a second time.
  if (form.method === "post" && !event.defaultPrevented) {
    setTimeout(() => form.querySelectorAll("button").forEach((button) => { button.disabled = true; }));
  }
});

document.addEventListener("click", (event) => {
  const dismiss = event.target.closest("[data-dismiss]");
  if (dismiss) {
    dismiss.parentElement.remove();
    return;
  }
  // Browsers that do not know `command` yet.
  const opener = event.target.closest("[commandfor]");
  if (opener && !("commandForElement" in HTMLButtonElement.prototype)) {
    document.getElementById(opener.getAttribute("commandfor"))?.showModal();
  }
  // A menu closes when somebody looks elsewhere.
  for (const menu of document.querySelectorAll("details.menu[open]")) {
    if (!menu.contains(event.target)) menu.open = false;
  }
  // A click beside a dialog closes it.
  if (event.target.matches("dialog[open]")) event.target.close();
});

document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape") return;
  for (const menu of document.querySelectorAll("details.menu[open]")) {
    menu.open = false;
    menu.querySelector("summary").focus();
  }
});

// A page that comes back from the browser's memory may show what its reader has signed out of.
addEventListener("pageshow", (event) => {
  if (event.persisted) location.reload();
});
