const table = document.querySelector("table"), body = table.tBodies[0], search = document.querySelector("input");
const rows = [...body.rows], heads = [...table.tHead.rows[0].cells];
const value = (row, column) => row.cells[column].dataset.sort ?? row.cells[column].textContent;
const filter = () => {
  const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
  let shown = 0;
  for (const row of rows) {
    const text = row.textContent.toLowerCase();
    row.hidden = !words.every(word => text.includes(word));
    shown += !row.hidden;
  }
  document.querySelector("output").textContent = `${shown} of ${rows.length}`;
};
const sort = column => {
  const head = heads[column], down = head.ariaSort === "ascending";
  heads.forEach(one => one.ariaSort = null);
  head.ariaSort = down ? "descending" : "ascending";
  const key = row => value(row, column), empty = row => key(row) === "";
  const order = (a, b) => isNaN(a) || isNaN(b) ? a.localeCompare(b, "en", { numeric: true }) : a - b;
  const compare = (a, b) => order(key(a), key(b)) * (down ? -1 : 1);
  body.append(...rows.sort((a, b) => empty(a) - empty(b) || compare(a, b)));
};
heads.forEach((head, column) => head.querySelector("button").onclick = () => sort(column));
search.oninput = filter;
search.value = decodeURIComponent(location.hash.slice(1));  // index.html#resnet34 is a search that can be linked
filter();
