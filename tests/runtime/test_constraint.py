"""Answers under a constraint: they always have the form that was asked for, or say why not."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from autoneural.bundle import DEFAULT_BUNDLE
from autoneural.data.tokenizer import Tokenizer
from autoneural.errors import UserError
from autoneural.runtime.constraint import Constraint, _table
from autoneural.runtime.engine import Engine
from autoneural.runtime.sampling import Sampler, Sampling
from tests.runtime.helpers import answer, ask, picture

QUESTION = [ask("what is it?", picture(1))]
BOX = {"type": "array", "items": {"enum": [0, 128, 255]}, "minItems": 2, "maxItems": 4}
NESTED = {
    "type": "object",
    "properties": {
        "lamp": {
            "type": "object",
            "properties": {
                "on": {"type": "boolean"},
                "colour": {"anyOf": [{"const": "red"}, {"type": "null"}]},
            },
            "required": ["on", "colour"],
            "additionalProperties": False,
        },
        "count": {"$ref": "#/$defs/small"},
    },
    "required": ["lamp", "count"],
    "additionalProperties": False,
    "$defs": {"small": {"type": "integer", "minimum": 0, "maximum": 9}},
}


def is_nested(value: Any) -> bool:
    lamp = value["lamp"]
    return (
        (list(value), list(lamp)) == (["lamp", "count"], ["on", "colour"])
        and lamp["on"] in (True, False)
        and lamp["colour"] in ("red", None)
        and 0 <= value["count"] <= 9
        and isinstance(value["count"], int)
    )


def is_box(value: Any) -> bool:
    return isinstance(value, list) and 2 <= len(value) <= 4 and {*value} <= {0, 128, 255}


SCHEMAS: dict[str, tuple[dict[str, Any], Callable[[Any], bool]]] = {
    "enum": ({"enum": ["red", "green", 3, None]}, lambda v: v in ("red", "green", 3, None)),
    "integer": (
        {"type": "integer", "minimum": -3, "exclusiveMaximum": 120},
        lambda v: isinstance(v, int) and -3 <= v < 120,
    ),
    "nested": (NESTED, is_nested),
    "array": (BOX, is_box),
    "pattern": (
        {"type": "string", "pattern": "^[A-Z]{2}-[0-9]{3}$"},
        lambda v: re.fullmatch("[A-Z]{2}-[0-9]{3}", v) is not None,
    ),
    "length": (
        {"type": "string", "minLength": 3, "maxLength": 6},
        lambda v: isinstance(v, str) and 3 <= len(v) <= 6,
    ),
    "format": (
        {"type": "string", "format": "date"},
        lambda v: re.fullmatch(r"\d{4}-\d{2}-\d{2}", v) is not None,
    ),
}
SAMPLINGS = [
    Sampling(),
    *(Sampling(temperature=t, seed=seed) for t in (0.7, 3.0) for seed in range(3)),
    Sampling(temperature=2.0, top_k=3, top_p=0.9, min_p=0.05, repetition_penalty=1.5, seed=9),
]


@pytest.fixture(scope="module")
def tokenizer(shared_engine: Engine) -> Tokenizer:
    return shared_engine.tokenizer


@pytest.mark.parametrize("name", SCHEMAS)
def test_answers_always_have_the_form(engine: Engine, name: str) -> None:
    schema, holds = SCHEMAS[name]
    constraint = Constraint.json_schema(schema, engine.tokenizer)
    texts = set()
    for sampling in SAMPLINGS:
        result = answer(engine, QUESTION, sampling=sampling, constraint=constraint)
        assert result.finish_reason == "stop"
        assert holds(json.loads(result.text)), result.text
        texts.add(result.text)
    assert len(texts) > 1  # the constraint leaves a choice
    free = answer(engine, QUESTION, max_tokens=24)
    assert free.text not in texts


def test_the_embedded_model_follows_a_schema() -> None:
    engine = Engine(DEFAULT_BUNDLE, "cpu", threads=1)
    constraint = Constraint.json_schema(NESTED, engine.tokenizer)
    for sampling in SAMPLINGS[:4]:
        result = answer(engine, QUESTION, sampling=sampling, constraint=constraint)
        assert is_nested(json.loads(result.text))


def test_an_answer_that_is_cut_says_so(engine: Engine) -> None:
    constraint = Constraint.json_schema(BOX, engine.tokenizer)
    whole = answer(engine, QUESTION, constraint=constraint)
    tokens = len(whole.token_ids)
    cut = answer(engine, QUESTION, constraint=constraint, max_tokens=tokens - 1)
    assert (cut.finish_reason, len(cut.token_ids)) == ("length", tokens - 1)
    assert whole.text.startswith(cut.text)
    # All of it within the limit: not cut, although the limit is reached.
    exact = answer(engine, QUESTION, constraint=constraint, max_tokens=tokens)
    assert (exact.finish_reason, exact.text) == ("stop", whole.text)


def test_a_constrained_answer_leaves_nothing_behind(engine: Engine) -> None:
    before = answer(engine, QUESTION, max_tokens=12)
    answer(engine, QUESTION, constraint=Constraint.json_schema(BOX, engine.tokenizer))
    assert answer(engine, QUESTION, max_tokens=12).token_ids == before.token_ids


def ids_of(masked: np.ndarray) -> set[int]:
    return set(np.flatnonzero(np.isfinite(masked)).tolist())


def follows(constraint: Constraint, text: str, tokenizer: Tokenizer) -> bool:
    """Whether `text`, whole, is what the constraint allows."""
    progress = constraint.copy()
    logits = np.zeros(tokenizer.vocab_size, np.float32)
    for token in tokenizer.encode(text, parse_special=False):
        if token not in ids_of(progress.mask(logits)):
            return False
        progress.accept(token)
    return tokenizer.eos_id in ids_of(progress.mask(logits))


@pytest.mark.parametrize("said", ["", "1", "42", "421", "421-", "421-ab"])
def test_the_mask_is_what_every_token_alone_would_say(tokenizer: Tokenizer, said: str) -> None:
    progress = Constraint.regex("[0-9]{3}-[a-z]{1,4}", tokenizer).copy()
    for token in tokenizer.encode(said):
        progress.accept(token)
    wanted = {
        i
        for i, data in enumerate(tokenizer.byte_table())
        if i not in tokenizer.special_ids
        and re.fullmatch("[0-9]{1,3}|[0-9]{3}-[a-z]{0,4}", said + data.decode("latin-1"))
    }
    if re.fullmatch("[0-9]{3}-[a-z]{1,4}", said):
        wanted.add(tokenizer.eos_id)
    # A model may have more rows than the vocabulary has tokens: none of those.
    logits = np.zeros(tokenizer.vocab_size + 11, np.float32)
    found = ids_of(progress.mask(logits))
    assert found == wanted
    assert not logits.any()


def test_forced_is_what_must_come_and_no_more(tokenizer: Tokenizer) -> None:
    schema = {
        "type": "object",
        "properties": {"lamp": {"type": "integer"}},
        "required": ["lamp"],
        "additionalProperties": False,
    }
    constraint = Constraint.json_schema(schema, tokenizer)
    forced = constraint.forced(99)
    assert tokenizer.decode(forced) == '{"lamp":'  # a space may follow, or a digit
    assert constraint.forced(2) == forced[:2]
    for token in forced:
        assert np.isfinite(constraint.mask(np.zeros(tokenizer.vocab_size))[token])
        constraint.accept(token)
    assert constraint.forced(99) == []


def test_finished_is_when_only_the_end_may_come(tokenizer: Tokenizer) -> None:
    progress = Constraint.regex("[0-9]", tokenizer).copy()
    assert not progress.finished
    progress.accept(tokenizer.encode("4")[0])
    assert progress.finished
    assert ids_of(progress.mask(np.zeros(320, np.float32))) == {tokenizer.eos_id}
    endless = Constraint.regex("[0-9]+", tokenizer).copy()
    endless.accept(tokenizer.encode("4")[0])
    assert not endless.finished
    assert tokenizer.eos_id in ids_of(endless.mask(np.zeros(320, np.float32)))


def test_special_tokens_never_stand_inside_a_string(tokenizer: Tokenizer) -> None:
    progress = Constraint.json_schema({"type": "string"}, tokenizer).copy()
    progress.accept(tokenizer.encode('"')[0])
    assert not ids_of(progress.mask(np.zeros(320, np.float32))) & tokenizer.special_ids


@pytest.mark.parametrize(
    ("text", "fits"),
    [
        ('{"a": [1, {"b": null}], "é": "x\\n"}', True),
        ("{}", True),
        ('{"a":1}', True),
        ("[1]", False),
        ('"a"', False),
        ("{'a': 1}", False),
        ('{"a": 01}', False),
        ('{"a": 1} ', False),
        ('{"a":  1}', False),
        ('{ "a": 1}', False),
        ('{"a": 1', False),
    ],
)
def test_any_object(tokenizer: Tokenizer, text: str, fits: bool) -> None:
    assert follows(Constraint.json_object(tokenizer), text, tokenizer) is fits


def test_a_schema_cannot_set_the_compiler_options(tokenizer: Tokenizer) -> None:
    options = {"lenient": True, "whitespace_pattern": " {9}", "item_separator": ";"}
    schema = {"type": "array", "items": {"type": "integer"}, "x-guidance": options}
    constraint = Constraint.json_schema(schema, tokenizer)
    assert follows(constraint, "[1, 2]", tokenizer)
    assert not follows(constraint, "[1;2]", tokenizer)
    with pytest.raises(UserError, match="uniqueItems"):
        Constraint.json_schema({**schema, "uniqueItems": True}, tokenizer)


def test_one_constraint_serves_many_answers(tokenizer: Tokenizer) -> None:
    constraint = Constraint.regex("ab", tokenizer)
    first, second = constraint.copy(), constraint.copy()
    first.accept(tokenizer.encode("a")[0])
    logits = np.zeros(320, np.float32)
    assert ids_of(first.mask(logits)) != ids_of(second.mask(logits))
    assert ids_of(second.mask(logits)) == ids_of(constraint.copy().mask(logits))


def test_the_mask_comes_before_every_filter(tokenizer: Tokenizer) -> None:
    logits = np.zeros(320, np.float32)
    liked = tokenizer.encode("x")[0]
    logits[liked] = 50.0
    constraint = Constraint.regex("[0-9]+", tokenizer)
    for sampling in SAMPLINGS:
        sampler = Sampler(sampling, [liked], constraint)
        for _ in range(5):
            assert sampler.sample(logits) != liked
            if sampler.finished:
                break


def test_the_table_of_a_tokenizer_is_made_once(tokenizer: Tokenizer) -> None:
    assert _table(tokenizer) is _table(tokenizer)


@pytest.mark.parametrize(
    ("schema", "line"),
    [
        ({"type": "strin"}, "json_schema: Invalid type: strin"),
        (
            {"properties": {"a/b": {"items": {"type": 3}}}},
            "json_schema: /properties/a~1b/items: type must be a string or array of strings",
        ),
        (
            {"$defs": {"x": {"not": {}}}, "$ref": "#/$defs/x"},
            'json_schema: /$defs/x: Unimplemented keys: ["not"]',
        ),
        (
            {"anyOf": [{"type": "null"}, {"oneOf": [{"type": "object"}, {"type": "object"}]}]},
            "json_schema: /anyOf/1: oneOf constraints are not supported here; anyOf is",
        ),
        (
            {"type": "integer", "minimum": 3, "maximum": 1},
            "json_schema: Unsatisfiable schema: minimum (3) is greater than maximum (1)",
        ),
        (
            {"properties": {"a": {"type": "x"}, "ab": {"type": "x"}}},
            "json_schema: /properties/a: Invalid type: x",
        ),
        ({"$ref": "#"}, "json_schema: no answer can satisfy it"),
        ({"$ref": "#/nope"}, "json_schema: Pointer '/nope' does not exist"),
        ({"$ref": "file:///etc/passwd"}, "does not fetch resources"),
        ({"$ref": "http://127.0.0.1:1/x"}, "does not fetch resources"),
        ({"type": "string", "pattern": "(a"}, "unclosed group"),
        ({"type": "string", "pattern": "(?=a)b"}, "look-around"),
        ({"type": "string", "format": "nope"}, "json_schema: Unknown format: nope"),
        ({"type": "\x1b[31m"}, "json_schema: Invalid type: [31m"),
        ({"enum": [], "description": "x" * 9999}, "anyOf is empty"),
        ({"enum": ["\ud800"]}, "json_schema: Value is not JSON serializable: '\\ud800'"),
        ({"minimum": 10**400}, "json_schema: Value is not JSON serializable: 1000"),
        ({"minimum": "é" * 50}, "json_schema: a value of the wrong type"),
    ],
)
def test_a_schema_that_cannot_be_followed_is_one_line(
    tokenizer: Tokenizer, schema: dict[str, Any], line: str
) -> None:
    with pytest.raises(UserError) as caught:
        Constraint.json_schema(schema, tokenizer)
    assert line in str(caught.value)
    assert len(str(caught.value)) < 400
    assert str(caught.value).isprintable()


def test_wrong_expressions_and_grammars_are_one_line(tokenizer: Tokenizer) -> None:
    with pytest.raises(UserError, match=r"^regex: .*unclosed group"):
        Constraint.regex("(", tokenizer)
    with pytest.raises(UserError, match=r"^regex: a pattern for more than 10000 characters"):
        Constraint.regex("(a{1000}){1000}", tokenizer)
    with pytest.raises(UserError, match=r'^grammar: .*unknown name: "nope"'):
        Constraint.lark("start: nope", tokenizer)


def test_a_schema_too_complex_to_follow_ends_the_answer_with_an_error(engine: Engine) -> None:
    wide = {"properties": {f"p{i}": {"type": "integer"} for i in range(900)}}
    constraint = Constraint.json_schema({"type": "object", **wide}, engine.tokenizer, "wide")
    generation = engine.generate(QUESTION, constraint=constraint)
    with pytest.raises(UserError, match=r"^wide: too complex to be followed \("):
        list(generation)
    assert answer(engine, QUESTION, max_tokens=2).token_ids


def test_without_the_library_the_extra_is_named(
    tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "llguidance", None)
    for make in (
        lambda: Constraint.json_schema({}, tokenizer),
        lambda: Constraint.json_object(tokenizer),
        lambda: Constraint.regex("a", tokenizer),
        lambda: Constraint.lark('start: "a"', tokenizer),
    ):
        with pytest.raises(UserError, match=r"llguidance.*pip install 'autoneural\[schema\]'"):
            make()
