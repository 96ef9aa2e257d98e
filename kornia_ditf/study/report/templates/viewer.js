"use strict";
const COLOURS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#444444"];

/** Make an SVG element. */
function svg(name, attributes, text) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  return made;
}

/** Run one viewer: `root` holds its controls and, as JSON, what it shows (report/viewer.py). */
function start(root) {
  const data = JSON.parse(root.querySelector("script").textContent);
  const select = root.querySelector("select"), stage = root.querySelector(".stage");
  const canvases = root.querySelectorAll("svg"), body = root.querySelector("tbody");
  let pair, points, chosen = 0;
  data.pairs.forEach((each, place) => select.add(new Option(each.name, place)));

  const distance = (a, b) => Math.hypot(a[0] - b[0], a[1] - b[1]);
  const unit = (side) => Math.max(...data.images[pair.images[side]].size) / 100;
  const from = (row) => [row[0], row[1]], found = (row) => [row[2], row[3]];
  const truth = (row) => [row[4], row[5]];

  /** Return each descriptor's row for a place in A; null where it has no match near it. */
  function answers(place) {
    return pair.answers.map((rows) => {
      let best = null;
      for (const row of rows)
        if (!best || distance(from(row), place) < distance(from(best), place)) best = row;
      return best && distance(from(best), place) <= 2 * unit(0) ? best : null;
    });
  }

  function show(number) {
    pair = data.pairs[number];
    select.value = number;
    const seen = new Map();
    for (const rows of pair.answers) for (const row of rows) seen.set(String(from(row)), from(row));
    points = [...seen.values()].map((place) => {
      const rows = answers(place).filter(Boolean);
      return { place, right: rows.filter((row) => row[6]).length, of: rows.length };
    });
    choose(0);
  }

  function choose(number) {
    chosen = points.length ? (number + points.length) % points.length : 0;
    draw();
  }

  function mark(canvas, side, at, number, right, colour) {
    const u = unit(side), r = 2.2 * u;
    const style = { fill: colour, stroke: "#fff", "stroke-width": 0.4 * u };
    canvas.append(right
      ? svg("circle", { cx: at[0], cy: at[1], r, ...style })
      : svg("rect", { x: at[0] - r, y: at[1] - r, width: 2 * r, height: 2 * r, ...style }));
    canvas.append(svg("text", { x: at[0], y: at[1], "font-size": 2.8 * u, fill: "#fff",
      "text-anchor": "middle", "dominant-baseline": "central" }, number));
  }

  function draw() {
    canvases.forEach((canvas, side) => {
      const image = data.images[pair.images[side]], [width, height] = image.size;
      canvas.setAttribute("viewBox", `-0.5 -0.5 ${width} ${height}`);
      canvas.replaceChildren(svg("rect", { x: -0.5, y: -0.5, width, height, fill: "#e8ebef" }));
      if (image.src) canvas.append(svg("image", { href: image.src, x: -0.5, y: -0.5, width, height }));
    });
    const [a, b] = canvases, u = unit(0);
    points.forEach((point, place) => {
      const full = point.right === point.of, none = point.right === 0;
      a.append(svg("circle", { cx: point.place[0], cy: point.place[1], r: (place === chosen ? 2.6 : points.length > 120 ? 0.8 : 1.3) * u,
        fill: none ? "#fff" : full ? "#1d8f47" : "#d58a00", "fill-opacity": none ? 0.6 : 0.9,
        stroke: none ? "#cf3a2f" : "#fff", "stroke-width": (points.length > 120 ? 0.3 : 0.5) * u }));
    });
    if (!points.length) {
      root.querySelector(".said").textContent = `${pair.name}: no descriptor or matcher has a match here.`;
      return body.replaceChildren();
    }
    const point = points[chosen].place;
    a.append(svg("circle", { cx: point[0], cy: point[1], r: 4.5 * u, fill: "none", stroke: "#fff", "stroke-width": 1.4 * u }));
    a.append(svg("circle", { cx: point[0], cy: point[1], r: 4.5 * u, fill: "none", stroke: "#0b5c94", "stroke-width": 0.8 * u }));

    const rows = answers(point), v = unit(1);
    rows.forEach((row, place) => {
      if (!row) return;
      const [x, y] = found(row), [tx, ty] = truth(row), stroke = COLOURS[place % COLOURS.length];
      b.append(svg("line", { x1: x, y1: y, x2: tx, y2: ty, stroke, "stroke-width": 0.5 * v }));
    });
    for (const [x, y] of new Map(rows.filter(Boolean).map((row) => [String(truth(row)), truth(row)])).values())
      for (const [colour, width] of [["#fff", 1.6], ["#000", 0.7]])
        b.append(svg("path", { d: `M${x - 4 * v} ${y}H${x + 4 * v}M${x} ${y - 4 * v}V${y + 4 * v}`,
          stroke: colour, "stroke-width": width * v, fill: "none" }));
    rows.forEach((row, place) => {
      if (row) mark(b, 1, found(row), place + 1, row[6], COLOURS[place % COLOURS.length]);
    });
    tell(rows);
  }

  function tell(rows) {
    const known = rows.filter(Boolean), right = known.filter((row) => row[6]).length;
    root.querySelector(".said").textContent =
      `${pair.name}: point ${chosen + 1} of ${points.length}, at (${points[chosen].place.join(", ")}) in A; ` +
      `right for ${right} of ${rows.length}.`;
    body.replaceChildren(...rows.map((row, place) => {
      const line = document.createElement("tr");
      const cells = [place + 1, data.names[place], "-", "-", "no match here"];
      if (row) {
        cells.splice(2, 3, `(${found(row).map((each) => each.toFixed(1)).join(", ")})`,
          distance(found(row), truth(row)).toFixed(1), row[6] ? "✓ right" : "✗ wrong");
      }
      cells.forEach((text, column) => {
        const cell = line.insertCell();
        cell.textContent = text;
        if (column === 1 || column === 4) cell.className = "name";
        if (column === 4 && row) cell.classList.add(row[6] ? "right" : "wrong");
        if (column === 0) cell.style.borderLeft = `6px solid ${COLOURS[place % COLOURS.length]}`;
      });
      return line;
    }));
  }

  /** Choose the point that belongs to what is nearest to a click. */
  function pick(event, side) {
    const box = canvases[side].getBoundingClientRect();
    const [width, height] = data.images[pair.images[side]].size;
    const at = [(event.clientX - box.left) / box.width * width - 0.5,
      (event.clientY - box.top) / box.height * height - 0.5];
    let best = null;
    for (const row of pair.answers.flat())
      for (const place of side ? [found(row), truth(row)] : [from(row)])
        if (!best || distance(place, at) < best.far) best = { row, far: distance(place, at) };
    if (best) choose(points.findIndex((each) => String(each.place) === String(from(best.row))));
  }

  canvases.forEach((canvas, side) => canvas.addEventListener("click", (event) => pick(event, side)));
  select.addEventListener("change", () => show(Number(select.value)));
  root.querySelectorAll("button").forEach((button) =>
    button.addEventListener("click", () => choose(chosen + Number(button.dataset.step))));
  stage.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    const turn = { ArrowUp: -1, ArrowDown: 1 }[event.key];
    if (step) choose(chosen + step);
    else if (turn) show((Number(select.value) + turn + data.pairs.length) % data.pairs.length);
    else return;
    event.preventDefault();
  });
  root.hidden = false;
  show(0);
}

document.querySelectorAll(".viewer").forEach(start);
