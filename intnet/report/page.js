"use strict";
// Columns are sorted by a button in their head. Without scripts the page lacks the buttons, and nothing else.
for (const table of document.querySelectorAll("table")) {
  const body = table.tBodies[0];
  const heads = [...table.tHead.rows[0].cells];
  const words = new Intl.Collator("en", { numeric: true });
  const read = (cell, numeric) => {
    const text = cell.title || cell.textContent; // the title has all digits
    return numeric ? Number(text.replace(/^([-+]?)inf$/i, "$1Infinity")) : text;
  };
  const number = (cell) => {
    const whole = read(cell, true);
    return Number.isNaN(whole) ? parseFloat(cell.textContent) : whole; // parseFloat takes 3 from "3 %"
  };
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const numeric = head.classList.contains("n");
      const sign = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
      const keyed = [...body.rows].map((row) => {
        const cell = row.cells[column];
        const key = numeric ? number(cell) : read(cell, false);
        return { row, key, last: cell.textContent.trim() === "" || Number.isNaN(key) };
      });
      keyed.sort((a, b) => {
        if (a.last || b.last) return a.last - b.last; // whichever way it goes
        if (!numeric) return sign * words.compare(a.key, b.key);
        return a.key === b.key ? 0 : a.key < b.key ? -sign : sign; // equal ones keep their order: infinities, too
      });
      for (const other of heads) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", sign > 0 ? "ascending" : "descending");
      body.append(...keyed.map(({ row }) => row));
    });
  });
}
