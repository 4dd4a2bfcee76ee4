"""Errors along the positions: how they are counted, and that a run finds what is there to find."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from autoneural import cli
from autoneural.bench.drift import (
    Side,
    draw_rows,
    measure_drift,
    run_sides,
    state_bytes,
)
from autoneural.bench.drift_errors import Errors, Record, kind_of, print_drift, slope, windows
from autoneural.bundle import Bundle
from autoneural.errors import UserError
from autoneural.runtime.chain import Arrays, Tapped
from autoneural.runtime.devices import place
from autoneural.runtime.qnn import Wheel
from autoneural.target.chips import find_chip

CHIP = find_chip("SA8295P")


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return Bundle.load("cockpit-tiny")


def record(errors: np.ndarray) -> Errors:
    """Values of one everywhere, wrong by `errors` [T]; the token differs where that is over 1/2."""
    steps = {"conv_window.0": 0.25, "logits": 0.5}
    found = Record(steps)
    for position, error in enumerate(errors, start=1):
        wanted = {"conv_window.0": np.ones((1, 4, 3)), "logits": np.array([1.0, 0.5])}
        got = {"conv_window.0": np.ones((1, 4, 3)) + error, "logits": np.array([1.0 - error, 0.5])}
        found.add(position, wanted, got)
    return found.errors()


def test_windows_say_how_far_off_and_in_steps():
    first, second = windows(record(np.array([0.1] * 10 + [0.01] * 5)))
    assert (first["from"], first["to"], second["from"], second["to"]) == (1, 10, 11, 15)
    assert first["conv"]["sqnr_db"] == pytest.approx(20)
    assert first["conv"]["rms_lsb"] == pytest.approx(0.1 / 0.25)
    assert second["conv"]["sqnr_db"] == pytest.approx(40)
    assert set(first) == {"from", "to", "conv", "logits", "equal_argmax"}


def test_equal_tokens_are_a_share():
    found = record(np.array([0.0, 0.6, 0.7, 0.1]))
    assert windows(found)[0]["equal_argmax"] == 0.5


def test_no_difference_is_no_figure():
    found = record(np.zeros(5))
    assert windows(found)[0]["conv"] == {"sqnr_db": None, "rms_lsb": 0.0}
    assert slope(found, "conv")["db_per_1000"] is None
    assert not slope(found, "conv")["grows"]


def test_an_error_that_grows_is_called_so_and_a_flat_one_is_not():
    noise = np.random.default_rng(0).uniform(0.9, 1.1, 500)
    flat = slope(record(0.01 * noise), "conv")
    assert abs(flat["db_per_1000"]) < 1
    assert not flat["grows"]
    growing = slope(record(0.01 * noise * np.geomspace(1, 4, 500)), "conv")
    assert growing["db_per_1000"] == pytest.approx(2 * 20 * np.log10(4), abs=1)
    assert growing["ci95"][0] < growing["db_per_1000"] < growing["ci95"][1]
    assert growing["grows"]


def test_the_first_hundred_tokens_have_no_slope():
    ramp = np.concatenate([np.geomspace(1e-4, 1e-2, 100), np.full(400, 1e-2)])
    found = slope(record(ramp), "conv")
    assert found["from"] == 101
    assert found["db_per_1000"] == pytest.approx(0, abs=1e-6)
    assert slope(record(ramp[:150]), "conv")["from"] == 1


def test_a_shrinking_error_does_not_grow():
    assert not slope(record(np.geomspace(0.1, 0.001, 100)), "conv")["grows"]


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("conv_window.3", "conv"),
        ("present.1.key", "key"),
        ("present.11.value", "value"),
        ("hidden_states", "hidden"),
        ("hidden.3", "hidden"),
        ("logits", "logits"),
    ],
)
def test_tensors_have_a_kind(name: str, kind: str):
    assert kind_of(name) == kind


@pytest.fixture(scope="module")
def reference(bundle: Bundle) -> Side:
    return Side(bundle, place(bundle, "qdq"))


@pytest.fixture(scope="module")
def rows(bundle: Bundle, reference: Side) -> np.ndarray:
    return draw_rows(bundle, reference.sessions, 90, seed=0)


def test_rows_hold_one_picture_and_then_words(bundle: Bundle, rows: np.ndarray):
    target = bundle.target("qdq").embedding
    table = np.fromfile(bundle.path(target.file), "<u2").reshape(target.shape)
    assert target.scale is not None
    real = (table.astype(np.float32) - target.zero_point) * np.float32(target.scale)
    words = {row.tobytes() for row in real}
    from_picture = [row.tobytes() not in words for row in rows]
    assert sum(from_picture) == bundle.processor.tokens_per_image
    assert not any(from_picture[-5:])


def test_a_side_against_itself_differs_in_nothing(
    bundle: Bundle, reference: Side, rows: np.ndarray
):
    reference.decoder.reset()
    own, alone = run_sides(reference, {"twin": Side(bundle, place(bundle, "qdq"))}, rows[:6], 4)
    assert own["twin"].errors().noise.max() == 0
    assert own["twin"].errors().signal.min() > 0
    assert alone.errors().positions.tolist() == [1, 2, 3, 4]
    assert alone.errors().noise.max() == 0


def one_more(feeds: Mapping[str, np.ndarray], outputs: Arrays) -> None:
    """Adds one step to the first value of every new key."""
    for name, array in outputs.items():
        if name.endswith(".key"):
            array[0, 0, 0, 0] += 1


def test_a_state_that_is_off_by_a_step_is_found_where_it_is(
    bundle: Bundle, reference: Side, rows: np.ndarray
):
    reference.decoder.reset()
    other = Side(bundle, place(bundle, "qdq"))
    other.graph.inner = Tapped(other.graph.inner, one_more)
    own, alone = run_sides(reference, {"wrong": other}, rows[:3], 1)
    for errors in (own["wrong"].errors(), alone.errors()):
        keys = errors.of("key")
        off_by_one = np.square(errors.steps[keys])
        np.testing.assert_allclose(errors.noise[0, keys], off_by_one, rtol=1e-3)
    # Of its own state it inherits the wrong keys; a step from the reference's makes its own only.
    np.testing.assert_allclose(
        alone.errors().noise[2, keys], np.square(alone.errors().steps[keys]), rtol=1e-3
    )
    assert alone.errors().noise[:, alone.errors().of("hidden")].max() == 0


def test_state_bytes_are_those_of_the_inputs(bundle: Bundle, reference: Side):
    text = bundle.model.text
    attention = text.layer_types.count("full_attention")
    cache = attention * 2 * text.num_key_value_heads * bundle.context * text.head_dim  # uint8
    columns = text.layer_types.count("conv") * text.hidden_size * (text.conv_L_cache - 1) * 2
    assert state_bytes(bundle, reference.graph) == {"cache": cache, "conv": columns}


def test_more_tokens_than_the_context_are_one_line(bundle: Bundle, qnn_wheel: Wheel):
    with pytest.raises(UserError, match="1025 tokens: the context .* holds 1024"):
        measure_drift(bundle, CHIP, 1025)


@pytest.fixture(scope="module")
def report(bundle: Bundle, qnn_wheel: Wheel) -> dict:
    return measure_drift(bundle, CHIP, 4, every=2)


def test_the_emulator_starts_close_and_says_what_one_step_costs(report: dict):
    emulator = report["emulator"]
    assert [(w["from"], w["to"]) for w in emulator["windows"]] == [(1, 4)]
    for kind in ("conv", "key", "value", "hidden", "logits"):
        figures = emulator["windows"][0][kind]
        assert 20 < figures["sqnr_db"] < 90
        assert figures["rms_lsb"] > 0
        assert emulator["one_step"][0][kind]["sqnr_db"] > figures["sqnr_db"] - 3
    assert report["float"]["windows"][0]["conv"]["sqnr_db"] > 50
    assert report["compiler"].startswith("QNN ")
    assert json.loads(json.dumps(report)) == report


def test_the_tables_show_every_kind(report: dict):
    console = Console(record=True, width=120)
    print_drift(report, console)
    text = console.export_text()
    for word in ("conv", "key", "value", "hidden", "logits", "same token", "1 to 4", "SA8295P"):
        assert word in text


def test_a_wrong_chip_is_one_line(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    assert cli.main(["bench", "drift", "--chip", "SA0"]) == 2
    assert "no chip called 'SA0'" in capsys.readouterr().err
