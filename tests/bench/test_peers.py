"""Peers on the same shapes: each in its own process, and named where it is missing or fails."""

from __future__ import annotations

from dataclasses import replace

import pytest

from autoneural.bench import peers
from autoneural.bench.peers import PeerRun, PeerTask, measure_peers
from autoneural.config import ModelConfig

TASK = PeerTask(prompt=9, answer=3, depth=5, repeats=2, threads=1)


def test_transformers_runs_in_a_process_of_its_own(
    tiny_config: ModelConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peers, "_DTYPES", ("bfloat16",))
    seen: list[tuple[str, int, int]] = []
    (row,) = measure_peers(["transformers"], tiny_config.text, TASK, lambda *a: seen.append(a))
    assert row.missing is None
    assert row.peer == "transformers bfloat16"
    assert len(row.prompt) == len(row.decode) == 2
    assert min(*row.prompt, *row.decode) > 0
    assert seen == [("transformers", 1, 1)]


def test_what_fails_says_why(tiny_config: ModelConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "_DTYPES", ("float32",))
    text = replace(tiny_config.text, intermediate_sizes=(64, 64, 32, 64))
    (row,) = measure_peers(["transformers"], text, TASK)
    wanted = "ValueError: transformers' LFM2 has no layers of unequal width"
    assert row == PeerRun(peer="transformers float32", missing=wanted)


def test_what_is_not_installed_is_named(tiny_config: ModelConfig) -> None:
    rows = measure_peers(["no_such_peer"], tiny_config.text, TASK)
    assert rows == [PeerRun(peer="no_such_peer", missing="not installed")]
