"use strict";
// Everything that came from a model, a data set or a config is put into the page by textContent; nothing here parses markup.
(() => {
  const root = document.documentElement;
  const byId = (id) => document.getElementById(id);
  const facts = JSON.parse(byId("facts").textContent);
  root.classList.add("js");

  const T = (key, values = {}) =>
    facts.words[root.lang][key].replace(/\{(\w+)\}/g, (_, name) => values[name]);

  function el(tag, properties = {}, ...children) {
    const node = document.createElement(tag);
    for (const [name, value] of Object.entries(properties)) {
      if (name in node && name !== "list") node[name] = value;
      else node.setAttribute(name, value);
    }
    node.append(...children.filter((child) => child !== null && child !== undefined));
    return node;
  }

  function swatch(colour) {
    const space = "http://www.w3.org/2000/svg";
    const svg = document.createElementNS(space, "svg");
    const path = document.createElementNS(space, "path");
    for (const [name, value] of [["width", 14], ["height", 14], ["viewBox", "-7 -7 14 14"], ["class", "swatch"], ["aria-hidden", "true"]]) svg.setAttribute(name, value);
    path.setAttribute("class", `dot c${colour}`);
    path.setAttribute("d", facts.shapes[(colour - 1) % facts.shapes.length]);
    svg.append(path);
    return svg;
  }

  // --- language, theme, tips, navigation ---

  function speak(lang) {
    root.lang = lang;
    for (const node of document.querySelectorAll("[data-label]")) node.setAttribute("aria-label", T(node.dataset.label));
    for (const node of document.querySelectorAll("[data-placeholder]")) node.placeholder = T(node.dataset.placeholder);
  }

  byId("switch-theme").addEventListener("click", () => {
    const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
  });

  const tip = byId("tip");
  document.addEventListener("pointerover", (event) => {
    const text = event.target.closest?.("[data-tip]")?.getAttribute("data-tip");
    tip.hidden = !text;
    if (!text) return;
    tip.textContent = text;
    const box = event.target.getBoundingClientRect();
    const left = Math.min(Math.max(8, box.left + box.width / 2 - tip.offsetWidth / 2), innerWidth - tip.offsetWidth - 8);
    tip.style.left = `${left}px`;
    tip.style.top = `${box.top > tip.offsetHeight + 12 ? box.top - tip.offsetHeight - 8 : box.bottom + 8}px`;
  });
  document.addEventListener("scroll", () => { tip.hidden = true; }, { passive: true, capture: true });

  const links = new Map([...document.querySelectorAll("nav a")].map((link) => [link.hash.slice(1), link]));
  const watcher = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      if (!entry.isIntersecting) continue;
      for (const link of links.values()) link.removeAttribute("aria-current");
      links.get(entry.target.id)?.setAttribute("aria-current", "true");
    }
  }, { rootMargin: "-25% 0px -65% 0px" });
  for (const id of links.keys()) watcher.observe(byId(id));

  // --- tables that sort ---

  function sortBy(header, column) {
    const body = header.closest("table").tBodies[0];
    const number = header.dataset.kind === "number";
    const down = header.getAttribute("aria-sort") ? header.getAttribute("aria-sort") === "ascending" : number;
    const keyed = [...body.rows].map((row) => {
      const cell = row.cells[column];
      return [cell.dataset.value ?? cell.textContent.trim(), row];
    });
    const compare = number ? (a, b) => a - b : (a, b) => a.localeCompare(b, undefined, { numeric: true });
    keyed.sort(([a], [b]) => (a === "") - (b === "") || (a === "" ? 0 : down ? compare(b, a) : compare(a, b)));
    for (const other of header.parentNode.cells) other.removeAttribute("aria-sort");
    header.setAttribute("aria-sort", down ? "descending" : "ascending");
    body.append(...keyed.map(([, row]) => row));
  }

  for (const header of document.querySelectorAll("th[data-kind]")) {
    const holder = header.querySelector(".sortable");
    const button = el("button", { type: "button" }, ...holder.childNodes);
    button.addEventListener("click", () => sortBy(header, header.cellIndex));
    holder.append(button);
  }

  // --- samples: the index first, the rest of a sample when it is opened ---

  const ANSWERED = new Set(["ok", "truncated"]);
  const MARKS = { right: "✓", wrong: "✕", partial: "◐", unanswered: "–", unscored: "·" };
  const ROW = 64;
  const MOST_MARKS = 14;
  const LONG_WHY = 400;
  const list = byId("list");
  const detail = byId("detail");
  const viewer = byId("viewer");
  const blocks = new Map();
  let index = null;
  const flips = new Map();   // kind of flip -> the samples of that kind
  let words = [];      // what the search looks through, one lower-case text per sample
  let shown = [];      // numbers of the samples that pass the filters
  let chosen = -1;     // number of the sample that is open
  let state = {};      // what the address says

  function unpack(number) {
    if (!blocks.has(number)) {
      const bytes = Uint8Array.from(atob(byId(`block-${number}`).textContent), (letter) => letter.charCodeAt(0));
      blocks.set(number, new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).json());
    }
    return blocks.get(number);
  }

  const span = (sample) => [index.samples.start[sample], index.samples.start[sample + 1]];
  const scoresOf = (sample) => index.records.scores[state.by || facts.scorers[index.sets[index.samples.set[sample]]]] ?? [];

  /** What the trials of one cell come to: right, wrong, partial, unanswered or unscored. */
  function verdict(scores, answered) {
    if (!scores.length) return answered ? "unscored" : "unanswered";
    const mean = scores.reduce((a, b) => a + b, 0) / scores.length;
    return mean >= 1 ? "right" : mean <= 0 ? "wrong" : "partial";
  }

  function verdicts(sample) {
    const scores = scoresOf(sample);
    const cells = new Map();
    for (let k = span(sample)[0]; k < span(sample)[1]; k++) {
      const cell = index.records.cell[k];
      if (!cells.has(cell)) cells.set(cell, { scores: [], answered: false });
      const entry = cells.get(cell);
      if (ANSWERED.has(index.outcomes[index.records.outcome[k]])) entry.answered = true;
      if (scores[k] !== null && scores[k] !== undefined) entry.scores.push(scores[k]);
    }
    return [...cells].map(([cell, entry]) => [cell, verdict(entry.scores, entry.answered)]);
  }

  /** Whether the sample was lost, gained or neither against the baseline; with several configurations it may be both. */
  function flipped(sample) {
    const kinds = facts.flips[index.sets[index.samples.set[sample]]] ?? {};
    return Object.keys(kinds).filter((kind) => flips.get(kind)?.has(`${index.samples.set[sample]}/${index.samples.id[sample]}`));
  }

  /** Whether one of two cells has the sample right and the other wrong, on average over the trials. */
  function disagree(sample, pair) {
    const scores = scoresOf(sample);
    const right = pair.map((cell) => {
      const mine = [];
      for (let k = span(sample)[0]; k < span(sample)[1]; k++) if (index.records.cell[k] === cell && known(scores[k])) mine.push(scores[k]);
      return mine.length ? mine.reduce((a, b) => a + b, 0) / mine.length >= 0.5 : null;
    });
    return right[0] !== null && right[1] !== null && right[0] !== right[1];
  }

  function passes(sample) {
    const { samples, records } = index;
    if (state.set && index.sets[samples.set[sample]] !== state.set) return false;
    for (const [tag, values] of Object.entries(samples.tags)) if (state[`tag.${tag}`] && values[sample] !== state[`tag.${tag}`]) return false;
    if (state.flip && !flipped(sample).some((kind) => state.flip === "either" || state.flip === kind)) return false;
    if (state.pair && !disagree(sample, state.pair.split(",").map(Number))) return false;
    const scores = scoresOf(sample);
    const above = state.above && records.cost ? Number(state.above) : null;
    let dear = above === null;
    let cell = !state.cell, outcome = !state.outcome, result = !state.result, good = false, bad = false;
    for (let k = span(sample)[0]; k < span(sample)[1]; k++) {
      if (scores[k] >= 0.5) good = true;
      else if (scores[k] !== null && scores[k] !== undefined) bad = true;
      if (state.cell && String(records.cell[k]) !== state.cell) continue;
      cell = true;
      if (above !== null && records.cost[k] > above) dear = true;
      const ended = index.outcomes[records.outcome[k]];
      if (ended === state.outcome || (state.outcome === "unanswered" && !ANSWERED.has(ended))) outcome = true;
      const right = scores[k] >= 0.5;
      if (scores[k] !== null && scores[k] !== undefined && (state.result === "right") === right) result = true;
    }
    return cell && outcome && result && dear && (!state.disagree || (good && bad)) && (!state.q || words[sample].includes(state.q.toLowerCase()));
  }

  function marks(sample) {
    const all = verdicts(sample);
    const node = el("span", { className: "marks" });
    if (all.length > MOST_MARKS) {
      node.textContent = T("of_right", { n: all.filter(([, v]) => v === "right").length, all: all.length });
      return node;
    }
    for (const [cell, what] of all) {
      node.append(el("span", { className: `is-${what}`, "data-tip": `${facts.cells[cell].name}: ${T(what)}` }, MARKS[what]), el("span", { className: "hidden" }, `${T(what)} `));
    }
    return node;
  }

  function draw() {
    const first = Math.max(0, Math.floor(list.scrollTop / ROW) - 6);
    const last = Math.min(shown.length, Math.ceil((list.scrollTop + list.clientHeight) / ROW) + 6);
    const pad = el("div", { className: "pad", role: "presentation" });
    pad.style.height = `${shown.length * ROW}px`;
    for (let place = first; place < last; place++) {
      const sample = shown[place];
      const { id, set, question } = index.samples;
      const name = index.sets.length > 1 ? `${index.sets[set[sample]]} / ${id[sample]}` : id[sample];
      const row = el("div", { className: "row", id: `row-${sample}`, role: "option", "aria-selected": String(sample === chosen), "aria-setsize": shown.length, "aria-posinset": place + 1 },
        el("div", { className: "row-top" }, el("span", {}, name), marks(sample)),
        el("div", { className: "row-text" }, question[sample]));
      row.style.top = `${place * ROW}px`;
      row.addEventListener("click", () => { choose(sample); read(); });
      pad.append(row);
    }
    list.replaceChildren(shown.length ? pad : el("p", { className: "empty" }, T("none_found")));
    if (shown.includes(chosen) && byId(`row-${chosen}`)) list.setAttribute("aria-activedescendant", `row-${chosen}`);
    else list.removeAttribute("aria-activedescendant");
  }

  function filter() {
    shown = [];
    for (let sample = 0; sample < index.samples.id.length; sample++) if (passes(sample)) shown.push(sample);
    byId("found").textContent = T("found", { n: shown.length.toLocaleString("en"), all: index.samples.id.length.toLocaleString("en") });
    list.scrollTop = 0;
    draw();
  }

  function reveal(place) {
    if (place * ROW < list.scrollTop) list.scrollTop = place * ROW;
    else if ((place + 1) * ROW > list.scrollTop + list.clientHeight) list.scrollTop = (place + 1) * ROW - list.clientHeight;
  }

  function choose(sample) {
    chosen = sample;
    state.id = index.samples.id[sample];
    state.in = index.sets[index.samples.set[sample]];
    remember();
    reveal(shown.indexOf(sample));
    draw();
    open(sample);
  }

  function read() {
    if (chosen < 0) return;
    viewer.classList.add("reading");
    detail.focus({ preventScroll: true });
  }

  function unread() {
    viewer.classList.remove("reading");
    list.focus({ preventScroll: true });
  }

  // --- one sample ---

  async function open(sample) {
    detail.replaceChildren(el("p", { className: "note" }, T("unpack")));
    const [from, to] = span(sample);
    const block = await unpack(index.samples.block[sample]);
    if (sample !== chosen) return;
    const records = [];
    for (let k = from; k < to; k++) {
      const record = { cell: facts.cells[index.records.cell[k]], trial: index.records.trial[k], outcome: index.outcomes[index.records.outcome[k]] };
      for (const [name, values] of Object.entries(block.columns)) record[name] = values[k - block.start];
      record.messages = block.texts[record.messages] ?? null;
      records.push(record);
    }
    detail.replaceChildren(...page(sample, records));
    detail.scrollTop = 0;
  }

  function page(sample, records) {
    const back = el("button", { type: "button", className: "back" }, T("back"));
    back.addEventListener("click", unread);
    const tags = el("p", { className: "tags" }, el("span", {}, index.sets[index.samples.set[sample]]));
    for (const [tag, values] of Object.entries(index.samples.tags)) if (values[sample] !== null) tags.append(el("span", { className: "tag" }, `${tag}: ${values[sample]}`));
    const pair = state.pair?.split(",").map((cell) => facts.cells[Number(cell)]) ?? [];
    const mine = pair.length ? records.filter((record) => pair.includes(record.cell)) : records;
    const rest = records.filter((record) => !mine.includes(record));
    const nodes = [back, el("h3", {}, index.samples.id[sample]), tags, ...results(mine)];
    if (rest.length) nodes.push(el("details", { className: "more" }, el("summary", {}, T("other_answers", { n: rest.length })), ...results(rest)));
    return nodes;
  }

  /** The records under the conversations they answer. */
  function results(records) {
    const nodes = [];
    const wordings = new Map();
    for (const record of records) {
      if (!wordings.has(record.messages)) wordings.set(record.messages, []);
      wordings.get(record.messages).push(record);
    }
    for (const [messages, group] of wordings) {
      if (wordings.size > 1) nodes.push(el("p", { className: "prompt-head" }, [...new Set(group.map((r) => r.cell.prompt))].join(", ")));
      nodes.push(...conversation(messages));
      if (group[0].target !== null && group[0].target !== undefined) nodes.push(el("div", { className: "expected" }, el("div", { className: "who" }, T("target")), el("div", { className: "text" }, group[0].target)));
      nodes.push(...group.map(result));
    }
    return nodes;
  }

  function conversation(text) {
    let messages = null;
    try { messages = JSON.parse(text); } catch { /* cut, or not JSON: shown as it is */ }
    if (!Array.isArray(messages)) return text ? [el("div", { className: "turn text" }, text)] : [];
    const names = new Map(messages.flatMap((message) => (Array.isArray(message?.tool_calls) ? message.tool_calls.map((call) => [call?.id, (call?.function ?? call)?.name]) : [])));
    return messages.map((message) => {
      const text = content(message);
      const called = message?.role === "tool" && (message.name ?? names.get(message.tool_call_id));
      const who = called ? T("tool_result", { name: called }) : String(message?.role ?? "");
      return el("div", { className: "turn" }, el("div", { className: "who" }, who), text ? el("div", { className: "text" }, text) : null, ...calls(message?.tool_calls));
    });
  }

  function content(message) {
    const parts = Array.isArray(message?.content) ? message.content : [message?.content];
    const medium = (part) => [part?.image, part?.audio, part?.file].find((name) => typeof name === "string");
    const shown = (part) => (typeof part === "string" ? part : typeof part?.text === "string" ? part.text : medium(part) ? `[${medium(part)}]` : part ? JSON.stringify(part) : "");
    return parts.map(shown).join("\n");
  }

  /** Tool calls as a reader of code would write them: name(argument: value). Both the API's form and the stored one. */
  function calls(value) {
    const found = typeof value === "string" ? parsed(value) : value;
    if (!Array.isArray(found)) return value ? [el("pre", {}, pretty(String(value)))] : [];
    return found.map((call) => {
      const { name, arguments: given } = call?.function ?? call ?? {};
      const filled = typeof given === "string" ? parsed(given) : given;
      const pairs = filled && typeof filled === "object" && !Array.isArray(filled)
        ? Object.entries(filled).map(([key, one]) => `${key}: ${JSON.stringify(one)}`).join(", ") : String(given ?? "");
      return el("div", { className: "call" }, el("b", {}, String(name ?? "?")), `(${pairs})`);
    });
  }

  const digits = (value) => (Math.abs(value) >= 100 ? Math.round(value).toLocaleString("en") : String(Number(value.toPrecision(3))));
  const time = (ms) => (ms >= 10000 ? `${digits(ms / 1000)} s` : `${digits(ms)} ms`);
  const known = (value) => value !== null && value !== undefined;

  function result(record) {
    const box = el("article", { className: "result" });
    const head = el("div", { className: "result-head" }, swatch(record.cell.colour), el("b", {}, record.cell.name));
    if (facts.trials > 1) head.append(el("span", { className: "unknown" }, T("trial", { n: record.trial + 1 })));
    if (record.outcome !== "ok") head.append(el("span", { className: ANSWERED.has(record.outcome) ? "is-partial" : "failure" }, T(`o_${record.outcome}`)));
    const scores = el("span", { className: "push" });
    for (const scorer of index.scorers) {
      const value = record[`score_${scorer}`];
      if (!known(value)) continue;
      const what = verdict([value], true);
      scores.append(el("span", { className: `is-${what}` }, `${MARKS[what]} ${scorer} ${what === "partial" ? digits(value) : T(what)} `));
    }
    head.append(scores);
    box.append(head);
    if (record.conversation) box.append(...conversation(record.conversation));
    if (record.reasoning) box.append(el("details", {}, el("summary", {}, T("reasoning")), el("div", { className: "text turn" }, record.reasoning)));
    if (known(record.output)) box.append(el("div", { className: "text" }, record.output === "" ? T("no_text") : record.output));
    else if (!record.tool_calls) box.append(el("div", { className: "text failure" }, `${T("no_answer")}: ${[record.http_status, record.error_code, record.error_message].filter(known).join(" · ")}`));
    if (record.tool_calls) box.append(el("div", { className: "who" }, T("tool_calls")), ...calls(record.tool_calls));
    for (const scorer of index.scorers) if (record[`score_${scorer}_why`]) box.append(why(scorer, record[`score_${scorer}_why`]));
    box.append(numbers(record));
    if (record.attempt_rows?.length) box.append(attempts(record.attempt_rows));
    box.append(buttons(record));
    return box;
  }

  /** A scorer's reason; a judge's whole text is folded. */
  function why(scorer, text) {
    if (text.length <= LONG_WHY) return el("p", { className: "why text" }, `${scorer}: ${text}`);
    return el("details", { className: "why" }, el("summary", {}, T("more_why", { scorer })), el("div", { className: "text" }, text));
  }

  function pretty(text) {
    try { return JSON.stringify(JSON.parse(text), null, 2); } catch { return text; }
  }

  function numbers(record) {
    const line = el("div", { className: "numbers" });
    const add = (key, text) => line.append(el("span", {}, `${T(key)} `, el("b", {}, text)));
    for (const [key, column] of [["d_latency", "latency_ms"], ["d_ttft", "ttft_ms"], ["d_tpot", "tpot_ms"]]) if (known(record[column])) add(key, time(record[column]));
    if (record.wait_ms > 1) add("d_wait", time(record.wait_ms));
    if (known(record.prompt_tokens) || known(record.completion_tokens)) add("d_tokens", `${record.prompt_tokens ?? "?"} / ${record.completion_tokens ?? "?"}`);
    if (record.reasoning_tokens) add("d_reasoning", digits(record.reasoning_tokens));
    if (record.cached_tokens) add("d_cached", digits(record.cached_tokens));
    if (known(record.cost)) add("d_cost", `${record.currency ?? ""} ${digits(record.cost)}`);
    if (record.attempts > 1) add("d_attempts", String(record.attempts));
    if (record.finish_reason && record.finish_reason !== "stop") add("d_finish", record.finish_reason);
    if (record.response_model && record.response_model !== record.cell.model_id) add("d_model", record.response_model);
    return line;
  }

  function attempts(rows) {
    const head = ["a_attempt", "a_outcome", "a_http", "a_wait", "a_took", "a_message"].map((key) => el("th", { scope: "col" }, T(key)));
    const body = rows.map((row) => el("tr", {},
      ...[row.turn > 1 ? `${row.turn}.${row.attempt}` : row.attempt, facts.words[root.lang][`o_${row.outcome}`] ?? row.outcome, row.http_status ?? "–", known(row.wait_ms) ? time(row.wait_ms) : "–",
        known(row.latency_ms) ? time(row.latency_ms) : "–", [row.error_code, row.error_message].filter(known).join(" · ") || "–"].map((text) => el("td", {}, String(text)))));
    return el("table", { className: "data" }, el("thead", {}, el("tr", {}, ...head)), el("tbody", {}, ...body));
  }

  function buttons(record) {
    const box = el("div", { className: "buttons" });
    const add = (key, text) => {
      const button = el("button", { type: "button", className: "quiet" }, T(key));
      button.addEventListener("click", () => copy(button, text()));
      box.append(button);
    };
    add("copy_json", () => JSON.stringify(plain(record), null, 2));
    const provider = facts.providers[record.cell.provider];
    if (provider && record.messages) add("copy_curl", () => curl(record, provider));
    return box;
  }

  const parsed = (text) => { try { return JSON.parse(text); } catch { return text; } };

  function plain(record) {
    const { cell, attempt_rows: attemptRows, messages, ...rest } = record;
    const { colour, label, name, ...where } = cell;
    return { ...where, ...rest, messages: parsed(messages), ...(attemptRows ? { attempt_rows: attemptRows } : {}) };
  }

  function curl(record, provider) {
    const quote = (text) => `'${text.replaceAll("'", "'\\''")}'`;
    const body = { model: record.cell.model_id, messages: parsed(record.messages), ...record.cell.params };
    if (facts.trials > 1 && !("seed" in body)) body.seed = 1000 + record.trial;
    if (record.cell.stream) Object.assign(body, { stream: true, stream_options: { include_usage: true } });
    return [`curl ${quote(`${provider.replace(/\/$/, "")}/chat/completions`)}`, `  -H "Authorization: Bearer $API_KEY"`, "  -H 'Content-Type: application/json'", `  -d ${quote(JSON.stringify(body))}`].join(" \\\n");
  }

  async function copy(button, text) {
    try {
      await navigator.clipboard.writeText(text);
      button.textContent = T("copied");
    } catch {
      const pre = el("pre", { tabIndex: 0 }, text);
      button.parentNode.after(pre);
      getSelection().selectAllChildren(pre);
      button.textContent = T("not_copied");
    }
  }

  // --- filters, address, keys ---

  function choices() {
    const { samples, records } = index;
    const present = [...new Set(records.outcome)].map((k) => index.outcomes[k]);
    const all = [
      ["outcome", [["", T("any_outcome")], ...(present.some((o) => !ANSWERED.has(o)) ? [["unanswered", T("any_unanswered")]] : []), ...present.map((o) => [o, T(`o_${o}`)])]],
      ["cell", [["", T("any_cell")], ...facts.cells.map((cell, k) => [String(k), cell.label])]],
    ];
    if (index.scorers.length) all.push(["result", [["", T("any_result")], ["right", T("any_right")], ["wrong", T("any_wrong")]]]);
    if (index.scorers.length > 1) all.push(["by", [["", T("by_first")], ...index.scorers.map((scorer) => [scorer, T("score_by", { scorer })])]]);
    if (index.sets.length > 1) all.push(["set", [["", T("any_set")], ...index.sets.map((set) => [set, set])]]);
    if (Object.keys(facts.flips).length) all.push(["flip", [["", T("any_flip")], ["either", T("flip_either")], ["lost", T("flip_lost")], ["gained", T("flip_gained")]]]);
    for (const [tag, values] of Object.entries(samples.tags)) {
      const distinct = [...new Set(values)].filter(known).sort((a, b) => a.localeCompare(b, undefined, { numeric: true }));
      if (distinct.length > 1 && distinct.length <= 60) all.push([`tag.${tag}`, [["", T("any_tag", { tag })], ...distinct.map((value) => [value, value])]]);
    }
    return all.filter(([, options]) => options.length > 2);
  }

  function controls() {
    byId("selects").replaceChildren(...choices().map(([name, options]) => {
      const select = el("select", { "aria-label": options[0][1] }, ...options.map(([value, text]) => el("option", { value }, text.length > 60 ? `${text.slice(0, 59)}…` : text)));
      select.value = state[name] ?? options[0][0];
      select.addEventListener("change", () => set(name, select.value));
      return select;
    }));
    if (state.pair) byId("selects").append(pairChip(state.pair.split(",")));
    byId("above-label").hidden = !index.records.cost;
    byId("above").value = state.above ?? "";
    byId("q").value = state.q ?? "";
    byId("disagree").checked = Boolean(state.disagree);
  }

  /** The pair that the list is narrowed to, as a button that takes it away. */
  function pairChip(pair) {
    const [a, b] = pair.map((cell) => facts.cells[cell]?.name ?? "?");
    const chip = el("button", { type: "button", className: "chip", title: T("remove") }, T("pair_shown", { a, b }), el("span", { "aria-hidden": "true" }, " ✕"), el("span", { className: "hidden" }, ` ${T("remove")}`));
    chip.addEventListener("click", () => { delete state.pair; remember(); restore(); });
    return chip;
  }

  function showPair(pair) {
    const prompt = facts.cells[Number(pair.split(",")[0])].prompt_set;
    state = { pair, ...(index.sets.length > 1 ? { set: prompt } : {}) };
    remember();
    restore();
    byId("samples").scrollIntoView();
    list.focus({ preventScroll: true });
  }

  function set(name, value) {
    if (value) state[name] = value;
    else delete state[name];
    remember();
    filter();
  }

  function remember() {
    const search = new URLSearchParams(Object.entries({ ...state, ...(root.lang === facts.lang ? {} : { lang: root.lang }) }));
    history.replaceState(null, "", search.size ? `#/${search}` : "#samples");
  }

  function recall() {
    if (!location.hash.startsWith("#/")) return false;
    const { lang, ...rest } = Object.fromEntries(new URLSearchParams(location.hash.slice(2)));
    if (Object.hasOwn(facts.words, lang)) speak(lang);
    state = rest;
    return true;
  }

  function restore() {
    controls();
    filter();
    const { id, set: sets } = index.samples;
    const wanted = id.findIndex((name, k) => name === state.id && (!state.in || index.sets[sets[k]] === state.in));
    if (wanted >= 0) {
      choose(wanted);
      viewer.classList.add("reading");
      byId("samples").scrollIntoView();
    } else {
      chosen = shown[0] ?? -1;   // not chosen by anyone: the address stays as it is
      draw();
      if (chosen >= 0) open(chosen);
      else detail.replaceChildren(el("p", { className: "empty" }, T("choose")));
    }
  }

  function step(by) {
    if (!shown.length) return;
    const place = shown.indexOf(chosen);
    choose(shown[place < 0 ? 0 : Math.min(Math.max(place + by, 0), shown.length - 1)]);
    if (byId("samples").getBoundingClientRect().top > innerHeight * 0.6 || byId("samples").getBoundingClientRect().bottom < 0) byId("samples").scrollIntoView();
  }

  const keys = {
    j: () => step(1),
    k: () => step(-1),
    ArrowDown: (event) => event.target === list && step(1),
    ArrowUp: (event) => event.target === list && step(-1),
    Enter: (event) => (event.target === list || event.target === document.body) && (chosen < 0 && step(1), read()),
    Escape: () => viewer.contains(document.activeElement) && unread(),
    "/": () => { byId("q").focus(); byId("q").select(); },
    d: () => byId("disagree").click(),
    "?": () => byId("help").showModal(),
  };

  document.addEventListener("keydown", (event) => {
    const typing = event.target.matches("input[type=search], select, textarea");
    if (event.ctrlKey || event.metaKey || event.altKey || byId("help").open || (typing && event.key !== "Escape")) return;
    const act = keys[event.key];
    if (act && act(event) !== false) event.preventDefault();
  });

  byId("switch-lang").addEventListener("click", () => {
    speak(root.lang === "en" ? "zh" : "en");
    if (!index) return;
    remember();
    controls();
    const top = list.scrollTop;
    filter();
    list.scrollTop = top;
    draw();
    if (chosen >= 0) open(chosen);
    else detail.replaceChildren(el("p", { className: "empty" }, T("choose")));
  });

  async function start() {
    recall();
    speak(root.lang);
    if (typeof DecompressionStream === "undefined") {
      list.replaceChildren(el("p", { className: "empty" }, T("old_browser")));
      return;
    }
    index = await unpack(0);
    const { samples, records } = index;
    words = samples.id.map((id, k) => [id, samples.question[k], ...records.text.slice(samples.start[k], samples.start[k + 1])].join("\n").toLowerCase());
    byId("q").addEventListener("input", () => set("q", byId("q").value));
    for (const [name, kinds] of Object.entries(facts.flips)) {
      const number = index.sets.indexOf(name);
      for (const [kind, ids] of Object.entries(kinds)) for (const id of ids) flips.set(kind, (flips.get(kind) ?? new Set()).add(`${number}/${id}`));
    }
    for (const holder of document.querySelectorAll("[data-duel]")) {
      const button = el("button", { type: "button", "data-tip": holder.dataset.tip }, ...holder.childNodes);
      button.addEventListener("click", () => showPair(holder.dataset.duel));
      holder.replaceWith(button);
    }
    byId("above").addEventListener("input", () => set("above", byId("above").value));
    byId("disagree").addEventListener("change", () => set("disagree", byId("disagree").checked ? "1" : ""));
    byId("reset").addEventListener("click", () => { state = {}; remember(); restore(); });
    byId("ask").addEventListener("click", () => byId("help").showModal());
    list.addEventListener("scroll", draw, { passive: true });
    addEventListener("resize", draw);
    addEventListener("hashchange", () => recall() && restore());
    restore();
  }

  start();
})();
