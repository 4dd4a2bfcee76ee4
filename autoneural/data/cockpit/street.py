"""Draws the view behind the own car: place, road, what approaches, own tail and door, weather.

The road is a plane seen in perspective: a line at lateral offset `k` runs along
x = 128 + k * (y - horizon). Things stand on it at (lane, y) and scale with y - horizon.
"""

from __future__ import annotations

from typing import Any

from autoneural.data.cockpit import covers, vehicles
from autoneural.data.cockpit.base import CANNOT_TELL
from autoneural.data.cockpit.svg import SIDE, Canvas, dark, light, mix

PAINT = ("#c23b32", "#2c5aa0", "#d9dce0", "#3f4650", "#e0a526", "#2f7d5b", "#f2f2ee", "#7a4fa0")
PAINT_HELD_OUT = ("#a8552c", "#4b86b4", "#b8bec6", "#5a2f3a", "#8fae3c")
CLOTH = ("#d8402f", "#2f6fc0", "#f0c020", "#3aa05a", "#f4f4f0", "#e87820", "#8048a8", "#28a0a8")
CLOTH_HELD_OUT = ("#c85a78", "#5a9ad8", "#b8d040", "#d8a878", "#6858c8")
TROUSERS = ("#22304a", "#3a3a3e", "#5a4c3c", "#1e2024")
TROUSERS_HELD_OUT = ("#2c3f5c", "#4b4038", "#2d3328")
SKIN = ("#f3d3bb", "#d29c72", "#b67c50", "#8d5a38", "#66402a")
SKIN_HELD_OUT = ("#ebc3a2", "#c68a60", "#76492f")
PLACES = ("city", "trees", "hills")
PLACES_HELD_OUT = ("village", "harbour")
SKY = {
    "day": ("#7fb6e6", "#bfdcf2", "#e6f0f4"),
    "dusk": ("#4a4a80", "#b06a80", "#f2a262"),
    "night": ("#070b18", "#0e1630", "#1a2444"),
}
ROAD = {"day": "#6e7278", "dusk": "#504c56", "night": "#24272f"}
VERGE = {"day": "#8fa06a", "dusk": "#5a5648", "night": "#161c1c"}


def sky(c: Canvas, truth: dict[str, str], horizon: float) -> None:
    colors = SKY[truth["light"]]
    if truth["weather"] != "dry":
        colors = tuple(mix(color, "#8a9098" if truth["light"] == "day" else "#30343c", 0.55)
                       for color in colors)  # fmt: skip
    for band in range(12):  # bands, because resvg takes milliseconds for a gradient this large
        t = band / 5.5
        color = mix(colors[int(t)], colors[min(int(t) + 1, 2)], t % 1)
        c.rect(0, horizon * band / 12, SIDE, SIDE, color)
    if truth["weather"] == "dry" and truth["light"] == "night":
        c.circle(206, 22, 10, "#e8ecf4")
    elif truth["weather"] == "dry" and truth["light"] == "dusk":
        c.circle(60, horizon - 14, 14, "#ffd890")


def _city(c: Canvas, truth: dict[str, str], look: dict[str, Any], horizon: float) -> None:
    base = {"day": "#9aa2ac", "dusk": "#4a4660", "night": "#141826"}[truth["light"]]
    lamp = "#ffd880" if truth["light"] != "day" else "#5a6878"
    windows = []
    for index in range(12):
        x = index * 23 - 8
        rise = 18 + 46 * look["blocks"][index] * abs(index - 5.5) / 5.5
        c.rect(
            x, horizon - rise, 22, rise + 2, mix(base, "#806858", look["blocks"][index + 12] * 0.5)
        )
        windows += [
            f"M{x + 5} {horizon - rise + 6 + 9 * k} h4 m5 0 h4" for k in range(int(rise // 9))
        ]
    c.line(" ".join(windows), lamp, 3.5, stroke_linecap="butt", stroke_opacity=0.7)


def _trees(c: Canvas, truth: dict[str, str], look: dict[str, Any], horizon: float) -> None:
    leaf = {"day": "#4f7a3e", "dusk": "#38402f", "night": "#0f1814"}[truth["light"]]
    if truth["weather"] == "snow":
        leaf = mix(leaf, "#e8eef4", 0.35)
    for index in range(12):
        x = index * 23 + 2
        r = 10 + 16 * abs(index - 5.5) / 5.5 * (0.6 + 0.6 * look["blocks"][index])
        c.rect(x - 2, horizon - r, 4, r, "#4a3828")
        c.circle(x, horizon - r * 1.2, r, mix(leaf, "#a0a040", look["blocks"][index + 12] * 0.3))


def _hills(c: Canvas, truth: dict[str, str], look: dict[str, Any], horizon: float) -> None:
    color = {"day": "#7f9a7c", "dusk": "#584a60", "night": "#10182a"}[truth["light"]]
    y = [horizon - 12 - 34 * value for value in look["blocks"][:4]]
    c.path(
        f"M0 {horizon} V{y[0]} Q50 {y[1]} 110 {horizon - 8} T256 {y[2]} V{horizon + 2} Z",
        mix(color, "#a8b8c8", 0.3),
    )
    c.path(
        f"M0 {horizon} V{horizon - 14} Q70 {horizon - 26} 150 {horizon - 8} "
        f"T256 {horizon - 10} V{horizon + 2} Z",
        color,
    )


def _village(c: Canvas, truth: dict[str, str], look: dict[str, Any], horizon: float) -> None:
    wall = {"day": "#e6dcc8", "dusk": "#8a7480", "night": "#1c2234"}[truth["light"]]
    roof = "#e4e8ee" if truth["weather"] == "snow" else "#a04a38"
    roof = dark(roof, {"day": 0.0, "dusk": 0.4, "night": 0.7}[truth["light"]])
    lamp = "#ffd880" if truth["light"] != "day" else "#6a7a88"
    for index in (0, 1, 2, 4, 5, 6):
        x, rise = index * 38 - 6, 16 + 5 * abs(index - 3) + 8 * look["blocks"][index]
        c.rect(
            x, horizon - rise, 34, rise + 1, mix(wall, "#b08868", look["blocks"][index + 8] * 0.5)
        )
        c.path(f"M{x - 3} {horizon - rise} H{x + 37} L{x + 17} {horizon - rise - 17} Z", roof)
        c.line(f"M{x + 8} {horizon - rise + 8} h5 m8 0 h5", lamp, 6, stroke_linecap="butt")


def _harbour(c: Canvas, truth: dict[str, str], look: dict[str, Any], horizon: float) -> None:
    sea = {"day": "#4a80a8", "dusk": "#5a5078", "night": "#0c1a30"}[truth["light"]]
    c.rect(0, horizon - 16, SIDE, 18, sea)
    mast = {"day": "#e8ecf0", "dusk": "#c8a8a0", "night": "#48546c"}[truth["light"]]
    for index in range(7):
        x, rise = index * 40 + 8, 26 + 26 * look["blocks"][index]
        c.path(f"M{x - 12} {horizon - 10} H{x + 12} L{x + 8} {horizon - 3} H{x - 8} Z", mast)
        c.path(
            f"M{x} {horizon - 11} V{horizon - rise} L{x + 13} {horizon - 13} Z",
            mix(mast, "#d07050", look["blocks"][index + 7] * 0.5),
        )


PLACE = {"city": _city, "trees": _trees, "hills": _hills, "village": _village, "harbour": _harbour}


def _band(k0: float, k1: float, y0: float, y1: float, horizon: float) -> str:
    """The strip of the road plane between two lateral offsets and two heights in the picture."""
    corners = ((k0, y0), (k1, y0), (k1, y1), (k0, y1))
    points = " L".join(f"{128 + k * (y - horizon):.2f} {y:.2f}" for k, y in corners)
    return f"M{points} Z"


def _road(c: Canvas, truth: dict[str, str], horizon: float) -> None:
    road, verge = ROAD[truth["light"]], VERGE[truth["light"]]
    if truth["weather"] == "rain":
        road = dark(road, 0.25)
    elif truth["weather"] == "snow":
        white = {"day": "#eef2f6", "dusk": "#b8a8b4", "night": "#606a80"}[truth["light"]]
        road, verge = mix(road, white, 0.35), mix(verge, white, 0.85)
    c.rect(-10, horizon, SIDE + 20, SIDE, verge)
    c.path(_band(-1.5, 1.5, horizon, 258, horizon), road)
    paint = mix(road, "#ffffff", 0.75)
    for side in (-1, 1):
        c.path(_band(side * 1.36, side * 1.42, horizon, 258, horizon), paint)
        dashes = ((4, 8), (12, 19), (28, 42), (60, 86), (116, 160))
        c.path(
            " ".join(
                _band(side * 0.43, side * 0.47, horizon + a, horizon + b, horizon)
                for a, b in dashes
            ),
            paint,
        )


def _ground(c: Canvas, truth: dict[str, str], horizon: float) -> None:
    """What lies beside the door that is ajar."""
    sign = -1 if truth["door"] == "left" else 1
    x, y = 128 + sign * 98, 205
    if truth["ground"] == "kerb":
        near, far = 0.5 * (168 - horizon), 0.74 * (260 - horizon)
        c.mark("ground", 128 + min(sign * near, sign * far), 168, far - near, 92)
        stone = {"day": "#d6d2c8", "dusk": "#b09c98", "night": "#70747e"}[truth["light"]]
        c.path(_band(sign * 0.5, sign * 0.54, 168, 260, horizon), dark(stone, 0.55))
        c.path(_band(sign * 0.54, sign * 0.74, 168, 260, horizon), stone)
        joints = " ".join(
            _band(sign * 0.54, sign * 0.74, y, y + 2, horizon) for y in (180, 196, 216, 240)
        )
        c.path(joints, dark(stone, 0.4))
        return
    c.mark("ground", x - 46, y - 15, 92, 30)
    if truth["ground"] == "puddle":
        sky = {"day": "#b4d4ee", "dusk": "#d09080", "night": "#3a5080"}[truth["light"]]
        c.ellipse(x, y, 46, 15, dark(ROAD[truth["light"]], 0.5))
        c.ellipse(x, y, 43, 13, sky)
        c.ellipse(x - 8, y - 3, 24, 6, light(sky, 0.45), fill_opacity=0.8)
        c.line(f"M{x + 6} {y + 5} h22 M{x - 30} {y + 2} h12", light(sky, 0.6), 2)


def _own_car(c: Canvas, truth: dict[str, str], look: dict[str, Any]) -> None:
    paint = look["own"]
    if truth["light"] == "night":
        paint = dark(paint, 0.45)
    c.path(
        "M58 260 L66 214 Q70 204 84 202 H172 Q186 204 190 214 L198 260 Z",
        light(paint, 0.08),
        stroke=dark(paint, 0.6),
        stroke_width=2,
    )
    c.path("M80 260 L88 222 Q90 216 98 216 H158 Q166 216 168 222 L176 260 Z", "#1a222c")
    c.path("M92 260 L100 222 H120 L104 260 Z", "#5a6c80", fill_opacity=0.5)
    c.line("M72 212 Q128 204 184 212", light(paint, 0.5), 2)
    sign = -1 if truth["door"] == "left" else 1
    gap = sign * 64 + 128
    c.path(
        f"M{gap - 5} 216 H{gap + 5} L{gap + sign * 6 + 5} 260 H{gap + sign * 6 - 5} Z", "#08090b"
    )
    with c.group(transform=f"translate(128 0) scale({sign} 1)"):
        _door(c, paint)


def _door(c: Canvas, paint: str) -> None:
    """Ajar, on the right."""
    c.mark("door", 69, 205, 60, 56)
    c.path(
        "M69 224 L121 207 Q128 206 128 213 V260 H70 Z",
        paint,
        stroke=dark(paint, 0.65),
        stroke_width=2.5,
    )
    c.path("M69 224 L121 207 L126 213 L70 232 Z", light(paint, 0.5))
    c.rect(101, 226, 19, 7, "#e4e8ec", rx=3, stroke="#30343a", stroke_width=1.5)


def _weather(c: Canvas, truth: dict[str, str], look: dict[str, Any]) -> None:
    drops = look["drops"]
    pairs = list(zip(drops[::2], drops[1::2], strict=True))
    if truth["weather"] == "rain":
        c.line(" ".join(f"M{x} {y} l-5 17" for x, y in pairs), "#dce8f4", 1.6, stroke_opacity=0.55)
    elif truth["weather"] == "snow":
        for flakes, size in ((pairs[:40], 4.5), (pairs[40:], 7.5)):
            d = " ".join(f"M{x} {y} h0.1" for x, y in flakes)
            c.line(d, "#ffffff", size, stroke_opacity=0.9)


def _approaching(c: Canvas, truth: dict[str, str], look: dict[str, Any], horizon: float) -> None:
    depth, thing = look["y"] - horizon, truth["object"]
    x = 128 + (-1 if truth["side"] == "left" else 1) * look["lane"] * depth
    with c.group(transform=f"translate({x:.2f} {look['y']}) scale({depth / 100:.3f})"):
        left, top, right, bottom = vehicles.EXTENT[thing]
        top += 12 if (thing, look["body"]) == ("car", "saloon") else 0
        c.mark("object", left, top, right - left, bottom - top)
        vehicles.DRAW[thing](c, look, truth["light"] != "day")


def _scattered(look: dict[str, Any], x: float, y: float, w: float, h: float) -> list[covers.Spot]:
    """Points of a rectangle."""
    drops = [drop / SIDE for drop in look["drops"]]
    return [(x + w * a, y + h * b) for a, b in zip(drops[::2], drops[1::2], strict=True)]


def _lens(c: Canvas, truth: dict[str, str], look: dict[str, Any]) -> None:
    """What lies on the lens: before all that may come, or as a stain that hides nothing asked."""
    if truth["object"] != CANNOT_TELL:
        if look["stain"]:
            x, y = look["stain"]
            lumps = _scattered(look, x - 24, y - 13, 48, 26)
            covers.mud(c, lumps[:7], lumps, look["mud"], 17)
    elif look["cover"] == "glare":
        covers.glare(c, 128, 126, 166, 90, look["shine"])
    else:
        spots = [(column * 32.0, 89 + row * 25.0) for row in range(4) for column in range(9)]
        grains = _scattered(look, -10, 62, 276, 130)
        ragged = _scattered(look, -10, 78, 276, 96)
        if look["cover"] == "mud":
            covers.mud(c, spots + ragged[:30], grains, look["mud"], 54)
        else:
            pale = {"day": "#ccd4da", "dusk": "#a8989c", "night": "#4a525e"}[truth["light"]]
            covers.mist(c, spots + ragged[:20], grains, pale, 54)


def street(truth: dict[str, str], look: dict[str, Any]) -> Canvas:
    """A view back with attributes `truth` and appearance `look`."""
    c, horizon = Canvas(), look["horizon"]
    sky(c, truth, horizon)
    PLACE[look["place"]](c, truth, look, horizon)
    with c.group(transform=f"translate({look['shift']} 0)"):
        _road(c, truth, horizon)
        _ground(c, truth, horizon)
        if truth["object"] not in ("none", CANNOT_TELL):
            _approaching(c, truth, look, horizon)
        _own_car(c, truth, look)
    _weather(c, truth, look)
    _lens(c, truth, look)
    return c
