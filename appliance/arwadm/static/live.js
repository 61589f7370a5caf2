// Fills the live view from /live. Text only ever enters the page as textContent.
"use strict";

const ROLES = {
  ardpx: "access and proxy", arvpn: "VPN", armail: "mail", queue: "message queue", arclst: "cluster state",
  arhav: "health and order", dns: "internal names", portal: "configuration", arwadm: "this console", arsrv: "integration server",
  bridge: "to clusters", gate: "from clusters",
};
const SHADES = { active: "good", activating: "warn", reloading: "warn", deactivating: "warn", failed: "bad", inactive: "bad",
  up: "good", down: "bad", done: "good", ready: "warn", leased: "warn", dead: "bad", expired: "bad" };
const STATES = { ready: "waiting", leased: "in hand" };

const span = (seconds) => seconds < 1 ? `${Math.max(1, Math.round(seconds * 1000))} ms` : seconds < 120 ? `${seconds.toFixed(1)} s`
  : seconds < 7200 ? `${Math.round(seconds / 60)} min` : `${Math.round(seconds / 3600)} h`;
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
    tile.append(title, put("small", ROLES[name] || ROLES[worst.component] || worst.component), put("small", facts.filter(Boolean).join(" · ")));
    return tile;
  });
}

function route(backlog) {
  const said = backlog.route;
  const [lan, cluster] = backlog.to.split("/");
  const name = put("b", `${lan}/`);
  name.append(put("wbr"), cluster);
  const held = [number(backlog.waiting), size(backlog.bytes)];
  if (!said) return [name, "–", dot("unknown", "bad"), ...held, "–", "–", "–", "The bridge does not answer."];
  const state = said.connected ? dot("connected", said.problem ? "warn" : "good") : dot("away", "bad");
  return [name, said.endpoint.replace("tcp://", ""), state, ...held, said.lag_s ? span(said.lag_s) : "–", number(said.sent_total),
    number(said.refused_total), said.problem];
}

function trouble(picture) {
  const machine = picture.machine;
  if (!picture.queue_connected) return ["The queue does not answer.", "Figures below are the last known ones; the console reconnects by itself."];
  if (picture.stale.includes("machine")) return ["The supervisor is silent.", "What this machine does is not known just now."];
  // That a change was undone is what the banner says.
  if (machine && machine.last_error && machine.last_error.code !== "change-undone") return [machine.last_error.message, machine.last_error.hint];
  if (picture.busy) return ["The queue takes no new messages.", "Its disk is full, or it holds as much as it may. Whoever sends one is told to try again later."];
  if (picture.health && !picture.health.ok) return ["The built-in test message does not arrive.", picture.health.detail];
  return null;
}

function verdict(picture) {
  if (!picture.queue_connected) return ["queue away", "bad"];
  if (!picture.machine || picture.stale.includes("machine")) return ["unknown", "warn"];
  return picture.machine.ready ? ["ready", "good"] : ["not ready", "bad"];
}

function show(picture) {
  judge(...verdict(picture));

  const problem = trouble(picture);
  at("trouble").hidden = !problem;
  if (problem) at("trouble").querySelectorAll("b, p + p").forEach((line, index) => line.replaceChildren(...quoted(problem[index])));

  const unknown = picture.stale.includes("queue") && !picture.depths.length;
  const total = (of, field) => of.reduce((sum, each) => sum + each[field], 0);
  const dead = total(picture.depths, "dead");
  at("delivered").textContent = unknown ? "–" : number(total(picture.flows, "delivered"));
  at("waiting").textContent = unknown ? "–" : number(total(picture.flows, "waiting"));
  at("in-hand").textContent = unknown ? "–" : number(total(picture.flows, "in_hand"));
  at("dead").textContent = unknown ? "–" : number(dead);
  at("dead").className = dead ? "bad" : "";
  const health = picture.health;
  at("journey").textContent = health && health.ok && health.journey_s !== undefined && health.journey_s !== null ? span(health.journey_s) : "–";

  const machine = picture.machine;
  if (machine) {
    at("map").replaceChildren(...tiles(machine.units));
    const facts = [`Version ${machine.version}`, `profile ${machine.profile}`,
      machine.uplink.length ? `uplink ${machine.uplink.join(", ")}` : "no uplink address", machine.step];
    at("facts").replaceChildren(put("p", facts.filter(Boolean).join(" · ")), ...machine.notes.map((note) => {
      const line = put("p");
      line.append(...quoted(note));
      return line;
    }));
  }
  fill(at("order"), (picture.order ? picture.order.ranks : []).map((rank) => [rank.name, dot(rank.presence, SHADES[rank.presence]),
    rank.presence === "up" ? span(rank.rtt_s) : "–", number(rank.pending)]), picture.order ? "No server has joined yet." : "The servers have not been heard of yet.");
  const flow = (entry) => { const name = put("b", entry.name); name.dataset.flow = entry.name; return name; };
  const nothing = (sentence) => unknown ? "The queue has not been heard of yet." : sentence;
  fill(at("flows"), picture.flows.map((entry) => [flow(entry), number(entry.delivered), number(entry.waiting), number(entry.in_hand), number(entry.dead)]),
    nothing("No flow has had a message yet."));
  at("routes-sheet").hidden = !picture.routes.length;
  fill(at("routes"), picture.routes.map(route), "");
  fill(at("depths"), picture.depths.map((depth) => [depth.address, number(depth.ready), number(depth.leased), number(depth.done_total),
    number(depth.expired_total), number(depth.dead)]), nothing("The queue is empty."));
  fill(at("recent"), picture.recent.map((message) => [clock(message.changed_at), message.address,
    dot(STATES[message.state] || message.state, SHADES[message.state]), number(message.attempt), identity(message.id), message.state === "done" ? "" : message.reason]),
    nothing("No message has come in yet."));
}

follow(show);
