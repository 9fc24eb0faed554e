// Elements, made of names and text. Text never becomes markup.

const SVG = "http://www.w3.org/2000/svg";

function fill(made, attributes, parts) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === true) made.setAttribute(name, "");
    else if (value !== false && value != null) made.setAttribute(name, value);
  }
  made.append(...parts.filter((part) => part != null));
  return made;
}

export function element(name, attributes = {}, ...parts) {
  return fill(document.createElement(name), attributes, parts);
}

export function shape(name, attributes = {}, ...parts) {
  return fill(document.createElementNS(SVG, name), attributes, parts);
}

export function button(text, does, attributes = {}) {
  const made = element("button", { type: "button", ...attributes }, text);
  made.addEventListener("click", does);
  return made;
}

export const byId = (id) => document.getElementById(id);

export const capital = (text) => text.charAt(0).toUpperCase() + text.slice(1).toLowerCase();

// Says something to people who listen, once.
let lastSaid = "";
export function announce(text) {
  if (text && text !== lastSaid) byId("live").textContent = text;
  lastSaid = text;
}
