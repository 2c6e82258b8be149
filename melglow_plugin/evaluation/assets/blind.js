const data = DATA;
const at = id => document.getElementById(id), player = new Audio();
const random = n => crypto.getRandomValues(new Uint32Array(1))[0] % n;
const order = data.trials.map((_, i) => i);
for (let i = order.length - 1; i > 0; i--) { const j = random(i + 1); [order[i], order[j]] = [order[j], order[i]]; }
// side 1 plays "one" of the file, or "two" where swapped
const answers = order.map(i => ({ trial: i, swapped: random(2), plays: { 1: 0, 2: 0, R: 0 }, chosen: null }));
let now = 0, last = null;

function show() {
  const answer = answers[now];
  at("progress").textContent = `${now + 1} of ${answers.length}`;
  at("message").textContent = "";
  for (const side of [1, 2]) at(`play${side}`).classList.toggle("heard", answer.plays[side] > 0);
}
function play(side) {
  const answer = answers[now], trial = data.trials[answer.trial];
  const name = side == "R" ? "reference" : (side == 1) != answer.swapped ? "one" : "two";
  player.src = "data:audio/flac;base64," + trial[name];
  player.play();
  answer.plays[side] += 1;
  last = side;
  for (const each of [1, 2]) at(`play${each}`).classList.toggle("on", each == side);
  show();
}
function choose(side) {
  const answer = answers[now];
  if (!answer.plays[1] || !answer.plays[2]) { at("message").textContent = "Listen to both first."; return; }
  answer.chosen = side;
  leave();
  if (++now == answers.length) finish(); else show();
}
function leave() {
  player.pause();
  last = null;
  for (const each of [1, 2]) at(`play${each}`).classList.remove("on");
}
function back() { if (now > 0) { leave(); now -= 1; show(); } }

// The interval is that of Clopper and Pearson, 1934, by bisection of the binomial's tail.
function tail(n, k, p) {  // P(X >= k)
  let sum = 0, log = n * Math.log1p(-p);
  for (let i = 0; i <= n; i++) {
    if (i >= k) sum += Math.exp(log);
    log += Math.log((n - i) / (i + 1)) + Math.log(p) - Math.log1p(-p);
  }
  return sum;
}
function solve(wanted, n, k) {  // p of P(X >= k) = wanted
  let low = 0, high = 1;
  for (let i = 0; i < 60; i++) { const p = (low + high) / 2; if (tail(n, k, p) < wanted) low = p; else high = p; }
  return (low + high) / 2;
}
function interval(k, n) { return [k ? solve(0.025, n, k) : 0, k < n ? solve(0.975, n, k + 1) : 1]; }

function finish() {
  leave();
  const key = JSON.parse(new TextDecoder().decode(Uint8Array.from(atob(data.key), c => c.charCodeAt(0))));
  const rows = answers.filter(answer => answer.chosen != null).map(answer => {
    const first = key.first[answer.trial] ^ answer.swapped;
    const names = { 1: key.systems[first], 2: key.systems[1 - first] };
    return { ...answer, clip: data.trials[answer.trial].clip, names, chosen: names[answer.chosen] ?? "no difference" };
  });
  const counts = key.systems.map(name => rows.filter(row => row.chosen == name).length);
  const decided = counts[0] + counts[1], percent = p => `${(100 * p).toFixed(0)} %`;
  const share = k => `, ${percent(k / decided)} (95 % interval ${interval(k, decided).map(percent).join(" to ")})`;
  const lines = key.systems.map((name, i) =>
    `${name}: chosen ${counts[i]} of ${decided} times${decided ? share(counts[i]) : ""}`);
  lines.push(`no difference: ${rows.length - decided} of ${rows.length} answers, not counted above`);
  const line = text => Object.assign(document.createElement("p"), { textContent: text });
  at("summary").replaceChildren(...lines.map(line));
  for (const row of rows) {
    const cells = at("answers").insertRow();
    for (const text of [row.clip, row.names[1], row.names[2], row.chosen]) cells.insertCell().textContent = text;
  }
  const quoted = text => /[",\n]/.test(text) ? `"${String(text).replaceAll('"', '""')}"` : text;
  const csv = [["trial", "clip", "one", "two", "chosen", "plays_one", "plays_two", "plays_recording"],
    ...rows.map((row, i) => [i + 1, row.clip, row.names[1], row.names[2], row.chosen, row.plays[1], row.plays[2],
      row.plays.R])].map(row => row.map(quoted).join(",") + "\n").join("");
  at("csv").href = "data:text/csv;charset=utf-8," + encodeURIComponent(csv);
  at("test").hidden = true;
  at("results").hidden = false;
}

const actions = { play1: () => play(1), play2: () => play(2), reference: () => play("R"), equal: () => choose(0),
  choose1: () => choose(1), choose2: () => choose(2), replay: () => play(last ?? 1), back, finish };
for (const [id, act] of Object.entries(actions)) at(id).onclick = event => { act(); event.currentTarget.blur(); };
const keys = { 1: "play1", 2: "play2", r: "reference", R: "reference", " ": "replay", ArrowLeft: "choose1",
  ArrowRight: "choose2", ArrowDown: "equal", Backspace: "back" };
document.addEventListener("keydown", event => {
  if (event.repeat || event.ctrlKey || event.metaKey || event.altKey || at("test").hidden) return;
  if (event.key in keys) { event.preventDefault(); actions[keys[event.key]](); }
});
show();
