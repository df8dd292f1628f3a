"use strict";
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  const body = table.tBodies[0];
  // Sorting: a click on a heading sorts by it, a second click the other way; what has no value stays last.
  heads.forEach((head, column) => {
    head.querySelector("button").addEventListener("click", () => {
      const up = head.getAttribute("aria-sort") !== "ascending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      const keyed = [...body.rows].map((row) => {
        const cell = row.cells[column];
        const text = cell.textContent.trim();
        const value = "value" in cell.dataset ? Number(cell.dataset.value.replace("inf", "Infinity")) : NaN;
        return { row, text, value, empty: text === "" || text === "–" };
      });
      const order = (a, b) => {
        if (a.empty || b.empty) return a.empty - b.empty;
        const both = !Number.isNaN(a.value) && !Number.isNaN(b.value);
        const numbers = a.value === b.value ? 0 : a.value - b.value;
        const sign = both ? numbers : a.text.localeCompare(b.text, "en", { numeric: true });
        return up ? sign : -sign;
      };
      body.append(...keyed.sort(order).map((item) => item.row));
    });
  });
  // Filtering: rows that have every word of the box somewhere.
  const scroll = table.parentElement;
  if ("filter" in scroll.dataset) {
    const box = document.createElement("p");
    const input = document.createElement("input");
    const left = document.createElement("span");
    box.className = "filter";
    input.type = "search";
    input.placeholder = "Filter rows";
    input.setAttribute("aria-label", "Filter rows: words that a row has to have");
    left.setAttribute("aria-live", "polite");
    const all = [...body.rows].map((row) => ({ row, text: null }));
    input.addEventListener("input", () => {
      const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
      let count = 0;
      for (const item of all) {
        item.text ??= [...item.row.cells].map((cell) => cell.textContent).join(" ").toLowerCase();
        item.row.hidden = !words.every((word) => item.text.includes(word));
        count += !item.row.hidden;
      }
      left.textContent = words.length ? `${count} of ${all.length} rows` : "";
    });
    box.append(input, left);
    scroll.before(box);
  }
}
// Enlarging: a figure in a dialog over the page; a click or Escape closes it.
const dialog = document.querySelector("dialog");
const large = document.querySelector("dialog img");
for (const button of document.querySelectorAll("button.enlarge")) {
  button.addEventListener("click", () => {
    const image = button.querySelector("img");
    large.src = image.src;
    large.alt = image.alt;
    large.style.filter = getComputedStyle(image).filter;
    dialog.showModal();
  });
}
large?.addEventListener("click", () => dialog.close());
// A link to a closed part opens it. In print all parts but long tables are open.
function open() {
  const target = location.hash.length > 1 && document.getElementById(decodeURIComponent(location.hash.slice(1)));
  const fold = target && target.querySelector("details.fold");
  if (fold) fold.open = true;
}
window.addEventListener("hashchange", open);
for (const link of document.querySelectorAll("nav a")) link.addEventListener("click", () => setTimeout(open));
open();
const closed = [];
window.addEventListener("beforeprint", () => {
  for (const part of document.querySelectorAll("details.fold:not([open]), details.claim:not([open])")) {
    part.open = true;
    closed.push(part);
  }
});
window.addEventListener("afterprint", () => { while (closed.length) closed.pop().open = false; });
