// Parses Markdown into a tree of plain objects. Everything else, above all HTML, is text.
//
// Blocks: {type, from, ...}. `from` is the line on which a block of the outermost level begins.
// Inlines: strings, and {type, children, ...}. Each step takes time linear in the length of the text, for any text.

const DEEPEST = 8; // of quotes and lists in each other
const BLANK = /^\s*$/;
const FENCE = /^ {0,3}(`{3,}|~{3,})\s*([^`\s]*)[^`]*$/;
const HEADING = /^ {0,3}(#{1,6})(?=\s|$)/;
const RULE = /^ {0,3}([-*_])(?:[ \t]*\1){2,}[ \t]*$/;
const QUOTE = /^ {0,3}> ?/;
const ITEM = /^( *)([-*+]|\d{1,9}[.)])( +|$)/;
const DELIMITER = /^ {0,3}\|?[ \t]*:?-+:?[ \t]*(?:\|[ \t]*:?-+:?[ \t]*)*\|?[ \t]*$/;

/** Returns the blocks of some lines. */
export function parseBlocks(lines, depth = 0) {
  const blocks = [];
  for (let at = 0; at < lines.length; ) {
    if (BLANK.test(lines[at])) {
      at++;
      continue;
    }
    const block = fence(lines, at) ?? heading(lines, at) ?? rule(lines, at) ?? nested(lines, at, depth);
    const found = block ?? table(lines, at) ?? paragraph(lines, at, depth);
    blocks.push({ ...found, from: at });
    at = found.to;
  }
  return blocks;
}

function fence(lines, from) {
  const open = FENCE.exec(lines[from]);
  if (!open) return null;
  const [, marks, language] = open;
  const close = new RegExp(`^ {0,3}${marks[0]}{${marks.length},}\\s*$`);
  const indent = lines[from].indexOf(marks);
  let to = from + 1;
  while (to < lines.length && !close.test(lines[to])) to++;
  const text = lines.slice(from + 1, to).map((line) => dedent(line, indent));
  return { type: "code", language, text: text.join("\n"), to: Math.min(to + 1, lines.length) };
}

function heading(lines, from) {
  const open = HEADING.exec(lines[from]);
  if (!open) return null;
  const text = lines[from].slice(open[0].length).trim().replace(/(^|\s)#+$/, "");
  return { type: "heading", level: open[1].length, children: parseInline(text), to: from + 1 };
}

function rule(lines, from) {
  return RULE.test(lines[from]) ? { type: "rule", to: from + 1 } : null;
}

function nested(lines, from, depth) {
  return depth < DEEPEST ? (quote(lines, from, depth) ?? list(lines, from, depth)) : null;
}

function quote(lines, from, depth) {
  let to = from;
  while (to < lines.length && QUOTE.test(lines[to])) to++;
  if (to === from) return null;
  const inner = lines.slice(from, to).map((line) => line.replace(QUOTE, ""));
  return { type: "quote", children: parseBlocks(inner, depth + 1), to };
}

function marker(line) {
  const found = ITEM.exec(line);
  if (!found) return null;
  const [whole, indent, mark, space] = found;
  const ordered = !"-*+".includes(mark);
  const width = whole.length === line.length || space.length > 4 ? indent.length + mark.length + 1 : whole.length;
  return { ordered, indent: indent.length, width, start: ordered ? Number.parseInt(mark, 10) : null };
}

function list(lines, from, depth) {
  const first = marker(lines[from]);
  if (!first || first.indent > 3) return null;
  const items = [];
  let to = from;
  let loose = false;
  while (to < lines.length) {
    const head = marker(lines[to]);
    if (!head || head.ordered !== first.ordered || head.indent >= first.indent + 2 || RULE.test(lines[to])) break;
    const end = itemEnd(lines, to, head, depth);
    const inner = [lines[to].slice(head.width), ...lines.slice(to + 1, end).map((line) => dedent(line, head.width))];
    const last = inner.findLastIndex((line) => !BLANK.test(line));
    loose ||= inner.slice(0, last + 1).some((line) => BLANK.test(line)) && last > 0;
    items.push(item(inner, depth));
    to = end;
    while (to < lines.length && BLANK.test(lines[to])) to++;
    const next = to < lines.length ? marker(lines[to]) : null;
    loose ||= to > end && next !== null && next.ordered === first.ordered && next.indent < first.indent + 2;
  }
  return { type: "list", start: first.start, ordered: first.ordered, loose, items, to };
}

/** Returns the line after an item. Indented lines and lines that continue the last paragraph belong to the item. */
function itemEnd(lines, from, head, depth) {
  let to = from + 1;
  for (let next = to; next < lines.length; next++) {
    const line = lines[next];
    if (BLANK.test(line)) continue;
    const indented = line[0] === "\t" || line.search(/\S/) >= head.indent + 2;
    const follows = next === to && !BLANK.test(lines[next - 1]) && !interrupts(lines, next, depth) && !marker(line);
    if (!indented && !follows) break;
    to = next + 1;
  }
  return to;
}

function item(lines, depth) {
  const task = /^\[([ xX])\] +/.exec(lines[0]);
  if (task) lines[0] = lines[0].slice(task[0].length);
  return { checked: task ? task[1] !== " " : null, children: parseBlocks(lines, depth + 1) };
}

function isTable(lines, from) {
  const [head, line] = [lines[from], lines[from + 1]];
  if (line === undefined || !head.includes("|") || !DELIMITER.test(line)) return false;
  return cells(head).length === cells(line).length;
}

function table(lines, from) {
  if (!isTable(lines, from)) return null;
  const align = cells(lines[from + 1]).map((cell) => {
    if (cell.endsWith(":")) return cell.startsWith(":") ? "center" : "end";
    return "start";
  });
  let to = from + 2;
  while (to < lines.length && !BLANK.test(lines[to]) && !starts(lines[to])) to++;
  const rows = lines.slice(from + 2, to).map((line) => {
    const row = cells(line);
    return align.map((_, column) => parseInline(row[column] ?? ""));
  });
  return { type: "table", align, head: cells(lines[from]).map(parseInline), rows, to };
}

function cells(line) {
  const row = line.trim().replace(/^\|/, "");
  const found = [];
  let start = 0;
  for (let at = 0; at < row.length; at++) {
    if (row[at] === "\\") at++;
    else if (row[at] === "|") {
      found.push(row.slice(start, at));
      start = at + 1;
    }
  }
  if (start < row.length) found.push(row.slice(start));
  return found.map((cell) => cell.trim().replaceAll("\\|", "|"));
}

function starts(line) {
  return FENCE.test(line) || HEADING.test(line) || RULE.test(line) || QUOTE.test(line);
}

/** Tells whether a line ends the paragraph before it. A numbered item does so only if its number is 1. */
function interrupts(lines, at, depth) {
  if (FENCE.test(lines[at]) || HEADING.test(lines[at]) || RULE.test(lines[at]) || isTable(lines, at)) return true;
  if (depth >= DEEPEST) return false;
  const head = marker(lines[at]);
  const begins = head && head.indent <= 3 && head.width < lines[at].length && (head.start ?? 1) === 1;
  return QUOTE.test(lines[at]) || Boolean(begins);
}

function paragraph(lines, from, depth) {
  let to = from + 1;
  while (to < lines.length && !BLANK.test(lines[to]) && !interrupts(lines, to, depth)) to++;
  const text = lines.slice(from, to).map((line) => line.trimStart());
  return { type: "paragraph", children: parseInline(text.join("\n").trimEnd()), to };
}

function dedent(line, width) {
  if (width && line[0] === "\t") return line.slice(1);
  let at = 0;
  while (at < width && line[at] === " ") at++;
  return line.slice(at);
}

const SPECIAL = /[\\`*_~[!<\n]|https?:\/\//g;
// Labels and addresses have a bounded length, and an address has at most one pair of parentheses.
const ADDRESS = /[^\s()<>]{1,2000}(?:\([^\s()<>]{0,2000}\)[^\s()<>]{0,2000})?/;
const LINK = new RegExp(`!?\\[([^[\\]]{0,1000})\\]\\(\\s*<?(${ADDRESS.source})>?(?:\\s+"[^"]*")?\\s*\\)`, "y");
const ANGLED = /<(https?:\/\/[^\s<>]{1,2000})>/y;
const BARE = /https?:\/\/[^\s<>"|`*]{1,2000}/y;
const PUNCTUATION = /[!-/:-@[-`{-~]/;
const OPEN = 20; // emphases in each other

/** Returns the inlines of a text. */
export function parseInline(text) {
  const spans = new Spans(text);
  let from = 0;
  SPECIAL.lastIndex = 0;
  for (let found; (found = SPECIAL.exec(text)); SPECIAL.lastIndex = from) {
    const at = found.index;
    spans.add(text.slice(from, at));
    from = at + special(text, at, spans);
  }
  spans.add(text.slice(from));
  return spans.end();
}

/** Adds the inline that begins at a special character. Returns the number of characters that it took. */
function special(text, at, spans) {
  const letter = text[at];
  if (letter === "\\" && text[at + 1] === "\n") return spans.add({ type: "break" }, 2);
  if (letter === "\\" && PUNCTUATION.test(text[at + 1] ?? "")) return spans.add(text[at + 1], 2);
  if (letter === "\n") return spans.newLine(text.slice(Math.max(0, at - 2), at) === "  ");
  if (letter === "`") return spans.code(at);
  if (letter === "*" || letter === "_" || letter === "~") return spans.emphasis(at);
  const link = (letter === "[" || letter === "!") && match(LINK, text, at);
  if (link) return spans.link(link[0].length, link[2], link[1] || link[2]);
  const plain = letter === "<" ? match(ANGLED, text, at) : letter === "h" && match(BARE, text, at);
  if (!plain) return spans.add(letter, 1);
  const url = letter === "<" ? plain[1] : plain[0].replace(/[.,:;!?'")\]_~]+$/, "");
  return spans.link(letter === "<" ? plain[0].length : url.length, url, url);
}

function match(pattern, text, at) {
  pattern.lastIndex = at;
  return pattern.exec(text);
}

/** Collects inlines, and keeps the open emphases. */
class Spans {
  #text;
  #open = [{ children: [] }]; // the outermost one is the text itself
  #unclosed = new Set(); // lengths of backticks that nothing further on closes

  constructor(text) {
    this.#text = text;
  }

  add(inline, length = 0) {
    if (inline !== "") this.#open.at(-1).children.push(inline);
    return length;
  }

  newLine(hard) {
    return this.add(hard ? { type: "break" } : "\n", 1);
  }

  link(length, url, label) {
    // Remove marks of emphasis and code from a label, where they are of little use.
    return this.add({ type: "link", url, children: [label.replaceAll(/[*`]/g, "")] }, length);
  }

  code(at) {
    const text = this.#text;
    const length = run(text, at);
    if (this.#unclosed.has(length)) return this.add(text.slice(at, at + length), length);
    for (let end = text.indexOf("`", at + length); end >= 0; end = text.indexOf("`", end)) {
      const closing = run(text, end);
      if (closing === length) {
        const code = text.slice(at + length, end).replaceAll("\n", " ");
        const padded = code.length > 2 && code.startsWith(" ") && code.endsWith(" ") && code.trim();
        return this.add({ type: "code", text: padded ? code.slice(1, -1) : code }, end + length - at);
      }
      end += closing;
    }
    this.#unclosed.add(length);
    return this.add(text.slice(at, at + length), length);
  }

  emphasis(at) {
    const [text, letter] = [this.#text, this.#text[at]];
    const length = run(text, at);
    const [before, after] = [text[at - 1] ?? " ", text[at + length] ?? " "];
    if (letter === "~" && length !== 2) return this.add(text.slice(at, at + length), length);
    const inWord = letter === "_" && /[\p{L}\p{N}]/u.test(before) && /[\p{L}\p{N}]/u.test(after);
    const closes = !/\s/.test(before) && !inWord;
    const opens = !/\s/.test(after) && !inWord;
    let left = length;
    for (let used = 1; closes && left && used; left -= used) used = this.#close(letter, length, left, opens);
    if (!left) return length;
    if (!opens || this.#open.length > OPEN) return this.add(letter.repeat(left), length);
    this.#open.push({ letter, length, count: left, both: closes, children: [] });
    return length;
  }

  /** Closes the innermost emphasis that fits. Returns the number of characters that it took, or 0 if none fits. */
  #close(letter, length, left, opens) {
    // A mark that can both open and close matches only certain lengths (CommonMark's rule of three): `**a*b**`.
    const fits = (one) => !((opens || one.both) && (one.length + length) % 3 === 0);
    const found = this.#open.findLastIndex((one) => one.letter === letter && fits(one));
    if (found < 0) return 0;
    this.#flatten(found + 1);
    const one = this.#open[found];
    const used = Math.min(2, left, one.count);
    const type = letter === "~" ? "deleted" : used === 2 ? "strong" : "emphasis";
    one.children = [{ type, children: one.children }];
    one.count -= used;
    if (!one.count) {
      this.#open.pop();
      this.#open.at(-1).children.push(...one.children);
    }
    return used;
  }

  /** Turns the marks of open emphases into text, from an index on. */
  #flatten(from) {
    const target = this.#open[from - 1].children;
    for (const one of this.#open.splice(from)) {
      target.push(one.letter.repeat(one.count));
      for (const child of one.children) target.push(child);
    }
  }

  end() {
    this.#flatten(1);
    return this.#open[0].children;
  }
}

/** Returns how often the character at an index is repeated from there on. */
function run(text, at) {
  let end = at + 1;
  while (text[end] === text[at]) end++;
  return end - at;
}
