// Calls of the service. The key lives in this module's memory and nowhere else.

let key = null;

/** Show this key with every call from now on. */
export function useKey(value) {
  key = value;
}

/** Why a call was not answered; `status` is 0 where the service could not be reached. */
export class Refused extends Error {
  constructor(status, detail, retryAfter) {
    super(detail);
    this.status = status;
    this.retryAfter = retryAfter;
  }
}

/** The JSON answer to a GET, or to a POST of `body`. Throws Refused. */
export async function call(path, { body = null, signal = null } = {}) {
  return (await reply(path, body, signal)).json();
}

/** The text of a GET. Throws Refused. */
export async function text(path) {
  return (await reply(path, null, null)).text();
}

/** Like `call`; while the service is busy it is asked again, a few times. */
export async function patient(path, options, attempts = 4) {
  for (let attempt = 1; ; attempt += 1) {
    try {
      return await call(path, options);
    } catch (error) {
      if (!(error instanceof Refused) || error.status !== 429 || attempt === attempts) throw error;
      await new Promise((resolve) => setTimeout(resolve, 1000 * (error.retryAfter || 1)));
      options.signal?.throwIfAborted();
    }
  }
}

async function reply(path, body, signal) {
  const headers = {};
  if (body !== null) headers["Content-Type"] = "application/json";
  if (key !== null) headers.Authorization = `Bearer ${key}`;
  const options = { method: body === null ? "GET" : "POST", headers, signal, cache: "no-store" };
  if (body !== null) options.body = JSON.stringify(body);
  let response;
  try {
    response = await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused(0, "The service cannot be reached.");
  }
  if (response.ok) return response;
  throw new Refused(response.status, await detail(response), Number(response.headers.get("Retry-After")));
}

async function detail(response) {
  try {
    return (await response.json()).detail ?? response.statusText;
  } catch {
    return response.statusText || `status ${response.status}`;
  }
}
