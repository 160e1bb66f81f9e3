// A stream as it came, on a line of time: strokes for what was said, brackets for gaps, and one ending.

const SVG = "http://www.w3.org/2000/svg";
const KINDS = ["reasoning", "text"];
const MOMENTS = 512; // more than a line has pixels for
const GAP_SECONDS = 0.3; // shorter ones nobody notices
const SPANS = [5, 10, 20, 30, 60, 120, 300, 600, 1800, 3600]; // seconds that a whole line can be
const EDGE = 10;
const LABEL = 30; // half of a label's width, and a little more
const Y = 24;

export class MarbleLine {
  #svg;
  #moments;
  #rate; // moments a second
  #last;
  #restarts;
  #drawn = "";
  #now = null;
  #end = "";

  constructor(svg) {
    this.#svg = svg;
    this.clear();
    new ResizeObserver(() => this.#now !== null && this.draw(this.#now, this.#end)).observe(svg);
  }

  // Nothing was said so far.
  clear() {
    this.first = null; // seconds to the first content
    this.gap = [0, 0]; // the longest, from when to when
    this.attempts = 1;
    this.#moments = new Map(KINDS.map((kind) => [kind, new Uint8Array(MOMENTS)]));
    this.#rate = MOMENTS / 8;
    this.#last = null;
    this.#restarts = [];
  }

  // Something was said, so many seconds from the beginning.
  add(at, kind) {
    while (at * this.#rate >= MOMENTS) this.#double();
    this.#moments.get(kind)[Math.floor(at * this.#rate)] = 1;
    this.first ??= at;
    if (this.#last !== null && at - this.#last > this.gap[1] - this.gap[0]) this.gap = [this.#last, at];
    this.#last = at;
  }

  // From here on another attempt speaks.
  attempt(number, at) {
    if (number > this.attempts) {
      this.#restarts.push({ number, since: this.#last ?? 0, at });
      this.attempts = number;
    }
  }

  // Shows it as it is now; `end` is "", "complete", "stopped" or "failed".
  draw(now, end) {
    [this.#now, this.#end] = [now, end];
    const width = this.#svg.clientWidth;
    const span = SPANS.find((seconds) => seconds >= now) ?? now;
    const x = (at) => (EDGE + (at / span) * (width - 2 * EDGE)).toFixed(1);
    const paths = [
      ["rest", `M${EDGE} ${Y}H${width - EDGE}m-4-3l4 3-4 3`],
      ["line", `M${x(0)} ${Y}H${x(now)}`],
      ...KINDS.map((kind) => [`of-${kind}`, this.#strokes(kind, x)]),
      ["lost", this.#restarts.map(({ since, at }) => `M${x(since)} ${Y}H${x(at)}`).join("")],
      ["gap", this.gap[1] - this.gap[0] < GAP_SECONDS ? "" : `M${x(this.gap[0])} 36v4H${x(this.gap[1])}v-4`],
      [end || "now", ENDS[end](x(now))],
    ];
    const drawn = `${width} ${paths}`;
    if (drawn === this.#drawn) return;
    this.#drawn = drawn;
    const inside = (place) => Math.min(Math.max(place, LABEL), width - LABEL);
    const labels = this.#restarts.map(({ number, at }) => text(`attempt ${number}`, inside(x(at))));
    this.#svg.replaceChildren(...paths.filter(([, d]) => d).map(([name, d]) => path(name, d)), ...labels);
  }

  #strokes(kind, x) {
    const strokes = [];
    this.#moments.get(kind).forEach((some, moment) => {
      if (some) strokes.push(`M${x((moment + 0.5) / this.#rate)} ${Y - 7}v14`);
    });
    return strokes.join("");
  }

  #double() {
    for (const moments of this.#moments.values()) {
      for (let moment = 0; moment < MOMENTS; moment += 2) moments[moment / 2] = moments[moment] | moments[moment + 1];
      moments.fill(0, MOMENTS / 2);
    }
    this.#rate /= 2;
  }
}

const ENDS = {
  "": (x) => `M${x} ${Y}h0`, // a dot, for its ends are round
  complete: (x) => `M${x} ${Y - 11}v22`,
  failed: (x) => `M${x - 5} ${Y - 5}l10 10m0-10l-10 10`,
  stopped: (x) => `M${x - 5} ${Y - 5}h10v10h-10z`,
};

function path(name, d) {
  const element = document.createElementNS(SVG, "path");
  element.setAttribute("class", name);
  element.setAttribute("d", d);
  return element;
}

function text(words, x) {
  const element = document.createElementNS(SVG, "text");
  element.setAttribute("x", x);
  element.setAttribute("y", 10);
  element.textContent = words;
  return element;
}
