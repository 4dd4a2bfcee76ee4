"""What a machine can do, and whether it is free to be measured."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

from autoneural.bench import machine
from autoneural.bench.machine import (
    matrix_peak,
    meter,
    product_model,
    read_bandwidth,
    require_idle,
)
from autoneural.errors import UserError


@pytest.mark.parametrize(("kind", "dtype"), [("fp32", np.float32), ("int8", np.uint8)])
def test_the_hand_made_model_multiplies(kind: str, dtype: type) -> None:
    session = ort.InferenceSession(product_model(kind, 3, 5, 300))
    x = np.arange(15).reshape(3, 5).astype(dtype)
    (y,) = session.run(None, {"x": x})
    assert np.array_equal(y, x.astype(np.int64) @ np.ones((5, 300), np.int64))


def test_roofs_are_measured() -> None:
    assert 0.01 < read_bandwidth(2, size=8 << 20) < 10_000
    assert matrix_peak("fp32", 1) > 0
    assert matrix_peak("int8", 1) > 0


def stat(folder: Path, *readings: str) -> list[Path]:
    """Files as /proc/stat is, one per reading."""
    files = [folder / str(number) for number in range(len(readings))]
    for file, text in zip(files, readings, strict=True):
        file.write_text(f"cpu  {text}\ncpu0 1 2 3\n")
    return files


class InTurn:
    """Reads another file each time."""

    def __init__(self, files: list[Path]) -> None:
        self._files = iter(files)

    def read_text(self, encoding: str) -> str:
        return next(self._files).read_text(encoding=encoding)


def test_a_busy_machine_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # user nice system idle iowait ...: of 100 ticks, 30 were busy
    files = stat(tmp_path, "100 0 0 900 50 0 0 0 7 7", "120 5 5 960 60 0 0 0 9 9")
    monkeypatch.setattr(machine, "_STAT", InTurn(files))
    with pytest.raises(UserError, match="busy: others take 30 % of its processor.*--busy"):
        require_idle(0)


def test_an_idle_machine_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = stat(tmp_path, "100 0 0 900 0 0 0 0", "105 0 0 995 0 0 0 0")
    monkeypatch.setattr(machine, "_STAT", InTurn(files))
    require_idle(0)
    monkeypatch.setattr(machine, "_STAT", tmp_path / "none")
    require_idle(0)


def test_energy_is_read_where_there_is_a_counter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "_RAPL", tmp_path)
    with meter() as nothing:
        pass
    assert nothing.joules is None
    for zone, microjoules in (("intel-rapl:0", 999_000), ("intel-rapl:0:0", 5)):
        (tmp_path / zone).mkdir()
        (tmp_path / zone / "energy_uj").write_text(f"{microjoules}\n")
        (tmp_path / zone / "max_energy_range_uj").write_text("999999\n")
    with meter() as energy:
        (tmp_path / "intel-rapl:0" / "energy_uj").write_text("500000\n")  # it wrapped
    assert energy.joules == pytest.approx(0.501)
