"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  // Tables: a click on a heading sorts by it, a second one the other way.
  for (const table of document.querySelectorAll("table.sortable")) {
    const headings = [...table.tHead.rows[0].cells];
    headings.forEach((heading, column) => {
      heading.setAttribute("aria-sort", "none");
      heading.querySelector("button").addEventListener("click", () => {
        const down = heading.getAttribute("aria-sort") === "ascending";
        headings.forEach((other) => other.setAttribute("aria-sort", "none"));
        heading.setAttribute("aria-sort", down ? "descending" : "ascending");
        const body = table.tBodies[0];
        const key = (row) => row.cells[column].dataset.value;
        const compare = (a, b) => {
          const [x, y] = [key(a), key(b)];
          if (x !== undefined && y !== undefined) return (down ? -1 : 1) * (Number(x) - Number(y));
          if (x !== undefined || y !== undefined) return x !== undefined ? -1 : 1; // what is not known comes last
          return (down ? -1 : 1) * text_of(a, column).localeCompare(text_of(b, column), "en", { numeric: true });
        };
        body.append(...[...body.rows].sort(compare));
      });
    });
  }
  function text_of(row, column) { return row.cells[column].textContent; }

  // Curves: one chart a panel, drawn again where width or theme change.
  const charts = new Map();
  function draw_charts() {
    for (const panel of data.curves || []) {
      const place = document.querySelector(`.plot[data-key="${panel.key}"]`);
      const before = charts.get(panel.key);
      const range = before && [before.scales.x.min, before.scales.x.max];
      if (before) before.destroy();
      const entities = [...new Set(panel.series.map((s) => s.label.replace(", validation", "")))];
      const axis = { stroke: colour("--text"), grid: { stroke: colour("--line"), width: 0.5 }, ticks: { stroke: colour("--line") } };
      const series = panel.series.map((s) => {
        const index = entities.indexOf(s.label.replace(", validation", ""));
        const style = Math.floor(index / 6) % 3; // six colours, then the same ones dotted, then in dashes and dots
        const dash = s.dashed ? [6, 4] : [[], [2, 3], [10, 3, 2, 3]][style];
        return { label: s.label, style: s.dashed ? 2 : style, stroke: colour(`--c${index % 6}`), width: 1.7, dash, spanGaps: true, points: { show: s.dashed, size: 6 } };
      });
      const options = {
        width: place.clientWidth, height: 290, series: [{ label: "step" }, ...series],
        scales: { x: { time: false } },
        axes: [{ ...axis, label: "step" }, { ...axis, label: panel.unit, size: 58 }],
        cursor: { drag: { x: true, y: false } },
        legend: { markers: { width: 2, dash: (chart, i) => ["solid", "dotted", "dashed"][series[i - 1] ? series[i - 1].style : 0] } },
      };
      const chart = new uPlot(options, [panel.steps, ...panel.series.map((s) => s.values)], place);
      charts.set(panel.key, chart);
      const first = panel.steps[Math.min(panel.steps.length - 2, Math.floor(panel.steps.length / 20))];
      const [low, high] = range || [first, panel.steps[panel.steps.length - 1]];
      chart.setScale("x", { min: low, max: high });
    }
  }
  function zoom(button, from) {
    const { steps } = data.curves.find((panel) => panel.key === button.dataset.key);
    charts.get(button.dataset.key).setScale("x", { min: steps[Math.floor(from * (steps.length - 1))], max: steps[steps.length - 1] });
  }
  if ((data.curves || []).length) {
    draw_charts();
    let width = window.innerWidth;
    window.addEventListener("resize", () => { if (window.innerWidth !== width) { width = window.innerWidth; draw_charts(); } });
    window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw_charts);
    document.querySelectorAll("button.late").forEach((b) => b.addEventListener("click", () => zoom(b, 0.5)));
    document.querySelectorAll("button.whole").forEach((b) => b.addEventListener("click", () => zoom(b, 0)));
    window.tzk_charts = charts;
  }

  // The plane of C: the pointer, or the arrow keys, choose a place; what is decoded there stands beside it.
  const map = document.getElementById("plane-map");
  if (!map) return;
  const by_id = (id) => document.getElementById(id);
  let plane, at = [10, 10];
  const loaded = new Map();
  function image_of(uri) {
    if (!loaded.has(uri)) { const image = new Image(); image.onload = show; image.src = uri; loaded.set(uri, image); }
    return loaded.get(uri);
  }
  function paint(canvas, sprite, index) {
    const image = image_of(sprite.uri);
    if (!image.complete || !image.naturalWidth) return;
    canvas.width = canvas.height = 192;
    canvas.height = Math.round(192 * sprite.height / sprite.width);
    const context = canvas.getContext("2d");
    context.imageSmoothingEnabled = false;
    const [column, row] = [index % sprite.columns, Math.floor(index / sprite.columns)];
    context.drawImage(image, column * (sprite.width + sprite.gap), row * (sprite.height + sprite.gap), sprite.width, sprite.height, 0, 0, canvas.width, canvas.height);
  }
  const number = (value) => Number(value).toPrecision(3);
  function choose(index) {
    plane = data.planes[index];
    at = [Math.floor(plane.columns / 2), Math.floor(plane.rows / 2)];
    map.classList.toggle("strip", plane.rows === 1);
    map.style.backgroundImage = plane.sprite ? `url(${plane.sprite.uri})` : "none";
    map.replaceChildren();
    const mark = document.createElement("b");
    map.append(mark);
    for (const [x, y] of plane.placed ? plane.placed.places : []) {
      const dot = document.createElement("i");
      dot.style.left = `${100 * x}%`; dot.style.top = `${100 * y}%`;
      map.append(dot);
    }
    const [across, upwards] = plane.axes;
    const rest = plane.axes.length > 2 ? `; ${plane.axes.slice(2).join(", ")} in the middle` : "";
    by_id("plane-axis").textContent = `→ ${across}` + (plane.rows > 1 ? `, ↑ ${upwards}` : "") + rest;
    by_id("plane-image").hidden = !plane.sprite;
    show();
  }
  function nearest() {
    const [x, y] = [(at[0] + 0.5) / plane.columns, (at[1] + 0.5) / plane.rows];
    const far = plane.placed.places.map(([u, v]) => (u - x) ** 2 + (plane.rows > 1 ? (v - y) ** 2 : 0));
    return far.indexOf(Math.min(...far));
  }
  const worded = (C) => plane.axes.map((name, i) => `${name} = ${number(C[i])}`).join(", ");
  function show() {
    if (!plane) return;
    const index = at[1] * plane.columns + at[0];
    const mark = map.querySelector("b");
    mark.style.left = `${100 * at[0] / plane.columns}%`; mark.style.width = `${100 / plane.columns}%`;
    mark.style.top = `${100 * at[1] / plane.rows}%`; mark.style.height = `${100 / plane.rows}%`;
    const where = worded(plane.C[index]);
    by_id("plane-where").textContent = `Decoded at ${where}`;
    if (plane.sprite) {
      paint(by_id("plane-image"), plane.sprite, index);
      by_id("plane-image").setAttribute("aria-label", `${plane.name}, decoded at ${where}`);
    } else {
      by_id("plane-values").textContent = plane.T[index].map((value, i) => `${plane.columns_of_T[i]} = ${number(value)}`).join(", ");
      document.querySelectorAll("svg[data-dimension]").forEach((svg) => {
        const [low, high] = [Number(svg.dataset.low), Number(svg.dataset.high)];
        const x = 240 * (plane.T[index][Number(svg.dataset.dimension)] - low) / (high - low);
        const line = svg.querySelector(".here");
        line.setAttribute("x1", x); line.setAttribute("x2", x);
      });
    }
    const placed = plane.placed && plane.placed.places.length;
    by_id("nearest").hidden = !(placed && plane.placed.sprite);
    if (!placed) return;
    const found = nearest();
    map.querySelectorAll("i").forEach((dot, i) => { dot.style.background = i === found ? "#ffffff" : ""; });
    if (plane.placed.sprite) {
      paint(by_id("plane-nearest"), plane.placed.sprite, found);
      by_id("plane-nearest").setAttribute("aria-label", `Test sample of ${plane.name}, encoded to ${worded(plane.placed.C[found])}`);
      by_id("plane-nearest-where").textContent = `Nearest test sample, encoded to ${worded(plane.placed.C[found])}`;
    }
  }
  function point(event) {
    const box = map.getBoundingClientRect();
    const place = (value, count) => Math.max(0, Math.min(count - 1, Math.floor(value * count)));
    at = [place((event.clientX - box.left) / box.width, plane.columns), place((event.clientY - box.top) / box.height, plane.rows)];
    show();
  }
  map.addEventListener("pointermove", point);
  map.addEventListener("pointerdown", point);
  map.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (!step) return;
    event.preventDefault();
    at = [Math.max(0, Math.min(plane.columns - 1, at[0] + step[0])), Math.max(0, Math.min(plane.rows - 1, at[1] + step[1]))];
    show();
  });
  by_id("plane-type").addEventListener("change", (event) => choose(Number(event.target.value)));
  choose(Number(by_id("plane-type").value));
})();
