"""Why a graph was refused, read from the verbose log of the provider and of the compiler behind it.

Nowhere else do they say it; the exception only says that something was refused.
"""

from __future__ import annotations

import re

_COMPLAINT = re.compile(r"<E> (?:\[\d+\] )?(?P<text>.*)")
_OF_TYPE = re.compile(r"failed for node `\S+` of type `(?P<type>\w+)`")
_REASON = re.compile(r"REASON : (?P<text>.*)")
_REQUESTED = re.compile(r"(?P<side>in|out)\[\d+\]:\s*(?:QNN_DATATYPE_)?(?P<type>[A-Z]\w*)")
# What the compiler says after a complaint, or to itself.
_NOISE = ("unexpected Graph", "Requested I/O", "Supported I/O", "Please refer", "QnnBackend_valid")
_NOISE += ("Failed to validate op", "validateNativeOps", "RouterX86", "graphMainFinalize")
_NAMES = (
    (re.compile(r" in the node '[^']*'"), ""),
    (re.compile(r"\s*There is a mismatch for the combination of inputs and outputs\."), ""),
    (re.compile(r"(?<=\.)\w+ node `[^`]*` will not be assigned to QNN EP\."), ""),
    (re.compile(r"^\[ONNXRuntimeError\] : \d+ : \w+ : "), ""),
    (re.compile(r'^"[^"]*" generated: '), ""),
    (re.compile(r"(has incorrect Value \d+, expected >= \d+)\.?"), r"\1 (the HTP version)"),
    (re.compile(r"QNNExecutionProvider_\w+"), "the graph"),
)


def refusal(log: str) -> str:
    """Why the first refused node of a verbose log was refused; "" where none was.

    In the compiler's words if it complained, else in those of ONNX Runtime's provider.
    """
    complaint = kind = ""
    requested: list[tuple[str, str]] = []
    listing = False
    for line in log.splitlines():
        if "Validation PASSED" in line:
            complaint, requested = "", []
        elif found := _REASON.search(line):
            return _sentence(kind, complaint, requested) or plain(found["text"])
        elif found := _COMPLAINT.search(line):
            listing = found["text"].startswith("Requested I/O") and not requested
            if not complaint and not found["text"].startswith(_NOISE):
                complaint = plain(found["text"])
        elif found := _OF_TYPE.search(line):
            kind = found["type"]
        elif listing and (found := _REQUESTED.search(line)):
            requested.append((found["side"], found["type"]))
    return _sentence(kind, complaint, requested)


def _sentence(kind: str, complaint: str, requested: list[tuple[str, str]]) -> str:
    if not complaint:
        return ""
    text = complaint if kind in complaint else f"{kind}: {complaint}"
    if not requested or "datatypes" not in complaint:
        return text
    sides = {side: [t for s, t in requested if s == side] for side in ("in", "out")}
    return f"{text.rstrip('.')}: {', '.join(sides['in'])} -> {', '.join(sides['out'])}"


def plain(text: str) -> str:
    """Without the names of nodes and graphs, which differ from probe to probe."""
    for pattern, instead in _NAMES:
        text = pattern.sub(instead, text)
    return text.strip()
