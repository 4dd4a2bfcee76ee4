"""Structured answers and speculation over HTTP: what fits, what is kept, what waits for what."""

from __future__ import annotations

import json
import sys
import threading
from typing import Literal

import openai
import pytest
from pydantic import BaseModel, Field

from autoneural import cli
from autoneural.runtime.constraint import Constraint
from autoneural.serve import forms
from autoneural.serve.app import create_app
from autoneural.serve.forms import Forms
from autoneural.serve.models import Models, Placing, Served
from autoneural.serve.schemas import ChatRequest
from autoneural.serve.settings import Settings
from tests.serve.helpers import ask, call, data_url, error_of, picture_bytes

CHAT, PLAIN = "/v1/chat/completions", "/v1/completions"
MODEL = "cockpit-tiny"
QUESTION = [ask("Which lamp is on, and how fast is the car?")]


class Cluster(BaseModel):
    """What a question about the cluster may be answered with."""

    lamp: Literal["oil", "battery", "none"]
    speed: int = Field(ge=0, le=260)


SCHEMA = {
    "type": "object",
    "properties": {
        "lamp": {"enum": ["oil", "battery", "none"]},
        "speed": {"type": "integer", "minimum": 0, "maximum": 260},
    },
    "required": ["lamp", "speed"],
    "additionalProperties": False,
}
# Compiles, and turns out to be too much at the first property.
WIDE = {"type": "object", "properties": {f"p{i}": {"type": "integer"} for i in range(900)}}


def named(schema) -> dict:
    """OpenAI's form."""
    holder = {"name": "cluster", "strict": True, "schema": schema}
    return {"type": "json_schema", "json_schema": holder}


def test_a_pydantic_model_comes_back(oai: openai.OpenAI) -> None:
    reply = oai.chat.completions.parse(model=MODEL, messages=QUESTION, response_format=Cluster)
    assert reply.choices[0].finish_reason == "stop"
    assert isinstance(reply.choices[0].message.parsed, Cluster)


def test_a_pydantic_model_streams(oai: openai.OpenAI) -> None:
    messages = [ask("Which lamp is on?", data_url(picture_bytes()))]
    whole = oai.chat.completions.parse(model=MODEL, messages=messages, response_format=Cluster)
    with oai.chat.completions.stream(
        model=MODEL, messages=messages, response_format=Cluster
    ) as stream:
        pieces = [event.delta for event in stream if event.type == "content.delta"]
        final = stream.get_final_completion()
    assert "".join(pieces) == whole.choices[0].message.content
    assert pieces  # how many is a matter of time: what waits goes out together
    assert final.choices[0].message.parsed == whole.choices[0].message.parsed


@pytest.mark.parametrize(
    "form",
    [
        named(SCHEMA),
        {"type": "json_schema", "schema": SCHEMA},
        {"type": "json_object", "schema": SCHEMA},
    ],
)
def test_every_shape_of_a_schema_holds_at_any_temperature(http, form: dict) -> None:
    body = {"messages": QUESTION, "response_format": form, "n": 4, "temperature": 2, "seed": 5}
    choices = http.post(CHAT, json=body).json()["choices"]
    found = [Cluster.model_validate_json(choice["message"]["content"]) for choice in choices]
    assert len({str(each) for each in found}) > 1
    assert [choice["finish_reason"] for choice in choices] == ["stop"] * 4


def test_any_object(http) -> None:
    body = {"messages": QUESTION, "response_format": {"type": "json_object"}, "max_tokens": 400}
    choice = http.post(CHAT, json=body).json()["choices"][0]
    assert choice["finish_reason"] == "stop"
    assert isinstance(json.loads(choice["message"]["content"]), dict)


def test_text_is_free(http) -> None:
    free = http.post(CHAT, json={"messages": QUESTION}).json()["choices"]
    text = http.post(CHAT, json={"messages": QUESTION, "response_format": {"type": "text"}})
    assert text.json()["choices"] == free


def test_a_plain_completion_follows_a_schema(oai: openai.OpenAI) -> None:
    reply = oai.completions.create(
        model=MODEL,
        prompt="The cluster as JSON: ",
        max_tokens=60,
        extra_body={"response_format": named(SCHEMA)},
    )
    Cluster.model_validate_json(reply.choices[0].text)
    assert reply.choices[0].finish_reason == "stop"


def test_an_answer_that_is_cut_off_says_so(http) -> None:
    body = {"messages": QUESTION, "response_format": named(SCHEMA), "max_tokens": 4}
    choice = http.post(CHAT, json=body).json()["choices"][0]
    assert choice["finish_reason"] == "length"
    assert choice["message"]["content"].startswith('{"')


def test_logprobs_are_the_models_own(http) -> None:
    body = {"messages": QUESTION, "response_format": named(SCHEMA), "logprobs": True}
    choice = http.post(CHAT, json=body).json()["choices"][0]
    tokens = choice["logprobs"]["content"]
    assert "".join(token["token"] for token in tokens) == choice["message"]["content"]
    assert min(token["logprob"] for token in tokens) < -1  # it would have said something else


DEEP: dict = {}
for _ in range(40):
    DEEP = {"properties": {"a": DEEP}}
HALF_A_LETTER = json.loads('"\\ud800"')
WRONG = [
    ("json", "response_format", None),
    ({}, "response_format.type", None),
    ({"type": "xml"}, "response_format.type", "json_object"),
    ({"type": "json_schema"}, "response_format.json_schema.schema", "missing"),
    (named(None), "response_format.json_schema.schema", "missing"),
    ({"type": "json_schema", "json_schema": 3}, "response_format.json_schema", None),
    (named([]), "response_format", "a schema is a JSON object"),
    ({"type": "json_object", "schema": False}, "response_format", "a schema is a JSON object"),
    (named({"type": "nope"}), "response_format", "nope"),
    (named({"properties": {"a": {"not": {}}}}), "response_format", "/properties/a: "),
    (named({"$ref": "http://127.0.0.1/s"}), "response_format", "does not fetch"),
    (named({"pattern": "(", "type": "string"}), "response_format", "unclosed group"),
    (named({"pattern": "(a{1000}){1000}"}), "response_format", "10000 characters"),
    (named(DEEP), "response_format", "nested deeper than 32"),
    (named({"enum": ["x" * 40_000]}), "response_format", "32768"),
    (named({"enum": [HALF_A_LETTER]}), "response_format", None),
    (named({"minimum": 10**400}), "response_format", None),
    (named({"enum": []}), "response_format", "Unsatisfiable"),
    (named(WIDE), "response_format", "too complex to be followed"),
]


@pytest.mark.parametrize(("form", "param", "words"), WRONG, ids=lambda v: str(v)[:40])
@pytest.mark.parametrize("path", [CHAT, PLAIN])
def test_a_wrong_form_is_named(http, path: str, form, param: str, words: str | None) -> None:
    prompt = {"messages": QUESTION} if path == CHAT else {"prompt": "a"}
    data = json.dumps({**prompt, "response_format": form})
    response = http.post(path, content=data, headers={"Content-Type": "application/json"})
    assert response.status_code == 400
    error = error_of(response)
    assert (error["param"], error["type"]) == (param, "invalid_request_error")
    assert (words or "response_format") in error["message"]


def test_a_form_that_fails_on_the_way_ends_the_stream_and_nothing_else(http) -> None:
    plain = {"messages": QUESTION, "logprobs": True}
    before = http.post(CHAT, json=plain).json()["choices"]
    body = {"messages": QUESTION, "response_format": named(WIDE), "stream": True}
    stream = http.post(CHAT, json=body)
    assert stream.status_code == 200
    *_, last = [line for line in stream.text.split("\n\n") if line]
    error = json.loads(last.removeprefix("data: "))["error"]
    assert error["param"] == "response_format"
    assert "too complex to be followed" in error["message"]
    assert http.post(CHAT, json=plain).json()["choices"] == before


def test_without_the_extra_it_says_what_to_install(app, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "llguidance", None)
    form = named({"type": "integer", "title": "not compiled before"})
    for path, prompt in ((CHAT, {"messages": QUESTION}), (PLAIN, {"prompt": "a"})):
        response = call(app, "POST", path, json={**prompt, "response_format": form})
        assert response.status_code == 400
        assert error_of(response)["param"] == "response_format"
        assert "pip install 'autoneural[schema]'" in error_of(response)["message"]
    assert call(app, "POST", CHAT, json={"messages": QUESTION}).status_code == 200


def test_a_slow_schema_holds_nobody_up(app, monkeypatch) -> None:
    begun, go = threading.Event(), threading.Event()
    compile_now = Constraint.json_schema

    def slowly(*args):
        begun.set()
        assert go.wait(20)
        return compile_now(*args)

    monkeypatch.setattr(Constraint, "json_schema", slowly)
    body = {"messages": QUESTION, "response_format": named({**SCHEMA, "title": "slow"})}
    replies: list = []
    asking = threading.Thread(
        target=lambda: replies.append(call(app, "POST", CHAT, json=body)), daemon=True
    )
    asking.start()
    assert begun.wait(20)
    picture = [ask("what?", data_url(picture_bytes(3)))]
    assert call(app, "POST", CHAT, json={"messages": picture}).status_code == 200
    assert not replies
    go.set()
    asking.join(20)
    Cluster.model_validate_json(replies[0].json()["choices"][0]["message"]["content"])


def test_what_was_compiled_is_kept_for_a_while(served: Served, monkeypatch) -> None:
    compiled: list[dict] = []
    compile_now = Constraint.json_schema

    def counted(schema, *rest):
        compiled.append(schema)
        return compile_now(schema, *rest)

    monkeypatch.setattr(Constraint, "json_schema", counted)
    monkeypatch.setattr(forms, "KEPT", 2)
    kept = Forms(served.processor.tokenizer)

    def follow(schema: dict) -> Constraint | None:
        body = {"messages": [{"role": "user", "content": "a"}], "response_format": named(schema)}
        return kept.chat(ChatRequest.model_validate(body)).constraint

    first, turned = SCHEMA, {**SCHEMA, "properties": dict(reversed(SCHEMA["properties"].items()))}
    assert follow(first) is follow(json.loads(json.dumps(first)))
    # The answer's properties come in the order of the schema's: another order, another constraint.
    assert follow(turned) is not follow(first)
    assert compiled == [first, turned]
    follow({"type": "integer"})  # `turned` was asked for longest ago
    follow(first)
    assert len(compiled) == 3
    follow(turned)
    assert len(compiled) == 4


@pytest.fixture(scope="module")
def speculating(bundle) -> Served:
    """In exact steps, so that drafts always pay and change no bit."""
    return Served.start(bundle, Placing(threads=1, exact=True), Settings(keepalive=0))


@pytest.mark.parametrize("kind", ["forced", "lookup", "lookahead"])
@pytest.mark.parametrize("form", [None, named(SCHEMA)], ids=["free", "json"])
def test_drafts_change_nothing_but_the_timings(speculating: Served, kind, form) -> None:
    app = create_app(Models([speculating]), Settings(speculate=kind))
    text = "The lamp is oil, the lamp is oil. Which lamp is on?"
    body = {"messages": [ask(text)], "logprobs": True, "response_format": form}
    fast = call(app, "POST", CHAT, json=body).json()
    plain = call(app, "POST", CHAT, json={**body, "speculate": "off"}).json()
    assert fast["choices"] == plain["choices"]
    assert plain["timings"]["draft_n"] == 0
    if kind == "lookahead" or form:
        assert fast["timings"]["draft_n"] >= fast["timings"]["draft_n_accepted"]
        assert fast["timings"]["draft_n"] > 0
    props = call(app, "GET", "/props").json()
    assert props["default_generation_settings"]["speculate"] == kind
    # A form that fails between drafts leaves the engine as it was.
    wrong = call(app, "POST", CHAT, json={**body, "response_format": named(WIDE)})
    assert wrong.status_code == 400
    assert call(app, "POST", CHAT, json=body).json()["choices"] == fast["choices"]


def test_the_command_line_reaches_the_server(monkeypatch) -> None:
    seen: list = []
    monkeypatch.setattr("autoneural.serve.run.serve", lambda *args, **_: seen.extend(args))
    assert cli.main(["serve", "--speculate", "lookup", "--exact"]) == 0
    _, _, settings, placing = seen
    assert (settings.speculate, placing.exact) == ("lookup", True)
    assert cli.main(["serve", "--speculate", "guess"]) == 2
