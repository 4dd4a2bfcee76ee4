"""Two processes on the CPU (gloo) against one: DDP and FSDP2, killed and resumed."""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from autoneural.errors import UserError
from autoneural.train.state import load_state
from tests.conftest import TinyCheckpoint
from tests.train.parallel_run import STAGES, train

SCRIPT = Path(__file__).with_name("parallel_run.py")
STEPS = sum(stage.steps for stage in STAGES)


@pytest.fixture(scope="module")
def whole(
    tiny_checkpoint: TinyCheckpoint, rows_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The run of one process."""
    run = tmp_path_factory.mktemp("alone")
    train("alone", tiny_checkpoint.folder, rows_folder, run)
    return run


def launch(kind: str, size: int, *arguments: object) -> list[tuple[int, str, str]]:
    """Exit code, output and errors of every process, started as torchrun would."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    started = []
    for rank in range(size):
        group = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": size, "RANK": rank}
        several = {} if kind == "alone" else {key: str(value) for key, value in group.items()}
        environment = {**os.environ, "PYTHONPATH": os.getcwd(), "OMP_NUM_THREADS": "1", **several}
        command = [sys.executable, str(SCRIPT), kind, *map(str, arguments)]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        started.append(subprocess.Popen(command, env=environment, **pipes))
    ends = [process.communicate(timeout=300) for process in started]
    return [(p.returncode, *end) for p, end in zip(started, ends, strict=True)]


def records(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def assert_same_run(run: Path, whole: Path) -> None:
    ours, theirs = records(run), records(whole)
    assert [r["step"] for r in ours] == list(range(1, STEPS + 1))
    losses = [[r["loss"] for r in side] for side in (ours, theirs)]
    assert losses[0] == pytest.approx(losses[1], rel=2e-4)
    assert [r.get("accuracy") for r in ours] == [r.get("accuracy") for r in theirs]
    ends = [load_state(folder) for folder in (run, whole)]
    for name, tensor in ends[1][2].items():
        torch.testing.assert_close(ends[0][2][name], tensor, rtol=1e-2, atol=2e-4, msg=name)


@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
def test_two_processes_take_the_steps_of_one(
    kind: str, whole: Path, tiny_checkpoint: TinyCheckpoint, rows_folder: Path, tmp_path: Path
) -> None:
    ends = launch(kind, 2, tiny_checkpoint.folder, rows_folder, tmp_path)
    assert [code for code, _, _ in ends] == [0, 0], ends[0][2] + ends[1][2]
    assert "stage general" in ends[0][1]
    assert ends[1][1] == ""
    assert "Warning" not in ends[0][2] + ends[1][2]
    assert_same_run(tmp_path, whole)
    state = next(tmp_path.glob("state-*"))
    assert len(list(state.glob("model/*.safetensors"))) == (2 if kind == "fsdp" else 0)
    kinds = {path.suffix for path in state.rglob("*") if path.is_file()}
    assert kinds == {".safetensors", ".json"}
    if kind == "fsdp":
        assert_damage_is_refused(tmp_path, state)


def assert_damage_is_refused(run: Path, state: Path) -> None:
    """A piece that was cut, or lost."""
    piece = sorted(state.glob("model/*.safetensors"))[1]
    piece.write_bytes(piece.read_bytes()[:-100])
    with pytest.raises(UserError, match=r"model: damaged or not safetensors"):
        load_state(run)
    piece.unlink()
    with pytest.raises(UserError, match=r"files of pieces: damaged"):
        load_state(run)


# Step 2 is in the middle of the first stage, which has heads; step 6 in that of the second.
@pytest.mark.parametrize(
    ("kind", "step", "then", "size"),
    [
        ("ddp", 6, "fsdp", 2),
        ("fsdp", 2, "alone", 1),
        ("fsdp", 6, "fsdp", 3),
    ],
)
def test_killed_it_goes_on_with_another_number_of_processes(
    kind: str,
    step: int,
    then: str,
    size: int,
    whole: Path,
    tiny_checkpoint: TinyCheckpoint,
    rows_folder: Path,
    tmp_path: Path,
) -> None:
    arguments = (tiny_checkpoint.folder, rows_folder, tmp_path)
    ends = launch(kind, 2, *arguments, step)
    assert ends[1][0] == -signal.SIGKILL, ends[1][2]
    assert ends[0][0] == 1
    assert "another one went away" in ends[0][2].splitlines()[-1]
    assert [r["step"] for r in records(tmp_path)] == list(range(1, step + 1))
    if then == "alone":
        train(then, *arguments)
    else:
        ends = launch(then, size, *arguments)
        assert [code for code, _, _ in ends] == [0] * size, "".join(end[2] for end in ends)
        assert f"at step {step}" in ends[0][1]
    assert_same_run(tmp_path, whole)
