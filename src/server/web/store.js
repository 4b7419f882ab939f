// What the page remembers: conversations, settings and switches in localStorage, one entry per conversation so that two
// tabs don't overwrite each other; the API key in sessionStorage only. What is read back is checked: other pages of the
// same address may write there.
const kStorePrefix = `hadal:${basePath}:`;

// [least, most, whole]
const kNumberSettings = {
  temperature: [0, 2, false],
  top_p: [0, 1, false],
  top_k: [-1, 1e9, true],
  max_tokens: [1, 1e9, true],
  seed: [0, Number.MAX_SAFE_INTEGER, true],
};
const kDefaultSettings = { system: "", temperature: "", top_p: "", top_k: "", max_tokens: "", seed: "", thinking: "", tools: "" };

function readEntry(storage, name) {
  try {
    return JSON.parse(storage.getItem(kStorePrefix + name));
  } catch {
    return null;
  }
}

// False when the browser refuses (full, or switched off).
function writeEntry(storage, name, value) {
  try {
    storage.setItem(kStorePrefix + name, JSON.stringify(value));
    return true;
  } catch {
    return false;
  }
}

function removeEntry(storage, name) {
  try {
    storage.removeItem(kStorePrefix + name);
  } catch {
    // Then there is nothing to remove.
  }
}

let keyOfThisPage = "";  // for browsers without storage

function loadKey() {
  const kept = readEntry(sessionStorage, "key");
  return typeof kept === "string" ? kept : keyOfThisPage;
}

function saveKey(key) {
  keyOfThisPage = key;
  writeEntry(sessionStorage, "key", key);
}

// "" when the value is fine, else what is wrong with it.
function problemOf(name, value) {
  if (value === "") return "";
  if (name === "tools") {
    try {
      return Array.isArray(JSON.parse(value)) ? "" : t("badTools", { why: "[ … ]" });
    } catch (error) {
      return t("badTools", { why: error.message });
    }
  }
  if (!(name in kNumberSettings)) return "";
  const [least, most, whole] = kNumberSettings[name];
  const number = Number(value);
  const fine = Number.isFinite(number) && number >= least && number <= most && (!whole || Number.isInteger(number));
  return fine ? "" : t("badNumber", { name, value, least, most });
}

function loadSettings() {
  const settings = { ...kDefaultSettings };
  const kept = readEntry(localStorage, "settings") ?? {};
  for (const name of Object.keys(settings)) {
    if (typeof kept[name] === "string" && problemOf(name, kept[name]) === "") settings[name] = kept[name];
  }
  if (!["", "on", "off"].includes(settings.thinking)) settings.thinking = "";
  return settings;
}

const stringOr = (value, fallback) => (typeof value === "string" ? value : fallback);

// null where it is not a message that this page wrote.
function checkedMessage(kept) {
  if (!["user", "assistant", "tool"].includes(kept?.role)) return null;
  const content = stringOr(kept.content, "");
  if (kept.role === "user") return { role: "user", content };
  if (kept.role === "tool") return { role: "tool", content, callId: stringOr(kept.callId, ""), name: stringOr(kept.name, "") };
  const answer = emptyAnswer();
  answer.content = content;
  answer.reasoning = stringOr(kept.reasoning, "");
  answer.finish = stringOr(kept.finish, null);
  answer.error = stringOr(kept.error, null);
  for (const call of Array.isArray(kept.toolCalls) ? kept.toolCalls : []) {
    answer.toolCalls.push({
      id: stringOr(call?.id, ""), name: stringOr(call?.name, ""), arguments: stringOr(call?.arguments, ""),
    });
  }
  for (const [name, value] of Object.entries(kept.stats ?? {})) {
    if (Number.isFinite(value)) answer.stats[name] = value;
  }
  return answer;
}

function loadConversation(id) {
  const kept = readEntry(localStorage, `chat:${id}`);
  if (!Array.isArray(kept?.messages)) return null;
  return {
    id,
    title: stringOr(kept.title, "").slice(0, 200),
    changed: Number.isFinite(kept.changed) ? kept.changed : 0,
    messages: kept.messages.map(checkedMessage).filter((message) => message !== null),
  };
}

// All of them, the one changed last first.
function loadConversations() {
  const list = [];
  try {
    const prefix = `${kStorePrefix}chat:`;
    for (let i = 0; i < localStorage.length; ++i) {
      const name = localStorage.key(i);
      if (!name.startsWith(prefix)) continue;
      const conversation = loadConversation(name.slice(prefix.length));
      if (conversation && conversation.messages.length) list.push(conversation);
    }
  } catch {
    // No storage, no history.
  }
  return list.sort((a, b) => b.changed - a.changed);
}

function saveConversation(conversation) {
  conversation.changed = Date.now();
  return writeEntry(localStorage, `chat:${conversation.id}`, conversation);
}

function emptyConversation() {
  // randomUUID is for secure contexts; this page is often served over plain HTTP.
  const random = crypto.getRandomValues(new Uint32Array(4));
  return { id: Array.from(random, (word) => word.toString(16).padStart(8, "0")).join(""), title: "", changed: 0, messages: [] };
}

function asMarkdown(conversation) {
  const parts = [`# ${conversation.title || t("untitled")}\n`];
  for (const message of conversation.messages) {
    const name = message.role === "user" ? t("you") : message.role === "tool" ? t("toolResult", message) : t("answer");
    parts.push(`## ${name}\n`);
    if (message.reasoning) parts.push(message.reasoning.trim().split("\n").map((line) => `> ${line}`).join("\n") + "\n");
    if (message.content) parts.push(`${message.content.trim()}\n`);
    for (const call of message.toolCalls ?? []) {
      parts.push(`${t("toolCall", call)}:\n\n\`\`\`json\n${prettyJson(call.arguments)}\n\`\`\`\n`);
    }
  }
  return parts.join("\n");
}

function prettyJson(text) {
  try {
    return JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    return text;  // not yet whole
  }
}
