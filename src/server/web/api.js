// Talks to the server that the page came from. Addresses are relative, so that --root-path and proxies work.
const basePath = location.pathname.replace(/\/*$/, "/");

// status 0: no answer at all.
class ServerError extends Error {
  constructor(status, message, body = null) {
    super(message);
    this.status = status;
    this.body = body;
  }
}

async function request(path, options = {}) {
  const headers = { ...options.headers };
  const key = loadKey();
  if (key) headers.Authorization = `Bearer ${key}`;
  try {
    return await fetch(basePath + path, { cache: "no-store", ...options, headers });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ServerError(0, t("errorNetwork"));
  }
}

// The server's own words, or the status where it gave none.
async function errorOf(response) {
  const text = await response.text().catch(() => "");
  let body = null;
  try {
    body = JSON.parse(text);
  } catch {
    // Not ours: a proxy's page, say.
  }
  const message = body?.error?.message ?? body?.message ?? (text.slice(0, 300) || response.statusText);
  return new ServerError(response.status, String(message), body);
}

async function getJson(path) {
  const response = await request(path);
  if (!response.ok) throw await errorOf(response);
  return response.json();
}

// null when a message sent now would be answered, else what to tell the user: {text, progress or null}.
async function notReadyReason() {
  let error;
  try {
    const response = await request("health");
    if (response.ok) return null;
    error = await errorOf(response);
  } catch (failure) {
    return { text: failure.message, progress: null };
  }
  if (typeof error.body?.progress !== "number") return { text: t("notReady", { message: error.message }), progress: null };
  const values = { step: String(error.body.step ?? ""), percent: Math.floor(error.body.progress * 100) };
  return { text: t("loading", values), progress: error.body.progress };
}

// Yields the JSON of each event of a streamed answer; throws ServerError when it breaks off.
async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { value, done } = await reader.read();
      const lines = (rest + (value ?? "")).split("\n");
      rest = lines.pop();
      for (const line of lines) {
        if (!line.startsWith("data:")) continue;  // blank lines and heartbeats
        const data = line.slice(5).trim();
        if (data === "[DONE]") return;
        yield JSON.parse(data);
      }
      if (done) throw new ServerError(0, t("errorEnded"));
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

// The request's messages: what the API wants of ours.
function apiMessages(messages, system) {
  const list = system ? [{ role: "system", content: system }] : [];
  for (const message of messages) {
    if (message.role === "assistant") {
      const calls = message.toolCalls.map((call) => ({
        id: call.id, type: "function", function: { name: call.name, arguments: call.arguments },
      }));
      if (!message.content && calls.length === 0 && message.error) continue;
      list.push({ role: "assistant", content: message.content, ...(calls.length ? { tool_calls: calls } : {}) });
    } else if (message.role === "tool") {
      list.push({ role: "tool", tool_call_id: message.callId, content: message.content });
    } else {
      list.push({ role: "user", content: message.content });
    }
  }
  return list;
}

function requestBody(messages, settings, model) {
  const body = {
    ...(model ? { model } : {}),
    messages: apiMessages(messages, settings.system),
    stream: true,
    stream_options: { include_usage: true },
  };
  for (const name of Object.keys(kNumberSettings)) {
    if (settings[name] !== "") body[name] = Number(settings[name]);
  }
  if (settings.thinking) {
    const on = settings.thinking === "on";
    body.chat_template_kwargs = { thinking: on, enable_thinking: on };
  }
  if (settings.tools) body.tools = JSON.parse(settings.tools);
  return body;
}

function emptyAnswer() {
  return { role: "assistant", content: "", reasoning: "", toolCalls: [], finish: null, error: null, stats: {} };
}

// Puts one event into the answer. Times are of performance.now().
function applyEvent(answer, event, startedMs, nowMs) {
  if (event.error) throw new ServerError(event.error.code ?? 500, String(event.error.message ?? "?"), event);
  const stats = answer.stats;
  if (event.usage) {
    stats.tokens = event.usage.completion_tokens;
    stats.promptTokens = event.usage.prompt_tokens;
  }
  const choice = event.choices?.[0];
  if (!choice) return;
  const delta = choice.delta ?? {};
  const reasoning = delta.reasoning_content ?? delta.reasoning ?? "";
  const content = delta.content ?? "";
  if (reasoning || content || delta.tool_calls) {
    stats.firstMs ??= nowMs - startedMs;
    stats.chunks = (stats.chunks ?? 0) + 1;
    stats.lastMs = nowMs - startedMs;
  }
  if (reasoning) {
    answer.reasoning += reasoning;
    stats.thoughtMs = nowMs - startedMs - stats.firstMs;
  }
  answer.content += content;
  for (const part of delta.tool_calls ?? []) {
    const call = (answer.toolCalls[part.index] ??= { id: "", name: "", arguments: "" });
    call.id ||= part.id ?? "";
    call.name ||= part.function?.name ?? "";
    call.arguments += part.function?.arguments ?? "";
  }
  answer.finish = choice.finish_reason ?? answer.finish;
}

// Tokens after the first by the time they took; null where the time is too short to say. Until the server has counted,
// a chunk stands for a token.
function tokensPerSecond(stats) {
  const tokens = stats.tokens ?? stats.chunks ?? 0;
  const seconds = ((stats.lastMs ?? 0) - (stats.firstMs ?? 0)) / 1000;
  return tokens > 1 && seconds >= 0.02 ? (tokens - 1) / seconds : null;
}
