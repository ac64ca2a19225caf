// What the theme leaves undone for readers with a keyboard, a small screen or a screen reader. Every page can
// be read without it.

const SCROLLING = "div.math, .cell_output > .output";

// The keyboard reaches a box that scrolls, and only while it scrolls; then it has a name, too.
const inside = (box) => (box.matches("div.math") ? "Formula" : box.querySelector("table") ? "Table" : "Figure or output");
const reachScrolling = () =>
  document.querySelectorAll(SCROLLING).forEach((box) => {
    if (box.scrollWidth > box.clientWidth) {
      box.tabIndex = 0;
      box.setAttribute("role", "group");
      box.setAttribute("aria-label", `${inside(box)}, scrolls sideways`);
    } else {
      ["tabindex", "role", "aria-label"].forEach((name) => box.removeAttribute(name));
    }
  });

// On a phone a table with whole sentences, or with many columns and few rows, becomes a list of cards (wdlg.css): each
// cell says what its column is. A table that is drawn in another way loses its meaning for screen readers, so its parts
// get their roles in words. Long tables of numbers stay as they are, and scroll: in cards nobody could compare rows.
const SENTENCE = 80;
const MANY_COLUMNS = 6;
const FEW_ROWS = 12;
const stack = (table) => {
  const titles = [...table.querySelectorAll("thead th")].map((cell) => cell.textContent.trim());
  const cells = [...table.querySelectorAll("tbody td")];
  const sentences = titles.length > 2 && cells.some((cell) => cell.textContent.length > SENTENCE);
  const wide = titles.length >= MANY_COLUMNS && table.querySelectorAll("tbody tr").length <= FEW_ROWS;
  const plain = table.querySelectorAll("thead tr").length === 1 && !table.querySelector("[colspan], [rowspan]");
  if (!plain || !(sentences || wide)) return;
  table.classList.add("wdlg-stacked");
  if (!sentences) table.classList.add("wdlg-short");
  table.setAttribute("role", "table");
  table.querySelectorAll("thead, tbody").forEach((part) => part.setAttribute("role", "rowgroup"));
  table.querySelectorAll("tr").forEach((row) => row.setAttribute("role", "row"));
  table.querySelectorAll("thead th").forEach((cell) => cell.setAttribute("role", "columnheader"));
  table.querySelectorAll("tbody tr").forEach((row) =>
    [...row.children].forEach((cell, place) => {
      cell.setAttribute("role", "cell");
      cell.dataset.title = titles[place] ?? "";
    })
  );
};

document.addEventListener("DOMContentLoaded", () => {
  document.querySelectorAll(".bd-content :is(.cell_output table, table.table)").forEach(stack);

  // The entries of the bibliography stand in a list, but docutils gives them a role that lists do not allow.
  document.querySelectorAll(".citation-list > .citation").forEach((entry) => entry.setAttribute("role", "listitem"));

  // The name of the book and the search field are part of a landmark, too.
  const sidebar = document.querySelector(".bd-sidebar-primary");
  sidebar?.setAttribute("role", "complementary");
  sidebar?.setAttribute("aria-label", "The book");
});

// MathJax sets a page's formulas at the end, and fonts and pictures move its boxes until then.
window.addEventListener("load", () => {
  Promise.resolve(window.MathJax?.startup?.promise).then(reachScrolling);
});
window.addEventListener("resize", reachScrolling);
