"""Real inputs of every graph: one conversation, run through the qdq graphs on the CPU.

The prompt is fed in steps of every width there is (verify first, then single rows, then prefill),
so that each graph sees rows that are all real and a past that is not empty.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

import numpy as np

from autoneural.bundle import Bundle
from autoneural.data.messages import Message
from autoneural.manifest import GraphSpec
from autoneural.runtime.chain import Arrays, Graph, Tapped
from autoneural.runtime.decoder import Decoder
from autoneural.runtime.devices import place
from autoneural.runtime.images import ImageEncoder, embed
from autoneural.runtime.prompt import load_processor
from autoneural.runtime.session import TargetSessions, load_embedding

_INTEGERS = "qdq"


@dataclass(frozen=True, kw_only=True)
class Trace:
    """The integer inputs of one execution of a graph."""

    spec: GraphSpec
    feeds: Mapping[str, np.ndarray]

    @property
    def graph(self) -> str:
        """Name of the graph's file: `vision`, `vision-768` for another size, `prefill`, ..."""
        return PurePosixPath(self.spec.file).stem


def trace(bundle: Bundle, conversations: Sequence[Sequence[Message]]) -> list[Trace]:
    """One trace per graph and conversation (vision: per picture), in the order they ran.

    Raises UserError when the bundle has no qdq target.
    """
    log: list[Trace] = []
    sessions = TargetSessions.load(bundle, place(bundle, _INTEGERS))
    watched = replace(
        sessions,
        vision=_recorded(sessions.vision, log),
        head=_recorded(sessions.head, log),
        decoders=tuple(_recorded(graph, log) for graph in sessions.decoders),
    )
    processor = load_processor(bundle)
    embedding, encoder = load_embedding(bundle, sessions), ImageEncoder(watched.vision)
    for messages in conversations:
        inputs = processor(messages)
        features = encoder(inputs.pixel_values).features
        rows = embed(embedding, inputs.input_ids, processor.tokenizer.image_id, features)
        _feed(Decoder(bundle, watched), rows, sorted(d.spec.width for d in sessions.decoders))
    for size in bundle.image_sizes[1:]:
        _see(bundle.at_size(size), conversations, log)
    return log


def _recorded(graph: Graph, log: list[Trace]) -> Tapped:
    """The graph, with the inputs of every run kept."""

    def see(feeds: Mapping[str, np.ndarray], outputs: Arrays) -> None:
        kept = {name: np.array(value) for name, value in feeds.items()}
        log.append(Trace(spec=graph.spec, feeds=kept))

    return Tapped(graph, see)


def _see(bundle: Bundle, conversations: Sequence[Sequence[Message]], log: list[Trace]) -> None:
    """The pictures once more, in the size of this bundle."""
    sessions = TargetSessions.load(bundle, place(bundle, _INTEGERS))
    processor, encoder = load_processor(bundle), ImageEncoder(_recorded(sessions.vision, log))
    for messages in conversations:
        encoder(processor(messages).pixel_values)


def _feed(decoder: Decoder, rows: np.ndarray, widths: Sequence[int]) -> None:
    """A step of each width, single rows second so that they have a past, the widest last."""
    order = [*widths[1:-1], widths[0], widths[-1]] if len(widths) > 1 else widths
    hidden = rows[:0]
    for width in order:
        chunk, rows = rows[:width], rows[width:]
        if len(chunk):
            hidden = decoder.step(chunk, range(len(chunk)))
    decoder.logits(hidden)
