// What the served models can do, and what a person has chosen of it.

import { ask } from "./service.js";

const KINDS = {
  digits: /\p{Nd}/u,
  letters: /[\p{L}\p{M}]/u,
  uppercase: /\p{Lu}/u,
  lowercase: /\p{Ll}/u,
  alphanumeric: /[\p{L}\p{M}\p{Nd}]/u,
  punctuation: /[\p{P}\p{S}]/u,
};
const BUNDLED = "parseq-mini";
const BUNDLED_CANNOT = [
  "As it comes with the service it was trained on Latin print only: no handwriting, no vertical text, no accents, no other alphabets.",
  "Long texts, bent words, and blurred or very small ones are often read wrongly; so are look-alikes such as 0 and O, 1 and l.",
];
const BUNDLED_EMPTY = "A picture without any text is answered with no text, mostly: now and then it sees a word all the same.";
const byId = (id) => document.getElementById(id);

let models = [];
let listener = () => {};

/** Have a function told when the server has said what it serves, or why it has not (a Failure). */
export function onModelsAnswer(told) {
  listener = told;
}

/** Ask the server. Returns whether it has answered. */
export async function learnOptions() {
  byId("ask-again").hidden = true;
  let failure = null;
  try {
    models = (await ask("v1/models")).models;
    const before = byId("model").value;
    byId("model").replaceChildren(...models.map(({ name }) => new Option(name, name)));
    if (models.some(({ name }) => name === before)) byId("model").value = before;
    byId("model-field").hidden = models.length < 2;
    offer();
  } catch (error) {
    failure = error;
    byId("model-note").textContent = error.message;
    byId("cannot").replaceChildren();
    byId("ask-again").hidden = error.wantsKey === true;
  }
  byId("model-note").classList.toggle("error", failure !== null);
  listener(failure);
  return failure === null;
}

const chosenModel = () => models.find(({ name }) => name === byId("model").value) ?? models[0];

/** The limits of the server, once they are known. */
export const limits = () => chosenModel()?.limits;

/** Options as query parameters. */
export function chosenOptions() {
  const options = {};
  if (models.length > 1) options.model = byId("model").value;
  for (const name of ["orientation", "split", "alternatives", "charset"]) {
    const select = byId(name);
    if (select.value && !select.disabled) options[name] = select.value;
  }
  if (options.charset === "chars:") {
    const characters = byId("characters").value;
    if (characters) options.charset += characters;
    else delete options.charset;
  }
  return options;
}

/** Offer what the chosen model can do; what it cannot is disabled, and says why. */
function offer() {
  const model = chosenModel();
  const alternatives = byId("alternatives");
  const before = alternatives.value;
  alternatives.replaceChildren(new Option("None", ""));
  for (let count = 2; count <= model.max_alternatives; count++) alternatives.append(new Option(`Up to ${count - 1}`, count));
  alternatives.value = before;
  if (alternatives.selectedIndex < 0) alternatives.value = "";
  disable("alternatives", model.max_alternatives < 2, `${model.name} was exported without other readings.`);
  disable("charset", !model.choice_of_characters, `${model.name} cannot be told which characters to read.`);
  for (const option of byId("charset").options) {
    if (option.value in KINDS) option.disabled = model.charset !== undefined && !KINDS[option.value].test(model.charset);
  }
  if (byId("charset").selectedOptions[0]?.disabled) byId("charset").value = "";
  showCharacters();
  byId("model-note").textContent = `${model.name} reads ${charactersOf(model)}, up to ${model.max_label_length} in a text.`;
  byId("cannot").replaceChildren(
    ...cannot(model).map((text) => {
      const item = document.createElement("li");
      item.textContent = text;
      return item;
    }),
  );
}

function disable(name, is, why) {
  byId(name).disabled = is;
  byId(`${name}-why`).textContent = is ? why : "";
}

function charactersOf({ charset, charset_size }) {
  if (charset === undefined || charset_size > 110) return `${charset_size} characters`;
  // Between others nobody would see the space.
  return `the ${charset_size} characters ${charset.replace(" ", "")}${charset.includes(" ") ? " and the space" : ""}`;
}

function cannot(model) {
  const told = [];
  const hasSpace = model.charset === undefined || model.charset.includes(" ");
  if (!hasSpace) told.push("It reads one word a picture, cut out closely, and knows no space. For lines choose below to cut at gaps; on a page mark the words.");
  const isBundled = [model.name, ...model.aliases].includes(BUNDLED);
  told.push(isBundled ? BUNDLED_EMPTY : "On a picture without any text it may see a word all the same.");
  if (isBundled) told.push(...BUNDLED_CANNOT);
  return told;
}

function showCharacters() {
  byId("characters-field").hidden = byId("charset").disabled || byId("charset").value !== "chars:";
}

byId("model").addEventListener("change", offer);
byId("charset").addEventListener("change", showCharacters);
