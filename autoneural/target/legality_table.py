"""The oracle's answers on disk: which probes a chip's compiler accepted, and why not the others.

One JSON file, one probe per line:

    {"format": 1,
     "compilers": {"39": {"compiler": "QNN 2.51.0 (...)", "date": "2026-11-21"}, ...},
     "probes": [
      {"op": "MatMul", "variant": "", "rank": 3, "precision": "w16a16",
       "accepted": [43, ...], "refused": {"the compiler's reason": [39, ...]}},
      ...]}

Numbers are soc_models. `legality.json` beside this file is shipped; `autoneural oracle --refresh`
writes one per soc_model to the user's cache, which then comes before it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from autoneural.errors import UserError
from autoneural.files import cache_folder, write_text

SHIPPED = Path(__file__).with_name("legality.json")
_FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class Probe:
    """One question to the compiler: an operator in a form (variant, rank) and a precision.

    The words are those of `autoneural.npu.uses` and `autoneural.target.precision`.
    """

    op: str
    variant: str
    rank: int
    precision: str


@dataclass(frozen=True, kw_only=True)
class Table:
    """What one compiler says of one chip: probe -> "" where accepted, else the reason.

    `source` is the file it was read from.
    """

    soc_model: int
    compiler: str
    date: str
    source: Path
    answers: Mapping[Probe, str]

    @cached_property
    def by_op(self) -> dict[str, list[Probe]]:
        """The probes of each operator, in the order they were asked."""
        found: dict[str, list[Probe]] = {}
        for probe in self.answers:
            found.setdefault(probe.op, []).append(probe)
        return found


def user_file(soc_model: int, suffix: str = ".json") -> Path:
    """Where `oracle --refresh` keeps its own table of a chip, in the user's cache folder."""
    return cache_folder() / f"legality-{soc_model}{suffix}"


def load_table(soc_model: int) -> Table:
    """The user's table of this chip where there is one, else the shipped one.

    Raises UserError where the file is damaged or holds nothing about the chip.
    """
    own = user_file(soc_model)
    path = own if own.is_file() else SHIPPED
    tables = read_tables(path)
    if soc_model not in tables:
        raise UserError(f"{path}: nothing about soc_model {soc_model}; `autoneural oracle` probes")
    return tables[soc_model]


def read_tables(path: Path) -> dict[int, Table]:
    """Every table of a file, by soc_model. Raises UserError where it cannot be read."""
    try:
        return _read(path, path.stat().st_mtime_ns)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}") from error


def write_tables(path: Path, tables: Iterable[Table]) -> None:
    """Write the tables to one file, whole or not at all; the order of the first table is kept."""
    tables = sorted(tables, key=lambda table: table.soc_model)
    heads = {str(t.soc_model): {"compiler": t.compiler, "date": t.date} for t in tables}
    probes = dict.fromkeys(probe for table in tables for probe in table.answers)
    lines = ",\n".join(f"  {json.dumps(_row(probe, tables))}" for probe in probes)
    compilers = ",\n".join(f"  {json.dumps(k)}: {json.dumps(v)}" for k, v in heads.items())
    text = f'{{"format": {_FORMAT},\n "compilers": {{\n{compilers}}},\n "probes": [\n{lines}]}}\n'
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, text)


def _row(probe: Probe, tables: Iterable[Table]) -> dict[str, Any]:
    accepted: list[int] = []
    refused: dict[str, list[int]] = {}
    for table in tables:
        reason = table.answers.get(probe)
        if reason is not None:
            (refused.setdefault(reason, []) if reason else accepted).append(table.soc_model)
    row: dict[str, Any] = {**vars(probe), "accepted": accepted}
    return {**row, "refused": refused} if refused else row


@lru_cache(maxsize=32)
def _read(path: Path, changed: int) -> dict[int, Table]:
    """`changed` is part of the key, so that a file written anew is read anew."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if found["format"] != _FORMAT:
            raise ValueError(f"format {found['format']}")
        answers = _answers(found["probes"])
        return {
            int(soc): Table(soc_model=int(soc), **head, source=path, answers=answers[int(soc)])
            for soc, head in found["compilers"].items()
        }
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{path}: not a legality table of this version ({error}); delete it, or write it anew "
            "with `autoneural oracle --refresh`"
        ) from error


def _answers(rows: Iterable[dict[str, Any]]) -> dict[int, dict[Probe, str]]:
    found: dict[int, dict[Probe, str]] = {}
    for row in rows:
        probe = Probe(**{name: row[name] for name in ("op", "variant", "rank", "precision")})
        for soc in row["accepted"]:
            found.setdefault(soc, {})[probe] = ""
        for reason, socs in row.get("refused", {}).items():
            for soc in socs:
                found.setdefault(soc, {})[probe] = reason
    return found
