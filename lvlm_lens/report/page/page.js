"use strict";
// Sortable tables, the light and dark switch, and the linked views of a sweep.  Every string of the data is put into the
// page as text, never as markup.  Nothing is loaded from anywhere.
(function () {
  const root = document.documentElement;
  document.getElementById("theme").addEventListener("click", () => {
    const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
    if (redraw) redraw();
  });
  let redraw = null;

  for (const table of document.querySelectorAll("table.sortable")) {
    table.querySelectorAll("th button").forEach((button, column) => button.addEventListener("click", () => {
      const head = button.parentElement, up = head.getAttribute("aria-sort") !== "ascending";
      table.querySelectorAll("th").forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      const key = (row) => {
        const text = row.children[column].dataset.key, number = Number(text === "-inf" ? "-Infinity" : text);
        return Number.isNaN(number) ? text : number;
      };
      const body = table.tBodies[0];
      [...body.rows].sort((a, b) => {
        const x = key(a), y = key(b);
        const order = typeof x === "number" && typeof y === "number" ? x - y : String(x).localeCompare(String(y));
        return up ? order : -order;
      }).forEach((row) => body.append(row));
    }));
  }
  addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((d) => { d.open = true; }));

  const holder = document.getElementById("data");
  if (!holder || !document.getElementById("explorer")) return;
  const data = JSON.parse(holder.textContent), explore = data.explore;
  const blocks = explore.blocks, items = explore.items;
  const get = (id) => document.getElementById(id);
  const colour = (name) => getComputedStyle(root).getPropertyValue("--" + name).trim();
  const state = { at: 0, shown: new Set(), chosen: null, group: "all", category: "", hover: null, drag: null, listed: 48 };
  const NS = "http://www.w3.org/2000/svg";
  function svg(name, attributes, text) {
    const node = document.createElementNS(NS, name);
    for (const [key, value] of Object.entries(attributes || {})) node.setAttribute(key, value);
    if (text !== undefined) node.textContent = text;
    return node;
  }
  function element(name, attributes, ...children) {
    const node = document.createElement(name);
    for (const [key, value] of Object.entries(attributes || {})) node.setAttribute(key, value);
    node.append(...children);
    return node;
  }
  const two = (value) => (value === null || value === undefined ? "-" : value.toFixed(2));

  // -- curves ---------------------------------------------------------------------------------
  let W = 900;
  const H = 270, LEFT = 40, RIGHT = 88, TOP = 12, BOTTOM = 34;
  const across = (block) => LEFT + (W - LEFT - RIGHT) * (data.depth < 2 ? 0.5 : block / (data.depth - 1));
  const bars = new Set();
  data.curves.forEach((curve) => {
    if (curve.null) bars.add("shuffled labels");
    Object.keys(curve.baselines).forEach((name) => bars.add(name.replaceAll("_", " ")));
  });
  [...bars].forEach((name) => {
    const box = element("input", { type: "checkbox" });
    box.addEventListener("change", () => { box.checked ? state.shown.add(name) : state.shown.delete(name); drawCurves(); });
    get("switches").append(element("label", {}, box, " " + name));
  });
  const DASH = ["4 3", "2 2", "6 2", "1 3", "8 3", "3 5"];
  function drawCurves() {
    W = Math.max(320, get("curves").clientWidth || 900);
    const picture = svg("svg", { viewBox: `0 0 ${W} ${H}` });
    let low = 0.4;
    data.curves.forEach((c) => c.low.forEach((v) => { if (v !== null) low = Math.min(low, v); }));
    const up = (v) => TOP + (H - TOP - BOTTOM) * (1 - (v - low) / (1 - low));
    for (let v = Math.ceil(low * 10) / 10; v <= 1.0001; v += 0.1) {
      picture.append(svg("line", { x1: LEFT, x2: W - RIGHT, y1: up(v), y2: up(v), stroke: colour("line"), "stroke-width": 0.7 }));
      picture.append(svg("text", { x: LEFT - 6, y: up(v) + 4, "text-anchor": "end" }, v.toFixed(1)));
    }
    const step = Math.max(1, Math.ceil(data.depth / (W / 50)));
    for (let b = 0; b < data.depth; b += step) {
      picture.append(svg("text", { x: across(b), y: H - 16, "text-anchor": "middle" }, String(b)));
    }
    picture.append(svg("text", { x: (LEFT + W) / 2, y: H - 2, "text-anchor": "middle" }, "decoder block"));
    const path = (xs, values) => xs.map((b, i) => (values[i] === null ? "" : `${across(b)},${up(Math.max(low, values[i]))}`)).join(" ");
    const ends = [];  // where the names stand at the right, pushed apart where they would touch
    data.curves.map((curve, number) => [up(curve.value[curve.value.length - 1]), number]).sort((a, b) => a[0] - b[0])
      .reduce((last, [y, number]) => { ends[number] = Math.max(y + 4, last + 13); return ends[number]; }, -99);
    const here = blocks[state.at];
    picture.append(svg("line", { x1: across(here), x2: across(here), y1: TOP, y2: H - BOTTOM, stroke: colour("ink"), "stroke-width": 1.4 }));
    data.curves.forEach((curve, number) => {
      const paint = colour(curve.name);
      const band = path(curve.blocks, curve.high) + " " + path([...curve.blocks].reverse(), [...curve.low].reverse());
      picture.append(svg("polygon", { points: band, fill: paint, opacity: 0.15 }));
      const beside = Object.entries(curve.baselines).map(([name, values]) => [name.replaceAll("_", " "), values]);
      if (curve.null) beside.push(["shuffled labels", curve.null]);
      beside.forEach(([name, values], place) => {
        if (!state.shown.has(name)) return;
        picture.append(svg("polyline", { points: path(curve.blocks, values), fill: "none", stroke: paint, "stroke-width": 1.2, "stroke-dasharray": DASH[place % DASH.length] }));
      });
      picture.append(svg("polyline", { points: path(curve.blocks, curve.value), fill: "none", stroke: paint, "stroke-width": 2.4 }));
      const name = svg("text", { x: W - RIGHT + 8, y: ends[number], style: `fill:${paint}` }, curve.name);
      picture.append(name);
      const role = data.roles[curve.name];
      if (role && role.found) {
        const y = TOP + 6 + 7 * number;
        picture.append(svg("line", { x1: across(role.onset_low), x2: across(role.onset_high), y1: y, y2: y, stroke: paint, "stroke-width": 2 }));
        picture.append(svg("rect", { x: across(role.onset) - 3.5, y: y - 3.5, width: 7, height: 7, fill: paint }));
      }
      curve.blocks.forEach((b, i) => {
        const spot = svg("circle", { cx: across(b), cy: up(curve.value[i]), r: 4.5, fill: paint, opacity: b === here ? 1 : 0.01 });
        spot.append(svg("title", {}, `${curve.name}, block ${b}: ${two(curve.value[i])} [${two(curve.low[i])}, ${two(curve.high[i])}]`));
        spot.addEventListener("click", () => go(blocks.indexOf(b)));
        picture.append(spot);
      });
    });
    get("curves").replaceChildren(picture);
  }

  // -- items ----------------------------------------------------------------------------------
  const canvas = get("items"), pen = canvas.getContext("2d"), PAD = 18;
  const place = (item) => {
    const [x, y] = item.xy[state.at];
    return [PAD + (canvas.width - 2 * PAD) * (x + 1) / 2, PAD + (canvas.height - 2 * PAD) * (1 - (y + 1) / 2)];
  };
  const GROUPS = {
    all: ["all items", () => true],
    harmful: ["harmful", (i) => i.harmful],
    harmless: ["harmless", (i) => !i.harmful],
    missed: ["harmful, perceived and not refused", (i) => i.harmful && i.perceived && !i.refused],
    unseen: ["harmful, not perceived", (i) => i.harmful && !i.perceived],
    refused: ["harmful, refused", (i) => i.harmful && i.refused],
    over: ["harmless, refused", (i) => !i.harmful && i.refused],
    alarm: ["harmless, perceived as harmful", (i) => !i.harmful && i.perceived],
  };
  const inside = (item, number) => GROUPS[state.group][1](item) && (!state.category || item.category === state.category)
    && (!state.chosen || state.chosen.has(number));
  function drawItems() {
    pen.clearRect(0, 0, canvas.width, canvas.height);
    const paints = { true: colour("harmful"), false: colour("harmless") };
    const active = items.map(inside);
    for (const front of [false, true]) {
      items.forEach((item, number) => {
        if (active[number] !== front) return;
        const [x, y] = place(item);
        pen.globalAlpha = front ? 0.8 : 0.1;
        pen.fillStyle = paints[item.harmful];
        pen.beginPath(); pen.arc(x, y, front ? 3.6 : 2.6, 0, 7); pen.fill();
        if (item.refused) { pen.strokeStyle = paints[item.harmful]; pen.lineWidth = 1; pen.beginPath(); pen.arc(x, y, 6, 0, 7); pen.stroke(); }
      });
    }
    pen.globalAlpha = 1;
    if (state.hover !== null) {
      const [x, y] = place(items[state.hover]);
      pen.strokeStyle = colour("ink"); pen.lineWidth = 2; pen.beginPath(); pen.arc(x, y, 9, 0, 7); pen.stroke();
    }
    if (state.drag) {
      const { x0, y0, x1, y1 } = state.drag;
      pen.strokeStyle = colour("ink"); pen.lineWidth = 1; pen.strokeRect(Math.min(x0, x1), Math.min(y0, y1), Math.abs(x1 - x0), Math.abs(y1 - y0));
    }
  }
  const spot = (event) => {
    const box = canvas.getBoundingClientRect();
    return [(event.clientX - box.left) * canvas.width / box.width, (event.clientY - box.top) * canvas.height / box.height];
  };
  function nearest(x, y) {
    let best = null, distance = 144;
    items.forEach((item, number) => {
      if (!inside(item, number)) return;
      const [a, b] = place(item), d = (a - x) ** 2 + (b - y) ** 2;
      if (d < distance) { distance = d; best = number; }
    });
    return best;
  }
  canvas.addEventListener("pointerdown", (event) => {
    const [x, y] = spot(event);
    canvas.setPointerCapture(event.pointerId);
    state.drag = { x0: x, y0: y, x1: x, y1: y };
  });
  canvas.addEventListener("pointermove", (event) => {
    const [x, y] = spot(event);
    if (state.drag) { state.drag.x1 = x; state.drag.y1 = y; drawItems(); return; }
    const found = nearest(x, y);
    if (found !== state.hover) { state.hover = found; if (found !== null) read(found); drawItems(); }
  });
  canvas.addEventListener("pointerup", () => {
    const { x0, y0, x1, y1 } = state.drag || { x0: 0, y0: 0, x1: 0, y1: 0 };
    state.drag = null;
    if (Math.abs(x1 - x0) + Math.abs(y1 - y0) > 12) {
      const [left, right, top, bottom] = [Math.min(x0, x1), Math.max(x0, x1), Math.min(y0, y1), Math.max(y0, y1)];
      const caught = items.map((item, number) => number).filter((number) => {
        const [a, b] = place(items[number]);
        return a >= left && a <= right && b >= top && b <= bottom;
      });
      state.chosen = caught.length ? new Set(caught) : null;
      state.listed = 48;
      drawItems(); drawGallery();
    } else {
      drawItems();
    }
  });
  function read(number) {
    const item = items[number], parts = [];
    if (item.picture !== null) parts.push(element("img", { src: explore.pictures[item.picture], alt: "picture of the item" }));
    parts.push(element("p", {}, item.text));
    const list = element("dl", {});
    const rows = [["item", item.id], ["category", item.category || "-"], ["picture, words, together", item.labels],
      ["probe score here", two(item.score[state.at]) + " (above 0: harmful)"],
      ["perceived", item.perceived ? "yes" : "no"], ["answer begins", item.answer], ["refused", item.refused ? "yes" : "no"]];
    rows.forEach(([name, value]) => list.append(element("dt", {}, name), element("dd", {}, value)));
    parts.push(list);
    get("reading").replaceChildren(...parts);
  }

  // -- list -----------------------------------------------------------------------------------
  function drawGallery() {
    const numbers = items.map((item, number) => number).filter((number) => inside(items[number], number));
    get("chosen-count").textContent = `(${numbers.length} of ${items.length} shown)`;
    const cards = numbers.slice(0, state.listed).map((number) => {
      const item = items[number], card = element("button", { type: "button", class: item.harmful ? "h" : "s" });
      if (item.picture !== null) card.append(element("img", { src: explore.pictures[item.picture], alt: "" }));
      card.append(element("span", {}, item.text.length > 90 ? item.text.slice(0, 88) + " ..." : item.text));
      card.addEventListener("click", () => { state.hover = number; read(number); drawItems(); get("reading").scrollIntoView({ block: "nearest" }); });
      return card;
    });
    get("gallery").replaceChildren(...cards);
    get("more").hidden = numbers.length <= state.listed;
  }
  get("more").addEventListener("click", () => { state.listed += 96; drawGallery(); });
  function fill(select, options) { options.forEach(([value, words]) => select.append(element("option", { value }, words))); }
  fill(get("group"), Object.entries(GROUPS).map(([key, [words]]) => [key, `${words} (${items.filter(GROUPS[key][1]).length})`]));
  const categories = [...new Set(items.map((item) => item.category).filter(Boolean))].sort();
  fill(get("category"), [["", "all"], ...categories.map((name) => [name, name])]);
  for (const id of ["group", "category"]) {
    get(id).addEventListener("change", () => { state[id] = get(id).value; state.listed = 48; drawItems(); drawGallery(); });
  }
  function letGo() { state.chosen = null; state.drag = null; drawItems(); drawGallery(); }
  get("clear").addEventListener("click", letGo);
  addEventListener("keydown", (event) => { if (event.key === "Escape") letGo(); });

  // -- patch grid -----------------------------------------------------------------------------
  const directions = [...new Set(data.cells.map((cell) => cell.direction))];
  const WORDS = { denoise: "denoising: the corrupted run, with a state of the clean one", noise: "noising: the clean run, with a state of the corrupted one" };
  fill(get("direction"), directions.map((name) => [name, WORDS[name] || name]));
  if (!directions.length) get("grid-part").hidden = true;
  get("direction").addEventListener("change", drawGrid);
  function tone(effect) {
    const share = Math.max(-1, Math.min(1, effect)), rest = Math.round(255 * (1 - Math.abs(share)));
    return share >= 0 ? `rgb(${rest + Math.round((255 - rest) * 0.05)},${Math.round(rest * 0.85 + 30)},${Math.round(rest * 0.7 + 75)})` : `rgb(${Math.round(rest * 0.5 + 127)},${rest},${rest})`;
  }
  function drawGrid() {
    const cells = data.cells.filter((cell) => cell.direction === get("direction").value);
    if (!cells.length) return;
    const rows = [...new Set(cells.map((cell) => cell.position))], label = 92, high = 22;
    const columns = [...new Set(cells.map((cell) => cell.block))].sort((a, b) => a - b);
    const wide = (W - label - 6) / columns.length;
    const picture = svg("svg", { viewBox: `0 0 ${W} ${rows.length * high + 26}`, role: "img", "aria-label": "effect of patching by block and position; the table below the figure of patching holds the same values" });
    rows.forEach((name, row) => picture.append(svg("text", { x: label - 8, y: row * high + 15, "text-anchor": "end" }, name)));
    columns.forEach((block, column) => {
      if (column % Math.max(1, Math.ceil(columns.length / (W / 50))) === 0) picture.append(svg("text", { x: label + (column + 0.5) * wide, y: rows.length * high + 16, "text-anchor": "middle" }, String(block)));
    });
    const here = blocks[state.at];
    cells.forEach((cell) => {
      const box = svg("rect", { x: label + columns.indexOf(cell.block) * wide + 0.5, y: rows.indexOf(cell.position) * high + 0.5, width: wide - 1, height: high - 1, fill: cell.survives ? tone(cell.effect) : colour("card"), stroke: cell.survives ? "none" : colour("line") });
      const words = `${cell.position}, block ${cell.block}: ${two(cell.effect)} [${two(cell.low)}, ${two(cell.high)}] of the difference, adjusted p ${cell.adjusted === null ? "-" : cell.adjusted.toPrecision(2)}${cell.survives ? "" : " (does not survive)"}`;
      box.append(svg("title", {}, words));
      box.addEventListener("pointerenter", () => { get("grid-says").textContent = words; });
      picture.append(box);
    });
    if (columns.includes(here)) picture.append(svg("rect", { x: label + columns.indexOf(here) * wide, y: 0, width: wide, height: rows.length * high, fill: "none", stroke: colour("ink"), "stroke-width": 2 }));
    get("grid").replaceChildren(picture);
  }

  // -- the block ------------------------------------------------------------------------------
  const slider = get("block");
  slider.max = blocks.length - 1;
  function go(at) {
    state.at = at;
    slider.value = at;
    get("block-name").textContent = `${blocks[at]} of ${data.depth}`;
    slider.setAttribute("aria-valuetext", `block ${blocks[at]} of ${data.depth}`);
    get("block-says").textContent = data.curves.map((curve) => {
      const i = curve.blocks.indexOf(blocks[at]);
      return i < 0 ? "" : `${curve.name} ${two(curve.value[i])} [${two(curve.low[i])}, ${two(curve.high[i])}]`;
    }).filter(Boolean).join(";  ");
    drawCurves(); drawItems(); drawGrid();
    if (state.hover !== null) read(state.hover);
  }
  let waiting = 0;
  addEventListener("resize", () => { clearTimeout(waiting); waiting = setTimeout(() => { drawCurves(); drawGrid(); }, 100); });
  slider.addEventListener("input", () => go(Number(slider.value)));
  redraw = () => { go(state.at); drawGallery(); };
  const start = data.roles.perception && data.roles.perception.found ? blocks.indexOf(data.roles.perception.onset) : blocks.length >> 1;
  go(Math.max(0, start));
  drawGallery();
})();
