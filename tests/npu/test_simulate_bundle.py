"""A bundle that computes as a chip does answers through the plain engine."""

from __future__ import annotations

from pathlib import Path

import pytest

from autoneural.bundle import DEFAULT_BUNDLE, Bundle
from autoneural.chat import user_message
from autoneural.cli import main
from autoneural.demo import EXAMPLES
from autoneural.npu.simulate_bundle import simulate_bundle
from autoneural.runtime.engine import Engine
from autoneural.runtime.qnn import Wheel
from autoneural.target.chips import find_chip

MESSAGES = [user_message("What state is the driver in?", [EXAMPLES / "driver.jpg"])]


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    out = tmp_path_factory.mktemp("simulated") / "bundle"
    return simulate_bundle(Bundle.load(DEFAULT_BUNDLE), find_chip("SA8295P"), out)


def test_it_answers_and_computes_other_integers(copy: Bundle) -> None:
    plain, chip = Engine(DEFAULT_BUNDLE, "qdq"), Engine(copy, "qdq")
    a, b = plain.logits(MESSAGES), chip.logits(MESSAGES)
    assert a.argmax() == b.argmax()
    assert 0 < abs(a - b).max() < 2


def test_it_is_nearer_to_the_emulator_than_the_reference(copy: Bundle, qnn_wheel: Wheel) -> None:
    emulated = Engine(DEFAULT_BUNDLE, device="htp-emulator", chip="SA8295P").logits(MESSAGES)
    plain, chip = (Engine(b, "qdq").logits(MESSAGES) for b in (DEFAULT_BUNDLE, copy))
    assert abs(chip - emulated).mean() < abs(plain - emulated).mean()


def test_twice_is_refused(copy: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["simulate", str(copy.folder), "-o", str(tmp_path / "again")]) == 2
    assert "simulates SA8295P already" in capsys.readouterr().err
