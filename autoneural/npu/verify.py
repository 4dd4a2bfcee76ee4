"""The certificate of a compiled bundle: layer by layer, binary by binary, token by token.

trace       real inputs of every graph
layers      reference, prediction, emulator and float on the same integers
binaries    what ships computes what was looked at
tokens      whole answers
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from autoneural import __version__
from autoneural.bundle import Bundle
from autoneural.data.messages import Message
from autoneural.errors import UserError
from autoneural.npu.binary_checks import check_binaries
from autoneural.npu.certificate import Certificate, GraphCheck, LayerCheck, Thresholds, TokenCheck
from autoneural.npu.layer_checks import check_graph
from autoneural.npu.token_checks import Question, check_tokens
from autoneural.npu.traces import trace
from autoneural.runtime.qnn import emulates, require_wheel
from autoneural.target.chips import Chip

# Below 20 dB a layer's output is a tenth noise; a good prediction has 40 dB and more everywhere.
THRESHOLDS = Thresholds(layer_db=20.0, predicted_db=40.0, tokens=0.96)
_RUNS = 2
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, kw_only=True)
class VerifyOptions:
    """`samples`: how many questions are answered by both sides; 0 skips them."""

    samples: int = 10
    thresholds: Thresholds = THRESHOLDS


def verify(
    bundle: Bundle,
    chip: Chip,
    conversations: Sequence[Sequence[Message]],
    questions: Sequence[Question],
    options: VerifyOptions | None = None,
    *,
    correct: Callable[[str, str], bool] = str.__eq__,
    progress: Progress = lambda what, done, total: None,
) -> Certificate:
    """Emulate `bundle` on `chip`. `conversations` give the layers real inputs.

    Raises UserError, one line, when the bundle has no binaries for the chip or nothing emulates it.
    """
    options = options or VerifyOptions()
    require_compiled(bundle, chip)
    wheel = require_wheel()
    if not emulates():
        raise UserError("verify: the emulator exists for Linux x86-64 only")
    traces = trace(bundle, conversations)
    roles = list(dict.fromkeys(t.graph for t in traces))
    questions = questions[: options.samples]
    total = len(roles) + 1 + len(questions)
    layers: list[LayerCheck] = []
    outputs = {}
    for done, role in enumerate(roles):
        progress(f"layers of {role}", done, total)
        chosen = [t for t in traces if t.graph == role][:_RUNS]
        found = check_graph(bundle.path(chosen[0].spec.file), chosen, chip)
        layers += found.layers
        outputs[role] = tuple(found.outputs)
    progress("binaries", len(roles), total)
    graphs = [
        replace(check, outputs=outputs.get(check.graph, ()) if not check.part else ())
        for check in check_binaries(bundle, chip, traces)
    ]
    tokens = _tokens(bundle, chip, questions, correct, progress, len(roles) + 1, total)
    return Certificate(
        chip=chip.name,
        generation=chip.generation,
        bundle=bundle.name,
        created_by=f"autoneural {__version__}",
        compiler=wheel.compiler,
        samples=len(questions),
        layers=tuple(layers),
        graphs=tuple(graphs),
        tokens=tokens,
        thresholds=options.thresholds,
        failures=tuple(failures(layers, graphs, tokens, options.thresholds)),
    )


def require_compiled(bundle: Bundle, chip: Chip) -> None:
    """UserError, one line, unless the bundle holds binaries for `chip` and their qdq graphs."""
    held = [name.removeprefix("htp/") for name in bundle.targets if name.startswith("htp/")]
    if chip.target not in bundle.targets:
        holds = f"it holds {', '.join(held)}" if held else "it holds none"
        raise UserError(
            f"bundle {bundle.name}: no binaries for {chip.name} ({holds}); compile it first: "
            f"autoneural compile {bundle.folder} --chip '{chip.name}' -o BUNDLE"
        )
    if "qdq" not in bundle.targets:
        raise UserError(f"bundle {bundle.name}: no target qdq, the reference of every check")


def failures(
    layers: Sequence[LayerCheck],
    graphs: Sequence[GraphCheck],
    tokens: TokenCheck | None,
    limits: Thresholds,
) -> list[str]:
    """Everything outside its threshold, one sentence each."""
    found = []
    for layer in layers:
        if layer.sqnr_qdq_db is not None and layer.sqnr_qdq_db < limits.layer_db:
            found.append(
                f"{layer.graph}, {layer.name}: {layer.sqnr_qdq_db:.1f} dB against QDQ, "
                f"less than {limits.layer_db:g} ({layer.cause or 'cause unknown'})"
            )
        if layer.predicted_db is not None and layer.predicted_db < limits.predicted_db:
            found.append(
                f"{layer.graph}, {layer.name}: {layer.predicted_db:.1f} dB against the prediction, "
                f"less than {limits.predicted_db:g}"
            )
    for graph in graphs:
        if not graph.identical:
            reason = graph.note or "it computes other integers"
            found.append(f"{graph.file}: not the graph that was checked ({reason})")
    if tokens is not None and tokens.equal < limits.tokens * tokens.compared:
        found.append(
            f"{tokens.equal} of {tokens.compared} answers equal token for token, "
            f"less than {limits.tokens:.0%}"
        )
    return found


def _tokens(
    bundle: Bundle,
    chip: Chip,
    questions: Sequence[Question],
    correct: Callable[[str, str], bool],
    progress: Progress,
    done: int,
    total: int,
) -> TokenCheck | None:
    if not questions:
        return None
    count = iter(range(done + 1, total + 1))
    progress("answers", done, total)
    return check_tokens(
        bundle,
        chip,
        questions,
        correct=correct,
        on_answer=lambda: progress("answers", next(count), total),
    )
