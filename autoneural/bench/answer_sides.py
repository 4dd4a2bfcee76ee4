"""The two sides of an answer, each in processes of its own; they speak through files of a folder.

answer_reference   all graphs at once on the CPU: chooses the tokens
  rows.npy  [T+N, H]      seen.npy  [pictures, n, H]      logits.npy  [1+N, V]
  <graph>.npz             in.<tensor>, out.<tensor> of the call that is kept

emulate            one stage, the reference's tokens
  own.npy                 its own features        <stage>.npz  what it hands on, by call
  own-logits.npy          its own logits          <graph>.got.npz  its outputs to in.<tensor>
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from autoneural.bench.answer_plan import TARGET, Call, Plan, Stage, graph_name, own_rows
from autoneural.bench.drift_errors import kind_of
from autoneural.bundle_graphs import HIDDEN, state_names
from autoneural.manifest import GraphSpec
from autoneural.recipes.child import Tell
from autoneural.runtime.backend import Backend
from autoneural.runtime.chain import Arrays, Graph, GraphChain, Tapped
from autoneural.runtime.decoder import Decoder
from autoneural.runtime.devices import place
from autoneural.runtime.images import ImageEncoder, embed
from autoneural.runtime.session import (
    GraphSession,
    TargetSessions,
    decode,
    load_embedding,
)
from autoneural.runtime.state import DecoderState
from autoneural.runtime.step_inputs import Positions, StepInputs
from autoneural.runtime.threads import physical_cores

IN, OUT = "in.", "out."


@dataclass(frozen=True, kw_only=True)
class Ran:
    """A graph of the second side: seconds to open it (to compile, where it was not) and to run."""

    graph: str
    open_seconds: float
    run_seconds: float
    runs: int


def answer_reference(tell: Tell, plan: Plan) -> list[int]:
    """In a child: the greedy tokens of the integer graphs on the CPU, 1 + N; none ends the answer.

    The last one is not fed again.
    """
    sessions = TargetSessions.load(plan.bundle, place(plan.bundle, TARGET))
    keeper = _Keeper(plan.folder)
    watched = replace(
        sessions,
        head=keeper.watch(sessions.head),
        decoders=tuple(map(keeper.watch, sessions.decoders)),
    )
    tell("reference: vision", 0, len(plan.calls))
    features = ImageEncoder(sessions.vision)(plan.inputs.pixel_values).features
    table = load_embedding(plan.bundle, sessions)
    rows = embed(table, plan.inputs.input_ids, plan.image_id, features)
    decoder, logits, kept = Decoder(plan.bundle, watched), [], plan.kept.values()
    for done, call in enumerate(plan.calls):
        tell(f"reference: tokens to {call.end}", done, len(plan.calls))
        if call.start >= plan.prompt:
            rows = np.concatenate([rows, table[[int(logits[-1].argmax())]]])
        keeper.on = call in kept
        hidden = decoder.step(rows[call.start : call.end], range(call.rows))
        if call.end >= plan.prompt:
            logits.append(decoder.logits(hidden))
    for name, array in (("rows", rows), ("seen", np.array(features)), ("logits", np.array(logits))):
        np.save(plan.folder / f"{name}.npy", array)
    return [int(row.argmax()) for row in logits]


class _Keeper:
    """Saves what the parts of graphs take and give, while it is `on`."""

    def __init__(self, folder: Path) -> None:
        self._folder, self.on = folder, False

    def watch(self, graph: Graph) -> GraphChain:
        """The graph, part by part."""
        return GraphChain([self._watched(part) for part in graph.parts])

    def _watched(self, part: Graph) -> Tapped:
        def see(feeds: Mapping[str, np.ndarray], outputs: Arrays) -> None:
            if self.on:
                named = {IN + name: array for name, array in feeds.items()}
                named |= {OUT + name: array for name, array in outputs.items()}
                save_arrays(self._folder / f"{graph_name(part.spec)}.npz", named)

        return Tapped(part, see)


def emulate(tell: Tell, plan: Plan, stage: Stage) -> list[dict[str, Any]]:
    """In a child: all that a stage computes, a `Ran` per graph; the stages before it are whole."""
    return [asdict(ran) for ran in _Emulation(tell, plan, stage).run()]


class _Emulation:
    """A stage: its state and what it hands on, from one graph to the next."""

    def __init__(self, tell: Tell, plan: Plan, stage: Stage) -> None:
        self._tell, self._plan, self._stage = tell, plan, stage
        self._folder = plan.folder
        self._backend = Backend.of(plan.placement, physical_cores())
        self._state: DecoderState | None = None
        self._streams = _handed_on(plan, stage)
        self._done = 0

    def run(self) -> list[Ran]:
        """Every graph in turn; it is closed before the next one is opened."""
        return [self._ran(spec) for spec in self._stage.graphs]

    def _ran(self, spec: GraphSpec) -> Ran:
        work = {"vision": self._see, "language": self._read, "head": self._say}[self._stage.role]
        self._told("opening", spec)
        start, before = time.perf_counter(), self._done
        graph = GraphSession(Path(spec.file), spec, self._backend)
        opened = time.perf_counter() - start
        work(graph)
        return Ran(
            graph=graph_name(spec),
            open_seconds=opened,
            run_seconds=graph.seconds,
            runs=self._done - before,
        )

    def _see(self, graph: Graph) -> None:
        """The pictures: what the reference gives is what the processor gives."""
        pictures = self._plan.inputs.pixel_values
        features = ImageEncoder(graph)(pictures).features
        self._done += len(pictures)
        np.save(self._folder / "own.npy", np.array(features))

    def _read(self, graph: Graph) -> None:
        """The calls of this width from its own state, and one from the reference's."""
        plan, width = self._plan, graph.spec.width
        rows = own_rows(plan, np.load(self._folder / "rows.npy"), np.load(self._folder / "own.npy"))
        whole = plan.whole[width]
        places = Positions(whole, plan.bundle.model.text, width)
        given = StepInputs(whole, places, plan.bundle.target(TARGET).mask_value, width)
        held = [x for x in plan.bundle.state if state_names(x)[0][0] in graph.inputs]
        self._state = self._state or DecoderState(held, graph)
        link = next((name for name in graph.inputs if name.startswith(HIDDEN)), None)
        handed_on = next(name for name in graph.outputs if kind_of(name) == "hidden")
        for call in (call for call in plan.calls if call.width == width):
            feeds = given.fill(rows[call.start : call.end], call.start) | self._state.feeds()
            if link is not None:
                feeds[link] = self._streams[call.name]
            outputs = self._run(graph, {name: feeds[name] for name in graph.inputs})
            self._state.commit(outputs, range(call.rows))
            self._streams[call.name] = outputs[handed_on]
        save_arrays(self._folder / f"{self._stage.name}.npz", self._streams)
        self._alone(graph)

    def _say(self, graph: Graph) -> None:
        """The logits of every call that has some."""
        logits = []
        for call in self._plan.answered:
            hidden = self._streams[call.name][:, call.rows - 1 : call.rows]
            made = self._run(graph, {"hidden_states": hidden})["logits"]
            logits.append(decode(made, graph.outputs["logits"])[0, 0])
        np.save(self._folder / "own-logits.npy", np.array(logits))
        self._alone(graph)

    def _alone(self, graph: Graph) -> None:
        """What it makes of the inputs that the reference kept."""
        name = graph_name(graph.spec)
        feeds = load_arrays(self._folder / f"{name}.npz", IN)
        save_arrays(self._folder / f"{name}.got.npz", self._run(graph, feeds))

    def _run(self, graph: Graph, feeds: Arrays) -> Arrays:
        self._told("running", graph.spec)
        self._done += 1
        return graph.run(feeds)

    def _told(self, what: str, spec: GraphSpec) -> None:
        # What is fed from the reference is one call of each graph; pictures are no calls.
        total = len(self._plan.calls) + len(self._stage.graphs)
        self._tell(f"{self._stage.name}: {what} {graph_name(spec)}", self._done, total)


def _handed_on(plan: Plan, stage: Stage) -> Arrays:
    """The residual stream of every call, from the stage before; nothing comes from the encoder."""
    before = plan.stages[: plan.stages.index(stage)]
    names = [other.name for other in before if other.role == "language"]
    return load_arrays(plan.folder / f"{names[-1]}.npz") if names else {}


def save_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """An .npz file of arrays by name."""
    np.savez(path, **arrays)  # pyright: ignore[reportArgumentType]


def load_arrays(path: Path, prefix: str = "") -> Arrays:
    """Those whose names begin with `prefix`, by the rest of their names."""
    with np.load(path) as file:
        names = [name for name in file.files if name.startswith(prefix)]
        return {name.removeprefix(prefix): file[name] for name in names}


def new_values(name: str, array: np.ndarray, call: Call) -> np.ndarray:
    """What an output says of the real rows of a call: of a window no columns of the past."""
    kind = kind_of(name)
    if kind == "conv":
        return array[..., array.shape[2] - call.width :][..., : call.rows]
    if kind in ("key", "value"):
        return array[:, :, : call.rows]
    return array[:, : call.rows] if kind == "hidden" else array
