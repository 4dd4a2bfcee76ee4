// The cockpit examples: a gallery before the first question, a strip of small pictures after it.

import { getBlob, getJson } from "./api.js";
import { readPicture } from "./pictures.js";

/** Fills `list`; `onChoose(files, turns)` gets the pictures and questions of the chosen one. */
export async function showExamples(list, template, onChoose) {
  const cases = await getJson("examples");
  const items = await Promise.all(cases.map((each) => item(each, template, onChoose)));
  list.replaceChildren(...items);
}

async function item({ title, images, turns }, template, onChoose) {
  const files = await Promise.all(images.map(fetchFile));
  const fragment = template.content.cloneNode(true);
  const button = fragment.querySelector("button");
  const mosaic = fragment.querySelector(".mosaic");
  mosaic.dataset.count = images.length;
  mosaic.append(...files.map(thumbnail));
  fragment.querySelector("b").textContent = title;
  fragment.querySelector(".words span").textContent = turns[0].prompt;
  button.title = `${title}: ${turns[0].prompt}`;
  button.addEventListener("click", async () => {
    onChoose(await Promise.all(files.map(readPicture)), turns);
  });
  return fragment;
}

async function fetchFile(name) {
  return new File([await getBlob(`examples/${encodeURIComponent(name)}`)], name, {
    type: "image/jpeg",
  });
}

function thumbnail(file) {
  const image = new Image();
  image.src = URL.createObjectURL(file);
  image.alt = "";
  return image;
}
