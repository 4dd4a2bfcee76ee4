"""The page at `/` and the cockpit examples it offers. It asks nothing of any other machine.

The files of the page need no API key, so that it can ask for one; its examples do, as all routes.
Its policy lets nothing run or load but these files, and the browser refuses to make markup of text.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fastapi import APIRouter
from starlette.exceptions import HTTPException
from starlette.responses import Response

from autoneural.demo import DemoCase, load_demo
from autoneural.serve.errors import Json

_FOLDER = Path(__file__).with_name("web")
_FILES = {
    "index.html": "text/html",
    "page.css": "text/css",
    "theme.js": "text/javascript",
    "page.js": "text/javascript",
    "api.js": "text/javascript",
    "camera.js": "text/javascript",
    "conversation.js": "text/javascript",
    "examples.js": "text/javascript",
    "pictures.js": "text/javascript",
    "icon.svg": "image/svg+xml",
}
PAGE_PATHS = ("/", *(f"/web/{name}" for name in _FILES if name != "index.html"))
"""What a browser may load without a key."""

_HEADERS = {
    "Content-Security-Policy": "; ".join(
        (
            "default-src 'self'",
            "img-src 'self' data: blob:",
            "object-src 'none'",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
            "require-trusted-types-for 'script'",
            "trusted-types 'none'",
        )
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(self), microphone=(), geolocation=()",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
}

router = APIRouter(include_in_schema=False)


@router.get("/")
def page() -> Response:
    """The page itself."""
    return _file("index.html", "no-store")


@router.get("/web/{name}")
def page_file(name: str) -> Response:
    """Its style, scripts and icon: those of the list, nothing else in the folder."""
    if f"/web/{name}" not in PAGE_PATHS:
        raise HTTPException(404)
    return _file(name, "no-cache")


@router.get("/examples")
def examples() -> Json:
    """The questions of `autoneural demo`, with the names of their pictures and right answers."""
    return Json([_case(case) for case in load_demo()])


@router.get("/examples/{name}")
def example_picture(name: str) -> Response:
    """A picture of an example."""
    for path in (path for case in load_demo() for path in case.images):
        if path.name == name:
            headers = {**_HEADERS, "Cache-Control": "no-cache"}
            return Response(path.read_bytes(), media_type="image/jpeg", headers=headers)
    raise HTTPException(404)


def _file(name: str, cache: str) -> Response:
    headers = {**_HEADERS, "Cache-Control": cache}
    return Response((_FOLDER / name).read_bytes(), media_type=_FILES[name], headers=headers)


def _case(case: DemoCase) -> dict[str, Any]:
    return {
        "title": case.title,
        "images": [path.name for path in case.images],
        "turns": [{"prompt": turn.prompt, "expected": turn.expected} for turn in case.turns],
    }
