"""Tools: what may be offered, calls read out of text however it is cut, and nothing that runs."""

from __future__ import annotations

import json
import random
import time
from typing import Any

import numpy as np
import pytest

from autoneural.data.tokenizer import Tokenizer
from autoneural.data.tool_calls import CALL_END, CALL_START, render_calls
from autoneural.errors import UserError
from autoneural.runtime.engine import Engine
from autoneural.runtime.pythonic import Malformed, read_calls
from autoneural.runtime.sampling import Sampler, Sampling
from autoneural.runtime.stream import TextStream
from autoneural.runtime.tools import (
    MAX_CALL_CHARS,
    MAX_CALLS,
    ToolCall,
    ToolSplitter,
    call_constraint,
    check_tools,
)
from tests.runtime.helpers import answer, ask

WIPE = {
    "name": "wipe",
    "description": "Wipe the windscreen.",
    "parameters": {
        "type": "object",
        "properties": {
            "speed": {"$ref": "#/$defs/speed"},
            "where": {"enum": ["front", "rear"]},
        },
        "required": ["speed"],
        "$defs": {"speed": {"type": "integer", "minimum": 1, "maximum": 3}},
    },
}
STOP = {"name": "stop-all"}
TOOLS = check_tools([{"type": "function", "function": WIPE}, STOP])


def call(name: str, **arguments: Any) -> ToolCall:
    return ToolCall(name=name, arguments=arguments)


def marked(inside: str) -> str:
    return f"{CALL_START}{inside}{CALL_END}"


def split(*texts: str) -> tuple[str, list[ToolCall]]:
    """Text and calls of a whole answer that comes in pieces."""
    splitter = ToolSplitter()
    parts = [*(splitter.push(text) for text in texts), splitter.flush()]
    return "".join(text for text, _ in parts), [c for _, calls in parts for c in calls]


@pytest.mark.parametrize(
    ("inside", "wanted"),
    [
        ('[wipe(speed=2, where="front")]', [call("wipe", speed=2, where="front")]),
        ("[a(), b(x=1)]", [call("a"), call("b", x=1)]),
        ("wipe(speed=2)", [call("wipe", speed=2)]),
        (
            "[f(a=True, b=None, c=-1.5e2, d=false)]",
            [call("f", a=True, b=None, c=-150.0, d=False)],
        ),
        ("[get-x.y(a='it\\'s', b=(1, [2],),)]", [call("get-x.y", a="it's", b=[1, [2]])]),
        ('[f(o={"k": {"j": []}})]', [call("f", o={"k": {"j": []}})]),
        ('[f(code="a\nb", more="""c"d""")]', [call("f", code="a\nb", more='c"d')]),
        (r'[f(p="\d\n\x41\u00e9\ud83d\ude00\/")]', [call("f", p="\\d\nAé😀/")]),
        ('[{"name": "wipe", "arguments": {"speed": 2}}]', [call("wipe", speed=2)]),
        ('{"name": "stop-all"}', [call("stop-all")]),
        ('[{"name": "a"}, {"name": "b", "arguments": {}}]', [call("a"), call("b")]),
    ],
)
def test_calls_are_read(inside: str, wanted: list[ToolCall]) -> None:
    assert split(f"Now: {marked(inside)} done") == ("Now:  done", wanted)


HOSTILE = [
    "",
    "[]",
    "nothing",
    "[f(1)]",
    "[f(a=1, a=2)]",
    "[f(a=g())]",
    "[f(a=x)]",
    '[f(a=__import__("os").system("true"))]',
    "[f(a=1+1)]",
    "[f(a=(lambda: 1)())]",
    "[f(a=[i for i in b])]",
    '[f(a=f"{b}")]',
    "[f(**a)]",
    "[f(a=1)",
    "[f(a=1)] and more",
    'f(a="x',
    "f(a=1e999)",
    f"f(a={'9' * 5000})",
    f"f(a={'[' * 33}{']' * 33})",
    "[" * MAX_CALL_CHARS,
    "f(a=" + "-" * 9000 + "1)",
    "f(a=" + "(1)if(1)else" * 1000 + "1)",
    "'" * 9000,
    '{"name": 3}',
    '{"name": "f", "arguments": [1]}',
    '{"name": "f", "arguments": {"a": NaN}}',
    '{"name": "f", "arguments": {"a": 1e999}}',
    '{"name": "f g", "arguments": {}}',
    '{"name": "f", "arguments": {"a": ' + "[" * 40 + "]" * 40 + "}}",
    "[" + ", ".join(["f()"] * (MAX_CALLS + 1)) + "]",
]


@pytest.mark.parametrize("inside", HOSTILE, ids=lambda text: text[:20])
def test_what_is_no_call_stays_text(inside: str) -> None:
    start = time.monotonic()
    assert split(marked(inside)) == (marked(inside), [])
    assert time.monotonic() - start < 2


def test_random_text_is_never_lost() -> None:
    rng = random.Random(0)
    bits = [CALL_START, CALL_END, "<|tool_call_", "[f(", "a=", '"', "'", "\\", ")]", "1", ",", "é"]
    for _ in range(500):
        text = "".join(rng.choices(bits, k=12))
        shown, calls = split(text)
        if not calls:
            assert shown == text


def test_a_call_however_the_text_is_cut() -> None:
    text = f"a<b{marked('[f(x=1)]')}c{marked('[g()]')}<|tool"
    wanted = ("a<bc<|tool", [call("f", x=1), call("g")])
    assert split(text) == wanted
    assert split(*text) == wanted
    for size in range(2, 30):
        pieces = [text[i : i + size] for i in range(0, len(text), size)]
        assert split(*pieces) == wanted


def test_text_is_held_back_no_longer_than_needed() -> None:
    splitter = ToolSplitter()
    assert splitter.push("look <|tool_ca") == ("look ", [])
    assert splitter.push("ndle") == ("<|tool_candle", [])
    assert splitter.push(CALL_START + "[f(") == ("", [])
    assert splitter.push(")]" + CALL_END + "then") == ("then", [call("f")])


def test_a_call_without_an_end() -> None:
    assert split(f"{CALL_START}[f(x=1)]") == ("", [call("f", x=1)])
    assert split(f"{CALL_START}[f(x=") == (f"{CALL_START}[f(x=", [])


def test_what_is_held_has_a_limit() -> None:
    splitter = ToolSplitter()
    splitter.push(CALL_START)
    shown, calls = splitter.push("x" * (MAX_CALL_CHARS + 1))
    assert (shown, calls) == (CALL_START + "x" * (MAX_CALL_CHARS + 1), [])
    assert splitter.push("y") == ("y", [])


def test_calls_of_one_answer_have_a_limit() -> None:
    shown, calls = split(*[marked("[f()]")] * (MAX_CALLS + 2))
    assert len(calls) == MAX_CALLS
    assert shown == marked("[f()]") * 2


def test_a_call_in_openais_shape() -> None:
    (found,) = split(marked('[{"name": "f", "arguments": {"a": "\\ud800é"}}]'))[1]
    shape = found.to_dict()
    assert json.loads(shape["function"].pop("arguments")) == {"a": "\ud800é"}
    assert shape == {"id": found.id, "type": "function", "function": {"name": "f"}}
    json.dumps(found.to_dict()).encode()
    assert found.id != call("f").id


def test_what_the_prompt_writes_is_read_back() -> None:
    arguments = {"a": 'é"\\\n\t😀', "b": [1, -2.5, True, None, {"k": []}], "c": {}, "d": ""}
    text = render_calls([{"function": {"name": "f", "arguments": arguments}}])
    assert read_calls(text) == [("f", arguments)]


def test_malformed_says_where() -> None:
    with pytest.raises(Malformed, match=r"'\+1\)' cannot be read"):
        read_calls("f(a=1+1)")


def test_tools_as_the_template_reads_them() -> None:
    assert TOOLS == [WIPE, STOP]


@pytest.mark.parametrize(
    ("tools", "line"),
    [
        ("f", "tools: expected a list"),
        ([3], "tools[0]: expected an object"),
        ([{"type": "function", "function": None}], "tools[0].function: expected an object"),
        ([STOP, {"name": "a b"}], "tools[1].name: expected up to 64 letters"),
        ([{"name": "x" * 65}], "tools[0].name: expected up to 64 letters"),
        ([{"function": {}}], "tools[0].function.name"),
        ([{"name": "f", "description": 3}], "tools[0].description: expected a string"),
        ([{"name": "f", "parameters": []}], "tools[0].parameters: a schema is a JSON object"),
        (
            [{"name": "f", "parameters": {"type": ["object", "null"]}}],
            "tools[0].parameters.type: expected object",
        ),
        ([STOP, STOP], "tools: two of the name stop-all"),
        ([{"name": f"f{i}"} for i in range(129)], "tools: 129 tools; at most 128"),
        (
            [{"name": f"f{i}", "description": "x" * 9000} for i in range(4)],
            "all together may have 32768",
        ),
    ],
)
def test_wrong_tools_are_named(tools: Any, line: str) -> None:
    with pytest.raises(UserError) as caught:
        check_tools(tools)
    assert line in str(caught.value)


def is_fit(found: ToolCall) -> bool:
    if found.name == "stop-all":
        return found.arguments == {}
    return found.arguments["speed"] in (1, 2, 3) and found.arguments.get("where") in (
        None,
        "front",
        "rear",
    )


@pytest.mark.parametrize("most", [1, 3])
def test_an_answer_that_must_be_a_call(shared_engine: Engine, most: int) -> None:
    tokenizer = shared_engine.tokenizer
    constraint = call_constraint(TOOLS, tokenizer, most=most)
    found: list[list[ToolCall]] = []
    for seed in range(12):
        sampler, ids = Sampler(Sampling(temperature=1.0, seed=seed), constraint=constraint), []
        while not sampler.finished:
            ids.append(sampler.sample(np.zeros(tokenizer.vocab_size, np.float32)))
        shown, calls = split(tokenizer.decode(ids, skip_special=False))
        assert shown == ""
        assert all(map(is_fit, calls))
        found.append(calls)
    assert {len(calls) for calls in found} == set(range(1, most + 1))
    assert {c.name for calls in found for c in calls} == {"wipe", "stop-all"}


def test_one_tool_by_name(engine: Engine) -> None:
    constraint = call_constraint(TOOLS, engine.tokenizer, "stop-all")
    result = answer(engine, [ask("wipe")], constraint=constraint)
    # Without tools the marks are no part of the text.
    assert not result.text.startswith(CALL_START)
    assert split(marked(result.text)) == ("", [call("stop-all")])
    with pytest.raises(UserError, match="tool_choice: there is no tool fly"):
        call_constraint(TOOLS, engine.tokenizer, "fly")
    with pytest.raises(UserError, match="tools: none given"):
        call_constraint([], engine.tokenizer)


def test_a_call_or_json(shared_engine: Engine) -> None:
    tokenizer = shared_engine.tokenizer
    schema = {"properties": {"ok": {"type": "boolean"}}, "required": ["ok"]}
    answer = {"type": "object", **schema, "additionalProperties": False}
    constraint = call_constraint(TOOLS, tokenizer, most=2, answer=answer)
    kinds = set()
    for seed in range(12):
        sampler, ids = Sampler(Sampling(temperature=1.0, seed=seed), constraint=constraint), []
        while not sampler.finished:
            ids.append(sampler.sample(np.zeros(tokenizer.vocab_size, np.float32)))
        shown, calls = split(tokenizer.decode(ids, skip_special=False))
        assert bool(shown) != bool(calls)
        assert all(map(is_fit, calls))
        if shown:
            assert json.loads(shown) in ({"ok": True}, {"ok": False})
        kinds.add(bool(calls))
    assert kinds == {True, False}


def test_tools_are_in_the_prompt_and_marks_in_the_text(engine: Engine) -> None:
    plain = answer(engine, [ask("wipe")], max_tokens=1)
    constraint = call_constraint(check_tools([STOP]), engine.tokenizer)
    result = answer(engine, [ask("wipe")], tools=check_tools([STOP]), constraint=constraint)
    assert result.usage.prompt_tokens > plain.usage.prompt_tokens
    assert result.text.startswith(CALL_START)
    assert split(result.text) == ("", [call("stop-all")])


def test_other_special_tokens_stay_out_of_the_text(engine: Engine) -> None:
    tokenizer: Tokenizer = engine.tokenizer
    start = tokenizer.special_id(CALL_START)
    stream = TextStream(tokenizer, shown=[start])
    ids = [tokenizer.pad_id, start, *tokenizer.encode("ab"), tokenizer.image_id]
    assert "".join(map(stream.push, ids)) + stream.flush() == f"{CALL_START}ab"


def test_parameters_that_cannot_be_followed_are_named(engine: Engine) -> None:
    wrong = check_tools([STOP, {"name": "f", "parameters": {"properties": {"a": {"not": {}}}}}])
    with pytest.raises(UserError, match=r"^tools: f: parameters: /properties/a: Unimplemented"):
        call_constraint(wrong, engine.tokenizer)
