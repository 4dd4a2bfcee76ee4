"""What trains a part of a model: the connector recipe and low-rank adapters."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from autoneural.checkpoint import load_checkpoint
from autoneural.cli import main
from autoneural.errors import UserError
from autoneural.recipes import frozen_parts, recipe, run_recipe
from autoneural.recipes.recipe import Recipe
from autoneural.train.curriculum import Stage
from autoneural.train.trainer import RunOptions
from tests.conftest import TinyCheckpoint

OPTIONS = RunOptions(device="cpu", precision="fp32", log_every=1)
SHORT = ["--set", "stages.align.steps=4", "--set", "stages.align.batch_size=3"]
SHORT += ["--set", "stages.align.accumulate=2", "--set", "stages.align.warmup=1"]


def connector_command(start: Path, data: Path, out: Path, *more: str) -> list[str]:
    paths = ["--start", str(start), "--data", str(data), "-o", str(out)]
    return ["train", "--recipe", "connector", *paths, "--device", "cpu", *SHORT, *more]


def losses(run: Path) -> list[float]:
    lines = (run / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["loss"] for line in lines]


def test_the_connector_learns_and_the_towers_stay_bit_for_bit(
    tiny_checkpoint: TinyCheckpoint, coloured: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    assert main(connector_command(tiny_checkpoint.folder, coloured, out)) == 0
    before, after = (load_checkpoint(f).state_dict for f in (tiny_checkpoint.folder, out))
    moved = {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert moved == {"projector"}
    assert 8 <= len(list((tmp_path / "out-features").rglob("*.safetensors"))) <= 12


def test_under_torchrun_it_takes_the_same_steps(
    tiny_checkpoint: TinyCheckpoint, coloured: Path, tmp_path: Path
) -> None:
    start = tiny_checkpoint.folder
    assert main(connector_command(start, coloured, tmp_path / "one")) == 0
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    torchrun += ["--nproc-per-node", "2", "-m", "--", "autoneural"]
    command = connector_command(start, coloured, tmp_path / "two", "--parallel", "fsdp")
    environment = {**os.environ, "PYTHONPATH": os.getcwd(), "OMP_NUM_THREADS": "1"}
    run = subprocess.run(
        [*torchrun, *command], check=False, capture_output=True, text=True, env=environment
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.count("stage align: trains") == 1
    assert "cpu x 2" in run.stdout
    assert losses(tmp_path / "two-run") == pytest.approx(losses(tmp_path / "one-run"), rel=1e-2)
    one, two = (load_checkpoint(tmp_path / name).state_dict for name in ("one", "two"))
    for name in one:
        torch.testing.assert_close(two[name], one[name], rtol=0.05, atol=1e-2, msg=name)


def test_what_the_connector_needs_is_said(
    tiny_checkpoint: TinyCheckpoint, coloured: Path, tmp_path: Path, capsys
) -> None:
    start, out = tiny_checkpoint.folder, tmp_path / "out"
    plain = ["train", "--recipe", "connector", "--data", str(coloured), "-o", str(out)]
    assert main([*plain, "--tokenizer", str(start), "--device", "cpu"]) == 2
    assert "recipe connector: trains a model that there is; --start" in capsys.readouterr().err
    jitter = connector_command(start, coloured, out, "--set", "stages.align.jitter=0.1")
    assert main(jitter) == 2
    assert "--set stages.align.jitter=0" in capsys.readouterr().err
    assert main(connector_command(start, coloured, out, "--parallel", "ddp")) == 2
    assert (
        "--parallel ddp: start it as `torchrun --nproc-per-node N -m -- auto"
        in capsys.readouterr().err
    )
    assert main(connector_command(start, coloured, out, "--lora", "2")) == 2
    assert "--lora 2: no stage of connector trains the language_model" in capsys.readouterr().err
    assert not out.exists()


def test_quantising_is_refused_under_torchrun(
    tiny_checkpoint: TinyCheckpoint, coloured: Path, tmp_path: Path, capsys, monkeypatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    arguments = [str(tiny_checkpoint.folder), "--data", str(coloured), "-o", str(tmp_path / "out")]
    assert main(["compress", *arguments]) == 2
    assert "compress: runs in one process" in capsys.readouterr().err


DOMAIN = Stage(
    name="domain",
    train=("language_model", "projector"),
    mixture={"chat": 1.0},
    steps=4,
    batch_size=2,
    lr={"language_model": 1e-2, "projector": 1e-3},
    warmup=1,
)


def adapt(start: Path, data: Path, folder: Path, rank: int, minutes: float | None = None) -> bool:
    base: Recipe = replace(recipe("connector"), name="adapt", stages=(DOMAIN,))
    return run_recipe(
        base,
        data=data,
        tokenizer=start,
        run=folder / "run",
        output=folder / "out",
        start=start,
        options=replace(OPTIONS, minutes=minutes),
        method=frozen_parts(base, start, lora=rank),
    ).finished


def test_adapters_resume_and_end_as_a_plain_checkpoint(
    tiny_checkpoint: TinyCheckpoint, coloured: Path, tmp_path: Path
) -> None:
    pytest.importorskip("peft")
    start = tiny_checkpoint.folder
    assert adapt(start, coloured, tmp_path / "whole", 2)
    sliced = tmp_path / "sliced"
    assert not adapt(start, coloured, sliced, 2, minutes=1e-9)
    with pytest.raises(UserError, match=r"holds another run \(lora\.rank was 2, now 4\)"):
        adapt(start, coloured, sliced, 4)
    assert adapt(start, coloured, sliced, 2)
    assert losses(sliced / "run") == losses(tmp_path / "whole" / "run")
    before = load_checkpoint(start).state_dict
    config, after, made, _ = load_checkpoint(sliced / "out")
    assert config == tiny_checkpoint.model.config
    assert made["lora"] == {"rank": 2}
    assert set(after) == set(before)
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    text = {name for name in moved if name.startswith("language_model")}
    assert text
    assert all(name.endswith((".in_proj.weight", "_proj.weight", "w1.weight", "w2.weight",
                              "w3.weight")) for name in text)  # fmt: skip
    assert not [name for name in moved if name.startswith("vision_encoder")]


def test_a_quantised_checkpoint_takes_no_adapters(
    tiny_checkpoint: TinyCheckpoint, coloured: Path, tmp_path: Path
) -> None:
    start = tmp_path / "quantised"
    shutil.copytree(tiny_checkpoint.folder, start)
    (start / "encodings.json").write_text("{}")
    with pytest.raises(UserError, match="is quantised; training starts from a float checkpoint"):
        adapt(start, coloured, tmp_path, 2)
