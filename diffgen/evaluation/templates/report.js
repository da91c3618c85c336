"use strict";
// Masks, enlarged pictures, copied commands, and where one is. Without it the page still says all it says.

const viewer = document.querySelector(".viewer");
const stage = viewer.querySelector(".stage");
const place = viewer.querySelector(".place");
const legend = viewer.querySelector(".legend");
const knobsOf = (box) => [box.querySelector('[type="checkbox"]'), box.querySelector('[type="range"]')];

// One state a gallery: whether its masks show, and how strongly.
const masks = new Map();

function showMasks(gallery, change) {
  const state = Object.assign(masks.get(gallery), change);
  const shown = [[gallery, gallery.querySelector(".knobs")]];
  if (now.group === gallery) shown.push([viewer, viewer]);
  for (const [box, knobs] of shown) {
    const [toggle, slider] = knobsOf(knobs);
    toggle.checked = state.on;
    slider.value = state.opacity;
    box.style.setProperty("--mask", state.on ? state.opacity / 100 : 0);
  }
}

function listen(knobs, gallery) {
  const [toggle, slider] = knobsOf(knobs);
  toggle.addEventListener("change", () => showMasks(gallery(), { on: toggle.checked }));
  slider.addEventListener("input", () => showMasks(gallery(), { on: true, opacity: Number(slider.value) }));
}

// The picture that is open: the `at`-th of its group.
const now = { group: null, buttons: [], at: 0 };

function enlarge(button) {
  now.group = button.closest("[data-group]");
  now.buttons = [...now.group.querySelectorAll(".open")];
  viewer.classList.toggle("alone", now.buttons.length === 1);
  viewer.classList.toggle("plain", !masks.has(now.group));
  legend.replaceChildren(...[...now.group.querySelectorAll(".legend li")].map((name) => name.cloneNode(true)));
  if (masks.has(now.group)) showMasks(now.group, {});
  show(now.buttons.indexOf(button));
  viewer.showModal();
}

function show(index) {
  now.at = (index + now.buttons.length) % now.buttons.length;
  const pictures = [...now.buttons[now.at].querySelectorAll(".picture")].map((picture) => {
    const figure = document.createElement("figure");
    const caption = document.createElement("figcaption");
    const { width, height } = picture.querySelector("img").attributes;
    figure.style.setProperty("--ratio", width.value / height.value);
    caption.textContent = picture.dataset.caption;
    figure.append(picture.cloneNode(true), caption);
    return figure;
  });
  stage.replaceChildren(...pictures);
  const title = now.group.querySelector("h3").textContent;
  place.textContent = now.buttons.length > 1 ? `${title}: ${now.at + 1} of ${now.buttons.length}` : title;
}

async function copy(button) {
  const code = button.parentElement.querySelector("code");
  try {
    await navigator.clipboard.writeText(code.textContent);
  } catch {
    // Where a page from a disk may not write to the clipboard, it may still copy what is selected.
    getSelection().selectAllChildren(code);
    if (!document.execCommand("copy")) return; // it stays selected: copy by hand
    getSelection().removeAllRanges();
  }
  button.textContent = "Copied";
  button.classList.add("done");
  setTimeout(() => {
    button.textContent = "Copy";
    button.classList.remove("done");
  }, 1500);
}

for (const knobs of document.querySelectorAll(".knobs")) {
  const gallery = knobs.closest("[data-group]");
  masks.set(gallery, { on: true, opacity: Number(knobsOf(knobs)[1].value) });
  listen(knobs, () => gallery);
  showMasks(gallery, {});
  knobs.hidden = false;
}
listen(viewer, () => now.group);

for (const button of document.querySelectorAll(".open")) button.addEventListener("click", () => enlarge(button));
for (const button of document.querySelectorAll(".copy")) {
  button.addEventListener("click", () => copy(button));
  button.hidden = false;
}

viewer.querySelector(".close").addEventListener("click", () => viewer.close());
viewer.querySelector(".back").addEventListener("click", () => show(now.at - 1));
viewer.querySelector(".next").addEventListener("click", () => show(now.at + 1));
viewer.addEventListener("click", (event) => {
  if (event.target === viewer) viewer.close(); // beside it
});
viewer.addEventListener("close", () => {
  stage.replaceChildren();
  now.buttons[now.at].focus();
});
viewer.addEventListener("keydown", (event) => {
  if (event.target.type === "range") return; // there the arrows move the slider
  if (event.key === "ArrowLeft") show(now.at - 1);
  else if (event.key === "ArrowRight") show(now.at + 1);
  else if (event.key.toLowerCase() === "m" && masks.has(now.group)) {
    showMasks(now.group, { on: !masks.get(now.group).on });
  } else return;
  event.preventDefault();
});

// The section one is in: the last that begins above a line near the top. Over the last screen of the page the
// line sinks to its end, or the short sections there would never be reached.
const links = new Map([...document.querySelectorAll(".contents li a")].map((a) => [a.hash.slice(1), a]));

function follow() {
  const left = document.documentElement.scrollHeight - innerHeight - scrollY;
  const line = innerHeight * (1 - 0.75 * Math.min(1, left / innerHeight));
  const begun = [...links.keys()].filter((id) => document.getElementById(id).getBoundingClientRect().top <= line);
  for (const [id, link] of links) {
    if (id === begun.at(-1)) link.setAttribute("aria-current", "true");
    else link.removeAttribute("aria-current");
  }
}
addEventListener("scroll", follow, { passive: true });
addEventListener("resize", follow);
follow();
