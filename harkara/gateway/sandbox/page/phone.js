"use strict";
// Whatever a message contains is put on the page as text, never as markup.

const $ = (id) => document.getElementById(id);
const chats = new Map(); // "number chat" -> {number, display, chat, name, last, unread, row}
const ROWS = 600; // chats kept in the list while it is scrolled to its top
let clock = 0; // the sandbox's time minus ours, in milliseconds
let open = null; // the chat shown
let older = null; // where its earlier messages go on
let nextChats = null;
let loading = false;
let query = "";
const ticking = new Map(); // element -> message whose status will still change

function make(tag, className, text) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text !== undefined && text !== null) element.textContent = String(text);
  return element;
}

const now = () => Date.now() + clock;
const key = (number, chat) => number + " " + chat;
const phone = (chat) => (/^\d+$/.test(chat) ? "+" + chat : chat);
const hour = (at) => new Date(at).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
const day = (at) => new Date(at).toLocaleDateString([], { day: "numeric", month: "short", year: "numeric" });
const asked = async (path) => {
  const response = await fetch(path);
  if (!response.ok) throw new Error("The sandbox answered " + response.status);
  const answer = await response.json();
  clock = answer.now - Date.now();
  return answer;
};

function paintAvatar(element, chat, name) {
  const seed = [...chat].reduce((sum, c) => (sum * 31 + c.codePointAt(0)) % 997, 7);
  element.className = "avatar hue" + (seed % 8);
  const letters = (name || "").split(/\s+/).filter(Boolean).slice(0, 2).map((word) => [...word][0]).join("");
  element.textContent = letters || chat.slice(-2);
}

// Statuses: a message knows from the start when they come.

function statusOf(message) {
  const time = now();
  const past = (at) => at !== null && at <= time;
  if (message.inbound) return message.read_at === null ? "delivered" : "read";
  if (past(message.failed_at)) return "failed";
  if (past(message.read_at)) return "read";
  if (past(message.delivered_at)) return "delivered";
  return past(message.sent_at) ? "sent" : "accepted";
}

function settled(message) {
  const last = message.failed_at ?? message.read_at ?? message.delivered_at ?? message.sent_at;
  return message.inbound ? message.read_at !== null : last === null || last <= now();
}

function paintTicks(element, message) {
  const status = statusOf(message);
  element.className = "ticks " + status;
  element.title = status;
  element.textContent = { accepted: "🕓", sent: "✓", delivered: "✓✓", read: "✓✓", failed: "✕ " + message.error }[status];
  if (settled(message)) ticking.delete(element);
  else ticking.set(element, message);
}

setInterval(() => {
  for (const [element, message] of ticking) {
    if (element.isConnected) paintTicks(element, message);
    else ticking.delete(element);
  }
}, 200);

// Text, with WhatsApp's *bold*, _italic_, ~struck~ and ```code```, and links.

const MARKS = /(```[\s\S]+?```|\*[^*\s][^*\n]*\*|_[^_\s][^_\n]*_|~[^~\s][^~\n]*~|https?:\/\/[^\s<>"]+)/g;
const TAGS = { "*": "strong", _: "em", "~": "s" };

function words(text, className = "words") {
  const element = make("div", className);
  for (const part of String(text ?? "").split(MARKS)) {
    if (!part) continue;
    if (/^https?:/.test(part)) element.append(link(part, part));
    else if (part.startsWith("```") && part.length > 6) element.append(make("code", "", part.slice(3, -3)));
    else if (TAGS[part[0]] && part.length > 2 && part.at(-1) === part[0]) {
      element.append(make(TAGS[part[0]], "", part.slice(1, -1)));
    } else element.append(part);
  }
  return element;
}

function link(address, text) {
  const element = make("a", "", text);
  if (/^https?:\/\//.test(address)) {
    element.href = address;
    element.target = "_blank";
    element.rel = "noopener noreferrer";
  }
  return element;
}

// What a message looks like.

const ICONS = { image: "🖼️", video: "🎬", audio: "🎧", document: "📄", sticker: "🌟", location: "📍", contacts: "👤" };

function summary(message) {
  const content = message.content ?? {};
  switch (message.type) {
    case "text": return content.body;
    case "template": return templateText(message) || "📋 " + content.name;
    case "interactive":
      return content.body?.text ?? content.button_reply?.title ?? content.list_reply?.title ?? "interactive";
    case "button": return content.text;
    case "reaction": return content.emoji ? "Reacted " + content.emoji : "Took a reaction back";
    default: return (ICONS[message.type] ?? "") + " " + (content.caption || content.filename || message.type);
  }
}

function mediaPart(type, media) {
  if (!media) return make("div");
  if (media.id && /^[\w-]+$/.test(media.id)) {
    const source = "/sandbox/phone/media/" + media.id;
    const tag = { image: "img", sticker: "img", video: "video", audio: "audio" }[type];
    if (tag) {
      const element = make(tag);
      element.src = source;
      if (tag === "img") element.alt = media.caption || type;
      else element.controls = true;
      if (tag === "img") element.onerror = () => element.replaceWith(fillCard(make("div"), type, type, "can't be shown"));
      return element;
    }
    const card = link("", "");
    card.href = source;
    card.download = media.filename || type;
    return fillCard(card, type, media.filename || type, "tap to save");
  }
  return fillCard(link(media.link || "", ""), type, media.filename || type, media.link || "no file");
}

function fillCard(card, type, title, sub) {
  card.className = "card";
  const text = make("div");
  text.append(make("div", "", title), make("small", "", sub));
  card.append(make("span", "icon", ICONS[type] ?? "📎"), text);
  return card;
}

const component = (content, kind, index) =>
  (content.components ?? []).find(
    (part) => part.type?.toLowerCase() === kind && (index === undefined || String(part.index) === String(index)),
  );
const valueOf = (parameter) =>
  parameter?.text ??
  parameter?.payload ??
  parameter?.coupon_code ??
  (parameter?.currency ?? parameter?.date_time)?.fallback_value ??
  "";

function filled(text, parameters) {
  let place = 0;
  return String(text ?? "").replace(/\{\{\s*(\w+)\s*\}\}/g, (whole, name) => {
    const named = parameters.find((parameter) => parameter.parameter_name === name);
    const index = /^\d+$/.test(name) ? Number(name) - 1 : place++;
    return valueOf(named ?? parameters[index]) || whole;
  });
}

function templateText(message) {
  const body = (message.template?.components ?? []).find((part) => part.type?.toLowerCase() === "body");
  return body ? filled(body.text, component(message.content, "body")?.parameters ?? []) : "";
}

function templatePart(message) {
  const { content, template } = message;
  const box = make("div");
  const tag = make("div", "tag");
  tag.append(make("b", "", "template "), content.name + " · " + (content.language?.code ?? ""));
  box.append(tag);
  const header = component(content, "header")?.parameters ?? [];
  for (const parameter of header) {
    const kind = parameter.type?.toLowerCase();
    if (parameter[kind] && kind !== "text") box.append(mediaPart(kind, parameter[kind]));
  }
  if (template) box.append(...registeredParts(message, header));
  else box.append(...looseParts(content, header));
  return box;
}

function registeredParts(message, header) {
  const parts = [];
  const of = (kind) => (message.template.components ?? []).find((part) => part.type?.toLowerCase() === kind);
  if (of("header")?.text) parts.push(words(filled(of("header").text, header), "head"));
  parts.push(words(templateText(message)));
  if (of("footer")?.text) parts.push(words(of("footer").text, "foot"));
  const buttons = of("buttons")?.buttons ?? [];
  if (buttons.length) {
    parts.push(
      replies(
        buttons.map((button, index) => {
          const parameter = component(message.content, "button", index)?.parameters?.[0];
          return quickReply(message, button.type?.toLowerCase() === "quick_reply", button.text, valueOf(parameter));
        }),
      ),
    );
  }
  return parts;
}

function looseParts(content, header) {
  const parts = [];
  const texts = header.filter((parameter) => parameter.text !== undefined && parameter.text !== null);
  if (texts.length) parts.push(make("div", "head", texts.map(valueOf).join(" ")));
  const body = component(content, "body")?.parameters ?? [];
  const list = make("div", "params");
  list.append(
    ...body.map((parameter) => {
      const name = parameter.parameter_name ? parameter.parameter_name + ": " : "";
      return make("span", "", name + (valueOf(parameter) || parameter.type));
    }),
  );
  parts.push(list);
  return parts;
}

function quickReply(message, tappable, title, payload) {
  const button = make("button", "", title || payload);
  button.type = "button";
  button.disabled = !tappable;
  button.onclick = () => say({ type: "button", button: { text: title, payload: payload || title }, context: message.wamid });
  return button;
}

function replies(buttons) {
  const box = make("div", "replies");
  box.append(...buttons);
  return box;
}

function interactivePart(message) {
  const content = message.content ?? {};
  const box = make("div");
  const reply = content.button_reply ?? content.list_reply;
  if (message.inbound) {
    box.append(words(reply?.title ?? content.type));
    if (reply?.description) box.append(make("div", "foot", reply.description));
    return box;
  }
  const header = content.header;
  if (header?.text) box.append(words(header.text, "head"));
  else if (header?.type) box.append(mediaPart(header.type, header[header.type]));
  box.append(words(content.body?.text));
  if (content.footer?.text) box.append(words(content.footer.text, "foot"));
  const action = content.action ?? {};
  if (action.buttons) box.append(replies(action.buttons.map((button) => tap(message, "button_reply", button.reply ?? {}))));
  else if (action.sections) box.append(listReplies(message, action));
  else if (action.parameters?.url) box.append(link(action.parameters.url, action.parameters.display_text || "Open"));
  return box;
}

function tap(message, kind, reply) {
  const button = make("button", "", reply.title);
  button.type = "button";
  if (reply.description) button.append(make("small", "", reply.description));
  const { id, title, description } = reply;
  const answer = description ? { id, title, description } : { id, title };
  button.onclick = () => say({ type: "interactive", interactive: { type: kind, [kind]: answer }, context: message.wamid });
  return button;
}

function listReplies(message, action) {
  const rows = make("div", "replies");
  rows.hidden = true;
  for (const section of action.sections) {
    if (section.title) rows.append(make("div", "part", section.title));
    for (const row of section.rows ?? []) rows.append(tap(message, "list_reply", row));
  }
  const opener = make("button", "", "☰ " + (action.button || "Choose"));
  opener.type = "button";
  opener.onclick = () => (rows.hidden = !rows.hidden);
  const box = make("div");
  box.append(replies([opener]), rows);
  return box;
}

function body(message) {
  const content = message.content ?? {};
  switch (message.type) {
    case "text": return [words(content.body)];
    case "template": return [message.inbound ? words(summary(message)) : templatePart(message)];
    case "interactive": return [interactivePart(message)];
    case "button": return [words(content.text)];
    case "image": case "video": case "audio": case "document": case "sticker":
      return [mediaPart(message.type, content), ...(content.caption ? [words(content.caption)] : [])];
    case "location":
      return [fillCard(make("div"), "location", content.name || content.latitude + ", " + content.longitude, content.address || "")];
    case "contacts":
      return content.map((contact) => fillCard(make("div"), "contacts", contact.name?.formatted_name ?? "", contact.phones?.[0]?.phone ?? ""));
    default: return [make("div", "tag", message.type), ...(Object.keys(content).length ? [words(JSON.stringify(content))] : [])];
  }
}

function bubble(message, others = []) {
  const element = make("article", message.inbound ? "bubble mine" : "bubble");
  element.dataset.wamid = message.wamid;
  if (message.context) {
    const beside = others.find((other) => other.wamid === message.context);
    const said = beside ? summary(beside) : find(message.context)?.dataset.summary;
    element.append(words(said || "an earlier message", "quote"));
  }
  element.dataset.summary = summary(message) ?? "";
  element.append(...body(message));
  const meta = make("div", "meta");
  const ticks = make("span", "ticks");
  paintTicks(ticks, message);
  meta.append(make("time", "", hour(message.at)), ticks);
  element.append(meta);
  return element;
}

const find = (wamid) => [...$("messages").children].find((element) => element.dataset.wamid === wamid);

function react(message) {
  const element = find(message.content?.message_id);
  if (!element) return;
  element.querySelector(".emoji")?.remove();
  element.classList.toggle("reacted", Boolean(message.content.emoji));
  if (message.content.emoji) element.append(make("span", "emoji", message.content.emoji));
}

// The chat that is open.

function place(messages) {
  const elements = [];
  let last = null;
  for (const message of messages) {
    if (message.type === "reaction") continue;
    if (day(message.at) !== last) elements.push(make("div", "day", (last = day(message.at))));
    elements.push(bubble(message, messages));
  }
  return elements;
}

function paintHeader(chat) {
  $("thread-name").textContent = chat.name || phone(chat.chat);
  $("thread-sub").textContent = (chat.name ? phone(chat.chat) + " · " : "") + "with " + (chat.display || chat.number);
  paintAvatar($("thread-avatar"), chat.chat, chat.name);
}

async function show(chat) {
  open = chat;
  $("phone").classList.add("in-chat");
  for (const row of document.querySelectorAll("#chats li.open")) row.classList.remove("open");
  chat.row?.classList.add("open");
  chat.unread = 0;
  if (chat.row) paintRow(chat);
  $("thread").querySelector("header").hidden = false;
  $("composer").hidden = false;
  paintHeader(chat);
  history.replaceState(null, "", "#" + encodeURIComponent(key(chat.number, chat.chat)));
  problem("");
  const answer = await asked(pathOf(chat));
  if (open !== chat) return;
  older = answer.next;
  paintHeader(Object.assign(chat, answer.chat));
  $("messages").replaceChildren(...place(answer.items));
  answer.items.filter((message) => message.type === "reaction").forEach(react);
  $("messages").scrollTop = $("messages").scrollHeight;
  if (matchMedia("(min-width: 761px)").matches) $("text").focus();
}

const pathOf = (chat) => "/sandbox/phone/messages?" + new URLSearchParams({ number: chat.number, chat: chat.chat });

async function showOlder() {
  if (!open || older === null || loading) return;
  loading = true;
  const chat = open;
  const answer = await asked(pathOf(chat) + "&before=" + older).finally(() => (loading = false));
  if (open !== chat) return;
  older = answer.next;
  const box = $("messages");
  const height = box.scrollHeight;
  box.prepend(...place(answer.items));
  box.scrollTop += box.scrollHeight - height;
}

function append(message) {
  if (message.type === "reaction") return react(message);
  if (find(message.wamid)) return;
  const box = $("messages");
  box.querySelector(".hint")?.remove();
  const below = box.scrollHeight - box.scrollTop - box.clientHeight < 120;
  box.append(...(box.children.length ? [bubble(message)] : place([message])));
  if (below) box.scrollTop = box.scrollHeight;
}

// The list of chats.

function paintRow(chat) {
  const [button] = chat.row.children;
  const [avatar, name, time, last, badge] = button.children;
  paintAvatar(avatar, chat.chat, chat.name);
  name.textContent = chat.name || phone(chat.chat);
  time.textContent = chat.last ? hour(chat.last.at) : "";
  last.replaceChildren();
  if (chat.last) {
    const ticks = make("span", "ticks");
    paintTicks(ticks, chat.last);
    last.append(ticks, " ", String(summary(chat.last) ?? "").slice(0, 120));
  }
  chat.row.classList.toggle("news", chat.unread > 0);
  badge.hidden = chat.unread === 0;
  badge.textContent = chat.unread;
}

// Whether a chat is among those that are searched for, as the sandbox finds them.
function isSought(chat) {
  const part = query.replace(/^\++/, "").toLowerCase();
  return [chat.chat, chat.name || ""].some((text) => text.toLowerCase().includes(part));
}

function rowOf(chat) {
  chat.row = make("li");
  const button = make("button");
  button.type = "button";
  button.append(make("div", "avatar"), make("div", "name"), make("div", "time"), make("div", "last"), make("div", "badge"));
  button.onclick = () => show(chat).catch(trouble);
  chat.row.append(button);
  paintRow(chat);
  return chat.row;
}

function keep(fresh) {
  const id = key(fresh.number, fresh.chat);
  const known = chats.get(id);
  const chat = known ? Object.assign(known, fresh) : { unread: 0, row: null, name: "", display: fresh.number, ...fresh };
  chats.set(id, chat);
  return chat;
}

async function loadChats(more) {
  if (loading || (more && nextChats === null)) return;
  loading = true;
  const parameters = new URLSearchParams();
  if (more) parameters.set("before", nextChats);
  if (query) parameters.set("q", query);
  const answer = await asked("/sandbox/phone/chats?" + parameters).finally(() => (loading = false));
  const rows = answer.items.map((item) => {
    const chat = keep(item);
    return chat.row ? (paintRow(chat), chat.row) : rowOf(chat);
  });
  if (more) $("chats").append(...rows);
  else $("chats").replaceChildren(...rows);
  nextChats = answer.next;
  $("no-chats").hidden = $("chats").children.length > 0;
}

function trim() {
  const list = $("chats");
  if (list.scrollTop > 200) return;
  let dropped = false;
  while (list.children.length > ROWS) {
    list.lastElementChild.remove();
    dropped = true;
  }
  if (!dropped) return;
  for (const [id, chat] of chats) {
    if (chat !== open && chat.row && !chat.row.isConnected) chats.delete(id);
  }
  nextChats = Math.min(...[...chats.values()].filter((chat) => chat.row?.isConnected && chat.last).map((chat) => chat.last.id));
}

// News.

function hear(news) {
  const moved = new Map();
  for (const item of news) {
    if (item.kind === "reload") return reload();
    if (item.kind === "message") {
      const known = keep({ ...item.chat, last: item.message });
      if (open === known) append(item.message);
      else if (!item.message.inbound) known.unread += 1;
      moved.delete(known);
      moved.set(known, true);
    } else if (item.kind === "read") readBy(item);
  }
  const rows = [...moved.keys()].filter(isSought).reverse().map((chat) => (chat.row ? (paintRow(chat), chat.row) : rowOf(chat)));
  const list = $("chats");
  const before = list.scrollHeight;
  const top = list.scrollTop;
  list.prepend(...rows);
  if (top > 0) list.scrollTop = top + list.scrollHeight - before;
  $("no-chats").hidden = list.children.length > 0;
  trim();
}

function readBy({ number, chat, id, typing }) {
  const known = chats.get(key(number, chat));
  if (!known) return;
  if (known.last?.inbound && known.last.id <= id) known.last.read_at = now();
  if (open !== known) return;
  for (const [, message] of ticking) {
    if (message.inbound && message.number === number && message.chat === chat && message.id <= id) message.read_at = now();
  }
  if (!typing) return;
  const sub = $("thread-sub");
  const text = sub.textContent;
  sub.textContent = "typing…";
  setTimeout(() => sub.textContent === "typing…" && (sub.textContent = text), 4000);
}

let reloading = null;
function reload() {
  reloading ??= setTimeout(async () => {
    reloading = null;
    try {
      await loadChats(false);
      if (open) await refreshOpen();
    } catch (error) {
      trouble(error);
    }
  }, 300);
}

async function refreshOpen() {
  const chat = open;
  const answer = await asked(pathOf(chat));
  if (open === chat) answer.items.forEach(append);
}

function listen() {
  const events = new EventSource("/sandbox/phone/events");
  const live = $("live");
  events.onmessage = (event) => {
    const { now: time, news } = JSON.parse(event.data);
    clock = time - Date.now();
    live.textContent = live.title = "live";
    live.className = "on";
    // After a reconnection the page may have missed something.
    if (news[0]?.kind === "hello") reload();
    else hear(news);
  };
  events.onerror = () => {
    live.textContent = live.title = "reconnecting";
    live.className = "";
  };
}

// Writing.

function problem(text) {
  $("problem").hidden = !text;
  $("problem").textContent = text;
}

const trouble = (error) => problem(error.message);

async function say(message) {
  const response = await fetch("/sandbox/inbound", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ from: open.chat, to: open.number, ...message }),
  }).catch(() => null);
  if (response?.ok) return problem("");
  problem((await response?.json().catch(() => null))?.detail ?? "The sandbox does not answer: try again when it is back.");
}

$("composer").onsubmit = (event) => {
  event.preventDefault();
  const text = $("text").value.trim();
  if (!text || !open) return;
  $("text").value = "";
  say({ type: "text", text });
};
$("back").onclick = () => {
  $("phone").classList.remove("in-chat");
  open = null;
};
$("new").onclick = () => {
  $("new-form").hidden = !$("new-form").hidden;
  $("new-to").value ||= [...chats.values()][0]?.number ?? "";
};
$("new-form").onsubmit = (event) => {
  event.preventDefault();
  const chat = $("new-from").value.replace(/[^\d]/g, "");
  if (!/^\d{5,20}$/.test(chat)) return problem("A phone is 5 to 20 digits.");
  $("new-form").hidden = true;
  show(keep({ number: $("new-to").value.trim(), chat })).catch(trouble);
};
let typed = null;
$("search").oninput = () => {
  clearTimeout(typed);
  typed = setTimeout(() => {
    query = $("search").value.trim();
    loadChats(false).catch(trouble);
  }, 200);
};
$("chats").onscroll = () => {
  const list = $("chats");
  if (list.scrollHeight - list.scrollTop - list.clientHeight < 400) loadChats(true).catch(trouble);
};
$("messages").onscroll = () => {
  if ($("messages").scrollTop < 80) showOlder().catch(trouble);
};

loadChats(false)
  .then(() => {
    const [number, chat] = decodeURIComponent(location.hash.slice(1)).split(" ");
    if (chat) return show(chats.get(key(number, chat)) ?? keep({ number, chat }));
  })
  .catch(trouble)
  .finally(listen);
