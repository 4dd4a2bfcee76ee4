"""Golden vectors of a kit: one real short run, every graph execution with its inputs and outputs.

    golden/03-decode/inputs/mask.raw        what to feed, native integers, little-endian
    golden/03-decode/expected/logits.raw    what the QDQ graph computes on ONNX Runtime CPU
    golden/03-decode/emulator/logits.raw    what the HTP emulator computes from them (kit_emulator)
    golden/03-decode/input_list.txt         the same inputs as qnn-net-run --input_list wants them
    golden/golden.json                      what is what, and how far the emulator is from expected

The run follows io.json and nothing else, so it is the proof that io.json says enough.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from autoneural.demo import EXAMPLES
from autoneural.npu.kit_io import graph_named
from autoneural.runtime.threads import physical_cores

PICTURE = EXAMPLES / "driver.jpg"
QUESTION = "Describe the picture."
DECODE_STEPS = 3

Arrays = dict[str, np.ndarray]
Json = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """What the run answers: token ids [T] with the picture's places, pixels uint8 [1, 3, S, S]."""

    text: str
    picture: Path
    input_ids: np.ndarray
    pixel_values: np.ndarray


@dataclass(frozen=True, kw_only=True)
class Execution:
    """One execution of one graph: `count` real rows from `position` on."""

    graph: str
    position: int
    count: int
    inputs: Arrays
    outputs: Arrays


class KitRunner:
    """Executes io.json: `folder` is a kit, the graphs run as QDQ ONNX on the CPU."""

    def __init__(self, folder: Path, io: Json) -> None:
        self.tokens: list[int] = []
        self._folder, self._io = folder, io
        self._sessions: dict[str, ort.InferenceSession] = {}
        self._rows = self._table(io["host"]["rows"])
        self._rotary = {name: self._table(io["host"]["rotary"][name]) for name in ("cos", "sin")}
        self._state = {s["name"]: _filled(s, s["initial"]) for s in io["state"]}
        self._rules = {s["name"]: s["rule"] for s in io["state"]}
        self._position = 0

    def run(self, prompt: Prompt, decode_steps: int) -> Iterator[Execution]:
        """Every execution of a greedy run; `tokens` grows with it (one more than decode steps)."""
        features = []
        for pixels in prompt.pixel_values:
            done = self._execute(self._step("vision")["graphs"][0], self._pixels(pixels), 0)
            yield done
            features.append(done.outputs["image_features"][0])
        rows = self._rows[prompt.input_ids]
        if features:
            image = self._io["host"]["tokenizer"]["ids"]["image"]
            rows[prompt.input_ids == image] = np.concatenate(features)
        yield from self._prefill(rows)
        after_prompt = self._position, dict(self._state)
        for _ in range(decode_steps):
            yield from self._decoder(self._step("decode"), self._rows[[self.tokens[-1]]])
            yield from self._head()
        if self._has("verify"):
            self._position, self._state = after_prompt
            yield from self._verify(self.tokens[:decode_steps])

    def _prefill(self, rows: np.ndarray) -> Iterator[Execution]:
        steps = sorted(
            (s for s in self._io["steps"] if s["name"] in ("prefill", "decode")),
            key=lambda step: step["width"],
        )
        while len(rows):
            step = next((s for s in steps if s["width"] >= len(rows)), steps[-1])
            chunk, rows = rows[: step["width"]], rows[step["width"] :]
            yield from self._decoder(step, chunk)
        yield from self._head()

    def _verify(self, drafts: Sequence[int]) -> Iterator[Execution]:
        """The same tokens again, as drafts of which all turn out right."""
        step = self._step("verify")
        yield from self._decoder(step, self._rows[list(drafts[: step["width"]])])

    def _decoder(self, step: Json, rows: np.ndarray) -> Iterator[Execution]:
        """One step through all parts of the graph; then the state is committed."""
        made: Arrays = {}
        for name in step["graphs"]:
            done = self._execute(name, {**made, **self._host_inputs(name, rows)}, len(rows))
            yield done
            made |= done.outputs
        self._commit(step, made, len(rows))
        self._hidden = made["hidden_states"][:, len(rows) - 1 : len(rows)]

    def _head(self) -> Iterator[Execution]:
        done = self._execute(self._step("head")["graphs"][0], {"hidden_states": self._hidden}, 1)
        self.tokens.append(int(done.outputs["logits"][0, 0].argmax()))
        yield done

    def _execute(self, name: str, values: Arrays, count: int) -> Execution:
        graph = graph_named(self._io, name)
        inputs = {t["name"]: np.ascontiguousarray(values[t["name"]]) for t in graph["inputs"]}
        names = [t["name"] for t in graph["outputs"]]
        results = self._session(graph).run(names, inputs)
        outputs = {n: np.asarray(r) for n, r in zip(names, results, strict=True)}
        return Execution(
            graph=name, position=self._position, count=count, inputs=inputs, outputs=outputs
        )

    def _host_inputs(self, name: str, rows: np.ndarray) -> Arrays:
        values = {}
        for tensor in graph_named(self._io, name)["inputs"]:
            kind = tensor["source"]["kind"]
            if kind == "state":
                values[tensor["name"]] = self._state[tensor["source"]["state"]]
            elif kind == "rows":
                values[tensor["name"]] = padded = _filled(tensor, tensor["zero_point"])
                padded[0, : len(rows)] = rows
            elif kind == "mask":
                values[tensor["name"]] = self._mask(tensor)
            elif kind == "rotary":
                table = self._rotary[tensor["source"]["table"]]
                places = self._position + np.arange(tensor["shape"][2])
                values[tensor["name"]] = table[np.minimum(places, len(table) - 1)][None, None]
        return values

    def _mask(self, tensor: Json) -> np.ndarray:
        integers = self._io["host"]["mask"]
        mask = _filled(tensor, integers["closed"])
        width, columns = tensor["shape"][2:]
        mask[..., : self._position] = integers["open"]
        mask[0, 0, :, columns - width :][np.tri(width, dtype=bool)] = integers["open"]
        return mask

    def _pixels(self, pixels: np.ndarray) -> Arrays:
        graph = graph_named(self._io, self._step("vision")["graphs"][0])
        tensor = graph["inputs"][0]
        real = pixels[None].astype(np.float32) / np.float32(255)
        steps = np.rint(real / np.float32(tensor["scale"])) + tensor["zero_point"]
        top = np.iinfo(tensor["dtype"]).max
        return {tensor["name"]: np.clip(steps, 0, top).astype(tensor["dtype"])}

    def _commit(self, step: Json, outputs: Arrays, count: int) -> None:
        for name in step["graphs"]:
            for tensor in graph_named(self._io, name)["outputs"]:
                if tensor["use"]["kind"] != "state":
                    continue
                past, present = tensor["use"]["state"], outputs[tensor["name"]]
                if self._rules[past] == "slide":
                    columns = self._state[past].shape[2]
                    self._state[past] = present[:, :, count : count + columns]
                else:
                    rows = slice(self._position, self._position + count)
                    # A new array: the recorded inputs of this step must stay as they were.
                    self._state[past] = self._state[past].copy()
                    self._state[past][:, :, rows] = present[:, :, :count]
        self._position += count

    def _step(self, name: str) -> Json:
        size = self._io["host"]["pixels"]["size"][0]
        steps = (s for s in self._io["steps"] if s["name"] == name)
        return next(s for s in steps if name != "vision" or s["image_size"] == size)

    def _has(self, name: str) -> bool:
        return any(step["name"] == name for step in self._io["steps"])

    def _session(self, graph: Json) -> ort.InferenceSession:
        if graph["name"] not in self._sessions:
            self._sessions[graph["name"]] = open_reference(self._folder / graph["qdq_onnx"])
        return self._sessions[graph["name"]]

    def _table(self, entry: Json) -> np.ndarray:
        dtype = np.dtype(entry["dtype"]).newbyteorder("<")
        return np.memmap(self._folder / entry["file"], dtype, "r", shape=tuple(entry["shape"]))


def open_reference(path: Path) -> ort.InferenceSession:
    """A QDQ graph run as written: fused groups round elsewhere."""
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = physical_cores()
    return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def _filled(tensor: Json, value: int) -> np.ndarray:
    return np.full(tensor["shape"], value, tensor["dtype"])


def write_golden(folder: Path, io: Json, prompt: Prompt) -> dict[str, Any]:
    """Run, and write every execution below `folder`/golden. Returns the content of golden.json."""
    golden = folder / "golden"
    golden.mkdir()
    picture = golden / f"picture{prompt.picture.suffix}"
    shutil.copyfile(prompt.picture, picture)
    runner, steps = KitRunner(folder, io), []
    for index, done in enumerate(runner.run(prompt, DECODE_STEPS)):
        name = f"{index:02d}-{done.graph}"
        steps.append(_write_step(folder, name, done, graph_named(io, done.graph)))
    return {
        "question": prompt.text,
        "picture": f"golden/{picture.name}",
        "input_ids": prompt.input_ids.tolist(),
        "tokens": runner.tokens,
        "expected": f"the QDQ graphs on ONNX Runtime {ort.__version__}, CPU, optimisations off",
        "emulator": None,
        "steps": steps,
    }


def _write_step(folder: Path, name: str, done: Execution, graph: Json) -> dict[str, Any]:
    place = folder / "golden" / name
    for kind, arrays in (("inputs", done.inputs), ("expected", done.outputs)):
        for tensor, array in arrays.items():
            write_raw(place / kind / f"{tensor}.raw", array)
    entries = (f"{tensor}:=golden/{name}/inputs/{tensor}.raw" for tensor in done.inputs)
    (place / "input_list.txt").write_text(" ".join(entries) + "\n", encoding="utf-8")
    return {
        "name": name,
        "graph": done.graph,
        "position": done.position,
        "count": done.count,
        "outputs": [_output(tensor, done.count, graph["width"]) for tensor in graph["outputs"]],
    }


def _output(tensor: Json, count: int, width: int) -> dict[str, Any]:
    """How an output is compared: along `axis` only the first `rows` mean something."""
    keys = ("name", "dtype", "shape", "scale", "zero_point")
    entry: dict[str, Any] = {key: tensor[key] for key in keys}
    axes = {"hidden": 1, "graph": 1, "state": 2}
    axis = axes.get(tensor["use"]["kind"], 0)
    size = tensor["shape"][axis]
    rows = size - width + count if axis else size
    return {**entry, "axis": axis, "rows": rows}


def write_raw(path: Path, array: np.ndarray) -> None:
    """The elements in row-major order, little-endian, nothing else."""
    path.parent.mkdir(parents=True, exist_ok=True)
    little = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
    path.write_bytes(little.tobytes())
