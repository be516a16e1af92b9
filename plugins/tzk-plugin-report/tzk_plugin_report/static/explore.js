"use strict";
(() => {
  const live = JSON.parse(document.getElementById("data").textContent).live;
  const token = new URLSearchParams(location.search).get("token");
  const by_id = (id) => document.getElementById(id);
  const status = by_id("live-status");
  let seed = 0, running = false, again = false;

  async function ask(path, body) {
    const response = await fetch(path, {
      method: "POST", headers: { "Content-Type": "application/json", "X-TzK-Token": token }, body: JSON.stringify(body),
    });
    const answer = await response.json();
    if (!response.ok) throw new Error(answer.error);
    return answer;
  }
  function chosen(how) {
    return [...document.querySelectorAll("select[data-type]")].filter((s) => s.value === how).map((s) => s.dataset.type);
  }
  function sliders() {
    const place = by_id("live-sliders");
    const present = chosen("and");
    for (const box of [...place.children]) if (!present.includes(box.dataset.of)) box.remove();
    for (const name of present) {
      const type = live.types.find((t) => t.name === name);
      if (!type.axes.length || [...place.children].some((box) => box.dataset.of === name)) continue;
      const box = document.createElement("fieldset");
      box.dataset.of = name;
      const legend = document.createElement("legend");
      const fixed = document.createElement("input");
      fixed.type = "checkbox";
      const words = document.createElement("label");
      words.append(fixed, ` fix C of ${name}`);
      legend.append(words);
      box.append(legend);
      type.axes.forEach((axis, i) => {
        const label = document.createElement("label");
        const shown = document.createElement("output");
        const range = document.createElement("input");
        const [low, high] = [type.middle[i] - 3 * type.scale[i], type.middle[i] + 3 * type.scale[i]];
        Object.assign(range, { type: "range", min: low, max: high, step: (high - low) / 60, value: type.middle[i] });
        shown.textContent = Number(range.value).toPrecision(3);
        range.addEventListener("input", () => { shown.textContent = Number(range.value).toPrecision(3); fixed.checked = true; });
        label.append(`${axis} `, shown, document.createElement("br"), range, document.createElement("br"));
        box.append(label);
      });
      place.append(box);
    }
  }
  function characteristics() {
    const C = {};
    for (const box of by_id("live-sliders").children) {
      if (box.querySelector("[type=checkbox]").checked) C[box.dataset.of] = [...box.querySelectorAll("[type=range]")].map((r) => Number(r.value));
    }
    return C;
  }
  function picture(sprite, alt) {
    const image = document.createElement("img");
    [image.src, image.alt] = [sprite.uri, alt];
    return image;
  }
  async function draw() {
    if (running) { again = true; return; }
    running = true;
    status.textContent = "decoding …";
    try {
      const answer = await ask("/sample", {
        present: chosen("and"), absent: chosen("not"), characteristics: characteristics(),
        temperature: Number(by_id("temperature").value), seed, count: 32,
      });
      if (answer.sprite) by_id("live-picture").replaceChildren(picture(answer.sprite, answer.caption));
      else {
        const list = document.createElement("pre");
        list.textContent = answer.rows.map((row) => row.join("  ")).join("\n");
        by_id("live-picture").replaceChildren(list);
      }
      by_id("live-caption").textContent = answer.caption;
      status.textContent = "\u00a0";
    } catch (error) { status.textContent = error.message; }
    running = false;
    if (again) { again = false; draw(); }
  }
  by_id("live-form").addEventListener("submit", (event) => event.preventDefault());
  by_id("live-form").addEventListener("change", (event) => {
    if (event.target.tagName !== "SELECT") return;
    sliders();
    draw();
  });
  by_id("live-form").addEventListener("input", (event) => {
    if (event.target.tagName === "SELECT") return; // a choice is a change
    by_id("temperature-value").textContent = by_id("temperature").value;
    draw();
  });
  by_id("again").addEventListener("click", () => { seed += 1; draw(); });

  const drop = by_id("drop");
  if (drop) {
    const show = async (file) => {
      const place = by_id("posterior");
      place.textContent = "reading …";
      try {
        const bytes = new Uint8Array(await file.arrayBuffer());
        let text = "";
        for (let i = 0; i < bytes.length; i += 8192) text += String.fromCharCode(...bytes.subarray(i, i + 8192));
        const like = by_id("like") ? by_id("like").value : null;
        const answer = await ask("/posterior", { content: btoa(text), name: file.name, like });
        const score = document.createElement("p");
        score.textContent = `Score: ${answer.bits_per_dim.toFixed(3)} bits/dim of p(T). The knowledge that it shows best:`;
        const list = document.createElement("ol");
        for (const best of answer.best) {
          const item = document.createElement("li");
          const C = best.axes.map((axis, i) => `${axis} = ${best.C[i]} ± ${best.deviation[i]}`).join(", ");
          item.textContent = `${best.name}: p(κ=1 given T) = ${best.presence.toFixed(3)}, ${best.gain_nats.toFixed(1)} nats over the prior` + (C ? `; C: ${C}` : "");
          list.append(item);
        }
        const image = picture(answer.sprite, `${file.name}, as the model reads it`);
        image.style.cssText = "width:8rem;image-rendering:pixelated";
        place.replaceChildren(image, score, list);
      } catch (error) { place.textContent = error.message; }
    };
    drop.addEventListener("dragover", (event) => { event.preventDefault(); drop.classList.add("over-it"); });
    drop.addEventListener("dragleave", () => drop.classList.remove("over-it"));
    drop.addEventListener("drop", (event) => {
      event.preventDefault();
      drop.classList.remove("over-it");
      if (event.dataTransfer.files.length) show(event.dataTransfer.files[0]);
    });
    by_id("file").addEventListener("change", (event) => { if (event.target.files.length) show(event.target.files[0]); });
  }
  draw();
})();
