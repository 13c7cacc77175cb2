"use strict";
// Texts of models are shown through textContent only, so nothing in them can become markup.

const PAGE_SIZE = 100;
const BAD = 4;
const LABELS = {
  harmful: { unsafe: "bad", safe: "good", refused: "good", complied: "mild" },
  benign: { unsafe: "bad", safe: "good", refused: "bad", complied: "good", right: "good", wrong: "bad" },
};
const byId = (id) => document.getElementById(id);
const waiting = new Map(); // data file -> { promise, resolve }
const files = new Map(); // data file -> rows

function loaded(file, rows) {
  files.set(file, rows);
  waiting.get(file)?.resolve(rows);
}

function load(file) {
  if (files.has(file)) return Promise.resolve(files.get(file));
  if (!waiting.has(file)) {
    const entry = {};
    entry.promise = new Promise((resolve, reject) => {
      entry.resolve = resolve;
      const script = document.createElement("script");
      script.src = `data/${file}.js`;
      script.onerror = () => { waiting.delete(file); reject(new Error(`data/${file}.js cannot be read; is it beside this page?`)); };
      document.head.append(script);
    });
    waiting.set(file, entry);
  }
  return waiting.get(file).promise;
}

function element(tag, className, text) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

function fill(select, options) {
  select.replaceChildren(...options.map(([value, title]) => new Option(title, value)));
}

// ---------------------------------------------------------------- what is shown of a text

function guarded(node, nature) {
  if (nature === "harmful") {
    node.classList.add("blur");
    node.tabIndex = 0;
    node.title = "harmful text, click to read";
    const reveal = () => { node.classList.remove("blur"); node.removeAttribute("title"); };
    node.addEventListener("click", reveal);
    node.addEventListener("keydown", (event) => { if (event.key === "Enter") reveal(); });
  }
  return node;
}

function stepNode(text, nature, badness, tag) {
  const level = badness === undefined ? "" : badness >= BAD ? "bad" : badness > 2 ? "mild" : "good";
  const node = element("li", `step ${level} ${tag}`);
  node.dataset.score = badness === undefined ? "" : badness.toFixed(1);
  if (tag) node.append(element("span", `tag ${tag}`, tag));
  node.append(guarded(element("span", "", text), nature));
  return node;
}

function chain(steps, nature, badness, tags) {
  const list = element("ol", "steps");
  steps.forEach((step, place) => list.append(stepNode(step, nature, badness?.[place], tags[place])));
  return list;
}

function chip(label, nature) {
  return element("span", `chip ${LABELS[nature][label] ?? ""}`, label.replaceAll("_", " ") || "-");
}

// "Embedded guard" of "Embedded guard: harmful compliance by ..."
function shortTitle(judge) {
  return (evaluation().judges[judge]?.title ?? judge).split(/[;,:(]| per step | in the /)[0].trim();
}

function chips(labels, nature) {
  const node = element("div", "chips");
  for (const [judge, label] of Object.entries(labels)) {
    node.append(chip(label, nature));
    node.lastChild.prepend(element("span", "judge", `${shortTitle(judge)}: `));
    node.lastChild.title = evaluation().judges[judge]?.title ?? judge;
  }
  return node;
}

// ---------------------------------------------------------------- answers

const answers = { matches: [], shown: 0, token: 0 };
const evaluation = () => INDEX.evaluations.find((entry) => entry.name === byId("evaluation").value);
const primary = (labels) => Object.values(labels)[0] ?? "";
const side = (row, checkpoint) => row[2].find(([key]) => key === checkpoint);

function chooseEvaluation() {
  const entry = evaluation();
  const labels = [...new Set(entry.items.flatMap((row) => row[2].flatMap((answer) => Object.values(answer[2]))))].sort();
  const options = [["", "anything"], ...labels.map((label) => [label, label.replaceAll("_", " ")])];
  for (const id of ["left-label", "right-label"]) {
    const before = byId(id).value;
    fill(byId(id), options);
    byId(id).value = labels.includes(before) ? before : "";
  }
  const before = byId("scorer").value;
  const scorers = Object.entries(entry.judges).filter(([, judge]) => judge.kind === "steps");
  fill(byId("scorer"), scorers.length ? scorers.map(([name]) => [name, shortTitle(name)]) : [["", "nobody"]]);
  if (scorers.some(([name]) => name === before)) byId("scorer").value = before;
  filterAnswers();
}

function fits(row) {
  const [left, right] = ["left", "right"].map((id) => side(row, byId(id).value));
  const [wantedLeft, wantedRight] = ["left-label", "right-label"].map((id) => byId(id).value);
  if (wantedLeft && !(left && Object.values(left[2]).includes(wantedLeft))) return false;
  if (wantedRight && !(right && Object.values(right[2]).includes(wantedRight))) return false;
  if (byId("differ").checked && !(left && right && primary(left[2]) !== primary(right[2]))) return false;
  return !byId("drifted").checked || Boolean(left && left[4][byId("scorer").value] >= BAD);
}

function holds(texts, words) {
  const text = texts.join("\n").toLowerCase();
  return words.every((word) => text.includes(word));
}

async function filterAnswers() {
  const token = ++answers.token;
  const words = byId("search").value.toLowerCase().split(/\s+/).filter(Boolean);
  const rows = evaluation().items.filter(fits);
  answers.matches = rows;
  if (words.length) {
    byId("count").textContent = "searching…";
    answers.matches = [];
    for (const row of rows) {
      const responses = (await load(row[1]))[row[0]];
      if (token !== answers.token) return; // a newer search has begun
      const texts = responses.flatMap((one) => [one.prompt, one.request, one.answer, ...one.steps]);
      if (holds([row[0], ...texts], words)) answers.matches.push(row);
    }
  }
  byId("count").textContent = `${answers.matches.length} of ${evaluation().items.length} prompts`;
  answers.shown = 0;
  byId("list").replaceChildren();
  byId("detail").replaceChildren(element("p", "soft", answers.matches.length ? "Choose a prompt to read the chains." : "No prompt fits these filters."));
  moreAnswers();
}

// another scorer colours the steps: what was open stays open
async function rescore() {
  const open = byId("list").querySelector('[aria-current="true"] .id')?.textContent;
  await filterAnswers();
  [...byId("list").querySelectorAll("button")].find((button) => open && button.querySelector(".id")?.textContent === open)?.click();
}

function moreAnswers() {
  const list = byId("list");
  list.querySelector(".more")?.parentElement.remove();
  for (const row of answers.matches.slice(answers.shown, answers.shown + PAGE_SIZE)) {
    const button = element("button");
    button.type = "button";
    button.append(element("span", "id", row[0]));
    const labels = element("div", "chips");
    for (const id of ["left", "right"]) {
      const answer = side(row, byId(id).value);
      labels.append(chip(answer ? primary(answer[2]) : "", evaluation().nature));
    }
    button.append(labels);
    button.addEventListener("click", () => openAnswer(row, button));
    list.append(element("li"));
    list.lastChild.append(button);
  }
  answers.shown = Math.min(answers.shown + PAGE_SIZE, answers.matches.length);
  if (answers.shown < answers.matches.length) more(list, moreAnswers);
}

function more(list, next) {
  const button = element("button", "more", "more");
  button.type = "button";
  button.addEventListener("click", next);
  list.append(element("li"));
  list.lastChild.append(button);
}

function current(list, button) {
  list.querySelector('[aria-current="true"]')?.removeAttribute("aria-current");
  button.setAttribute("aria-current", "true");
}

async function openAnswer(row, button) {
  current(byId("list"), button);
  const detail = byId("detail");
  const { nature } = evaluation();
  try {
    const responses = (await load(row[1]))[row[0]];
    const first = responses[0];
    detail.replaceChildren(element("h2", "", row[0]));
    if (first.category) detail.append(element("p", "soft", first.category));
    detail.append(guarded(element("div", "prompt", first.prompt), nature));
    if (first.request) detail.append(element("h3", "", "The request inside it"), guarded(element("div", "prompt", first.request), nature));
    const sides = element("div", "sides");
    const shown = [...new Set([byId("left").value, byId("right").value])];
    sides.classList.toggle("one", shown.length < 2);
    for (const key of shown) sides.append(answerSide(key, responses.filter((one) => one.checkpoint === key), nature));
    detail.append(sides);
  } catch (error) {
    detail.replaceChildren(element("p", "soft", error.message));
  }
}

function answerSide(key, responses, nature) {
  const node = element("section");
  node.append(element("h3", "", INDEX.checkpoints.find((entry) => entry.key === key)?.title ?? key));
  if (!responses.length) node.append(element("p", "soft", "was not asked this"));
  for (const one of responses) {
    const cut = one.finish === "length" ? ", cut at the token limit" : "";
    const many = responses.length > 1 ? `sample ${one.sample}: ` : "";
    node.append(chips(one.labels, nature), element("p", "soft", `${many}${one.tokens} tokens, thinking ${one.state}${cut}`));
    node.append(chain(one.steps, nature, one.badness[byId("scorer").value], one.steps.map((_, place) => (place < one.forced ? "forced" : ""))));
    node.append(element("h3", "", "Answer"), guarded(element("div", "answer", one.answer || "(none)"), nature));
  }
  return node;
}

// ---------------------------------------------------------------- training samples

const samples = { matches: [], shown: 0 };
const recipe = () => INDEX.samples.find((entry) => entry.name === byId("recipe").value);

function chooseRecipe() {
  const kinds = [...new Set(recipe().rows.map((row) => row[2]))].sort();
  fill(byId("kind"), [["", "all"], ...kinds.map((kind) => [kind, kind])]);
  filterSamples();
}

function filterSamples() {
  const words = byId("sample-search").value.toLowerCase().split(/\s+/).filter(Boolean);
  const kind = byId("kind").value;
  samples.matches = recipe().rows.filter((row) => (!kind || row[2] === kind) && holds([row[0], row[4]], words));
  byId("sample-count").textContent = `${samples.matches.length} of ${recipe().rows.length} samples`;
  samples.shown = 0;
  byId("sample-list").replaceChildren();
  byId("sample-detail").replaceChildren(element("p", "soft", samples.matches.length ? "Choose a sample to read its chain." : "No sample fits these filters."));
  moreSamples();
}

function moreSamples() {
  const list = byId("sample-list");
  list.querySelector(".more")?.parentElement.remove();
  for (const row of samples.matches.slice(samples.shown, samples.shown + PAGE_SIZE)) {
    const button = element("button");
    button.type = "button";
    button.append(element("span", "id", row[0]));
    const labels = element("div", "chips");
    labels.append(element("span", "chip", row[2]), element("span", "chip", row[4] || row[3]));
    button.append(labels);
    button.addEventListener("click", () => openSample(row, button));
    list.append(element("li"));
    list.lastChild.append(button);
  }
  samples.shown = Math.min(samples.shown + PAGE_SIZE, samples.matches.length);
  if (samples.shown < samples.matches.length) more(list, moreSamples);
}

async function openSample(row, button) {
  current(byId("sample-list"), button);
  const detail = byId("sample-detail");
  try {
    const [one] = (await load(row[1]))[row[0]];
    const from = [one.source && `from ${one.source}`, one.teacher && `written by ${one.teacher}`].filter(Boolean).join(", ");
    detail.replaceChildren(element("h2", "", row[0]), element("p", "soft", [row[4], from].filter(Boolean).join(" · ")));
    detail.append(guarded(element("div", "prompt", one.prompt), row[3]));
    detail.append(chain(one.steps, row[3], undefined, one.roles.map((role) => (role === "base" ? "" : role))));
    detail.append(element("h3", "", "Answer"), guarded(element("div", "answer", one.answer), row[3]));
  } catch (error) {
    detail.replaceChildren(element("p", "soft", error.message));
  }
}

// ---------------------------------------------------------------- start

function openTab(name) {
  for (const other of ["answers", "samples"]) {
    byId(other).hidden = other !== name;
    byId(`tab-${other}`).setAttribute("aria-selected", String(other === name));
  }
}

// index.html#evaluation=xstest&left=model/method/run&left-label=refused : how the report's numbers lead to their rows
function readAddress() {
  const wanted = new URLSearchParams(location.hash.slice(1));
  for (const id of ["evaluation", "left", "right"]) if (wanted.has(id)) byId(id).value = wanted.get(id);
  chooseEvaluation();
  for (const id of ["left-label", "right-label"]) if (wanted.has(id)) byId(id).value = wanted.get(id);
  filterAnswers();
}

function start() {
  byId("tab-answers").addEventListener("click", () => openTab("answers"));
  byId("tab-samples").addEventListener("click", () => openTab("samples"));
  byId("show").addEventListener("change", (event) => document.body.classList.toggle("show-all", event.target.checked));
  for (const form of document.querySelectorAll("form")) form.addEventListener("submit", (event) => event.preventDefault());
  if (INDEX.evaluations.length) {
    fill(byId("evaluation"), INDEX.evaluations.map((entry) => [entry.name, `${entry.title} (${entry.items.length})`]));
    const options = INDEX.checkpoints.map((entry) => [entry.key, entry.title]);
    fill(byId("left"), options);
    fill(byId("right"), options);
    byId("left").value = (options.find(([key]) => key.split("/")[1] === "advchain") ?? options.at(-1))[0];
    byId("right").value = options[0][0];
    byId("evaluation").addEventListener("change", chooseEvaluation);
    byId("scorer").addEventListener("change", rescore);
    for (const id of ["left", "right", "left-label", "right-label", "differ", "drifted"]) byId(id).addEventListener("change", filterAnswers);
    let typing;
    byId("search").addEventListener("input", () => { clearTimeout(typing); typing = setTimeout(filterAnswers, 250); });
    window.addEventListener("hashchange", readAddress);
    readAddress();
  } else {
    byId("count").textContent = "No checkpoint was evaluated.";
  }
  if (INDEX.samples.length) {
    fill(byId("recipe"), INDEX.samples.map((entry) => [entry.name, `${entry.name} (${entry.rows.length})`]));
    byId("recipe").addEventListener("change", chooseRecipe);
    byId("kind").addEventListener("change", filterSamples);
    byId("sample-search").addEventListener("input", filterSamples);
    chooseRecipe();
  } else {
    byId("sample-count").textContent = "Nothing was trained.";
  }
}

start();
