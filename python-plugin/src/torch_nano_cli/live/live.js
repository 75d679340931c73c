"use strict";
// The token is in the address's fragment, which the browser sends to no server.
const token = location.hash.slice(1);
const headers = { Authorization: `Bearer ${token}`, "Content-Type": "application/json" };
const colours = ["#3b82f6", "#f59e0b", "#10b981", "#ef4444", "#a855f7", "#14b8a6", "#ec4899", "#84cc16"];
const at = (id) => document.getElementById(id);
let state = null;

function say(id, text, bad = false) {
  at(id).textContent = text;
  at(id).classList.toggle("bad", bad);
}

async function act(action, asked = {}) {
  try {
    const answer = await fetch(`/do/${action}`, { method: "POST", headers, body: JSON.stringify(asked) });
    const told = await answer.json();
    say("told", told.done ?? told.error, !answer.ok);
    return answer.ok;
  } catch {
    say("told", "torch-nano live does not answer: was it ended?", true);
    return false;
  }
}

function make(tag, className, text = "") {
  const made = document.createElement(tag);
  made.className = className;
  made.textContent = text;
  return made;
}

function row(index) {
  const item = document.createElement("li");
  const button = make("button", "teach");
  button.type = "button";
  button.addEventListener("click", () => act("teach", { class: index }));
  button.append(make("span", "name"), make("span", "taught"));
  const track = make("div", "track");
  track.append(make("div", "fill"));
  item.append(button, track, make("span", "percent"));
  return item;
}

function showClasses() {
  const list = at("classes");
  while (list.children.length < state.classes.length) list.append(row(list.children.length));
  while (list.children.length > state.classes.length) list.lastChild.remove();
  state.classes.forEach(({ name, probability, taught }, index) => {
    const item = list.children[index];
    const percent = `${(100 * probability).toFixed(1)} %`;
    item.classList.toggle("chosen", index === state.chosen);
    item.classList.toggle("unsure", !state.known);
    item.querySelector(".name").textContent = name;
    item.querySelector(".taught").textContent = taught ? ` ${taught}` : "";
    item.querySelector("button").title = `Teach: what is seen now is ${name}`;
    item.querySelector(".fill").style.width = percent.replace(" ", "");
    item.querySelector(".percent").textContent = percent;
  });
  const chosen = state.classes[state.chosen];
  at("answer").textContent = chosen ? (state.known ? chosen.name : `${chosen.name}?`) : "-";
  at("confidence").textContent = chosen ? `${(100 * chosen.probability).toFixed(1)} %${state.known ? "" : ", rejected"}` : "";
  at("seen").textContent = state.seen ? `seen: ${state.seen}` : "";
}

function showSignal() {
  const canvas = at("signal");
  const { clientWidth: width, clientHeight: height } = canvas;
  const scale = window.devicePixelRatio || 1;
  canvas.width = width * scale;
  canvas.height = height * scale;
  const pen = canvas.getContext("2d");
  pen.scale(scale, scale);
  const numbers = state.signal.flat();
  if (!numbers.length) return;
  const low = Math.min(...numbers);
  const high = Math.max(...numbers);
  const y = (value) => height - 4 - ((value - low) / (high - low || 1)) * (height - 8);
  const step = width / Math.max(state.signal.length - 1, 1);
  // More numbers than colours, such as those of a microphone's block, are drawn one after the other.
  const many = state.signal[0].length > colours.length;
  const lines = many ? [numbers] : state.signal[0].map((_, channel) => state.signal.map((sample) => sample[channel]));
  lines.forEach((line, channel) => {
    pen.beginPath();
    pen.strokeStyle = colours[channel];
    line.forEach((value, n) => pen.lineTo(many ? (n * width) / line.length : n * step, y(value)));
    pen.stroke();
  });
  at("range").textContent = `${state.signal.length} samples of ${state.signal[0].length} numbers, ${low.toPrecision(3)} to ${high.toPrecision(3)}`;
}

function showJudged() {
  at("accuracy").textContent = state.judged ? `${((100 * state.right) / state.judged).toFixed(1)} %` : "-";
  at("judged").textContent = state.judged ? `${state.right} of ${state.judged} right` : "teach a class to begin";
  const head = make("tr", "");
  head.append(make("th", "", "seen"), ...state.classes.map(({ name }) => make("th", "", name)));
  const rows = state.confusion.map((counts, seen) => {
    const line = make("tr", "");
    line.append(make("th", "", state.classes[seen].name), ...counts.map((count, guess) => make("td", guess === seen ? "right" : "", count)));
    return line;
  });
  at("confusion").replaceChildren(head, ...rows);
}

function show() {
  document.title = `${state.model} - torch-nano live`;
  at("model").textContent = state.model;
  const saved = state.saved === null ? "" : `, saved ${state.saved}`;
  say("status", state.error ?? `${state.windows} windows${saved}${state.training ? ", learning" : ""}`, state.error !== null);
  at("undo").disabled = state.undoable === null;
  at("undo").title = state.undoable ? `Take back ${state.undoable}` : "There is nothing to take back";
  at("add").hidden = !state.room;
  showClasses();
  showSignal();
  showJudged();
}

async function listen() {
  const answer = await fetch("/events", { headers });
  if (!answer.ok) throw new Error((await answer.json()).error);
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) throw new Error("torch-nano live has ended");
    const lines = (rest + value).split("\n");
    rest = lines.pop();
    if (lines.length) {
      state = JSON.parse(lines.at(-1));
      show();
    }
  }
}

at("undo").addEventListener("click", () => act("undo"));
at("save").addEventListener("click", () => act("save"));
at("add").addEventListener("submit", async (event) => {
  event.preventDefault();
  if (await act("add", { name: at("name").value.trim() })) at("name").value = "";
});
window.addEventListener("resize", () => state && showSignal());
window.addEventListener("hashchange", () => location.reload());
listen().catch((error) => say("status", error.message, true));
