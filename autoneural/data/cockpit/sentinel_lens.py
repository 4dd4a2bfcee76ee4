"""What the sentinel's camera can see: damage and bystanders in sight, and what its lens hides.

The lens hides what somebody's hands do, or a face, wholly; whatever else is asked about stays in
sight. Dirt and drops that hide nothing are there too, so that dirt alone tells nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from autoneural.data.cockpit import sentinel_view
from autoneural.data.cockpit.base import Box, Rng, chance, pick, uniform
from autoneural.data.cockpit.cast import ON_FOOT, PEOPLE

MUD = ("#5c4a36", "#6e675c", "#463a2c")
HIDDEN_HANDS, HIDDEN_FACE, STRAY_DIRT = 0.36, 0.2, 0.4


def in_sight(truth: dict[str, str], look: dict[str, Any]) -> dict[str, str]:
    """The attributes without damage or bystanders that something nearer would hide."""
    return _with_bystanders(_with_damage(truth, look), look)


def _with_damage(truth: dict[str, str], look: dict[str, Any]) -> dict[str, str]:
    """Moves the damage to where nobody stands before it; without it if there is no such place."""
    if truth["damage"] == "none":
        return truth
    for _ in range(3):
        if sentinel_view.damage_covered(truth, look) <= 0.12:
            return truth
        look["spot"] = [round((value + 0.37) % 1, 3) for value in look["spot"]]
    return {**truth, "damage": "none"}


def _with_bystanders(truth: dict[str, str], look: dict[str, Any]) -> dict[str, str]:
    """Without the bystanders that something nearer or the picture's edge would hide."""
    while int(truth["count"]) > (truth["actor"] in PEOPLE):
        found = sentinel_view.boxes(truth, look)
        walkers = [box for name, box in found.items() if name.startswith("bystander")]
        rest = [found["actor"]] if "actor" in found else []
        if all(
            _stands_free(box, [*rest, *(w for w in walkers if w is not box)]) for box in walkers
        ):
            break
        truth = {**truth, "count": str(int(truth["count"]) - 1)}
    return truth


def _overlap(blob: Box, box: Box) -> float:
    """The share of `box` under `blob`."""
    wide = min(blob.right, box.right) - max(blob.left, box.left)
    high = min(blob.bottom, box.bottom) - max(blob.top, box.top)
    area = (box.right - box.left) * (box.bottom - box.top)
    return max(wide, 0.0) * max(high, 0.0) / max(area, 1e-6)


def _stands_free(box: Box, others: list[Box]) -> bool:
    inside = box.left > 0.01 and box.right < 0.99
    return inside and all(_overlap(other, box) < 0.25 for other in others)


def _around(box: Box, margin: float) -> Box:
    """A box at least 0.1 wide and high that covers another with a margin."""
    x, y = (box.left + box.right) / 2, (box.top + box.bottom) / 2
    rx = max((box.right - box.left) / 2 + margin, 0.05)
    ry = max((box.bottom - box.top) / 2 + margin, 0.05)
    return Box(x - rx, y - ry, x + rx, y + ry)


@dataclass(frozen=True, kw_only=True)
class Spot:
    """Something on the lens: which list of `lens` it belongs to, its entry, what it covers."""

    kind: str
    entry: list[Any]
    box: Box


def _spot_over(rng: Rng, box: Box) -> Spot:
    """Dirt, a drop or glare that hides all of a box."""
    x, y = (box.left + box.right) / 2, (box.top + box.bottom) / 2
    rx, ry = (box.right - box.left) * 0.76, (box.bottom - box.top) * 0.76
    kind, mud = pick(rng, ("dirt", "dirt", "drops", "glare")), pick(rng, MUD)
    if kind != "dirt":
        rx = ry = max(rx, ry)
    size = {"dirt": [rx, ry, 0.98, mud], "drops": [rx], "glare": [rx, 1.0]}[kind]
    entry = [round(value, 4) if isinstance(value, float) else value for value in (x, y, *size)]
    return Spot(kind=kind, entry=entry, box=Box(x - rx, y - ry, x + rx, y + ry))


ALLOWED = {"actor": 0.5, "damage": 0.15, "tool": 0.15}


def _spared(blob: Box, found: Mapping[str, Box]) -> bool:
    """Whether everything that is asked about but not hidden stays in sight."""
    return all(_overlap(blob, box) < ALLOWED.get(name, 0.4) for name, box in found.items())


def soil(rng: Rng, truth: Mapping[str, str], look: dict[str, Any]) -> list[str]:
    """Puts dirt, drops and glare into `look["camera"]`; the attributes that they hide."""
    found, lens = sentinel_view.boxes(truth, look), look["camera"]
    hands = chance(rng, HIDDEN_HANDS) and truth["event"] in ("lingering", "tampering")
    face = chance(rng, HIDDEN_FACE) and truth["event"] in ("passing", "tampering")
    hidden: list[str] = []
    if truth["actor"] in ON_FOOT:
        busy, head = sentinel_view.hands_and_head(truth, look)
        over_hands, over_head = (_spot_over(rng, _around(box, 0.02)) for box in (busy, head))
        others = {name: box for name, box in found.items() if name != "tool"}
        if truth["event"] == "passing" and look["turned"]:
            hidden = ["face"]
        elif hands and _spared(over_hands.box, others):
            lens[over_hands.kind].append(over_hands.entry)
            hidden = ["event", "touched", "tool"]
            hidden += ["face"] if _overlap(over_hands.box, head) > 0.15 else []
        elif face and _spared(over_head.box, {**found, "hands": busy}):
            lens[over_head.kind].append(over_head.entry)
            hidden = ["face"]
    _stray(rng, lens, found, truth["weather"])
    return hidden


def _stray(rng: Rng, lens: dict[str, Any], found: Mapping[str, Box], weather: str) -> None:
    """Dirt and drops that hide nothing, so that dirt alone tells nothing."""
    tries = int(rng.integers(1, 4)) if chance(rng, STRAY_DIRT) else 0
    for _ in range(tries):
        x, y, r = uniform(rng, 0.04, 0.96), uniform(rng, 0.04, 0.96), uniform(rng, 0.03, 0.08)
        blob = Box(x - 1.4 * r, y - 1.4 * r, x + 1.4 * r, y + 1.4 * r)
        if any(_overlap(blob, box) > 0 for box in found.values()):
            continue
        if weather == "rain" or chance(rng, 0.3):
            lens["drops"].append([x, y, r])
        else:
            lens["dirt"].append([x, y, r, round(r * 0.8, 4), 0.95, pick(rng, MUD)])
