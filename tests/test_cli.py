"""The command line as a shell sees it: help, one-line errors, exit codes."""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from autoneural import __version__, cli, commands, commands_npu
from autoneural.errors import UserError

ROOT = Path(__file__).resolve().parents[1]


def load_make_cli():
    spec = importlib.util.spec_from_file_location("make_cli", ROOT / "docs" / "make_cli.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


MAKE_CLI = load_make_cli()
PROGS = [parser.prog.split()[1:] for parser in MAKE_CLI.parsers()]


def error_line(capsys: pytest.CaptureFixture[str]) -> str:
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("autoneural: error: ")
    assert captured.err.count("\n") == 1
    return captured.err


def raising(error: BaseException):
    def run(args: argparse.Namespace) -> None:
        raise error

    return run


@pytest.mark.parametrize("words", PROGS, ids=lambda words: " ".join(words) or "autoneural")
def test_every_command_has_help(words, capsys):
    with pytest.raises(SystemExit) as exit_info:
        cli.main([*words, "--help"])
    assert exit_info.value.code == 0
    assert " ".join(["usage: autoneural", *words]) in capsys.readouterr().out


@pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="help is laid out for Python 3.11")
def test_the_page_of_commands_is_fresh(monkeypatch):
    monkeypatch.setenv("COLUMNS", "88")
    assert MAKE_CLI.PAGE.read_text("utf-8") == MAKE_CLI.page(), "run `make docs`"


@pytest.mark.parametrize(
    "argv",
    [
        [],
        ["fly"],
        ["eval", "--n", "0"],
        ["eval", "--n", "many"],
        ["eval", "--seed", "-1"],
        ["data", "cockpit", "--sheet", "x.png", "--seed", "-1"],
        ["train", "--data", "DATA"],
        ["train", "--recipe", "tiny", "--data", "DATA", "-o", "OUT", "--minutes", "0"],
        ["infer", "--nope"],
    ],
    ids=" ".join,
)
def test_a_wrong_command_line_is_one_line_and_2(argv, capsys):
    assert cli.main(argv) == 2
    line = error_line(capsys)
    assert "--help" in line
    assert f"autoneural {argv[0]} " in line if argv[1:] else "autoneural --help" in line
    assert "_positive" not in line
    assert "_natural" not in line


def test_what_the_system_refuses_is_one_line_and_2(monkeypatch, capsys):
    full = OSError(28, "No space left on device", "out/model.safetensors")
    monkeypatch.setattr(commands, "version", raising(full))
    assert cli.main(["version"]) == 2
    assert "out/model.safetensors: No space left on device" in error_line(capsys)


def test_an_error_of_the_user_is_one_line_and_2(monkeypatch, capsys):
    monkeypatch.setattr(commands, "version", raising(UserError("a.png: damaged\n picture")))
    assert cli.main(["version"]) == 2
    assert error_line(capsys) == "autoneural: error: a.png: damaged picture\n"


@pytest.mark.parametrize(
    ("module", "extra"),
    [
        ("torch", "train"),
        ("onnx_ir.passes", "train"),
        ("resvg_py", "data"),
        ("font_roboto", "data"),
        ("huggingface_hub", "hub"),
        ("uvicorn", "serve"),
        ("av", "video"),
    ],
)
def test_a_missing_extra_is_named(module, extra, monkeypatch, capsys):
    monkeypatch.setattr(commands, "version", raising(ModuleNotFoundError(name=module)))
    assert cli.main(["version"]) == 2
    assert f"autoneural[{extra}]" in error_line(capsys)


def test_commands_of_the_npu_chain_name_their_own_extra(monkeypatch, capsys):
    def simulate(args):
        raise ModuleNotFoundError(name="onnx_ir")

    simulate.__module__ = commands_npu.__name__
    monkeypatch.setattr(commands_npu, "simulate", simulate)
    assert cli.main(["simulate", "cockpit-tiny", "--chip", "SA8295P", "-o", "copy"]) == 2
    assert "autoneural[npu]" in error_line(capsys)


def test_a_missing_module_of_ours_is_a_bug_and_shows(monkeypatch):
    error = ModuleNotFoundError(name="autoneural.nonsense")
    monkeypatch.setattr(commands, "version", raising(error))
    with pytest.raises(ModuleNotFoundError):
        cli.main(["version"])


def test_interrupt_is_quiet_and_130(monkeypatch, capsys):
    monkeypatch.setattr(commands, "version", raising(KeyboardInterrupt()))
    assert cli.main(["version"]) == 130
    assert capsys.readouterr() == ("", "")


def shell(*argv: str, **kwargs) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "autoneural", *argv]
    return subprocess.run(
        command, capture_output=True, text=True, cwd=ROOT, check=False, timeout=60, **kwargs
    )


def test_the_module_is_the_program():
    run = shell("--version")
    assert (run.returncode, run.stdout, run.stderr) == (0, f"autoneural {__version__}\n", "")


def test_a_reader_that_left_is_no_error():
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as broken:
        command = [sys.executable, "-m", "autoneural", "version"]
        run = subprocess.run(
            command, stdout=broken, stderr=subprocess.PIPE, text=True, cwd=ROOT, check=False
        )
    assert (run.returncode, run.stderr) == (141, "")


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["infer", "no-such-bundle", "-p", "hello"], "no-such-bundle"),
        (["show", "no-such-thing"], "no-such-thing"),
        (["tokenizer", "nowhere.jsonl", "-o", "out"], "nowhere.jsonl"),
        (["infer", "--json"], "-p"),
        (["infer", "-p", "hello", "--json-schema", "no.json"], "no.json: no such file"),
        (["compare", "a.jsonl", "b.jsonl"], "a.jsonl"),
        (["infer", "~nobody-here/b", "-p", "hello"], "~nobody-here/b"),
        (["infer", "b" * 300, "-p", "hello"], "File name too long"),
        (["data", "cockpit", "-o", ".", "--n", "3"], "the folder you are in"),
        (["eval", "--records", "nowhere/a.jsonl"], "there is no folder nowhere"),
    ],
)
def test_what_is_not_there_is_named(argv, words, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.main(argv) == 2
    assert words in error_line(capsys)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a red lamp", "s.json: not JSON"),
        ("[]", "s.json: a schema is a JSON object"),
        ('{"properties": {"a": {"type": "lamp"}}}', "s.json: /properties/a: Invalid type: lamp"),
    ],
)
def test_a_file_that_holds_no_schema_is_named(text, words, tmp_path, capsys):
    (tmp_path / "s.json").write_text(text)
    assert cli.main(["infer", "-p", "hi", "--json-schema", str(tmp_path / "s.json")]) == 2
    assert words in error_line(capsys)


def test_infer_answers_in_json(tmp_path, capsys):
    schema = {"type": "object", "properties": {"red": {"type": "boolean"}}, "required": ["red"]}
    (tmp_path / "s.json").write_text(json.dumps({**schema, "additionalProperties": False}))
    argv = ["infer", "-p", "red?", "--json-schema", str(tmp_path / "s.json"), "--temperature", "2"]
    assert cli.main(argv) == 0
    assert json.loads(capsys.readouterr().out)["red"] in (True, False)


def test_a_schema_without_its_extra_says_what_to_install(tmp_path, capsys, monkeypatch):
    (tmp_path / "s.json").write_text("{}")
    monkeypatch.setitem(sys.modules, "llguidance", None)
    assert cli.main(["infer", "-p", "hi", "--json-schema", str(tmp_path / "s.json")]) == 2
    assert "pip install 'autoneural[schema]'" in error_line(capsys)


def test_compare_prints_the_paired_difference(tmp_path, capsys):
    for name, correct in (("a", [1, 1, 0, 1]), ("b", [1, 0, 0, 1])):
        lines = [json.dumps({"id": i, "prompt": "?", "correct": c}) for i, c in enumerate(correct)]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines))
    assert (
        cli.main(["compare", str(tmp_path / "a.jsonl"), str(tmp_path / "b.jsonl"), "--json"]) == 0
    )
    result = json.loads(capsys.readouterr().out)
    assert (result["difference"], result["lost"], result["won"]) == (-0.25, 1, 0)


def test_tokenizer_learns_from_rows(tmp_path, capsys):
    text = {"type": "text", "text": "Is the seat belt on? yes"}
    turns = [{"role": role, "content": [text]} for role in ("user", "assistant")]
    row = {"id": "0", "task": "t", "source": "s", "messages": turns, "kinds": ["belt"]}
    (tmp_path / "train.jsonl").write_text(json.dumps(row) + "\n")
    out = tmp_path / "tokenizer"
    assert cli.main(["tokenizer", str(tmp_path), "-o", str(out), "--vocab-size", "300"]) == 0
    assert (out / "tokenizer.json").is_file()
    assert "1 rows" in capsys.readouterr().out


def test_drills_are_drawn_on_top_of_the_tasks(tmp_path, capsys):
    argv = ["data", "cockpit", "-o", str(tmp_path / "a"), "--tasks", "plate", "--drills"]
    assert cli.main([*argv, "--n", "2"]) == 0
    lines = (tmp_path / "a/train.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["task"] for line in lines] == ["plate", "page"]
    assert "plate, page" in capsys.readouterr().out
