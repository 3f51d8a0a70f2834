// The page: pictures come in, are read a few at a time, and their results can be taken along.

import { button, element, percent, readingOf, regionsOf } from "./answers.js";
import { copy, csvOf, jsonOf, save } from "./export.js";
import { chosenOptions, learnOptions, limits, onModelsAnswer } from "./options.js";
import { markWords } from "./regions.js";
import { ask, Failure, useKey } from "./service.js";

const AT_ONCE = 4;
const byId = (id) => document.getElementById(id);

const entries = []; // in the order in which pictures came: {file, url, row, state, answers, boxes, message, ...}
const waiting = [];
let active = 0;

// Pictures come in -----------------------------------------------------------------------------------------------------------

function add(files) {
  const added = [...files].map(newEntry);
  if (!added.length) return say("There was no file in that: drop or paste pictures.");
  entries.push(...added);
  added.forEach(enqueue);
}

function newEntry(file) {
  const entry = { file, name: file.name || "pasted picture", url: URL.createObjectURL(file), row: element("li"), boxes: null, wantsKey: false };
  const picture = element("div", "picture");
  entry.picture = element("img");
  entry.picture.alt = `The picture ${entry.name}`;
  entry.picture.decoding = "async";
  entry.picture.addEventListener("error", () => {
    entry.unseen = true;
    entry.picture.replaceWith(element("div", "note", "This browser has no preview of the file."));
    show(entry);
  });
  entry.picture.src = entry.url;
  picture.append(entry.picture);
  entry.answer = element("div");
  entry.row.append(picture, entry.answer);
  byId("results").append(entry.row);
  return entry;
}

function remove(entry) {
  entry.stop?.abort();
  URL.revokeObjectURL(entry.url);
  entry.row.remove();
  entries.splice(entries.indexOf(entry), 1);
  tell();
}

// Reading --------------------------------------------------------------------------------------------------------------------

/** Have a picture read, when others are done. Returns a promise that is kept when it has its result. */
function enqueue(entry) {
  entry.stop?.abort();
  entry.stop = new AbortController();
  entry.options = chosenOptions();
  Object.assign(entry, { state: "waiting", answers: null, message: "", wantsKey: false });
  show(entry);
  const done = new Promise((resolve) => waiting.push({ entry, stop: entry.stop, resolve }));
  next();
  return done;
}

function next() {
  while (active < AT_ONCE && waiting.length) {
    const job = waiting.shift();
    active++;
    read(job.entry, job.stop.signal).finally(() => {
      active--;
      job.resolve();
      next();
    });
  }
  tell();
}

async function read(entry, signal) {
  if (signal.aborted) return;
  entry.state = "reading";
  show(entry);
  try {
    await refuseWhatCannotBeSent(entry);
    const onWait = (message) => {
      entry.message = message;
      show(entry);
    };
    const answer = await ask(addressOf(entry), { method: "POST", body: bodyOf(entry), signal, onWait });
    const answers = entry.boxes ? answer.results : [answer];
    if (!Array.isArray(answers) || !answers.every((one) => typeof one.text === "string" || one.error)) {
      throw new Failure("Something else than the service answered: there is no text in the answer.");
    }
    entry.answers = entry.boxes ? answers.map((one) => ({ ...one, model: answer.model })) : answers;
    entry.timings = answer.timings;
    Object.assign(entry, { state: "read", message: "" });
  } catch (error) {
    if (signal.aborted) return;
    if (!(error instanceof Failure)) console.error(error);
    Object.assign(entry, { state: "failed", message: error instanceof Failure ? error.message : "This page failed. Load it again." });
    entry.wantsKey = error.wantsKey === true;
    if (entry.wantsKey) askForKey();
  }
  show(entry);
}

async function refuseWhatCannotBeSent({ file }) {
  const most = limits()?.max_image_bytes;
  if (most && file.size > most) {
    throw new Failure(`The file has ${megabytes(file.size)}; this server takes ${megabytes(most)} at most. Send a smaller copy.`);
  }
  try {
    await file.slice(0, 1).arrayBuffer();
  } catch {
    throw new Failure("This cannot be read from the disk: it is a folder, or has been moved or changed.");
  }
}

const megabytes = (bytes) => `${(bytes / 2 ** 20).toFixed(1)} MiB`;

function addressOf({ boxes, options }) {
  return `${boxes ? "v1/regions" : "v1/recognize"}?${new URLSearchParams({ ...options, characters: "true" })}`;
}

function bodyOf({ boxes, file, name }) {
  if (!boxes) return file;
  const form = new FormData();
  form.append("regions", JSON.stringify(boxes.map((box) => ({ box: cornersOf(box) }))));
  form.append("file", file, name);
  return form;
}

const cornersOf = ({ left, top, width, height }) => [left, top, left + width, top + height];

// Showing --------------------------------------------------------------------------------------------------------------------

function show(entry) {
  const focused = entry.answer.contains(document.activeElement) ? document.activeElement.textContent : null;
  const parts = [element("div", "name", entry.name)];
  if (entry.state === "waiting") parts.push(element("div", "note", "Waiting for its turn ..."));
  if (entry.state === "reading") parts.push(element("div", "note", entry.message || "Reading ..."));
  if (entry.state === "failed") parts.push(element("div", "error", entry.message));
  if (entry.state === "read" && entry.boxes) {
    parts.push(element("div", "note", `${entry.boxes.length} marked, ${entry.timings.total_ms.toFixed(1)} ms`));
    parts.push(regionsOf(entry.answers, entry.boxes, entry.picture));
  } else if (entry.state === "read") parts.push(...readingOf(entry.answers[0]));
  const tools = element("p", "tools");
  if (entry.state === "failed") tools.append(button("Try again", entry.name, () => enqueue(entry)));
  if (entry.boxes) tools.append(button("Read as one word", entry.name, () => readAsOneWord(entry)));
  const mark = button("Mark words", entry.name, () => markWordsOf(entry));
  mark.disabled = entry.unseen === true;
  tools.append(mark, button("Remove", entry.name, () => remove(entry)));
  parts.push(tools);
  entry.answer.replaceChildren(...parts);
  entry.answer.setAttribute("aria-busy", String(entry.state === "waiting" || entry.state === "reading"));
  if (focused) [...tools.children].find((one) => one.textContent === focused)?.focus();
}

function readAsOneWord(entry) {
  entry.boxes = null;
  enqueue(entry);
}

function markWordsOf(entry) {
  markWords({
    url: entry.url,
    name: entry.name,
    marked: entry.boxes ?? [],
    most: limits()?.max_regions ?? 512,
    read: async (boxes) => {
      entry.boxes = boxes;
      await enqueue(entry);
      if (entry.state !== "read") return { texts: [], summary: entry.message || "Not read." };
      const texts = entry.answers.map((answer) => (answer.error ? "cannot be read" : answer.text || "no text"));
      return { texts, summary: `Read in ${entry.timings.total_ms.toFixed(0)} ms: ${texts.join(", ")}` };
    },
    // The button that opened the dialogue may have been made anew meanwhile.
    closed: () => [...entry.answer.querySelectorAll(".tools button")].find(({ textContent }) => textContent === "Mark words")?.focus(),
  });
}

function say(text) {
  byId("status").textContent = text;
}

/** What is done and what is not, for the eye and for screen readers. */
function tell() {
  const count = (state) => entries.filter((entry) => entry.state === state).length;
  const [read, failed] = [count("read"), count("failed")];
  byId("results-part").hidden = entries.length === 0;
  byId("again").disabled = entries.length === 0;
  if (!entries.length) return say("");
  if (entries.length === 1 && read && !entries[0].boxes) {
    const [{ text, confidence }] = entries[0].answers;
    return say(`${entries[0].name}: ${text || "no text"}, ${percent(confidence)} sure`);
  }
  return say(`${read} of ${entries.length} read${failed ? `, ${failed} failed` : ""}.`);
}

// The key, and what the server can -------------------------------------------------------------------------------------------

function askForKey() {
  if (byId("key-form").hidden) {
    byId("key-form").hidden = false;
    byId("key").focus();
  }
}

byId("key-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  try {
    useKey(byId("key").value.trim());
  } catch (error) {
    return say(error.message);
  }
  if (await learnOptions()) entries.filter(({ wantsKey }) => wantsKey).forEach(enqueue);
});

onModelsAnswer((error) => {
  if (!error) byId("key-form").hidden = true;
  else if (error.wantsKey) askForKey();
});
byId("ask-again").addEventListener("click", learnOptions);
byId("again").addEventListener("click", () => entries.forEach(enqueue));
learnOptions();

// Taking results along -------------------------------------------------------------------------------------------------------

function rows() {
  return entries.flatMap(({ name, state, answers, boxes, message }) => {
    if (state !== "read") return [{ file: name, error: state === "failed" ? message : "not read yet" }];
    return answers.map(({ id, error, ...answer }, index) => ({
      file: name,
      ...(boxes && { region: cornersOf(boxes[index]) }),
      ...answer,
      ...(error && { error: error.detail }),
    }));
  });
}

const texts = () => rows().map(({ text }) => text ?? "").join("\n") + "\n";

async function copied(what, text) {
  try {
    await copy(text);
    say(`${what} copied.`);
  } catch {
    say("The browser did not let the page copy: save the results instead.");
  }
}

byId("copy-text").addEventListener("click", () => copied("Texts", texts()));
byId("copy-csv").addEventListener("click", () => copied("CSV", csvOf(rows())));
byId("copy-json").addEventListener("click", () => copied("JSON", jsonOf(rows())));
// The mark in front tells spreadsheets that it is UTF-8.
byId("save-csv").addEventListener("click", () => save("words.csv", "text/csv;charset=utf-8", `\ufeff${csvOf(rows())}`));
byId("save-json").addEventListener("click", () => save("words.json", "application/json", jsonOf(rows())));
byId("clear").addEventListener("click", () => {
  [...entries].forEach(remove);
  byId("file").focus();
});

// Where files come from ------------------------------------------------------------------------------------------------------

byId("file").addEventListener("change", (event) => {
  add(event.target.files);
  event.target.value = "";
});
document.addEventListener("paste", (event) => {
  if (event.clipboardData.files.length) add(event.clipboardData.files);
  else if (!event.target.closest?.("input")) say("There is no picture on the clipboard.");
});
for (const name of ["dragover", "dragleave", "drop"]) {
  document.addEventListener(name, (event) => {
    event.preventDefault();
    document.body.classList.toggle("over", name === "dragover");
    if (name === "drop") add(event.dataTransfer.files);
  });
}
