// The page: a conversation, which is a chain of answers, of which the last one's key is in the address.

import { Answer } from "./answer.js";

const PARTS = ["conversation", "welcome", "composer", "question", "stop", "send", "told", "status"];
const [conversation, welcome, composer, question, stopButton, send, told, status] = PARTS.map((id) =>
  document.getElementById(id),
);

const answers = new Map(); // by their keys
let head = /^#([\w-]{43})$/.exec(location.hash)?.[1] ?? null; // the key of the last one
let asking = false;
let unsent = null; // what was asked, until the server has it

const MOST = 8000; // characters that the server takes
const PATIENCE = 45_000; // milliseconds; the server waits for its log for 30 s
const UNREACHED = "The server can't be reached. Your question is still here; try again.";

// Tells other tabs of this browser what was asked; tabs elsewhere see it when they are loaded.
const tabs = new BroadcastChannel("chat");
tabs.onmessage = ({ data }) => data.from !== null && data.from === head && !asking && goOn(data);

function follow(key, before = null) {
  const answer = new Answer(key, { asked: showBefore, changed, say, again });
  answers.set(key, answer);
  conversation.insertBefore(answer.element, before);
}

function showBefore({ after, element }) {
  if (after && !answers.has(after)) follow(after, element);
}

// After the answer `after` comes the answer `key`; what stood there, goes.
function goOn({ after, key }) {
  while (head !== null && head !== after) {
    const last = answers.get(head);
    answers.delete(head);
    last.remove();
    head = last.after;
  }
  head = key;
  history.replaceState(null, "", `#${key}`);
  follow(key);
  changed();
}

// The key is taken here, and kept with the question. So it can be asked again, when the line was lost or by a reload,
// and is answered and paid once.
async function ask({ text, after }) {
  const again = unsent?.text === text && unsent.from === head;
  unsent = again ? unsent : { text, after, from: head, key: newKey() };
  const { key, from } = unsent;
  keep(unsent);
  asking = true;
  tell("");
  changed();
  const refusal = await put(unsent);
  asking = false;
  if (!refusal) {
    tabs.postMessage({ from, after, key });
    goOn({ after, key });
    if (question.value.trim() === text) question.value = "";
  }
  tell(refusal);
  changed();
}

// Sends it; gives what the server has against it, in words.
async function put({ key, text, after }) {
  try {
    const response = await fetch(`/answers/${key}`, {
      method: "PUT",
      body: JSON.stringify({ text, after }),
      signal: AbortSignal.timeout(PATIENCE),
    });
    if (response.status < 500) unsent = null; // it is decided
    if (response.ok) return "";
    if (unsent === null) keep(null);
    const inWords = response.status !== 500 && response.headers.get("Content-Type")?.startsWith("text/plain");
    return inWords ? await response.text() : UNREACHED;
  } catch {
    return UNREACHED;
  }
}

// For a reload; a browser that keeps nothing loses a question that it was just about to send, and no more.
function keep(asked) {
  try {
    sessionStorage.setItem("asked", JSON.stringify(asked));
  } catch {}
}

function kept() {
  try {
    return JSON.parse(sessionStorage.getItem("asked"));
  } catch {
    return null;
  }
}

function newKey() {
  const bytes = crypto.getRandomValues(new Uint8Array(32));
  return btoa(String.fromCharCode(...bytes)).replaceAll("+", "-").replaceAll("/", "_").slice(0, 43);
}

async function stop() {
  const answer = answers.get(head);
  if (!answer?.running) return;
  const signal = AbortSignal.timeout(PATIENCE);
  const response = await fetch(`/answers/${answer.key}/stop`, { method: "POST", signal }).catch(() => null);
  if (!response?.ok && answer.running) tell("The answer could not be stopped. Try again.");
}

function again(answer) {
  if (!busy()) ask({ text: answer.question, after: answer.after });
}

function busy() {
  return asking || Boolean(answers.get(head)?.running);
}

function changed() {
  const running = Boolean(answers.get(head)?.running);
  if (!running && document.activeElement === stopButton) question.focus();
  stopButton.hidden = !running;
  send.setAttribute("aria-disabled", busy());
  welcome.hidden = head !== null;
}

function tell(words) {
  told.hidden = !words;
  told.textContent = words;
  if (words) say(words);
}

function say(words) {
  status.textContent = words;
}

composer.addEventListener("submit", (event) => {
  event.preventDefault();
  const text = question.value.trim();
  if (busy()) tell("One at a time: wait for the answer, or stop it.");
  else if (text.length > MOST) tell(`That is ${text.length} characters long; the server takes ${MOST}.`);
  else if (text) ask({ text, after: head });
  else question.focus();
});

question.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    composer.requestSubmit();
  }
});

document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && !event.isComposing) stop();
});

stopButton.addEventListener("click", stop);

welcome.addEventListener("click", ({ target }) => {
  if (target.closest("button") && !busy()) ask({ text: target.textContent, after: null });
});

// The button that was pressed with a key goes away; who uses a keyboard is not to be lost with it.
document.addEventListener("click", ({ detail, target }) => {
  if (detail === 0 && target.closest("main button, #welcome button")) question.focus();
});

addEventListener("hashchange", () => location.reload());

// Out of the back/forward cache a page comes as it was; its connections are gone, perhaps without a word.
addEventListener("pageshow", ({ persisted }) => {
  if (persisted) for (const answer of answers.values()) if (answer.running) answer.followAnew();
});

// Who reads at the end stays there while it grows; who has scrolled up is left alone.
let atEnd = true;
addEventListener("scroll", () => {
  atEnd = innerHeight + scrollY > document.documentElement.scrollHeight - 40;
});
const keepAtEnd = () => atEnd && scrollTo(0, document.documentElement.scrollHeight);
new ResizeObserver(keepAtEnd).observe(document.body);
addEventListener("resize", keepAtEnd);

if (head !== null) follow(head);
changed();
// A reload that was under way when the question was sent has the address from before.
const asked = kept();
if (asked?.from === head && performance.getEntriesByType("navigation")[0].type === "reload") {
  unsent = asked;
  question.value = asked.text;
  ask(asked);
} else {
  keep(null);
}
