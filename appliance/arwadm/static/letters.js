// The page of dead letters: lists what the API says, again whenever the live view says that some came or went. Text only
// ever enters the page as textContent.
"use strict";

const API = "/api/letters";
const DONE = { requeue: "requeued", purge: "purged" };
const many = (count) => `${number(count)} dead letter${count === 1 ? "" : "s"}`;

const opened = new Map();  // number of a message that is open, to the row with its content
let dead = new Map();      // address, to how many dead letters the queue counts there
let listed = "";           // what the list was made from

async function change(act, choice, question, buttons) {
  if (!confirm(question)) return;
  for (const button of buttons) button.disabled = true;
  try {
    let count = 0;
    for (let more = true, after = 0; more;) {
      const done = await ask("POST", `${API}/${act}`, { ...choice, after });
      count += done.count;
      [more, after] = [done.more, done.last];
    }
    confirmDone(`${many(count)} ${DONE[act]}.`);
    await list();
  } catch (problem) { complain(problem); } finally { for (const button of buttons) button.disabled = false; }
}

function wire(element, choice, questions) {
  const buttons = [...element.querySelectorAll("[data-act]")];
  for (const button of buttons) button.onclick = () => change(button.dataset.act, choice, questions[button.dataset.act](), buttons);
}

function content(letter) {
  const row = at("opened").content.firstElementChild.cloneNode(true);
  const { message, history, kind, text } = letter;
  const facts = { Number: message.seq, Id: message.id, Origin: message.origin, Published: stamp(message.published_at),
    "Last consumer": message.holder, Body: `${size(message.size)}, ${kind}` };
  row.querySelector("dl").append(...Object.entries(facts).map(([name, value]) => {
    const fact = put("div");
    fact.append(put("dt", name), put("dd", value));
    return fact;
  }));
  const lines = row.querySelector(".history");
  lines.hidden = !history.length;
  lines.tBodies[0].append(...history.map((line) => {
    const cells = [stamp(line.at), line.what, line.attempt || "", line.holder, line.reason];
    const each = put("tr");
    each.append(...cells.map((value, index) => put("td", value, index === 2 ? "n" : "")));
    return each;
  }));
  row.querySelector("pre").textContent = text || "The body is empty.";
  row.querySelector("pre").classList.toggle("none", !text);
  wire(row, { seqs: [message.seq] }, { requeue: () => `Requeue the message ${message.id}?`, purge: () => `Drop the message ${message.id} for good?` });
  return row;
}

async function toggle(message, row, button) {
  if (opened.has(message.seq)) {
    opened.get(message.seq).remove();
    opened.delete(message.seq);
  } else {
    button.disabled = true;
    try {
      const shown = content(await ask("GET", `${API}/${message.seq}`));
      opened.set(message.seq, shown);
      row.after(shown);
    } catch (problem) { complain(problem); } finally { button.disabled = false; }
  }
  face(message, row, button);
  button.focus();
}

function face(message, row, button) {
  const open = opened.has(message.seq);
  row.classList.toggle("open", open);
  button.textContent = open ? "Hide" : "Show";
  button.setAttribute("aria-expanded", open);
}

function rows(message) {
  const row = put("tr");
  row.dataset.seq = message.seq;
  const id = put("code", message.id.length > 14 ? `${message.id.slice(0, 12)}…` : message.id);
  id.title = message.id;
  const button = put("button", "", "quiet");
  button.type = "button";
  button.onclick = () => toggle(message, row, button);
  const cells = [stamp(message.changed_at), id, number(message.attempt), size(message.size), message.reason || "–", button];
  row.append(...cells.map((value, index) => {
    const cell = put("td", undefined, ["", "less", "n less", "n less"][index]);
    cell.append(value);
    return cell;
  }));
  face(message, row, button);
  return opened.has(message.seq) ? [row, opened.get(message.seq)] : [row];
}

function group(address, messages) {
  const article = at("group").content.firstElementChild.cloneNode(true);
  const count = Math.max(dead.get(address) || 0, messages.length);
  article.dataset.address = address;
  article.querySelector("h3").textContent = address;
  article.querySelector(".pill").textContent = number(count);
  article.querySelector("tbody").append(...messages.flatMap(rows));
  wire(article.querySelector("header"), { address },
    { requeue: () => `Requeue ${many(count)} of ${address}?`, purge: () => `Drop ${many(count)} of ${address} for good?` });
  return article;
}

async function list() {
  const { messages } = await ask("GET", API);
  const known = new Set(messages.map((message) => message.seq));
  for (const seq of opened.keys()) if (!known.has(seq)) opened.delete(seq);
  const groups = new Map();
  for (const message of messages) groups.set(message.address, [...(groups.get(message.address) || []), message]);
  const focus = document.activeElement && document.activeElement.closest("tr[data-seq]");
  at("groups").replaceChildren(...[...groups].sort(([a], [b]) => a < b ? -1 : 1).map(([address, of]) => group(address, of)));
  if (focus) at("groups").querySelector(`tr[data-seq="${focus.dataset.seq}"] button`)?.focus();
  at("nothing").hidden = messages.length > 0;
  at("nothing").textContent = "There are no dead letters.";
  const beyond = [...dead.values()].reduce((sum, count) => sum + count, 0) - messages.length;
  at("beyond").hidden = beyond <= 0;
  at("beyond").textContent = `${number(beyond)} more are not shown: the oldest come first.`;
}

async function see(picture) {
  judge(...(picture.queue_connected ? ["live", "good"] : ["queue away", "bad"]));
  const counted = picture.depths.filter((depth) => depth.dead || depth.dead_total);
  dead = new Map(counted.map((depth) => [depth.address, depth.dead]));
  const now = JSON.stringify(counted.map((depth) => [depth.address, depth.dead, depth.dead_total, depth.purged_total]));
  if (now === listed || !picture.queue_connected) return;
  listed = now;
  try { await list(); } catch (problem) { listed = ""; complain(problem); }
}

for (const template of document.querySelectorAll("template")) nameZone(template.content);
follow(see);
