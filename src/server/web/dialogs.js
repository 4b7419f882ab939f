// The dialogs: settings, key, facts about the model, export, keys, a question. All close with Escape.
function openDialog(id) {
  const dialog = byId(id);
  if (!dialog.open) dialog.showModal();
}

function showProblem(form, text) {
  const line = form.querySelector(".problem");
  line.textContent = text;
  line.hidden = text === "";
}

// Calls use(settings) with checked values.
function setUpSettings(current, use) {
  const dialog = byId("settings");
  const form = dialog.querySelector("form");
  const fill = (settings) => {
    for (const [name, value] of Object.entries(settings)) form.elements[name].value = value;
    showProblem(form, "");
  };
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const settings = {};
    let first = null;
    for (const name of Object.keys(kDefaultSettings)) {
      const field = form.elements[name];
      settings[name] = name === "system" ? field.value : field.value.trim();
      const problem = problemOf(name, settings[name]);
      field.setAttribute("aria-invalid", problem !== "");
      if (problem && !first) first = { field, problem };
    }
    showProblem(form, first?.problem ?? "");
    if (first) return first.field.focus();
    use(settings);
    dialog.close();
  });
  byId("reset-settings").addEventListener("click", () => fill(kDefaultSettings));
  return () => {
    fill(current());
    openDialog("settings");
  };
}

// Returns a function that asks for the key; used() is called when the user gave one.
function setUpKey(used) {
  const dialog = byId("key");
  const form = dialog.querySelector("form");
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const key = form.elements.key.value.trim();
    if (!/^[!-~]+$/.test(key)) return showProblem(form, t("badKey"));
    saveKey(key);
    form.elements.key.value = "";
    dialog.close();
    used();
  });
  return () => {
    showProblem(form, loadKey() ? t("wrongKey") : "");
    openDialog("key");
  };
}

function describeCertificate(certificate) {
  const percent = (share) => `${(100 * share).toFixed(1)} %`;
  const facts = [];
  const add = (name, value) => {
    if (value !== undefined && value !== null && value !== "") facts.push([t(name), String(value)]);
  };
  add("factNumerics", certificate.numerics?.summary ?? certificate.numerics?.key);
  const score = certificate.gsm8k?.strict_match;
  if (Number.isFinite(score?.accuracy)) add("factGsm8k", percent(score.accuracy));
  const kl = certificate.kl ?? {};
  if (Number.isFinite(kl.mean_kl)) add("factKl", kl.mean_kl.toExponential(1));
  if (Number.isFinite(kl.top1_agreement)) add("factTop1", percent(kl.top1_agreement));
  if (Number.isFinite(kl.perplexity)) add("factPerplexity", kl.perplexity.toFixed(3));
  add("factCertified", certificate.made?.date);
  return facts;
}

async function showFacts(model) {
  const list = byId("facts-list");
  const put = (name, value) => list.append(node("dt", {}, name), node("dd", {}, value));
  list.replaceChildren();
  openDialog("facts");
  const [version, certificate] = await Promise.all(
    ["version", "hadal/certificate"].map((path) => getJson(path).catch(() => null)));
  list.replaceChildren();
  if (model) {
    put(t("factModel"), model.id);
    if (model.root && model.root !== model.id) put(t("factFolder"), model.root);
    put(t("factContext"), t("tokens", { n: groupDigits(model.max_model_len) }));
  }
  if (version) put(t("factVersion"), `hadal ${version.version}`);
  const facts = certificate ? describeCertificate(certificate) : [];
  for (const [name, value] of facts) put(name, value);
  if (facts.length === 0 && model) put(t("factCertified"), t("factNoCertificate"));
}

const groupDigits = (n) => Number(n).toLocaleString(language === "zh" ? "zh-CN" : "en");

function download(name, type, text) {
  const address = URL.createObjectURL(new Blob([text], { type }));
  const link = node("a", { href: address, download: name });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(address), 10_000);
}

function setUpExport(conversation) {
  const fileName = () => (conversation().title || "hadal").replace(/[^\p{L}\p{N}]+/gu, "-").slice(0, 60) || "hadal";
  byId("export-copy").addEventListener("click", (event) => copyText(asMarkdown(conversation()), event.currentTarget));
  byId("export-markdown").addEventListener("click", () => {
    download(`${fileName()}.md`, "text/markdown", asMarkdown(conversation()));
  });
  byId("export-json").addEventListener("click", () => {
    download(`${fileName()}.json`, "application/json", JSON.stringify(conversation(), null, 2));
  });
}

function showHelp() {
  const keys = [
    ["Enter", "keySend"], ["Shift+Enter", "keyLine"], ["Esc", "keyStop"], ["↑", "keyEdit"], ["Alt+N", "keyNew"],
    ["Alt+R", "keyRegenerate"], ["Ctrl+,", "keySettings"], ["Ctrl+/", "keyHelp"],
  ];
  byId("keys").replaceChildren(...keys.flatMap(([key, name]) => [
    node("dt", {}, ...key.split("+").map((part) => node("kbd", {}, part))), node("dd", {}, t(name)),
  ]));
  openDialog("help");
}

function askFirst(question, action) {
  byId("confirm-text").textContent = question;
  byId("confirm-yes").onclick = () => {
    byId("confirm").close();
    action();
  };
  openDialog("confirm");
}

function setUpDialogs() {
  for (const button of document.querySelectorAll("[data-close]")) {
    button.addEventListener("click", () => button.closest("dialog").close());
  }
  for (const dialog of document.querySelectorAll("dialog")) {
    dialog.addEventListener("click", (event) => {
      if (event.target === dialog) dialog.close();  // the backdrop
    });
    dialog.addEventListener("close", () => byId("input").focus());
  }
}
