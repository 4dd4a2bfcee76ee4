"""Speed of one bundle: the protocol, the counts behind the shares, the tables."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
from rich.console import Console

from autoneural.bench import speed
from autoneural.bench.graph_work import (
    GraphWork,
    bytes_per_token,
    macs,
    operator_times,
    profile_graphs,
    prompt_macs,
)
from autoneural.bench.machine import Machine
from autoneural.bench.peers import Ours, PeerRun, PeerTask
from autoneural.bench.speed import Protocol, measure_speed, picture
from autoneural.bench.speed_report import print_speed
from autoneural.bundle import Bundle
from autoneural.errors import UserError
from autoneural.runtime.engine import Engine

ROOFS = Machine(read_gb_s=10.0, fp32_gmac_s=100.0, int8_gmac_s=400.0)
SMALL = Protocol(prompt=40, answer=4, repeats=2, image=96, depths=(50, 9), threads=1)


@pytest.fixture(autouse=True)
def roofs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed, "measure_machine", lambda threads: ROOFS)


@pytest.fixture(scope="module")
def graphs(tiny_bundle: Bundle) -> dict[tuple[str, int], GraphWork]:
    found = profile_graphs(tiny_bundle, "float", 1)
    return {(graph.role, graph.width): graph for graph in found}


def test_every_figure_is_there(tiny_bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    text = {"prompt": [1.0], "decode": [4.0]}
    rows = [
        PeerRun(
            peer="a",
            theirs={"prompt": [1.0, 2.0, 5.0], "decode": [4.0], "picture": [3e6, 7e6]},
            ours={"prompt": [2.0, 8.0, 5.0], "decode": [6.0], "picture": [3e6, 3.5e6]},
        ),
        PeerRun(peer="b", missing="not installed"),
        PeerRun(peer="c", theirs=text, ours=text),
        PeerRun(peer="d", theirs=text, ours=text, missing="picture: ValueError: blind"),
    ]
    asked: list[tuple] = []

    def measure_peers(
        names: object, text: object, task: PeerTask, ours: Ours, progress: object
    ) -> list[PeerRun]:
        asked.append((task, *(ours(kind) for kind in ("text", "picture"))))
        return rows

    monkeypatch.setattr(speed, "measure_peers", measure_peers)
    seen: list[tuple[str, int, int]] = []
    report = measure_speed(tiny_bundle, "float", SMALL, lambda *a: seen.append(a))
    assert {what for what, _, _ in seen} == {"prompt", "decode at 9", "decode at 50", "image"}
    assert seen[-1] == ("image", 2, 2)
    assert [row["depth"] for row in report["decode"]] == [9, 50]
    for row in report["decode"]:
        rate = row["tokens_per_second"]
        assert 0 < rate["least"] <= rate["median"] <= rate["most"]
        assert 0 < row["outside_onnxruntime"] < 1
        assert row["gb_s"] == pytest.approx(rate["median"] * row["bytes_per_token"] / 1e9)
        assert row["share_of_read"] == pytest.approx(row["gb_s"] / 10)
    prompt = report["prompt"]
    assert prompt["share_of_fp32"] == pytest.approx(4 * prompt["share_of_int8"])
    for part in ("encode", "ttft"):
        roofs = report["image"][part]
        assert roofs["share_of_int8"] > 0
        assert roofs["share_of_fp32"] == pytest.approx(4 * roofs["share_of_int8"])
    ((task, own_text, own_picture),) = asked
    assert task == PeerTask(prompt=40, answer=4, depth=9, repeats=2, threads=1, image=96)
    assert own_text.keys() == {"prompt", "decode"}
    assert own_picture.keys() == {"picture"}
    assert min(*own_text.values(), *own_picture.values()) > 0
    first, second, *blind = report["peers"]
    ratios = {test: first[f"{test}_ratio"] for test in ("prompt", "decode", "picture")}
    assert ratios == {"prompt": 2.0, "decode": 1.5, "picture": 1.5}  # medians of ratios
    assert first["picture"] == {"median": 5e6, "least": 3e6, "most": 7e6}
    assert second["missing"] == "not installed"
    assert {second[test] for test in ratios} == {None}
    for row in blind:
        assert (row["depth"], row["prompt_ratio"], row["picture_ratio"]) == (9, 1.0, None)
    image = report["image"]
    assert image["tokens"] > 4 + 32
    parts = [image[f"{part}_ms"]["least"] for part in ("decode", "encode", "prefill")]
    assert all(part > 0 for part in parts)
    assert image["ttft_ms"]["least"] >= sum(parts)
    assert report["memory"]["bundle_bytes"] > 0
    out = io.StringIO()
    print_speed(json.loads(json.dumps(report)), Console(file=out, width=80))
    assert "…" not in out.getvalue()
    print_speed(json.loads(json.dumps(report)), Console(file=out, width=160), profile=True)
    for text in (
        "pp40",
        "tg @ 9",
        "96 px",
        "prefill-32",
        "MAC/byte",
        "NPU: n/a",
        "Gelu",
        "not installed",
        "96 px to 1st token, ms",
        "5000000 (3000000 to 7000000)",
        "picture: ValueError: blind",
    ):
        assert text in out.getvalue()


def test_answers_have_the_length_asked_for(
    tiny_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though the end token is the likeliest everywhere."""
    engine = Engine(tiny_bundle, "float", threads=1)
    eos = engine.tokenizer.eos_id
    monkeypatch.setattr(
        engine._decoder, "logits", lambda hidden: -1.0 + 2.0 * (np.arange(320) == eos)
    )
    assert speed._run(engine, speed._text_inputs(engine, 5), 7).predicted_n == 7


def test_depth_and_answer_fit_the_context(tiny_bundle: Bundle) -> None:
    fitted = speed._fitted(Protocol(prompt=40, answer=28), 128)
    assert fitted.depths == (100,)
    assert speed._fitted(Protocol(answer=28), 4096).depths == (128, 4068)
    with pytest.raises(UserError, match="^-p 512: the bundle's context is 128 tokens"):
        measure_speed(tiny_bundle, "float", Protocol(answer=8))
    with pytest.raises(UserError, match="--depth 121 and an answer of 8: the bundle's context"):
        measure_speed(tiny_bundle, "float", Protocol(prompt=40, answer=8, depths=(121,)))


def test_work_is_counted_from_shapes(graphs: dict[tuple[str, int], GraphWork]) -> None:
    """tiny-test: 32 wide, 64 in the feed-forward, two layers of each kind, context 128."""
    head = graphs["head", 1]
    assert head.macs == 32 * 320
    assert head.weight_bytes == 4 * 32 * 320
    assert head.bytes == head.weight_bytes + 4 * (32 + 320)
    feed_forward = 4 * 3 * 32 * 64
    convolutions = 2 * (4 * 32 * 32 + 3 * 32)
    attention = 2 * (2 * 32 * 32 + 2 * 32 * 16)
    for role, width in (("decode", 1), ("prefill", 32)):
        scores = 2 * 2 * 4 * 8 * (128 + width)
        linear = feed_forward + convolutions + attention
        assert graphs[role, width].macs == width * (linear + scores)
        assert graphs[role, width].macs_per_key == 2 * 2 * 4 * 8
    # Of three tokens the first sees one key, the last three.
    linear = feed_forward + convolutions + attention
    assert prompt_macs(list(graphs.values()), 3) == 3 * linear + 6 * 2 * 2 * 4 * 8
    decode = graphs["decode", 1]
    assert decode.kv_bytes == 2 * 2 * 2 * 128 * 8 * 4
    assert decode.conv_bytes == 2 * 32 * 2 * 4
    assert decode.intensity < graphs["prefill", 32].intensity
    read = bytes_per_token(list(graphs.values()), 64)
    weights = decode.weight_bytes + head.weight_bytes
    assert read == weights + decode.conv_bytes + decode.kv_bytes // 2


def event(index: int, operator: str, dur: int, inputs: list, out: list) -> dict:
    args = {"node_index": str(index), "op_name": operator}
    args |= {"input_type_shape": [{"float": i} for i in inputs]}
    args |= {"output_type_shape": [{"float": out}]}
    return {"cat": "Node", "name": f"n{index}_kernel_time", "dur": dur, "args": args}


def test_a_profile_is_read() -> None:
    """Weights that were repacked are no inputs any more; the first run does not count."""
    shapes = ([[1, 8, 16], [4]], [1, 8, 4])
    runs = [[event(0, "MatMulNBits", t, *shapes), event(1, "Add", 5, [[2]], [2])] for t in (99, 8)]
    conv = event(2, "FusedConv", 7, [[1, 6, 9, 9], [10, 3, 3, 3]], [1, 10, 9, 9])
    events = [*runs[0], conv, *runs[1], conv, {"cat": "Session", "name": "model_run", "dur": 1}]
    assert macs(events) == 8 * 16 * 4 + 10 * 81 * 27
    times = [(row.operator, row.nodes, row.ms) for row in operator_times(events)]
    assert times == [("MatMulNBits", 1, 0.008), ("FusedConv", 1, 0.007), ("Add", 1, 0.005)]


def test_pictures_differ_and_are_of_the_size() -> None:
    from PIL import Image

    first, second = picture(40, 0), picture(40, 1)
    assert first != second
    image = Image.open(io.BytesIO(first))
    assert (image.size, image.format) == ((40, 40), "JPEG")
