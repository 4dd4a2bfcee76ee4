"""The certificate: JSON there and back, and a page that shows all of it and trusts none of it."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from io import StringIO
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from rich.console import Console

from autoneural.errors import UserError
from autoneural.npu.certificate import (
    Certificate,
    GraphCheck,
    LayerCheck,
    OutputCheck,
    Thresholds,
    TokenCheck,
    TokenDifference,
    load_certificate,
    worst_first,
)
from autoneural.npu.certificate_page import render_page, write_page
from autoneural.npu.certificate_text import print_certificate, short_name

HOSTILE = '<script src="http://evil/x.js">alert(1)</script>&"\x1b[31m'


def layer(depth: int = 0, **changes: Any) -> LayerCheck:
    fields: dict[str, Any] = {
        "graph": "decode",
        "depth": depth,
        "name": f"language_model.model.layers.{depth}.conv.in_proj",
        "op": "FullyConnected",
        "precision": "w4a16",
        "sqnr_float_db": 33.5,
        "sqnr_qdq_db": 45.0 + depth,
        "predicted_db": 61.25,
        "rms_float": 0.021,
        "rms_qdq": 0.0056,
        "rms_lsb": 7.6,
        "max_lsb": 31,
        "fill": 0.25,
    }
    return LayerCheck(**fields | changes)


def graph(name: str = "decode", note: str = "") -> GraphCheck:
    output = OutputCheck(
        name="hidden",
        sqnr_float_db=None,
        sqnr_qdq_db=math.inf,
        predicted_db=50.0,
        rms_lsb=0.0,
        max_lsb=0,
    )
    return GraphCheck(
        graph=name,
        part=0,
        file=f"htp/SA8295P/{name}.onnx",
        binary="language.bin",
        binary_sha256="ab" * 32,
        reloaded=not note,
        identical=True,
        note=note,
        outputs=(output,),
    )


DIFFERENCE = TokenDifference(
    id="fatigue/7",
    prompt="Are the eyes open?",
    position=2,
    qdq_token=411,
    htp_token=95,
    qdq_text="closed",
    htp_text="open",
    margin=0.034,
)


@pytest.fixture
def certificate() -> Certificate:
    """Two measured layers, one exact, one that could not be measured; one answer that differs."""
    unmeasured = dict.fromkeys(("sqnr_float_db", "sqnr_qdq_db", "predicted_db"))
    unmeasured |= dict.fromkeys(("rms_float", "rms_qdq", "fill"))
    return Certificate(
        chip="SA8295P",
        generation="v68",
        bundle="cockpit-tiny",
        bundle_sha256="cd" * 32,
        created_by="autoneural 0.1.0",
        compiler="QNN 2.51.0 (onnxruntime-qnn 2.7.0)",
        samples=4,
        layers=(
            layer(3, op="Softmax", **unmeasured),
            layer(2, op="Mul", sqnr_qdq_db=math.inf, predicted_db=math.inf, rms_lsb=0.0, max_lsb=0),
            layer(1, cause="output range not filled"),
            layer(0),
        ),
        graphs=(graph(),),
        tokens=TokenCheck(
            compared=50,
            equal=49,
            answers_equal=49,
            accuracy_qdq=0.94,
            accuracy_htp=0.92,
            differences=(DIFFERENCE,),
        ),
        thresholds=Thresholds(layer_db=30.0, predicted_db=50.0, tokens=0.96),
    )


def reread(certificate: Certificate) -> Certificate:
    return Certificate.from_dict(json.loads(json.dumps(certificate.to_dict(), allow_nan=False)))


class Page(HTMLParser):
    """What a browser would make of a page: texts by tag, attributes, and the layer table's rows."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.attributes: list[tuple[str, str, str]] = []
        self.tags: list[str] = []
        self.names: list[str] = []
        self._row_below = self._in_code = False
        self.below: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag == "tr":
            self._row_below = ("class", "below") in attrs
        if tag == "td":
            self._in_code = ("class", "code") in attrs
            self.names += [""] * self._in_code

    def handle_endtag(self, tag: str) -> None:
        if tag == "td" and self._in_code:
            self.below += [self.names[-1]] * self._row_below
            self._in_code = False

    def handle_data(self, data: str) -> None:
        if self._in_code:
            self.names[-1] += data


def drawings(page: str) -> list[ElementTree.Element]:
    return [ElementTree.fromstring(svg) for svg in re.findall(r"<svg.*?</svg>", page, re.S)]


def hover_titles(drawing: ElementTree.Element) -> Iterator[str]:
    return (title.text or "" for title in drawing.iter("title"))


def test_json_round_trip(certificate: Certificate, tmp_path: Path) -> None:
    ordered = replace(certificate, layers=tuple(worst_first(certificate.layers)))
    assert reread(certificate) == ordered
    certificate.save(tmp_path / "certificate.json")
    assert load_certificate(tmp_path / "certificate.json") == ordered


def test_json_keeps_exact_and_unmeasured_apart(certificate: Certificate) -> None:
    near, _, exact, unmeasured = certificate.to_dict()["layers"]
    assert near["exact"] == []
    assert (exact["sqnr_qdq_db"], exact["exact"]) == (None, ["sqnr_qdq_db", "predicted_db"])
    assert (unmeasured["sqnr_qdq_db"], unmeasured["exact"]) == (None, [])


def test_json_says_worst_and_verdict(certificate: Certificate) -> None:
    data = certificate.to_dict()
    assert [entry["depth"] for entry in data["layers"]] == [0, 1, 2, 3]
    assert data["worst"]["name"] == layer(0).name
    assert data["passed"]
    failed = replace(certificate, failures=("decode: below 30 dB",))
    assert not failed.to_dict()["passed"]
    nothing = replace(certificate, layers=(), failures=())
    assert nothing.to_dict()["worst"] is None


@pytest.mark.parametrize("value", [math.nan, -math.inf])
def test_a_figure_that_is_none_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match="predicted_db"):
        layer(predicted_db=value)


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        (("layers", 0, "sqnr_qdq_db"), math.nan, r"layers\[0\]\.sqnr_qdq_db: nan is not a finite"),
        (("layers", 1, "name"), 7, r"layers\[1\]\.name: expected str, found int"),
        (("graphs", 0, "outputs", 0, "max_lsb"), -1, r"outputs\[0\]\.max_lsb: -1 is negative"),
        (("thresholds", "tokens"), None, r"thresholds\.tokens: expected float"),
        (("failures",), [1], r"failures: expected a list of texts"),
        (("passed",), False, r"passed: contradicts"),
        (("evidence",), "hearsay", r"evidence: unknown 'hearsay'"),
        (("format_version",), 2, r"certificate format 2"),
    ],
    ids=lambda value: ".".join(map(str, value)) if isinstance(value, tuple) else None,
)
def test_what_is_no_certificate_is_refused(
    certificate: Certificate, tmp_path: Path, path: tuple[Any, ...], value: object, says: str
) -> None:
    data = certificate.to_dict()
    entry: Any = data
    for key in path[:-1]:
        entry = entry[key]
    entry[path[-1]] = value
    with pytest.raises(UserError, match=says):
        write_page(data, tmp_path / "page.html")
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_no_json_is_refused(tmp_path: Path) -> None:
    (tmp_path / "c.json").write_text("[")
    with pytest.raises(UserError, match=r"c\.json: not a certificate"):
        load_certificate(tmp_path / "c.json")


def test_page_shows_every_name_as_text(certificate: Certificate) -> None:
    hostile = layer(4, name=HOSTILE, op=HOSTILE, cause=HOSTILE, graph=HOSTILE, precision=HOSTILE)
    difference = replace(DIFFERENCE, prompt=HOSTILE, htp_text=HOSTILE)
    tokens = replace(certificate.tokens, differences=(difference,))
    changes: dict[str, Any] = {"bundle": HOSTILE, "failures": (HOSTILE,), "tokens": tokens}
    changes["graphs"] = (graph(HOSTILE, note=HOSTILE),)
    record = replace(certificate, layers=(*certificate.layers, hostile), **changes)
    text = render_page(record)
    page = Page(text)
    shown = [*page.names]
    for expected in (layer.name for layer in record.layers):
        assert expected.replace("\x1b", "\N{REPLACEMENT CHARACTER}") in shown
    assert page.tags.count("script") == 1
    assert "\x1b" not in text
    assert all(drawing.tag == "svg" for drawing in drawings(text))


def test_page_loads_nothing(certificate: Certificate) -> None:
    text = render_page(certificate)
    page = Page(text)
    loading = {"src", "href", "srcset", "xlink:href", "action", "data", "poster", "style"}
    assert [entry for entry in page.attributes if entry[1] in loading] == []
    assert not {"link", "img", "iframe", "object", "embed", "base"} & set(page.tags)
    assert not re.search(r"url\(|@import|https?:", text)


def test_page_lets_only_its_own_script_run(certificate: Certificate) -> None:
    text = render_page(certificate)
    script = re.search(r"<script>(.*?)</script>", text, re.S)
    digest = base64.b64encode(hashlib.sha256(script[1].encode()).digest()).decode()
    policy = next(v for tag, _, v in Page(text).attributes if tag == "meta" and "script-src" in v)
    assert f"script-src 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none'")


def test_page_draws_valid_plots(certificate: Certificate) -> None:
    head = layer(0, graph="head", name="language_model.lm_head")
    record = replace(certificate, layers=(*certificate.layers, head))
    found = drawings(render_page(record))
    labels = [drawing.get("aria-label", "") for drawing in found]
    assert [label.split()[-1] for label in labels[:2]] == ["decode", "head"]
    assert len(found) == 4


def test_depth_plot_follows_the_graph(certificate: Certificate) -> None:
    # The layers come in another order than they run in.
    drawing = drawings(render_page(certificate))[0]
    names = [title.splitlines()[0] for title in hover_titles(drawing)]
    assert names == [layer(depth).name for depth in range(4)]


def test_depth_plot_leaves_a_gap_and_draws_exact_above_the_axis(certificate: Certificate) -> None:
    drawing = drawings(render_page(certificate))[0]
    marks = {p.get("class", "").split()[1]: p.get("d", "") for p in drawing.iter("path")}
    heights = [float(y) for y in re.findall(r"M\S+ (\S+?)h", marks["emulator"])]
    ticks = [t for t in drawing.iter("text") if (t.text or "").rstrip("+").isdigit()]
    assert len(heights) == 3
    assert heights[0] > heights[1]
    assert heights[2] < min(float(t.get("y", "0")) for t in ticks) - 10


def test_page_marks_what_is_below_a_threshold(certificate: Certificate) -> None:
    low, unpredicted = layer(5, sqnr_qdq_db=29.9), layer(6, predicted_db=49.9)
    record = replace(certificate, layers=(*certificate.layers, low, unpredicted))
    assert set(Page(render_page(record)).below) == {low.name, unpredicted.name}


def test_page_without_anything_measured(certificate: Certificate) -> None:
    unmeasured = tuple(entry for entry in certificate.layers if entry.sqnr_qdq_db is None)
    bare = replace(certificate, layers=unmeasured, graphs=(), tokens=None, bundle_sha256=None)
    text = render_page(bare)
    assert len(drawings(text)) == 3
    assert "1 of 1 layers have no measured fill" in text
    empty = render_page(
        replace(bare, layers=(), tokens=TokenCheck(compared=0, equal=0, answers_equal=0))
    )
    for sentence in ("No layers were compared", "No graphs were", "No answers were"):
        assert sentence in empty
    assert drawings(empty) == []


@pytest.mark.parametrize("fill", [0.0, -1.0, 1e-9, 2.0])
def test_page_with_an_odd_fill_and_error(certificate: Certificate, fill: float) -> None:
    odd = layer(0, fill=fill, sqnr_qdq_db=-300.0, rms_lsb=1e308, predicted_db=1e6)
    assert len(drawings(render_page(replace(certificate, layers=(odd,))))) == 3


def test_page_of_a_thousand_layers(certificate: Certificate, tmp_path: Path) -> None:
    layers = tuple(layer(i, sqnr_qdq_db=30 + i % 50, op=f"Op{i % 30}") for i in range(1000))
    write_page(replace(certificate, layers=layers).to_dict(), tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert {entry.name for entry in layers} <= set(Page(text).names)
    assert [len(list(hover_titles(drawing))) for drawing in drawings(text)] == [1000] * 3
    assert "17 other operators" in text
    assert len(text) < 4_000_000


def printed(certificate: Certificate) -> str:
    out = StringIO()
    print_certificate(certificate.to_dict(), Console(file=out, width=100, color_system=None))
    return out.getvalue()


def test_terminal_summary(certificate: Certificate) -> None:
    layers = tuple(layer(depth) for depth in range(30))
    graphs = (graph("prefill", "shared weights"), graph("decode", "shared weights"))
    text = printed(replace(certificate, layers=layers, graphs=graphs, failures=("head: \x1b9 dB",)))
    assert text.startswith("Failed: 1 check  cockpit-tiny on SA8295P (v68)\n")
    assert "not measured on a board" in text
    assert re.findall(r"layers\.(\d+)\.conv", text) == [str(depth) for depth in range(10)]
    assert text.count("shared weights") == 1
    assert "49 of 50 answers are equal token for token" in text
    assert "head: \N{REPLACEMENT CHARACTER}9 dB" in text


def test_terminal_summary_with_nothing_in_it(certificate: Certificate) -> None:
    text = printed(replace(certificate, layers=(), graphs=(), tokens=None))
    assert text.startswith("Passed")
    assert "No answers were compared." in text


@pytest.mark.parametrize(
    ("name", "short"),
    [
        ("language_model.model.layers.3.conv.in_proj", "layers.3.conv.in_proj"),
        ("/vision/blocks/1/0/gelu", "blocks.1.0.gelu"),
        ("language_model.lm_head", "lm_head"),
        ("7", "7"),
        ("", ""),
    ],
)
def test_short_name(name: str, short: str) -> None:
    assert short_name(name) == short
