// One question and its answer, followed by its key: whoever has it sees the same, whenever they come.

import { MarbleLine } from "./marbles.js";

const TOLD_SECONDS = 1; // what ends sooner than that was over before: nobody waits to be told of it
const AGAIN_SECONDS = 3; // what browsers wait before they come back by themselves

const STATES = { waiting: "Waiting", writing: "Writing", complete: "Complete", stopped: "Stopped", failed: "Failed" };

const ADVICE = {
  bad_request: "Ask in another way, or start a new chat.",
  budget_exceeded: "",
  internal: "Try again. If it stays so, the server's log says why.",
  not_found: "The server is to be started with another MODEL.",
  overloaded: "",
  rate_limited: "",
  too_large: "Start a new chat, or ask for less.",
  unavailable: "",
  unknown_generation: "Perhaps the server was started anew. Ask again, or start a new chat.",
  unprocessable: "Ask in another way, or start a new chat.",
  upstream_failed: "Try again. If it stays so, the server's log says why.",
  withheld: "Ask in another way.",
};

const UNFINISHED = {
  length: "The answer is as long as the model may make it, so its end is missing. Ask it to go on.",
  content_filter: "The model's provider withheld the rest. Ask in another way.",
};

export class Answer {
  state = "waiting";
  question = null;
  after = null; // the key of the answer above

  #page;
  #parts;
  #line;
  #source;
  #again = 0;
  #news = { text: "", reasoning: "" }; // to be shown with the next frame
  #frame = 0;
  #opened = performance.now();
  #began = Infinity; // by the page's clock, as far as can be told from what came soonest
  #at = 0; // seconds, of what came last
  #opens = true; // the reasoning by itself, while there is nothing else to read
  #bill = {};

  // `page` is told: asked(answer), changed(), say(words), again(answer).
  constructor(key, page) {
    this.key = key;
    this.#page = page;
    this.element = document.querySelector("#turn").content.cloneNode(true).firstElementChild;
    const part = (selector) => this.element.querySelector(selector);
    this.#parts = {
      question: part(".question"),
      text: part(".text").appendChild(new Text()),
      details: part(".reasoning"),
      reasoning: part(".reasoning p").appendChild(new Text()),
      problem: part(".problem"),
      state: part(".state"),
      facts: part(".facts"),
    };
    this.#line = new MarbleLine(part("svg"));
    part("summary").addEventListener("click", () => (this.#opens = false));
    part(".again").addEventListener("click", () => page.again(this));
    this.#follow();
    this.#show("waiting");
  }

  get running() {
    return this.state === "waiting" || this.state === "writing";
  }

  remove() {
    this.#source.close();
    clearTimeout(this.#again);
    cancelAnimationFrame(this.#frame);
    this.element.remove();
  }

  // From the first event on, whatever was read before.
  followAnew() {
    this.#source.close();
    clearTimeout(this.#again);
    this.#clear();
    this.#line.clear();
    this.#bill = {};
    this.#follow();
  }

  // An EventSource comes back by itself, says which event it had last, and is told the rest. It gives up when it is
  // refused, as by a proxy whose server is away: then another one begins.
  #follow() {
    this.#source = new EventSource(`/answers/${this.key}`);
    this.#source.onopen = () => delete this.element.dataset.lost;
    this.#source.onmessage = (event) => this.#take(JSON.parse(event.data));
    this.#source.onerror = () => {
      if (this.#source.readyState === EventSource.CLOSED) {
        this.#again = setTimeout(() => this.followAnew(), AGAIN_SECONDS * 1000);
      }
      if (!("lost" in this.element.dataset)) {
        this.element.dataset.lost = "";
        this.#page.say("The connection is lost. Trying again.");
      }
    };
  }

  #take(news) {
    if (news.question) this.#asked(news.question);
    if (news.restarted) this.#restart();
    if (news.at !== undefined) this.#note(news);
    for (const fact of ["finish", "tokens", "cost"]) if (fact in news) this.#bill[fact] = news[fact];
    if (news.end) this.#end(news);
    this.#draw();
  }

  #asked({ text, after }) {
    this.question = text;
    this.after = after;
    this.#parts.question.textContent = text;
    this.#began = Math.min(this.#began, performance.now());
    this.#page.asked(this);
  }

  #note({ at, attempt, text, reasoning }) {
    this.#began = Math.min(this.#began, performance.now() - at * 1000);
    this.#at = at;
    this.#line.attempt(attempt, at);
    for (const [kind, words] of Object.entries({ reasoning, text })) {
      if (words) {
        this.#line.add(at, kind);
        this.#news[kind] += words;
        if (this.state === "waiting") this.#begin();
      }
    }
  }

  #begin() {
    this.#show("writing");
    this.#page.say("The answer begins.");
  }

  #restart() {
    this.#clear();
    this.#page.say("The line was cut. The answer begins anew.");
  }

  #clear() {
    this.#news = { text: "", reasoning: "" };
    this.#parts.text.data = this.#parts.reasoning.data = "";
  }

  #end({ end, message, retry_after: seconds }) {
    this.#source.close();
    delete this.element.dataset.lost;
    this.#write();
    this.#show(end === "complete" || end === "stopped" ? end : "failed");
    const advice = seconds ? `Try again in ${seconds} s.` : ADVICE[end] ?? "Try again.";
    const words = this.state === "failed" ? `${message} ${advice}`.trim() : UNFINISHED[this.#bill.finish] ?? "";
    this.#parts.problem.hidden = !words;
    this.#parts.problem.firstElementChild.textContent = words;
    this.#parts.problem.lastElementChild.hidden = this.question === null;
    this.element.querySelector(".run").hidden = this.question === null;
    if (performance.now() - this.#opened > TOLD_SECONDS * 1000) {
      const said = this.state === "complete" ? this.#parts.text.data : "";
      this.#page.say([`Answer ${this.state}.`, said, words].filter(Boolean).join(" "));
    }
  }

  #show(state) {
    this.state = state;
    this.element.dataset.state = state;
    this.element.setAttribute("aria-busy", this.running);
    this.#parts.state.textContent = STATES[state];
    this.#page.changed();
    this.#draw();
  }

  #draw() {
    this.#frame ||= requestAnimationFrame(() => {
      this.#frame = 0;
      const now = this.running ? Math.max(0, performance.now() - this.#began) / 1000 : this.#at;
      this.#line.draw(Math.round(now * 20) / 20, this.running ? "" : this.state);
      this.#parts.facts.textContent = this.#facts(now);
      this.#write();
      if (this.running) this.#draw();
    });
  }

  // Appends what is new; what is there is not touched again, however long it is.
  #write() {
    for (const kind of ["text", "reasoning"]) {
      if (this.#news[kind]) this.#parts[kind].appendData(this.#news[kind]);
      this.#news[kind] = "";
    }
    const { details, reasoning, text } = this.#parts;
    details.hidden = !reasoning.length;
    if (this.#opens) details.open = this.running && !text.length;
  }

  #facts(now) {
    const { first, gap, attempts } = this.#line;
    const { tokens, cost } = this.#bill;
    const facts = [
      "lost" in this.element.dataset && "the connection is lost, trying again",
      first !== null && `first words after ${seconds(first)}`,
      gap[1] - gap[0] > 0.3 && `longest gap ${seconds(gap[1] - gap[0])}`,
      attempts > 1 && `${attempts} attempts`,
      this.state !== "stopped" && seconds(now),
      tokens !== undefined && `${tokens} tokens`,
      cost !== undefined ? `$${Number(cost.toPrecision(3))}` : !this.running && "cost not told",
    ];
    return facts.filter(Boolean).join(" · ");
  }
}

const seconds = (number) => `${number.toFixed(number < 10 ? 2 : 1)}\u00a0s`;
