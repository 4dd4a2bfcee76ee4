"""What quantisation cost, module by module: SQNR and RMS error of outputs against the float model.

    SQNR = -20 log10(RMS error),   RMS error = |q - f| / |f| over all samples

Errors are cumulative: a module's figure holds what every module before it did.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn


class Run(Protocol):
    """One forward pass of a model over one sample."""

    def __call__(self, model: nn.Module, /) -> object: ...


@dataclass(frozen=True, kw_only=True)
class ModuleError:
    """Error of one module's output. `weight_bits` is None where it has no integer weight.

    `chip_sqnr_db` is that of the model as a chip computes it; None where no chip was asked for.
    """

    path: str
    kind: str
    sqnr_db: float
    rms_error: float
    weight_bits: int | None
    activation_bits: int
    chip_sqnr_db: float | None = None

    @property
    def lowest_db(self) -> float:
        """SQNR on the chip where there is one, else as ONNX defines it."""
        return self.sqnr_db if self.chip_sqnr_db is None else self.chip_sqnr_db


@dataclass(frozen=True)
class Report:
    """Errors of all compared modules, worst first; `chip` is the name of the one they ran on."""

    modules: tuple[ModuleError, ...]
    chip: str | None = None

    def __getitem__(self, path: str) -> ModuleError:
        return next(module for module in self.modules if module.path == path)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready: {"chip", "modules": [...]}; an exact module has `sqnr_db` null."""
        rows = [asdict(module) for module in self.modules]
        for row in rows:
            for name in ("sqnr_db", "chip_sqnr_db"):
                row[name] = _finite(row[name])
        return {"chip": self.chip, "modules": rows}

    def summary(self) -> dict[str, float]:
        """SQNR in dB of the parts that matter, for recipe.json: worst, median, parts' ends."""
        return _summary({module.path: module.sqnr_db for module in self.modules})

    def chip_summary(self) -> dict[str, float]:
        """The same of the model as the chip computes it; empty without a chip."""
        return _summary({m.path: m.lowest_db for m in self.modules} if self.chip else {})

    def save(self, path: str | Path) -> None:
        """Write `to_dict` to a JSON file."""
        Path(path).write_text(json.dumps(self.to_dict(), indent=2) + "\n", encoding="utf-8")

    def print(self, console: Console | None = None, rows: int = 20) -> None:
        """The `rows` worst modules as a table."""
        table = Table(title=f"{min(rows, len(self.modules))} worst of {len(self.modules)} modules")
        table.add_column("module", overflow="fold")
        for name in ("kind", "bits"):
            table.add_column(name)
        on_chip = [] if self.chip is None else [f"on {self.chip}"]
        for name in ("SQNR dB", "RMS error", *on_chip):
            table.add_column(name, justify="right")
        for module in self.modules[:rows]:
            weight = f"w{module.weight_bits}" if module.weight_bits else ""
            table.add_row(
                module.path,
                module.kind,
                f"{weight}a{module.activation_bits}",
                f"{module.sqnr_db:.1f}",
                f"{100 * module.rms_error:.3f}%",
                *([f"{module.lowest_db:.1f}"] if self.chip else []),
            )
        (console or Console()).print(table)


def _summary(figures: Mapping[str, float]) -> dict[str, float]:
    ends = ("vision_encoder.msfa.norm", "projector.linear_2", "language_model.lm_head")
    figures = {path.removesuffix(".up"): figure for path, figure in figures.items()}
    found = {path: round(figures[path], 2) for path in ends if path in figures}
    finite = sorted(figure for figure in figures.values() if math.isfinite(figure))
    if not finite:
        return found
    return {"worst": round(finite[0], 2), "median": round(finite[len(finite) // 2], 2), **found}


def _finite(figure: float | None) -> float | None:
    return figure if figure is not None and math.isfinite(figure) else None


@dataclass
class _Energy:
    signal: float = 0.0
    noise: float = 0.0


@torch.inference_mode()
def compare(
    reference: nn.Module, quantized: nn.Module, paths: Sequence[str], runs: Iterable[Run]
) -> dict[str, tuple[float, float]]:
    """(SQNR in dB, RMS error) of each module in `paths` that ran, over all `runs`.

    A module that returns another shape in the two models (one is pruned) is left out.
    """
    energies = {path: _Energy() for path in paths}
    for run in runs:
        with _recorded(reference, paths) as expected, _recorded(quantized, paths) as actual:
            run(reference)
            run(quantized)
        for path, outputs in expected.items():
            if [f.shape for f in outputs] != [q.shape for q in actual.get(path, ())]:
                continue
            for f, q in zip(outputs, actual[path], strict=True):
                energies[path].signal += float(f.double().square().sum())
                energies[path].noise += float((q.double() - f.double()).square().sum())
    return {path: _figures(e) for path, e in energies.items() if e.signal > 0}


def _figures(energy: _Energy) -> tuple[float, float]:
    rms = math.sqrt(energy.noise / energy.signal)
    return (-20 * math.log10(rms) if rms else math.inf), rms


@contextmanager
def _recorded(model: nn.Module, paths: Sequence[str]) -> Iterator[dict[str, list[Tensor]]]:
    outputs: dict[str, list[Tensor]] = {}

    def watch(path: str) -> torch.utils.hooks.RemovableHandle:
        def record(_: nn.Module, __: Any, output: Tensor) -> None:
            outputs.setdefault(path, []).append(output.detach().clone())

        return model.get_submodule(path).register_forward_hook(record)

    handles = [watch(path) for path in paths]
    try:
        yield outputs
    finally:
        for handle in handles:
            handle.remove()
