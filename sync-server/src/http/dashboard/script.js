// The dashboard: reads the server's feed and shows it. Whatever comes from the server is put in as text, never as markup.

const SAMPLES_MAX = 120;
const EVENTS_MAX = 300;
const RETRY_MS = 2000;
const TOKEN = "sync-admin-token";
const FEED = "admin/api/v1/live";

const byId = (id) => document.getElementById(id);
const board = byId("board");

const count = new Intl.NumberFormat("en", { maximumFractionDigits: 1 });
const clock = new Intl.DateTimeFormat("en", { timeStyle: "medium", hourCycle: "h23" });
const compact = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });

function bytes(n) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  while (n >= 1024 && unit < units.length - 1) {
    n /= 1024;
    unit += 1;
  }
  return `${count.format(n)} ${units[unit]}`;
}

const perSecond = (show) => (n) => `${show(n)}/s`;
const number = (n) => (n < 100_000 ? count.format(n) : compact.format(n));

// What is shown of the server as a whole, taken from its statistics and what they were a second ago.
const TILES = [
  { id: "sessions", label: "Sessions", show: number, value: ({ stats }) => stats.n_sessions },
  { id: "users", label: "Users", show: number, value: ({ stats }) => stats.n_users },
  { id: "documents", label: "Live documents", show: number, value: ({ stats }) => stats.n_documents },
  { id: "present", label: "Present", show: number, value: ({ stats }) => stats.n_present },
  { id: "changes", label: "Changes", show: perSecond(number), value: rate((stats) => stats.changes_total) },
  { id: "received", label: "Received", show: perSecond(bytes), value: rate((stats) => stats.bytes_in_total) },
  { id: "sent", label: "Sent", show: perSecond(bytes), value: rate((stats) => stats.bytes_out_total) },
  { id: "commit", label: "Commit, 99 of 100", show: (ms) => `${count.format(ms)} ms`, value: ({ stats }) => stats.commits.p99_ms },
  { id: "lagging", label: "Lagging sessions", show: number, value: ({ stats }) => stats.n_lagging, alarm: true },
  { id: "relayed", label: "Fallen back to relay", show: number, value: ({ stats }) => stats.n_relayed, alarm: true },
  { id: "errors", label: "Errors told", show: number, value: ({ stats }) => sum(stats.errors) },
];

const sum = (numbers) => Object.values(numbers).reduce((total, n) => total + n, 0);

function rate(total) {
  return ({ stats }, before) => {
    const seconds = before ? (stats.at_ms - before.stats.at_ms) / 1000 : 0;
    return seconds > 0 ? Math.max(0, (total(stats) - total(before.stats)) / seconds) : 0;
  };
}

const SVG = "http://www.w3.org/2000/svg";

function element(name, text, attributes = {}) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

for (const tile of TILES) {
  const list = element("dl", undefined, { class: "tile", id: `tile-${tile.id}` });
  tile.number = element("dd", "0");
  const chart = document.createElementNS(SVG, "svg");
  chart.setAttribute("viewBox", `0 0 ${SAMPLES_MAX - 1} 20`);
  chart.setAttribute("preserveAspectRatio", "none");
  chart.setAttribute("aria-hidden", "true");
  tile.line = document.createElementNS(SVG, "path");
  chart.append(tile.line);
  list.append(element("dt", tile.label), tile.number, chart);
  tile.list = list;
  tile.samples = [];
  byId("tiles").append(list);
}

function showTiles(state, before) {
  for (const tile of TILES) {
    const value = tile.value(state, before);
    tile.number.textContent = tile.show(value);
    tile.list.toggleAttribute("data-alarm", Boolean(tile.alarm) && value > 0);
    tile.samples.push(value);
    if (tile.samples.length > SAMPLES_MAX) tile.samples.shift();
    const top = Math.max(1, ...tile.samples);
    const start = SAMPLES_MAX - tile.samples.length;
    const points = tile.samples.map((sample, i) => `${start + i} ${(19 - (sample / top) * 17).toFixed(1)}`);
    tile.line.setAttribute("d", `M${points.join("L")}`);
  }
}

// The document whose sessions are shown.
let inspected = null;

function row(cells) {
  const made = element("tr");
  for (const { label, value, kind, head } of cells) {
    const cell = element(head ? "th" : "td", undefined, head ? { scope: "row" } : { "data-label": label });
    if (kind) cell.className = kind;
    cell.append(value);
    made.append(cell);
  }
  return made;
}

function documentRow(one) {
  const name = element("button", one.document, { type: "button" });
  name.addEventListener("click", () => {
    inspected = inspected === one.document ? null : one.document;
    reading.abort();
  });
  const head = document.createDocumentFragment();
  head.append(name);
  if (one.relayed !== null) head.append(element("span", "relayed", { class: "mark", title: one.relayed }));
  if (one.is_folding) head.append(element("span", "folding", { class: "mark calm" }));
  const made = row([
    { value: head, head: true },
    { label: "Engine", value: one.engine ?? one.phase },
    { label: "Sessions", value: number(one.n_sessions), kind: "number" },
    { label: "Present", value: number(one.n_present), kind: "number" },
    { label: "Head", value: number(one.head), kind: "number" },
    { label: "Changes/s", value: number(one.changes_per_second), kind: "number" },
    { label: "Sent", value: bytes(one.bytes_out_total), kind: "number" },
    { label: "Log", value: bytes(one.log_bytes), kind: "number" },
    { label: "Snapshot", value: one.snapshot_bytes === null ? "" : bytes(one.snapshot_bytes), kind: "number" },
    { label: "Lagging", value: number(one.n_lagging), kind: one.n_lagging > 0 ? "number alarm" : "number" },
  ]);
  made.dataset.document = one.document;
  return made;
}

function sessionRow(one) {
  return row([
    { value: one.session, head: true },
    { label: "User", value: one.user },
    { label: "From", value: one.peer },
    { label: "May", value: one.access },
    { label: "Does", value: one.state },
    { label: "Sent through", value: number(one.sent), kind: "number" },
    { label: "Behind", value: number(one.lag), kind: one.is_lagging ? "number alarm" : "number" },
    { label: "Sent", value: bytes(one.bytes_out), kind: "number" },
    { label: "Received", value: bytes(one.bytes_in), kind: "number" },
  ]);
}

// Rows are put in place of the old ones only where something changed, so that what is focused or selected stays.
const drawn = new WeakMap();
function fill(parent, items, key, draw) {
  const old = new Map([...parent.children].map((child) => [child.dataset.key, child]));
  const fresh = items.map((item) => {
    const id = key(item);
    const text = JSON.stringify(item);
    const before = old.get(id);
    if (before && drawn.get(before) === text) return before;
    const made = draw(item);
    made.dataset.key = id;
    drawn.set(made, text);
    return made;
  });
  const focused = document.activeElement?.closest?.("[data-key]")?.dataset.key;
  if (fresh.length !== parent.children.length || fresh.some((child, i) => child !== parent.children[i])) {
    parent.replaceChildren(...fresh);
    if (focused) fresh.find((child) => child.dataset.key === focused)?.querySelector("button")?.focus();
  }
}

const events = [];
let numbered = 0;

function showEvents() {
  const list = byId("events");
  const onlyErrors = byId("only-errors").checked;
  const shown = events.filter((event) => !onlyErrors || event.severity !== "info");
  fill(list, shown, (event) => String(event.number), (event) => {
    const made = element("li", undefined, { "data-severity": event.severity });
    const at = new Date(event.at_ms);
    made.append(element("time", clock.format(at), { datetime: at.toISOString() }), element("span", event.text));
    return made;
  });
}

let latest = null;

function show(state) {
  showTiles(state, latest);
  latest = state;
  byId("since").textContent = `${state.software}, up for ${duration(state.stats.uptime_ms / 1000)}`;
  const hidden = state.stats.n_documents - state.documents.length;
  byId("documents-note").textContent = hidden > 0 ? `${number(hidden)} quieter ones are not shown.` : "";
  fill(byId("documents").tBodies[0], state.documents, (one) => one.document, documentRow);
  const sessions = state.inspected?.sessions ?? [];
  byId("inspected").hidden = !state.inspected;
  byId("inspected-title").textContent = state.inspected ? `Sessions of ${state.inspected.stats.document}` : "";
  fill(byId("sessions").tBodies[0], sessions, (one) => one.session, sessionRow);
  fill(byId("users"), state.users, (one) => one.user, (one) => element("li", `${one.user} (${number(one.n_sessions)})`));
}

function duration(seconds) {
  const [d, h, m] = [Math.floor(seconds / 86400), Math.floor(seconds / 3600) % 24, Math.floor(seconds / 60) % 60];
  if (d > 0) return `${d} d ${h} h`;
  if (h > 0) return `${h} h ${m} min`;
  return m > 0 ? `${m} min` : `${Math.floor(seconds)} s`;
}

function handle(kind, data) {
  if (kind === "state") {
    show(data);
  } else if (data.severity) {
    events.unshift({ ...data, number: (numbered += 1), at_ms: Date.now() });
    events.length = Math.min(events.length, EVENTS_MAX);
    showEvents();
  }
}

function connection(state, text) {
  byId("state").dataset.state = state;
  byId("state").textContent = text;
}

function askForToken(why) {
  connection("lost", "not signed in");
  byId("denied").textContent = why;
  byId("login").hidden = false;
  board.hidden = true;
  byId("token").focus();
}

// What ends the reading of the feed, to begin it anew with another document.
let reading = new AbortController();

// `EventSource` can send no header, so the stream is read by hand. False: not without another token.
async function read() {
  const token = sessionStorage.getItem(TOKEN);
  const address = inspected === null ? FEED : `${FEED}?document=${encodeURIComponent(inspected)}`;
  reading = new AbortController();
  const response = await fetch(address, {
    headers: token ? { authorization: `Bearer ${token}` } : {},
    cache: "no-store",
    signal: reading.signal,
  });
  if (response.status === 401 || response.status === 403) {
    sessionStorage.removeItem(TOKEN);
    askForToken(token ? "This token may not administer the server." : "");
    return false;
  }
  if (response.status === 404) throw new Error("the admin API is not served here");
  if (!response.ok) throw new Error(`the server answered ${response.status}`);
  byId("login").hidden = true;
  board.hidden = false;
  connection("live", "live");
  let text = "";
  const decoder = new TextDecoder();
  for (const reader = response.body.getReader(); ; ) {
    const { done, value } = await reader.read();
    if (done) return true;
    text += decoder.decode(value, { stream: true });
    const messages = text.split("\n\n");
    text = messages.pop();
    for (const message of messages) {
      const lines = message.split("\n");
      const field = (name) =>
        lines.filter((line) => line.startsWith(`${name}: `)).map((line) => line.slice(name.length + 2)).join("\n");
      if (field("data")) handle(field("event"), JSON.parse(field("data")));
    }
  }
}

// A feed that ends is asked for again.
async function stay() {
  for (;;) {
    try {
      if (!(await read())) return;
      connection("lost", "the server went away");
    } catch (error) {
      if (error.name === "AbortError") continue;
      connection("lost", `no connection: ${error.message}`);
    }
    await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
  }
}

byId("only-errors").addEventListener("change", showEvents);
byId("login").addEventListener("submit", (submitted) => {
  submitted.preventDefault();
  sessionStorage.setItem(TOKEN, byId("token").value);
  byId("token").value = "";
  connection("connecting", "connecting");
  stay();
});

stay();
