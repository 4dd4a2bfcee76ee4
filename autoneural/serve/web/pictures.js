// Files -> pictures that can be sent, and the tray of those that wait in the composer.

const AS_THEY_ARE = ["image/jpeg", "image/png", "image/webp", "image/bmp", "image/gif"];
const LARGE_BYTES = 4 * 2 ** 20;
const LONGEST_SIDE = 2048;

/**
 * A picture: `name`, `url` to show it, `data` to send it. Small files of the server's formats go as
 * they are; others are drawn again as JPEG. Throws an Error for what this browser cannot read.
 */
export async function readPicture(file) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(file);
  } catch {
    throw new Error(`${file.name || "the file"} is no picture that this browser can read`);
  }
  const asItIs = AS_THEY_ARE.includes(file.type) && file.size <= LARGE_BYTES;
  const blob = asItIs ? file : await drawn(bitmap);
  bitmap.close();
  return { name: file.name || "picture", url: URL.createObjectURL(blob), data: await dataUrl(blob) };
}

async function drawn(bitmap) {
  const scale = Math.min(1, LONGEST_SIDE / Math.max(bitmap.width, bitmap.height));
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.round(bitmap.width * scale));
  canvas.height = Math.max(1, Math.round(bitmap.height * scale));
  const context = canvas.getContext("2d");
  context.fillStyle = "#fff";
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  return new Promise((resolve) => canvas.toBlob(resolve, "image/jpeg", 0.92));
}

function dataUrl(blob) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result);
    reader.onerror = () => reject(reader.error);
    reader.readAsDataURL(blob);
  });
}

/** The pictures that go with the next question. `onChange` is called after every change. */
export class Tray {
  #pictures = [];

  constructor(list, template, onChange) {
    this.list = list;
    this.template = template;
    this.onChange = onChange;
  }

  get size() {
    return this.#pictures.length;
  }

  add(pictures) {
    this.#pictures.push(...pictures);
    this.#show();
  }

  /** Empties the tray and gives what was in it; the pictures stay valid. */
  take() {
    const taken = this.#pictures;
    this.#pictures = [];
    this.#show();
    return taken;
  }

  #remove(picture) {
    const at = this.#pictures.indexOf(picture);
    this.#pictures.splice(at, 1);
    URL.revokeObjectURL(picture.url);
    this.#show();
    this.list.querySelectorAll("button")[Math.min(at, this.size - 1)]?.focus();
  }

  #show() {
    this.list.replaceChildren(...this.#pictures.map((picture, i) => this.#item(picture, i + 1)));
    this.onChange();
  }

  #item(picture, number) {
    const item = this.template.content.cloneNode(true);
    const image = item.querySelector("img");
    image.src = picture.url;
    image.alt = picture.name;
    const button = item.querySelector("button");
    button.setAttribute("aria-label", `Remove picture ${number}, ${picture.name}`);
    button.title = "Remove";
    button.addEventListener("click", () => this.#remove(picture));
    return item;
  }
}
