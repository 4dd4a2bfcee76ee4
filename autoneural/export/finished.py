"""Which graphs of an export are whole, so that one that was stopped goes on behind them.

    KEEP/bundle/         what becomes the bundle
    KEEP/finished.json   of each graph that is whole: its entries of the manifest, its sha256;
                         of each file of weights: what lies where

A kill, or a machine that vanishes, may cut off anything: what hashes do not confirm is made anew.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from autoneural.files import sha256, write_text
from autoneural.onnx_save import WeightFile

_BUNDLE, _RECORD = "bundle", "finished.json"


class Finished:
    """The graphs in `stage` that an earlier run finished; without `keep` there are none.

    `keep` is of one export: the same checkpoint, targets and options every time.
    """

    def __init__(self, keep: Path | None, stage: Path) -> None:
        self._record = None if keep is None else keep / _RECORD
        self._stage = stage
        self._graphs: dict[str, dict[str, Any]] = {}
        self._weights: dict[str, Mapping[str, tuple[int, int]]] = {}
        if self._record is not None and self._record.is_file():
            self._read(self._record)

    @staticmethod
    def stage_of(keep: Path | None) -> Path | None:
        """The folder below `keep` that becomes the bundle."""
        return None if keep is None else keep / _BUNDLE

    def weights(self, name: str) -> WeightFile:
        """The file of weights of that name below the stage, with what it holds already."""
        return WeightFile(self._stage / name, self._weights.get(name))

    def entries(self, file: str) -> list[dict[str, Any]] | None:
        """The manifest's entries of the graph in `file`, where that is whole."""
        found = self._graphs.get(file)
        return None if found is None else found["entries"]

    def add(self, file: str, entries: Sequence[dict[str, Any]], weights: WeightFile) -> None:
        """Write down that the graph in `file` is whole, with all that it reads of `weights`."""
        if self._record is None:
            return
        self._graphs[file] = {"entries": list(entries), "sha256": sha256(self._stage / file)}
        self._weights[weights.path.relative_to(self._stage).as_posix()] = weights.stored
        found = {"graphs": self._graphs, "weights": self._weights}
        write_text(self._record, json.dumps(found, indent=1) + "\n")

    def _read(self, record: Path) -> None:
        try:
            found = json.loads(record.read_text(encoding="utf-8"))
            weights: dict[str, Mapping[str, tuple[int, int]]] = {
                name: {digest: (start, length) for digest, (start, length) in stored.items()}
                for name, stored in found["weights"].items()
            }
            graphs = found["graphs"]
            whole = all(sha256(self._stage / f) == graph["sha256"] for f, graph in graphs.items())
            whole = whole and all(_holds(self._stage / n, held) for n, held in weights.items())
        except (OSError, ValueError, LookupError, TypeError, AttributeError):
            return
        if whole:
            self._graphs, self._weights = graphs, weights


def _holds(path: Path, stored: Mapping[str, tuple[int, int]]) -> bool:
    """Whether the bytes at every place are those that were written there."""
    with path.open("rb") as file:
        for digest, (start, length) in stored.items():
            file.seek(start)
            if hashlib.sha256(file.read(length)).hexdigest() != digest:
                return False
    return True
