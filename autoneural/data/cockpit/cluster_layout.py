"""Where the instruments of a cluster's body sit: layouts written down, and any that fit.

Five layouts teach a model five maps by heart, and on a sixth it looks in the wrong place. Training
therefore sees the written ones half of the time, and else stacks the instruments anyhow.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from autoneural.data.cockpit.base import Rng, Split, chance, pick, pool, uniform

Place = tuple[float, float, float]
"""Centre x, centre y from the top of the body, scale."""
WIDTH, HEIGHT = 252.0, 158.0
"""Of the body."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    speed: Place
    dial: bool
    arrow: Place
    distance: tuple[float, float]
    """From the centre of the arrow."""
    sign: Place
    gear: Place
    charge: Place
    gauge: tuple[float, float]
    """Where its needle turns."""


_BESIDE, _BELOW = (56, 7), (0, 46)
LAYOUTS_BY_NAME = {
    "left": Layout(speed=(66, 63, 1), dial=True, arrow=(157, 33, 0.92), distance=_BESIDE,
                   sign=(162, 90, 1), gear=(189, 139, 1), charge=(68, 143, 1), gauge=(222, 104)),
    "right": Layout(speed=(187, 63, 1), dial=True, arrow=(31, 33, 0.92), distance=_BESIDE,
                    sign=(92, 90, 1), gear=(64, 139, 1), charge=(189, 143, 1), gauge=(32, 104)),
    "centre": Layout(speed=(128, 51, 1.15), dial=False, arrow=(34, 37, 0.95), distance=_BELOW,
                     sign=(220, 38, 1), gear=(188, 137, 1), charge=(68, 137, 1), gauge=(216, 106)),
    "east": Layout(speed=(190, 94, 1.1), dial=False, arrow=(103, 36, 1), distance=_BELOW,
                   sign=(42, 48, 1), gear=(190, 24, 1), charge=(70, 140, 1), gauge=(66, 114)),
    "west": Layout(speed=(66, 94, 1.1), dial=False, arrow=(153, 36, 1), distance=_BELOW,
                   sign=(214, 48, 1), gear=(66, 24, 1), charge=(184, 140, 1), gauge=(188, 114)),
    "tower": Layout(speed=(74, 46, 1.05), dial=False, arrow=(160, 33, 0.92), distance=_BESIDE,
                    sign=(202, 87, 1), gear=(68, 112, 1), charge=(68, 145, 1), gauge=(202, 148)),
    "mirror": Layout(speed=(184, 46, 1.05), dial=False, arrow=(34, 33, 0.92), distance=_BESIDE,
                     sign=(52, 87, 1), gear=(184, 112, 1), charge=(182, 145, 1), gauge=(52, 148)),
}  # fmt: skip
LAYOUTS = ("left", "right", "centre", "east", "west")
LAYOUTS_HELD_OUT = ("tower", "mirror")
_HELD_OUT_COLUMN = {"speed", "gear", "charge"}
"""What the held-out layouts stack apart from the rest."""

_SIZES = {
    "speed": (112, 66, 56, 29), "arrow": (116, 52, 28, 27), "sign": (60, 60, 30, 30),
    "gear": (116, 36, 58, 18), "charge": (116, 30, 58, 15), "gauge": (60, 40, 30, 31),
    "arrow above": (62, 78, 31, 27),
}  # fmt: skip
"""Width, height, and the centre from the top left corner; "arrow above" is above its distance."""
_ROWS = (
    (("speed",), ("arrow",), ("sign",), ("gear",), ("charge",), ("gauge",)),
    (("speed",), ("arrow",), ("sign", "gauge"), ("gear",), ("charge",)),
    (("speed",), ("arrow above", "sign"), ("gear",), ("charge",), ("gauge",)),
    (("speed",), ("arrow above", "gauge"), ("sign",), ("gear",), ("charge",)),
)
"""What may stand side by side within a column."""


def draw_layout(rng: Rng, split: Split) -> dict[str, Any]:
    """The fields of a Layout, as JSON has them."""
    layout = LAYOUTS_BY_NAME[pick(rng, pool(split, LAYOUTS, LAYOUTS_HELD_OUT))]
    if split != "test" and not chance(rng, 0.4):
        layout = any_layout(rng)
    return {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in asdict(layout).items()
    }


def any_layout(rng: Rng) -> Layout:
    """The instruments in two columns, in any order that fits, and not as a held-out layout."""
    while True:
        rows = [tuple(rng.permutation(row).tolist()) for row in pick(rng, _ROWS)]
        rows = [rows[i] for i in rng.permutation(len(rows)).tolist()]
        cut = int(rng.integers(2, len(rows) - 1))
        columns = rows[:cut], rows[cut:]
        names = [{name for row in column for name in row} for column in columns]
        if max(map(_height, columns)) <= HEIGHT and _HELD_OUT_COLUMN not in names:
            break
    places = _stack(rng, columns[0], 0.0) | _stack(rng, columns[1], WIDTH / 2)
    arrow = "arrow" if "arrow" in places else "arrow above"
    return Layout(
        dial=False,
        distance=_BESIDE if arrow == "arrow" else _BELOW,
        arrow=(*places[arrow], 0.92),
        gauge=places["gauge"],
        speed=(*places["speed"], uniform(rng, 0.9, 1.05)),
        **{name: (*places[name], 1.0) for name in ("sign", "gear", "charge")},
    )


def _height(column: Sequence[Sequence[str]]) -> float:
    return sum(max(_SIZES[name][1] for name in row) for row in column)


def _stack(
    rng: Rng, column: Sequence[Sequence[str]], left: float
) -> dict[str, tuple[float, float]]:
    """The centres of a column's instruments; what room is left is shared out at random."""
    places: dict[str, tuple[float, float]] = {}
    gaps = _shares(rng, HEIGHT - _height(column), len(column))
    top = 0.0
    for row, gap in zip(column, gaps, strict=True):
        slack = WIDTH / 2 - sum(_SIZES[name][0] for name in row)
        x, y = left, top + gap
        for name, aside in zip(row, _shares(rng, slack, len(row)), strict=True):
            width, _, dx, dy = _SIZES[name]
            places[name] = (round(x + aside + dx, 2), round(y + dy, 2))
            x += aside + width
        top = y + max(_SIZES[name][1] for name in row)
    return places


def _shares(rng: Rng, whole: float, count: int) -> list[float]:
    """`count` parts of `whole`, one more left over at the end."""
    cuts = sorted(uniform(rng, 0, whole) for _ in range(count))
    return [end - start for start, end in zip([0.0, *cuts], cuts, strict=False)]
