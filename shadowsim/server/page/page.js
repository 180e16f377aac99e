// The live page: follows the server's events, and sends SageMaker's actions. Whatever comes from requests and containers
// is set as text, never as HTML.
"use strict";

import {Chart} from "./charts.js";
import {NONE, cause, change, count, duration, interval, metric, minus, moment, percent, significant, time, value} from "./words.js";

const ROLES = ["source", "shadow"];
const CHARTS = [
  ["rate", "Requests per second", (x) => significant(x)],
  ["p50", "Latency, p50", time],
  ["p95", "Latency, p95", time],
  ["p99", "Latency, p99", time],
  ["first_p50", "Time to the first token, p50", time],
  ["first_p99", "Time to the first token, p99", time],
  ["errors", "Errors, share of requests", (x) => percent(x)],
  ["in_flight", "In flight, mean", (x) => significant(x)],
  ["utilisation", "Utilisation of the workers", (x) => percent(x)],
];
const FATES = {
  keep: (source, shadow) => ({[source]: "Retain", [shadow]: "Remove"}),
  promote: (source, shadow) => ({[source]: "Remove", [shadow]: "Promote"}),
  both: (source, shadow) => ({[source]: "Retain", [shadow]: "Retain"}),
};
const MOVING = ["Creating", "Starting", "Updating", "Stopping"];
const RATE_OVER_S = 10;

const by = (id) => document.getElementById(id);
const charts = {};
let events = null, state = null, shown = null, counted = [], edited = false, heard = 0;

function say(id, text) {
  const node = by(id);
  if (node.textContent !== text) node.textContent = text;
}

function node(name, text, attributes = {}) {
  const made = document.createElement(name);
  made.textContent = text;
  for (const [key, given] of Object.entries(attributes)) made.setAttribute(key, given);
  return made;
}

// Replaces the children of an element if they differ, so that a reader keeps his place.
function fill(id, children) {
  const held = by(id), next = document.createElement(held.tagName);
  next.append(...children);
  if (sameChildren(held, next)) return;
  const focused = held.contains(document.activeElement) ? document.activeElement.getAttribute("href") : null;
  held.replaceChildren(...next.childNodes);
  if (focused) [...held.querySelectorAll("a")].find((link) => link.getAttribute("href") === focused)?.focus();
}

const sameChildren = (a, b) => a.childNodes.length === b.childNodes.length
  && [...a.childNodes].every((child, i) => child.isEqualNode(b.childNodes[i]));

const chosen = () => {
  try { return decodeURIComponent(location.hash.slice(1)); } catch { return ""; }
};

function listen() {
  events?.close();
  const name = chosen();
  events = new EventSource("/shadowsim/events" + (name ? `?experiment=${encodeURIComponent(name)}` : ""));
  events.addEventListener("state", (event) => {
    heard = Date.now();
    show(JSON.parse(event.data));
  });
  events.addEventListener("error", () => lost());
}

function lost() {
  say("connection", "No connection to the server. What is shown may be old; this page tries again.");
  if (events?.readyState === EventSource.CLOSED) setTimeout(listen, 3000);
}

function show(next) {
  if (next.problem) return say("connection", next.problem);
  say("connection", "");
  state = next;
  const scale = next.scale === 1 ? "" : `, ${significant(next.scale, 6)} times as fast as real time`;
  say("clock", `${moment(next.now_s)} UTC${scale}`);
  say("made", `shadowsim ${next.version}`);
  listExperiments(next);
  const one = next.experiment;
  by("experiment").hidden = !one;
  by("empty").hidden = Boolean(one);
  if (!one) {
    if (next.missing) {
      say("empty-title", "No such experiment");
      say("empty-text", `There is no experiment ${next.missing} on this server; it may have been deleted.`);
    }
    document.title = "shadowsim: rehearsals";
    return;
  }
  document.title = `${one.name}: ${one.status}`;
  const key = `${one.name} ${one.created_s}`;
  if (shown !== key) {
    shown = key;
    counted = [];
    edited = false;
    for (const id of ["done", "refused", "not-stopped"]) say(id, "");
  }
  head(one);
  verdict(one);
  steer(one);
  sides(one);
  timeline(one);
  compared(one);
}

function badgeClass(status) {
  return status === "Running" ? "badge running" : MOVING.includes(status) ? "badge moving" : "badge over";
}

function listExperiments(next) {
  const current = next.experiment?.name;
  fill("list", next.experiments.map((e) => {
    const link = node("a", e.name, {href: `#${encodeURIComponent(e.name)}`});
    if (e.name === current) link.setAttribute("aria-current", "true");
    link.append(node("span", `${e.status}, ${e.percentage} % copied`), node("span", `until ${moment(e.end_s)}`));
    const item = node("li", "");
    item.append(link);
    return item;
  }));
  const left = next.n_experiments - next.experiments.length;
  say("unlisted", left > 0 ? `and ${count(left)} older ones` : "");
}

function head(one) {
  say("name", one.name);
  say("endpoint", one.endpoint);
  say("status", one.status);
  by("status").className = badgeClass(one.status);
  say("description", one.description);
  say("reason", one.reason ? `Reason: ${one.reason}` : "");
  const length = one.end_s - one.start_s, passed = state.now_s - one.start_s;
  const left = one.end_s - state.now_s;
  const when = one.completed_s !== null ? `ended ${moment(one.completed_s)}`
    : passed < 0 ? `starts in ${duration(-passed)}` : left > 0 ? `${duration(left)} left` : "its end has come";
  say("schedule", `${moment(one.start_s)} to ${moment(one.end_s)} UTC (${duration(length)}); ${when}`);
  const until = one.completed_s === null ? passed : one.completed_s - one.start_s;
  by("progress").value = Math.min(Math.max(until / length, 0), 1);
}

function verdict(one) {
  const looks = one.looks, found = looks?.found, over = one.completed_s !== null;
  const style = {worse: "worse", decided: "fine"}[found?.code] ?? (found?.code ? "unsure" : "answer");
  by("verdict").className = `verdict ${style}`;
  const real = (s) => duration(s) + (state.scale === 1 ? "" : " of real time");
  say("early", found?.answer ? minus(`Stop early? ${found.answer}`) : "");
  if (!looks) {
    say("headline", one.is_live ? "The shadow has not served since this server started." : "It has not started: nothing to judge yet.");
    say("look", "");
    return;
  }
  const next = looks.next_in_s === null || over ? "" : looks.next_in_s > 0 ? `The next look comes in ${real(looks.next_in_s)}.` : "A look is being made.";
  say("headline", !looks.look ? "No look has been made yet." : found.problem ? `Nothing could be compared: ${found.problem}` : summary(found.rows));
  const made = looks.look ? `Look ${looks.look} of ${looks.looks}, ${real(looks.at_s)} after the start.` : `${looks.looks} looks are planned.`;
  say("look", `${made} ${next}`);
}

// The metrics that decide, by outcome: what is worse, better, the same and undecided.
function summary(rows) {
  const deciding = rows.filter((r) => ["p50", "p99", "ttft_p99", "error_rate"].includes(r.metric));
  const found = [["worse", "Worse"], ["better", "Better"], ["same", "No difference that matters"], ["not_enough", "Undecided"]];
  return found.flatMap(([outcome, text]) => {
    const names = deciding.filter((r) => r.outcome === outcome)
      .map((r) => metric(r.metric) + (outcome === "not_enough" || interval(r) === NONE ? "" : ` (${interval(r)})`));
    return names.length ? [`${text}: ${names.join(", ")}.`] : [];
  }).join(" ");
}

function steer(one) {
  const can = (action) => one.actions.includes(action);
  for (const id of ["share", "end", "apply"]) by(id).disabled = !can("Update");
  by("start").disabled = !can("Start");
  by("stop").disabled = !can("Stop");
  const able = one.actions.filter((action) => action !== "Delete");
  say("allowed", able.length ? "" : `Status ${one.status} allows no change.`);
  if (!edited) {
    by("share").value = one.percentage;
    by("end").value = moment(one.end_s).replace(" ", "T");
  }
}

function sides(one) {
  const numbers = one.counts, whole = one.timeline?.whole, used = one.timeline?.utilisation;
  counted.push({at: Date.now() / 1000, ...numbers?.requests});
  while (counted.length > 2 && counted.at(-1).at - counted[0].at > RATE_OVER_S) counted.shift();
  const [first, last] = [counted[0], counted.at(-1)];
  const rate = (role) => (numbers && one.completed_s === null && last.at > first.at
    ? `${significant((last[role] - first[role]) / (last.at - first.at))}/s` : NONE);
  const errors = (role) => (numbers ? `${count(numbers.errors[role])} (${percent(numbers.errors[role] / (numbers.requests[role] || NaN))})` : NONE);
  const hasFirst = whole && ROLES.some((role) => whole[role].first_p50 !== null);
  const rows = [
    ["variant", (role) => one.sides[role].variant],
    ["model", (role) => one.sides[role].model],
    ["instances", (role) => one.sides[role].instances.replace(" x ", " × ")],
    ["requests", (role) => count(numbers?.requests[role])],
    [`now (last ${RATE_OVER_S} s)`, rate],
    ...["p50", "p95", "p99"].map((q) => [`${q} so far`, (role) => time(whole?.[role][q])]),
    ...(hasFirst ? ["p50", "p95", "p99"].map((q) => [`first token ${q}`, (role) => time(whole[role][`first_${q}`])]) : []),
    ["errors", errors],
    ["in flight", (role) => count(one.sides[role].in_flight)],
    ["utilisation", (role) => (used ? percent(used[role].at(-1)) : NONE)],
  ];
  fill("sides", rows.map(([name, text]) => {
    const row = node("tr", "");
    row.append(node("th", name, {scope: "row"}), ...ROLES.map((role) => node("td", text(role))));
    return row;
  }));
  const lost = Object.entries(numbers?.lost ?? {}).filter(([, n]) => n > 0);
  const copies = [
    ["configured share", `${one.percentage} %`],
    ["achieved share", percent(numbers?.share)],
    ["copies made", count(numbers?.requests.shadow)],
    ["copies lost", count(lost.reduce((sum, [, n]) => sum + n, 0))],
    ...lost.map(([name, n]) => [`lost: ${cause(name)}`, count(n)]),
  ];
  fill("copies", copies.flatMap(([name, text]) => [node("dt", name), node("dd", text)]));
}

function timeline(one) {
  by("timeline").hidden = !one.timeline;
  if (!one.timeline) return;
  const {at_s, step_s} = one.timeline;
  say("steps", `Each step is ${duration(step_s)} of real time, counted from when this server first saw the shadow serve.`);
  for (const [key, title, format] of CHARTS) {
    const lines = key === "utilisation" ? one.timeline.utilisation : one.timeline;
    const values = Object.fromEntries(ROLES.map((role) => [role, (key === "utilisation" ? lines[role] : lines[role][key]) ?? at_s.map(() => null)]));
    const isKnown = !key.startsWith("first_") && key !== "utilisation" || ROLES.some((role) => values[role].some((x) => x !== null));
    if (isKnown && !charts[key]) charts[key] = new Chart(by("charts"), title, format);
    if (!charts[key]) continue;
    charts[key].figure.hidden = !isKnown;
    const step = key === "utilisation" && lines.at_s.length > 1 ? lines.at_s[1] : key === "utilisation" ? 60 : step_s;
    charts[key].update({at_s: key === "utilisation" ? lines.at_s : at_s, step_s: step, ...values});
  }
  if (by("figures").open) tabulate(one.timeline);
}

function tabulate(drawn) {
  const kinds = CHARTS.filter(([key]) => key !== "utilisation" && drawn.source[key]);
  const head = node("tr", "");
  head.append(node("th", "from", {scope: "col"}), ...kinds.flatMap(([, title]) => ROLES.map((role) => node("th", `${title}, ${role}`, {scope: "col"}))));
  const rows = drawn.at_s.map((at, i) => {
    const row = node("tr", "");
    const cell = (key, role, format) => node("td", drawn[role][key] ? format(drawn[role][key][i]) : NONE);
    row.append(node("th", duration(at), {scope: "row"}), ...kinds.flatMap(([key, , format]) => ROLES.map((role) => cell(key, role, format))));
    return row;
  });
  const made = [node("thead", ""), node("tbody", "")];
  made[0].append(head);
  made[1].append(...rows.slice(-20).reverse());
  fill("figure-table", made);
}

function compared(one) {
  const found = one.looks?.found;
  by("compared").hidden = !found?.rows;
  if (!found?.rows) return;
  fill("rows", found.rows.map((r) => {
    const row = node("tr", "");
    const texts = [value(r.source, r.unit), value(r.shadow, r.unit), change(r), interval(r)];
    row.append(node("th", metric(r.metric), {scope: "row"}), ...texts.map((text) => node("td", text)), node("td", r.verdict, {class: "words"}));
    return row;
  }));
  say("note", found.note);
  fill("reasons", found.reasons.map((text) => node("li", minus(text))));
}

// Sends an action as boto3 does; the browser adds its cookie. Returns what the server refuses, "" for nothing.
async function act(action, body) {
  try {
    const answer = await fetch("/", {
      method: "POST",
      headers: {"Content-Type": "application/x-amz-json-1.1", "X-Amz-Target": `SageMaker.${action}`},
      body: JSON.stringify(body),
    });
    if (answer.ok) return "";
    const refusal = await answer.json().catch(() => ({}));
    return `${refusal.__type ?? answer.status}: ${refusal.message ?? "the server refused"}`;
  } catch {
    return "The server did not answer.";
  }
}

async function report(doing, done) {
  for (const id of ["done", "refused"]) say(id, "");
  const refusal = await doing;
  say(refusal ? "refused" : "done", refusal || done);
  return !refusal;
}

by("update").addEventListener("input", () => { edited = true; });
by("update").addEventListener("submit", async (event) => {
  event.preventDefault();
  const one = state.experiment, body = {Name: one.name};
  const share = by("share").valueAsNumber, end = Date.parse(`${by("end").value}Z`) / 1000;
  if (share !== one.percentage) {
    const variants = [{ShadowModelVariantName: one.sides.shadow.variant, SamplingPercentage: share}];
    body.ShadowModeConfig = {SourceModelVariantName: one.sides.source.variant, ShadowModelVariants: variants};
  }
  if (Math.abs(end - one.end_s) >= 1) body.Schedule = {EndTime: end};
  if (Object.keys(body).length === 1) return say("done", "Nothing was changed.");
  if (await report(act("UpdateInferenceExperiment", body), "The update was accepted.")) edited = false;
});
by("start").addEventListener("click", () => {
  report(act("StartInferenceExperiment", {Name: state.experiment.name}), "The start was accepted.");
});

const fate = () => {
  const {source, shadow} = state.experiment.sides;
  return FATES[by("stop-form").elements.fate.value](source.variant, shadow.variant);
};
const sayFates = () => say("fates", Object.entries(fate()).map(([name, what]) => `${name}: ${what}`).join(", "));

by("stop").addEventListener("click", () => {
  say("not-stopped", "");
  sayFates();
  by("stopping").showModal();
});
by("stop-form").addEventListener("change", sayFates);
by("leave").addEventListener("click", () => by("stopping").close());
by("stop-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const body = {Name: state.experiment.name, ModelVariantActions: fate(), DesiredState: by("stop-form").elements.state.value};
  if (by("why").value) body.Reason = by("why").value;
  const refusal = await act("StopInferenceExperiment", body);
  say("not-stopped", refusal);
  if (refusal) return;
  by("stopping").close();
  say("refused", "");
  say("done", "The stop was accepted.");
});
by("figures").addEventListener("toggle", () => { if (state?.experiment?.timeline) tabulate(state.experiment.timeline); });

addEventListener("hashchange", listen);
// A page that nobody sees costs the server nothing.
document.addEventListener("visibilitychange", () => (document.hidden ? events.close() : listen()));
setInterval(() => { if (!document.hidden && Date.now() - heard > 5000) lost(); }, 2500);
listen();
