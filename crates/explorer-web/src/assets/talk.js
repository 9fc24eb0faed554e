// What the page and the explorer say to each other.

const JSON_BODY = { "content-type": "application/json" };
// What the explorer of this page says in every answer, and no other program knows.
const RUN = document.querySelector('meta[name="run"]').content;
const STRANGER =
  "The explorer has ended, and another program answers at its address. Close this page, and type nothing into it.";

// Longer than any answer takes.
const PATIENCE = 60_000;

let heard = () => {};
let lost = () => {};
let seen = 0;
let version = 0;
let isOver = false;
// One message after the other: each is about what the one before made.
let last = Promise.resolve();

export function listen(onScene, onLost) {
  heard = onScene;
  lost = (text) => {
    isOver = true;
    onLost(text);
  };
  wait();
}

// Asks the explorer of this page. What another program answers is not read.
async function asked(address, options = {}) {
  const answer = await fetch(address, { ...options, signal: AbortSignal.timeout(PATIENCE) });
  if (answer.headers.get("aiv-explorer-run") === RUN) return answer;
  if (!isOver) lost(STRANGER);
  throw new Error("not the explorer");
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
      const answer = await asked(`scene?seen=${seen}`);
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
      const answer = await asked("events", { method: "POST", headers: JSON_BODY, body });
      if (answer.ok) take(await answer.json());
    } catch {
      // Whoever waits for scenes sees it, too.
    }
  });
  return last;
}

export async function tellPassphrase(text) {
  // Nobody else is told it: before it is sent, whoever is there has to be the explorer.
  await asked("icon.svg");
  const answer = await asked("passphrase", {
    method: "POST",
    headers: JSON_BODY,
    body: JSON.stringify(text),
  });
  return answer.ok ? "" : (await answer.text()).trim();
}

// What belongs to what is shown; nothing when that is something else by now.
async function ask(address) {
  try {
    const answer = await asked(address);
    return answer.status === 200 ? await answer.json() : null;
  } catch {
    return null;
  }
}

export const askRows = (of, first, count) => ask(`rows?version=${of}&first=${first}&count=${count}`);
export const askPicture = (of, cells) => ask(`picture?version=${of}&cells=${cells}`);
