"""The server keeps to its own /openapi.json, whatever that document allows, and what it forbids."""

from __future__ import annotations

from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import Case, GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.schemas import BaseSchema
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

ROUTES = {
    ("GET", "/health"): 1,
    ("GET", "/metrics"): 1,
    ("GET", "/props"): 5,
    ("GET", "/v1/models"): 1,
    ("GET", "/v1/models/{model_id}"): 5,
    ("POST", "/v1/chat/completions"): 20,
    ("POST", "/v1/completions"): 20,
    ("POST", "/tokenize"): 10,
    ("POST", "/detokenize"): 10,
}
"""Requests to each, of the right and of the wrong kind."""
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]
RIGHT = [(*route, GenerationMode.POSITIVE) for route in ROUTES]
WRONG = [(*route, GenerationMode.NEGATIVE) for route in ROUTES if route[0] == "POST"]


@pytest.fixture(scope="module")
def session() -> requests.Session:
    session = requests.Session()
    session.trust_env = False
    return session


@pytest.fixture(scope="module")
def document(http) -> dict[str, Any]:
    return http.get("/openapi.json").json()


@pytest.fixture(scope="module")
def api(document: dict[str, Any], url: str) -> BaseSchema:
    schema = schemathesis.openapi.from_dict(document)
    schema.config.update(base_url=url)
    return schema


def keep_short(body: Any) -> None:
    """Ask for two tokens where the number of tokens is not what is wrong."""
    for name in ("max_tokens", "max_completion_tokens"):
        if isinstance(body, dict) and (body.get(name) is None or is_count(body[name])):
            body[name] = 2


def is_count(value: Any) -> bool:
    return isinstance(value, int) and value is not True and 0 < value < 2**31


def test_all_routes_are_asked(document: dict[str, Any]) -> None:
    there = {(m.upper(), path) for path, each in document["paths"].items() for m in each}
    assert there == set(ROUTES)


@pytest.mark.parametrize(("method", "path", "mode"), [*RIGHT, *WRONG])
def test_the_document_holds(
    api: BaseSchema, session: requests.Session, method: str, path: str, mode: GenerationMode
) -> None:
    operation = api[path][method]
    seen: list[int] = []

    @settings(
        max_examples=ROUTES[method, path],
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def ask(case: Case) -> None:
        if "completions" in path:
            keep_short(case.body)
        seen.append(case.call_and_validate(session=session, checks=CHECKS).status_code)

    ask()
    if mode is GenerationMode.NEGATIVE:
        assert 400 in seen
    elif path not in ("/props", "/v1/models/{model_id}", "/v1/chat/completions"):
        assert 200 in seen
