"""Who stands where around the parked car, in which pose and with what in hand.

Everything follows from what is enacted (`Act`) and the chances in `look`, so the drawing and the
boxes cannot disagree.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import cos, sin
from typing import Any

from autoneural.data.cockpit import figures, tools, visitors
from autoneural.data.cockpit.base import CANNOT_TELL
from autoneural.data.cockpit.figures import SIZE, Figure, Pose, Stand
from autoneural.data.cockpit.own_car import EDGE, SPOTS
from autoneural.data.cockpit.parking import View, view_of
from autoneural.data.cockpit.tools import Held

ON_FOOT = ("adult", "child")
PEOPLE = (*ON_FOOT, "cyclist")
TILT = {"crowbar": 0.45, "screwdriver": 0.15, "torch": -0.35}
"""How steeply a tool rises from the hand to its tip."""
FREE_HANDS = (
    ((0.2, 1.12), (0.24, 1.06)),  # folded
    ((0.3, 1.3), (0.32, 1.26)),  # a phone held up
    ((0.1, 0.92), (0.08, 0.95)),  # in the pockets
)
FREE_HANDS_FRONT = (
    ((0.1, 1.1), (-0.1, 1.14)),
    ((-0.08, 1.28), (0.08, 1.28)),
    ((-0.24, 0.98), (0.24, 0.98)),
)
CONTACT = 0.16
"""How far from the middle of nose or tail a trolley or bicycle hits."""
SLOTS = {
    True: ((2.1, 4.9), (3.0, 5.0), (1.7, 5.6), (3.7, 4.6), (2.5, 5.6)),
    False: ((-2.6, 4.7), (2.4, 4.6), (-1.4, 5.0), (1.2, 5.0), (0.0, 5.3)),
}
"""Where bystanders walk, (X, Z); for a flank and for the ends."""


@dataclass(frozen=True, kw_only=True)
class Act:
    """What really happens, also where the lens hides it."""

    event: str
    actor: str
    place: str
    touched: str
    tool: str
    face: str
    others: int

    @property
    def flank(self) -> bool:
        return self.place in ("left", "right")


@dataclass(frozen=True, kw_only=True)
class Cast:
    """The people and things in the drawing."""

    view: View
    main: Figure | None
    visitor: tuple[str, Stand, bool] | None
    held: Held | None
    others: list[Figure]


def act_of(truth: Mapping[str, str], look: Mapping[str, Any]) -> Act:
    """The attributes; behind each "cannot tell" is what `look["hidden"]` says."""
    known = {
        key: look["hidden"][key] if truth[key] == CANNOT_TELL else truth[key]
        for key in ("event", "touched", "tool", "face")
    }
    main = truth["actor"] in PEOPLE
    others = max(int(truth["count"]) - main, 0)
    return Act(actor=truth["actor"], place=truth["place"], others=others, **known)


def _outward(act: Act, look: Mapping[str, Any]) -> int:
    """Which way from the touched spot one stands."""
    if act.flank:
        return 1
    return -look["side"] if act.touched == "charging port" else look["side"]


def _spot(act: Act, look: Mapping[str, Any]) -> tuple[float, float, float]:
    spots = SPOTS[act.place]
    x, y, z = spots.get(act.touched, next(iter(spots.values())))
    return (x if act.flank else x * look["side"]), y, z


def _at_spot(act: Act, look: Mapping[str, Any], view: View) -> tuple[Pose, Stand, Held | None]:
    """Somebody whose hand, or the tool in it, is at the spot that is touched."""
    x, y, z = _spot(act, look)
    out, size = _outward(act, look), SIZE[act.actor]
    tip = view.at(x, y, z)
    stand = view.stand(x + out * 0.55 * size, z + (0.0 if act.flank else 0.16), -out, size)
    target, held = stand.metres(*tip), None
    if act.tool in ("crowbar", "screwdriver"):
        held = _pointing(act.tool, tip, stand)
        return figures.reaching(stand.metres(*held.at(tools.BEFORE[act.tool]))), stand, held
    pose = (figures.peering if act.touched == "window" else figures.reaching)(target)
    if act.tool == "torch":  # in the other hand, shining at what is touched
        aside = stand.at((target[0] - 0.16, target[1] + 0.16))
        held = _pointing("torch", aside, stand)
        hand = stand.metres(*held.at(tools.BEFORE["torch"]))
        pose = _with_hands(pose, (hand, target))
    return pose, stand, held


def _pointing(kind: str, tip: tuple[float, float], stand: Stand) -> Held:
    tilt = TILT[kind]
    return Held(
        kind=kind,
        tip=tip,
        along=(stand.facing * cos(tilt), -sin(tilt)),
        unit=stand.scale**0.5 * 7.2,
    )


def _with_hands(pose: Pose, hands: tuple[tuple[float, float], tuple[float, float]]) -> Pose:
    return Pose(
        view=pose.view, hip=pose.hip, lean=pose.lean, nod=pose.nod, feet=pose.feet, hands=hands
    )


def _close_by(act: Act, look: Mapping[str, Any], view: View) -> tuple[Pose, Stand]:
    """Somebody who stands still at the car and touches nothing."""
    size, t = SIZE[act.actor], look["along"]
    hands = look["hands"]
    if act.flank:
        x = 0.72 if act.tool == "none" else 0.98
        stand = view.stand(x, 1.35 + 0.8 * t, -1, size)
        return figures.standing(FREE_HANDS[hands]), stand
    stand = view.stand(look["side"] * (0.25 + 0.5 * t), EDGE[act.place] + 0.3, 1, size)
    return figures.standing(FREE_HANDS_FRONT[hands], "front"), stand


def _walking(act: Act, look: Mapping[str, Any], view: View) -> tuple[Pose, Stand]:
    stand = view.stand(*_path(act, look), look["facing"], SIZE[act.actor])
    if look["turned"]:
        return figures.walking_off(look["step"], "back"), stand
    return figures.walking(look["step"]), stand


def _path(act: Act, look: Mapping[str, Any]) -> tuple[float, float]:
    """Where what passes is: out of reach of the car."""
    t, s = look["along"], look["across"]
    near, far = {"cyclist": (2.6, 3.2), "car": (3.6, 4.2)}.get(act.actor, (2.3, 3.0))
    z = near + (far - near) * s
    if act.flank:
        return {"cyclist": 1.9, "car": 2.9}.get(act.actor, 1.5) + 0.7 * t, z
    return (2.0 * t - 1.0) * (0.75 if act.actor == "cyclist" else 1.0), z + 0.7


def _visitor(act: Act, look: Mapping[str, Any], view: View) -> tuple[str, Stand, bool]:
    """A dog, trolley, cyclist or car: passing, close by (a dog that sniffs), or against the car."""
    before = visitors.EXTENT[act.actor][1]
    side = 1 if act.flank else look["side"]
    if act.event == "passing":
        return act.actor, view.stand(*_path(act, look), look["facing"]), False
    if act.event != "impact":
        z = 1.5 + 0.4 * look["along"] if act.flank else EDGE[act.place] + 0.5
        return act.actor, view.stand(side * 0.85, z, -side), True
    if act.flank:
        return act.actor, view.stand(0.02 + before, 2.05, -1), True
    if act.actor == "car":
        return "car front", view.stand(0.1 * side, EDGE[act.place] + 0.3, 1), True
    x = side * (CONTACT + before)
    return act.actor, view.stand(x, EDGE[act.place] + 0.14, -side), True


def _others(act: Act, look: Mapping[str, Any], view: View, taken: list[float]) -> list[Figure]:
    """Bystanders who walk by farther off, on the slots that leave the most room."""
    slots = [SLOTS[act.flank][i] for i in look["slots"]]
    spots = [(x + 0.3 * look["along"], z) for x, z in slots]
    chosen: list[Figure] = []
    middles = list(taken)
    for index in range(act.others):

        def room(spot: tuple[float, float]) -> float:
            u, _ = view.at(spot[0], 0, spot[1])
            return min([abs(u - other) for other in middles] + [u - 22, 234 - u, 42])

        best = max(spots, key=room)
        spots.remove(best)
        stand = view.stand(*best, (1, -1)[(index + look["slots"][0]) % 2])
        middles.append(stand.x)
        chosen.append(Figure(figures.walking(look["step"]), "adult", stand))
    return sorted(chosen, key=lambda figure: figure.stand.scale)


def cast_of(act: Act, look: Mapping[str, Any]) -> Cast:
    """Who is in the picture of this act."""
    view, main, visitor, held = view_of(act.place, look), None, None, None
    if act.actor in ON_FOOT:
        if act.event == "passing":
            pose, stand = _walking(act, look, view)
        elif act.touched == "none":
            pose, stand = _close_by(act, look, view)
        else:
            pose, stand, held = _at_spot(act, look, view)
        if act.tool != "none" and held is None:
            pose, held = _in_hand(act.tool, pose, stand)
        main = Figure(pose, act.actor, stand)
    elif act.actor != "none":
        visitor = _visitor(act, look, view)
    taken = _middles(main, visitor)
    others = _others(act, look, view, taken)
    return Cast(view=view, main=main, visitor=visitor, held=held, others=others)


def _in_hand(kind: str, pose: Pose, stand: Stand) -> tuple[Pose, Held]:
    """A tool carried in front, touching nothing."""
    hand = (0.36, 1.02) if pose.view == "side" else (0.24, 1.42)
    x, y = stand.at(hand)
    way = stand.facing if pose.view == "side" else 1
    along = (way * 0.94, 0.34)
    unit = stand.scale**0.5 * 7.2
    reach = tools.BEFORE[kind] * unit
    held = Held(kind=kind, tip=(x + along[0] * reach, y + along[1] * reach), along=along, unit=unit)
    return _with_hands(pose, (pose.hands[0], hand)), held


def _middles(main: Figure | None, visitor: tuple[str, Stand, bool] | None) -> list[float]:
    """Columns of the drawing that the main actor takes up."""
    if main:
        spots = [x for x, _, _ in main.outline()]
        return [min(spots), (min(spots) + max(spots)) / 2, max(spots)]
    if visitor:
        kind, stand, _ = visitor
        left, _, right, _ = visitors.outline(kind, stand)
        return [left, (left + right) / 2, right, (3 * left + right) / 4, (left + 3 * right) / 4]
    return []
