// The dialogue in which words of a picture are marked with boxes, by mouse, finger or keyboard.

const part = (name) => document.getElementById(`editor-${name}`);
const dialog = document.getElementById("editor");
const stage = part("stage");
const picture = part("picture");
const numbers = [...part("numbers").querySelectorAll("input")];
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
const LEAST_ON_SCREEN = 4; // pixels; a smaller drag was a click

let boxes = []; // {left, top, width, height, label}, in pixels of the picture
let chosen = -1;
let drag = null;
let limit = Infinity;
let onRead = null;

/**
 * Let a person mark words.
 *
 * @param url Of the picture.
 * @param name Of its file.
 * @param marked Boxes that are there already.
 * @param most How many boxes the server takes.
 * @param read Called with the boxes when they shall be read; returns a list of texts for them, and a line about them all.
 * @param closed Called when the dialogue has been closed.
 */
export function markWords({ url, name, marked, most, read, closed }) {
  boxes = marked.map((box) => ({ ...box }));
  chosen = -1;
  limit = most;
  onRead = read;
  dialog.onclose = closed;
  picture.src = url;
  picture.alt = `The picture ${name}`;
  part("title").textContent = `Mark words on ${name}`;
  part("zoom").value = "100";
  stage.style.width = "";
  say("");
  dialog.showModal();
  picture.decode().then(draw, () => say("This browser cannot show the picture."));
  part("add").focus();
}

function say(text) {
  part("status").textContent = text;
}

/** Show the boxes as they are now; elements are kept, so that the focus stays. */
function draw() {
  const elements = [...stage.querySelectorAll(".box")];
  elements.slice(boxes.length).forEach((element) => element.remove());
  boxes.forEach((box, index) => {
    const element = elements[index] ?? stage.appendChild(newElement());
    element.dataset.index = index;
    element.classList.toggle("chosen", index === chosen);
    element.style.left = `${(100 * box.left) / picture.naturalWidth}%`;
    element.style.top = `${(100 * box.top) / picture.naturalHeight}%`;
    element.style.width = `${(100 * box.width) / picture.naturalWidth}%`;
    element.style.height = `${(100 * box.height) / picture.naturalHeight}%`;
    element.querySelector(".label").textContent = box.label === undefined ? `${index + 1}` : `${index + 1} ${box.label}`;
    element.setAttribute("aria-label", `${index + 1}${box.label ? ` (${box.label})` : ""}: ${place(box)}`);
  });
  part("read").disabled = boxes.length === 0;
  part("read").textContent = boxes.length > 1 ? `Read ${boxes.length} boxes` : "Read";
  part("add").disabled = boxes.length >= limit;
  part("delete").disabled = chosen < 0;
  part("numbers").disabled = chosen < 0;
  for (const input of numbers) input.value = chosen < 0 ? "" : boxes[chosen][input.dataset.side];
}

function newElement() {
  const element = document.createElement("div");
  element.className = "box";
  element.tabIndex = 0;
  element.setAttribute("role", "application"); // so that screen readers pass on the arrow keys
  element.setAttribute("aria-roledescription", "box");
  element.setAttribute("aria-describedby", "editor-help");
  const label = document.createElement("span");
  label.className = "label";
  element.append(label);
  for (const corner of ["nw", "ne", "se", "sw"]) {
    const handle = document.createElement("span");
    handle.className = `handle ${corner}`;
    handle.dataset.corner = corner;
    element.append(handle);
  }
  return element;
}

function place({ left, top, width, height }) {
  return `left ${left}, top ${top}, width ${width}, height ${height}`;
}

const clamp = (value, least, most) => Math.min(Math.max(value, least), most);

/** Change a box, within the picture; it must be read again. */
function change(index, wanted) {
  const width = clamp(Math.round(wanted.width), 1, picture.naturalWidth);
  const height = clamp(Math.round(wanted.height), 1, picture.naturalHeight);
  const left = clamp(Math.round(wanted.left), 0, picture.naturalWidth - width);
  const top = clamp(Math.round(wanted.top), 0, picture.naturalHeight - height);
  boxes[index] = { left, top, width, height };
}

function choose(index) {
  chosen = index;
  draw();
}

function add(box) {
  if (boxes.length >= limit) {
    say(`This server reads ${limit} boxes of a picture at most.`);
    return false;
  }
  boxes.push(box);
  change(boxes.length - 1, box);
  choose(boxes.length - 1);
  return true;
}

function remove(index) {
  if (index < 0) return;
  boxes.splice(index, 1);
  const next = Math.min(index, boxes.length - 1);
  choose(next);
  say(`Box ${index + 1} is removed; ${boxes.length} left.`);
  (next < 0 ? part("add") : elementOf(next)).focus();
}

const elementOf = (index) => stage.querySelectorAll(".box")[index];

// Mouse and finger ---------------------------------------------------------------------------------------------------------

function pointOf(event) {
  const frame = picture.getBoundingClientRect();
  return {
    x: clamp(((event.clientX - frame.left) / frame.width) * picture.naturalWidth, 0, picture.naturalWidth),
    y: clamp(((event.clientY - frame.top) / frame.height) * picture.naturalHeight, 0, picture.naturalHeight),
  };
}

stage.addEventListener("pointerdown", (event) => {
  if (event.button !== 0 || !event.isPrimary || !picture.naturalWidth) return;
  event.preventDefault();
  const at = pointOf(event);
  const element = event.target.closest(".box");
  const corner = event.target.dataset.corner;
  if (!element) {
    if (!add({ left: at.x, top: at.y, width: 1, height: 1 })) return;
    drag = { index: chosen, anchor: at, isNew: true };
  } else {
    choose(Number(element.dataset.index));
    const box = boxes[chosen];
    drag = corner
      ? { index: chosen, anchor: { x: box.left + (corner.includes("w") ? box.width : 0), y: box.top + (corner.includes("n") ? box.height : 0) } }
      : { index: chosen, from: at, box };
  }
  drag.start = [event.clientX, event.clientY];
  elementOf(chosen).focus({ preventScroll: true });
  stage.setPointerCapture(event.pointerId);
});

stage.addEventListener("pointermove", (event) => {
  if (!drag) return;
  const at = pointOf(event);
  const { index, anchor, box, from, start } = drag;
  drag.moved ||= Math.hypot(event.clientX - start[0], event.clientY - start[1]) >= LEAST_ON_SCREEN;
  if (!drag.moved) return;
  if (anchor) {
    const [left, top] = [Math.min(anchor.x, at.x), Math.min(anchor.y, at.y)];
    change(index, { left, top, width: Math.abs(anchor.x - at.x), height: Math.abs(anchor.y - at.y) });
  } else {
    change(index, { ...box, left: box.left + at.x - from.x, top: box.top + at.y - from.y });
  }
  draw();
});

for (const name of ["pointerup", "pointercancel"]) {
  stage.addEventListener(name, () => {
    if (drag?.isNew && !drag.moved) {
      boxes.splice(drag.index, 1);
      choose(-1);
    }
    drag = null;
  });
}

// Keyboard -----------------------------------------------------------------------------------------------------------------

stage.addEventListener("focusin", (event) => {
  const element = event.target.closest(".box");
  if (element && Number(element.dataset.index) !== chosen) choose(Number(element.dataset.index));
});

stage.addEventListener("keydown", (event) => {
  if (chosen < 0 || event.ctrlKey || event.altKey || event.metaKey) return;
  if (event.key === "Delete" || event.key === "Backspace") {
    event.preventDefault();
    remove(chosen);
  } else if (event.key in ARROWS) {
    event.preventDefault();
    const step = Math.max(1, Math.round(Math.max(picture.naturalWidth, picture.naturalHeight) / 200));
    const [x, y] = ARROWS[event.key].map((sign) => sign * step);
    const { left, top, width, height } = boxes[chosen];
    change(chosen, event.shiftKey ? { left, top, width: width + x, height: height + y } : { left: left + x, top: top + y, width, height });
    draw();
    say(place(boxes[chosen]));
  }
});

// Buttons and fields -------------------------------------------------------------------------------------------------------

part("add").addEventListener("click", () => {
  const [width, height] = [picture.naturalWidth, picture.naturalHeight];
  if (!width) return;
  // Where none is yet: each a little lower than the one before.
  const top = ((0.05 + 0.08 * boxes.length) % 0.9) * height;
  if (add({ left: 0.1 * width, top, width: 0.3 * width, height: 0.06 * height })) elementOf(chosen).focus();
});

part("delete").addEventListener("click", () => remove(chosen));

for (const input of numbers) {
  input.addEventListener("change", () => {
    const value = input.valueAsNumber;
    if (chosen >= 0 && Number.isFinite(value)) change(chosen, { ...boxes[chosen], [input.dataset.side]: value });
    draw();
  });
}

part("zoom").addEventListener("change", (event) => {
  stage.style.width = `${event.target.value}%`;
});

part("read").addEventListener("click", async () => {
  part("read").disabled = true;
  say("Reading ...");
  const read = boxes;
  const opened = onRead;
  const { texts, summary } = await onRead(boxes.map(({ left, top, width, height }) => ({ left, top, width, height })));
  if (opened !== onRead) return; // another picture has been opened meanwhile
  texts.forEach((text, index) => {
    if (boxes[index] !== undefined && boxes[index] === read[index]) boxes[index].label = text;
  });
  say(summary);
  draw();
});

part("close").addEventListener("click", () => dialog.close());
