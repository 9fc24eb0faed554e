// A list or text of any length: only what is seen, and a little around it, is asked for and there.

import { button, capital, element, shape } from "./dom.js";
import { askRows } from "./talk.js";

const PIECE = 128;
const AROUND = 12;
// Characters.
const LEFT_MIN = 6;
const PIECES_KEPT = 24;
const FOLDER = "M1.5 3.5h4.2l1.5 1.8h7.3v7.2h-13z";
const FILE = "M3.5 1.5h6l3 3v10h-9z";

export class List {
  constructor(place, does) {
    this.place = place;
    this.does = does;
    this.scene = null;
    this.selected = 0;
    place.addEventListener("scroll", () => this.draw(), { passive: true });
    new ResizeObserver(() => this.scene && this.layOut()).observe(place);
  }

  // Something else is shown.
  show(scene) {
    this.scene = scene;
    this.pieces = new Map();
    this.isText = scene.columns.length === 0;
    this.isFiles = scene.kind === "folder" || scene.kind === "found";
    // What a row is comes first.
    const others = scene.columns.map((_, at) => at).filter((at) => at !== scene.main);
    this.order = this.isText ? [0] : [scene.main, ...others];
    this.selected = scene.selected ?? -1;
    this.place.replaceChildren();
    this.place.scrollTop = 0;
    this.place.className = this.isText ? "text" : "rows";
    if (this.isText) {
      this.place.setAttribute("role", "region");
      for (const name of ["aria-rowcount", "aria-colcount"]) this.place.removeAttribute(name);
    } else {
      this.place.setAttribute("role", "grid");
      this.place.setAttribute("aria-rowcount", scene.len + 1);
    }
    this.place.removeAttribute("aria-activedescendant");
    this.body = element("div", { class: "body", role: this.isText ? null : "rowgroup" });
    this.head = this.isText ? null : element("div", { class: "head", role: "rowgroup" });
    if (this.head) this.place.append(this.head);
    this.place.append(this.body);
    this.layOut();
    this.see(this.selected);
  }

  // As many columns as there is room for.
  layOut() {
    const { scene } = this;
    const style = getComputedStyle(this.place);
    this.height = parseFloat(style.getPropertyValue(this.isText ? "--line" : "--row"));
    this.body.style.height = `${Math.max(scene.len, 1) * this.height}px`;
    if (!this.isText) {
      const room = this.place.clientWidth / parseFloat(style.getPropertyValue("--char"));
      this.seen = this.order.filter((at) => scene.columns[at][3] <= room);
      // What takes what is left is left out where nothing is.
      const taken = this.seen.reduce(
        (sum, at) => sum + scene.columns[at][1] + 2,
        this.hasDownloads() ? 9 : 3,
      );
      if (room - taken < LEFT_MIN)
        this.seen = this.seen.filter((at) => at === scene.main || scene.columns[at][1]);
      const widths = this.seen.map((at) => {
        const width = scene.columns[at][1];
        return at === scene.main && !width ? "minmax(0, 20fr)" : this.width(at, width);
      });
      const download = this.hasDownloads() ? ["2.75rem"] : [];
      this.place.style.setProperty("--columns", [...widths, ...download].join(" "));
      this.place.setAttribute("aria-colcount", this.seen.length + download.length);
      const names = this.seen.map((at) => this.headCell(at));
      const cells = this.hasDownloads()
        ? [...names, this.cell("columnheader", "", element("span", { class: "unseen" }, "Download"))]
        : names;
      this.head.replaceChildren(element("div", { class: "row", role: "row", "aria-rowindex": 1 }, ...cells));
    }
    this.rowsFrom = -1;
    this.draw();
  }

  hasDownloads() {
    return this.isFiles || this.scene.kind === "disk";
  }

  width(at, width) {
    // Letters of what a row is are wider.
    const room = at === this.scene.main ? width + 3 : width + 2;
    return width ? `minmax(0, calc(${room} * var(--char) * 1px))` : "minmax(0, 1fr)";
  }

  headCell(at) {
    const [name, , right] = this.scene.columns[at];
    return this.cell("columnheader", right ? "right" : "", capital(name));
  }

  cell(role, kind, ...parts) {
    return element("div", { role, class: `cell ${kind}` }, ...parts);
  }

  room() {
    return this.place.clientHeight - (this.head?.offsetHeight ?? 0);
  }

  // The rows that are seen.
  draw() {
    const { scene, height } = this;
    if (!scene || !height) return;
    if (scene.len === 0) {
      this.body.replaceChildren(
        element(
          "p",
          { class: "nothing", role: this.isText ? null : "row" },
          this.isText ? scene.empty : element("span", { role: "gridcell" }, scene.empty),
        ),
      );
      return;
    }
    const first = Math.max(0, Math.floor(this.place.scrollTop / height) - AROUND);
    const last = Math.min(scene.len, Math.ceil((this.place.scrollTop + this.room()) / height) + AROUND);
    const rows = [];
    for (let at = first; at < last; at += 1) rows.push(this.row(at));
    this.body.replaceChildren(...rows);
    const marked = this.selected >= first && this.selected < last;
    if (marked && !this.isText) this.place.setAttribute("aria-activedescendant", `row-${this.selected}`);
    else this.place.removeAttribute("aria-activedescendant");
  }

  row(at) {
    const piece = Math.floor(at / PIECE);
    const known = this.piece(piece)?.[at - piece * PIECE];
    const made = known ? this.known(at, known) : element("div", { class: "row waits" }, "\u2026");
    made.style.transform = `translateY(${at * this.height}px)`;
    return made;
  }

  known(at, [cells, tone, opens, download]) {
    if (this.isText) return element("div", { class: `row ${tone}` }, cells[0] || "\u00a0");
    const { scene } = this;
    const parts = this.seen.map((column) => {
      const kind = scene.columns[column][2] ? "right" : "";
      if (column !== scene.main) return this.cell("gridcell", kind, cells[column]);
      const text = element("bdi", {}, cells[column] || "\u2014");
      if (!opens) return this.cell("gridcell", "main", text);
      // The second click of two would be meant for what the first one opened.
      const open = button("", (event) => event.detail < 2 && this.does.open(at), {
        tabindex: -1,
        class: "open",
      });
      if (this.isFiles) {
        const path = shape("path", { d: tone === "good" ? FOLDER : FILE });
        open.append(shape("svg", { viewBox: "0 0 16 16", "aria-hidden": "true", class: "icon" }, path));
      }
      open.append(text);
      return this.cell("gridcell", "main", open);
    });
    if (this.hasDownloads()) {
      const name = cells[scene.main] || cells[0];
      const link = () =>
        element(
          "a",
          { href: download, download: true, tabindex: -1, "aria-label": `Download ${name}` },
          shape(
            "svg",
            { viewBox: "0 0 16 16", "aria-hidden": "true", class: "icon" },
            shape("path", { d: "M8 2v8M4.5 7 8 10.5 11.5 7M3 13.5h10" }),
          ),
        );
      parts.push(this.cell("gridcell", "right", download ? link() : ""));
    }
    const selected = at === this.selected;
    const row = element(
      "div",
      {
        id: `row-${at}`,
        role: "row",
        "aria-rowindex": at + 2,
        "aria-selected": String(selected),
        class: `row ${tone}${selected ? " selected" : ""}`,
      },
      ...parts,
    );
    row.addEventListener("click", (event) => {
      if (event.detail > 1) return;
      this.clicked = `${this.scene.version} ${at}`;
      this.select(at);
    });
    row.addEventListener(
      "dblclick",
      () => opens && this.clicked === `${this.scene.version} ${at}` && this.does.open(at),
    );
    return row;
  }

  // Rows that are there; they are asked for where not.
  piece(at) {
    const { pieces, scene } = this;
    if (pieces.has(at)) return pieces.get(at);
    pieces.set(at, null);
    askRows(scene.version, at * PIECE, PIECE).then((rows) => {
      if (pieces !== this.pieces) return;
      if (rows) pieces.set(at, rows);
      else pieces.delete(at);
      // Those that are furthest away are given up.
      const here = Math.floor(this.place.scrollTop / this.height / PIECE);
      if (pieces.size > PIECES_KEPT) {
        const far = [...pieces.keys()].reduce((a, b) => (Math.abs(b - here) > Math.abs(a - here) ? b : a));
        pieces.delete(far);
      }
      if (rows) this.draw();
    });
    return null;
  }

  select(at) {
    if (this.isText || this.scene.len === 0) return;
    this.selected = Math.min(Math.max(at, 0), this.scene.len - 1);
    this.see(this.selected);
    this.draw();
    this.does.selected(this.selected);
  }

  see(at) {
    if (at < 0 || this.isText) return;
    const top = at * this.height;
    const { scrollTop } = this.place;
    if (top < scrollTop) this.place.scrollTop = top;
    else if (top + this.height > scrollTop + this.room())
      this.place.scrollTop = top + this.height - this.room();
  }

  // Moves as a key says; whether it is one that moves.
  moved(key) {
    const page = Math.max(1, Math.floor(this.room() / this.height) - 1);
    const by = {
      ArrowUp: -1,
      k: -1,
      ArrowDown: 1,
      j: 1,
      PageUp: -page,
      PageDown: page,
      " ": page,
      Home: -Infinity,
      g: -Infinity,
      End: Infinity,
      G: Infinity,
    }[key];
    if (by === undefined || !this.scene) return false;
    if (this.isText) {
      const all = this.place.scrollHeight;
      this.place.scrollTop += Number.isFinite(by) ? by * this.height : Math.sign(by) * all;
    } else {
      this.select(this.selected + (Number.isFinite(by) ? by : Math.sign(by) * this.scene.len));
    }
    return true;
  }
}
