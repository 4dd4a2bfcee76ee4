// The page: wires the composer, the chat and the examples together.

import { getJson, setKey, streamChat } from "./api.js";
import { cameraAllowed, takePicture } from "./camera.js";
import { Turn } from "./conversation.js";
import { showExamples } from "./examples.js";
import { readPicture, Tray } from "./pictures.js";

const $ = (id) => document.getElementById(id);
const NEAR_END = 80; // pixels: who has scrolled further up is not pulled down

const question = $("question");
const tray = new Tray($("attached"), $("thumbnail"), refresh);
let models = [];
let turns = [];
let answering = null; // the AbortController of the answer on its way

// Sending and stopping

async function send(text, pictures, rest = [], expected = undefined) {
  const turn = new Turn($("turn"), text, pictures, expected);
  turns.at(-1)?.withdrawOffer();
  turns.push(turn);
  $("turns").append(turn.element);
  hideError();
  announce("");
  const stopper = new AbortController();
  answering = stopper;
  refresh();
  scrollDown();
  const { timings, error, why } = await answer(turn, stopper);
  if (answering === stopper) answering = null;
  if (!turns.includes(turn)) return; // the chat was cleared meanwhile
  if (timings || turn.text) settle(turn, timings, why, rest);
  else takeBack(turn);
  if (error && error.name !== "AbortError") showError(error);
  refresh();
  scrollDown();
}

async function answer(turn, stopper) {
  const model = currentModel();
  const messages = turns.flatMap((each) => each.messages());
  let timings = null;
  let why = null;
  try {
    for await (const chunk of streamChat({ model: model?.id, messages }, stopper.signal)) {
      const follow = isAtEnd();
      const [{ delta, finish_reason }] = chunk.choices;
      turn.add(delta.content ?? "");
      if (finish_reason === "length") why = "cut off: the context is full";
      timings = chunk.timings ?? timings;
      if (follow) scrollDown();
    }
    return { timings, why };
  } catch (error) {
    return { error, why: error.name === "AbortError" ? "stopped" : "incomplete" };
  }
}

function settle(turn, timings, why, rest) {
  turn.end(timings, currentModel()?.meta.n_ctx, why);
  announce(why ? `${turn.text} (${why})` : turn.text);
  const [next, ...later] = why ? [] : rest;
  if (next) turn.offer(next.prompt, () => send(next.prompt, [], later, next.expected));
}

/** Nothing was answered: the question goes back to where it can be changed and sent again. */
function takeBack(turn) {
  turns = turns.filter((each) => each !== turn);
  turn.element.remove();
  tray.add(turn.pictures);
  question.value = [turn.question, question.value].filter(Boolean).join("\n");
  fit();
}

function sendComposed() {
  if (answering || !composed()) return;
  const text = question.value.trim();
  question.value = "";
  fit();
  send(text, tray.take());
  focusQuestion();
}

function stop() {
  if (!answering) return;
  answering.abort();
  focusQuestion();
}

function clear() {
  answering?.abort();
  answering = null;
  turns.forEach((turn) => turn.release());
  turns = [];
  $("turns").replaceChildren();
  hideError();
  refresh();
}

// What the page shows

function composed() {
  return Boolean(question.value.trim() || tray.size);
}

function refresh() {
  document.body.classList.toggle("empty", turns.length === 0);
  $("new").hidden = turns.length === 0;
  $("send").hidden = Boolean(answering);
  $("send").disabled = !composed();
  $("stop").hidden = !answering;
}

function fit() {
  question.style.height = "auto";
  question.style.height = `${question.scrollHeight}px`;
  refresh();
}

/** Not under a finger: a keyboard would come up over the answer. */
function focusQuestion() {
  if (matchMedia("(pointer: fine)").matches) question.focus();
}

function announce(text) {
  $("announcement").textContent = text;
}

function showError(error) {
  $("error").querySelector(".message").textContent = error.message;
  $("error").querySelector(".where").textContent = error.where ?? "";
  $("error").hidden = false;
  if (error.status === 401) askForKey();
}

function hideError() {
  $("error").hidden = true;
}

function isAtEnd() {
  const { scrollHeight, scrollTop, clientHeight } = document.querySelector("main");
  return scrollHeight - scrollTop - clientHeight < NEAR_END;
}

function scrollDown() {
  const main = document.querySelector("main");
  main.scrollTop = main.scrollHeight;
}

// Models, examples and the key

function currentModel() {
  return models.find(({ id }) => id === $("model").value);
}

async function start() {
  try {
    models = (await getJson("v1/models")).data;
    showModels();
    await showExamples($("examples"), $("example"), (pictures, [first, ...rest]) => {
      clear();
      send(first.prompt, pictures, rest, first.expected);
    });
    document.querySelector("nav").hidden = false;
  } catch (error) {
    showError(error);
  }
}

function showModels() {
  $("model").replaceChildren(...models.map(({ id }) => new Option(id, id)));
  $("model").hidden = models.length < 2;
  $("model-name").hidden = models.length > 1;
  $("model-name").textContent = models[0]?.id ?? "";
  showFacts();
}

function showFacts() {
  const { target, n_ctx: context } = currentModel()?.meta ?? {};
  const words = [target, context && `${context.toLocaleString("en")} tokens of context`];
  $("model-facts").textContent = words.filter(Boolean).join(" · ");
}

function askForKey() {
  $("key").hidden = false;
  $("key-field").value = "";
  if (!$("key-dialog").open) $("key-dialog").showModal();
}

function useKey() {
  setKey($("key-field").value.trim());
  hideError();
  if (models.length === 0) start();
}

// Pictures: by file, drop, paste and camera

async function attach(files) {
  hideError();
  for (const file of files) {
    try {
      tray.add([await readPicture(file)]);
    } catch (error) {
      showError(error);
    }
  }
  focusQuestion();
}

async function useCamera() {
  if (!cameraAllowed()) {
    $("camera-file").click();
    return;
  }
  try {
    const file = await takePicture($("camera"));
    if (file) await attach([file]);
  } catch (error) {
    showError(error);
  }
}

function wireFiles(input) {
  input.addEventListener("change", async () => {
    await attach([...input.files]);
    input.value = "";
  });
}

function wireDrop() {
  const holdsFiles = (event) => event.dataTransfer?.types.includes("Files");
  const show = (on) => document.body.classList.toggle("dropping", on);
  addEventListener("dragover", (event) => {
    if (!holdsFiles(event)) return;
    event.preventDefault();
    show(true);
  });
  addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) show(false);
  });
  addEventListener("drop", (event) => {
    show(false);
    if (!holdsFiles(event)) return;
    event.preventDefault();
    attach([...event.dataTransfer.files]);
  });
}

function wirePaste() {
  addEventListener("paste", (event) => {
    const files = [...(event.clipboardData?.files ?? [])];
    if (files.length === 0) return;
    event.preventDefault();
    attach(files);
  });
}

// Keys and buttons

function wireKeys() {
  question.addEventListener("keydown", (event) => {
    // While an input method composes a word, Enter is its own.
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    sendComposed();
  });
  addEventListener("keydown", (event) => {
    if (event.key === "Escape" && !document.querySelector("dialog[open]")) stop();
  });
}

function wireButtons() {
  $("composer").addEventListener("submit", (event) => {
    event.preventDefault();
    sendComposed();
  });
  $("stop").addEventListener("click", stop);
  $("new").addEventListener("click", () => {
    clear();
    focusQuestion();
  });
  $("error").querySelector("button").addEventListener("click", hideError);
  $("file-button").addEventListener("click", () => $("files").click());
  $("camera-button").addEventListener("click", useCamera);
  $("model").addEventListener("change", showFacts);
  $("key").addEventListener("click", askForKey);
  $("key-dialog").querySelector("form").addEventListener("submit", useKey);
  $("key-dialog").querySelector("[value=cancel]").addEventListener("click", () => {
    $("key-dialog").close();
  });
}

question.addEventListener("input", fit);
wireFiles($("files"));
wireFiles($("camera-file"));
wireDrop();
wirePaste();
wireKeys();
wireButtons();
refresh();
start();
