// The part of Markdown that models write, as elements. Text of the model only ever becomes text nodes; addresses only of
// http, https and mailto. Nesting is bounded, and no expression can run longer than its input.
const kMostNesting = 8;

function node(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "class") element.className = value;
    else element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

const kListItem = /^( *)([-*+]|\d{1,9}[.)]) +(.*)$/;
const kFence = /^ {0,12}(`{3,}|~{3,}) *([^\s`]{0,40})[^`]*$/;
const kHeading = /^ {0,3}(#{1,6}) +(.*)$/;
const kRule = /^ {0,3}(?:-[ -]*-[ -]*-|\*[ *]*\*[ *]*\*|_[ _]*_[ _]*_) *$/;
const kTableLine = /^ *\|?[ :|-]+$/;

const isRule = (line) => line.length < 100 && kRule.test(line);
const isTableRule = (line = "") => line.length < 1000 && line.includes("|") && line.includes("-") && kTableLine.test(line);
const isTableAt = (lines, i) => lines[i].includes("|") && isTableRule(lines[i + 1]);
const startsBlock = (lines, i) =>
  kFence.test(lines[i]) || kHeading.test(lines[i]) || isRule(lines[i]) || /^ {0,3}>/.test(lines[i]) ||
  kListItem.test(lines[i]) || isTableAt(lines, i);

// Cuts text into blocks {kind, source lines}. A block's elements depend on its lines alone.
function splitBlocks(lines) {
  const blocks = [];
  let i = 0;
  const take = (kind, end, extra = {}) => {
    blocks.push({ kind, lines: lines.slice(i, end), ...extra });
    i = end;
  };
  while (i < lines.length) {
    if (lines[i].trim() === "") {
      ++i;
      continue;
    }
    let end = i + 1;
    const fence = kFence.exec(lines[i]);
    if (fence) {
      const closes = (line) => line.trim().startsWith(fence[1]) && line.trim().replaceAll(fence[1][0], "") === "";
      while (end < lines.length && !closes(lines[end])) ++end;
      take("code", Math.min(end + 1, lines.length), { language: fence[2], closed: end < lines.length });
    } else if (kHeading.test(lines[i])) {
      take("heading", end);
    } else if (isRule(lines[i])) {
      take("rule", end);
    } else if (/^ {0,3}>/.test(lines[i])) {
      while (end < lines.length && lines[end].trim() !== "" && /^ {0,3}>/.test(lines[end])) ++end;
      take("quote", end);
    } else if (isTableAt(lines, i)) {
      end = i + 2;
      while (end < lines.length && lines[end].includes("|")) ++end;
      take("table", end);
    } else if (kListItem.test(lines[i])) {
      take("list", endOfList(lines, i));
    } else {
      while (end < lines.length && lines[end].trim() !== "" && !startsBlock(lines, end)) ++end;
      take("paragraph", end);
    }
  }
  return blocks;
}

// A list goes on over blank lines while items or indented lines follow.
function endOfList(lines, start) {
  let end = start + 1;
  for (let i = start + 1; i < lines.length; ++i) {
    if (lines[i].trim() === "") continue;
    const goesOn = kListItem.test(lines[i]) || /^ {2,}/.test(lines[i]) || (end === i && !startsBlock(lines, i));
    if (!goesOn || isRule(lines[i])) break;
    end = i + 1;
  }
  return end;
}

function listElement(lines, nesting) {
  const [, indent, marker] = kListItem.exec(lines[0]);
  const ordered = /\d/.test(marker);
  const list = node(ordered ? "ol" : "ul");
  if (ordered && parseInt(marker, 10) !== 1) list.start = parseInt(marker, 10);
  let item = [];
  const flush = () => {
    if (item.length === 0) return;
    const blocks = splitBlocks(item);
    const li = node("li");
    blocks.forEach((block, i) => {
      const isTight = i === 0 && block.kind === "paragraph";  // the item's own line is no paragraph
      li.append(...(isTight ? inlineNodes(block.lines.join("\n"), 0) : [blockElement(block, nesting + 1)]));
    });
    list.append(li);
    item = [];
  };
  for (const line of lines) {
    const match = kListItem.exec(line);
    if (match && match[1].length <= indent.length + 1) {
      flush();
      item = [match[3]];
    } else {
      item.push(line.replace(/^ {1,4}/, ""));
    }
  }
  flush();
  return list;
}

function tableElement(lines) {
  const cells = (line) => line.trim().replace(/^\||\|$/g, "").split("|").slice(0, 100).map((cell) => cell.trim());
  const sides = cells(lines[1]).map((mark) => (!mark.endsWith(":") ? "" : mark.startsWith(":") ? "center" : "right"));
  const row = (line, tag) =>
    node("tr", {}, ...cells(line).map((cell, i) => node(tag, { class: sides[i] ?? "" }, ...inlineNodes(cell, 0))));
  const body = node("tbody", {}, ...lines.slice(2).map((line) => row(line, "td")));
  return node("div", { class: "table", tabindex: "0" }, node("table", {}, node("thead", {}, row(lines[0], "th")), body));
}

function codeElement(block) {
  const text = block.lines.slice(1, block.closed ? -1 : undefined).join("\n");
  const copy = node("button", { type: "button", class: "text-button" }, t("copy"));
  const code = node("code", {}, text);
  copy.addEventListener("click", () => copyText(code.textContent, copy));
  const head = node("div", { class: "code-head" }, node("span", {}, block.language), copy);
  return node("div", { class: "code-block" }, head, node("pre", { tabindex: "0" }, code));
}

function blockElement(block, nesting) {
  const text = block.lines.join("\n");
  if (nesting >= kMostNesting) return node("p", {}, text);
  switch (block.kind) {
    case "code": return codeElement(block);
    case "rule": return node("hr");
    case "list": return listElement(block.lines, nesting);
    case "table": return tableElement(block.lines);
    case "heading": {
      const [, marks, title] = kHeading.exec(text);
      // The page's own headings are h1 and h2.
      return node(`h${Math.min(6, marks.length + 2)}`, {}, ...inlineNodes(title, 0));
    }
    case "quote": {
      const inner = splitBlocks(block.lines.map((line) => line.replace(/^ {0,3}> ?/, "")));
      return node("blockquote", {}, ...inner.map((each) => blockElement(each, nesting + 1)));
    }
    default: return node("p", {}, ...inlineNodes(text, 0));
  }
}

const kLink = /\[([^[\]\n]{1,500})\]\(((?:https?:\/\/|mailto:)[^()\s<>"]{1,2000})\)/y;
const kAddress = /https?:\/\/[^\s<>"'`|\\^{}\u3000-\u303f\uff00-\uffef]{1,2000}/y;
const isWord = (c) => c !== undefined && /[\p{L}\p{N}_]/u.test(c);
const isAsciiWord = (c) => c !== undefined && /\w/.test(c);

function linkElement(address, ...children) {
  return node("a", { href: address, target: "_blank", rel: "noopener noreferrer nofollow" }, ...children);
}

// Inline marks of one paragraph as nodes.
function inlineNodes(text, nesting) {
  const nodes = [];
  const missing = new Set();  // marks that have no end, so that each is looked for once
  let plain = "";
  const flush = () => {
    if (plain) nodes.push(document.createTextNode(plain));
    plain = "";
  };
  const put = (element, end) => {
    flush();
    nodes.push(element);
    return end;
  };
  // Position of the closing mark, or -1.
  const closing = (mark, from) => {
    if (missing.has(mark)) return -1;
    const end = text.indexOf(mark, from);
    if (end < 0) missing.add(mark);
    return end;
  };
  const matchAt = (expression, i) => {
    expression.lastIndex = i;
    return expression.exec(text);
  };
  let i = 0;
  while (i < text.length) {
    const c = text[i];
    if (c === "\\" && /[!-/:-@[-`{-~]/.test(text[i + 1] ?? "") && !"()[]".includes(text[i + 1])) {
      plain += text[i + 1];
      i += 2;
      continue;
    }
    if (c === "`") {
      let mark = "`";
      while (text[i + mark.length] === "`") mark += "`";
      const end = closing(mark, i + mark.length);
      if (end > 0) {
        i = put(node("code", {}, text.slice(i + mark.length, end).trim()), end + mark.length);
        continue;
      }
      plain += mark;
      i += mark.length;
      continue;
    }
    const emphasis = nesting < kMostNesting ? emphasisAt(text, i, closing) : null;
    if (emphasis) {
      i = put(node(emphasis.tag, {}, ...inlineNodes(emphasis.text, nesting + 1)), emphasis.end);
      continue;
    }
    const link = c === "[" ? matchAt(kLink, i) : null;
    if (link) {
      i = put(linkElement(link[2], link[1]), i + link[0].length);
      continue;
    }
    const address = c === "h" && !isWord(text[i - 1]) ? matchAt(kAddress, i) : null;
    if (address) {
      const bare = address[0].replace(/[.,;:!?)\]*_]+$/, "");
      i = put(linkElement(bare, bare), i + bare.length);
      continue;
    }
    plain += c;
    ++i;
  }
  flush();
  return nodes;
}

// **strong**, ~~struck~~, *emphasis* and _emphasis_ beginning at i, or null. "2 * 3 * 4" and snake_case are none.
function emphasisAt(text, i, closing) {
  for (const [mark, tag] of [["**", "strong"], ["__", "strong"], ["~~", "del"], ["*", "em"], ["_", "em"]]) {
    if (!text.startsWith(mark, i)) continue;
    const from = i + mark.length;
    const next = text[from];
    const loose = mark === "**" || mark === "~~";
    if (next === undefined || /\s/.test(next) || (!loose && isAsciiWord(text[i - 1]))) return null;
    let end = closing(mark, from);
    // ***both***: the outer mark ends last.
    while (end > 0 && mark.length === 2 && text[end + 2] === mark[0]) ++end;
    if (end <= from || /\s/.test(text[end - 1]) || (!loose && isAsciiWord(text[end + mark.length]))) return null;
    return { tag, text: text.slice(from, end), end: end + mark.length };
  }
  return null;
}

// Shows text as Markdown in the element. Called again with more text it leaves the blocks that did not change alone, so
// that selections live and long answers stay cheap.
function showMarkdown(element, text) {
  const blocks = splitBlocks(text.split("\n"));
  const shown = element.shownSources ?? [];
  const sources = blocks.map((block) => block.lines.join("\n"));
  let same = 0;
  while (same < shown.length && same < sources.length && shown[same] === sources[same]) ++same;
  const growing = blocks[same];
  const old = element.children[same];
  if (growing?.kind === "code" && !growing.closed && same === blocks.length - 1 && old?.className === "code-block" &&
      sources[same].startsWith(shown[same])) {
    old.querySelector("code").textContent = growing.lines.slice(1).join("\n");
  } else {
    while (element.children.length > same) element.lastElementChild.remove();
    for (const block of blocks.slice(same)) element.append(blockElement(block, 0));
  }
  element.shownSources = sources;
}
