// Streams a run into its columns: tokens while they come, the ledger's text when a completion has ended.
const run = document.querySelector("[data-run]");
const texts = JSON.parse(document.getElementById("texts").textContent);
const cells = new Map([...document.querySelectorAll("[data-cell]")].map((cell) => [cell.dataset.cell, cell]));
const attempts = new Map();
const next = document.getElementById("next");

const cellOf = (event) => cells.get(`${event.model}/${event.idx}/${event.sample}`);
const fill = (text, values) => text.replace(/\{(\w+)\}/g, (_, name) => values[name]);
const seconds = (value) => (value === null ? "–" : `${value.toFixed(3)} s`);

function showThinking(cell, text, summary) {
  const thinking = cell.querySelector(".thinking");
  thinking.hidden = !text;
  thinking.querySelector("p").textContent = text;
  thinking.querySelector("summary").textContent = summary;
}

function showDelta(event) {
  const cell = cellOf(event);
  if (!cell || cell.hasAttribute("data-ended")) return;
  const answer = cell.querySelector(".answer");
  const thinking = cell.querySelector(".thinking");
  if (attempts.get(cell) !== event.attempt) {
    answer.textContent = "";
    showThinking(cell, "", texts.thinks);
  }
  attempts.set(cell, event.attempt);
  if (event.thinking) {
    if (thinking.hidden) thinking.open = true;
    thinking.hidden = false;
    thinking.querySelector("p").append(event.thinking);
  }
  if (event.text) {
    if (!answer.textContent) thinking.open = false;
    answer.classList.add("streaming");
    answer.append(event.text);
  }
  cell.querySelector(".status").textContent = texts.running;
}

function showCompletion(row) {
  const cell = cellOf(row);
  if (!cell) return;
  const isNew = !cell.hasAttribute("data-ended");
  cell.setAttribute("data-ended", "");
  const answer = cell.querySelector(".answer");
  answer.classList.remove("streaming");
  answer.textContent = row.text;
  if (isNew) cell.querySelector(".thinking").open = false;
  const thinking = row.thinking ?? "";
  const characters = [...thinking].length;
  showThinking(cell, thinking, fill(texts.thinking, { tokens: row.thinking_tokens ?? "–", characters }));
  const empty = cell.querySelector(".empty");
  empty.hidden = !row.is_empty;
  empty.textContent = row.is_empty ? fill(texts.empty, { reason: texts.finish[row.finish_reason] }) : "";
  const status = cell.querySelector(".status");
  status.textContent = texts.finish[row.finish_reason];
  status.classList.toggle("bad", row.error !== null);
  if (row.error) answer.append(`${row.text ? "\n" : ""}${row.error}`);
  const rate = row.phases.characters_per_second;
  cell.querySelector(".timing").textContent = row.origin !== "computed" ? texts.origin[row.origin] : fill(texts.timing, {
    ttft: seconds(row.phases.ttft), service: seconds(row.phases.service), rate: rate === null ? "–" : rate.toFixed(2),
  });
}

function waitWords(wait) {
  const share = wait.share === null ? "" : ` ${Math.round(100 * wait.share)}%`;
  const stage = wait.stage ? `${texts.stage[wait.stage]}${share}` : "";
  return [texts.wait[wait.reason], stage, wait.detail].filter(Boolean).join(" ");
}

function spanWords(low, high) {
  const [unit, size] = texts.units.find(([, size]) => high >= size) ?? texts.units.at(-1);
  const ends = [low, high].map((end) => (end >= 10 * size ? (end / size).toFixed(0) : `${Number((end / size).toPrecision(1))}`));
  return `${[...new Set(ends)].join("–")} ${unit}`;
}

function showState(state) {
  const left = state.estimate;
  const known = left && left.high !== null;
  document.getElementById("left").textContent = known ? fill(texts.left, { span: spanWords(left.low, left.high) }) : "";
  const counts = state.counts;
  const progress = document.querySelector("progress");
  progress.max = counts.total;
  progress.value = counts.total - counts.pending;
  const ended = counts.total - counts.pending;
  document.getElementById("progress").textContent = fill(texts.progress, { ...counts, ended });
  document.getElementById("state").textContent = texts.state[state.state];
  for (const line of document.querySelectorAll("[data-wait]")) {
    const wait = state.waits[line.dataset.wait];
    line.hidden = !wait;
    if (!wait) continue;
    const reason = line.querySelector("[data-reason]");
    reason.textContent = waitWords(wait);
    reason.className = wait.blocked ? "bad" : "soft";
    line.querySelector("[data-blocked]").hidden = !wait.blocked;
  }
}

function reload(milliseconds) {
  // What somebody is writing is not thrown away.
  setTimeout(() => next?.value || location.reload(), milliseconds);
}

function follow() {
  const source = new EventSource(`/api/runs/${run.dataset.run}/events`);
  const on = (name, show) => source.addEventListener(name, (event) => show(JSON.parse(event.data)));
  on("delta", showDelta);
  on("completion", showCompletion);
  on("state", showState);
  on("end", () => {
    source.close();
    document.getElementById("controls").remove();
    // Scores follow within seconds; then the radar of this run can be drawn.
    reload(2500);
  });
  source.onerror = () => {
    if (source.readyState === EventSource.CLOSED) reload(3000);
  };
}

async function showRendered(details) {
  const place = details.querySelector(".rendered");
  const answer = await fetch(details.dataset.rendered);
  if (!answer.ok) {
    place.textContent = answer.status === 404 ? texts.unknown : (await answer.json()).error.message;
    return;
  }
  const { text, tokens } = await answer.json();
  place.textContent = `${text === null ? "" : `${text}\n\n`}${fill(texts.rendered, { number: tokens.length })}\n${tokens.join(" ")}`;
}

document.addEventListener("toggle", (event) => {
  const details = event.target.closest?.("[data-rendered]");
  if (details?.open && details.querySelector(".rendered a")) showRendered(details);
}, true);

document.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-copy]");
  if (!button) return;
  const answer = button.closest("[data-cell]").querySelector(".answer");
  // Over plain http from another machine there is no clipboard API; the older command works there.
  if (navigator.clipboard) await navigator.clipboard.writeText(answer.textContent);
  else {
    getSelection().selectAllChildren(answer);
    document.execCommand("copy");
  }
  button.textContent = texts.copied;
});

// A page without scripts reloads itself while the run goes on, and would lose what is written there.
document.getElementById("continue")?.removeAttribute("hidden");
if (run.hasAttribute("data-live")) follow();
