"""The sentinel's picture: the world, the own car, who is about, and the boxes of what shows.

Boxes are those of the picture: cut by the own car where that stands in front, and bent as the
fisheye bends the drawing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import hypot
from typing import Any

from autoneural.data.cockpit import own_car, parking, tools, visitors
from autoneural.data.cockpit.base import Box
from autoneural.data.cockpit.cast import CONTACT, Act, Cast, act_of, cast_of
from autoneural.data.cockpit.figures import Circle, Figure
from autoneural.data.cockpit.lens import bent_box
from autoneural.data.cockpit.parking import View, dim
from autoneural.data.cockpit.svg import SIDE, Canvas, mix

Bounds = tuple[float, float, float, float]
TINTED = ("cloth", "trousers", "skin", "hair", "shoe", "hat", "cover", "paint", "coat", "collar")


def _dressed(person: Mapping[str, Any], truth: Mapping[str, str], face: str) -> dict[str, Any]:
    """A look with its colours under the light of the day."""

    def lit(color: str) -> str:
        return mix(color, dim(color, truth["light"]), 0.8)

    return {k: lit(v) if k in TINTED else v for k, v in person.items()} | {"face": face}


def _shadow(c: Canvas, figure: Figure) -> None:
    stand = figure.stand
    hip = figure.points["hip"][0]
    c.ellipse((stand.x + hip) / 2, stand.y, 0.42 * figure.unit, 0.07 * figure.unit, "#000000",
              fill_opacity=0.35)  # fmt: skip


def _own(c: Canvas, act: Act, cast: Cast, truth: dict[str, str], look: dict[str, Any]) -> None:
    (own_car.flank if act.flank else own_car.end)(c, cast.view, truth, look)
    if truth["damage"] != "none":
        on = own_car.panel(cast.view, act.place, truth["damage"], tuple(look["spot"]))
        own_car.damage(c, on, truth["damage"], dim(look["own"], truth["light"]))


def _main(c: Canvas, act: Act, cast: Cast, person: dict[str, Any]) -> None:
    """The actor at the car, without what reaches over the car."""
    if cast.main:
        _shadow(c, cast.main)
        cast.main.draw(c, person)
    elif cast.visitor:
        kind, stand, calm = cast.visitor
        visitors.draw(c, kind, stand, person, calm)


def _over(c: Canvas, act: Act, cast: Cast, person: dict[str, Any], seen: Mapping[str, str]) -> None:
    """Arms that reach over nose or tail, the tool, the marks of an impact."""
    if cast.main and not act.flank and act.touched != "none":
        cast.main.arms(c, person, ("far", "near"))
    if cast.held:
        if seen["tool"] == "torch":  # a cone of light would tell what the lens hides
            tools.beam(
                c,
                cast.held,
                0.9 if act.touched == "none" else 0.42,
                0.6 if seen["light"] == "night" else 0.5,
            )
        tools.draw(c, cast.held, person["tool"])
        if cast.main:
            x, y, r = cast.main.hand("near")
            c.circle(x, y, r * 0.8, person["skin"])
    if act.event == "impact" and cast.visitor:
        spot, ground = _contact(act, cast)
        own_car.impact(c, spot, ground, cast.visitor[1].scale ** 0.5 * 7)


def _contact(act: Act, cast: Cast) -> tuple[tuple[float, float], tuple[float, float]]:
    """Where the visitor's near end meets the car, and the ground below (or the car's own deck)."""
    assert cast.visitor
    kind, stand, _ = cast.visitor
    if not act.flank:
        far = own_car.EDGE[act.place]
        x = CONTACT * (0 if kind == "car front" else -stand.facing)
        return cast.view.at(x, 0.9, far - 0.04), cast.view.at(x, 0.9, far - 0.28)
    x = stand.x + stand.facing * stand.scale * (visitors.EXTENT[kind][1] - 0.03)
    height = {"car": 0.5, "shopping trolley": 0.78, "cyclist": 0.36}.get(kind, 0.5)
    return (x, stand.y - height * stand.scale), (x - stand.facing * 0.3 * stand.scale, stand.y)


def svg(truth: dict[str, str], look: dict[str, Any]) -> str:
    """The SVG, before the lens, of a scene with attributes `truth` and appearance `look`."""
    act, c = act_of(truth, look), Canvas()
    cast = cast_of(act, look)
    person = _dressed(look["people"][0], truth, act.face)
    parking.world(c, cast.view, truth, look)
    for index, figure in enumerate(cast.others):
        _shadow(c, figure)
        figure.draw(c, _dressed(look["people"][index + 1], truth, "not covered"))
    if act.flank:
        _own(c, act, cast, truth, look)
        _main(c, act, cast, person)
    else:
        _main(c, act, cast, person)
        _own(c, act, cast, truth, look)
    _over(c, act, cast, person, truth)
    parking.fall(c, truth, look)
    return c.text()


def _rim(view: View, place: str) -> list[tuple[float, float]]:
    return [view.at(*point) for point in own_car.rim(place)]


def _car_top(rim: list[tuple[float, float]], u: float) -> float:
    """How high the own car reaches in a column of the drawing; below the picture beside it."""
    tops = [
        v0 + (v1 - v0) * (u - u0) / (u1 - u0)
        for (u0, v0), (u1, v1) in zip(rim, rim[1:], strict=False)
        if min(u0, u1) <= u <= max(u0, u1) and u0 != u1
    ]
    return min(tops, default=2.0 * SIDE)


def _bounds(circles: Iterable[Circle], rim: list[tuple[float, float]]) -> Bounds | None:
    """Of circles, as far as they show above the own car."""
    shown = [(x, y, r, _car_top(rim, x)) for x, y, r in circles]
    shown = [(x, y, r, top) for x, y, r, top in shown if y - r < top - 0.5]
    if not shown:
        return None
    return (
        min(x - r for x, _, r, _ in shown),
        min(y - r for _, y, r, _ in shown),
        max(x + r for x, _, r, _ in shown),
        max(min(y + r, top) for _, y, r, top in shown),
    )


def _patch(box: Bounds) -> list[Circle]:
    """A box filled with small circles, to be cut like a body."""
    left, top, right, bottom = box
    r = min(right - left, bottom - top) / 16
    return [
        (left + r + (right - left - 2 * r) * i / 12, top + r + (bottom - top - 2 * r) * j / 12, r)
        for i in range(13)
        for j in range(13)
    ]


def _box(bounds: Bounds, k: float) -> Box:
    return bent_box(Box(*(value / SIDE for value in bounds)), k)


def boxes(truth: Mapping[str, str], look: Mapping[str, Any]) -> dict[str, Box]:
    """`actor`, `tool`, `damage` as far as they show; `bystander 1`, ... those farther off."""
    act = act_of(truth, look)
    cast, k = cast_of(act, look), look["camera"]["fisheye"]
    rim = [] if act.flank else _rim(cast.view, act.place)
    found: dict[str, Bounds | None] = {}
    if cast.main:
        reaching = not act.flank and act.touched != "none"
        arms = cast.main.arms_outline() if reaching else []
        found["actor"] = _joined(_bounds(cast.main.outline(), rim), _bounds(arms, []))
    elif cast.visitor:
        kind, stand, _ = cast.visitor
        found["actor"] = _bounds(_patch(visitors.outline(kind, stand)), rim)
    if cast.held:
        found["tool"] = _bounds(cast.held.circles(), [])
    for index, figure in enumerate(cast.others):
        found[f"bystander {index + 1}"] = _bounds(figure.outline(), rim)
    out = {name: _box(bounds, k) for name, bounds in found.items() if bounds}
    if truth["damage"] != "none":
        out["damage"] = _box(_bounds_of(_damage(truth, look, cast.view)), k)
    return out


def _damage(
    truth: Mapping[str, str], look: Mapping[str, Any], view: View
) -> list[tuple[float, float]]:
    on = own_car.panel(view, truth["place"], truth["damage"], tuple(look["spot"]))
    return own_car.damage_points(on, truth["damage"])


def _bounds_of(points: list[tuple[float, float]]) -> Bounds:
    us, vs = [u for u, _ in points], [v for _, v in points]
    return min(us), min(vs), max(us), max(vs)


def damage_covered(truth: Mapping[str, str], look: Mapping[str, Any]) -> float:
    """The share of the damage's rim that somebody or something stands in front of."""
    act = act_of(truth, look)
    cast = cast_of(act, look)
    circles = cast.held.circles() if cast.held else []
    if cast.main:
        circles += cast.main.outline() if act.flank else cast.main.arms_outline()
    elif cast.visitor and act.flank:
        circles += _patch(visitors.outline(*cast.visitor[:2]))
    points = _damage(truth, look, cast.view)
    under = [any(hypot(x - u, y - v) < r + 1 for x, y, r in circles) for u, v in points]
    return sum(under) / len(under)


def _joined(a: Bounds | None, b: Bounds | None) -> Bounds | None:
    if a is None or b is None:
        return a or b
    return min(a[0], b[0]), min(a[1], b[1]), max(a[2], b[2]), max(a[3], b[3])


def hands_and_head(truth: Mapping[str, str], look: Mapping[str, Any]) -> tuple[Box, Box]:
    """What a lens must cover to hide what somebody on foot does, or who it is."""
    cast, k = cast_of(act_of(truth, look), look), look["camera"]["fisheye"]
    assert cast.main
    busy = [cast.main.hand("far"), cast.main.hand("near")]
    busy += cast.held.circles() if cast.held else []
    hands, head = _bounds(busy, []), _bounds([cast.main.head()], [])
    assert hands
    assert head
    return _box(hands, k), _box(head, k)
