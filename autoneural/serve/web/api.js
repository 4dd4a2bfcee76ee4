// The server's routes. The API key lives in this tab's session storage and in no URL.

/** What went wrong, in the words of the server's error object. */
export class ServerError extends Error {
  constructor(status, { message, param, code }) {
    super(message);
    this.status = status;
    this.where = [param, code, status && `HTTP ${status}`].filter(Boolean).join(" · ");
  }
}

export function setKey(key) {
  sessionStorage.setItem("key", key);
}

export async function getJson(path) {
  return (await ask(path)).json();
}

export async function getBlob(path) {
  return (await ask(path)).blob();
}

/** The chunks of a streamed answer. Aborting `signal` closes the connection, which the server sees. */
export async function* streamChat(body, signal) {
  const response = await ask("v1/chat/completions", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ ...body, stream: true }),
    signal,
  });
  for await (const data of events(response.body)) {
    if (data === "[DONE]") return;
    const chunk = JSON.parse(data);
    if (chunk.error) throw new ServerError(0, chunk.error);
    yield chunk;
  }
  throw new ServerError(0, { message: "the connection broke before the answer was complete" });
}

async function ask(path, options = {}) {
  const key = sessionStorage.getItem("key");
  const headers = { ...options.headers, ...(key && { Authorization: `Bearer ${key}` }) };
  let response;
  try {
    response = await fetch(path, { ...options, headers, redirect: "error" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ServerError(0, { message: "the server cannot be reached; is it still running?" });
  }
  if (!response.ok) throw new ServerError(response.status, await errorOf(response));
  return response;
}

async function errorOf(response) {
  try {
    return (await response.json()).error;
  } catch {
    return { message: "the server's answer is no error object" };
  }
}

/** The `data:` fields of a stream of server-sent events; ours are one line each. */
async function* events(stream) {
  let rest = "";
  for await (const text of pieces(stream)) {
    const lines = (rest + text).split("\n");
    rest = lines.pop();
    for (const line of lines) {
      if (line.startsWith("data: ")) yield line.slice("data: ".length);
    }
  }
}

async function* pieces(stream) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      yield value;
    }
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ServerError(0, { message: "the connection to the server broke" });
  }
}
