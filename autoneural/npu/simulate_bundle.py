"""A bundle whose qdq target computes as a chip does, on any CPU and without the vendor's wheel.

The copy is for asking what the chip's arithmetic costs: `autoneural eval COPY --target qdq`. It is
no source for compiling: its integers are the same, its graphs are not.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import onnx_ir as ir

from autoneural.bundle import Bundle, refuse_foreign, write_bundle
from autoneural.errors import UserError
from autoneural.files import replace_folder
from autoneural.npu.simulate import simulate
from autoneural.target.chips import Chip

_TARGET = "qdq"


def simulate_bundle(source: Bundle, chip: Chip, out: Path) -> Bundle:
    """Write the copy to `out`, whole or not at all; an earlier bundle there is replaced.

    Raises UserError when `source` has no qdq target or is such a copy itself.
    """
    if _TARGET not in source.targets:
        raise UserError(f"bundle {source.name}: no target {_TARGET} to simulate a chip with")
    target = source.manifest["targets"][_TARGET]
    if "simulates" in target:
        raise UserError(f"{source.folder}: simulates {target['simulates']} already")
    refuse_foreign(out)
    with replace_folder(out) as stage:
        (stage / _TARGET).mkdir()
        for spec in source.target(_TARGET).graphs:
            model = ir.load(source.path(spec.file))
            simulate(model, chip.htp)
            ir.save(model, stage / spec.file, external_data=f"{Path(spec.file).stem}.data")
        table = source.target(_TARGET).embedding.file
        for name in (table, source.tokenizer_file, source.chat_template_file):
            shutil.copyfile(source.path(name), stage / name)
        manifest: dict[str, Any] = {k: v for k, v in source.manifest.items() if k != "files"}
        manifest["targets"] = {_TARGET: {**target, "simulates": chip.name}}
        write_bundle(stage, {**manifest, "chips": []})
    return Bundle.load(out)
