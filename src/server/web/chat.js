// The switches, the keys, and the start of the page.
const darkSystem = matchMedia("(prefers-color-scheme: dark)");
let theme = readEntry(localStorage, "theme");  // "light", "dark", else as the system
const kThemes = { auto: "themeAuto", light: "themeLight", dark: "themeDark" };

function showTheme() {
  if (!(theme in kThemes)) theme = "auto";
  document.documentElement.dataset.theme = theme === "auto" ? (darkSystem.matches ? "dark" : "light") : theme;
  const label = t("themeLabel", { name: t(kThemes[theme]) });
  byId("theme").setAttribute("aria-label", label);
  byId("theme").title = label;
}

function switchTheme() {
  const names = Object.keys(kThemes);
  theme = names[(names.indexOf(theme) + 1) % names.length];
  writeEntry(localStorage, "theme", theme);
  showTheme();
}

function switchLanguage() {
  language = language === "zh" ? "en" : "zh";
  writeEntry(localStorage, "language", language);
  showAll();
}

function showSidebar(open) {
  byId("app").classList.toggle("sidebar-open", open);
  byId("scrim").hidden = !open;
  byId("menu").setAttribute("aria-expanded", open);
}

function onInputKey(event) {
  if (event.isComposing || event.keyCode === 229) return;  // an input method's own keys
  if (event.key === "Enter" && !event.shiftKey) {
    event.preventDefault();
    sendText(input.value);
  } else if (event.key === "ArrowUp" && input.value === "" && !event.altKey && !event.ctrlKey) {
    const last = chat.conversation.messages.findLastIndex((message) => message.role === "user");
    if (last < 0) return;
    event.preventDefault();
    startEditing(last);
  }
}

function onKey(event) {
  if (document.querySelector("dialog[open]")) return;
  const control = event.ctrlKey || event.metaKey;
  const actions = {
    Escape: () => (chat.running ? stop() : byId("scrim").hidden ? cancelEditing() : showSidebar(false)),
    "control+/": showHelp,
    "control+,": openSettings,
    "alt+KeyN": () => openConversation(emptyConversation()),
    "alt+KeyR": regenerate,
  };
  const name = control ? `control+${event.key}` : event.altKey ? `alt+${event.code}` : event.key;
  if (!(name in actions)) return;
  event.preventDefault();
  actions[name]();
}

const openSettings = setUpSettings(() => chat.settings, (settings) => {
  chat.settings = settings;
  writeEntry(localStorage, "settings", settings);
});

function setUpPage() {
  const kept = readEntry(localStorage, "language");
  language = kept in kWords ? kept : navigator.language.toLowerCase().startsWith("zh") ? "zh" : "en";
  const open = readEntry(sessionStorage, "open");
  chat.conversation = (typeof open === "string" && loadConversation(open)) || chat.conversation;
  setUpDialogs();
  setUpExport(() => chat.conversation);
  const clicks = {
    theme: switchTheme, language: switchLanguage, "settings-button": openSettings, "help-button": showHelp,
    "export-button": () => openDialog("export"), "facts-button": () => showFacts(chat.model), stop,
    "new-chat": () => openConversation(emptyConversation()), "cancel-edit": cancelEditing, "to-end": scrollToEnd,
    menu: () => showSidebar(true), "close-sidebar": () => showSidebar(false), scrim: () => showSidebar(false),
    "change-key": () => { byId("facts").close(); saveKey(""); askForKey(); },
  };
  for (const [id, action] of Object.entries(clicks)) byId(id).addEventListener("click", action);
  byId("composer").addEventListener("submit", (event) => {
    event.preventDefault();
    sendText(input.value);
  });
  input.addEventListener("keydown", onInputKey);
  input.addEventListener("input", showComposer);
  document.addEventListener("keydown", onKey);
  scroller.addEventListener("scroll", () => { byId("to-end").hidden = atEnd(); });
  darkSystem.addEventListener("change", showTheme);
  addEventListener("storage", showConversations);  // another tab
  // A page that closes keeps what it has of a running answer.
  addEventListener("pagehide", () => { if (chat.running) saveConversation(chat.running.conversation); });
  showAll();
  watchServer();
}

setUpPage();
