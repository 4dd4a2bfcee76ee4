"""Several API keys: any will do, and nobody's requests make another's faster."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from fastapi import FastAPI

from autoneural import cli
from autoneural.errors import UserError
from autoneural.serve.app import create_app
from autoneural.serve.models import Models
from autoneural.serve.safety import read_keys, tenant_of
from autoneural.serve.settings import Settings
from tests.serve.helpers import ask, call, data_url, error_of, picture_bytes

CHAT = "/v1/chat/completions"


@pytest.fixture
def keyed(served) -> FastAPI:
    return create_app(Models([served]), Settings(api_keys=("anna", "bert")))


def post(app: FastAPI, key: str, body: dict):
    return call(app, "POST", CHAT, json=body, headers={"Authorization": f"Bearer {key}"})


def test_any_of_the_keys_will_do_and_no_other(keyed: FastAPI) -> None:
    body = {"messages": [ask("a")], "max_tokens": 1}
    for key in ("anna", "bert"):
        assert post(keyed, key, body).status_code == 200
    for key in ("", "ann", "annabert", "anna bert", "anna,bert", "ANNA"):
        response = post(keyed, key, body)
        assert (response.status_code, error_of(response)["code"]) == (401, "invalid_api_key")


def test_what_is_kept_is_kept_for_its_key(keyed: FastAPI) -> None:
    picture = data_url(picture_bytes(4242))
    body = {"messages": [ask("word " * 200, picture)], "max_tokens": 2, "logprobs": True}

    def kept(key: str) -> tuple[int, int]:
        """Prompt tokens and pictures that were not computed again."""
        reply = post(keyed, key, body).json()
        answers.append(reply["choices"][0]["logprobs"])
        cached = reply["usage"]["prompt_tokens_details"]["cached_tokens"]
        return cached, 1 - reply["timings"]["image_n"]

    answers: list = []
    assert kept("anna") == (0, 0)
    again = kept("anna")
    assert again[0] > 0
    assert again[1] == 1
    assert kept("bert") == (0, 0)
    assert kept("bert") == again
    # One prompt is kept at a time, pictures of both.
    assert kept("anna") == (0, 1)
    assert all(answer == answers[0] for answer in answers)


def test_caches_never_hold_a_key() -> None:
    assert tenant_of("anna") != tenant_of("bert")
    assert b"anna" not in tenant_of("anna")


def test_a_file_of_keys(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text("# Anna's\nanna\n\n  bert  \nanna\n")
    path.chmod(0o600)
    assert read_keys(path) == ("anna", "bert")


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o666])
def test_a_file_of_keys_is_its_owners_alone(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "keys"
    path.write_text("anna\n")
    path.chmod(mode)
    with pytest.raises(UserError, match="others may read these keys; run `chmod 600`"):
        read_keys(path)


def test_what_is_no_file_of_keys(tmp_path: Path, capsys) -> None:
    path = tmp_path / "keys"
    with pytest.raises(UserError, match="cannot be read as a list of API keys"):
        read_keys(path)
    for data, message in ((b"# none\n\n", "no API keys in it"), (b"\xff\xfe", "cannot be read")):
        path.write_bytes(data)
        path.chmod(0o600)
        with pytest.raises(UserError, match=message):
            read_keys(path)
    path.write_text("one\ntwo words\n")
    assert cli.main(["serve", "--api-key-file", str(path)]) == 2
    err = capsys.readouterr().err
    assert f"{path}:2: not an API key" in err
    assert "two words" not in err
