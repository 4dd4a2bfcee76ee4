"""`pull`, `list`, `rm` and `clean` as a shell runs them, against a hub on 127.0.0.1."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from huggingface_hub import constants, errors, file_download

from autoneural import cli
from tests.hub.fake_hub import COMMIT, FakeHub

REPO = "acme/lfm2-small"
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def shell(hub: FakeHub, tmp_path: Path):
    """Runs `autoneural`, with the hub and a cache of the test's own."""
    env = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "HF_HOME": str(tmp_path / "hf"),
        "HF_ENDPOINT": hub.url,
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "PYTHONPATH": str(ROOT),
    }

    def command(*argv: str) -> list[str]:
        return [sys.executable, "-m", "autoneural", *argv]

    def run(*argv: str, **more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command(*argv), capture_output=True, text=True, env=env | more, cwd=tmp_path, timeout=60
        )

    def start(*argv: str) -> subprocess.Popen:
        return subprocess.Popen(
            command(*argv), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=env
        )

    return SimpleNamespace(run=run, start=start, cache=tmp_path / "hf/hub")


def one_line(run: subprocess.CompletedProcess[str]) -> str:
    """The error of a run that failed with one line on stderr and nothing on stdout."""
    assert (run.returncode, run.stdout) == (2, ""), run.stderr
    *before, line = run.stderr.splitlines()
    assert all(": licence " in said for said in before), run.stderr
    assert line.startswith("autoneural: error: ")
    return line


def test_pull_then_offline_then_import(hub: FakeHub, shell, lfm2, tmp_path: Path) -> None:
    first = shell.run("pull", REPO)
    assert first.returncode == 0, first.stderr
    assert f"{REPO} at {COMMIT[:12]}: licence lfm1.0, " in first.stderr
    folder = Path(first.stdout.strip())
    assert folder == shell.cache / "models--acme--lfm2-small/snapshots" / COMMIT
    for path in lfm2.folder.iterdir():
        assert (folder / path.name).read_bytes() == path.read_bytes()

    sent = len(hub.fetched)
    again = shell.run("pull", REPO)
    assert again.stdout == first.stdout
    assert len(hub.fetched) == sent
    offline = shell.run("pull", REPO, "--offline", HF_ENDPOINT="http://127.0.0.1:9")
    assert offline.stdout == first.stdout
    assert "licence lfm1.0" in offline.stderr
    out = tmp_path / "out"
    imported = shell.run("import", REPO, "-o", str(out), HF_HUB_OFFLINE="1")
    assert imported.returncode == 0, imported.stderr
    source = json.loads((out / "recipe.json").read_text())["source"]
    assert (source["repo"], source["revision"], source["licence"]) == (REPO, COMMIT, "lfm1.0")


def test_only_weights_json_and_texts_are_fetched(hub: FakeHub, shell, copy, lfm2) -> None:
    folder = copy(lfm2.single)
    (folder / "onnx").mkdir()
    for name in ("evil.py", "pytorch_model.bin", "onnx/model.safetensors", "tokenizer.pkl"):
        (folder / name).write_bytes(b"x")
    hub.add("acme/mixed", folder)
    assert shell.run("pull", "acme/mixed").returncode == 0
    wanted = {p.name for p in lfm2.single.iterdir()}
    assert set(hub.fetched) == wanted


def test_a_killed_download_goes_on_where_it_stopped(hub: FakeHub, shell, tmp_path) -> None:
    content = os.urandom(25_000_000)  # the library writes 10 MiB at a time
    (tmp_path / "one").mkdir()
    (tmp_path / "one/config.json").write_text("{}")
    (tmp_path / "one/model.safetensors").write_bytes(content)
    hub.add("acme/one", tmp_path / "one")
    hub.stop_after = 24_000_000
    process = shell.start("pull", "acme/one")
    blobs = shell.cache / "models--acme--one/blobs"
    assert hub.stopped.wait(60)
    while not (had := sum(p.stat().st_size for p in blobs.glob("*.incomplete"))) > 20_000_000:
        assert process.poll() is None
    assert shell.run("clean").stdout == "0 B freed\n"  # the download is under way
    process.send_signal(signal.SIGKILL)
    process.wait()
    hub.stop_after = None
    run = shell.run("pull", "acme/one")
    assert run.returncode == 0, run.stderr
    assert hub.ranges == [f"bytes={had}-"]
    assert (Path(run.stdout.strip()) / "model.safetensors").read_bytes() == content
    assert list(blobs.glob("*.incomplete")) == []


def test_damaged_weights_are_not_kept(hub: FakeHub, shell) -> None:
    hub.damage = True
    assert "arrived damaged (sha256); pull again" in one_line(shell.run("pull", REPO))
    assert list(shell.cache.glob("*/blobs/*")) == []


@pytest.fixture
def inside(hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    """`autoneural pull` in this process: quicker, and what it calls can be made to fail."""
    template = "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "ENDPOINT", hub.url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.url + template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))

    def pull(*argv: str) -> str:
        code = cli.main(["pull", *argv])
        captured = capsys.readouterr()
        return one_line(subprocess.CompletedProcess(argv, code, captured.out, captured.err))

    return pull


REFUSALS = {
    "no such model": ("acme/nothing", None, "acme/nothing: no such model at http://127.0.0.1"),
    "gated": (REPO, (403, "GatedRepo"), "gated; accept its terms at http://127.0.0.1"),
    "broken hub": (REPO, (418, ""), "answered 418 for acme/lfm2-small"),
    "no name": ("a/b/c", None, "neither a folder nor the name of a repository"),
    "odd name": ("acme/..lfm", None, "not the name of a repository"),
}


@pytest.mark.parametrize(("name", "refusal", "message"), REFUSALS.values(), ids=REFUSALS)
def test_what_the_hub_refuses_is_one_line(hub: FakeHub, inside, name, refusal, message) -> None:
    hub.repos[REPO].refusal = refusal
    assert message in inside(name)


def test_a_wrong_revision_is_one_line(inside) -> None:
    assert f"{REPO}: has no revision 'nine'" in inside(REPO, "--revision", "nine")


def test_no_network_is_one_line(inside, monkeypatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    assert "http://127.0.0.1:9: cannot be reached" in inside(REPO)


def test_a_network_that_goes_is_one_line(hub: FakeHub, inside, monkeypatch) -> None:
    asked = []

    def gone(url: str, *_: object, **__: object) -> None:
        asked.append(url)
        raise errors.HTTPError("connection reset")

    monkeypatch.setattr(file_download, "http_get", gone)
    assert "cannot be reached; what was pulled before works with --offline" in inside(REPO)
    assert asked[0].startswith(hub.url)


def test_a_full_disk_is_one_line(hub: FakeHub, inside, monkeypatch) -> None:
    usage = shutil.disk_usage("/")
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=100))
        assert "100 B free, 282 kB needed; make room or set HF_HOME" in inside(REPO)
    assert hub.fetched == []

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(file_download, "http_get", full)
    assert "the disk is full; make room, and pull again to go on" in inside(REPO)


def test_offline_without_the_model_is_one_line(shell, inside) -> None:
    assert f"{REPO}: not, or not wholly, in " in inside(REPO, "--offline")
    line = one_line(shell.run("import", REPO, "-o", "out", HF_HUB_OFFLINE="1"))
    assert "fetch it with `autoneural pull acme/lfm2-small`" in line


def test_pickles_alone_are_not_fetched(hub: FakeHub, inside, copy, lfm2) -> None:
    folder = copy(lfm2.single)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    hub.add("acme/pickled", folder)
    assert "holds no safetensors weights" in inside("acme/pickled")
    assert hub.fetched == []


def test_a_local_folder_is_only_looked_at(hub: FakeHub, lfm2, capsys) -> None:
    assert cli.main(["pull", str(lfm2.folder)]) == 0
    captured = capsys.readouterr()
    assert captured.out.strip() == str(lfm2.folder)
    assert "licence lfm1.0" in captured.err
    assert hub.fetched == []


def test_list_rm_and_clean(hub: FakeHub, shell, lfm2) -> None:
    assert shell.run("list").stdout == ""
    assert "0 B freed" in shell.run("clean").stdout
    assert shell.run("pull", REPO).returncode == 0
    hub.repos[REPO].commit = "f" * 40
    assert shell.run("pull", REPO).returncode == 0
    listed = json.loads(shell.run("list", "--json").stdout)
    assert [(m["name"], m["refs"]) for m in listed] == [(REPO, ["main"])]
    assert shell.run("list").stdout.startswith(f"{REPO}  ")

    partial = shell.cache / "models--acme--lfm2-small/blobs/abc.resumable.incomplete"
    partial.write_bytes(bytes(1000))
    snapshots = partial.parent.parent / "snapshots"
    said = shell.run("clean", "--dry-run").stdout
    assert f"would remove {REPO} at {COMMIT[:12]}" in said
    assert partial.exists()
    assert len(list(snapshots.iterdir())) == 2
    said = shell.run("clean").stdout
    assert f"removed an unfinished download of {REPO}" in said
    assert not partial.exists()
    assert [p.name for p in snapshots.iterdir()] == ["f" * 40]
    assert shell.run("pull", REPO, "--offline").returncode == 0

    assert "freed" in shell.run("rm", REPO).stdout
    assert json.loads(shell.run("list", "--json").stdout) == []
    assert f"{REPO}: not in the cache" in one_line(shell.run("rm", REPO))
