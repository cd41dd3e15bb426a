// The page of one call: to a line and back, the keyboard, copying. Everything it does is a link or a form without it too.
"use strict";

(() => {
  const call = () => document.getElementById("call");
  const lines = () => [...document.querySelectorAll(".talk > .said")];
  const calm = matchMedia("(prefers-reduced-motion: reduce)");

  // Beside the values the conversation scrolls by itself; on a narrow screen it goes with the page, and "back" leads back.
  const scrolls = () => {
    const panel = document.getElementById("talk");
    return panel !== null && panel.scrollHeight > panel.clientHeight + 1;
  };

  const show = (element) => {
    document.querySelectorAll(".found").forEach((other) => other.classList.remove("found"));
    void element.offsetWidth; // so that it is seen again when it is the same one
    element.classList.add("found");
    const behavior = calm.matches ? "auto" : "smooth";
    const panel = element.closest("#talk");
    if (panel && scrolls()) {
      const middle = element.offsetTop - (panel.clientHeight - element.offsetHeight) / 2;
      panel.scrollTo({ top: middle, behavior });
      const box = panel.getBoundingClientRect();
      const hidden = Math.min(box.bottom - innerHeight + 16, box.top - 64); // as much of it as there is room for
      if (hidden > 0) scrollBy({ top: hidden, behavior });
    } else element.scrollIntoView({ block: "center", behavior });
    element.focus({ preventScroll: true });
  };

  const reveal = (root) => {
    for (const hidden of root.querySelectorAll(".copy[hidden], .only-script[hidden]")) hidden.hidden = false;
  };

  document.addEventListener("click", (event) => {
    const link = event.target.closest('a.cite, a.at, #review a[href^="#"], [data-said]');
    if (link) {
      const anchor = link.dataset.said || decodeURIComponent(link.hash.slice(1));
      const there = document.getElementById(anchor);
      if (there) {
        if (!link.dataset.said) {
          event.preventDefault();
          history[there.closest("#talk") && scrolls() ? "replaceState" : "pushState"](history.state, "", link.hash);
        }
        show(there);
      }
      return;
    }
    const copy = event.target.closest("[data-copy]");
    if (copy) {
      navigator.clipboard?.writeText(copy.dataset.copy).then(() => {
        copy.classList.add("copied");
        copy.title = "Copied";
        setTimeout(() => copy.classList.remove("copied"), 1500);
      }, () => getSelection().selectAllChildren(copy.previousElementSibling));
    }
  });

  // What somebody has opened stays open when the page looks again.
  window.htmx?.registerExtension("call-page", {
    htmx_before_morph_attr: (element, { attrName, newValue }) => {
      const opened = attrName === "open" && newValue === null && element.matches("#call details");
      const found = attrName === "class" && element.classList.contains("found");
      const revealed = attrName === "hidden" && element.matches(".copy, .only-script");
      return !(opened || found || revealed);
    },
  });
  let corrected = null;
  let atEnd = false;
  document.addEventListener("htmx:before:swap", (event) => {
    const { ctx } = event.detail;
    const form = ctx.sourceElement.closest?.("form[data-field]");
    corrected = form ? form.dataset.field : null;
    const panel = document.getElementById("talk");
    atEnd = panel !== null && panel.scrollHeight - panel.scrollTop - panel.clientHeight < 80;
    if (form && ctx.response.status < 400) {
      const details = form.closest("details");
      if (details) details.open = false;
    }
  });
  document.addEventListener("htmx:after:swap", () => {
    if (!call()) return;
    reveal(document);
    const panel = document.getElementById("talk");
    if (atEnd && call().classList.contains("is-live")) panel.scrollTop = panel.scrollHeight; // who follows a call goes on following
    if (!corrected) return;
    const field = document.getElementById(`field-${corrected}`);
    const wrong = field?.querySelector("[aria-invalid]");
    (wrong || field?.querySelector("summary"))?.focus();
    corrected = null;
  });

  // A form that opens is there to be written in.
  const write = (form) => {
    const first = form.querySelector("[name=value]");
    if (form.contains(document.activeElement) && document.activeElement.matches("input, textarea, select")) return;
    first.focus();
    if (first.tagName === "INPUT") first.select();
  };
  document.addEventListener("toggle", (event) => {
    if (event.target.matches?.("details.correct") && event.target.open) write(event.target);
  }, true);

  const step = (by) => {
    const all = lines();
    if (!all.length) return;
    const now = all.findIndex((line) => line.classList.contains("found") || line === document.activeElement);
    show(all[now < 0 ? (by > 0 ? 0 : all.length - 1) : Math.min(all.length - 1, Math.max(0, now + by))]);
  };

  const correct = () => {
    const here = document.activeElement?.closest("[data-judged]");
    const field = here || document.querySelector(".doubtful[data-judged]") || document.querySelector("[data-judged] details.correct");
    const form = field?.matches("details") ? field : field?.querySelector("details.correct");
    if (!form) return;
    form.open = true;
    form.scrollIntoView({ block: "nearest" });
    write(form);
  };

  document.addEventListener("keydown", (event) => {
    if (!call() || event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
    if (event.key === "Escape") {
      const form = event.target.closest("details.correct[open]");
      if (form) {
        form.open = false;
        form.querySelector("summary").focus();
      }
      return;
    }
    if (event.target.matches("input, textarea, select, [contenteditable]") || document.querySelector("dialog[open]")) return;
    if (event.key === "j") step(1);
    else if (event.key === "k") step(-1);
    else if (event.key === "c") correct();
    else {
      const link = /^[npu?]$/.test(event.key) && document.querySelector(`[data-key="${event.key}"]`);
      if (!link) return;
      link.click();
    }
    event.preventDefault();
  });

  const begin = () => {
    reveal(document);
    const there = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (there && there.matches(".talk > li")) there.focus({ preventScroll: true });
  };
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", begin);
  else begin();
})();
