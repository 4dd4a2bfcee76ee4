"""A template of a stage as a page that needs nothing but a browser, and prints.

Names come from outside: every text is escaped, control characters are made visible, and the page's
own policy lets no script run but the one it is written with.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from autoneural.page.plain import plain, visible

_STYLE = Path(__file__).with_name("style.css.jinja")


def render_page(
    template: Path,
    values: dict[str, Any],
    filters: dict[str, Callable[..., Any]],
    script: Path | None = None,
) -> str:
    """The page as text; the template gets `values`, `style`, `script` and `script_hash`."""
    environment = Environment(
        loader=FileSystemLoader(template.parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=visible,
    )
    environment.filters.update(filters, path=_path)
    code = script.read_text(encoding="utf-8") if script else ""
    digest = base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()
    return environment.get_template(template.name).render(
        **values,
        # Files of this package need no escaping.
        style=Markup(_STYLE.read_text(encoding="utf-8")),
        script=Markup(code),
        script_hash=f"sha256-{digest}",
    )


def _path(name: str) -> Markup:
    """A dotted name that may break into lines at its dots."""
    return Markup(".<wbr>").join(plain(name).split("."))
