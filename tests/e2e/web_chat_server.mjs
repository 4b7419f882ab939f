// A server with scripted answers for the browser test: what nano cannot be made to say (tool calls, Markdown, hostile
// text), streams that go on until the browser leaves, and a server that loads, wants a key or breaks off. It serves the
// page that hadal serves, with hadal's headers.
import { createServer } from "node:http";

export const kHostile = [
  "<img src=x onerror=\"window.hacked=1\">",
  "<script>window.hacked=1</script>",
  "[click](javascript:window.hacked=1)",
  "[data](data:text/html,<script>window.hacked=1</script>)",
  "`<b>code</b>` **<i onclick=window.hacked=1>bold</i>**",
  "",
  "```html\"><script>window.hacked=1</script>",
  "</code></pre><script>window.hacked=1</script>",
  "```",
  "",
  "| <a href=x>h</a> | b |",
  "|---|---|",
  "| <svg onload=window.hacked=1> | c |",
].join("\n");

export const kMarkdown = [
  "## Two ways to add", "", "Both give **the same** sum, *exactly*:", "",
  "1. Pairwise, as a tree", "2. In ascending order", "   - with `fma`", "   - without", "",
  "```python", "def add(a, b):", "    return a + b  # one rounding", "```", "",
  "| order | terms | error |", "|---|---:|---|", "| tree | 16 | 2 ulp |", "| ascending | 16 | 7 ulp |", "",
  "> Sums are FP32.", "", "See https://example.org/sums. 3 * 4 * 5 and snake_case_name stay as they are.",
].join("\n");

export const kToolCall = { id: "call_1", name: "get_weather", arguments: "{\"city\": \"Paris\", \"days\": 2}" };

const wait = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

// Deltas of an answer to the last message of the request.
async function* deltasFor(last) {
  yield { role: "assistant", content: "" };
  const text = String(last.content);
  if (last.role === "tool") return yield { content: `It is ${text}.` };
  while (text.includes("ponder")) {
    await wait(20);
    yield { reasoning_content: "hm ", reasoning: "hm " };
  }
  if (text.includes("endless")) {
    yield { reasoning_content: "Counting is easy.", reasoning: "Counting is easy." };
    for (let i = 1; ; ++i) {
      await wait(20);
      yield { content: `${i} ` };
    }
  }
  if (text.includes("tool")) {
    yield { content: "I look it up." };
    yield { tool_calls: [{ index: 0, id: kToolCall.id, type: "function", function: { name: kToolCall.name, arguments: "" } }] };
    for (const part of kToolCall.arguments.match(/.{1,5}/g)) yield { tool_calls: [{ index: 0, function: { arguments: part } }] };
    return;
  }
  const whole = text.includes("hostile") ? kHostile : text.includes("markdown") ? kMarkdown : `You said: ${text}`;
  const thought = text.includes("hostile") ? kHostile : "Let me think about it.\nIt is a simple question.";
  for (const part of thought.match(/[^]{1,7}/g)) {
    await wait(4);
    yield { reasoning_content: part, reasoning: part };
  }
  for (const part of whole.match(/[^]{1,6}/g)) {
    await wait(4);
    yield { content: part };
  }
}

export class ScriptedServer {
  // page: {headers, body} as hadal answered.
  constructor(page) {
    this.page = page;
    this.requests = [];    // bodies of chat requests
    this.numLeft = 0;      // streams that the browser left
    this.key = null;       // wanted API key
    this.progress = null;  // 0 .. 1: loading
    this.prefix = "";      // as --root-path
    this.server = createServer((request, response) => this.answer(request, response));
  }

  async start() {
    await new Promise((resolve) => this.server.listen(0, "127.0.0.1", resolve));
    return `http://127.0.0.1:${this.server.address().port}`;
  }

  stop() {
    this.server.closeAllConnections();
    this.server.close();
  }

  answer(request, response) {
    const json = (status, body) => {
      response.writeHead(status, { "Content-Type": "application/json" });
      response.end(JSON.stringify(body));
    };
    const fail = (status, message, more = {}) => json(status, { error: { message, type: "Error", param: null, code: status }, ...more });
    if (!request.url.startsWith(this.prefix)) return fail(404, "outside of the root path");
    const path = request.url.slice(this.prefix.length);
    if (path === "/" || path === "") {
      response.writeHead(200, this.page.headers);
      return response.end(this.page.body);
    }
    if (path === "/health") {
      if (this.progress === null) return response.writeHead(200).end();
      return fail(503, "Not ready: loading", { status: "loading", progress: this.progress, step: "reading weights" });
    }
    if (path === "/version") return json(200, { version: "0.0.0" });
    if (this.key !== null && request.headers.authorization !== `Bearer ${this.key}`) return fail(401, "Unauthorized: a valid API key is needed");
    if (this.progress !== null) return fail(503, "Loading model");
    if (path === "/v1/models") return json(200, { object: "list", data: [{ id: "scripted", object: "model", root: "/models/scripted", max_model_len: 32768 }] });
    if (path === "/hadal/certificate") return json(200, kCertificate);
    if (path !== "/v1/chat/completions") return fail(404, `Not Found: ${path}`);
    const parts = [];
    request.on("data", (part) => parts.push(part));
    request.on("end", () => this.chat(JSON.parse(Buffer.concat(parts)), response, fail));
  }

  async chat(body, response, fail) {
    this.requests.push(body);
    const last = body.messages.at(-1);
    if (String(last.content).includes("refuse")) return fail(400, "This model's maximum context length is 32768 tokens. <b>Shorten it.</b>");
    response.writeHead(200, { "Content-Type": "text/event-stream; charset=utf-8" });
    let left = false;
    response.on("close", () => { left = !response.writableFinished; });
    const send = (event) => response.write(`data: ${JSON.stringify({ id: "chatcmpl-1", object: "chat.completion.chunk", ...event })}\n\n`);
    let tokens = 0;
    let isTool = false;
    for await (const delta of deltasFor(last)) {
      if (left) {
        this.numLeft += 1;
        return;
      }
      if (String(last.content).includes("break") && tokens === 3) {
        send({ error: { message: "the engine stopped", code: 500 } });
        return response.end("data: [DONE]\n\n");
      }
      isTool ||= "tool_calls" in delta;
      tokens += 1;
      send({ choices: [{ index: 0, delta, finish_reason: null }] });
    }
    send({ choices: [{ index: 0, delta: {}, finish_reason: isTool ? "tool_calls" : "stop" }] });
    send({ choices: [], usage: { prompt_tokens: 10, completion_tokens: tokens, total_tokens: 10 + tokens } });
    response.end("data: [DONE]\n\n");
  }
}

const kCertificate = {
  hadal_certificate: 1,
  model: { path: "/models/scripted", hash: "00" },
  numerics: { key: "bf16", hash: "00", summary: "W8A16", kv_cache: "bf16" },
  made: { hadal: "0.0.0", date: "2026-11-28T12:00:00Z", kernels: "portable", cpu: "a processor" },
  gsm8k: { strict_match: { accuracy: 0.944 } },
  kl: { mean_kl: 0.00012, top1_agreement: 0.995, perplexity: 1.013 },
};
