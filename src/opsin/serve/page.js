"use strict";
// Texts of answers are only ever set as text, never as markup.

const find = (id) => document.getElementById(id);
const LONGEST = 4000; // characters of JSON that are shown
let meta = null;

function make(tag, words, kind) {
  const node = document.createElement(tag);
  if (words !== undefined) node.textContent = words;
  if (kind) node.className = kind;
  return node;
}

function say(words, bad) {
  find("state").textContent = words;
  find("state").className = bad ? "bad" : "";
}

async function ask(address, settings = {}, tries = 3) {
  const token = find("token").value;
  const headers = { ...(settings.headers || {}), ...(token ? { Authorization: `Bearer ${token}` } : {}) };
  const reply = await fetch(address, { ...settings, headers });
  if (reply.status === 503 && tries > 1) {
    await new Promise((done) => setTimeout(done, 1000 * (Number(reply.headers.get("Retry-After")) || 1)));
    return ask(address, settings, tries - 1);
  }
  const value = await reply.json().catch(() => ({}));
  if (reply.status === 401) find("locked").hidden = false;
  if (!reply.ok) throw new Error(value.error || `the server answered ${reply.status}`);
  return value;
}

async function start() {
  try {
    meta = await ask("meta");
  } catch (error) {
    say(error.message, true);
    return;
  }
  say("");
  document.title = `${meta.run} - opsin`;
  find("name").textContent = meta.run;
  const known = meta.classes.length ? `, ${meta.classes.length} classes` : "";
  find("about").textContent = `${meta.task}: ${meta.about} (${meta.model || meta.task}${known})`;
  find("foot").textContent = `opsin ${meta.opsin}${meta.licence ? `; licence of the weights: ${meta.licence}` : ""}`;
  const most = Math.floor(meta.limits.upload / 1e6);
  find("hint").textContent = `images, videos or PDF files, up to ${most} MB`;
  find("drop").hidden = !meta.takes_files;
  find("write").hidden = meta.takes_files;
  find("pair").hidden = !meta.compares;
  find("options").replaceChildren(...meta.options.map(option));
  find("more").hidden = !meta.options.length;
}

function option(one) {
  const box = make("div", undefined, "option");
  const kind = one.items ? one.items.type : one.type;
  const label = make("label", one.name.replaceAll("_", " "));
  const input = make("input");
  input.id = `option-${one.name}`;
  label.htmlFor = input.id;
  input.dataset.option = one.name;
  input.dataset.several = one.items ? "yes" : "";
  input.type = kind === "boolean" ? "checkbox" : kind === "string" ? "text" : "number";
  if (kind === "number") input.step = "any";
  if (one.minimum !== undefined) input.min = one.minimum;
  if (one.maximum !== undefined) input.max = one.maximum;
  if (one.default !== undefined) input.placeholder = one.default;
  if (one.items) input.type = "text";
  box.append(label, input, make("small", one.help));
  return box;
}

function query(film) {
  const found = new URLSearchParams();
  for (const input of document.querySelectorAll("[data-option]")) {
    if (input.type === "checkbox" && input.checked) found.append(input.dataset.option, "true");
    else if (input.type !== "checkbox" && input.value.trim()) {
      const values = input.dataset.several ? input.value.split(/[\s,]+/) : [input.value.trim()];
      for (const value of values.filter(Boolean)) found.append(input.dataset.option, value);
    }
  }
  found.append("include", "described");
  if (meta.takes_files) found.append("include", "drawn");
  if (film) found.append("every", "auto");
  return found;
}

async function answerFiles(files) {
  if (!meta || !files.length) return;
  const two = meta.compares && files.length === 2 && find("together").checked;
  const batches = two || meta.takes === "together" ? [files] : files.map((file) => [file]);
  find("answers").replaceChildren();
  for (const [place, batch] of batches.entries()) {
    say(batches.length > 1 ? `asking about ${place + 1} of ${batches.length} ...` : "asking ...");
    const card = make("article");
    find("answers").append(card);
    try {
      if (batch.reduce((sum, file) => sum + file.size, 0) > meta.limits.upload) {
        throw new Error(`it has more than ${Math.floor(meta.limits.upload / 1e6)} MB`);
      }
      const form = new FormData();
      for (const file of batch) form.append("files", file, "file");
      const film = batch.some((file) => file.type.startsWith("video/"));
      const found = await ask(`${two ? "compare" : "predict"}?${query(film)}`, { method: "POST", body: form });
      show(card, batch, found.answers);
    } catch (error) {
      card.append(make("p", `${batch.map((file) => file.name).join(", ")}: ${error.message}`, "bad"));
    }
  }
  say("");
}

async function answerTexts(event) {
  event.preventDefault();
  if (!meta) return start();
  const lines = find("text").value.split("\n").filter((line) => line.trim());
  if (!lines.length) return;
  say("asking ...");
  try {
    const inputs = lines.map((line) => (/^\s*\[/.test(line) ? JSON.parse(line) : line));
    const settings = { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ inputs }) };
    const found = await ask(`predict?${query(false)}`, settings);
    find("answers").replaceChildren(...found.answers.map((answer) => {
      const card = make("article");
      card.append(...words(answer));
      return card;
    }));
    say("");
  } catch (error) {
    say(error.message, true);
  }
}

function words(answer) {
  const plain = { ...answer };
  for (const name of ["drawn", "described", "not_drawn"]) delete plain[name];
  const text = JSON.stringify(plain, null, 1);
  const more = make("details");
  more.append(make("summary", "JSON"), make("pre", text.length > LONGEST ? `${text.slice(0, LONGEST)} ...` : text));
  return [make("p", answer.error || answer.described || "", answer.error ? "bad" : "said"), more];
}

function image(address, alt) {
  const node = make("img");
  node.src = address;
  node.alt = alt;
  return node;
}

function preview(file) {
  const address = URL.createObjectURL(file);
  const node = image(address, file.name);
  node.onload = node.onerror = () => URL.revokeObjectURL(address);
  return node;
}

function show(card, files, answers) {
  card.append(make("p", files.map((file) => file.name).join(", ")));
  if (answers.length > 1) return film(card, answers);
  const [answer] = answers;
  if (answer.drawn) card.append(image(answer.drawn, answer.described || "the answer"));
  else if (files.every((file) => file.type.startsWith("image/"))) {
    const box = make("div", undefined, files.length > 1 ? "two" : "");
    box.append(...files.map(preview));
    card.append(box);
  }
  card.append(...words(answer));
}

function film(card, answers) {
  const screen = make("img");
  const row = make("div", undefined, "film");
  const play = make("button", "Play");
  const slide = make("input");
  const said = make("div");
  slide.type = "range";
  slide.min = 0;
  slide.max = answers.length - 1;
  slide.value = 0;
  slide.setAttribute("aria-label", "frame or page");
  play.type = "button";
  let timer = null;
  const turn = () => {
    const answer = answers[Number(slide.value)];
    screen.hidden = !answer.drawn;
    if (answer.drawn) screen.src = answer.drawn;
    screen.alt = answer.described || "the answer";
    const place = answer.page !== undefined ? `page ${answer.page}` : `frame ${answer.frame}, ${answer.time} s`;
    said.replaceChildren(make("small", place), ...words(answer));
  };
  const stop = () => { clearInterval(timer); timer = null; play.textContent = "Play"; };
  play.onclick = () => {
    if (timer) return stop();
    play.textContent = "Stop";
    timer = setInterval(() => { slide.value = (Number(slide.value) + 1) % answers.length; turn(); }, 150);
  };
  slide.oninput = turn;
  row.append(play, slide);
  card.append(screen, row, said);
  turn();
}

const drop = find("drop");
for (const name of ["dragenter", "dragover"]) {
  document.addEventListener(name, (event) => { event.preventDefault(); drop.classList.add("over"); });
}
for (const name of ["dragleave", "drop"]) {
  document.addEventListener(name, (event) => { event.preventDefault(); drop.classList.remove("over"); });
}
document.addEventListener("drop", (event) => answerFiles([...event.dataTransfer.files]));
document.addEventListener("paste", (event) => answerFiles([...event.clipboardData.files]));
find("files").addEventListener("change", (event) => {
  answerFiles([...event.target.files]).finally(() => { event.target.value = ""; });
});
find("form").addEventListener("submit", answerTexts);
find("token").addEventListener("change", start);
start();
