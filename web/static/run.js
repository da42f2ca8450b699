// Streams a run into its columns: tokens while they come, the ledger's text when a completion has ended.
const run = document.querySelector("[data-run]");
const texts = JSON.parse(document.getElementById("texts").textContent);
const cells = new Map([...document.querySelectorAll("[data-cell]")].map((cell) => [cell.dataset.cell, cell]));
const attempts = new Map();

const cellOf = (event) => cells.get(`${event.model}/${event.idx}/${event.sample}`);
const fill = (text, values) => text.replace(/\{(\w+)\}/g, (_, name) => values[name]);
const seconds = (value) => (value === null ? "–" : `${value.toFixed(3)} s`);

function showDelta(event) {
  const cell = cellOf(event);
  if (!cell || cell.hasAttribute("data-ended")) return;
  const answer = cell.querySelector(".answer");
  if (attempts.get(cell) !== event.attempt) answer.textContent = "";
  attempts.set(cell, event.attempt);
  answer.classList.add("streaming");
  answer.append(event.text);
  cell.querySelector(".status").textContent = texts.running;
}

function showCompletion(row) {
  const cell = cellOf(row);
  if (!cell) return;
  cell.setAttribute("data-ended", "");
  const answer = cell.querySelector(".answer");
  answer.classList.remove("streaming");
  answer.textContent = row.text;
  const status = cell.querySelector(".status");
  status.textContent = texts.finish[row.finish_reason];
  status.classList.toggle("bad", row.error !== null);
  if (row.error) answer.append(`${row.text ? "\n" : ""}${row.error}`);
  const rate = row.phases.characters_per_second;
  cell.querySelector(".timing").textContent = fill(texts.timing, {
    ttft: seconds(row.phases.ttft), service: seconds(row.phases.service), rate: rate === null ? "–" : rate.toFixed(1),
  });
}

function showState(state) {
  const counts = state.counts;
  const progress = document.querySelector("progress");
  progress.max = counts.total;
  progress.value = counts.total - counts.pending;
  document.getElementById("progress").textContent = fill(texts.progress, { ...counts, ended: counts.total - counts.pending });
  document.getElementById("state").textContent = texts.state[state.state];
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
    setTimeout(() => location.reload(), 2500);
  });
  source.onerror = () => {
    if (source.readyState === EventSource.CLOSED) setTimeout(() => location.reload(), 3000);
  };
}

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

if (run.hasAttribute("data-live")) follow();
