"""What the kit tests share: bundles that count as compiled, a schema checker, an integrator."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from onnx import helper

from autoneural.bundle import DEFAULT_BUNDLE, Bundle, write_bundle
from autoneural.npu.partition import plan_parts
from autoneural.target.chips import find_chip

COMPILER = "QNN 2.51.0 (onnxruntime-qnn 2.7.0)"


def copy_bundle(folder: Path) -> dict[str, Any]:
    """The embedded bundle in `folder`; its manifest, ready to be changed and written again."""
    shutil.copytree(Bundle.load(DEFAULT_BUNDLE).folder, folder)
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    del manifest["files"]
    return manifest


def add_target(manifest: dict[str, Any], graphs: Sequence[Mapping[str, Any]], chip: str) -> str:
    """Enter graphs as compiled for `chip`; returns the folder that their files belong in."""
    known = find_chip(chip)
    named = [{**g, "file": f"{known.target}/{Path(g['file']).name}"} for g in graphs]
    manifest["targets"][known.target] = {
        **manifest["targets"]["qdq"],
        "graphs": named,
        "chip": known.name,
        "soc_model": known.soc_model,
        "compiler": COMPILER,
        "parts": [],
    }
    return known.target


def write_wrapper(path: Path, graph: Mapping[str, Any], binary: str) -> None:
    """An EPContext wrapper as the provider writes it; the binary is one in name only."""
    ends = {
        kind: [
            helper.make_tensor_value_info(t["name"], _onnx_type(t["dtype"]), t["shape"])
            for t in graph[kind]
        ]
        for kind in ("inputs", "outputs")
    }
    node = helper.make_node(
        "EPContext",
        [t["name"] for t in graph["inputs"]],
        [t["name"] for t in graph["outputs"]],
        domain="com.microsoft",
        main_context=1,
        embed_mode=0,
        ep_cache_context=binary,
        partition_name=f"net_{path.stem}",
    )
    model = helper.make_model(helper.make_graph([node], path.stem, ends["inputs"], ends["outputs"]))
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, path)
    (path.parent / binary).write_bytes(b"a context binary")


def _onnx_type(dtype: str) -> int:
    return helper.np_dtype_to_tensor_dtype(np.dtype(dtype))


def compiled_bundle(folder: Path, chip: str = "SA8295P", max_part_mb: int = 512) -> Bundle:
    """The embedded bundle, in name compiled for `chip`: no test here executes a binary."""
    manifest = copy_bundle(folder)
    parts = plan_parts(Bundle.load(DEFAULT_BUNDLE), "qdq", max_part_mb << 20)
    specs = {graph.name: asdict(graph.spec) for part in parts for graph in part.graphs}
    binaries = {g.name: f"{part.name.replace(' ', '-')}.bin" for part in parts for g in part.graphs}
    graphs = [{**spec, "file": f"{name}.onnx"} for name, spec in specs.items()]
    place = add_target(manifest, graphs, chip)
    manifest["targets"][place]["options"] = {"max_part_mb": max_part_mb}
    for name, graph in zip(specs, graphs, strict=True):
        write_wrapper(folder / place / f"{name}.onnx", graph, binaries[name])
    return write_bundle(folder, manifest)


def read(kit: Path, name: str) -> dict[str, Any]:
    """A JSON file of a kit."""
    return json.loads((kit / name).read_text(encoding="utf-8"))


class Schema:
    """The part of JSON Schema that io.schema.json uses; an unknown keyword is an error."""

    _WORDS = ("title", "description", "$schema", "$defs")

    def __init__(self, schema: Mapping[str, Any]) -> None:
        self._top = schema

    def errors(self, value: Any, schema: Any = None, where: str = "$") -> list[str]:
        found = []
        for word, rule in (self._top if schema is None else schema).items():
            if word in self._WORDS:
                continue
            check = getattr(self, f"_{word.lstrip('$').lower()}")
            found += check(value, rule, where, self._top if schema is None else schema)
        return found

    def _ref(self, value: Any, rule: str, where: str, schema: Any) -> list[str]:
        target: Any = self._top
        for step in rule.removeprefix("#/").split("/"):
            target = target[step]
        return self.errors(value, target, where)

    def _type(self, value: Any, rule: str, where: str, schema: Any) -> list[str]:
        kinds = {
            "object": dict,
            "array": list,
            "string": str,
            "integer": int,
            "number": (int, float),
        }
        right = isinstance(value, kinds[rule]) and not isinstance(value, bool)
        return [] if right else [f"{where}: not {rule}"]

    def _const(self, value: Any, rule: Any, where: str, schema: Any) -> list[str]:
        return [] if value == rule else [f"{where}: not {rule!r}"]

    def _enum(self, value: Any, rule: list, where: str, schema: Any) -> list[str]:
        return [] if value in rule else [f"{where}: not one of {rule}"]

    def _pattern(self, value: str, rule: str, where: str, schema: Any) -> list[str]:
        return [] if re.search(rule, value) else [f"{where}: not {rule}"]

    def _required(self, value: dict, rule: list, where: str, schema: Any) -> list[str]:
        return [f"{where}: no {key}" for key in rule if key not in value]

    def _properties(self, value: dict, rule: dict, where: str, schema: Any) -> list[str]:
        pairs = [(k, v) for k, v in value.items() if k in rule]
        return [e for k, v in pairs for e in self.errors(v, rule[k], f"{where}.{k}")]

    def _additionalproperties(self, value: dict, rule: Any, where: str, schema: Any) -> list[str]:
        extra = [key for key in value if key not in schema.get("properties", {})]
        if rule is False:
            return [f"{where}: unknown {key}" for key in extra]
        return [e for k in extra for e in self.errors(value[k], rule, f"{where}.{k}")]

    def _items(self, value: list, rule: Any, where: str, schema: Any) -> list[str]:
        return [e for i, v in enumerate(value) for e in self.errors(v, rule, f"{where}[{i}]")]

    def _anyof(self, value: Any, rule: list, where: str, schema: Any) -> list[str]:
        return [] if any(not self.errors(value, s) for s in rule) else [f"{where}: fits nothing"]

    def _minitems(self, value: list, rule: int, where: str, schema: Any) -> list[str]:
        return [] if len(value) >= rule else [f"{where}: too short"]

    def _maxitems(self, value: list, rule: int, where: str, schema: Any) -> list[str]:
        return [] if len(value) <= rule else [f"{where}: too long"]

    def _minlength(self, value: str, rule: int, where: str, schema: Any) -> list[str]:
        return [] if len(value) >= rule else [f"{where}: too short"]

    def _minimum(self, value: float, rule: float, where: str, schema: Any) -> list[str]:
        return [] if value >= rule else [f"{where}: below {rule}"]

    def _exclusiveminimum(self, value: float, rule: float, where: str, schema: Any) -> list[str]:
        return [] if value > rule else [f"{where}: not above {rule}"]


class Integrator:
    """A host program written from io.json alone: raw files in, tokens out.

    Stands for the C++ of a customer, so it shares no code with the package; its graphs run as QDQ
    ONNX because the machine of a test has no board.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.io = json.loads((folder / "io.json").read_text(encoding="utf-8"))
        self.graphs = {graph["name"]: graph for graph in self.io["graphs"]}
        self.state = {
            s["name"]: np.full(s["shape"], s["initial"], s["dtype"]) for s in self.io["state"]
        }
        self.position = 0
        host = self.io["host"]
        self.embedding = self._table(host["rows"])
        self.tables = {name: self._table(host["rotary"][name]) for name in ("cos", "sin")}

    def answer(self, ids: Sequence[int], pixel_values: np.ndarray, tokens: int) -> list[int]:
        """The first tokens of the answer to a prompt with one picture, given as its integers."""
        vision, prefill, head, decode = (
            next(s for s in self.io["steps"] if s["name"] == name)
            for name in ("vision", "prefill", "head", "decode")
        )
        features = self._run(vision["graphs"][0], {"pixel_values": pixel_values})["image_features"]
        places = np.array(ids) == self.io["host"]["tokenizer"]["ids"]["image"]
        rows = self.embedding[np.array(ids)]
        rows[places] = features[0]
        said: list[int] = []
        while len(said) < tokens:
            step = decode if said else prefill
            for first in range(0, len(rows), step["width"]):
                hidden = self._step(step, rows[first : first + step["width"]])
            logits = self._run(head["graphs"][0], {"hidden_states": hidden})["logits"]
            said.append(int(np.argmax(logits)))
            rows = self.embedding[said[-1:]]
        return said

    def _step(self, step: Mapping[str, Any], rows: np.ndarray) -> np.ndarray:
        count, made = len(rows), {}
        for name in step["graphs"]:
            feeds = {t["name"]: self._input(t, rows, made) for t in self.graphs[name]["inputs"]}
            outputs = self._run(name, feeds)
            made |= outputs
            for tensor in self.graphs[name]["outputs"]:
                if tensor["use"]["kind"] == "state":
                    self._keep(tensor["use"]["state"], outputs[tensor["name"]], count)
        self.position += count
        return made["hidden_states"][:, count - 1 : count]

    def _input(self, tensor: Mapping[str, Any], rows: np.ndarray, made: Mapping) -> np.ndarray:
        source, shape = tensor["source"], tensor["shape"]
        if source["kind"] == "state":
            return self.state[source["state"]]
        if source["kind"] == "graph":
            return made[source["output"]]
        full = np.full(shape, tensor["zero_point"], tensor["dtype"])
        if source["kind"] == "rows":
            full[0, : len(rows)] = rows
        elif source["kind"] == "rotary":
            table = self.tables[source["table"]]
            for row in range(shape[2]):
                full[0, 0, row] = table[min(self.position + row, self.io["context"] - 1)]
        elif source["kind"] == "mask":
            mask, past = self.io["host"]["mask"], shape[3] - shape[2]
            full[:] = mask["closed"]
            for row in range(shape[2]):
                full[0, 0, row, : self.position] = mask["open"]
                full[0, 0, row, past : past + row + 1] = mask["open"]
        return full

    def _keep(self, name: str, present: np.ndarray, count: int) -> None:
        entry = next(s for s in self.io["state"] if s["name"] == name)
        if entry["rule"] == "slide":
            self.state[name] = present[:, :, count : count + entry["shape"][2]]
        else:
            self.state[name][:, :, self.position : self.position + count] = present[:, :, :count]

    def _run(self, name: str, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        session = reference_session(self.folder / self.graphs[name]["qdq_onnx"])
        names = [t["name"] for t in self.graphs[name]["outputs"]]
        results = map(np.asarray, session.run(names, dict(feeds)))
        return dict(zip(names, results, strict=True))

    def _table(self, entry: Mapping[str, Any]) -> np.ndarray:
        raw = np.fromfile(self.folder / entry["file"], np.dtype(entry["dtype"]).newbyteorder("<"))
        return raw.reshape(entry["shape"])


def reference_session(path: Path) -> ort.InferenceSession:
    """A QDQ graph on the CPU, with nothing fused."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
