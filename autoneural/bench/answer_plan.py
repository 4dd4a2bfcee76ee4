"""What one question takes to be computed by two sides: which graphs, and which rows each one runs.

    prompt [T] + answer [N]  ->  calls   whole chunks of the widest graph, then single rows
    parts of the chip's target -> stages   one binary each; the next one reads what it hands on

The tokens of the answer are known to the second side, so it computes stage by stage, every call of
one before the next: no more than one graph of one binary is ever open.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePath

import numpy as np
from numpy.typing import NDArray

from autoneural import __version__
from autoneural.bundle import Bundle
from autoneural.data.messages import Message
from autoneural.data.processor import ModelInputs
from autoneural.errors import UserError
from autoneural.files import sha256, writable_folder
from autoneural.manifest import DECODERS, MANIFEST, GraphSpec
from autoneural.npu.partition import Part, PartRole, plan_parts, write_part
from autoneural.runtime.devices import Placement
from autoneural.runtime.prompt import load_processor
from autoneural.runtime.qnn import find_wheel
from autoneural.target.chips import Chip

TARGET = "qdq"


@dataclass(frozen=True, kw_only=True)
class Call:
    """Rows `start` to `end` of the sequence, by the graph of `width`."""

    start: int
    end: int
    width: int

    @property
    def rows(self) -> int:
        """How many of the graph's rows are real."""
        return self.end - self.start

    @property
    def name(self) -> str:
        """Among the calls of a sequence."""
        return str(self.start)


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A binary: its graphs in the order they run, with the files that the second side opens.

    `shipped`: those are the binary's own. One that several graphs share does not load in the
    emulator: there they are integer graphs, compiled in memory (docs/decisions/0006).
    """

    name: str
    role: PartRole
    graphs: tuple[GraphSpec, ...]
    shipped: bool


@dataclass(frozen=True, kw_only=True)
class Plan:
    """`bundle` has the integer graphs that are needed and no others, cut like the binaries.

    `whole` are its decoders as they were before, by width. What a side leaves lies in `folder`,
    which no other question, bundle or compiler has.
    """

    bundle: Bundle
    placement: Placement
    inputs: ModelInputs
    image_id: int
    calls: tuple[Call, ...]
    whole: dict[int, GraphSpec]
    stages: tuple[Stage, ...]
    folder: Path

    @property
    def prompt(self) -> int:
        """Tokens of the prompt."""
        return len(self.inputs.input_ids)

    @property
    def kept(self) -> dict[int, Call]:
        """Width -> the call whose inputs are given to the other side as well: behind others."""
        widest = max(self.whole)
        return {widest: self.calls[max(self.prompt // widest - 1, 0)], 1: self.calls[-1]}

    @property
    def answered(self) -> tuple[Call, ...]:
        """The calls after which there are logits: the last of the prompt, and every step."""
        return tuple(call for call in self.calls if call.end >= self.prompt)


def graph_name(spec: GraphSpec) -> str:
    """`prefill`, or `prefill-1` of the second binary: the same on both sides."""
    return PurePath(spec.file).stem


def plan_answer(
    bundle: Bundle,
    chip: Chip,
    placement: Placement,
    messages: Sequence[Message],
    steps: int,
    folder: Path,
) -> Plan:
    """Read the question, cut the graphs to a folder of its own in `folder`.

    `placement` is where the second side computes.
    Raises UserError for fewer steps than one, a picture that cannot be read, a short context.
    """
    if steps < 1:
        raise UserError(f"steps: {steps} is not at least 1")
    processor = load_processor(bundle)
    inputs = processor(messages)
    target = bundle.target(TARGET)
    decoders = sorted((g for g in target.graphs if g.role in DECODERS), key=lambda g: g.width)
    if not decoders or decoders[0].width != 1:
        raise UserError(f"bundle {bundle.name}: {TARGET} has no graph of one token")
    whole = {graph.width: graph for graph in (decoders[-1], decoders[0])}
    _require_room(inputs, steps, min(graph.context for graph in decoders), bundle)
    folder = writable_folder(folder / _identity(bundle, placement, inputs, steps), folder)
    stages, graphs = [], []
    options = bundle.manifest["targets"][chip.target]["options"]
    for part in plan_parts(bundle, TARGET, options["max_part_mb"] << 20):
        needed = replace(
            part, graphs=tuple(g for g in part.graphs if _needed(g.spec, bundle, whole))
        )
        cut = _cut(bundle, needed, folder)
        graphs += cut
        shipped = len(part.graphs) == 1 and placement.device == "htp-emulator"
        files = [_shipped(bundle, chip, graph) for graph in cut] if shipped else cut
        stages.append(Stage(name=part.name, role=part.role, graphs=tuple(files), shipped=shipped))
    return Plan(
        bundle=replace(bundle, targets={TARGET: replace(target, graphs=tuple(graphs))}),
        placement=placement,
        inputs=inputs,
        image_id=processor.tokenizer.image_id,
        calls=calls_of(len(inputs.input_ids), steps, max(whole)),
        whole=whole,
        stages=tuple(stages),
        folder=folder,
    )


def calls_of(prompt: int, steps: int, widest: int) -> tuple[Call, ...]:
    """A prompt in chunks, then steps of one row; a chunk of one row is a step, as for `Decoder`."""
    starts = [*range(0, prompt, widest), *range(prompt, prompt + steps)]
    return tuple(
        Call(start=start, end=end, width=1 if end - start == 1 else widest)
        for start, end in zip(starts, [*starts[1:], prompt + steps], strict=True)
    )


def _identity(bundle: Bundle, placement: Placement, inputs: ModelInputs, steps: int) -> str:
    """A hash of all that decides the answer."""
    wheel = find_wheel()
    facts = {
        "program": __version__,
        "bundle": sha256(bundle.folder / MANIFEST),
        "where": placement.label,
        "compiler": wheel.compiler if wheel else "",
        "steps": steps,
        "inputs": [array.tobytes().hex() for array in (inputs.input_ids, inputs.pixel_values)],
    }
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:32]


def _require_room(inputs: ModelInputs, steps: int, context: int, bundle: Bundle) -> None:
    prompt = len(inputs.input_ids)
    if prompt + steps > context:
        raise UserError(
            f"the question's {prompt} tokens and {steps} steps: the context of bundle "
            f"{bundle.name} holds {context}"
        )


def _needed(spec: GraphSpec, bundle: Bundle, widths: Collection[int]) -> bool:
    """Neither pictures of another size nor drafts come up."""
    if spec.role == "vision":
        return spec.image_size == bundle.processor.image_size
    return spec.role == "head" or spec.width in widths


def _cut(bundle: Bundle, part: Part, folder: Path) -> list[GraphSpec]:
    """The part's integer graphs, written to `folder` unless they lie whole in the bundle."""
    where, files = write_part(bundle, part, folder)
    where = where.resolve()
    return [
        replace(graph.spec, file=str(where / file))
        for graph, file in zip(part.graphs, files, strict=True)
    ]


def _shipped(bundle: Bundle, chip: Chip, graph: GraphSpec) -> GraphSpec:
    """The same graph in the chip's target."""
    held = bundle.target(chip.target).graphs
    found = next((g for g in held if graph_name(g) == graph_name(graph)), None)
    if found is None:
        raise UserError(f"{bundle.folder}: {chip.target} has no graph {graph_name(graph)}")
    return replace(found, file=str(bundle.path(found.file).resolve()))


def own_rows(plan: Plan, rows: np.ndarray, features: Sequence[np.ndarray]) -> NDArray:
    """The reference's rows [T + N, H] with other features in the places of the pictures."""
    rows = rows.copy()
    if len(features):
        rows[: plan.prompt][plan.inputs.input_ids == plan.image_id] = np.concatenate(features)
    return rows
