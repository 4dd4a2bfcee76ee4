"""Files of prompts: every row by itself, one JSON line each, bad rows named by their line."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from PIL import Image

from autoneural import cli
from autoneural.chat import Settings
from autoneural.errors import UserError
from autoneural.prompts import load_prompts, run_prompts
from autoneural.runtime import Engine
from autoneural.runtime.speculation import StepCosts


@pytest.fixture(scope="module")
def engine(tiny_bundle) -> Engine:
    made = Engine(tiny_bundle, "float", threads=1, exact=True)
    made._costs = StepCosts(width=8, plain_ms=1e3, wide_ms=1.0, head_ms=0.0)
    return made


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Three questions, one of them with a picture beside the file."""
    Image.new("RGB", (64, 48), "red").save(tmp_path / "cat.png")
    picture = {"type": "image", "image": "cat.png"}
    text = {"type": "text", "text": "and this?"}
    turns = [
        {"role": "user", "content": "is a red lamp a red lamp?"},
        {"role": "assistant", "content": "yes"},
        {"role": "user", "content": [picture, text]},
    ]
    rows = [{"prompt": "what is it?", "images": ["cat.png"]}, {"prompt": "hi"}, {"messages": turns}]
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join([json.dumps(rows[0]), "", *map(json.dumps, rows[1:])]) + "\n")
    return path


def answers(engine: Engine, path: Path, settings: Settings) -> list[dict]:
    out = io.StringIO()
    run_prompts(engine, load_prompts(path), settings, out)
    return [json.loads(line) for line in out.getvalue().splitlines()]


def test_each_row_is_answered_by_itself(engine: Engine, file: Path) -> None:
    found = answers(engine, file, Settings(max_tokens=6))
    assert len(found) == 3
    for row in found:
        assert {"text", "token_ids", "usage", "timings"} <= row.keys()
        assert len(row["token_ids"]) == row["usage"]["completion_tokens"] == 6
        assert row["usage"]["prompt_tokens_details"]["cached_tokens"] == 0
    assert [row["where"].rpartition(":")[2] for row in map(vars, load_prompts(file))] == [
        *("1", "3", "4")
    ]
    image = engine.processor([{"role": "user", "content": "hi"}])
    assert found[1]["usage"]["prompt_tokens"] == len(image.input_ids)


@pytest.mark.parametrize("speculate", ["lookup", "lookahead"])
def test_speculation_changes_no_token(engine: Engine, file: Path, speculate: str) -> None:
    plain = answers(engine, file, Settings(max_tokens=24))
    found = answers(engine, file, Settings(max_tokens=24, speculate=speculate))  # type: ignore[arg-type]
    assert [row["token_ids"] for row in found] == [row["token_ids"] for row in plain]
    assert all(row["timings"]["draft_n"] == 0 for row in plain)
    assert any(row["timings"]["draft_n"] > 0 for row in found)


def test_a_system_message_leads_rows_that_have_none(engine: Engine, tmp_path: Path) -> None:
    turns = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hi"}]
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"prompt": "hi"}) + "\n" + json.dumps({"messages": turns}))
    first, second = answers(engine, path, Settings(max_tokens=1, system="be brief"))
    assert first["usage"] == second["usage"]


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        ("{", "not JSON"),
        ("[]", "expected an object with either prompt or messages"),
        ("{}", "expected an object with either prompt or messages"),
        ('{"prompt": "a", "messages": []}', "expected an object with either"),
        ('{"prompt": 3}', "prompt is not a text"),
        ('{"prompt": "a", "images": "a.png"}', "images is not a list of paths"),
        ('{"prompt": "a", "images": [3]}', "3 is not the path of an image"),
        ('{"messages": [{"role": "dog"}]}', r"messages\[0\].role: 'dog' is not one of"),
        ('{"messages": [{"role": "assistant", "content": "a"}]}', "the last message is an answer"),
        (
            '{"messages": [{"role": "user", "content": [{"type": "image"}]}]}',
            "None is not the path of an image",
        ),
    ],
    ids=range(10),
)
def test_a_bad_row_is_named_before_any_work(tmp_path: Path, row: str, complaint: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"prompt": "fine"}\n\n' + row + "\n")
    with pytest.raises(UserError, match=rf"rows\.jsonl:3: .*{complaint}") as caught:
        load_prompts(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        ({"prompt": "a", "images": ["nowhere.png"]}, "nowhere.png"),
        ({"prompt": " "}, "prompt: empty"),
        ({"prompt": "1" * 500}, "the context holds"),
    ],
    ids=["image", "empty", "long"],
)
def test_what_shows_only_when_asked_is_named_too(
    engine: Engine, tmp_path: Path, row: dict, complaint: str
) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"prompt": "fine"}\n' + json.dumps(row))
    out = io.StringIO()
    with pytest.raises(UserError, match=rf"rows\.jsonl:2: .*{complaint}"):
        run_prompts(engine, load_prompts(path), Settings(max_tokens=1), out)
    assert out.getvalue().count("\n") == 1  # the row before it was answered


def test_files_without_prompts_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nowhere.jsonl: cannot be read"):
        load_prompts(tmp_path / "nowhere.jsonl")
    (tmp_path / "empty.jsonl").write_text("\n\n")
    with pytest.raises(UserError, match="empty.jsonl: no prompts in it"):
        load_prompts(tmp_path / "empty.jsonl")
    (tmp_path / "bytes.jsonl").write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match="bytes.jsonl: cannot be read as text"):
        load_prompts(tmp_path / "bytes.jsonl")


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--prompts", "a.jsonl"], "--prompts prints JSON lines: add --json"),
        (["--prompts", "a.jsonl", "--json", "-p", "hi"], "leave -p, --image, --video out"),
        (["--prompts", "a.jsonl", "--json", "--image", "a.png"], "leave -p, --image, --video out"),
        (["--prompts", "a.jsonl", "--json"], "a.jsonl: cannot be read"),
        (["-p", "hi", "--speculate", "magic"], "--speculate"),
    ],
)
def test_what_does_not_go_together(
    words: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["infer", *words]) == 2
    assert complaint in capsys.readouterr().err


def test_the_command_prints_json_lines(
    tiny_bundle, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["infer", str(tiny_bundle.folder), "--target", "float", "--prompts", str(file), "--json"]
    assert cli.main([*argv, "--max-tokens", "4", "--speculate", "lookup", "--exact"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [len(line["token_ids"]) for line in lines] == [4, 4, 4]
