// The page: draws what the explorer shows, and tells it what somebody does.

import { announce, button, byId, capital, element } from "./dom.js";
import { lay } from "./dialogs.js";
import { List } from "./list.js";
import * as pictures from "./pictures.js";
import { askPicture, listen, tell, tellPassphrase } from "./talk.js";

const TITLES = {
  sets: "Sets in",
  points: "Recovery points of",
  disk: "Disk",
  folder: "Folder",
  found: "Files",
  preview: "File",
  map: "Blocks of the point",
  differences: "What is different",
  report: "Report:",
};
// Keys that have a place of their own on the page.
const ELSEWHERE = ["Esc", "?", "q", "t"];

let scene = null;
let picture = null;
let isLeaving = false;
let isGone = false;
let selectionTimer = 0;
let tenth = -1;

const list = new List(byId("list"), { open, selected });

const selection = () => (scene.selected === null || scene.len === 0 ? [] : [{ select: list.selected }]);
const press = (key) => tell(() => [...selection(), { key }]);

// Not the key: whoever stops what just ended does not want to go back.
const stop = () => tell(() => [{ stop: true }]);

function open(at) {
  list.select(at);
  press("Enter");
}

// Another row is selected: the explorer is told when it stays so for a moment.
function selected() {
  drawPicture();
  clearTimeout(selectionTimer);
  selectionTimer = setTimeout(() => tell(selection), 120);
}

function title() {
  const name = scene.trail.at(-1);
  return scene.kind === "map" || scene.kind === "differences"
    ? TITLES[scene.kind]
    : `${TITLES[scene.kind]} ${name}`;
}

function shown(next) {
  if (isGone) return;
  const before = scene;
  scene = next;
  if (scene.ended) return ended("The explorer has ended. This page can be closed.");
  const isOther = before?.version !== scene.version;
  if (isOther) clearTimeout(selectionTimer);
  const screen = (of) => of && JSON.stringify([of.kind, of.trail, of.len, of.tabs]);
  drawTrail();
  drawTools();
  drawStatus();
  if (isOther) {
    const isSame = before && screen(before) === screen(scene);
    if (isSame && scene.selected !== null) scene.selected = list.selected;
    byId("heading").textContent = title();
    document.title = `${scene.trail.at(-1)} \u2013 Aivory explorer`;
    drawNotes();
    drawTabs();
    if (!isSame || scene.kind === "sets" || scene.kind === "points" || before.working) list.show(scene);
    else list.scene = scene;
    fetchPicture();
    remember(scene.trail.length);
    if (!isSame && !scene.over && !scene.asks) list.place.focus({ preventScroll: true });
  }
  lay(
    scene,
    title(),
    {
      close: () => press("Escape"),
      typed: (typed) => tell(() => [{ typed }]),
      passphrase: tellPassphrase,
      quit: () => press("q"),
    },
    isLeaving,
    () => leaving(false),
  );
  // As a link: where that goes wrong, this page stays.
  if (scene.download) element("a", { href: scene.download, download: true }).click();
  if (before?.over && !scene.over) list.place.focus({ preventScroll: true });
}

function drawTrail() {
  const last = scene.trail.length - 1;
  byId("trail").replaceChildren(
    ...scene.trail.map((name, at) => {
      const text = element("bdi", {}, name || "\u2026");
      if (at === last) return element("li", {}, element("span", { "aria-current": "page" }, text));
      return element(
        "li",
        {},
        button(text, () => tell(() => [{ back: at + 1 }]), { disabled: Boolean(scene.working) }),
      );
    }),
  );
}

function drawTools() {
  const focused = document.activeElement?.dataset?.key;
  const keys = scene.keys.filter(([key]) => !ELSEWHERE.includes(key));
  const tool = ([key, short, long]) => {
    const made = button(capital(short), () => press(key), {
      title: long,
      "aria-keyshortcuts": key,
      "data-key": key,
      disabled: Boolean(scene.working) || (key === "Enter" && scene.len === 0),
    });
    made.append(" ", element("kbd", { "aria-hidden": "true" }, key));
    return made;
  };
  const back = button("Back", () => press("Escape"), {
    title: "one screen back",
    "aria-keyshortcuts": "Escape",
    "data-key": "Escape",
    disabled: Boolean(scene.working) || scene.trail.length === 1,
  });
  back.append(" ", element("kbd", { "aria-hidden": "true" }, "Esc"));
  byId("tools").replaceChildren(back, ...keys.map(tool));
  if (focused)
    byId("tools")
      .querySelector(`[data-key="${CSS.escape(focused)}"]`)
      ?.focus();
}

function drawNotes() {
  const place = byId("notes");
  place.hidden = scene.notes.length === 0;
  place.replaceChildren(...scene.notes.map((note) => element("li", {}, note)));
}

function drawTabs() {
  const place = byId("tabs");
  const focused = place.contains(document.activeElement);
  place.hidden = scene.tabs.length === 0;
  place.replaceChildren(
    ...scene.tabs.map(([name, isSeen], at) => {
      const made = button(capital(name), () => tell(() => [{ tab: at }]), {
        role: "tab",
        "aria-selected": String(isSeen),
        tabindex: isSeen ? 0 : -1,
        "aria-controls": "list",
      });
      made.addEventListener("keydown", (event) => {
        const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
        if (!by) return;
        event.preventDefault();
        event.stopPropagation();
        const next = (at + by + scene.tabs.length) % scene.tabs.length;
        tell(() => [{ tab: next }]).then(() => place.children[next]?.focus());
      });
      return made;
    }),
  );
  if (focused) place.querySelector("[aria-selected=true]")?.focus();
}

function drawStatus() {
  const { working } = scene;
  byId("status").hidden = Boolean(working);
  byId("working").hidden = !working;
  if (working) {
    byId("doing").textContent = working.text;
    const amount = byId("amount");
    if (working.amount) [amount.value, amount.max] = [working.amount[0], working.amount[1]];
    else amount.removeAttribute("value");
    // Not each step is told to people who listen.
    const now = working.amount ? Math.floor((10 * working.amount[0]) / working.amount[1]) : -2;
    if (now !== tenth) announce(working.text);
    tenth = now;
    return;
  }
  tenth = -1;
  const parts = scene.said ? [[scene.said, "warn"]] : scene.status;
  byId("status").replaceChildren(...parts.map(([text, tone]) => element("span", { class: tone }, text)));
  announce(scene.said || parts.map(([text]) => text).join(""));
}

async function fetchPicture() {
  const of = scene;
  picture = null;
  if (of.picture) picture = await askPicture(of.version, pictures.cellsFor(roomFor(), tall()));
  if (of.version === scene.version) drawPicture();
}

const tall = () => Math.min(innerHeight * 0.6, 620);

function roomFor() {
  const main = byId("picture").parentElement;
  const { paddingLeft, paddingRight } = getComputedStyle(main);
  return Math.max(200, main.clientWidth - parseFloat(paddingLeft) - parseFloat(paddingRight));
}

function drawPicture() {
  const place = byId("picture");
  place.hidden = !picture;
  const choose = (at) => {
    list.select(at);
    list.place.focus({ preventScroll: true });
  };
  const parts = !picture
    ? []
    : picture.time
      ? pictures.time(picture.time, list.selected, roomFor(), choose)
      : picture.disk
        ? pictures.disk(picture.disk, list.selected, roomFor(), choose)
        : pictures.blocks(picture.blocks, roomFor(), tall());
  place.replaceChildren(...parts);
  byId("list").hidden = Boolean(picture?.blocks);
}

// The back button of the browser goes back here, too.
function remember(depth) {
  let known = history.state?.depth;
  if (!known) {
    history.replaceState({ depth: 1 }, "");
    known = 1;
  }
  if (depth < known) history.go(depth - known);
  for (let at = known + 1; at <= depth; at += 1) history.pushState({ depth: at }, "");
}

addEventListener("popstate", () => {
  const [asked, depth] = [history.state?.depth ?? 1, scene?.trail.length ?? 1];
  if (asked < depth) tell(() => [{ back: asked }]);
  else if (asked > depth) history.go(depth - asked);
});

function leaving(now) {
  isLeaving = now;
  shown(scene);
}

function ended(text) {
  isGone = true;
  scene = null;
  clearTimeout(selectionTimer);
  document.body.replaceChildren(
    element(
      "main",
      { class: "ended" },
      element("h1", {}, "Aivory explorer"),
      element("p", { role: "alert" }, text),
    ),
  );
}

function pressed(event) {
  const { key, target } = event;
  if (!scene || scene.ended || event.ctrlKey || event.metaKey || event.altKey || byId("dialog").open) return;
  const isControl = target.closest?.("button, a, input") && target !== list.place;
  if (isControl && (key === "Enter" || key === " ")) return;
  if (scene.working) {
    if (key === "Escape") stop();
    if (key === "q") leaving(true);
    if (key.length === 1 || key === "Escape") event.preventDefault();
    return;
  }
  // What the list itself does with arrows is not wanted as well.
  if (list.moved(key)) return event.preventDefault();
  const keys = {
    Enter: "Enter",
    ArrowRight: "Enter",
    Escape: "Escape",
    Backspace: "Escape",
    ArrowLeft: "Escape",
  };
  const isBound = key.length === 1 && scene.keys.some(([bound]) => bound === key);
  if (!keys[key] && !isBound) return;
  if (key.startsWith("Arrow") && list.isText && list.place.scrollWidth > list.place.clientWidth) return;
  event.preventDefault();
  if (key === "q") leaving(true);
  else press(keys[key] ?? key);
}

document.addEventListener("keydown", pressed);
byId("help").addEventListener("click", () => press("?"));
byId("quit").addEventListener("click", () => leaving(true));
byId("stop").addEventListener("click", stop);
addEventListener("resize", () => scene && drawPicture());
listen(shown, ended);
