"use strict";
for (const chart of document.querySelectorAll("[data-hover]")) {
  let told, line;
  const out = chart.querySelector(".readout");
  const last = (steps, x) => steps.filter((step) => step[0] <= x).at(-1);
  const leave = () => { out.textContent = ""; if (line) for (const l of line) l.hidden = true; };
  chart.addEventListener("pointermove", (event) => {
    told ??= JSON.parse(chart.dataset.hover);
    line ??= [...chart.querySelectorAll(".panel")].map((panel) => {
      const l = document.createElement("i");
      l.className = "cross";
      return panel.appendChild(l);
    });
    const box = chart.querySelector("svg").getBoundingClientRect();
    const share = (event.clientX - box.left) / box.width;
    if (share < 0 || share >= 1) return leave();
    const x = share * told.bars.length;
    const [minutes, close, score] = told.bars[Math.floor(x)];
    const when = new Date((told.t0 + minutes * 60) * 1000).toISOString().slice(0, 16).replace("T", " ");
    const words = [when + " UTC", close.toFixed(told.digits)];
    const stop = last(told.stops, x), state = last(told.states, x);
    if (x <= told.end && stop && stop[1] !== null) words.push("stop " + stop[1].toFixed(told.digits) + " (" + stop[2] + ")");
    if (x <= told.end && state) words.push(state[1]);
    if (score !== null) words.push("score " + (score > 0 ? "+" : "") + String(score).replace("-", "\u2212"));
    out.textContent = words.join("  ·  ");
    for (const l of line) { l.hidden = false; l.style.left = share * 100 + "%"; }
  });
  chart.addEventListener("pointerleave", leave);
}
// A link from the table opens the folded trade that it leads to.
const unfold = () => {
  const goal = location.hash && document.getElementById(location.hash.slice(1));
  if (goal instanceof HTMLDetailsElement) { goal.open = true; goal.scrollIntoView(); }
};
addEventListener("hashchange", unfold);
unfold();
