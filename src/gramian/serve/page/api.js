// Requests to the server that this page came from, and to nothing else.

let key = sessionStorage.getItem("key") ?? "";

// #key=… in the address is taken once and removed, so that it is in no history and no screenshot.
const given = /^#key=(.+)$/.exec(location.hash);
if (given) {
  key = decodeURIComponent(given[1]);
  sessionStorage.setItem("key", key);
  history.replaceState(null, "", location.pathname);
}

export class Problem extends Error {
  constructor(status, detail) {
    super(detail);
    this.status = status;
  }
}

const pause = (seconds) => new Promise((done) => setTimeout(done, 1000 * seconds));

let asking = null;

/** Ask the person for an API key, once for all requests that wait for it. */
function askForKey() {
  asking ??= new Promise((done) => {
    const dialog = document.getElementById("key-dialog");
    const input = document.getElementById("key");
    dialog.showModal();
    dialog.addEventListener("close", () => {
      key = input.value.trim();
      input.value = "";
      sessionStorage.setItem("key", key);
      asking = null;
      done();
    }, { once: true });
  });
  return asking;
}

async function call(path, options, tries = 0) {
  const headers = { ...options.headers };
  if (key) headers.Authorization = `Bearer ${key}`;
  const answer = await fetch(`/v1/${path}`, { ...options, headers });
  if (answer.ok) return answer.json();
  const problem = await answer.json().catch(() => ({}));
  if (answer.status === 401) {
    await askForKey();
    return call(path, options, tries);
  }
  if (answer.status === 503 && tries < 60 && /starting|try again/.test(problem.detail ?? "")) {
    await pause(Number(answer.headers.get("Retry-After") ?? 1));
    return call(path, options, tries + 1);
  }
  throw new Problem(answer.status, problem.detail ?? `The server answered ${answer.status}.`);
}

export const get = (path) => call(path, {});

export const post = (path, body, { signal, headers } = {}) =>
  call(path, { method: "POST", body: JSON.stringify(body), signal, headers: { "Content-Type": "application/json", ...headers } });

/** A name for a write that no other write has. */
export function newName() {
  return [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}
