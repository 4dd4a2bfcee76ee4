// The turns: what was asked and answered, as the API wants to hear it and as the page shows it.
// Text of the model is only ever set as textContent.

const number = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const fine = new Intl.NumberFormat("en", { maximumSignificantDigits: 3 });

export class Turn {
  text = "";
  #ended = false;

  constructor(template, question, pictures, expected) {
    Object.assign(this, { question, pictures, expected });
    this.element = template.content.cloneNode(true).firstElementChild;
    this.#find(".question").textContent = question;
    this.#find(".question").hidden = !question;
    this.#find(".pictures").append(...pictures.map(shown));
    this.#find(".pictures").dataset.count = pictures.length;
    this.#find(".answer").setAttribute("aria-busy", "true");
  }

  add(text) {
    this.text += text;
    this.#find(".answer").textContent = this.text;
  }

  /** The answer has ended; `timings` are there unless it was broken off, `why` says so. */
  end(timings, context, why) {
    this.#ended = true;
    this.#find(".answer").removeAttribute("aria-busy");
    if (timings) this.#find(".facts").append(...facts(timings, context, this.pictures.length));
    if (why) this.#verdict(why, "cut");
    else if (this.expected !== undefined) this.#compare();
  }

  /** Offers a next question below the answer. */
  offer(question, onChoose) {
    const button = this.#find(".next");
    button.textContent = question;
    button.hidden = false;
    button.addEventListener("click", () => onChoose(), { once: true });
  }

  withdrawOffer() {
    this.#find(".next").hidden = true;
  }

  /** The two messages of the API, or the first of them while the answer is on its way. */
  messages() {
    const images = this.pictures.map(({ data }) => ({ type: "image_url", image_url: { url: data } }));
    const words = this.question ? [{ type: "text", text: this.question }] : [];
    const asked = { role: "user", content: [...images, ...words] };
    return this.#ended ? [asked, { role: "assistant", content: this.text }] : [asked];
  }

  release() {
    this.pictures.forEach(({ url }) => URL.revokeObjectURL(url));
  }

  #compare() {
    const same = this.text.trim().toLowerCase() === this.expected.toLowerCase();
    this.#verdict(same ? "as expected" : `expected: ${this.expected}`, same ? "right" : "wrong");
  }

  #verdict(words, kind) {
    const verdict = this.#find(".verdict");
    verdict.textContent = words;
    verdict.dataset.kind = kind;
    verdict.hidden = false;
  }

  #find(selector) {
    return this.element.querySelector(selector);
  }
}

function shown({ url, name }) {
  const item = document.createElement("li");
  const image = new Image();
  image.src = url;
  image.alt = name;
  item.append(image);
  return item;
}

/** The timings of an answer as pairs of <dt> and <dd>; what was not measured is left out. */
function facts(timings, context, pictures) {
  const { ttft_ms, queue_ms, predicted_n, predicted_per_second: rate, cache_n } = timings;
  const prompt = timings.prompt_n + cache_n;
  return [
    ["First token", ttft_ms !== null && ms(ttft_ms)],
    ["Waited", queue_ms >= 100 && ms(queue_ms)],
    ["Image encode", encoding(timings, pictures)],
    ["Speed", predicted_n > 2 && rate && `${fine.format(rate)} tokens/s`],
    ["Answer", `${number.format(predicted_n)} ${predicted_n === 1 ? "token" : "tokens"}`],
    ["Cached", `${number.format(cache_n)} of ${number.format(prompt)} tokens`],
    ["Context", context && `${number.format(prompt + predicted_n)} of ${number.format(context)}`],
  ]
    .filter(([, value]) => value)
    .map(([name, value]) => pair(name, value));
}

function encoding({ image_n, image_encode_ms }, pictures) {
  if (image_n === 0) return pictures > 0 && "kept";
  const all = ms(image_encode_ms);
  return image_n === 1 ? all : `${all} for ${number.format(image_n)}`;
}

function pair(name, value) {
  const group = document.createElement("div");
  const term = document.createElement("dt");
  const detail = document.createElement("dd");
  term.textContent = name;
  detail.textContent = value;
  group.append(term, detail);
  return group;
}

function ms(value) {
  return value < 1000 ? `${fine.format(value)} ms` : `${fine.format(value / 1000)} s`;
}
