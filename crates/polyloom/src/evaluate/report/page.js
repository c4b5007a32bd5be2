"use strict";
(() => {
  const one = (id) => document.getElementById(id);
  document.documentElement.classList.add("js");
  const data = JSON.parse(one("data").textContent);

  // Tables: a click on a heading sorts by it, a second one turns the order.
  const key = (cell) => {
    const v = cell.dataset.v !== undefined ? cell.dataset.v : cell.textContent.trim();
    if (v === "" || v === "–" || v === "n/a") return null;
    const n = Number(v.replace(/[ %]/g, ""));
    return Number.isNaN(n) ? v.toLowerCase() : n;
  };
  const compare = (a, b) => {
    if (typeof a === "number" && typeof b === "number") return a - b;
    return String(a).localeCompare(String(b));
  };
  for (const table of document.querySelectorAll("table.sortable")) {
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      head.append(button);
      head.addEventListener("click", () => {
        const numbers = [...table.tBodies[0].rows].some((r) => typeof key(r.cells[column]) === "number");
        const now = head.getAttribute("aria-sort");
        // Numbers begin with the largest, places and names with the first.
        const down = now === null ? numbers && head.textContent.trim() !== "rank" : now === "ascending";
        heads.forEach((h) => h.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", down ? "descending" : "ascending");
        const rows = [...table.tBodies[0].rows].map((row) => [key(row.cells[column]), row]);
        rows.sort(([a], [b]) => {
          if (a === null || b === null) return (a === null) - (b === null);
          return down ? compare(b, a) : compare(a, b);
        });
        table.tBodies[0].append(...rows.map(([, row]) => row));
      });
    });
  }

  // Copying.
  const told = one("copied");
  for (const button of document.querySelectorAll("[data-copy]")) {
    button.addEventListener("click", async () => {
      const what = button.dataset.copy;
      const text = what === "json" ? JSON.stringify(data, null, 1) : JSON.parse(one("as-" + what).textContent);
      let done = true;
      try {
        await navigator.clipboard.writeText(text);
      } catch {
        const area = document.createElement("textarea");
        area.value = text;
        document.body.append(area);
        area.select();
        done = document.execCommand("copy");
        area.remove();
        button.focus();
      }
      told.textContent = done ? "copied" : "the browser does not allow it";
    });
  }

  // The cell under the pointer of a map without numbers.
  const order = JSON.parse(one("order") ? one("order").textContent : "[]");
  for (const map of document.querySelectorAll(".compact")) {
    const told = map.closest(".view").querySelector(".told");
    map.addEventListener("pointermove", (event) => {
      const box = map.getBoundingClientRect();
      const column = Math.floor((event.clientX - box.left) / map.dataset.cell);
      const row = Math.floor((event.clientY - box.top) / map.dataset.tall);
      const system = data.systems[row];
      const task = data.tasks[order[column]];
      if (!system || !task) return;
      const score = system.scores[order[column]];
      const hash = task.hash ? ", task " + task.hash.slice(0, 16) : "";
      const record = system.records && system.records[order[column]] ? ", record " + system.records[order[column]] : "";
      told.textContent = system.name + " on " + task.name + ": " + (score === null ? "no score" : score) + hash + record;
    });
  }

  // Examples.
  const find = one("find");
  if (find) {
    const cards = [...document.querySelectorAll(".example")];
    const texts = cards.map((card) => card.textContent.toLowerCase());
    find.addEventListener("input", () => {
      const wanted = find.value.trim().toLowerCase();
      let shown = 0;
      cards.forEach((card, i) => {
        card.hidden = !texts[i].includes(wanted);
        shown += card.hidden ? 0 : 1;
      });
      one("found").textContent = wanted === "" ? "" : shown + " of " + cards.length + " listed examples";
    });
  }

  // What a link leads to may be folded.
  const unfold = () => {
    const target = location.hash && one(location.hash.slice(1));
    for (let d = target && target.closest("details"); d; d = d.parentElement.closest("details")) d.open = true;
    if (target) target.scrollIntoView();
  };
  addEventListener("hashchange", unfold);
  unfold();

  // On paper everything that is folded is open.
  const folded = [];
  addEventListener("beforeprint", () => {
    for (const d of document.querySelectorAll("details:not([open]):not(.browse)")) {
      d.open = true;
      folded.push(d);
    }
  });
  addEventListener("afterprint", () => {
    for (const d of folded.splice(0)) d.open = false;
  });
})();
