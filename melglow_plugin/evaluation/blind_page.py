"""The fixed parts of the blind test: its elements, style, and script."""

BODY = """<section id="test">
<header><h1>Which sounds better?</h1><p>Two systems made the same sentence. Listen to both, then choose.</p></header>
<p id="progress" role="status"></p>
<div class="pair"><button id="play1"><b>1</b>key 1: play</button><button id="play2"><b>2</b>key 2: play</button></div>
<div class="pair"><button id="choose1">← 1 is better</button><button id="choose2">2 is better →</button></div>
<p class="more"><button id="reference">R: play the recording</button><button id="equal">↓ no difference</button>
<button id="replay">Space: play again</button><button id="back">Backspace: one back</button>
<button id="finish">End the test here</button></p>
<p id="message" class="note" role="alert"></p>
</section>
<section id="results" hidden><header><h1>Results</h1></header><div id="summary"></div>
<p><a id="csv" download="blind.csv">Download the answers as CSV</a></p><div class="scroll"><table><thead><tr>
<th scope="col">Clip</th><th scope="col">1</th><th scope="col">2</th><th scope="col">Chosen</th></tr></thead>
<tbody id="answers"></tbody></table></div></section>"""

STYLE = """
main { max-width: 760px; }
[hidden] { display: none; }
button { font: inherit; color: var(--ink); background: var(--card); border: 1px solid var(--rule); border-radius: 10px;
  padding: .7rem 1rem; cursor: pointer; }
.pair { display: grid; grid-template-columns: 1fr 1fr; gap: 1rem; margin: 1rem 0; }
.pair button b { display: block; font-size: 3rem; line-height: 1.2; }
.pair button.on { border-color: var(--accent); box-shadow: 0 0 0 2px var(--accent); }
.pair button.heard b { color: var(--green); }
.more { display: flex; flex-wrap: wrap; gap: .5rem; }
.more button { font-size: .88rem; padding: .4rem .7rem; }
td { white-space: normal; overflow-wrap: anywhere; text-align: left; }
thead th { text-align: left; }
td:first-child { padding-left: .8rem; }
#message { min-height: 1.5em; color: var(--accent); font-size: 1rem; }
"""

# The interval is that of Clopper and Pearson, 1934, by bisection of the binomial's tail.
SCRIPT = """
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
  const quoted = text => /[",\\n]/.test(text) ? `"${String(text).replaceAll('"', '""')}"` : text;
  const csv = [["trial", "clip", "one", "two", "chosen", "plays_one", "plays_two", "plays_recording"],
    ...rows.map((row, i) => [i + 1, row.clip, row.names[1], row.names[2], row.chosen, row.plays[1], row.plays[2],
      row.plays.R])].map(row => row.map(quoted).join(",") + "\\n").join("");
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
"""
