// Numbers, times and moments as text, as the other pages of shadowsim write them.
"use strict";

export const NONE = "–";
const isNone = (x) => x === null || x === undefined || Number.isNaN(x);

export const count = (x) => (isNone(x) ? NONE : Math.round(x).toLocaleString("en-US"));

export function significant(x, n = 3) {
  if (isNone(x)) return NONE;
  const size = Math.abs(x);
  if (size >= 10 ** n) return count(x);
  if (x === 0) return "0";
  const exact = Number(x.toPrecision(12));  // without the rounding of products
  return minus(Number.isInteger(exact) ? String(exact) : fixed(x, n));
}

// At least n digits, never with an exponent: 20.0, 0.0123.
function fixed(x, n) {
  const rounded = Number(x.toPrecision(n));
  return rounded.toFixed(Math.max(n - 1 - Math.floor(Math.log10(Math.abs(rounded))), 0));
}

// A text whose negative numbers have the sign of print; dates and names keep their hyphens.
export const minus = (text) => text.replace(/(?<![\w.)-])-(?=\d)/g, "−");

// A figure without zeros at its end, as round ones on axes are: 0.5, 2.5 %.
export const trimmed = (text) => text.replace(/(\.\d*?)0+(?=\D|$)/, "$1").replace(/\.(?=\D|$)/, "");

export function time(seconds) {
  if (isNone(seconds)) return NONE;
  const size = Math.abs(seconds);
  if (size < 1e-3 && size > 0) return `${significant(seconds * 1e6)} µs`;
  if (size < 1) return `${significant(seconds * 1e3)} ms`;
  return `${significant(seconds)} s`;
}

export const percent = (share, n = 3) => (isNone(share) ? NONE : `${significant(100 * share, n)} %`);

export function duration(seconds) {
  const s = Math.max(Math.round(seconds), 0);
  if (s < 60) return `${s} s`;
  const [unit, of, below, part] = s < 3600 ? [60, "min", 1, "s"] : s < 86400 ? [3600, "h", 60, "min"] : [86400, "d", 3600, "h"];
  const whole = Math.floor(s / unit), rest = Math.floor((s % unit) / below);
  return rest ? `${whole} ${of} ${rest} ${part}` : `${whole} ${of}`;
}

export const moment = (seconds) => new Date(1000 * seconds).toISOString().slice(0, 19).replace("T", " ");

// Numbers with signs, all with as many decimals as the largest needs for three digits.
function signed(...numbers) {
  const most = Math.max(...numbers.map(Math.abs));
  const decimals = most > 0 ? Math.min(Math.max(2 - Math.floor(Math.log10(most)), 0), 6) : 0;
  return numbers.map((x) => minus(`${x > 0 ? "+" : ""}${x.toFixed(decimals)}`));
}

// A change and its interval: of times in per cent of the source's, of shares in points.
export function change(row) {
  const [x, unit] = row.unit === "s" ? [row.ratio, "%"] : [row.difference, "pt"];
  return isNone(x) ? NONE : `${signed(100 * (row.unit === "s" ? x - 1 : x))} ${unit}`;
}

export function interval(row) {
  const isTime = row.unit === "s", unit = isTime ? "%" : "pt";
  const [low, high] = (isTime ? [row.ratio_low, row.ratio_high] : [row.low, row.high])
    .map((x) => (isNone(x) ? null : 100 * (isTime ? x - 1 : x)));
  if (row.outcome === "worse" && high === null && low !== null) return `${signed(low)} ${unit} or more`;
  if (row.outcome === "better" && isNone(row.low) && high !== null) return `${signed(high)} ${unit} or less`;
  return low === null || high === null ? NONE : `${signed(low, high).join(" to ")} ${unit}`;
}

export const value = (x, unit) => (unit === "s" ? time(x) : percent(x));

const METRICS = {mean: "mean latency", error_rate: "errors"};

export function metric(name) {
  if (name in METRICS) return METRICS[name];
  return name.replace(/^ttft_/, "first token ").replace(/^tpot_/, "per token ");
}

const CAUSES = {
  max_in_flight: "too many unanswered", max_body_bytes: "body too long", max_per_s: "too many per second",
  server_lag: "server was late", server_crash: "a process died",
};

export const cause = (name) => (name in CAUSES ? `${CAUSES[name]} (${name})` : name);
