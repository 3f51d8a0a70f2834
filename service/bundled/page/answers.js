// Answers of the service as elements of the page.

import { inWords } from "./service.js";

export function element(tag, className, text) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

export function button(text, name, onClick) {
  const made = element("button", "", text);
  made.type = "button";
  made.setAttribute("aria-label", `${text}: ${name}`);
  made.addEventListener("click", onClick);
  return made;
}

/** Rounded down: only what is certain is 100 %. */
export function percent(confidence) {
  if (confidence > 0 && confidence < 0.001) return "< 0.1 %";
  return `${(Math.floor(1000 * confidence + 1e-6) / 10).toFixed(1)} %`;
}

const surenessOf = (confidence) => (confidence >= 0.9 ? "sure" : confidence >= 0.5 ? "fair" : "doubtful");

/** What one reading says. */
export function readingOf(answer) {
  if (answer.error) return [element("div", "error", inWords(answer.error))];
  const parts = [textOf(answer)];
  const facts = [`${percent(answer.confidence)} sure`];
  if (answer.uncertain) facts.push("uncertain: below what this server asks for");
  if (answer.angle) facts.push(`turned by ${answer.angle}° clockwise to be read`);
  if (answer.timings) facts.push(`${answer.timings.total_ms.toFixed(1)} ms`);
  if (answer.model) facts.push(answer.model);
  parts.push(element("div", "note", facts.join(" · ")));
  if (answer.words) parts.push(listOf("Words", answer.words));
  if (answer.alternatives?.length > 1) parts.push(listOf("Other readings", answer.alternatives.slice(1)));
  if (answer.characters?.length) {
    const each = element("details", "note");
    const told = answer.characters.map(({ char, confidence }) => `${char === " " ? "space" : char} ${percent(confidence)}`);
    each.append(element("summary", "", "Each character"), element("div", "", told.join(",  ")));
    parts.push(each);
  }
  return parts;
}

function textOf({ text, characters }) {
  if (text === "") return element("div", "text none", "no text");
  const line = element("div", "text");
  if (characters?.map(({ char }) => char).join("") !== text) {
    line.textContent = text;
    return line;
  }
  for (const { char, confidence } of characters) {
    const span = element("span", `char ${surenessOf(confidence)}`, char);
    span.title = percent(confidence);
    line.append(span);
  }
  return line;
}

function listOf(title, readings) {
  const line = element("div", "note", `${title}: `);
  readings.forEach(({ text, confidence }, index) => {
    line.append(index ? ", " : "", element("code", "", text === "" ? "(no text)" : text), ` ${percent(confidence)}`);
  });
  return line;
}

/** The readings of the words that were marked on a picture, each with a cutting of it. */
export function regionsOf(answers, boxes, picture) {
  const list = element("ol", "regions");
  answers.forEach((answer, index) => {
    const item = element("li");
    item.append(cuttingOf(picture, boxes[index]), ...readingOf(answer));
    list.append(item);
  });
  return list;
}

function cuttingOf(picture, { left, top, width, height }) {
  const canvas = element("canvas");
  const scale = Math.min(1, 480 / width, 96 / height);
  canvas.width = Math.max(1, Math.round(width * scale));
  canvas.height = Math.max(1, Math.round(height * scale));
  canvas.setAttribute("aria-hidden", "true");
  canvas.getContext("2d").drawImage(picture, left, top, width, height, 0, 0, canvas.width, canvas.height);
  return canvas;
}
