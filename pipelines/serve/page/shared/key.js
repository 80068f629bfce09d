// The key that a service may ask for: a form that shows itself when a call is refused.

import { useKey } from "./api.js";

const form = document.getElementById("key-form");
const key = document.getElementById("key");
const state = document.getElementById("state");

/** Call `load` whenever a key is given. */
export function onKey(load) {
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    useKey(key.value.trim());
    key.value = "";
    load();
  });
}

/** Whether an error asks for a key; the form is shown if it does. */
export function asksForKey(error) {
  if (error.status !== 401) return false;
  form.hidden = false;
  state.textContent = "Locked";
  key.focus();
  return true;
}

/** Hide the form: the key, if any, was good. */
export function keyIsGood() {
  form.hidden = true;
}
