// Fills the live view from /live. Text only ever enters the page as textContent.
"use strict";

const ROLES = {
  ardpx: "access and proxy", arvpn: "VPN", armail: "mail", queue: "message queue", arclst: "cluster state",
  arhav: "health and order", dns: "internal names", portal: "configuration", arwadm: "this console", arsrv: "integration server",
};
const SHADES = { active: "good", activating: "warn", reloading: "warn", deactivating: "warn", failed: "bad", inactive: "bad",
  up: "good", down: "bad", done: "good", ready: "warn", leased: "warn", dead: "bad", expired: "bad" };
const STATES = { ready: "waiting", leased: "in hand" };

const at = (id) => document.getElementById(id);
const number = (value) => value.toLocaleString("en");
const clock = (seconds) => new Date(seconds * 1000).toLocaleTimeString("en-GB");
const span = (seconds) => seconds < 1 ? `${Math.max(1, Math.round(seconds * 1000))} ms` : `${seconds.toFixed(1)} s`;
const short = (address) => address.split("/").pop();

function put(tag, text, className) {
  const element = document.createElement(tag);
  if (text !== undefined) element.textContent = text;
  if (className) element.className = className;
  return element;
}

const dot = (word, shade) => put("span", word, `dot ${shade || ""}`);

function identity(id) {
  const shown = put("code", id.slice(0, 8));
  shown.title = id;
  return shown;
}

function fill(table, rows, nothing) {
  const body = table.tBodies[0];
  const columns = table.tHead.rows[0].cells.length;
  if (!rows.length) {
    const cell = put("td", nothing, "soft");
    cell.colSpan = columns;
    const row = put("tr");
    row.append(cell);
    body.replaceChildren(row);
    return;
  }
  body.replaceChildren(...rows.map((cells) => {
    const row = put("tr");
    cells.forEach((value, index) => {
      const cell = put("td", undefined, table.tHead.rows[0].cells[index].className);
      if (value instanceof Node) cell.append(value); else cell.textContent = value;
      row.append(cell);
    });
    return row;
  }));
}

function tiles(units) {
  const instances = new Map();
  for (const unit of units) instances.set(unit.instance, [...(instances.get(unit.instance) || []), unit]);
  return [...instances].map(([name, of]) => {
    const worst = of.find((unit) => SHADES[unit.state] !== "good") || of[0];
    const shade = SHADES[worst.state] || "";
    const tile = put("div", undefined, `tile ${shade === "good" ? "" : shade}`);
    tile.dataset.instance = name;
    const title = put("b");
    title.append(dot(name.toUpperCase(), shade));
    const restarts = of.reduce((sum, unit) => sum + unit.restarts, 0);
    const memory = of.reduce((sum, unit) => sum + unit.memory_mb, 0);
    const facts = [worst.state, memory ? `${Math.round(memory)} MB` : "", restarts ? `${restarts}× restarted` : ""];
    tile.append(title, put("small", ROLES[worst.component] || worst.component), put("small", facts.filter(Boolean).join(" · ")));
    return tile;
  });
}

function trouble(picture) {
  const machine = picture.machine;
  if (!picture.queue_connected) return ["The queue does not answer.", "Figures below are the last known ones; the console reconnects by itself."];
  if (picture.stale.includes("machine")) return ["The supervisor is silent.", "What this machine does is not known just now."];
  if (machine && machine.last_error) return [machine.last_error.message, machine.last_error.hint];
  if (picture.health && !picture.health.ok) return ["The built-in journey does not arrive.", picture.health.detail];
  return null;
}

function verdict(picture) {
  if (!picture.queue_connected) return ["queue away", "bad"];
  if (!picture.machine || picture.stale.includes("machine")) return ["unknown", "warn"];
  return picture.machine.ready ? ["ready", "good"] : ["not ready", "bad"];
}

function show(picture) {
  const [word, shade] = verdict(picture);
  at("health").textContent = word;
  at("health").className = `pill ${shade}`;

  const problem = trouble(picture);
  at("trouble").hidden = !problem;
  if (problem) [...at("trouble").querySelectorAll("p")].forEach((line, index) => { (line.firstElementChild || line).textContent = problem[index]; });

  const total = (field) => picture.flows.reduce((sum, flow) => sum + flow[field], 0);
  at("delivered").textContent = number(total("delivered"));
  at("waiting").textContent = number(total("waiting"));
  at("in-hand").textContent = number(total("in_hand"));
  at("dead").textContent = number(total("dead"));
  at("dead").className = total("dead") ? "bad" : "";
  const health = picture.health;
  at("journey").textContent = health && health.ok && health.journey_s !== undefined && health.journey_s !== null ? span(health.journey_s) : "–";

  const machine = picture.machine;
  if (machine) {
    at("map").replaceChildren(...tiles(machine.units));
    at("facts").textContent = [`Version ${machine.version}`, `profile ${machine.profile}`,
      machine.uplink.length ? `uplink ${machine.uplink.join(", ")}` : "no uplink address", machine.step, ...machine.notes].filter(Boolean).join(" · ");
  }
  fill(at("order"), (picture.order ? picture.order.ranks : []).map((rank) => [rank.name, dot(rank.presence, SHADES[rank.presence]),
    rank.presence === "up" ? span(rank.rtt_s) : "–", number(rank.pending)]), "No server has joined yet.");
  const flow = (entry) => { const name = put("b", entry.name); name.dataset.flow = entry.name; return name; };
  fill(at("flows"), picture.flows.map((entry) => [flow(entry), number(entry.delivered), number(entry.waiting), number(entry.in_hand), number(entry.dead)]),
    "No message has come in yet.");
  fill(at("depths"), picture.depths.map((depth) => [short(depth.address), number(depth.ready), number(depth.leased), number(depth.done_total),
    number(depth.expired_total), number(depth.dead)]), "The queue is empty.");
  fill(at("recent"), picture.recent.map((message) => [clock(message.changed_at), short(message.address),
    dot(STATES[message.state] || message.state, SHADES[message.state]), number(message.attempt), identity(message.id), message.reason || ""]),
    "No message has come in yet.");
}

function follow() {
  const live = new EventSource("/live");
  live.onmessage = (event) => show(JSON.parse(event.data));
  live.addEventListener("ended", () => location.assign("/login"));
  live.onerror = () => {
    at("health").textContent = "connecting";
    at("health").className = "pill warn";
    if (live.readyState === EventSource.CLOSED) setTimeout(follow, 2000);
  };
}

follow();
