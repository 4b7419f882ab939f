// The web chat in a browser: against hadal with nano, and against scripted answers (web_chat_server.mjs).
// Usage: node web_chat.mjs URL BROWSER SCREENSHOT_FOLDER
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { chromium } from "playwright-core";
import { kHostile, kMarkdown, kToolCall, ScriptedServer } from "./web_chat_server.mjs";

const [url, browserPath, shotsFolder] = process.argv.slice(2);
const browser = await chromium.launch({ executablePath: browserPath, args: ["--no-sandbox"] });
const response = await fetch(`${url}/`);
const headers = Object.fromEntries(["content-type", "content-security-policy", "x-content-type-options", "referrer-policy"]
  .map((name) => [name, response.headers.get(name)]));
const scripted = new ScriptedServer({ headers, body: await response.text() });
const scriptedUrl = await scripted.start();

// What no page may do, whatever is checked.
const faults = [];

async function openPage(address, options = {}) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 820 }, locale: "en-US", ...options });
  const page = await context.newPage();
  const origin = new URL(address).origin;
  page.on("request", (request) => {
    const { protocol, origin: target } = new URL(request.url());
    if (target !== origin && !["data:", "blob:"].includes(protocol)) faults.push(`request to ${request.url()}`);
  });
  page.on("console", (message) => {
    if (/Content Security Policy|TrustedHTML|TrustedScript/.test(message.text())) faults.push(message.text());
  });
  page.on("pageerror", (error) => faults.push(`${error.stack}`));
  await page.goto(address);
  return page;
}

async function openReady(address, options = {}) {
  const page = await openPage(address, options);
  await page.waitForSelector("#facts-button.ready", { state: "attached" });
  return page;
}

async function ended(page) {
  await page.locator("#send").waitFor({ state: "visible" });
}

async function ask(page, text) {
  const before = await page.locator(".answer").count();
  await page.fill("#input", text);
  await page.press("#input", "Enter");
  await page.locator(".answer").nth(before).waitFor();
  await ended(page);
  return page.locator(".answer").last();
}

async function until(what, condition) {
  for (let i = 0; i < 200; ++i) {
    if (await condition()) return;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  assert.fail(`never came true: ${what}`);
}

const shot = (page, name) => page.screenshot({ path: `${shotsFolder}/${name}.png` });

const checks = {
  async "headers are strict"() {
    const policy = headers["content-security-policy"];
    for (const part of ["default-src 'none'", "connect-src 'self'", "frame-ancestors 'none'", "base-uri 'none'", "form-action 'none'"]) {
      assert.ok(policy.includes(part), `${part} is not in ${policy}`);
    }
    assert.ok(!policy.includes("unsafe"), policy);
    assert.equal(headers["x-content-type-options"], "nosniff");
    assert.equal(headers["referrer-policy"], "no-referrer");
    assert.ok(!/(src|href)="(?!#|data:)/.test(scripted.page.body), "the page names another address");
  },

  async "nano answers, its thoughts folded"() {
    const page = await openReady(`${url}/`);
    const answer = await ask(page, "List 3 countries and their capitals.");
    assert.ok((await answer.locator(".text").innerText()).length > 10);
    assert.match(await answer.locator(".thought summary").innerText(), /^Thought for \d/);
    assert.equal(await answer.locator(".thought-text").isVisible(), false);
    await answer.locator(".thought summary").click();
    assert.ok((await answer.locator(".thought-text").innerText()).length > 3);
    // All of an answer that arrives at once has no speed.
    assert.match(await answer.locator(".stats").innerText(), /^first token \d+\.\d\d s · ([\d.]+ tokens\/s · )?\d+ tokens$/);
    const chinese = await ask(page, "列出 3 个国家和它们的首都。");
    assert.match(await chinese.locator(".text").innerText(), /[\u4e00-\u9fff]/);
    await shot(page, "nano_light");

    const texts = await page.locator(".bubble, .answer .text").allInnerTexts();
    await page.reload();
    assert.deepEqual(await page.locator(".bubble, .answer .text").allInnerTexts(), texts);
    await page.click("#facts-button");
    await page.locator("#facts-list dd").nth(2).waitFor();
    assert.match(await page.locator("#facts-list").innerText(), /models\/nano[^]*tokens[^]*hadal \d/);
    await page.context().close();
  },

  async "settings change the request"() {
    const page = await openReady(scriptedUrl);
    await ask(page, "before");
    assert.deepEqual(Object.keys(scripted.requests.at(-1)).sort(), ["messages", "model", "stream", "stream_options"]);
    await page.click("#settings-button");
    const values = { system: "Be brief.", temperature: "0.6", top_p: "0.95", top_k: "20", max_tokens: "100", seed: "7" };
    for (const [name, value] of Object.entries(values)) await page.fill(`#settings [name=${name}]`, value);
    await page.selectOption("#settings [name=thinking]", "off");
    await page.fill("#settings [name=tools]", "{\"not\": \"a list\"}");
    await page.click("#settings [type=submit]");
    assert.match(await page.locator("#settings .problem").innerText(), /not a JSON list/);
    await page.fill("#settings [name=tools]", "[{\"type\": \"function\", \"function\": {\"name\": \"f\"}}]");
    await page.click("#settings [type=submit]");
    await ask(page, "after");
    const body = scripted.requests.at(-1);
    assert.deepEqual(body.messages.map((message) => message.role), ["system", "user", "assistant", "user"]);
    assert.equal(body.messages[0].content, "Be brief.");
    const { temperature, top_p, top_k, max_tokens, seed, chat_template_kwargs: kwargs, tools } = body;
    assert.deepEqual([temperature, top_p, top_k, max_tokens, seed], [0.6, 0.95, 20, 100, 7]);
    assert.deepEqual(kwargs, { thinking: false, enable_thinking: false });
    assert.equal(tools[0].function.name, "f");
    await page.click("#settings-button");
    await page.fill("#settings [name=temperature]", "9");
    await page.click("#settings [type=submit]");
    assert.match(await page.locator("#settings .problem").innerText(), /between 0 and 2/);
    await page.context().close();
  },

  async "thoughts and text are shown while they come"() {
    const page = await openReady(scriptedUrl);
    await page.fill("#input", "ponder");
    await page.press("#input", "Enter");
    const title = page.locator(".thought summary");
    await until("thinking is shown", async () => (await title.count()) && /^Thinking … [1-9]/.test(await title.innerText()));
    assert.equal(await page.locator(".thought-text").isVisible(), false);
    await title.click();
    const thought = page.locator(".thought-text");
    const before = await thought.innerText();
    await until("the thought grows", async () => (await thought.innerText()).length > before.length);
    await page.click("#stop");
    await ended(page);
    assert.match(await title.innerText(), /^Thought for .*, not to the end$/);
    await ask(page, "hi");
    assert.equal(await thought.first().isVisible(), true);  // what was opened stays open
    await page.context().close();
  },

  async "stop, regenerate, edit"() {
    const page = await openReady(scriptedUrl);
    await page.fill("#input", "endless");
    await page.press("#input", "Enter");
    const text = page.locator(".answer .text");
    await until("text comes", async () => (await text.innerText()).length > 10);
    const length = (await text.innerText()).length;
    await until("text grows", async () => (await text.innerText()).length > length);
    await page.keyboard.press("Escape");
    await ended(page);
    assert.match(await page.locator(".stats").innerText(), /^first token \d+\.\d\d s · [\d.]+ tokens\/s · .*stopped$/);
    await until("the server sees the browser leave", () => scripted.numLeft === 2);
    const stopped = await text.innerText();
    await page.reload();
    assert.equal(await text.innerText(), stopped);

    await page.click(".user .text-button >> text=Edit");
    assert.equal(await page.inputValue("#input"), "endless");
    const first = await ask2(page, "short");
    assert.equal(await page.locator(".message").count(), 2);
    assert.equal(await first.locator(".text").innerText(), "You said: short");
    const numRequests = scripted.requests.length;
    await page.click(".again");
    await ended(page);
    assert.equal(scripted.requests.length, numRequests + 1);
    assert.deepEqual(scripted.requests.at(-1).messages, [{ role: "user", content: "short" }]);
    assert.equal(await page.locator(".message").count(), 2);
    await page.context().close();
  },

  async "tool calls are shown and answered"() {
    const page = await openReady(scriptedUrl);
    const answer = await ask(page, "use a tool");
    assert.match(await answer.locator(".tool-call summary").innerText(), /get_weather/);
    assert.equal(await answer.locator(".tool-call pre").innerText(), JSON.stringify(JSON.parse(kToolCall.arguments), null, 2));
    const next = await ask(page, "18 degrees");
    assert.equal(await next.locator(".text").innerText(), "It is 18 degrees.");
    const [, call, result] = scripted.requests.at(-1).messages;
    assert.deepEqual(call.tool_calls, [{ id: "call_1", type: "function", function: { name: "get_weather", arguments: kToolCall.arguments } }]);
    assert.deepEqual(result, { role: "tool", tool_call_id: "call_1", content: "18 degrees" });
    await page.context().close();
  },

  async "hostile text is inert"() {
    const page = await openReady(scriptedUrl);
    const title = "<img src=x onerror=window.hacked=1> hostile";
    const answer = await ask(page, title);
    await answer.locator(".thought summary").click();
    assert.equal(await answer.locator(".thought-text").innerText(), kHostile);
    assert.match(await answer.locator(".text").innerText(), /<img src=x onerror=/);
    assert.match(await answer.locator(".text").innerText(), /<\/code><\/pre><script>/);
    const refused = await ask(page, "refuse");
    assert.match(await refused.locator(".error").innerText(), /400.*maximum context length.*<b>Shorten it.<\/b>/);
    await page.reload();
    assert.equal(await page.locator(".conversation").first().innerText(), title);
    assert.equal(await page.evaluate(() => window.hacked), undefined);
    assert.equal(await page.locator("#messages img, #messages script, #messages [onload], #messages [onclick], aside img").count(), 0);
    for (const address of await page.locator("#messages a").evaluateAll((links) => links.map((link) => link.protocol))) {
      assert.match(address, /^https?:$/);
    }
    await page.context().close();
  },

  async "Markdown becomes elements"() {
    const page = await openReady(scriptedUrl);
    const answer = await ask(page, "markdown");
    const count = async (selector) => answer.locator(`.text ${selector}`).count();
    assert.deepEqual(await Promise.all(["h4", "strong", "em", "ol > li", "ol ul > li", "tr", "blockquote", "a"].map(count)), [1, 1, 1, 2, 2, 3, 1, 1]);
    assert.equal(await answer.locator("pre code").innerText(), "def add(a, b):\n    return a + b  # one rounding");
    assert.match(await answer.locator(".text").innerText(), /3 \* 4 \* 5 and snake_case_name/);
    await page.context().grantPermissions(["clipboard-read", "clipboard-write"]);
    await answer.locator(".code-head button").click();
    assert.equal(await page.evaluate(() => navigator.clipboard.readText()), "def add(a, b):\n    return a + b  # one rounding");
    await answer.locator(".actions button").first().click();
    assert.equal(await page.evaluate(() => navigator.clipboard.readText()), kMarkdown);
    await page.click("#export-button");
    const [download] = await Promise.all([page.waitForEvent("download"), page.click("#export-markdown")]);
    const exported = readFileSync(await download.path(), "utf8");
    assert.ok(exported.startsWith("# markdown") && exported.includes(kMarkdown) && exported.includes("> Let me think"), exported);
    await page.context().close();
  },

  async "colours, languages, narrow screens"() {
    const dark = await openReady(scriptedUrl, { colorScheme: "dark", locale: "zh-CN" });
    assert.equal(await dark.getAttribute("html", "data-theme"), "dark");
    assert.equal(await dark.getAttribute("html", "lang"), "zh-CN");
    await ask(dark, "markdown 你好");
    await shot(dark, "dark_chinese");
    for (const theme of ["dark", "light"]) {
      assert.equal(await dark.getAttribute("html", "data-theme"), theme);
      assert.deepEqual(await lowContrasts(dark), []);
      await dark.click("#theme");
    }
    await dark.click("#language");
    assert.equal(await dark.getAttribute("html", "lang"), "en");
    await dark.reload();
    assert.equal(await dark.locator("#new-chat").innerText(), "New conversation");
    assert.deepEqual(await dark.evaluate(() => {
      const missing = (from, to) => Object.keys(kWords[from]).filter((name) => !(name in kWords[to]));
      return [...missing("en", "zh"), ...missing("zh", "en")];
    }), []);
    await dark.context().close();

    const phone = await openReady(scriptedUrl, { viewport: { width: 360, height: 740 }, isMobile: true, hasTouch: true, deviceScaleFactor: 2 });
    await ask(phone, "markdown");
    assert.equal(await phone.evaluate(() => document.documentElement.scrollWidth), 360);
    assert.equal(await phone.locator("#new-chat").isVisible(), false);
    await phone.tap("#menu");
    await phone.tap("#new-chat");
    assert.equal(await phone.locator(".empty").isVisible(), true);
    await phone.tap("#menu");
    await phone.tap(".conversation");
    await phone.locator(".answer").waitFor();
    await shot(phone, "phone");
    await phone.context().close();
  },

  async "a loading server, a key, a broken stream"() {
    scripted.progress = 0.42;
    scripted.key = "secret";
    const page = await openPage(scriptedUrl);
    await until("progress is shown", async () => (await page.locator("#notice").innerText()).includes("reading weights 42 %"));
    await page.fill("#input", "early");
    await page.press("#input", "Enter");
    scripted.progress = null;
    await page.locator("#key").waitFor();
    await page.fill("#key input", "wrong");
    await page.keyboard.press("Enter");
    await page.click("#notice-action");
    assert.match(await page.locator("#key .problem").innerText(), /did not accept/);
    await page.fill("#key input", "secret");
    await page.keyboard.press("Enter");
    await page.waitForSelector("#facts-button.ready");
    await page.click(".again");
    await until("an answer", async () => (await page.locator(".answer .text").innerText()) === "You said: early");
    assert.equal(await page.evaluate(() => JSON.stringify(localStorage).includes("secret")), false);
    scripted.key = null;
    const broken = await ask(page, "break");
    assert.match(await broken.locator(".error").innerText(), /the engine stopped/);
    await page.context().close();
  },

  async "works below a root path"() {
    scripted.prefix = "/x";
    for (const address of [`${scriptedUrl}/x`, `${scriptedUrl}/x/`]) {
      const page = await openReady(address);
      assert.equal(await (await ask(page, "hi")).locator(".text").innerText(), "You said: hi");
      await page.context().close();
    }
    scripted.prefix = "";
  },

  async "keyboard alone is enough"() {
    const page = await openReady(scriptedUrl);
    const key = (name) => page.keyboard.press(name);
    await page.keyboard.type("first");
    await key("Shift+Enter");
    await page.keyboard.type("second");
    await key("Enter");
    await ended(page);
    assert.equal(scripted.requests.at(-1).messages.at(-1).content, "first\nsecond");
    await key("ArrowUp");
    assert.equal(await page.inputValue("#input"), "first\nsecond");
    await key("Escape");
    assert.equal(await page.inputValue("#input"), "");
    await until("the answer", async () => (await page.locator(".answer").count()) === 1);
    const numRequests = scripted.requests.length;
    await key("Alt+r");
    await until("asked again", () => scripted.requests.length === numRequests + 1);
    await ended(page);
    await key("Control+/");
    assert.equal(await page.locator("#help").isVisible(), true);
    await key("Escape");
    await key("Control+,");
    await page.keyboard.type("From keys.");
    await key("Tab");
    await page.keyboard.type("0.5");
    await key("Enter");
    assert.equal(await page.locator("#settings").isVisible(), false);
    await page.keyboard.type("third");
    await key("Enter");
    await ended(page);
    assert.equal(scripted.requests.at(-1).temperature, 0.5);
    assert.equal(scripted.requests.at(-1).messages[0].content, "From keys.");
    const reached = new Set();
    for (let i = 0; i < 60; ++i) {
      await key("Tab");
      reached.add(await page.evaluate(() => document.activeElement.id || document.activeElement.className || document.activeElement.tagName));
    }
    for (const name of ["new-chat", "conversation", "facts-button", "language", "theme", "export-button", "settings-button", "help-button", "input", "SUMMARY"]) {
      assert.ok(reached.has(name), `${name} is not reached by Tab: ${[...reached]}`);
    }
    await key("Alt+n");
    assert.equal(await page.locator(".empty").isVisible(), true);
    await page.context().close();
  },
};

// As ask(), for an edited message: the number of answers stays.
async function ask2(page, text) {
  await page.fill("#input", text);
  await page.press("#input", "Enter");
  await until("the answer", async () => (await page.locator(".answer .text").last().innerText()).includes(text));
  await ended(page);
  return page.locator(".answer").last();
}

// Pairs of text and ground below WCAG's 4.5 (AA).
function lowContrasts(page) {
  return page.evaluate(() => {
    const style = getComputedStyle(document.documentElement);
    const luminance = (name) => {
      const hex = style.getPropertyValue(`--${name}`).trim().slice(1);
      const parts = [0, 2, 4].map((i) => parseInt(hex.slice(i, i + 2), 16) / 255);
      const [r, g, b] = parts.map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
      return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const pairs = [["accent", "page"], ["accent", "surface"], ["accent", "accent-soft"], ["on-accent", "accent"], ["bad", "bad-soft"], ["bad", "surface"], ["dim", "line"], ["text", "accent-soft"]];
    for (const ground of ["page", "surface", "sunken"]) pairs.push(["text", ground], ["dim", ground]);
    return pairs.filter(([a, b]) => {
      const [dark, light] = [luminance(a), luminance(b)].sort((x, y) => x - y);
      return !((light + 0.05) / (dark + 0.05) >= 4.5);
    }).map((pair) => pair.join(" on "));
  });
}

let failed = 0;
for (const [name, check] of Object.entries(checks)) {
  try {
    await check();
    assert.deepEqual(faults.splice(0), []);
    console.log(`ok      ${name}`);
  } catch (error) {
    ++failed;
    console.log(`FAILED  ${name}\n${error.stack}`);
  }
}
await browser.close();
scripted.stop();
console.log(failed === 0 ? "all checks passed" : `${failed} checks failed`);
process.exit(failed === 0 ? 0 : 1);
