"""`sbom.cdx.json`: the contents of a kit as a CycloneDX 1.6 bill of materials.

metadata.component   the kit            metadata.tools   what made it, with versions
components           the model (machine-learning-model, model card), and every file with its
                     SHA-256; Qualcomm's runtime as a library that is required and not included
dependencies         kit -> model, files, runtime;  model -> the files that hold it
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

_SPDX = ("Apache-2.0", "MIT", "BSD-3-Clause", "CC0-1.0", "CC-BY-4.0", "ISC", "MPL-2.0")
_MODEL_FOLDERS = ("binaries/", "onnx/", "host/embedding")


@dataclass(frozen=True, kw_only=True)
class Contents:
    """What the bill speaks of. `files` maps names to SHA-256; `tools` names to versions."""

    name: str
    chip: str
    runtime: str
    model_hash: str
    weights_licence: str
    inputs: Sequence[str]
    outputs: Sequence[str]
    tools: Mapping[str, str]
    files: Mapping[str, str]


def bill_of_materials(contents: Contents) -> dict[str, Any]:
    """The whole document. Only `timestamp` differs when the same kit is made again."""
    kit, model, runtime = "kit", "model", "qualcomm-runtime"
    files = [_file(name, digest) for name, digest in sorted(contents.files.items())]
    held = [_ref(name) for name in sorted(contents.files) if name.startswith(_MODEL_FOLDERS)]
    serial = uuid.uuid5(uuid.NAMESPACE_OID, "".join(sorted(contents.files.values())))
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{serial}",
        "version": 1,
        "metadata": {
            "timestamp": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "tools": {"components": [_tool(n, v) for n, v in contents.tools.items()]},
            "component": {
                "type": "application",
                "bom-ref": kit,
                "name": f"{contents.name} for {contents.chip}",
                "version": contents.model_hash[:12],
                "licenses": _licences("Apache-2.0"),
            },
        },
        "components": [_model(contents), _runtime(runtime, contents.runtime), *files],
        "dependencies": [
            {"ref": kit, "dependsOn": [model, runtime, *map(_ref, sorted(contents.files))]},
            {"ref": model, "dependsOn": held},
        ],
    }


def _model(contents: Contents) -> dict[str, Any]:
    return {
        "type": "machine-learning-model",
        "bom-ref": "model",
        "name": contents.name,
        "version": contents.model_hash[:12],
        "description": "Hash: SHA-256 of the manifest of the bundle that the kit was made from.",
        "hashes": _hashes(contents.model_hash),
        "licenses": _licences(contents.weights_licence),
        "modelCard": {
            "modelParameters": {
                "task": "vision-language: text from pictures and text",
                "architectureFamily": "AutoNeural",
                "inputs": [{"format": text} for text in contents.inputs],
                "outputs": [{"format": text} for text in contents.outputs],
            }
        },
    }


def _runtime(ref: str, version: str) -> dict[str, Any]:
    return {
        "type": "library",
        "bom-ref": ref,
        "name": "Qualcomm AI Engine Direct (QNN) runtime",
        "version": f">={version}",
        "scope": "required",
        "description": "Not in this kit: it comes with your QAIRT SDK, under its licence.",
        "licenses": [{"license": {"name": "Qualcomm AI Stack License"}}],
    }


def _file(name: str, digest: str) -> dict[str, Any]:
    return {"type": "file", "bom-ref": _ref(name), "name": name, "hashes": _hashes(digest)}


def _tool(name: str, version: str) -> dict[str, Any]:
    return {"type": "application", "name": name, "version": version}


def _ref(name: str) -> str:
    return f"file:{name}"


def _hashes(digest: str) -> list[dict[str, str]]:
    return [{"alg": "SHA-256", "content": digest}]


def _licences(name: str) -> list[dict[str, Any]]:
    return [{"license": {"id": name} if name in _SPDX else {"name": name or "not stated"}}]
