// Messages as elements. Each view keeps its elements and changes only what is new.
const byId = (id) => document.getElementById(id);

// The clipboard's API exists on https and localhost only; elsewhere the old command does it.
async function copyText(text, button) {
  let copied = false;
  try {
    await navigator.clipboard.writeText(text);
    copied = true;
  } catch {
    const field = node("textarea", { class: "visually-hidden" });
    field.value = text;
    (document.querySelector("dialog[open]") ?? document.body).append(field);
    field.select();
    copied = document.execCommand("copy");
    field.remove();
    button.focus();
  }
  const before = button.dataset.label ?? button.textContent;
  button.dataset.label = before;
  button.textContent = t(copied ? "copied" : "copyFailed");
  announce(button.textContent);
  setTimeout(() => { button.textContent = before; }, 1500);
}

function announce(text) {
  byId("announcer").textContent = text;
}

const seconds = (ms) => (ms / 1000).toFixed(ms < 9950 ? 1 : 0);

function statLine(answer) {
  const stats = answer.stats;
  const parts = [];
  if (stats.firstMs !== undefined) parts.push(t("statFirst", { s: (stats.firstMs / 1000).toFixed(2) }));
  const speed = tokensPerSecond(stats);
  if (speed !== null) parts.push(t("statSpeed", { n: speed < 100 ? speed.toFixed(1) : Math.round(speed) }));
  const tokens = stats.tokens ?? stats.chunks;
  if (tokens) parts.push(t("statTokens", { n: tokens }));
  if (answer.finish === "length") parts.push(t("statLength"));
  if (answer.finish === "stopped") parts.push(t("statStopped"));
  return parts.join(" · ");
}

function textButton(label, action) {
  const button = node("button", { type: "button", class: "text-button" }, label);
  button.addEventListener("click", () => action(button));
  return button;
}

// The user's words, or a tool's result.
function userView(message, actions) {
  const isTool = message.role === "tool";
  const name = isTool ? t("toolResult", message) : t("you");
  const bubble = node("div", { class: "bubble" }, message.content);
  const bar = node("div", { class: "actions" }, textButton(t("copy"), (button) => copyText(message.content, button)));
  if (!isTool) bar.append(textButton(t("edit"), actions.edit));
  const head = node("h2", { class: isTool ? "role" : "role visually-hidden" }, name);
  return node("article", { class: `message ${isTool ? "tool-result" : "user"}` }, head, bubble, bar);
}

function toolView() {
  const name = node("span", {});
  const code = node("code");
  const element = node("details", { class: "tool-call", open: "" }, node("summary", {}, name),
                       node("pre", { tabindex: "0", "aria-label": t("toolArguments") }, code));
  return {
    element,
    show(call) {
      name.replaceChildren(...splitAround(t("toolCall", { name: "\u0000" }), "\u0000", node("code", {}, call.name)));
      code.textContent = prettyJson(call.arguments);
    },
  };
}

function splitAround(text, mark, element) {
  const [before, after] = text.split(mark);
  return [before, element, after ?? ""];
}

// The model's answer: thoughts folded, text, tool calls, error, facts about it.
class AnswerView {
  constructor(message, actions) {
    this.message = message;
    this.thoughtTitle = node("summary");
    this.thoughtText = document.createTextNode("");
    this.thought = node("details", { class: "thought" }, this.thoughtTitle, node("div", { class: "thought-text" }, this.thoughtText));
    this.thought.hidden = true;
    this.waiting = node("p", { class: "waiting" });
    this.waiting.hidden = true;
    this.text = node("div", { class: "text" });
    this.calls = node("div", { class: "calls" });
    this.callViews = [];
    this.error = node("p", { class: "error", role: "alert" });
    this.error.hidden = true;
    this.stats = node("span", { class: "stats" });
    this.copyButton = textButton(t("copy"), (button) => copyText(message.content, button));
    this.againButton = textButton(t("regenerate"), actions.regenerate);
    this.againButton.classList.add("again");
    this.bar = node("div", { class: "actions" }, this.copyButton, this.againButton, this.stats);
    this.element = node("article", { class: "message answer" }, node("h2", { class: "role visually-hidden" }, t("answer")),
                        this.thought, this.waiting, this.text, this.calls, this.error, this.bar);
  }

  // state: "queued", "running" or "ended". elapsedMs: since the request was sent.
  show(state, elapsedMs = 0) {
    const message = this.message;
    const running = state !== "ended";
    const hasText = message.content !== "" || message.toolCalls.length > 0;
    this.element.classList.toggle("running", running);
    this.waiting.hidden = !running || hasText || message.reasoning !== "";
    this.waiting.textContent = state === "queued" ? t("queued") : t("waiting");
    this.showThought(running && !hasText, elapsedMs);
    if (this.text.shown !== message.content) {
      showMarkdown(this.text, message.content);
      this.text.shown = message.content;
    }
    message.toolCalls.forEach((call, i) => {
      if (!this.callViews[i]) {
        this.callViews[i] = toolView();
        this.calls.append(this.callViews[i].element);
      }
      this.callViews[i].show(call);
    });
    this.error.hidden = !message.error;
    this.error.textContent = message.error ?? "";
    this.againButton.textContent = message.error ? t("tryAgain") : t("regenerate");
    this.copyButton.hidden = running || message.content === "";
    this.againButton.hidden = running;
    this.stats.textContent = statLine(message);
  }

  showThought(thinking, elapsedMs) {
    const { reasoning, content, toolCalls, stats } = this.message;
    this.thought.hidden = reasoning === "";
    if (reasoning === "") return;
    const added = reasoning.slice(this.thoughtText.data.length);
    if (added) this.thoughtText.appendData(added);
    const cut = !thinking && content === "" && toolCalls.length === 0;
    const ms = thinking ? Math.max(0, elapsedMs - (stats.firstMs ?? 0)) : (stats.thoughtMs ?? 0);
    this.thoughtTitle.textContent = t(thinking ? "thinkingNow" : cut ? "thoughtCut" : "thought", { s: seconds(ms) });
    this.thought.classList.toggle("thinking", thinking);
  }
}
