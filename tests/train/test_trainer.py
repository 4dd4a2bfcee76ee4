import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from autoneural.checkpoint import load_tensors, save_tensors
from autoneural.data.dataset import Mixture
from autoneural.data.importers import open_source
from autoneural.data.loader import Batch, BatchStream
from autoneural.data.processor import Processor
from autoneural.errors import UserError
from autoneural.model.vlm import VLM
from autoneural.train.curriculum import PARTS, Stage
from autoneural.train.engine import Alone, accumulate, open_engine
from autoneural.train.objectives import LanguageObjective
from autoneural.train.trainer import RunOptions, Trainer
from tests.conftest import TinyCheckpoint
from tests.train.resumable_run import train

SCRIPT = Path(__file__).with_name("resumable_run.py")
OPTIONS = RunOptions(device="cpu", precision="fp32", log_every=5)
GENERAL = Stage(
    name="general",
    train=PARTS,
    mixture={"demo": 1.0},
    steps=5,
    batch_size=4,
    lr=dict.fromkeys(PARTS, 3e-3),
    warmup=2,
)
MakeTrainer = Callable[..., Trainer]


@pytest.fixture
def make_trainer(
    model: VLM, processor: Processor, rows_folder: Path, tmp_path: Path
) -> MakeTrainer:
    def make(*stages: Stage, options: RunOptions = OPTIONS, **more: object) -> Trainer:
        sources = {"demo": open_source(rows_folder / "train.jsonl", "demo")}
        return Trainer(model, processor, sources, stages, tmp_path, options=options, **more)

    return make


def losses(run: Path) -> list[tuple[int, float]]:
    lines = (run / "metrics.jsonl").read_text().splitlines()
    return [(record["step"], record["loss"]) for record in map(json.loads, lines)]


def batch_of(processor: Processor, rows_folder: Path, size: int, start: int = 0) -> Batch:
    mixture = Mixture.of([(open_source(rows_folder / "train.jsonl"), 1.0)])
    return BatchStream(mixture=mixture, processor=processor, batch_size=size).batch(start)


# The 11th file is the model of the 6th save (in the second stage), the 6th the optimiser's state
# of the 3rd (in the first): killed between the two files of a save, and between save and rename.
@pytest.mark.parametrize("files", [6, 11])
def test_a_run_killed_while_saving_repeats_its_losses_to_the_bit(
    tiny_checkpoint: TinyCheckpoint, rows_folder: Path, tmp_path: Path, files: int
) -> None:
    train(tiny_checkpoint.folder, rows_folder, tmp_path / "whole")
    broken = tmp_path / "broken"
    command = [sys.executable, SCRIPT, tiny_checkpoint.folder, rows_folder, broken, str(files)]
    environment = {**os.environ, "PYTHONPATH": os.getcwd(), "OMP_NUM_THREADS": "1"}
    killed = subprocess.run(command, check=False, capture_output=True, env=environment)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    assert len(losses(broken)) < 10
    train(tiny_checkpoint.folder, rows_folder, broken)
    assert losses(broken) == losses(tmp_path / "whole")
    assert len(losses(broken)) == 10
    ends = [
        load_tensors(next(run.glob("state-*")) / "model.safetensors")
        for run in (broken, tmp_path / "whole")
    ]
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[1])
    assert not list(broken.glob(".state-*"))


def test_accumulated_batches_have_the_gradient_of_one_big_batch(
    model: VLM, processor: Processor, rows_folder: Path
) -> None:
    objective = LanguageObjective(processor.tokenizer.image_id)
    gradients: list[dict[str, torch.Tensor]] = []
    values: list[float] = []
    for sizes in ((6,), (2, 4)):
        starts = [sum(sizes[:i]) for i in range(len(sizes))]
        batches = [
            batch_of(processor, rows_folder, size, start)
            for size, start in zip(sizes, starts, strict=True)
        ]
        model.zero_grad()
        values.append(accumulate(model, objective, batches, "fp32"))
        gradients.append({name: p.grad.clone() for name, p in model.named_parameters()})
    assert values[0] == pytest.approx(values[1], rel=1e-5)
    for name, whole in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], whole, rtol=1e-3, atol=1e-6, msg=name)


@pytest.mark.parametrize("part", PARTS)
def test_only_the_trained_part_moves(make_trainer: MakeTrainer, model: VLM, part: str) -> None:
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    make_trainer(replace(GENERAL, train=(part,), lr={part: 1e-2})).run()
    moved = {n.split(".")[0] for n, p in model.named_parameters() if not torch.equal(p, before[n])}
    assert moved == {part}


def test_loss_falls_on_a_small_set(make_trainer: MakeTrainer, tmp_path: Path) -> None:
    make_trainer(replace(GENERAL, steps=40)).run()
    run = [loss for _, loss in losses(tmp_path)]
    assert run[-1] < 0.3 * run[0]


def test_vision_stage_learns_attributes_and_leaves_no_heads(
    make_trainer: MakeTrainer, model: VLM, tmp_path: Path
) -> None:
    names = set(model.state_dict())
    vision = replace(
        GENERAL, name="vision", objective="vision", train=(PARTS[0],), lr={PARTS[0]: 3e-3}, steps=40
    )
    outcome = make_trainer(vision).run()
    accuracy = outcome.results["vision"]["accuracy"]
    assert accuracy["demo.colour"] > 0.7
    assert accuracy["boxes"] > 0.7
    assert set(load_tensors(next(tmp_path.glob("state-*")) / "model.safetensors")) == names


def test_slices_by_the_clock_add_up_to_the_whole_run(
    make_trainer: MakeTrainer, tmp_path: Path
) -> None:
    slice_options = replace(OPTIONS, minutes=1e-9, log_every=1)
    reasons = [make_trainer(GENERAL, options=slice_options).run().reason for _ in range(5)]
    assert reasons == ["minutes"] * 4 + ["finished"]
    assert [step for step, _ in losses(tmp_path)] == [1, 2, 3, 4, 5]


def test_ctrl_c_finishes_the_step_and_saves(
    make_trainer: MakeTrainer, processor: Processor, capsys: pytest.CaptureFixture[str]
) -> None:
    class Interrupted(LanguageObjective):
        def normaliser(self, batch: Batch) -> torch.Tensor:
            os.kill(os.getpid(), signal.SIGINT)
            return super().normaliser(batch)

    before = signal.getsignal(signal.SIGINT)
    stopped = make_trainer(
        GENERAL, objective=lambda stage: Interrupted(processor.tokenizer.image_id)
    )
    assert stopped.run().reason == "signal"
    assert "run the same command" in capsys.readouterr().out
    assert signal.getsignal(signal.SIGINT) is before
    resumed = make_trainer(GENERAL)
    assert resumed.position.step == 1
    assert resumed.run().finished


def test_stage_result_is_the_average_when_asked(make_trainer: MakeTrainer, model: VLM) -> None:
    bias = model.projector.linear_2.bias
    start = bias.detach().clone()
    make_trainer(replace(GENERAL, ema=0.9999, warmup=1, steps=1, clip=1e9)).run()
    # AdamW's first step is the learning rate; the average takes 0.9 of it.
    assert (bias.detach() - start).abs().max().item() == pytest.approx(0.9 * 3e-3, rel=0.02)


def test_damaged_state_is_refused_in_one_line(make_trainer: MakeTrainer, tmp_path: Path) -> None:
    make_trainer(GENERAL).run()
    weights = next(tmp_path.glob("state-*")) / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(UserError, match=r"model\.safetensors: damaged") as caught:
        make_trainer(GENERAL)
    assert "\n" not in str(caught.value)


def test_unknown_source_and_device_are_refused(make_trainer: MakeTrainer) -> None:
    with pytest.raises(UserError, match="no source 'cats'; there are demo"):
        make_trainer(replace(GENERAL, mixture={"cats": 1.0}))
    if not torch.cuda.is_available():
        with pytest.raises(UserError, match="no CUDA device"):
            make_trainer(GENERAL, options=replace(OPTIONS, device="cuda"))


def test_diverging_loss_is_an_error(make_trainer: MakeTrainer, model: VLM) -> None:
    with torch.no_grad():
        model.projector.linear_1.weight.fill_(float("nan"))
    with pytest.raises(UserError, match="loss nan, gradient nan at step 0; lower lr"):
        make_trainer(GENERAL).run()


def test_a_stage_that_has_no_room_for_an_answer_says_so(make_trainer: MakeTrainer) -> None:
    with pytest.raises(UserError, match=r"demo\[\d+\]: messages: needs \d+ tokens .* not 8$"):
        make_trainer(replace(GENERAL, max_length=8)).run()


def test_what_several_processes_cannot_do_is_said(make_trainer: MakeTrainer) -> None:
    engine = Alone(torch.device("cpu"))
    engine.size = 5
    with pytest.raises(UserError, match="batch_size 4 is less than a row for each of 5 processes"):
        make_trainer(GENERAL, engine=engine)
    engine.size = 2
    with pytest.raises(UserError, match="compile: in one process only"):
        make_trainer(GENERAL, engine=engine, options=replace(OPTIONS, compile=True))


def test_a_state_that_lacks_a_tensor_is_refused(make_trainer: MakeTrainer, tmp_path: Path) -> None:
    stage = replace(GENERAL, ema=0.9)
    make_trainer(stage, options=replace(OPTIONS, minutes=1e-9)).run()
    path = next(tmp_path.glob("state-*")) / "optim.safetensors"
    tensors = load_tensors(path)
    save_tensors(path, {k: t for k, t in tensors.items() if k != "average.projector.linear_1.bias"})
    with pytest.raises(UserError, match=r"lacks average\.projector\.linear_1\.bias: damaged"):
        make_trainer(stage).run()


def test_a_group_that_torchrun_did_not_start_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    with pytest.raises(UserError, match="torchrun did not start this"), open_engine("cpu"):
        pass
