"use strict";
const form = document.querySelector("form"), sections = [...document.querySelectorAll("section")];

/** Show the rows that pass all filters, and the boards that have one. */
function filter() {
  const chosen = {}, limits = {};
  for (const each of form.querySelectorAll("[data-filter]")) chosen[each.dataset.filter] = each.value;
  for (const each of form.querySelectorAll("[data-limit]")) limits[each.dataset.limit] = each.value;
  const wanted = form.querySelector("[data-search]").value.toLowerCase();
  let shown = 0, boards = 0;
  const passes = (name, value) => !chosen[name] || chosen[name] === value;
  for (const section of sections) {
    const { task, protocol, dataset } = section.dataset;
    const own = passes("task", task) && passes("protocol", protocol) && passes("data set", dataset);
    let rows = 0;
    for (const row of section.querySelectorAll("tbody tr")) {
      const cheap = Object.entries(limits).every(([name, limit]) => limit === "" ||
        (row.dataset[name] !== "" && Number(row.dataset[name]) <= Number(limit)));
      row.hidden = !(own && cheap && passes("licence", row.dataset.licence) &&
        row.cells[0].textContent.toLowerCase().includes(wanted));
      rows += !row.hidden;
    }
    section.hidden = rows === 0;
    shown += rows;
    boards += rows > 0;
  }
  form.nextElementSibling.textContent = `${shown} row${shown === 1 ? "" : "s"} in ${boards} table${boards === 1 ? "" : "s"}. A limit hides rows whose cost is not known.`;
}

/** Sort a table by a column: numbers from the best, texts from A; again for the other way. */
function sort(head) {
  const table = head.closest("table"), body = table.tBodies[0], column = head.cellIndex;
  const numeric = body.rows[0].cells[column].dataset.value !== undefined;
  const first = numeric ? "descending" : "ascending", other = numeric ? "ascending" : "descending";
  const order = head.getAttribute("aria-sort") === first ? other : first;
  for (const each of table.tHead.rows[0].cells) each.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", order);
  const sign = order === "ascending" ? 1 : -1;
  const rows = [...body.rows].map((row) => {
    const cell = row.cells[column];
    return [row, numeric ? Number(cell.dataset.value) : cell.textContent];
  });
  rows.sort(([, a], [, b]) => {
    if (!numeric) return sign * a.localeCompare(b);
    if (Number.isNaN(a) || Number.isNaN(b)) return Number.isNaN(a) - Number.isNaN(b);  // last
    return sign * (a - b);
  });
  body.append(...rows.map(([row]) => row));
}

form.addEventListener("input", filter);
form.addEventListener("reset", () => setTimeout(filter));
form.addEventListener("submit", (event) => event.preventDefault());
document.querySelectorAll("th button").forEach((button) =>
  button.addEventListener("click", () => sort(button.parentElement)));
filter();
