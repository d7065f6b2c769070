"use strict";

const MOST_PHONES = 60;
const MOST_CALLBACKS = 200;
const phones = document.getElementById("phones");
const callbacks = document.getElementById("callbacks");
const live = document.getElementById("live");

function element(html) {
  const holder = document.createElement("template");
  holder.innerHTML = html;
  return holder.content.firstElementChild;
}

function localTimes(root) {
  for (const time of root.querySelectorAll("[data-at]")) {
    time.textContent = new Date(time.dataset.at).toLocaleTimeString([], { hour12: false });
    time.title = time.dataset.at;
  }
}

function toEnd(phone) {
  const log = phone.querySelector(".messages");
  log.scrollTop = log.scrollHeight;
}

function onMessage({ phone_id, message_id, card, message }) {
  document.getElementById("no-phones").hidden = true;
  let phone = document.getElementById(phone_id);
  if (!phone) {
    phone = element(card);
    phones.prepend(phone);
    while (phones.children.length > MOST_PHONES) phones.lastElementChild.remove();
  } else if (phone !== phones.firstElementChild && !phones.contains(document.activeElement)) {
    phones.prepend(phone); // never while somebody types: the cards would jump away
  }
  const bubble = element(message);
  const known = document.getElementById(message_id);
  if (known) known.replaceWith(bubble);
  else {
    bubble.classList.add("fresh");
    phone.querySelector(".messages").append(bubble);
  }
  localTimes(bubble);
  toEnd(phone);
}

function onCallback({ row, receiver, receiver_row }) {
  document.getElementById("no-callbacks").hidden = true;
  const entry = element(row);
  entry.classList.add("fresh");
  localTimes(entry);
  callbacks.prepend(entry);
  while (callbacks.children.length > MOST_CALLBACKS) callbacks.lastElementChild.remove();
  if (!document.querySelector(`[data-receiver="${CSS.escape(receiver)}"]`)) {
    document.getElementById("receivers").append(element(receiver_row));
  }
}

async function order(method, path, body) {
  const answer = await fetch(path, {
    method,
    headers: { "content-type": "application/json" },
    body: JSON.stringify(body),
  });
  if (!answer.ok) throw new Error((await answer.json()).error);
  return answer.json();
}

function say(state, text) {
  live.dataset.state = state;
  live.textContent = text;
}

async function tried(action) {
  try {
    await action();
  } catch (problem) {
    say("lost", problem.message);
  }
}

document.addEventListener("submit", (event) => {
  event.preventDefault();
  const form = event.target;
  const fields = Object.fromEntries(new FormData(form));
  tried(async () => {
    if (form.id === "first") {
      await order("POST", "/control/inbound", fields);
      form.closest("details").open = false;
    } else if (form.id === "fault") {
      await order("POST", "/control/faults", { ...fields, count: Number(fields.count) });
      document.getElementById("fault-said").textContent = "In force.";
      return;
    } else {
      const phone = form.closest(".phone");
      const { channel, recipient } = phone.dataset;
      const peers = phone.querySelectorAll(".message");
      const to = peers.length ? peers[peers.length - 1].dataset.peer : "";
      await order("POST", "/control/inbound", { channel, from: recipient, to, text: fields.text });
    }
    form.reset();
    if (form.elements.text) form.elements.text.focus();
  });
});

document.addEventListener("click", (event) => {
  const key = event.target.closest("[data-press]");
  const block = event.target.closest("[data-block]");
  if (key) {
    const { channel, recipient } = key.closest(".phone").dataset;
    const { message } = key.closest(".message").dataset;
    tried(() =>
      order("POST", "/control/press", { channel, recipient, message_id: message, button: key.dataset.press }));
  } else if (block) {
    const { channel, recipient } = block.closest(".phone").dataset;
    const blocked = block.dataset.block === "true";
    tried(async () => {
      await order("PUT", `/control/phones/${channel}/${encodeURIComponent(recipient)}`, { blocked });
      block.dataset.block = String(!blocked);
      block.textContent = blocked ? "Take back" : "Block";
    });
  } else if (event.target.id === "clear") {
    callbacks.replaceChildren();
    document.getElementById("no-callbacks").hidden = false;
  } else if (!event.target.closest(".tool")) {
    for (const tool of document.querySelectorAll(".tool[open]")) tool.open = false;
  }
});

document.addEventListener("toggle", (event) => {
  if (!event.target.matches(".tool[open]")) return;
  for (const tool of document.querySelectorAll(".tool[open]")) if (tool !== event.target) tool.open = false;
}, true);

document.addEventListener("change", (event) => {
  const row = event.target.closest("[data-receiver]");
  if (!row) return;
  const behaviour = JSON.parse(event.target.value);
  tried(() => order("PUT", `/control/receivers/${encodeURIComponent(row.dataset.receiver)}`, { behaviour }));
});

localTimes(document);
for (const phone of phones.children) toEnd(phone);

const source = new EventSource("/live");
let wasLost = false;
source.onopen = () => {
  if (wasLost) location.reload(); // what happened in between was not heard
  say("live", "live");
};
source.onerror = () => {
  wasLost = true;
  say("lost", "connection lost, trying again");
};
source.addEventListener("phone", (event) => onMessage(JSON.parse(event.data)));
source.addEventListener("callback", (event) => onCallback(JSON.parse(event.data)));
source.addEventListener("missed", () => location.reload());
