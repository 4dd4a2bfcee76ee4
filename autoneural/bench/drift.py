"""Does the error of the decoder's state grow from step to step? Sides that decode the same tokens.

    rows (one picture, then text)  ->  reference: qdq on the CPU    ->  its state and logits
                                   ->  emulator:  qdq, compiled     ->  its own
                                   ->  fp32:      weights only      ->  its own

Every side keeps its own state from the first token on, so what a step gets wrong is there in all
later ones. At the first positions and then at every few, the emulator also takes one step from the
reference's state: what that step alone gets wrong, nothing inherited. Drift would be an error that
rises with the position.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autoneural.bench.drift_errors import Record, kind_of, summarise, windows
from autoneural.bench.held_out import held_out
from autoneural.bundle import Bundle
from autoneural.data.messages import Message
from autoneural.errors import UserError
from autoneural.runtime.chain import Arrays, Graph, Tapped
from autoneural.runtime.decoder import Decoder
from autoneural.runtime.devices import Placement, place
from autoneural.runtime.images import ImageEncoder
from autoneural.runtime.prompt import load_processor
from autoneural.runtime.qnn import require_wheel
from autoneural.runtime.session import TargetSessions, decode, encode, load_embedding
from autoneural.target.chips import Chip

_TASK = "hmi"


class Side:
    """A decoder on one device, one token at a time, with a state of its own.

    A `guest` takes its steps as well, from the same state.
    """

    def __init__(self, bundle: Bundle, placement: Placement) -> None:
        self.sessions = TargetSessions.load(bundle, placement)
        self.last: Arrays = {}
        self.guest: Graph | None = None
        self.guest_last: Arrays = {}
        self.graph = Tapped(self.sessions.decoders[0], self._see)
        self.decoder = Decoder(bundle, replace(self.sessions, decoders=(self.graph,)))
        if self.graph.spec.width != 1:
            raise UserError(f"bundle {bundle.name}: {placement.target} has no graph of one token")

    def step(self, row: NDArray[np.float32]) -> Arrays:
        """Commit one row [H]; everything the step made, as real numbers by name."""
        given = encode(row[None], self.graph.inputs["inputs_embeds"])
        self.decoder.step(given, [self.decoder.position])
        return self.real(self.last)

    def _see(self, feeds: Mapping[str, np.ndarray], outputs: Arrays) -> None:
        self.last = outputs
        if self.guest is not None:
            self.guest_last = self.guest.run(feeds)

    def real(self, outputs: Arrays) -> Arrays:
        """What a step made, as real numbers: of windows the new column; the logits that follow."""
        found = {name: decode(array, self.graph.outputs[name]) for name, array in outputs.items()}
        columns = {n: window[..., -1:] for n, window in found.items() if kind_of(n) == "conv"}
        return {**found, **columns, "logits": self.decoder.logits(outputs["hidden_states"])}


def measure_drift(
    bundle: Bundle,
    chip: Chip,
    tokens: int = 1000,
    *,
    seed: int = 0,
    every: int = 10,
    progress: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> dict[str, Any]:
    """Decode `tokens` held-out tokens, one by one, through the qdq reference and the emulator.

    The first `every` steps and every `every`-th are also taken from the reference's state. Where
    the bundle has graphs of fp32 activations too (`cpu`), their distance from the reference shows
    quantisation itself.
    `progress` gets (what, done, total) after each token. Raises UserError where the wheel or the
    target is missing, or the context is shorter than `tokens`.
    """
    wheel = require_wheel()
    reference = Side(bundle, place(bundle, "qdq"))
    if not 0 < tokens <= reference.decoder.context:
        limit = reference.decoder.context
        raise UserError(f"{tokens} tokens: the context of bundle {bundle.name} holds {limit}")
    rows = draw_rows(bundle, reference.sessions, tokens, seed)
    others = {"emulator": Side(bundle, place(bundle, "qdq", "htp-emulator", chip.name))}
    if "cpu" in bundle.targets:
        others["float"] = Side(bundle, place(bundle, "cpu"))
    own, alone = run_sides(reference, others, rows, every, progress)
    return {
        "bundle": bundle.name,
        "chip": chip.name,
        "compiler": wheel.compiler,
        "tokens": tokens,
        "precision": bundle.target("qdq").precision.get("language", ""),
        "state_bytes": state_bytes(bundle, reference.graph),
        "emulator": {
            **summarise(own["emulator"].errors()),
            "one_step": windows(alone.errors()),
        },
        "float": summarise(own["float"].errors()) if "float" in own else None,
    }


def run_sides(
    reference: Side,
    others: Mapping[str, Side],
    rows: NDArray[np.float32],
    every: int,
    progress: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> tuple[dict[str, Record], Record]:
    """Errors of each other side with a state of its own; of the first one's steps from ours."""
    steps = {t.name: t.scale for t in reference.graph.spec.outputs if t.scale}
    head = reference.sessions.head.outputs["logits"]
    steps["logits"] = head.scale or 1.0
    own = {name: Record(steps) for name in others}
    alone, guest = Record(steps), next(iter(others.values()))
    for index, row in enumerate(rows):
        invited = index < every or (index + 1) % every == 0
        reference.guest = guest.graph.inner if invited else None
        wanted = reference.step(row)
        if invited:
            alone.add(index + 1, wanted, guest.real(reference.guest_last))
        for name, side in others.items():
            own[name].add(index + 1, wanted, side.step(row))
        progress("decoding", index + 1, len(rows))
    return own, alone


def draw_rows(
    bundle: Bundle, sessions: TargetSessions, tokens: int, seed: int
) -> NDArray[np.float32]:
    """[tokens, H]: one held-out picture, then questions about such, with the right answers."""
    processor, count = load_processor(bundle), tokens // 16 + 1
    while len((inputs := processor(_conversation(count, seed))).input_ids) < tokens:
        count *= 2
    ids = inputs.input_ids[:tokens]
    rows = np.array(load_embedding(bundle, sessions)[ids])
    places = ids == processor.tokenizer.image_id
    features = np.concatenate(ImageEncoder(sessions.vision)(inputs.pixel_values).features)
    rows[places] = features[: int(places.sum())]
    return decode(rows, sessions.decoders[0].inputs["inputs_embeds"])


def _conversation(count: int, seed: int) -> list[Message]:
    """The first question with its picture, and of the others the words."""
    items = held_out([_TASK], count, seed)[_TASK]
    messages: list[Message] = []
    for item in items:
        question = [part for part in item.messages[-1]["content"] if part["type"] == "text"]
        if not messages:
            question.insert(0, {"type": "image", "image": item.images[0]})
        messages.append({"role": "user", "content": question})
        messages.append({"role": "assistant", "content": item.expected})
    return messages


def state_bytes(bundle: Bundle, graph: Graph) -> dict[str, int]:
    """What the past takes on the device: keys and values, and convolution columns."""
    sizes: dict[str, int] = {"cache": 0, "conv": 0}
    for layer in bundle.state:
        kind = "conv" if layer.kind == "conv" else "cache"
        for name, spec in graph.inputs.items():
            if name == layer.past or name.startswith(f"{layer.past}."):
                sizes[kind] += int(np.prod(spec.shape)) * np.dtype(spec.dtype).itemsize
    return sizes
