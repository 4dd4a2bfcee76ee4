"""Errors of a decoder along its positions: what windows, slopes and tables are made of.

error of a tensor at a position   sum of squares of its difference, against that of its values
SQNR                              of all tensors of a kind over a window of positions, in dB
slope                             of 10 log10(error / signal) on the position, per 1,000 tokens;
                                  not of the first 100, where there is little to attend to yet
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from autoneural.runtime.chain import Arrays

KINDS = ("conv", "key", "value", "hidden", "logits")
STATE = ("conv", "key", "value")
EDGES = (1, 11, 101, 301, 601, 1001, 2001, 4001)
SETTLED = 100
GROWTH_DB = 3.0  # a rise over the whole run that is called drift, where it is certain
_Z95 = 1.959964
_Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Errors:
    """Per position and tensor [T, N]: sums of squares of values and of differences.

    `sizes` and `steps` [N] are the numbers of values and the steps of their integer grids; `equal`
    [T] says whether both sides prefer the same token.
    """

    names: tuple[str, ...]
    positions: NDArray[np.int64]
    signal: _Floats
    noise: _Floats
    sizes: _Floats
    steps: _Floats
    equal: NDArray[np.bool_]

    def of(self, kind: str) -> list[int]:
        """Indices of the tensors of a kind."""
        return [i for i, name in enumerate(self.names) if kind_of(name) == kind]


class Record:
    """Collects `Errors`, position by position. `steps`: tensor name -> step of its grid."""

    def __init__(self, steps: Mapping[str, float]) -> None:
        self._steps = steps
        self._positions: list[int] = []
        self._rows: list[list[tuple[float, float, int]]] = []
        self._equal: list[bool] = []

    def add(self, position: int, wanted: Arrays, got: Arrays) -> None:
        """One position: the same tensors of both sides, as real numbers."""
        self._positions.append(position)
        self._rows.append([_energies(wanted[name], got[name]) for name in self._steps])
        self._equal.append(int(wanted["logits"].argmax()) == int(got["logits"].argmax()))

    def errors(self) -> Errors:
        """All that was collected."""
        table = np.array(self._rows, np.float64)
        return Errors(
            names=tuple(self._steps),
            positions=np.array(self._positions),
            signal=table[..., 0],
            noise=table[..., 1],
            sizes=table[0, :, 2],
            steps=np.array(list(self._steps.values())),
            equal=np.array(self._equal),
        )


def _energies(wanted: np.ndarray, got: np.ndarray) -> tuple[float, float, int]:
    real = wanted.astype(np.float64)
    return float(np.square(real).sum()), float(np.square(got - real).sum()), real.size


def kind_of(name: str) -> str:
    """conv, key, value, hidden (between parts too) or logits."""
    for kind, start in (("conv", "conv_window"), ("hidden", "hidden")):
        if name.startswith(start):
            return kind
    return name.rsplit(".", 1)[-1]


def summarise(errors: Errors) -> dict[str, Any]:
    """JSON-ready: figures per window, slopes per kind, share of equal tokens."""
    return {
        "windows": windows(errors),
        "slopes": {kind: slope(errors, kind) for kind in KINDS if errors.of(kind)},
        "equal_argmax": float(errors.equal.mean()),
        "tensors": _tensors(errors),
    }


def windows(errors: Errors) -> list[dict[str, Any]]:
    """Per window of positions: SQNR and root mean square error in steps, per kind."""
    found = []
    last = int(errors.positions[-1])
    for first, beyond in zip(EDGES, (*EDGES[1:], last + 1), strict=True):
        inside = (errors.positions >= first) & (errors.positions < beyond)
        if inside.any():
            row: dict[str, Any] = {"from": first, "to": min(beyond - 1, last)}
            row |= {kind: _figures(errors, inside, kind) for kind in KINDS if errors.of(kind)}
            found.append(row | {"equal_argmax": float(errors.equal[inside].mean())})
    return found


def _figures(errors: Errors, inside: NDArray[np.bool_], kind: str) -> dict[str, float | None]:
    index = errors.of(kind)
    noise, signal = errors.noise[inside][:, index], errors.signal[inside][:, index]
    steps = (noise / np.square(errors.steps[index])).sum()
    count = errors.sizes[index].sum() * inside.sum()
    return {"sqnr_db": _db(signal.sum(), noise.sum()), "rms_lsb": float(np.sqrt(steps / count))}


def _db(signal: float, noise: float) -> float | None:
    """None where nothing differs, or nothing is there."""
    return float(10 * np.log10(signal / noise)) if noise > 0 and signal > 0 else None


def slope(errors: Errors, kind: str) -> dict[str, Any]:
    """Rise of a kind's error in dB per 1,000 positions, by least squares, with its 95 % interval.

    From the position `from` on. `grows`: even the lower end of the interval comes to more than
    `GROWTH_DB` over these positions.
    """
    index = errors.of(kind)
    first = SETTLED + 1 if errors.positions[-1] > 2 * SETTLED else 1
    noise, signal = errors.noise[:, index].sum(1), errors.signal[:, index].sum(1)
    usable = (noise > 0) & (signal > 0) & (errors.positions >= first)
    x, y = errors.positions[usable] / 1000, 10 * np.log10(noise[usable] / signal[usable])
    if len(x) < 3:
        return {"from": first, "db_per_1000": None, "ci95": None, "grows": False}
    centred = x - x.mean()
    rate = float((centred * y).sum() / np.square(centred).sum())
    left = y - y.mean() - rate * centred
    spread = np.sqrt(np.square(left).sum() / (len(x) - 2) / np.square(centred).sum())
    low, high = rate - _Z95 * spread, rate + _Z95 * spread
    grows = bool(low * (x[-1] - x[0]) > GROWTH_DB)
    ends = [float(low), float(high)]
    return {"from": first, "db_per_1000": rate, "ci95": ends, "grows": grows}


def _tensors(errors: Errors) -> dict[str, dict[str, float | None]]:
    """SQNR of each tensor over the first and over the last quarter of the run."""
    count = len(errors.positions)
    quarter = max(1, count // 4)
    halves = {"first_db": slice(0, quarter), "last_db": slice(count - quarter, count)}
    return {
        name: {
            key: _db(errors.signal[part, i].sum(), errors.noise[part, i].sum())
            for key, part in halves.items()
        }
        for i, name in enumerate(errors.names)
    }


def print_drift(report: dict[str, Any], console: Console) -> None:
    """The report of `measure_drift` as tables."""
    state = ", ".join(
        f"{kind} {size / 1024:.0f} KiB" for kind, size in report["state_bytes"].items()
    )
    console.print(
        f"{report['bundle']}, {report['precision']}, {report['tokens']} tokens; state: {state}",
        highlight=False,
    )
    side = report["emulator"]
    console.print(
        _table(f"emulated {report['chip']} against qdq on the CPU", side, side["one_step"])
    )
    if report["float"] is not None:
        console.print(_table("fp32 activations against qdq: quantisation itself", report["float"]))
    for kind, found in side["slopes"].items():
        console.print(f"{kind}: {_verdict(found)}", highlight=False, soft_wrap=True)


def _table(title: str, side: dict[str, Any], fresh: list[dict[str, Any]] | None = None) -> Table:
    kinds = [kind for kind in KINDS if kind in side["slopes"]]
    table = Table(title=f"{title}: SQNR in dB" + (" (of one step alone)" if fresh else ""))
    table.add_column("tokens", justify="right", no_wrap=True)
    for name in (*kinds, "same token"):
        table.add_column(name, justify="right")
    steps_alone = {row["from"]: row for row in fresh or ()}
    for row in side["windows"]:
        alone = steps_alone.get(row["from"])
        cells = [_cell(row[kind], alone[kind] if alone else None) for kind in kinds]
        table.add_row(f"{row['from']} to {row['to']}", *cells, f"{row['equal_argmax']:.1%}")
    return table


def _cell(figures: dict[str, Any], alone: dict[str, Any] | None) -> str:
    texts = [
        "exact" if found["sqnr_db"] is None else f"{found['sqnr_db']:.1f}"
        for found in (figures, alone)
        if found is not None
    ]
    return texts[0] if len(texts) == 1 else f"{texts[0]} ({texts[1]})"


def _verdict(found: dict[str, Any]) -> str:
    if found["db_per_1000"] is None:
        return "too few positions differ for a slope"
    low, high = found["ci95"]
    word = "grows" if found["grows"] else "does not grow"
    rate = f"{found['db_per_1000']:+.2f} dB per 1,000 tokens (95 %: {low:+.2f} to {high:+.2f})"
    return f"from token {found['from']} on the error {word}, {rate}"
