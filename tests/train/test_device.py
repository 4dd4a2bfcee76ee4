"""The precision that training picks for itself."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from autoneural.train import device

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _measured_anew() -> Iterator[None]:
    device._bf16_is_faster.cache_clear()
    yield
    device._bf16_is_faster.cache_clear()


@pytest.mark.parametrize(("bf16", "picked"), [(0.2, "bf16"), (1.0, "fp32"), (2.0, "fp32")])
def test_auto_takes_what_multiplies_faster(
    monkeypatch: pytest.MonkeyPatch, bf16: float, picked: str
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True})
    monkeypatch.setattr(device, "_seconds", lambda dtype: bf16 if dtype == torch.bfloat16 else 1.0)
    assert device.pick_precision("auto", CPU) == picked


def test_emulated_bf16_is_not_even_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict)
    monkeypatch.setattr(device, "_seconds", lambda _: pytest.fail("measured"))
    assert device.pick_precision("auto", CPU) == "fp32"


def test_what_is_asked_for_is_taken() -> None:
    assert device.pick_precision("bf16", CPU) == "bf16"


def test_products_take_time() -> None:
    assert all(device._seconds(dtype) > 0 for dtype in (torch.bfloat16, torch.float32))
