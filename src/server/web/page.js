// What is shown: the conversation, the list of them, the field, the notice above them.
const chat = {
  conversation: emptyConversation(),
  settings: loadSettings(),
  model: null,    // the card of /v1/models
  running: null,  // {conversation, answer, view, abort, state, startedMs}
  editing: -1,    // index of the message being edited
  shown: new Map(),  // message -> {element, view}; view: the AnswerView, or null
};

const input = byId("input");
const scroller = byId("scroller");

const atEnd = () => scroller.scrollHeight - scroller.scrollTop - scroller.clientHeight < 60;

function scrollToEnd() {
  scroller.scrollTop = scroller.scrollHeight;
}

function showConversations() {
  const list = byId("conversations");
  const items = loadConversations().map((each) => {
    const title = each.title || t("untitled");
    const open = node("button", { type: "button", class: "conversation", title }, title);
    if (each.id === chat.conversation.id) open.setAttribute("aria-current", "page");
    open.addEventListener("click", () => openConversation(each));
    const remove = node("button", { type: "button", class: "icon", "aria-label": t("deleteChat", { title }), title: t("deleteChat", { title }) }, closeIcon());
    remove.addEventListener("click", () => askFirst(t("deleteQuestion", { title }), () => deleteConversation(each.id)));
    return node("li", {}, open, remove);
  });
  list.replaceChildren(...items);
}

function closeIcon() {
  return byId("close-sidebar").firstElementChild.cloneNode(true);
}

function messageElement(message) {
  if (message.role !== "assistant") {
    return { view: null, element: userView(message, { edit: () => startEditing(chat.conversation.messages.indexOf(message)) }) };
  }
  const view = new AnswerView(message, { regenerate });
  view.show("ended");
  return { view, element: view.element };
}

// Messages that are on the page already keep their elements, and with them what is folded and selected.
function showMessages() {
  const { messages } = chat.conversation;
  chat.shown = new Map(messages.map((message) => [message, chat.shown.get(message) ?? messageElement(message)]));
  const elements = Array.from(chat.shown.values(), ({ element }) => element);
  const place = byId("messages");
  if (elements.length === 0) {
    place.replaceChildren(emptyState());
  } else {
    for (const old of Array.from(place.children)) if (!elements.includes(old)) old.remove();
    elements.forEach((element, i) => { if (place.children[i] !== element) place.insertBefore(element, place.children[i] ?? null); });
  }
  if (chat.running) {
    chat.running.view = chat.shown.get(chat.running.answer)?.view ?? null;
    showRunning();
  }
  byId("title").textContent = chat.conversation.title;
  document.title = chat.conversation.title ? `${chat.conversation.title} – hadal` : "hadal";
  byId("export-button").disabled = messages.length === 0;
  scrollToEnd();
}

function emptyState() {
  const facts = chat.model ? t("emptyFacts", { model: chat.model.id, n: groupDigits(chat.model.max_model_len) }) : "";
  const examples = t("examples").map((text) => {
    const button = node("button", { type: "button", class: "example" }, text);
    button.addEventListener("click", () => sendText(text));
    return button;
  });
  return node("div", { class: "empty" }, node("h2", {}, t("emptyTitle")), node("p", {}, facts), node("div", { class: "examples" }, ...examples));
}

function showComposer() {
  const pending = pendingCall();
  const name = chat.model?.id ?? "hadal";
  input.placeholder = pending ? t("toolPlaceholder", { name: pending.name }) : t("askPlaceholder", { model: name });
  const busy = chat.running !== null;
  byId("send").hidden = busy;
  byId("stop").hidden = !busy;
  byId("send").disabled = input.value.trim() === "";
  byId("editing").hidden = chat.editing < 0;
  byId("editing-text").textContent = t("editing");
  byId("messages").setAttribute("aria-busy", busy);
  input.style.height = "auto";
  input.style.height = `${Math.min(input.scrollHeight, 240)}px`;
}

function showRunning() {
  const { view, state, startedMs } = chat.running;
  const stick = atEnd();
  view?.show(state, performance.now() - startedMs);
  if (stick) scrollToEnd();
}

// At most once a frame, however fast the tokens come.
let frame = 0;
function showSoon() {
  frame ||= requestAnimationFrame(() => {
    frame = 0;
    if (chat.running) showRunning();
  });
}

function showNotice(text, { progress = null, action = null, label = "" } = {}) {
  byId("notice").hidden = text === "";
  byId("notice-text").textContent = text;
  byId("notice-progress").hidden = progress === null;
  if (progress !== null) byId("notice-progress").value = progress;
  byId("notice-action").hidden = action === null;
  byId("notice-action").textContent = label;
  byId("notice-action").onclick = action;
}

function showAll() {
  translatePage();
  chat.shown.clear();  // their texts may be in the other language
  byId("language").textContent = t("languageName");
  byId("language").setAttribute("aria-label", t("languageLabel"));
  byId("language").lang = language === "zh" ? "en" : "zh-CN";
  byId("model-name").textContent = chat.model?.id ?? "…";
  showTheme();
  showConversations();
  showMessages();
  showComposer();
}
