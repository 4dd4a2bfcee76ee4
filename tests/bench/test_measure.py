"""The figures of a checkpoint, float and quantised, by one exam."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from autoneural.bench import measure as module
from autoneural.bench.measure import (
    Exam,
    Measures,
    compare_measures,
    compiled_size,
    draw_exam,
    measure,
    module_sqnr,
)
from autoneural.bench.perplexity import row_samples
from autoneural.checkpoint import load_checkpoint
from autoneural.compress.precision import PRECISIONS
from autoneural.compress.quantize import post_training_quantize
from autoneural.errors import UserError
from autoneural.target.chips import find_chip
from tests.conftest import TinyCheckpoint

SA8295P = find_chip("SA8295P")


@pytest.fixture(scope="module")
def exam() -> Exam:
    return draw_exam(["fatigue"], questions=3, rows=2)


@pytest.fixture(scope="module")
def both(
    tiny_checkpoint: TinyCheckpoint, exam: Exam, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Measures, Measures]:
    """Of the float checkpoint, and of it in w8a16."""
    folder, out = tiny_checkpoint.folder, tmp_path_factory.mktemp("measure") / "int"
    samples = row_samples(folder, tiny_checkpoint.model.config, exam.rows)
    post_training_quantize(folder, samples, out, precision=PRECISIONS["w8a16"], compared=1)
    return measure(folder, exam), measure(out, exam, reference=folder)


def test_sizes(both: tuple[Measures, Measures], tiny_checkpoint: TinyCheckpoint) -> None:
    plain, quantised = both
    count = sum(p.numel() for p in tiny_checkpoint.model.parameters())
    assert plain.parameters == quantised.parameters == count
    assert plain.weight_bytes == 2 * count  # bf16
    assert count < quantised.weight_bytes < 1.4 * count
    on_disk = (Path(quantised.name) / "model.safetensors").stat().st_size
    assert quantised.weight_bytes < on_disk
    assert load_checkpoint(quantised.name).encodings is not None


def test_answers_and_losses_are_of_the_same_exam(
    both: tuple[Measures, Measures], exam: Exam
) -> None:
    plain, quantised = both
    asked = [item.id for item in exam.tasks["fatigue"]]
    for measures in both:
        assert [record["id"] for record in measures.records] == asked
        assert list(measures.accuracy) == ["fatigue"]
        assert [loss.id for loss in measures.losses] == [row["id"] for row in exam.rows]
    found = compare_measures(plain, quantised)
    assert found["accuracy"]["n"] == 3
    assert found["perplexity"]["perplexity"] == [plain.perplexity, quantised.perplexity]
    with pytest.raises(UserError, match="answered different questions"):
        compare_measures(plain, replace(quantised, records=quantised.records[1:]))


def test_modules_are_compared_with_the_reference(both: tuple[Measures, Measures]) -> None:
    plain, quantised = both
    assert plain.sqnr_db == {}
    assert len(quantised.sqnr_db) > 50
    assert 10 < quantised.sqnr_db["language_model.lm_head"] < 80
    assert not [path for path in quantised.sqnr_db if path.endswith((".mask", "mask_add"))]
    found = json.loads(json.dumps(quantised.to_dict(), allow_nan=False))
    assert found["sqnr_db"].keys() == quantised.sqnr_db.keys()
    assert found["weight_bytes"] == quantised.weight_bytes


def test_modules_of_another_shape_are_left_out(tiny_checkpoint: TinyCheckpoint, exam: Exam) -> None:
    model, folder = tiny_checkpoint.model, str(tiny_checkpoint.folder)
    samples = row_samples(folder, model.config, exam.rows[:1])
    whole = module_sqnr(folder, model, samples)
    w1, w3, w2 = (f"language_model.model.layers.0.feed_forward.{n}" for n in ("w1", "w3", "w2"))
    narrow = module.load_model(folder)
    block = narrow.get_submodule("language_model.model.layers.0.feed_forward")
    with torch.no_grad():
        for name in ("w1", "w3"):
            weight = block.get_parameter(f"{name}.weight")
            block.get_submodule(name).weight = torch.nn.Parameter(weight[:-16].clone())
        weight = block.get_parameter("w2.weight")
        block.get_submodule("w2").weight = torch.nn.Parameter(weight[:, :-16].clone())
    pruned = module_sqnr(folder, narrow, samples)
    assert {w1, w3} <= whole.keys() - pruned.keys()
    assert pruned[w2] < 40 < whole[w2]


def test_a_chip_needs_a_quantised_checkpoint_and_the_compiler(
    tiny_checkpoint: TinyCheckpoint,
    both: tuple[Measures, Measures],
    exam: Exam,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert (both[0].compiled_bytes, both[0].not_compiled) == (None, "no chip was named")

    def missing() -> None:
        raise UserError("this needs onnxruntime-qnn")

    monkeypatch.setattr(module, "require_wheel", missing)
    assert compiled_size(both[1].name, SA8295P) == (None, "this needs onnxruntime-qnn")
    monkeypatch.setattr(module, "require_wheel", lambda: None)
    size, why = compiled_size(tiny_checkpoint.folder, SA8295P)
    assert size is None
    assert "needs a quantised checkpoint" in why


@pytest.mark.usefixtures("qnn_wheel")
def test_binaries_are_weighed(both: tuple[Measures, Measures]) -> None:
    size, why = compiled_size(both[1].name, SA8295P, context=64)
    assert why == ""
    assert size is not None
    assert size > both[1].weight_bytes
