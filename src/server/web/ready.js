// Whether the server is ready, and which model it has.
const kRetryMs = 1000;

// Ends early when the signal fires.
function pause(ms, signal) {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, ms);
    signal?.addEventListener("abort", () => { clearTimeout(timer); resolve(); }, { once: true });
  });
}

// Shows why the server is not ready until it is. Rejects with AbortError when the signal fires.
async function waitUntilReady(signal = null) {
  for (;;) {
    if (signal?.aborted) throw new DOMException("", "AbortError");
    const reason = await notReadyReason();
    if (reason === null) break;
    showNotice(reason.text, { progress: reason.progress });
    await pause(kRetryMs, signal);
  }
  showNotice("");
  await loadModel();
}

async function loadModel() {
  try {
    chat.model = (await getJson("v1/models")).data[0] ?? null;
    byId("facts-button").classList.add("ready");
  } catch (error) {
    if (error.status === 401) showNotice(t("keyMissing"), { action: () => askForKey(), label: t("giveKey") });
    return;
  }
  byId("model-name").textContent = chat.model?.id ?? "…";
  if (chat.conversation.messages.length === 0) showMessages();
  showComposer();
}

let watching = false;
async function watchServer() {
  if (watching) return;
  watching = true;
  byId("facts-button").classList.remove("ready");
  await waitUntilReady();
  watching = false;
}

const askForKey = setUpKey(() => {
  showNotice("");
  watchServer();
});
