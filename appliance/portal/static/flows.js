// The flows page: lists what the API says, and sends what the form says. Text only ever enters the page as textContent.
"use strict";

const API = "/portal/api/flows";
const form = at("form");
const STEP_FIELD = { set: "path", remove: "path", filter: "where", map: "to" };

const inWords = (step) => `${step.kind} ${step[STEP_FIELD[step.kind]]}${step.kind === "set" ? ` = ${JSON.stringify(step.value)}` : ""}`;

function row(flow) {
  const line = put("tr");
  line.dataset.flow = flow.name;
  const [edit, remove] = ["Edit", "Delete"].map((word) => {
    const button = put("button", word, "quiet");
    button.ariaLabel = `${word} ${flow.name}`;
    return button;
  });
  edit.onclick = () => load(flow);
  remove.onclick = async () => {
    if (!confirm(`Delete the flow ${flow.name}?`)) return;
    try {
      const { revision } = await ask("DELETE", `${API}/${encodeURIComponent(flow.name)}`);
      await list(revision);
      confirmDone(`The flow ${flow.name} is deleted.`);
    } catch (problem) { complain(problem); }
  };
  const cells = [put("b", flow.name), put("code", `/hooks/${flow.name}`), put("span", flow.steps.map(inWords).join(" → ") || "–"),
    put("span", `${flow.deliver.method} ${flow.deliver.url}`), put("span", String(flow.deliver.retry.attempts))];
  cells.forEach((content, index) => {
    const cell = put("td", undefined, at("flows").tHead.rows[0].cells[index].className);
    cell.append(content);
    line.append(cell);
  });
  const acts = put("td");
  acts.append(put("span", undefined, "acts"));
  acts.firstElementChild.append(edit, remove);
  line.append(acts);
  return line;
}

async function list(revision = 0) {
  // The catalogue follows the cluster by events: wait until it shows the change that was just made.
  for (let tries = 0; tries < 50; tries++) {
    const known = await ask("GET", API);
    if (known.revision >= revision) {
      const body = at("flows").tBodies[0];
      if (known.flows.length) body.replaceChildren(...known.flows.map(row));
      else { const cell = put("td", "There is no flow yet. Add one below.", "soft"); cell.colSpan = 6; const line = put("tr"); line.append(cell); body.replaceChildren(line); }
      return;
    }
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  throw { message: "The change is stored but not yet published.", hint: "Load the page again in a few seconds.", code: "not-yet-published" };
}

function shapeStep(item) {
  const kind = item.querySelector("[name=kind]").value;
  item.querySelector("[name=first]").placeholder = { set: "field.path", remove: "field.path", filter: "total > `0`", map: "{id: id, sum: total}" }[kind];
  item.querySelector("[name=value]").hidden = kind !== "set";
  item.querySelector("[name=value]").required = kind === "set";
}

function addStep(step) {
  const item = at("step").content.firstElementChild.cloneNode(true);
  if (step) {
    item.querySelector("[name=kind]").value = step.kind;
    item.querySelector("[name=first]").value = step[STEP_FIELD[step.kind]];
    if (step.kind === "set") item.querySelector("[name=value]").value = JSON.stringify(step.value);
  }
  item.querySelector("[name=kind]").onchange = () => shapeStep(item);
  item.querySelector("button").onclick = () => {
    item.remove();
    at("no-steps").hidden = at("steps").children.length > 0;
    at("add-step").focus();
  };
  shapeStep(item);
  at("steps").append(item);
  at("no-steps").hidden = true;
  return item;
}

function readSteps() {
  return [...at("steps").children].map((item, index) => {
    const kind = item.querySelector("[name=kind]").value;
    const step = { kind, [STEP_FIELD[kind]]: item.querySelector("[name=first]").value };
    if (kind === "set") {
      const text = item.querySelector("[name=value]").value;
      try { step.value = JSON.parse(text); } catch {
        throw { code: "invalid-flow", message: `The value of step ${index + 1} is not JSON.`, hint: 'Write text in double quotes: "open". Numbers, true, false and null stand as they are.' };
      }
    }
    return step;
  });
}

function load(flow) {
  form.elements.namedItem("name").value = flow.name;
  form.max_bytes.value = flow.trigger.max_bytes;
  form.elements.namedItem("method").value = flow.deliver.method;
  form.url.value = flow.deliver.url;
  form.timeout_s.value = flow.deliver.timeout_s;
  for (const field of ["attempts", "first_s", "max_s"]) form[field].value = flow.deliver.retry[field];
  at("steps").replaceChildren();
  at("no-steps").hidden = false;
  flow.steps.forEach(addStep);
  at("hook").textContent = flow.name;
  form.scrollIntoView({ behavior: "smooth" });
  form.elements.namedItem("name").focus({ preventScroll: true });
}

form.elements.namedItem("name").oninput = (event) => { at("hook").textContent = event.target.value || "orders"; };
at("add-step").onclick = () => addStep().querySelector("[name=kind]").focus();
form.onsubmit = async (event) => {
  event.preventDefault();
  const field = (name) => form.elements.namedItem(name).value;
  const save = form.querySelector("button:not([type])");
  save.disabled = true;
  try {
    const name = field("name");
    const flow = { name, trigger: { kind: "webhook", max_bytes: Number(field("max_bytes")) }, steps: readSteps(),
      deliver: { kind: "http", url: field("url"), method: field("method"), timeout_s: Number(field("timeout_s")),
        retry: { attempts: Number(field("attempts")), first_s: Number(field("first_s")), max_s: Number(field("max_s")) } } };
    const { revision } = await ask("PUT", `${API}/${encodeURIComponent(name)}`, flow);
    await list(revision);
    confirmDone(`The flow ${name} is saved as revision ${revision}.`);
  } catch (problem) { complain(problem); } finally { save.disabled = false; }
};

list().catch(complain);
