// Asking the service, and wording what goes wrong for people.

const TRIES = 5;
const LONGEST_WAIT_S = 30;
const PATIENCE_MS = 120_000;
const KEY_NAME = "parseq-api-key";

let key = "";
try {
  key = sessionStorage.getItem(KEY_NAME) ?? "";
} catch {
  // A browser that keeps nothing for this page: the key lasts until the page is left.
}

export class Failure extends Error {
  constructor(message, { wantsKey = false } = {}) {
    super(message);
    this.wantsKey = wantsKey;
  }
}

/** Keep the key for this tab. */
export function useKey(value) {
  if (!/^[\x21-\x7e]*$/.test(value)) throw new Failure("A key has no spaces, and no characters but letters, digits and signs of ASCII.");
  key = value;
  try {
    sessionStorage.setItem(KEY_NAME, value);
  } catch {
    // As above.
  }
}

/**
 * Ask the service; while it is busy, again, a few times.
 *
 * @param path Relative to the page, so that a gateway may serve it all below a path of its own.
 * @param onWait Is told, in words, why nothing happens yet.
 * @returns What the JSON of the answer says. Throws a Failure whose message is for people, or an AbortError.
 */
export async function ask(path, { method = "GET", body, signal, onWait = () => {} } = {}) {
  for (let attempt = 1; ; attempt++) {
    const response = await send(path, method, body, signal);
    const busy = response.status === 429 || (response.status === 503 && response.headers.has("Retry-After"));
    if (!busy || attempt === TRIES) return answerOf(response);
    const wait_s = waitOf(response.headers.get("Retry-After"), attempt);
    for (let left = Math.ceil(wait_s); left > 0; left--) {
      onWait(`The server is busy. Trying again in ${left} s (${attempt + 1} of ${TRIES}) ...`);
      await pause(1000, signal);
    }
    await pause(Math.random() * 500, signal); // so that many pictures do not all come back at once
    onWait("");
  }
}

async function send(path, method, body, signal) {
  const headers = { Accept: "application/json" };
  if (key) headers["X-API-Key"] = key;
  if (body instanceof Blob) headers["Content-Type"] = "application/octet-stream";
  const patience = AbortSignal.timeout(PATIENCE_MS);
  try {
    return await fetch(path, { method, body, headers, signal: signal ? AbortSignal.any([signal, patience]) : patience });
  } catch (error) {
    if (signal?.aborted) throw error;
    if (patience.aborted) throw new Failure(`The server did not answer within ${PATIENCE_MS / 1000} seconds.`);
    throw new Failure("The server cannot be reached: it is not running, or the network is down.");
  }
}

/** Seconds to wait. The header is a number of seconds or a date. */
function waitOf(header, attempt) {
  const seconds = /^\d+$/.test(header ?? "") ? Number(header) : (Date.parse(header ?? "") - Date.now()) / 1000;
  return Math.min(LONGEST_WAIT_S, Math.max(1, Number.isFinite(seconds) ? seconds : 2 ** attempt));
}

async function answerOf(response) {
  let answer = null;
  const type = response.headers.get("Content-Type") ?? "";
  if (/^application\/([\w.-]+\+)?json\b/i.test(type)) {
    try {
      answer = await response.json();
    } catch {
      // Broken off, or not JSON after all.
    }
  }
  if (response.ok && answer !== null && typeof answer === "object") return answer;
  throw failureOf(response, answer);
}

function failureOf(response, answer) {
  const status = response.status;
  if (status === 401) {
    return new Failure(key ? "The server does not know this API key." : "This server wants an API key: enter it above.", { wantsKey: true });
  }
  if (typeof answer?.detail === "string") return new Failure(inWords(answer));
  if (response.ok) {
    return new Failure(`Something else than the service answered, with a page instead of a result (status ${status}): perhaps the network wants you to log in.`);
  }
  if (status === 413) return new Failure("A gateway before the service finds this file too large (413). Send a smaller one.");
  if (status >= 500) return new Failure(`A gateway answered in place of the service (status ${status}): the service may be down or starting. Try again in a moment.`);
  return new Failure(`The request was refused before it came to the service (status ${status}).`);
}

/** What a problem document says, without the names of settings, which mean something to the operator only. */
export function inWords(problem) {
  const detail = (problem.detail ?? "").replace(/ \(PARSEQ_[^)]*\)/g, "");
  return problem.title && !detail.startsWith(problem.title) ? `${problem.title}. ${detail}` : detail;
}

function pause(duration_ms, signal) {
  return new Promise((resolve, reject) => {
    const stop = () => {
      clearTimeout(timer);
      reject(signal.reason);
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener("abort", stop);
      resolve();
    }, duration_ms);
    signal?.addEventListener("abort", stop, { once: true });
  });
}
