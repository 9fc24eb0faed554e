// Pictures, each with a text that says the same.

import { element, shape } from "./dom.js";

const HEIGHT = 84;
const BAR = 7;
const NAMES = { F: "full", i: "incremental", d: "differential", "?": "locked", "!": "flawed", x: "lost" };
const CLASSES = { F: "full", i: "incr", d: "diff", "?": "warn", "!": "warn", x: "bad" };

function drawing(width, height, label, ...parts) {
  return shape(
    "svg",
    { viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-label": label },
    ...parts,
  );
}

function counted(words) {
  const counts = new Map();
  for (const word of words) counts.set(word, (counts.get(word) ?? 0) + 1);
  return [...counts].map(([word, count]) => `${count} ${word}`).join(", ");
}

// Where points lie in time, and how large they are.
export function time(points, selected, width, choose) {
  if (points.length === 0) return [];
  const times = points.map(([ms]) => ms);
  const [first, last] = [Math.min(...times), Math.max(...times)];
  const most = Math.max(...points.map(([, , stored]) => stored), 1);
  const room = width - 2 * BAR;
  const place = (ms) => (last === first ? room / 2 : ((ms - first) / (last - first)) * room) + BAR;
  const thick = Math.max(2, Math.min(BAR, room / points.length / 1.5));
  const base = HEIGHT - 6;
  const bars = points.map(([ms, , stored, , sign], at) => {
    // By the square root: an increment is seen beside a full image.
    const height = Math.max(3, Math.sqrt(stored / most) * (base - 14));
    const kind = `${CLASSES[sign]}${at === selected ? " selected" : ""}`;
    const bar = shape("rect", {
      class: `bar ${kind}`,
      x: place(ms) - thick / 2,
      y: base - height,
      width: thick,
      height,
      rx: Math.min(2, thick / 3),
    });
    const isOdd = "?!x".includes(sign);
    const mark = isOdd
      ? shape(
          "text",
          { class: `mark ${CLASSES[sign]}`, x: place(ms), y: base - height - 3, "text-anchor": "middle" },
          sign,
        )
      : null;
    return shape("g", {}, bar, mark);
  });
  const here = points[selected];
  const arrow = here
    ? shape("path", { class: "arrow", d: `M${place(here[0]) - 4} ${HEIGHT}l4 -5l4 5z` })
    : null;
  const sizes = [...points].sort((a, b) => a[2] - b[2]);
  const range = `stored from ${sizes[0][3].trim()} to ${sizes.at(-1)[3].trim()}`;
  const kinds = counted(points.map((point) => NAMES[point[4]]));
  const label = `${points.length} points from ${points[0][1]} to ${points.at(-1)[1]}: ${kinds}; ${range}`;
  const line = shape("path", { class: "axis", d: `M0 ${base}H${width}` });
  const made = drawing(width, HEIGHT, label, line, ...bars, arrow);
  made.addEventListener("click", (event) => {
    const x = event.clientX - made.getBoundingClientRect().left;
    const far = (at) => Math.abs(place(points[at][0]) - x);
    choose(points.reduce((best, _, at) => (far(at) < far(best) ? at : best), 0));
  });
  const signs = [...new Set(points.map((point) => point[4]))];
  const legend = signs.map((sign) => element("span", { class: `key ${CLASSES[sign]}` }, NAMES[sign]));
  const caption = element(
    "figcaption",
    {},
    element("span", {}, points[0][1]),
    element("span", { class: "legend" }, ...legend, element("span", {}, range)),
    element("span", {}, points.at(-1)[1]),
  );
  return [made, caption];
}

// How partitions share a disk.
export function disk({ len, size, parts }, selected, width, choose) {
  const height = 46;
  const at = (byte) => (byte / Math.max(len, 1)) * width;
  const boxes = parts.map(([row, name, holds, start, bytes, text]) => {
    const x = at(start);
    const wide = Math.max(3, Math.min(at(bytes), width - x));
    const parts = [
      shape("rect", {
        class: `part ${row === selected ? "selected" : ""}`,
        x: x + 0.5,
        y: 0.5,
        width: Math.max(2, wide - 1),
        height: height - 1,
        rx: 4,
      }),
    ];
    const words = [
      [`${name} ${holds}`, 19, "strong"],
      [text.trim(), 36, ""],
    ];
    for (const [word, y, kind] of words) {
      if (word.length * 7.2 + 14 < wide)
        parts.push(
          shape("text", { class: `in ${kind} ${row === selected ? "selected" : ""}`, x: x + 8, y }, word),
        );
    }
    const group = shape("g", {}, ...parts);
    group.addEventListener("click", () => choose(row));
    return group;
  });
  const names = parts.map(([, name, holds, , , text]) => `${name} ${holds} ${text.trim()}`).join(", ");
  const free = shape("rect", {
    class: "unused",
    x: 0.5,
    y: 0.5,
    width: width - 1,
    height: height - 1,
    rx: 4,
  });
  const label = `Disk of ${size.trim()}: ${names || "no partitions"}`;
  const caption = element("figcaption", {}, element("span", {}, "0"), element("span", {}, size.trim()));
  return [drawing(width, height, label, free, ...boxes), caption];
}

const CELL_MIN = 9;
const CELL_MAX = 24;
// A shape for each kind, so that colours are not all that tells them apart.
const SHAPES = {
  free: "m3 3h2v2h-2z",
  zero: "m1 1h6v6h-6zm1.2 1.2v3.6h3.6v-3.6z",
  used: "m.5 .5h7v7h-7z",
  changed: "m.5 .5h7v7h-7z",
  delta: "m.5 7.5l3.5 -7l3.5 7z",
  unreadable: "m.5 2l1.5 -1.5l2 2l2 -2l1.500 1.500l-2 2l2 2l-1.500 1.500l-2 -2l-2 2l-1.500 -1.500l2 -2z",
};

export function cellsFor(width, height) {
  return Math.max(64, Math.floor(width / CELL_MIN) * Math.floor(height / CELL_MIN));
}

// The blocks of a point, from the first to the last.
export function blocks({ cells, size, runs, legend }, width, height) {
  // Few cells are drawn large, as far as they fit.
  let cell = CELL_MAX;
  while (cell > CELL_MIN && Math.ceil(cells / Math.floor(width / cell)) * cell > height) cell -= 1;
  const columns = Math.max(1, Math.floor(width / cell));
  const paths = new Map();
  let at = 0;
  for (const [kind, count] of runs) {
    let path = paths.get(kind) ?? "";
    for (const end = at + count; at < end; at += 1) {
      if (SHAPES[kind]) path += `M${(at % columns) * 8} ${Math.floor(at / columns) * 8}${SHAPES[kind]}`;
    }
    paths.set(kind, path);
  }
  const shapes = [...paths].map(([kind, d]) =>
    shape("path", { class: `block ${kind}`, d, "fill-rule": "evenodd" }),
  );
  const said = legend.map(([kind, bytes]) => `${kind} ${bytes.trim()}`).join(", ");
  const rows = Math.ceil(cells / columns);
  const keys = legend.map(([kind, bytes]) =>
    element(
      "span",
      { class: "key" },
      shape(
        "svg",
        { viewBox: "0 0 8 8", width: 12, height: 12, "aria-hidden": "true" },
        shape("path", { class: `block ${kind}`, d: `M0 0${SHAPES[kind]}`, "fill-rule": "evenodd" }),
      ),
      ` ${kind} ${bytes.trim()}`,
    ),
  );
  const caption = element("figcaption", { class: "blocks" }, ...keys);
  const made = drawing(
    columns * cell,
    rows * cell,
    `Blocks of ${size.trim()}, ${cells} cells: ${said}`,
    ...shapes,
  );
  made.setAttribute("viewBox", `0 0 ${columns * 8} ${rows * 8}`);
  return [caption, made];
}
