// What lies over the page: help, problems, questions.

import { button, byId, capital, element } from "./dom.js";

let shown = "null";

function form(title, done, ...parts) {
  const made = element("form", { method: "dialog" }, element("h2", { id: "dialog-title" }, title), ...parts);
  made.addEventListener("submit", (event) => {
    event.preventDefault();
    done(made);
  });
  return made;
}

const row = (...parts) => element("div", { class: "buttons" }, ...parts);
const sentence = (text) => `${text.charAt(0).toUpperCase()}${text.slice(1)}.`;
const submit = (text, attributes = {}) => element("button", { class: "first", ...attributes }, text);

function help({ about, keys }, title, close) {
  const list = keys.flatMap(([key, , long]) => [
    element("dt", {}, element("kbd", {}, key)),
    element("dd", {}, long),
  ]);
  return form(
    `Help: ${title}`,
    close,
    element("p", {}, about.join(" ")),
    element("dl", {}, ...list),
    row(submit("Close", { autofocus: true })),
  );
}

function problem({ line, hint }, close) {
  return form(
    "That did not work",
    close,
    element("p", { class: "bad" }, line),
    element("p", {}, `Next: ${hint}`),
    row(submit("Close", { autofocus: true })),
  );
}

function prompt({ title, explained, text }, does) {
  const input = element("input", {
    id: "line",
    type: "text",
    value: text,
    autocomplete: "off",
    autocapitalize: "off",
    spellcheck: "false",
    maxlength: 1000,
    "aria-describedby": "explained",
    autofocus: true,
  });
  return form(
    capital(title),
    () => does.typed(input.value),
    element("label", { for: "line" }, "What their names look like"),
    input,
    element("p", { id: "explained", class: "dim" }, explained),
    row(button("Cancel", does.close), submit("Find")),
  );
}

function passphrase({ tried, wrong, volume, why }, does) {
  const input = element("input", {
    id: "secret",
    type: "password",
    autocomplete: "off",
    maxlength: 1000,
    disabled: tried,
    autofocus: true,
    "aria-describedby": "secret-said",
  });
  const said = tried
    ? "Trying it; that takes a moment."
    : wrong
      ? sentence(wrong)
      : "It is tried here on this machine, and is not stored.";
  return form(
    volume ? "Encrypted volume" : "Sealed images",
    async () => {
      const text = input.value;
      input.value = "";
      if (!text) return;
      const refused = await does.passphrase(text).catch(() => "It was not sent.");
      const place = byId("secret-said");
      if (refused && place) place.textContent = sentence(refused);
    },
    why ? element("p", {}, sentence(why)) : null,
    element("label", { for: "secret" }, "Passphrase"),
    input,
    element("p", { id: "secret-said", class: wrong && !tried ? "bad" : "dim", role: "status" }, said),
    row(button("Cancel", does.close), submit("Unlock", { disabled: tried })),
  );
}

function leave(does, close) {
  return form(
    "End the explorer?",
    does.quit,
    element("p", {}, "The address works once: to look again, the program has to be started again."),
    row(button("Stay", close, { autofocus: true }), submit("End it")),
  );
}

// Shows what lies over a scene, or nothing. It is made anew only when it is something else.
export function lay(scene, title, does, isLeaving, stay) {
  const place = byId("dialog");
  const what = isLeaving ? { leave: true } : scene.asks ? { asks: scene.asks } : scene.over;
  const now = JSON.stringify(what);
  if (now === shown) return;
  shown = now;
  if (place.open) place.close();
  place.replaceChildren();
  if (!what) return;
  place.oncancel = (event) => {
    event.preventDefault();
    isLeaving ? stay() : does.close();
  };
  const made = what.leave
    ? leave(does, stay)
    : what.asks
      ? passphrase(what.asks, does)
      : what.help
        ? help(what.help, title, does.close)
        : what.problem
          ? problem(what.problem, does.close)
          : prompt(what.prompt, does);
  place.append(made);
  place.showModal();
}
