"""The parts of a model: what they hold, what they cost, and that a cut changes no integer."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest

from autoneural.bundle import DEFAULT_BUNDLE, EMBEDDED, Bundle
from autoneural.bundle_graphs import check_graphs
from autoneural.errors import UserError
from autoneural.npu.partition import Part, plan_parts, write_part

LAYER_BYTES = 500_000  # more than the largest layer of the embedded model, less than two
Arrays = dict[str, np.ndarray]


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return Bundle.load(EMBEDDED / DEFAULT_BUNDLE)


@pytest.fixture(scope="module")
def language(bundle: Bundle) -> Bundle:
    """The same bundle without the graphs that cannot be cut."""
    qdq = bundle.target("qdq")
    graphs = tuple(g for g in qdq.graphs if g.role not in ("vision", "head"))
    return replace(bundle, targets={"qdq": replace(qdq, graphs=graphs)})


def session(path: Path) -> ort.InferenceSession:
    """One that computes the graph as it is written."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def answer(path: Path, feeds: Arrays) -> Arrays:
    graph = session(path)
    names = [output.name for output in graph.get_outputs()]
    given = {value.name: feeds[value.name] for value in graph.get_inputs()}
    values = map(np.asarray, graph.run(names, given))
    return dict(zip(names, values, strict=True))


def random_feeds(path: Path) -> Arrays:
    rng = np.random.default_rng(0)
    inputs = session(path).get_inputs()
    dtypes = {"tensor(uint8)": np.uint8, "tensor(uint16)": np.uint16}
    return {
        i.name: rng.integers(64, 192, i.shape).astype(dtypes[i.type])
        if i.type == "tensor(uint8)"
        else rng.integers(16384, 49152, i.shape).astype(dtypes[i.type])
        for i in inputs
    }


def test_a_model_that_fits_is_not_cut(bundle: Bundle) -> None:
    parts = plan_parts(bundle)
    assert [part.name for part in parts] == ["vision", "language 0", "head"]
    assert all(graph.is_whole for part in parts for graph in part.graphs)
    assert [g.spec.role for g in parts[1].graphs] == ["prefill", "verify", "decode"]
    assert parts[1].layers == (0, len(bundle.model.text.layer_types) - 1)


def test_weights_of_four_bits_count_half_a_byte(language: Bundle) -> None:
    [part] = plan_parts(language)
    text = language.model.text
    hidden, inner = text.hidden_size, text.intermediate_size
    attention = text.head_dim * (2 * text.num_attention_heads + 2 * text.num_key_value_heads)
    linears = sum(
        hidden * (4 * hidden if kind == "conv" else attention) + 3 * hidden * inner
        for kind in text.layer_types
    )
    # Besides: scales, norms, depthwise convolutions.
    assert linears / 2 < part.weight_bytes < 1.1 * linears / 2


def test_parts_stay_under_the_budget(language: Bundle) -> None:
    parts = plan_parts(language, max_bytes=2 * LAYER_BYTES)
    assert len(parts) > 1
    assert max(part.weight_bytes for part in parts) <= 2 * LAYER_BYTES
    [whole] = plan_parts(language)
    assert sum(part.weight_bytes for part in parts) == whole.weight_bytes
    layers = [part.layers for part in parts if part.layers]
    assert [k for first, last in layers for k in range(first, last + 1)] == list(range(6))


@pytest.mark.parametrize("role", ["verify", "decode"])
def test_chained_parts_compute_the_integers_of_the_whole(
    language: Bundle, tmp_path: Path, role: str
) -> None:
    [spec] = [graph for graph in language.target("qdq").graphs if graph.role == role]
    feeds = random_feeds(language.path(spec.file))
    whole = answer(language.path(spec.file), feeds)
    parts = plan_parts(language, max_bytes=LAYER_BYTES)
    assert len(parts) == 6
    values: Arrays = dict(feeds)
    for part in parts:
        folder, files = write_part(language, part, tmp_path)
        [file] = [f for f, g in zip(files, part.graphs, strict=True) if g.spec.role == role]
        values |= answer(folder / file, values)
    for name, expected in whole.items():
        assert np.array_equal(values[name], expected), name


def test_a_part_on_disk_is_what_its_plan_says(language: Bundle, tmp_path: Path) -> None:
    for part in plan_parts(language, max_bytes=2 * LAYER_BYTES):
        folder, files = write_part(language, part, tmp_path)
        for graph, file in zip(part.graphs, files, strict=True):
            found = ir.load(folder / file).graph
            for values, specs in (
                (found.inputs, graph.spec.inputs),
                (found.outputs, graph.spec.outputs),
            ):
                ends = [(v.name, v.shape.numpy() if v.shape else None) for v in values]
                assert ends == [(tensor.name, tensor.shape) for tensor in specs]


def test_planned_parts_fit_the_model(language: Bundle) -> None:
    parts = plan_parts(language, max_bytes=LAYER_BYTES)
    graphs = [graph.spec for part in parts for graph in part.graphs]
    check_graphs(graphs, language.model, language.state)
    assert len({graph.name for part in parts for graph in part.graphs}) == len(graphs)


def test_one_bundle_gives_the_same_bytes_every_time(language: Bundle, tmp_path: Path) -> None:
    part: Part = plan_parts(language, max_bytes=2 * LAYER_BYTES)[1]
    for name in ("a", "b"):
        write_part(language, part, tmp_path / name)
    files = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert len(files) == 4  # three widths, one file of weights
    for name in files:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


@pytest.mark.parametrize(
    ("role", "complaint"),
    [("vision", "^vision alone is about 2 MB"), ("language", "^decoder layer 0 alone is about")],
)
def test_what_cannot_be_cut_is_refused(bundle: Bundle, role: str, complaint: str) -> None:
    qdq = bundle.target("qdq")
    graphs = tuple(g for g in qdq.graphs if (g.role == "vision") == (role == "vision"))
    alone = replace(bundle, targets={"qdq": replace(qdq, graphs=graphs)})
    with pytest.raises(UserError, match=f"{complaint}.*raise it"):
        plan_parts(alone, max_bytes=100_000)


def test_a_part_is_not_cut_again(language: Bundle) -> None:
    qdq = language.target("qdq")
    parts = plan_parts(language, max_bytes=LAYER_BYTES)
    graphs = tuple(graph.spec for part in parts for graph in part.graphs)
    cut = replace(language, targets={"qdq": replace(qdq, graphs=graphs)})
    with pytest.raises(UserError, match="is one part of a graph"):
        plan_parts(cut)
