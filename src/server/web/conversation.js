// What is done to the conversation: opened, kept, edited, asked.
function keep(conversation) {
  writeEntry(sessionStorage, "open", chat.conversation.id);  // for a reload
  if (!saveConversation(conversation)) showNotice(t("storageFull"));
  showConversations();
}

function openConversation(conversation) {
  const { running } = chat;
  chat.conversation = running?.conversation.id === conversation.id ? running.conversation : conversation;
  writeEntry(sessionStorage, "open", chat.conversation.id);
  cancelEditing();
  showSidebar(false);
  showAll();
  input.focus();
}

function deleteConversation(id) {
  if (chat.running?.conversation.id === id) stop();
  removeEntry(localStorage, `chat:${id}`);
  if (chat.conversation.id === id) openConversation(emptyConversation());
  else showConversations();
}

// The first call of the last answer that has no result yet.
function pendingCall() {
  const { messages } = chat.conversation;
  let last = messages.length - 1;
  while (last >= 0 && messages[last].role === "tool") --last;
  const calls = messages[last]?.toolCalls ?? [];
  return calls[messages.length - 1 - last] ?? null;
}

function sendText(text) {
  if (text.trim() === "" || chat.running) return;
  const { messages } = chat.conversation;
  if (chat.editing >= 0) messages.splice(chat.editing);
  const call = pendingCall();
  messages.push(call ? { role: "tool", content: text, callId: call.id, name: call.name } : { role: "user", content: text });
  chat.conversation.title ||= text.trim().split("\n")[0].slice(0, 80);
  input.value = "";
  chat.editing = -1;
  if (pendingCall()) {  // the other calls' results first
    keep(chat.conversation);
    showMessages();
    showComposer();
    return;
  }
  ask();
}

function regenerate() {
  const { messages } = chat.conversation;
  if (chat.running || messages.length === 0) return;
  while (messages.length && messages.at(-1).role === "assistant") messages.pop();
  if (messages.length) ask();
}

function startEditing(index) {
  if (chat.running) return;
  chat.editing = index;
  input.value = chat.conversation.messages[index].content;
  showComposer();
  input.focus();
  input.setSelectionRange(input.value.length, input.value.length);
}

function cancelEditing() {
  if (chat.editing >= 0) input.value = "";
  chat.editing = -1;
  showComposer();
}

function stop() {
  chat.running?.abort.abort();
}

// Asks for an answer to the conversation as it is and follows it to its end.
async function ask() {
  const { conversation } = chat;
  const body = requestBody(conversation.messages, chat.settings, chat.model?.id);
  const answer = emptyAnswer();
  conversation.messages.push(answer);
  const running = { conversation, answer, view: null, abort: new AbortController(), state: "running", startedMs: performance.now() };
  chat.running = running;
  keep(conversation);
  showMessages();
  showComposer();
  announce(t("waiting"));
  const timer = setInterval(showRunning, 100);  // the clock of the thoughts
  try {
    await followAnswer(running, body);
    announce(t("answerDone"));
  } catch (error) {
    noteFailure(running, error);
  }
  clearInterval(timer);
  const stick = atEnd();
  running.view?.show("ended");
  if (stick) scrollToEnd();
  chat.running = null;
  keep(conversation);
  showComposer();
}

async function followAnswer(running, body) {
  const { answer, abort } = running;
  const response = await postWhenReady(running, body);
  for await (const event of events(response)) {
    applyEvent(answer, event, running.startedMs, performance.now());
    showSoon();
    if (abort.signal.aborted) throw new DOMException("", "AbortError");
  }
}

// While the server loads its model it answers 503: then waits until it is ready and asks again. A 503 of a ready server
// (its queue is full, say) is tried once more.
async function postWhenReady(running, body) {
  for (let refusals = 0; ; ) {
    running.startedMs = performance.now();
    const response = await request("v1/chat/completions", {
      method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body), signal: running.abort.signal,
    });
    if (response.ok) return response;
    const error = await errorOf(response);
    if (response.status !== 503) throw error;
    if ((await notReadyReason()) === null && ++refusals > 1) throw error;
    running.state = "queued";
    await pause(kRetryMs, running.abort.signal);
    await waitUntilReady(running.abort.signal);
    body.model ??= chat.model?.id;
    running.state = "running";
  }
}

function noteFailure(running, error) {
  const { answer } = running;
  if (error.name === "AbortError" || running.abort.signal.aborted) {
    answer.finish = "stopped";
    announce(t("answerStopped"));
    return;
  }
  const began = answer.content || answer.reasoning || answer.toolCalls.length;
  if (error.status > 0 && !began) answer.error = t("errorLine", { status: error.status, message: error.message });
  else answer.error = began ? t("errorCut", { message: error.message }) : error.message;
  if (error.status === 401) askForKey();
  if (!error.status) watchServer();
}
