// Results as CSV and JSON.

const COLUMNS = ["number", "file", "region", "text", "confidence", "uncertain", "angle", "alternatives", "words", "model", "error"];

/**
 * @param rows Objects of what the service answered, with `file`, and `region` ([left, top, right, bottom]) of a marked word.
 * @returns CSV as RFC 4180 has it.
 */
export function csvOf(rows) {
  const lines = rows.map((row, index) => [
    index + 1,
    row.file,
    row.region?.join(" "),
    row.text,
    row.confidence,
    row.uncertain,
    row.angle,
    row.alternatives?.map(({ text }) => text).join(" | "),
    row.words?.map(({ text, box }) => `${text} [${box.join(" ")}]`).join(" | "),
    row.model,
    row.error,
  ]);
  return [COLUMNS, ...lines].map((cells) => cells.map(cellOf).join(",")).join("\r\n") + "\r\n";
}

/** A cell. A spreadsheet would run what begins like a formula: it gets an apostrophe in front, unless it is a number. */
function cellOf(value) {
  let text = value === undefined || value === null ? "" : String(value);
  if (/^[=+\-@\t\r]/.test(text) && !/^[+-]?[\d.,]+$/.test(text)) text = `'${text}`;
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

export const jsonOf = (rows) => JSON.stringify(rows, null, 2) + "\n";

export function save(name, type, content) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([content], { type }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

/** Copy, also where the page is served without TLS and has no clipboard of its own. */
export async function copy(text) {
  if (navigator.clipboard) return navigator.clipboard.writeText(text);
  const area = document.createElement("textarea");
  const focused = document.activeElement;
  area.value = text;
  document.body.append(area);
  area.select();
  const copied = document.execCommand("copy");
  area.remove();
  focused?.focus();
  if (!copied) throw new Error("nothing was copied");
}
