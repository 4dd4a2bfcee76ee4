"""The page in a real browser, headless, against real servers on this machine.

Every visit ends with the same three questions: was another host asked, did the console complain,
was anything refused that should not be. AUTONEURAL_SCREENSHOTS=1 draws the docs' pictures anew.
"""

from __future__ import annotations

import base64
import dataclasses
import io
import os
import re
import shutil
from collections.abc import Callable, Iterator, Set
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from autoneural.demo import EXAMPLES
from autoneural.runtime import Piece
from autoneural.serve.app import create_app
from autoneural.serve.models import Models, Served
from autoneural.serve.settings import Settings
from autoneural.serve.worker import Worker
from tests.serve import helpers
from tests.serve.helpers import SLOW_STEP, SlowEngine, client, picture_bytes, running, slow_app

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
expect = sync_api.expect

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
)
DOCS = Path(__file__).resolve().parents[2] / "docs"
DRAWS = os.environ.get("AUTONEURAL_SCREENSHOTS") == "1"
DESKTOP = {"viewport": {"width": 1280, "height": 860}}
PHONE = {
    "viewport": {"width": 390, "height": 844},
    "device_scale_factor": 2,
    "is_mobile": True,
    "has_touch": True,
}
SECONDS = 30_000
GONE = 0
"""Stands for a server that does not answer, among the statuses that a visit may meet."""
CHAT = "**/v1/chat/completions"
FAR_TOO_LONG = "What is this? " * 1000


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if CHROMIUM is None:
        pytest.skip("no chromium here: the page is not tested in a browser")
    expect.set_options(timeout=SECONDS)
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        yield browser
        browser.close()


Visit = Callable[..., Any]


@pytest.fixture
def visit(browser) -> Iterator[Visit]:
    """`visit(url)` opens the page; `refused` are the statuses that its requests may meet."""
    opened: list[tuple[Any, list[str]]] = []

    def visit(url: str, refused: Set[int] = frozenset(), **options: Any) -> Any:
        page = browser.new_context(**{**DESKTOP, **options}).new_page()
        page.set_default_timeout(SECONDS)
        wrong: list[str] = []
        page.on("request", lambda each: None if _stays(each.url, url) else wrong.append(each.url))
        page.on("response", lambda each: wrong.extend(_refusal(each, refused)))
        page.on("requestfailed", lambda each: wrong.extend(_failure(each, refused)))
        page.on("console", lambda each: wrong.extend(_complaint(each)))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        opened.append((page, wrong))
        # With its thumbnails: a test may end its server before a page that is still loading closes.
        page.goto(url, wait_until="networkidle")
        return page

    yield visit
    for page, wrong in opened:
        page.context.close()
        assert wrong == []


def _stays(asked: str, url: str) -> bool:
    return asked.startswith((f"{url}/", f"blob:{url}/", "data:"))


def _refusal(response: Any, allowed: Set[int]) -> list[str]:
    fine = response.status < 400 or response.status in allowed
    return [] if fine else [f"{response.status} {response.url}"]


def _failure(request: Any, allowed: Set[int]) -> list[str]:
    fine = request.failure == "net::ERR_ABORTED" or GONE in allowed
    return [] if fine else [f"{request.failure} {request.url}"]


def _complaint(message: Any) -> list[str]:
    # The browser notes what was refused or failed; that has been judged already.
    noted = message.text.startswith("Failed to load resource:")
    return [] if noted or message.type not in ("error", "warning") else [message.text]


@contextmanager
def slow_server(served: Served, engine: Any, **settings: Any) -> Iterator[str]:
    with running(slow_app(served, engine, Settings(keepalive=0, **settings))) as (url, _):
        yield url


def ended(page: Any, count: int = 1) -> Any:
    """The last turn, once there are `count` and no answer is on its way."""
    expect(page.locator(".turn")).to_have_count(count)
    expect(page.locator(".answer[aria-busy]")).to_have_count(0)
    return page.locator(".turn").nth(count - 1)


def facts(turn: Any) -> dict[str, str]:
    pairs = turn.locator(".facts > div").all()
    return {each.locator("dt").inner_text(): each.locator("dd").inner_text() for each in pairs}


def asked(page: Any, action: Callable[[], Any]) -> dict[str, Any]:
    """The body of the request for an answer that `action` makes."""
    with page.expect_request(CHAT) as request:
        action()
    return request.value.post_data_json


def write(page: Any, text: str) -> None:
    page.get_by_role("textbox", name="Question").fill(text)


def example(page: Any, title: str) -> Any:
    return page.get_by_role("navigation", name="Examples").get_by_role("button", name=title)


def attach(page: Any, data: bytes, name: str = "plate.png", kind: str = "image/png") -> None:
    page.locator("#files").set_input_files([{"name": name, "mimeType": kind, "buffer": data}])


def test_an_example_and_its_second_question(visit, url) -> None:
    page = visit(url)
    expect(page.locator("#model-name")).to_have_text("cockpit-tiny")
    body = asked(page, example(page, "Child on the back seat").click)
    (message,) = body["messages"]
    picture = base64.b64encode((EXAMPLES / "child.jpg").read_bytes()).decode()
    assert message["content"][0]["image_url"]["url"] == f"data:image/jpeg;base64,{picture}"
    turn = ended(page)
    with client(url) as http:
        answer = http.post("/v1/chat/completions", json={**body, "stream": False}).json()
    assert turn.locator(".answer").inner_text() == answer["choices"][0]["message"]["content"]
    expect(turn.locator(".verdict")).to_have_text(re.compile("^(as expected|expected: .+)$"))
    expect(page.locator("#announcement")).to_have_text(turn.locator(".answer").inner_text())

    shown = facts(turn)
    assert re.fullmatch(r"[\d.,]+ m?s", shown["First token"])
    assert re.fullmatch(r"[\d.,]+ m?s|kept", shown["Image encode"])
    prompt = answer["usage"]["prompt_tokens"]
    assert shown["Cached"].endswith(f" of {prompt} tokens")
    assert shown["Context"] == f"{answer['usage']['total_tokens']} of 1,024"

    again = asked(page, turn.get_by_role("button").click)["messages"]
    assert [each["role"] for each in again] == ["user", "assistant", "user"]
    assert again[0] == message
    assert again[1]["content"] == turn.locator(".answer").inner_text()
    assert [part["type"] for part in again[2]["content"]] == ["text"]
    assert "Image encode" not in facts(ended(page, 2))
    expect(page.locator(".turn").first.locator(".next")).to_be_hidden()


def test_another_example_and_a_new_chat_begin_anew(visit, url) -> None:
    page = visit(url)
    example(page, "HMI understanding").click()
    ended(page)
    body = asked(page, example(page, "Greeter").click)
    assert len(body["messages"]) == 1
    ended(page)
    page.get_by_role("button", name="New chat").click()
    expect(page.locator(".turn")).to_have_count(0)
    expect(page.get_by_role("heading", name="Ask about a picture")).to_be_visible()


_TRANSFER = """([data, kind]) => {
  const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
  const dataTransfer = new DataTransfer();
  dataTransfer.items.add(new File([bytes], "plate.png", { type: "image/png" }));
  const options = { bubbles: true, cancelable: true };
  document.getElementById("question").dispatchEvent(kind === "drop"
    ? new DragEvent("drop", { dataTransfer, ...options })
    : new ClipboardEvent("paste", { clipboardData: dataTransfer, ...options }));
}"""


@pytest.mark.parametrize("way", ["file", "drop", "paste"])
def test_pictures_come_in_go_out_and_are_sent(visit, url, way: str) -> None:
    page = visit(url)
    first, second = picture_bytes(1), picture_bytes(2)
    for data in (first, second):
        if way == "file":
            attach(page, data)
        else:
            page.evaluate(_TRANSFER, [base64.b64encode(data).decode(), way])
    thumbnails = page.get_by_role("list", name="Pictures to send").get_by_role("img")
    expect(thumbnails).to_have_count(2)
    page.get_by_role("button", name="Remove picture 1, plate.png").click()
    expect(thumbnails).to_have_count(1)
    write(page, "What is this?")
    content = asked(page, page.get_by_role("button", name="Send").click)["messages"][0]["content"]
    assert content == helpers.ask("What is this?", helpers.data_url(second))["content"]
    expect(thumbnails).to_have_count(0)
    turn = ended(page)
    expect(turn.get_by_role("img", name="plate.png")).to_be_visible()

    # A picture in the second turn: the first one stays where it was.
    attach(page, first)
    expect(thumbnails).to_have_count(1)
    messages = asked(page, page.get_by_role("button", name="Send").click)["messages"]
    assert messages[0]["content"] == content
    assert [part["image_url"]["url"] for part in messages[2]["content"]] == [
        helpers.data_url(first)
    ]
    assert "Image encode" in facts(ended(page, 2))


def test_a_drag_shows_where_to_drop(visit, url) -> None:
    page = visit(url)
    page.evaluate("""() => {
      const dataTransfer = new DataTransfer();
      dataTransfer.items.add(new File(["x"], "a.png", { type: "image/png" }));
      dispatchEvent(new DragEvent("dragover", { dataTransfer, cancelable: true }));
    }""")
    expect(page.locator("#drop")).to_be_visible()
    page.evaluate("() => { dispatchEvent(new DragEvent('dragleave')); }")
    expect(page.locator("#drop")).to_be_hidden()


def test_other_formats_and_large_pictures_are_drawn_again(visit, url) -> None:
    page = visit(url)
    file = io.BytesIO()
    Image.new("RGB", (64, 48), "teal").save(file, "AVIF")
    attach(page, file.getvalue(), "teal.avif", "image/avif")
    # Uncompressed, so that it is over the limit; wider than what is sent.
    file = io.BytesIO()
    Image.new("RGB", (2100, 700), "orange").save(file, "BMP")
    attach(page, file.getvalue(), "orange.bmp", "image/bmp")
    expect(page.locator("#attached img")).to_have_count(2)
    content = asked(page, page.get_by_role("button", name="Send").click)["messages"][0]["content"]
    pictures = [_decoded(part["image_url"]["url"]) for part in content]
    assert [(each.format, each.size) for each in pictures] == [
        ("JPEG", (64, 48)),
        ("JPEG", (2048, 683)),
    ]
    teal = np.asarray(pictures[0], dtype=np.int64)[20, 30]
    assert np.abs(teal - (0, 128, 128)).max() < 10
    ended(page)


def _decoded(url: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(url.split(",")[1])))


def test_what_is_no_picture_is_said(visit, url) -> None:
    page = visit(url)
    attach(page, b"hello", "notes.txt", "text/plain")
    expect(page.get_by_role("alert")).to_contain_text(
        "notes.txt is no picture that this browser can read"
    )
    page.get_by_role("button", name="Hide this error").click()
    expect(page.get_by_role("alert")).to_have_count(0)
    expect(page.get_by_role("button", name="Send")).to_be_disabled()


def test_the_camera(visit, url) -> None:
    page = visit(url)
    page.get_by_role("button", name="Use the camera").click()
    dialog = page.get_by_role("dialog", name="Camera")
    dialog.get_by_role("button", name="Cancel").click()
    expect(dialog).to_have_count(0)
    expect(page.locator("#attached img")).to_have_count(0)

    page.get_by_role("button", name="Use the camera").click()
    page.wait_for_timeout(500)  # until the camera has a first picture
    dialog.get_by_role("button", name="Take the picture").click()
    expect(page.get_by_role("button", name="Remove picture 1, camera.jpg")).to_be_visible()
    assert page.evaluate("document.querySelector('video').srcObject") is None
    content = asked(page, page.get_by_role("button", name="Send").click)["messages"][0]["content"]
    assert _decoded(content[0]["image_url"]["url"]).size > (100, 100)
    ended(page)


def test_a_camera_that_is_refused_is_said(visit, url) -> None:
    page = visit(url)
    page.evaluate("""() => {
      navigator.mediaDevices.getUserMedia = async () => {
        throw new DOMException("no", "NotAllowedError");
      };
    }""")
    page.get_by_role("button", name="Use the camera").click()
    expect(page.get_by_role("alert")).to_contain_text("camera: the browser was not allowed")


@pytest.mark.parametrize("way", ["button", "Escape"])
def test_an_answer_streams_and_stops_on_the_server(visit, served, way: str) -> None:
    engine = SlowEngine()
    with slow_server(served, engine) as url:
        page = visit(url)
        write(page, "Say much.")
        page.keyboard.press("Enter")
        answer = page.locator(".answer[aria-busy]")
        expect(answer).to_have_text(re.compile("^x{3,}$"))
        before = len(answer.inner_text())
        expect(answer).to_have_text(re.compile(f"^x{{{before + 3},}}$"))
        if way == "button":
            page.get_by_role("button", name="Stop").click()
        else:
            page.keyboard.press("Escape")
        said = ended(page).locator(".answer").inner_text()
        expect(page.locator(".verdict")).to_have_text("stopped")
        expect(page.get_by_role("textbox", name="Question")).to_be_focused()
        with client(url) as http:
            helpers.wait_until(lambda: 'end="gone"' in http.get("/metrics").text)
            steps = engine.steps
            page.wait_for_timeout(20 * 1000 * SLOW_STEP)
            assert engine.steps == steps < engine.letters

        engine.letters = 2
        write(page, "And now?")
        messages = asked(page, lambda: page.keyboard.press("Enter"))["messages"]
        assert messages[1] == {"role": "assistant", "content": said}
        ended(page, 2)


def test_an_example_may_interrupt_an_answer(visit, served) -> None:
    engine = SlowEngine()
    with slow_server(served, engine) as url:
        page = visit(url)
        example(page, "Greeter").click()
        expect(page.locator(".answer")).to_have_text(re.compile("x"))
        engine.letters = 3
        example(page, "AI sentinel").click()
        expect(page.locator(".answer")).to_have_text("xxx")
        expect(ended(page).locator(".question")).to_have_text(re.compile("^What is going on"))


MARKUP = "<img src=x onerror=alert(1)> <b>bold</b> & \n  indented"


class MarkupEngine(SlowEngine):
    """Says something that would be a picture and a script, were it markup."""

    def answer(self, *args: Any, **options: Any) -> Any:
        return _Markup(super().answer(*args, **options))


class _Markup:
    def __init__(self, generation: Any) -> None:
        self.result = generation.result

    def __iter__(self) -> Iterator[Piece]:
        return (Piece(letter) for letter in MARKUP)


def test_what_the_model_says_is_text(visit, served) -> None:
    with slow_server(served, MarkupEngine(letters=1)) as url:
        page = visit(url)
        write(page, "<i>Hello</i>")
        page.keyboard.press("Enter")
        turn = ended(page)
        assert turn.locator(".answer").text_content() == MARKUP
        assert turn.locator(".question").text_content() == "<i>Hello</i>"
        assert turn.locator("img, b, i").count() == 0


def test_a_refused_question_comes_back_with_its_picture(visit, url) -> None:
    page = visit(url, refused={400})
    attach(page, picture_bytes(3))
    expect(page.locator("#attached img")).to_have_count(1)
    write(page, FAR_TOO_LONG)
    page.get_by_role("button", name="Send").click()
    alert = page.get_by_role("alert")
    expect(alert).to_contain_text("but the context of cockpit-tiny holds 1024")
    expect(alert).to_contain_text("messages · context_length_exceeded · HTTP 400")
    expect(page.locator(".turn")).to_have_count(0)
    expect(page.locator("#attached img")).to_have_count(1)
    assert page.get_by_role("textbox", name="Question").input_value() == FAR_TOO_LONG.strip()
    write(page, "What is this?")
    messages = asked(page, lambda: page.keyboard.press("Enter"))["messages"]
    assert len(messages) == 1
    expect(alert).to_have_count(0)
    ended(page)


def test_an_answer_that_fails_on_its_way(visit, served) -> None:
    with slow_server(served, SlowEngine(), timeout=0.5) as url:
        page = visit(url)
        write(page, "Say much.")
        page.keyboard.press("Enter")
        expect(page.get_by_role("alert")).to_contain_text("no complete answer within 0.5 s")
        expect(ended(page).locator(".verdict")).to_have_text("incomplete")


def test_a_server_that_is_gone(visit, served) -> None:
    with slow_server(served, SlowEngine()) as url:
        page = visit(url, refused={GONE})
        expect(example(page, "Greeter")).to_be_visible()
    write(page, "Hello?")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("the server cannot be reached")
    expect(page.get_by_role("textbox", name="Question")).to_have_value("Hello?")


def test_the_key_is_asked_for_and_kept_in_the_tab(visit, served) -> None:
    with slow_server(served, SlowEngine(letters=1), api_keys=("secret",)) as url:
        page = visit(url, refused={401})
        dialog = page.get_by_role("dialog", name="API key")
        field = dialog.get_by_label("Key", exact=True)
        field.fill("wrong")
        dialog.get_by_role("button", name="Use this key").click()
        expect(field).to_have_value("")
        expect(page.locator("#error")).to_contain_text("wrong or missing API key")
        field.fill("secret")
        field.press("Enter")
        expect(dialog).to_have_count(0)
        expect(page.locator("#error")).to_be_hidden()
        example(page, "Greeter").click()
        ended(page)
        page.reload()
        expect(example(page, "Greeter")).to_be_visible()
        assert page.evaluate("sessionStorage.getItem('key')") == "secret"
        assert "secret" not in page.evaluate("JSON.stringify(localStorage)")
        assert page.context.cookies() == []


def test_the_model_can_be_chosen_where_there_are_several(visit, served) -> None:
    models = Models([_stand_in(served, name) for name in ("first", "second")])
    with running(create_app(models, Settings())) as (url, _):
        page = visit(url)
        picker = page.get_by_role("combobox", name="Model")
        expect(picker.locator("option")).to_have_text(["first", "second"])
        write(page, "Hello")
        assert asked(page, lambda: page.keyboard.press("Enter"))["model"] == "first"
        ended(page)
        picker.select_option("second")
        write(page, "Hello")
        assert asked(page, lambda: page.keyboard.press("Enter"))["model"] == "second"
        ended(page, 2)


def _stand_in(served: Served, name: str) -> Served:
    """Another name for `served`, with a worker of its own: a server that ends stops its workers."""
    worker = Worker(name, lambda: SlowEngine(letters=1))
    worker.start()
    return dataclasses.replace(served, name=name, worker=worker, requests=0, jobs=set())


def test_one_model_needs_no_picker(visit, url) -> None:
    page = visit(url)
    expect(page.locator("#model-name")).to_be_visible()
    expect(page.get_by_role("combobox")).to_have_count(0)


def _is_dark(page: Any) -> bool:
    colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
    return sum(int(part) for part in re.findall(r"\d+", colour)[:3]) < 3 * 128


@pytest.mark.parametrize("system", ["light", "dark"])
def test_dark_and_light(visit, url, system: str) -> None:
    page = visit(url, color_scheme=system)
    assert _is_dark(page) is (system == "dark")
    toggle = page.get_by_role("button", name="Dark colours")
    expect(toggle).to_have_attribute("aria-pressed", "true" if system == "dark" else "false")
    toggle.click()
    assert _is_dark(page) is (system == "light")
    page.reload()
    assert _is_dark(page) is (system == "light")
    expect(toggle).to_have_attribute("aria-pressed", "true" if system == "light" else "false")


def _overflow(page: Any) -> int:
    return page.evaluate("document.documentElement.scrollWidth - innerWidth")


def _is_inside(page: Any, locator: Any) -> bool:
    box, width = locator.bounding_box(), page.viewport_size["width"]
    return box["x"] >= 0 and box["x"] + box["width"] <= width


@pytest.mark.parametrize("width", [320, 390])
def test_a_phone_is_wide_enough(visit, served, width: int) -> None:
    phone = {**PHONE, "viewport": {"width": width, "height": 700}}
    with slow_server(served, SlowEngine(letters=200)) as url:
        page = visit(url, **phone)
        expect(example(page, "Greeter")).to_be_visible()
        assert _overflow(page) <= 0
        example(page, "A clip of four pictures").tap()
        ended(page)  # 200 letters without a space
        for seed in range(5):
            attach(page, picture_bytes(seed))
        expect(page.locator("#attached img")).to_have_count(5)
        assert _overflow(page) <= 0
        for name in ("Add pictures", "Use the camera", "Send", "New chat", "Dark colours"):
            assert _is_inside(page, page.get_by_role("button", name=name)), name
        assert page.evaluate("document.querySelector('main').scrollWidth") <= width


def test_by_keyboard_alone(visit, url) -> None:
    page = visit(url)
    expect(example(page, "Fatigue driving")).to_be_visible()
    box = page.get_by_role("textbox", name="Question")
    expect(box).to_be_focused()
    page.keyboard.type("What speed")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("is shown?")
    expect(box).to_have_value("What speed\nis shown?")
    messages = asked(page, lambda: page.keyboard.press("Enter"))["messages"]
    assert messages[0]["content"] == [{"type": "text", "text": "What speed\nis shown?"}]
    ended(page)
    expect(box).to_be_focused()
    expect(box).to_have_value("")

    page.keyboard.press("Shift+Tab")
    last = example(page, "A clip of four pictures")
    expect(last).to_be_focused()
    assert last.evaluate("each => getComputedStyle(each).outlineStyle") == "solid"
    page.keyboard.press("Enter")
    turn = ended(page)
    expect(turn.get_by_role("img")).to_have_count(4)


def test_an_unfinished_word_is_not_sent(visit, url) -> None:
    page = visit(url)
    write(page, "sokudo")
    page.evaluate("""() => {
      const enter = { key: "Enter", isComposing: true, bubbles: true, cancelable: true };
      document.getElementById("question").dispatchEvent(new KeyboardEvent("keydown", enter));
    }""")
    expect(page.get_by_role("textbox", name="Question")).to_have_value("sokudo")
    expect(page.locator(".turn")).to_have_count(0)


def test_every_control_has_a_name(visit, url) -> None:
    page = visit(url)
    attach(page, picture_bytes())
    example(page, "Greeter").click()
    ended(page)
    nameless = page.evaluate("""() =>
      [...document.querySelectorAll("button, select, textarea, input:not([hidden])")]
        .filter((each) => !(each.ariaLabel || each.textContent.trim() || each.labels?.length))
        .map((each) => each.outerHTML)""")
    assert nameless == []
    assert page.locator("img:not([alt])").count() == 0


@pytest.mark.skipif(not DRAWS, reason="AUTONEURAL_SCREENSHOTS=1 draws the docs' pictures anew")
def test_the_pictures_of_the_docs(visit, url) -> None:
    page = visit(url)
    example(page, "Child on the back seat").click()
    ended(page).get_by_role("button").click()
    ended(page, 2)
    _draw(page, "page-desktop.png")
    phone = visit(url, **PHONE, color_scheme="dark")
    expect(example(phone, "Greeter")).to_be_visible()
    _draw(phone, "page-phone.png")


def _draw(page: Any, name: str) -> None:
    page.mouse.move(0, 0)
    page.wait_for_timeout(300)
    Image.open(io.BytesIO(page.screenshot())).convert("RGB").save(DOCS / name, optimize=True)
