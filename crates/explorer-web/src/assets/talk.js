// What the page and the explorer say to each other.

const JSON_BODY = { "content-type": "application/json" };

let heard = () => {};
let lost = () => {};
let seen = 0;
let version = 0;
let isOver = false;
// One message after the other: each is about what the one before made.
let last = Promise.resolve();

export function listen(onScene, onLost) {
  heard = onScene;
  lost = onLost;
  wait();
}

function take(scene) {
  // An answer that was overtaken by a newer one is nothing new.
  if (scene.seen < seen) return;
  seen = scene.seen;
  version = scene.version;
  isOver = isOver || scene.ended;
  heard(scene);
}

async function wait() {
  for (let failures = 0; !isOver && failures < 3;) {
    try {
      const answer = await fetch(`scene?seen=${seen}`);
      if (!answer.ok) return lost(await answer.text());
      take(await answer.json());
      failures = 0;
    } catch {
      failures += 1;
      await new Promise((resolve) => setTimeout(resolve, 300));
    }
  }
  if (!isOver) lost("The explorer has ended, or cannot be reached.");
}

// Tells what somebody did; `events` is asked for when it is sent.
export function tell(events) {
  last = last.then(async () => {
    const body = JSON.stringify({ version, events: events() });
    try {
      const answer = await fetch("events", { method: "POST", headers: JSON_BODY, body });
      if (answer.ok) take(await answer.json());
    } catch {
      // Whoever waits for scenes sees it, too.
    }
  });
  return last;
}

export async function tellPassphrase(text) {
  const answer = await fetch("passphrase", {
    method: "POST",
    headers: JSON_BODY,
    body: JSON.stringify(text),
  });
  return answer.ok ? "" : (await answer.text()).trim();
}

// What belongs to what is shown; nothing when that is something else by now.
async function ask(address) {
  try {
    const answer = await fetch(address);
    return answer.status === 200 ? await answer.json() : null;
  } catch {
    return null;
  }
}

export const askRows = (of, first, count) => ask(`rows?version=${of}&first=${first}&count=${count}`);
export const askPicture = (of, cells) => ask(`picture?version=${of}&cells=${cells}`);
