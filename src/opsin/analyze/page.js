"use strict";
// Every table sorts by a click on a heading: numbers the largest first, a second click the other way, a third as it was.
const units = { k: 1e3, M: 1e6, G: 1e9, T: 1e12, B: 1, kB: 1e3, MB: 1e6, GB: 1e9, "%": 1 };
const number = (text) => {
  const match = /^(-?[\d,]*\.?\d+(?:e[-+]?\d+)?)(?: ([kMGT%]?B?))?/.exec(text);
  return match ? parseFloat(match[1].replaceAll(",", "")) * (units[match[2]] || 1) : NaN;
};
for (const table of document.querySelectorAll("table")) {
  const body = table.tBodies[0], rows = [...body.rows], heads = [...table.tHead.rows[0].cells];
  if (rows.length < 2) continue;
  heads.forEach((head, column) => {
    const text = (row) => row.cells[column].textContent.trim();
    const filled = rows.filter((row) => !["", "-"].includes(text(row)));
    const numeric = filled.length > 0 && filled.every((row) => !isNaN(number(text(row))));
    const sort = () => {
      const turns = numeric ? ["descending", "ascending"] : ["ascending", "descending"];
      const turn = turns[turns.indexOf(head.ariaSort) + 1];
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      const sign = turn === "ascending" ? 1 : -1;
      const key = (row) => (numeric ? (isNaN(number(text(row))) ? -Infinity : number(text(row))) : text(row));
      const compare = (a, b) => (numeric ? a[0] - b[0] || 0 : a[0].localeCompare(b[0], undefined, { numeric: true }));
      const keyed = rows.map((row) => [key(row), row]);
      if (turn) {
        keyed.sort((a, b) => sign * compare(a, b));
        head.ariaSort = turn;
      }
      body.append(...keyed.map(([, row]) => row));
    };
    head.tabIndex = 0;
    head.classList.add("sorts");
    head.addEventListener("click", sort);
    head.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" && event.key !== " ") return;
      event.preventDefault();
      sort();
    });
  });
}
for (const button of document.querySelectorAll("[data-open]")) {
  const all = button.closest("section").getElementsByTagName("details");
  button.hidden = false;
  button.addEventListener("click", () => {
    const open = [...all].some((one) => !one.open);
    for (const one of all) one.open = open;
    button.textContent = open ? "close all" : "open all";
  });
}
