// The page: loads the model's card, asks, and shows what came back.

import { Refused, call, patient, text as textOf, useKey } from "./api.js";
import { correction } from "./correction.js";
import { contributions } from "./edges.js";
import { gauge } from "./gauge.js";
import { prompt, promptTitle } from "./prompt.js";
import { recent } from "./recent.js";
import { trafficView } from "./traffic.js";
import { spoken, verdict } from "./verdict.js";
import { shadedWords } from "./words.js";

const find = (id) => document.getElementById(id);
const asked = recent(find("recent"));
let card = null;
let asking = new AbortController();

async function loadModel() {
  try {
    showCard(await call("v1/model"));
    showReport(await textOf("v1/model/report"));
    find("key-form").hidden = true;
  } catch (error) {
    tell(error);
  }
}

function showCard(found) {
  const changed = card?.model_version !== found.model_version;
  card = found;
  const resting = found.breaker === "closed" ? "" : ", the large model is resting";
  find("state").textContent = `Version ${found.model_version}${found.loading ? `, loading ${found.loading}` : ""}${resting}`;
  find("tally").replaceChildren(trafficView(found));
  if (changed) showTasks(found.tasks);
  if (find("verdict").childElementCount === 0) showGauge(null);
}

function showTasks(tasks) {
  const options = tasks.map((task) => new Option(task, task));
  find("task").replaceChildren(new Option("not known", ""), ...options);
  find("task-field").hidden = tasks.length < 2;
}

function showGauge(answer) {
  const { gate, decision } = card.policy;
  const scale = { gate, numLabels: card.labels.length };
  const judged = answer === null
    ? { threshold: decision.threshold, keepsAll: decision.decision === "keep_all" }
    : { score: answer.gate_score, confidence: answer.confidence, threshold: answer.threshold, keepsAll: answer.route === "small" };
  find("gauge").replaceChildren(gauge({ ...scale, ...judged }));
}

/** A fragment that the service wrote and escaped; the page's policy lets nothing in it run. */
function showReport(markup) {
  const parsed = new DOMParser().parseFromString(markup, "text/html");
  find("report").replaceChildren(...parsed.body.childNodes);
}

async function ask(event) {
  event.preventDefault();
  asking.abort();
  asking = new AbortController();
  const { signal } = asking;
  const input = { text: find("text").value, task: find("task").value || null };
  find("problem").textContent = "";
  find("status").textContent = "Asking…";
  find("answer").setAttribute("aria-busy", "true");
  try {
    const response = await call("v1/predict", { body: { inputs: [input] }, signal });
    showAnswer(response, input);
    showCard(await call("v1/model", { signal }));
    showExplanation(input.text, await patient("v1/explain", { body: { input, top: 6 }, signal }), response);
  } catch (error) {
    if (!signal.aborted) tell(error);
  } finally {
    if (!signal.aborted) find("answer").removeAttribute("aria-busy");
  }
}

function showAnswer(response, input) {
  const [answer] = response.answers;
  showGauge(answer);
  find("verdict").replaceChildren(verdict(answer, response), correction(card.labels, response.request_id, input));
  find("status").textContent = spoken(answer);
  asked.add(input.text, answer);
  find("why").hidden = find("prompt").hidden = true;
}

function showExplanation(text, found, { model_version: version }) {
  find("why-note").textContent = found.model_version === version ? ""
    : `Version ${found.model_version} took over after the answer; these are its reasons.`;
  find("words").replaceChildren(shadedWords(text, found.words, found.judge_label));
  find("edges").replaceChildren(contributions(found));
  find("prompt-title").textContent = promptTitle(found);
  find("shown").replaceChildren(prompt(found));
  find("why").hidden = find("prompt").hidden = false;
}

function tell(error) {
  if (!(error instanceof Refused)) throw error;
  find("status").textContent = "";
  if (error.status === 401) {
    find("key-form").hidden = false;
    find("state").textContent = "Locked";
    find("key").focus();
    return;
  }
  find("problem").textContent = error.message;
}

find("ask-form").addEventListener("submit", ask);
find("text").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) find("ask-form").requestSubmit();
});
find("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  useKey(find("key").value.trim());
  find("key").value = "";
  loadModel();
});
loadModel();
