// The page: loads the model's card, asks, and shows what came back.

import { Refused, call, patient, text as textOf } from "./api.js";
import { correction } from "./correction.js";
import { contributions } from "./edges.js";
import { gate } from "./gate.js";
import { gauge } from "./gauge.js";
import { heatMap, plainPicture } from "./heat.js";
import { asksForKey, keyIsGood, onKey } from "./key.js";
import { pictureField } from "./picture.js";
import { prompt, promptTitle } from "./prompt.js";
import { recent } from "./recent.js";
import { trafficView } from "./traffic.js";
import { spoken, verdict } from "./verdict.js";
import { shadedWords } from "./words.js";

const find = (id) => document.getElementById(id);
const asked = recent(find("recent"));
const picture = pictureField(
  { field: find("picture-field"), input: find("picture"), preview: find("preview"), remove: find("remove") },
  (words) => { find("problem").textContent = words; },
);
let card = null;
let asking = new AbortController();

async function loadModel() {
  try {
    showCard(await call("v1/model"));
    showReport(await textOf("v1/model/report"));
    keyIsGood();
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
  if (changed) showFields(found);
  if (find("verdict").childElementCount === 0) showGauge(null);
}

/** The fields for what this version reads. */
function showFields({ reads, tasks }) {
  find("text-field").hidden = !(find("text").required = reads.includes("text"));
  find("picture-field").hidden = !(find("picture").required = reads.includes("image"));
  const options = tasks.map((task) => new Option(task, task));
  find("task").replaceChildren(new Option("not known", ""), ...options);
  find("task-field").hidden = tasks.length < 2;
}

function showGauge(answer) {
  const { gate, decision } = card.policy;
  const scale = { gate, numLabels: card.labels.length };
  const judged = answer === null
    ? { threshold: decision.threshold, keepsAll: decision.decision === "keep_all" }
    : { score: answer.gate_score, confidence: answer.judge_confidence, threshold: answer.threshold, keepsAll: answer.route === "small" };
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
  find("problem").textContent = "";
  find("status").textContent = "Asking…";
  find("answer").setAttribute("aria-busy", "true");
  try {
    const [input, address] = [await entered(), picture.address()];
    const response = await call("v1/predict", { body: { inputs: [input] }, signal });
    showAnswer(response, input);
    showCard(await call("v1/model", { signal }));
    showExplanation(input, await patient("v1/explain", { body: { input, top: 6 }, signal }), response, address);
  } catch (error) {
    if (!signal.aborted) tell(error);
  } finally {
    if (!signal.aborted) find("answer").removeAttribute("aria-busy");
  }
}

/** What was typed and chosen, as the service takes it. */
async function entered() {
  const image = await picture.encoded();
  const input = { task: find("task").value || null };
  if (!find("text-field").hidden) input.text = find("text").value;
  if (image !== null) input.image = image;
  return input;
}

function showAnswer(response, input) {
  const [answer] = response.answers;
  showGauge(answer);
  find("verdict").replaceChildren(verdict(answer, response), correction(card.labels, response.request_id, input));
  find("status").textContent = spoken(answer);
  asked.add(input.text ?? picture.name(), answer);
  find("why").hidden = find("prompt").hidden = true;
}

function showExplanation({ text, image }, found, { model_version: version }, address) {
  find("why-note").textContent = found.model_version === version ? ""
    : `Version ${found.model_version} took over after the answer; these are its reasons.`;
  find("heat").hidden = image === undefined;
  if (image) find("heat").replaceChildren(found.cells ? heatMap(address, found.cells, found.judge_label) : plainPicture(address));
  find("words").hidden = text === undefined;
  if (text) find("words").replaceChildren(shadedWords(text, found.words, found.judge_label));
  find("gate").hidden = found.gate === null;
  if (found.gate) find("gate").replaceChildren(gate(found.gate, found.label));
  find("edges").replaceChildren(contributions(found));
  find("prompt-title").textContent = promptTitle(found);
  find("shown").replaceChildren(prompt(found));
  find("why").hidden = find("prompt").hidden = false;
}

function tell(error) {
  if (!(error instanceof Refused)) throw error;
  find("status").textContent = "";
  if (asksForKey(error)) return;
  find("problem").textContent = error.message;
}

find("ask-form").addEventListener("submit", ask);
find("text").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) find("ask-form").requestSubmit();
});
onKey(loadModel);
loadModel();
