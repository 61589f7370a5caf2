// The banner of every page: a change on trial, how long it has, Keep and Undo, and that it was undone. Text only ever enters
// the page as textContent.
"use strict";

{
  const NAMED = 3;
  const QUIET_MS = 6000;
  const LEEWAY_MS = 1500;
  const CLOSED = "trial.closed";
  const choices = [...at("trial").querySelectorAll("[data-act]")];

  let pending = null;  // the change on trial
  let over = 0;        // when its time is up, on this page's own clock
  let seen = "";       // the last one that was on trial before somebody's eyes
  let heard = 0;       // when the box was heard last

  const hide = (hidden, ...ids) => { for (const id of ids) at(id).hidden = hidden; };
  const minutes = (seconds) => `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, "0")}`;

  function named(touched) {
    const more = touched.length - NAMED;
    return `${touched.slice(0, NAMED).join("; ")}${more > 0 ? `; and ${more} more` : ""}.`;
  }

  function say(sentence, further, whole = "") {
    at("trial-said").textContent = sentence;
    at("trial-more").textContent = further;
    at("trial-more").title = whole;
  }

  function tick() {
    if (!pending) return;
    const left = Math.max(0, Math.ceil((over - performance.now()) / 1000));
    const [time, label] = at("trial-left").children;
    time.textContent = minutes(left);
    label.textContent = left ? "until it is undone" : "it is being undone";
    hide(!left, "trial-choices");
    hide(performance.now() - heard < QUIET_MS, "trial-lost");
  }

  function showPending(age) {
    const until = performance.now() + (pending.seconds_left - age) * 1000;
    if (seen !== pending.digest || Math.abs(until - over) > LEEWAY_MS) over = until;
    if (seen !== pending.digest) for (const button of choices) button.disabled = false;
    seen = pending.digest;
    sessionStorage.removeItem(CLOSED);
    say("A change of the configuration is on trial.", `It touches a way into this machine: ${named(pending.touched)}`,
      pending.touched.join("\n"));
    hide(false, "trial", "trial-left");
    hide(true, "trial-close");
    tick();
  }

  // Who asked for its undoing knows, and who saw it is told; all others hear only of what came by itself.
  function showEnded({ ended, last_error: problem }) {
    for (const button of choices) button.disabled = false;
    const news = ended && !ended.kept && (seen === ended.digest || problem && problem.code === "change-undone");
    hide(!news || sessionStorage.getItem(CLOSED) === ended.digest, "trial");
    hide(true, "trial-left", "trial-choices", "trial-lost", "trial-refused");
    hide(false, "trial-close");
    if (news) say(ended.said, "The configuration before it holds again.");
    at("trial-close").onclick = () => {
      sessionStorage.setItem(CLOSED, ended.digest);
      hide(true, "trial");
    };
  }

  async function decide(act) {
    for (const button of choices) button.disabled = true;
    hide(true, "trial-refused");
    try { await ask("POST", `/api/trial/${act}`, { digest: pending.digest }); } catch (problem) {
      const said = refusal(problem);
      at("trial-refused").replaceChildren(`${said.message} `, ...quoted(said.hint || ""), " ", put("span", said.code, "code"));
      hide(false, "trial-refused");
      for (const button of choices) button.disabled = false;
    }
  }

  for (const button of choices) button.onclick = () => decide(button.dataset.act);
  setInterval(tick, 250);
  follow(({ at: now, machine }) => {
    heard = performance.now();
    if (!machine) return;
    pending = machine.pending;
    at("trial").classList.toggle("ended", !pending);
    if (pending) showPending(Math.max(0, now - machine.at)); else showEnded(machine);
  }, () => undefined);
}
