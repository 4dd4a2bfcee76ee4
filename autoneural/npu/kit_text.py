"""The words of a kit: README.md, the licence notes, and the script that runs the golden steps."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from autoneural.errors import UserError

Json = Mapping[str, Any]

_LICENCE = "licenses/LICENSE"

_README = """# {model} for {chip}

Made by autoneural {version} from the bundle `{model}`. Everything a host program without Python
needs to run the model on the HTP (Hexagon v{htp}) of {chip}, or to convert it with another QAIRT
SDK. The binaries are compiled for {chip} (soc_model {soc_model}) by
{compiler}.
The golden outputs come from a CPU{emulated}.
Nothing here was run on a board.

| folder | what |
|---|---|
| `binaries/` | QNN context binaries; the `.onnx` beside each is its wrapper for ONNX Runtime |
| `io.json`, `io.schema.json` | every input and output, where it comes from, state, step order |
| `host/` | embedding rows, rotary tables, tokenizer, chat template |
| `onnx/qdq/` | the integer graphs as QDQ ONNX: what was compiled |
| `onnx/float/` | the same graphs in float, and AIMET encodings (format 1.0.0) of every tensor |
| `golden/` | inputs and outputs of one real run, step by step; `run.sh`, `check.py` |
| `LICENSES/`, `sbom.cdx.json`, `SHA256SUMS` | licences, bill of materials, checksums |

Check the copy first: `sha256sum -c SHA256SUMS`.

## Runtime version

The QNN runtime on the device must be **{sdk} or newer**: a context binary loads in the version
that built it and in later ones. With an older one, or on another chip, loading ends in an error of
the range 5000 (`Could not create context from binary ... err 5000`; 5004 is the version, 5005 any
other refusal of the binary). Then update the runtime, or convert `onnx/` with the SDK you have.

From your QAIRT SDK the device needs `qnn-net-run`, `libQnnHtp.so`, `libQnnSystem.so`,
`libQnnHtpV{htp}Stub.so` (all from the folder of the device's system) and
`libQnnHtpV{htp}Skel.so` (from `lib/hexagon-v{htp}/unsigned`). None of them is in this kit.

## Run the golden steps on the device

Copy the kit and those files to the device, then in the kit's folder (Android; on QNX the paths
of the libraries differ, the command does not):

    export LD_LIBRARY_PATH=/data/local/tmp/qnn
    export ADSP_LIBRARY_PATH=/data/local/tmp/qnn
    QNN_NET_RUN=/data/local/tmp/qnn/qnn-net-run sh golden/run.sh /data/local/tmp/out

`run.sh` holds one command per step, with native integers in and out, for instance:

    {example}

`input_list.txt` has one line, `name:=file` for each input; the files are named from the kit's
folder. A binary with several graphs takes a list per graph, separated by commas, `__` for each that
is not to run; they stand in the order of the table below (`qnn-context-binary-utility` prints it).
Copy the folder of outputs to any machine with Python and compare:

    python3 golden/check.py out

It prints the largest difference in integers and the SQNR of every output, against `expected`
({expected}){against}.
Every step starts from the golden inputs, so steps can be judged one by one.

## Graphs

| graph | binary | name in the binary | inputs, outputs |
|---|---|---|---|
{graphs}

{parts}

## How a run goes

{steps}

State: {commit}.

    slide    {slide}
    append   {append}

It starts as its `initial` integer everywhere. `io.json` has all names, scales and zero points, the
mask's two integers, the rotary formula and the picture's preprocessing.

The golden run: picture `{picture}`, question "{question}", {prompt} tokens of prompt;
then the tokens {tokens}.

## With your own QAIRT SDK

For an SDK that does not load these binaries:

    qairt-converter --input_network onnx/float/decode.onnx \\
        --quantization_overrides onnx/float/decode.encodings --output_path decode.dlc

(`qnn-onnx-converter` in older SDKs takes the same two options.) The float graphs hold the very
values of the integer ones; weights and activations quantised with these encodings give the same
integers again, 32-bit biases to the precision of a float. The graphs are ONNX opset {opset} with
the operators {operators}.
Keep the layouts of inputs and outputs (`--preserve_io`, or your SDK's word for it), or `io.json` no
longer fits. What another SDK compiles may differ from the golden outputs by some LSB; no converter
was run on these files here.
"""

_AGAINST = """, and how far the
emulator's outputs in `emulator/` are from it. The emulator loads no binary that several graphs
share: there it ran the QDQ graph, compiled anew by the same compiler (`emulated` in
`golden/golden.json` says which)"""

_QUALCOMM = """# Qualcomm's part

This kit holds no library of Qualcomm. The context binaries were made with Qualcomm's compiler
({compiler}); loading them takes the QNN runtime (`libQnnHtp.so`, `libQnnSystem.so`, stub and skel
of the chip), which comes with the Qualcomm AI Runtime (QAIRT) SDK or with the package
`onnxruntime-qnn`, under Qualcomm's own licence (the "AI Stack License", a PDF in that package;
your SDK has its own copy). Read it before you ship: it governs how those libraries, and what is
made with them, may be passed on and used.
"""

_WEIGHTS = """# Weights

The weights of `{model}` (in `binaries/`, `onnx/` and `host/`) are under: {licences}.
"""

_RUN = """#!/bin/sh
# Runs every golden step through qnn-net-run; call it in the kit's folder: sh golden/run.sh OUT
set -e
: "${QNN_NET_RUN:=qnn-net-run}" "${QNN_BACKEND:=libQnnHtp.so}"
OUT="${1:?name a folder for the outputs}"
net_run() {
    "$QNN_NET_RUN" --backend "$QNN_BACKEND" --retrieve_context "$1" --input_list "$2" \\
        --use_native_input_files --use_native_output_files --output_dir "$OUT/$3"
}
"""


def run_script(io: Json, golden: Json) -> str:
    """golden/run.sh."""
    calls = (
        f"net_run {binary} {lists} {step}" for binary, lists, step in _calls(io, golden["steps"])
    )
    return _RUN + "\n".join(calls) + "\n"


def _calls(io: Json, steps: Sequence[Json]) -> list[tuple[str, str, str]]:
    """(binary, input lists, step) of every execution."""
    found = []
    for step in steps:
        own = next(graph for graph in io["graphs"] if graph["name"] == step["graph"])
        sharing = [graph for graph in io["graphs"] if graph["binary"] == own["binary"]]
        file = f"golden/{step['name']}/input_list.txt"
        lists = ",".join(file if graph is own else "__" for graph in sharing)
        found.append((own["binary"], lists, step["name"]))
    return found


def readme(
    io: Json,
    golden: Json,
    parts: Sequence[Json],
    version: str,
    operators: Sequence[str],
    opset: int,
) -> str:
    """README.md of the kit."""
    binary, lists, step = _calls(io, golden["steps"])[-2]
    rules = io["host"]["rules"]
    emulator = golden["emulator"]
    return _README.format(
        model=io["model"],
        chip=io["chip"]["name"],
        htp=io["chip"]["htp"],
        soc_model=io["chip"]["soc_model"],
        compiler=io["compiler"],
        version=version,
        sdk=minimum_runtime(io["compiler"]),
        emulated=f" and, beside them, from an emulator ({emulator})" if emulator else "",
        expected=golden["expected"],
        against=_AGAINST if emulator else "",
        example=f"qnn-net-run --backend libQnnHtp.so --retrieve_context {binary} \\\n"
        f"        --input_list {lists} \\\n        --use_native_input_files "
        f"--use_native_output_files --output_dir out/{step}",
        graphs="\n".join(_graph_row(graph) for graph in io["graphs"]),
        parts=_parts(parts),
        steps="\n".join(
            f"{i}. `{s['name']}` ({', then '.join(s['graphs'])}): {s['when']}."
            for i, s in enumerate(io["steps"], 1)
        ),
        commit=rules["commit"],
        slide=rules["slide"],
        append=rules["append"],
        picture=golden["picture"],
        question=golden["question"],
        prompt=len(golden["input_ids"]),
        tokens=", ".join(map(str, golden["tokens"])),
        opset=opset,
        operators=", ".join(operators),
    )


def minimum_runtime(compiler: str) -> str:
    """The QNN version in `QNN 2.51.0 (onnxruntime-qnn 2.7.0)`."""
    found = re.match(r"QNN (\d+(\.\d+)*)", compiler)
    if found is None:
        raise UserError(f"compiler {compiler!r}: not of the form 'QNN 2.51.0 (...)'")
    return found[1]


def _graph_row(graph: Json) -> str:
    tensors = f"{len(graph['inputs'])}, {len(graph['outputs'])}"
    return f"| {graph['name']} | `{graph['binary']}` | `{graph['qnn_graph']}` | {tensors} |"


def _parts(parts: Sequence[Json]) -> str:
    if not parts:
        return "The bundle has no report of its compilation."
    keys = ("role", "part", "nodes_npu", "nodes_total", "float_tensors", "precision")
    rows = [" | ".join(str(p.get(k, "-")) for k in (*keys, "binary_bytes")) for p in parts]
    head = (
        "What the compiler reported (nodes on the NPU, of all; tensors left in floating point):\n\n"
        "| role | part | nodes on the NPU | nodes | float tensors | precision | bytes |\n"
        "|---|---|---|---|---|---|---|\n"
    )
    return head + "\n".join(f"| {row} |" for row in rows)


def licence_files(model: str, licences: Mapping[str, str], compiler: str) -> dict[str, str]:
    """File name below LICENSES -> text."""
    terms = ", ".join(f"{name}: {text}" for name, text in licences.items())
    return {
        "Apache-2.0.txt": own_licence(),
        "WEIGHTS.md": _WEIGHTS.format(model=model, licences=terms or "not stated by the bundle"),
        "QUALCOMM.md": _QUALCOMM.format(compiler=compiler),
    }


def own_licence() -> str:
    """The licence of autoneural itself: of this clone, or of the installed package."""
    clone = Path(__file__).resolve().parents[2] / "LICENSE"
    if clone.is_file():
        return clone.read_text(encoding="utf-8")
    try:
        text = metadata.distribution("autoneural").read_text(_LICENCE)
    except metadata.PackageNotFoundError:
        text = None
    if text is None:
        raise UserError("the licence text of autoneural is missing; install the package again")
    return text
