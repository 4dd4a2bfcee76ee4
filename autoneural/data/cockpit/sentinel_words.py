"""The words of the sentinel: questions, statements, caption."""

from __future__ import annotations

from collections.abc import Mapping

from autoneural.data.cockpit.base import CANNOT_TELL

KINDS = (
    "event", "actor", "count", "touched", "tool", "face", "damage", "place", "light", "weather",
    "lamps", "advice", "where", "sentence", "json",
)  # fmt: skip
PROMPTS = {
    "event": (
        "What is going on around the parked car?",
        "Is there nobody, somebody passing, lingering, tampering or an impact, or can one not "
        "tell?",
        "Which event does the sentinel camera show?",
    ),
    "actor": (
        "Who or what is the main actor near the parked car?",
        "Is it an adult, a child, a cyclist, a dog, a car, a shopping trolley or nobody?",
        "Name who or what is nearest to the parked car.",
    ),
    "count": (
        "How many people are in the picture?",
        "Count the people around the car.",
        "What is the number of people in view?",
    ),
    "touched": (
        "Which part of the parked car is being touched?",
        "What on the car is touched, if anything?",
        "Name the part of the car that somebody or something touches.",
    ),
    "tool": (
        "Which tool does the person at the car hold?",
        "Is there a crowbar, a screwdriver, a torch or none in hand, can one not tell, or is "
        "nobody there?",
        "What is in the hand of the person near the car?",
    ),
    "face": (
        "Is the face of the person near the car covered?",
        "Is the face covered or not covered, can one not tell, or is nobody there?",
        "What can you say about the face: does a mask cover it?",
    ),
    "damage": (
        "Which damage does the own car show?",
        "Is there a scratch, a dent, a broken window or none on the parked car?",
        "What damage do you see on the car?",
    ),
    "place": (
        "Which side of the car does the camera watch: front, rear, left or right?",
        "Where around the car is this?",
        "Which camera of the car is this, the front, rear, left or right one?",
    ),
    "light": (
        "Is it day, dusk or night around the car?",
        "What time of day does the sentinel see?",
        "How light is it outside the parked car?",
    ),
    "weather": (
        "What is the weather around the parked car?",
        "Is it dry, rain or snow outside the parked car?",
        "Which weather does the sentinel camera see?",
    ),
    "lamps": (
        "Are the indicators of the own car flashing or off?",
        "What do the parked car's own lamps do, flashing or off?",
        "Does the own car flash its indicators, or are they off?",
    ),
    "advice": (
        "What should the sentinel do?",
        "Which response fits: nothing, record, sound the alarm or notify the owner?",
        "What is the right reaction of the parked car?",
    ),
    "where": (
        "Where in the picture is {thing}?",
        "In which part of the picture is {thing}, or nowhere?",
        "Say where {thing} is in the picture.",
    ),
    "sentence": (
        "Report to the owner in one sentence.",
        "Say in one sentence what happens at the parked car and what to do.",
    ),
    "json": (
        'Answer as JSON with the keys "event", "actor" and "advice".',
        'Report {{"event": ..., "actor": ..., "advice": ...}} as JSON.',
    ),
}
STATEMENTS = {
    ("event", "nobody"): "is nobody near the parked car",
    ("event", "passing"): "does somebody or something only pass the car",
    ("event", "lingering"): "does somebody linger at the car",
    ("event", "tampering"): "does somebody tamper with the car",
    ("event", "impact"): "has something hit the car",
    ("actor", "adult"): "is an adult the main actor",
    ("actor", "child"): "is a child the main actor",
    ("actor", "dog"): "is a dog the main actor",
    ("place", "left"): "does the camera watch the left side of the car",
    ("place", "rear"): "does the camera watch the rear of the car",
    ("tool", "crowbar"): "does somebody hold a crowbar",
    ("tool", "torch"): "does somebody hold a torch",
    ("face", "covered"): "is the face covered",
    ("touched", "wheel"): "is a wheel of the parked car touched",
    ("damage", "dent"): "does the parked car have a dent",
    ("damage", "broken window"): "is a window of the parked car broken",
    ("light", "night"): "is it night around the parked car",
    ("weather", "snow"): "does it snow on the parked car",
    ("lamps", "flashing"): "do the own indicators flash",
    ("advice", "sound the alarm"): "should the car sound the alarm",
}
ARTICLE = {"adult": "an adult", "child": "a child", "cyclist": "a cyclist", "dog": "a dog",
           "car": "a car", "shopping trolley": "a shopping trolley", "none": "nobody"}  # fmt: skip
DOES = {"nobody": "is near the car", "passing": "passes the car", "lingering": "lingers at the car",
        "tampering": "tampers with the car", "impact": "has hit the car",
        CANNOT_TELL: "is at the car with hidden hands"}  # fmt: skip
ADVISED = {
    "nothing": "Nothing needs to be done",
    "record": "Record it",
    "sound the alarm": "Sound the alarm",
    "notify the owner": "Notify the owner",
}


def sentence(truth: Mapping[str, str]) -> str:
    """What happens and what to do, in one sentence."""
    who = ARTICLE[truth["actor"]]
    return f"{ADVISED[truth['advice']]}: {who} {DOES[truth['event']]}."


def _detail(truth: Mapping[str, str]) -> str:
    """Touch, tool and face, each also when there is nothing to say of it."""
    touched = {"none": "touching nothing", CANNOT_TELL: "touching one cannot tell what"}.get(
        truth["touched"], f"touching the {truth['touched']}"
    )
    tool = {"none": "no tool", CANNOT_TELL: "perhaps a tool"}.get(
        truth["tool"], f"a {truth['tool']}"
    )
    face = {"nobody": "no face to see", "covered": "a covered face",
            "not covered": "an uncovered face", CANNOT_TELL: "a face one cannot see"}  # fmt: skip
    return f"{touched}, with {tool} and {face[truth['face']]}"


def caption(truth: Mapping[str, str]) -> str:
    """Every attribute in two sentences."""
    side = {"left": "left side", "right": "right side"}.get(truth["place"], truth["place"])
    people = {"0": "no people", "1": "1 person"}.get(truth["count"], f"{truth['count']} people")
    damage = {"none": "undamaged", "broken window": "with a broken window"}.get(
        truth["damage"], f"with a {truth['damage']}"
    )
    return (
        f"The {side} of the parked car by {truth['light']} in {truth['weather']} weather, {people} "
        f"in view: {ARTICLE[truth['actor']]} {DOES[truth['event']]}, {_detail(truth)}. "
        f"The car is {damage}, its indicators are {truth['lamps']}; the advice is: "
        f"{truth['advice']}."
    )
