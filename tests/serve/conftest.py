"""One server over the embedded bundle for all tests, on a real socket of this machine."""

from __future__ import annotations

from collections.abc import Iterator

import httpx2
import openai
import pytest
from fastapi import FastAPI

from autoneural.bundle import EMBEDDED, Bundle
from autoneural.runtime import Engine
from autoneural.serve.app import create_app
from autoneural.serve.models import Models, Placing, Served
from autoneural.serve.settings import Settings
from tests.serve.helpers import client, running


@pytest.fixture(scope="session")
def bundle() -> Bundle:
    return Bundle.load(EMBEDDED / "cockpit-tiny")


@pytest.fixture(scope="session")
def served(bundle: Bundle) -> Served:
    return Served.start(bundle, Placing(threads=1), Settings(keepalive=0))


@pytest.fixture(scope="session")
def app(served: Served) -> FastAPI:
    return create_app(Models([served]), Settings())


@pytest.fixture(scope="session")
def url(app: FastAPI) -> Iterator[str]:
    with running(app) as (url, _):
        yield url


@pytest.fixture(scope="session")
def http(url: str) -> Iterator[httpx2.Client]:
    with client(url) as http:
        yield http


@pytest.fixture(scope="session")
def oai(url: str) -> Iterator[openai.OpenAI]:
    with httpx2.Client(trust_env=False) as http:
        yield openai.OpenAI(base_url=f"{url}/v1", api_key="any", max_retries=0, http_client=http)


@pytest.fixture
def alone(served: Served) -> Engine:
    """An engine that nobody has asked anything."""
    return Placing(threads=1).engine(served.bundle)
