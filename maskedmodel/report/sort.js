"use strict";
// Headers of sortable tables become buttons. Without this script the tables stand as they are.
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  const said = document.getElementById(table.dataset.status);
  const headers = [...table.tHead.rows[0].cells];
  const valueOf = (row, index) => row.cells[index].dataset.value ?? "";
  headers.forEach((header, index) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...header.childNodes);
    header.append(button);
    button.addEventListener("click", () => {
      const rising = header.getAttribute("aria-sort") !== "ascending";
      for (const other of headers) other.removeAttribute("aria-sort");
      header.setAttribute("aria-sort", rising ? "ascending" : "descending");
      const rows = [...body.rows];
      rows.sort((one, other) => {
        const a = valueOf(one, index), b = valueOf(other, index);
        if (a === "" || b === "") return (a === "") - (b === "");
        const order = Number.isNaN(Number(a)) || Number.isNaN(Number(b)) ? a.localeCompare(b) : a - b;
        return rising ? order : -order;
      });
      body.append(...rows);
      said.textContent = `Sorted by ${button.textContent}, ${rising ? "lowest" : "highest"} first.`;
    });
  });
}
