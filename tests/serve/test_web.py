"""The routes of the page: what is served, to whom, under which policy; and what a wheel carries."""

from __future__ import annotations

import re
import tomllib
from html.parser import HTMLParser
from pathlib import Path

import pytest

from autoneural.demo import EXAMPLES, load_demo
from autoneural.serve import web
from autoneural.serve.app import create_app
from autoneural.serve.models import Models
from autoneural.serve.settings import Settings
from autoneural.serve.web import PAGE_PATHS
from tests.serve.helpers import call, error_of

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "autoneural"
FOLDER = Path(web.__file__).with_name("web")
FILES = sorted(FOLDER.iterdir())
SCRIPTS = [path for path in FILES if path.suffix == ".js"]
KINDS = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}


def test_the_page_itself(app) -> None:
    response = call(app, "GET", "/")
    assert response.status_code == 200
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    assert response.headers["cache-control"] == "no-store"
    assert response.content == (FOLDER / "index.html").read_bytes()


@pytest.mark.parametrize("path", [p for p in FILES if p.suffix != ".html"], ids=lambda p: p.name)
def test_its_files(app, path: Path) -> None:
    response = call(app, "GET", f"/web/{path.name}")
    assert response.content == path.read_bytes()
    assert response.headers["content-type"].split(";")[0] == KINDS[path.suffix]
    assert response.headers["cache-control"] == "no-cache"


@pytest.mark.parametrize("path", [*PAGE_PATHS, "/examples/driver.jpg"])
def test_the_policy_holds_for_every_file(app, path: str) -> None:
    headers = call(app, "GET", path).headers
    policy = dict(part.split(" ", 1) for part in headers["content-security-policy"].split("; "))
    assert policy["default-src"] == "'self'"
    assert policy["img-src"] == "'self' data: blob:"
    assert {policy[name] for name in ("object-src", "base-uri", "frame-ancestors")} == {"'none'"}
    assert policy["require-trusted-types-for"] == "'script'"
    assert "unsafe" not in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    "path",
    [
        "/web/index.html",
        "/web/",
        "/web",
        "/web/web.py",
        "/web/../app.py",
        "/web/..%2fapp.py",
        "/web/%2e%2e/app.py",
        "/web/page.js/",
        "/web/PAGE.JS",
        "/web/page.js%00",
        "/examples/demo.json",
        "/examples/..%2fdemo.py",
        "/examples/nobody.jpg",
        "/page.js",
        "/index.html",
    ],
)
def test_nothing_else_is_served(app, path: str) -> None:
    response = call(app, "GET", path)
    assert response.status_code == 404
    error_of(response)


def test_the_list_is_the_folder() -> None:
    names = {path.name for path in FILES} - {"index.html"}
    assert set(PAGE_PATHS) == {"/"} | {f"/web/{name}" for name in names}


def test_a_wheel_carries_the_page() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    patterns = project["tool"]["setuptools"]["package-data"]["autoneural"]
    carried = {path for pattern in patterns for path in PACKAGE.glob(pattern)}
    assert set(FILES) <= carried


def test_the_examples_are_those_of_the_demo(app) -> None:
    cases = call(app, "GET", "/examples").json()
    assert [case["title"] for case in cases] == [case.title for case in load_demo()]
    assert cases[0]["images"] == ["driver.jpg"]
    assert set(cases[0]["turns"][0]) == {"prompt", "expected"}
    for name in {name for case in cases for name in case["images"]}:
        response = call(app, "GET", f"/examples/{name}")
        assert response.headers["content-type"] == "image/jpeg"
        assert response.content == (EXAMPLES / name).read_bytes()


def test_the_page_needs_no_key_and_all_it_calls_does(served) -> None:
    app = create_app(Models([served]), Settings(api_keys=("secret",)))
    for path in PAGE_PATHS:
        assert call(app, "GET", path).status_code == 200, path
    for path in ("/examples", "/examples/driver.jpg", "/v1/models", "/web/nothing", "/web"):
        response = call(app, "GET", path)
        assert response.status_code == 401, path
        assert error_of(response)["code"] == "invalid_api_key"
        key = {"Authorization": "Bearer secret"}
        assert call(app, "GET", path, headers=key).status_code in (200, 404), path


def test_the_page_is_no_route_for_machines(app) -> None:
    assert not set(call(app, "GET", "/openapi.json").json()["paths"]) & {"/", "/examples"}


class _Markup(HTMLParser):
    """What a page loads and what its policy would forbid."""

    def __init__(self) -> None:
        super().__init__()
        self.loads: set[str] = set()
        self.forbidden: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = dict(attrs)
        inline = tag == "style" or (tag == "script" and "src" not in names)
        if inline or any(name == "style" or name.startswith("on") for name in names):
            self.forbidden.append(self.get_starttag_text() or tag)
        if tag in ("script", "img", "link"):
            self.loads |= {names.get("src") or names.get("href") or ""} - {""}


def test_the_page_loads_only_its_own_files_and_has_nothing_inline() -> None:
    markup = _Markup()
    markup.feed((FOLDER / "index.html").read_text(encoding="utf-8"))
    assert markup.forbidden == []
    assert "web/page.js" in markup.loads
    assert {f"/{each}" for each in markup.loads} <= set(PAGE_PATHS)


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.name)
def test_no_other_host_is_named(path: Path) -> None:
    text = path.read_text(encoding="utf-8").replace('xmlns="http://www.w3.org/2000/svg"', "")
    assert not re.search(r"\b(https?|wss?):|//\w+\.\w", text)


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda p: p.name)
def test_scripts_make_no_markup_and_stay_small(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|\beval\b", text)
    assert len(text.splitlines()) <= 320, "split the file"
    for name in re.findall(r'from "\./([^"]+)"', text):
        assert f"/web/{name}" in PAGE_PATHS
