"use strict";
// Sorting: a click on a heading sorts by it, a second click the other way; what has no value stays last.
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    head.querySelector("button").addEventListener("click", () => {
      const up = head.getAttribute("aria-sort") !== "ascending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      const body = table.tBodies[0];
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
}
// Enlarging: a figure in a dialog over the page; a click or Escape closes it.
const dialog = document.querySelector("dialog");
const large = dialog.querySelector("img");
for (const button of document.querySelectorAll("button.enlarge")) {
  button.addEventListener("click", () => {
    const image = button.querySelector("img");
    large.src = image.src;
    large.alt = image.alt;
    dialog.showModal();
  });
}
large.addEventListener("click", () => dialog.close());
