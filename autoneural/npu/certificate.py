"""What `autoneural verify` found, as records and as JSON.

    float model  --quantisation-->  QDQ reference  --the chip's arithmetic-->  emulator
       sqnr_float_db: QDQ against float          sqnr_qdq_db: emulator against QDQ
       predicted_db: emulator against our arch-true prediction of it

Each layer is fed the same integers on every side, so a figure holds what this layer does and
nothing of those before it. A figure in dB is infinite where both sides agree in every integer, and
None where it was not measured. JSON knows no infinity: there it is null, and the entry's list
"exact" names the key; null without being named there means not measured.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

from autoneural.errors import UserError
from autoneural.files import write_text
from autoneural.manifest import Fields

FORMAT_VERSION = 1
EVIDENCE = ("emulated",)
_T = TypeVar("_T")


@dataclass(frozen=True, kw_only=True)
class LayerCheck:
    """One layer. `depth` is its place in the order in which the graph runs.

    `rms_float` and `rms_qdq` are |error| / |reference|; `rms_lsb` and `max_lsb` are differences in
    steps of the output's grid, emulator against QDQ; `fill` is the share of that grid in use.
    """

    graph: str
    depth: int
    name: str
    op: str
    precision: str
    sqnr_float_db: float | None
    sqnr_qdq_db: float | None
    predicted_db: float | None
    rms_float: float | None
    rms_qdq: float | None
    rms_lsb: float
    max_lsb: int
    fill: float | None
    cause: str | None = None

    def __post_init__(self) -> None:
        _refuse_nan(self)


@dataclass(frozen=True, kw_only=True)
class OutputCheck:
    """One output of a whole graph; the figures mean the same as a layer's."""

    name: str
    sqnr_float_db: float | None
    sqnr_qdq_db: float | None
    predicted_db: float | None
    rms_lsb: float
    max_lsb: int

    def __post_init__(self) -> None:
        _refuse_nan(self)


@dataclass(frozen=True, kw_only=True)
class GraphCheck:
    """One graph of the chip's target, and the binary that ships.

    `reloaded`: the figures come from the file, read by a new process. `identical`: the binary
    computes the same integers as its twin compiled in memory. `note` says why where either is not.
    """

    graph: str
    part: int
    file: str
    binary: str
    binary_sha256: str
    reloaded: bool
    identical: bool
    note: str = ""
    outputs: tuple[OutputCheck, ...] = ()


@dataclass(frozen=True, kw_only=True)
class TokenDifference:
    """The first place where two answers to one question part.

    `margin` is the reference's lead there, in logits, of the token it took over the next best; the
    texts are the whole answers.
    """

    id: str
    prompt: str
    position: int
    qdq_token: int
    htp_token: int
    qdq_text: str
    htp_text: str
    margin: float


@dataclass(frozen=True, kw_only=True)
class TokenCheck:
    """Greedy answers through the emulator and of the QDQ reference, over the same questions.

    `equal` of the `compared` questions have the same tokens throughout; `answers_equal` have the
    same text once decoded. Accuracies are fractions, None where there is nothing to compare with.
    """

    compared: int
    equal: int
    answers_equal: int
    accuracy_qdq: float | None = None
    accuracy_htp: float | None = None
    differences: tuple[TokenDifference, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Thresholds:
    """What it takes to pass: dB of every layer on two counts, and the share of equal answers."""

    layer_db: float
    predicted_db: float
    tokens: float


@dataclass(frozen=True, kw_only=True)
class Certificate:
    """A bundle on a chip. `failures` are the sentences that say what is outside its threshold."""

    chip: str
    generation: str
    bundle: str
    bundle_sha256: str | None = None
    created_by: str
    compiler: str
    evidence: str = "emulated"
    samples: int
    layers: tuple[LayerCheck, ...]
    graphs: tuple[GraphCheck, ...]
    tokens: TokenCheck | None
    thresholds: Thresholds
    failures: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        return not self.failures

    @property
    def worst(self) -> LayerCheck | None:
        """The measured layer that is furthest from the QDQ reference."""
        measured = [layer for layer in self.layers if layer.sqnr_qdq_db is not None]
        return worst_first(measured)[0] if measured else None

    def to_dict(self) -> dict[str, Any]:
        """Valid JSON, layers worst first, with "worst" and "passed" spelt out."""
        result = {"format_version": FORMAT_VERSION, **asdict(self)}
        result["layers"] = [_figures(layer) for layer in worst_first(self.layers)]
        for graph, check in zip(result["graphs"], self.graphs, strict=True):
            graph["outputs"] = [_figures(output) for output in check.outputs]
        worst = self.worst and _figures(self.worst)
        keys = ("graph", "name", "sqnr_qdq_db", "exact")
        result["worst"] = worst and {key: worst[key] for key in keys}
        result["passed"] = self.passed
        return _lists(result)

    def save(self, path: Path) -> None:
        """Write `to_dict` to a JSON file, whole or not at all."""
        write_text(path, json.dumps(self.to_dict(), indent=1, allow_nan=False) + "\n")

    @staticmethod
    def from_dict(data: object, where: str = "certificate") -> Certificate:
        """The certificate that `to_dict` wrote. Raises UserError naming the key that is wrong."""
        source = Fields(data, where)
        version = source.get("format_version", int)
        if version != FORMAT_VERSION:
            raise UserError(
                f"{where}: certificate format {version}, but this version reads {FORMAT_VERSION}"
            )
        certificate = _parse(source)
        if source.get("passed", bool) != certificate.passed:
            raise UserError(f"{where}.passed: contradicts the list of failures")
        return certificate


def worst_first(layers: Iterable[LayerCheck]) -> list[LayerCheck]:
    """By distance from the QDQ reference; exact ones last, and after them the unmeasured."""
    return sorted(layers, key=lambda layer: (layer.sqnr_qdq_db is None, layer.sqnr_qdq_db or 0.0))


def load_certificate(path: Path) -> Certificate:
    """Read a certificate's JSON. Raises UserError with one line where it is not one."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: not a certificate ({error})") from error
    return Certificate.from_dict(data, str(path))


def _figures(record: LayerCheck | OutputCheck) -> dict[str, Any]:
    row = asdict(record)
    row["exact"] = [key for key, value in row.items() if value == math.inf]
    return {key: None if value == math.inf else value for key, value in row.items()}


def _lists(value: Any) -> Any:
    """As JSON has it: lists for tuples."""
    if isinstance(value, dict):
        return {key: _lists(item) for key, item in value.items()}
    return [_lists(item) for item in value] if isinstance(value, list | tuple) else value


def _refuse_nan(record: LayerCheck | OutputCheck) -> None:
    for field in fields(record):
        value = getattr(record, field.name)
        if isinstance(value, float) and (math.isnan(value) or value == -math.inf):
            raise ValueError(f"{record.name}: {field.name} is {value}; None says not measured")


def _parse(source: Fields) -> Certificate:
    limits = source.child("thresholds")
    return Certificate(
        chip=source.get("chip", str),
        generation=source.get("generation", str),
        bundle=source.get("bundle", str),
        bundle_sha256=_optional(source, "bundle_sha256", str),
        created_by=source.get("created_by", str),
        compiler=source.get("compiler", str),
        evidence=source.choice("evidence", EVIDENCE),
        samples=source.natural("samples"),
        layers=tuple(_parse_layer(item) for item in source.objects("layers")),
        graphs=tuple(_parse_graph(item) for item in source.objects("graphs")),
        tokens=None if source.data.get("tokens") is None else _parse_tokens(source.child("tokens")),
        thresholds=Thresholds(**{f.name: _finite(limits, f.name) for f in fields(Thresholds)}),
        failures=_texts(source, "failures"),
    )


def _parse_layer(item: Fields) -> LayerCheck:
    texts: dict[str, Any] = {
        key: item.get(key, str) for key in ("graph", "name", "op", "precision")
    }
    return LayerCheck(
        **texts,
        **_parse_figures(item),
        depth=item.natural("depth"),
        rms_float=_optional_number(item, "rms_float"),
        rms_qdq=_optional_number(item, "rms_qdq"),
        fill=_optional_number(item, "fill"),
        cause=_optional(item, "cause", str),
    )


def _parse_figures(item: Fields) -> dict[str, Any]:
    """What a layer and an output have in common."""
    figures: dict[str, Any] = {
        "rms_lsb": _finite(item, "rms_lsb"),
        "max_lsb": item.natural("max_lsb"),
    }
    exact = _texts(item, "exact") if "exact" in item.data else ()
    for key in ("sqnr_float_db", "sqnr_qdq_db", "predicted_db"):
        figures[key] = math.inf if key in exact else _optional_number(item, key)
    return figures


def _parse_graph(item: Fields) -> GraphCheck:
    texts = {
        key: item.get(key, str) for key in ("graph", "file", "binary", "binary_sha256", "note")
    }
    return GraphCheck(
        **texts,
        part=item.natural("part"),
        reloaded=item.get("reloaded", bool),
        identical=item.get("identical", bool),
        outputs=tuple(
            OutputCheck(name=output.get("name", str), **_parse_figures(output))
            for output in item.objects("outputs")
        ),
    )


def _parse_tokens(item: Fields) -> TokenCheck:
    return TokenCheck(
        compared=item.natural("compared"),
        equal=item.natural("equal"),
        answers_equal=item.natural("answers_equal"),
        accuracy_qdq=_optional_number(item, "accuracy_qdq"),
        accuracy_htp=_optional_number(item, "accuracy_htp"),
        differences=tuple(_parse_difference(entry) for entry in item.objects("differences")),
    )


def _parse_difference(item: Fields) -> TokenDifference:
    texts: dict[str, Any] = {
        key: item.get(key, str) for key in ("id", "prompt", "qdq_text", "htp_text")
    }
    numbers: dict[str, Any] = {
        key: item.natural(key) for key in ("position", "qdq_token", "htp_token")
    }
    return TokenDifference(**texts, **numbers, margin=_finite(item, "margin"))


def _optional(item: Fields, key: str, kind: type[_T]) -> _T | None:
    return None if item.data.get(key) is None else item.get(key, kind)


def _optional_number(item: Fields, key: str) -> float | None:
    return None if item.data.get(key) is None else _finite(item, key)


def _finite(item: Fields, key: str) -> float:
    # Python's reader takes NaN and Infinity for numbers, though JSON has none.
    value = item.get(key, float)
    if not math.isfinite(value):
        raise UserError(f"{item.where}.{key}: {value} is not a finite number")
    return value


def _texts(item: Fields, key: str) -> tuple[str, ...]:
    values = item.get(key, list)
    if not all(isinstance(value, str) for value in values):
        raise UserError(f"{item.where}.{key}: expected a list of texts")
    return tuple(values)
