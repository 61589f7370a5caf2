// What the pages of console and portal share. Text only ever enters a page as textContent.
"use strict";

const at = (id) => document.getElementById(id);
const number = (value) => value.toLocaleString("en");
const size = (bytes) => bytes < 1024 ? `${bytes} B` : bytes < 1048576 ? `${(bytes / 1024).toFixed(1)} KiB` : `${(bytes / 1048576).toFixed(1)} MiB`;
const stamp = (seconds) => new Date(seconds * 1000).toLocaleString("sv-SE");
const ZONE = new Intl.DateTimeFormat("en-GB", { timeZoneName: "short" }).formatToParts().find((part) => part.type === "timeZoneName").value;

function clock(seconds) {
  const [day, time] = stamp(seconds).split(" ");
  return stamp(Date.now() / 1000).startsWith(day) ? time : `${day} ${time}`;
}

function nameZone(part) {
  for (const head of part.querySelectorAll("th.when")) head.textContent += `, ${ZONE}`;
}

function put(tag, text, className) {
  const element = document.createElement(tag);
  if (text !== undefined) element.textContent = text;
  if (className) element.className = className;
  return element;
}

// Sentences of the box quote what is to be typed in backticks.
const quoted = (text) => text.split("`").map((part, index) => index % 2 ? put("code", part) : part);

const PATIENCE_MS = 30000;

async function ask(method, path, body) {
  const signal = AbortSignal.timeout(PATIENCE_MS);
  const headers = { Accept: "application/json", "X-Xsrftoken": document.body.dataset.xsrf };
  const answer = await fetch(path, { method, headers, signal, body: body && JSON.stringify(body) });
  const value = await answer.json();
  if (answer.status === 401) location.assign("/login");
  if (!answer.ok) throw value;
  return value;
}

// What went wrong, as the box says it, or that it says nothing.
const refusal = (problem) => problem && !(problem instanceof Error) ? problem
  : { message: "The box does not answer.", hint: "Try again in a few seconds.", code: "unavailable" };

function complain(problem) {
  const said = refusal(problem);
  at("done").hidden = true;
  at("problem").hidden = false;
  const lines = at("problem").querySelectorAll("p");
  lines[0].firstElementChild.textContent = said.message;
  lines[1].replaceChildren(...quoted(said.hint || ""));
  lines[2].textContent = said.code;
  at("problem").scrollIntoView({ block: "nearest" });
}

function confirmDone(sentence) {
  at("problem").hidden = true;
  at("done").hidden = false;
  at("done").textContent = sentence;
  at("done").scrollIntoView({ block: "nearest" });
}

function judge(word, shade) {
  at("health").textContent = word;
  at("health").className = `pill ${shade}`;
}

// The live view comes at least every ten seconds. One stream serves all that follow it; one that has gone silent, as when
// the box changed its address, is opened anew.
const SILENT_MS = 25000;
const followers = [];

function follow(show, lost = () => judge("connecting", "warn")) {
  followers.push({ show, lost });
}

function listen() {
  const live = new EventSource("/live");
  const again = (delay) => { live.close(); clearTimeout(silence); setTimeout(listen, delay); };
  const silent = () => { for (const each of followers) each.lost(); again(0); };
  let silence = setTimeout(silent, SILENT_MS);
  live.onmessage = (event) => {
    clearTimeout(silence);
    silence = setTimeout(silent, SILENT_MS);
    const picture = JSON.parse(event.data);
    for (const each of followers) each.show(picture);
  };
  live.addEventListener("ended", () => location.assign("/login"));
  live.onerror = () => {
    for (const each of followers) each.lost();
    if (live.readyState === EventSource.CLOSED) again(2000);
  };
}

addEventListener("DOMContentLoaded", listen);
nameZone(document);
