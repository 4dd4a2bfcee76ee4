"""A folder with a model as others publish it, read without trust. Torch-free.

Only safetensors, JSON, the chat template and the model card are opened, never code or pickles.
Sizes are bounded before anything is parsed, and no link or index leads out of the folder.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from autoneural.errors import UserError

CONFIG, CARD = "config.json", "README.md"
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
_MEGA = 1_000_000
# Published ones are a tenth of this at most.
_LIMITS = {"tokenizer.json": 100 * _MEGA, INDEX: 20 * _MEGA}
_HEADER_LIMIT = 20 * _MEGA
NOT_STATED = "not stated"


class WeightFiles(NamedTuple):
    """The safetensors files of a model; `index` (tensor -> file name) where there are several."""

    files: tuple[Path, ...]
    index: dict[str, str] | None


class ModelFolder:
    """A model's folder: plain, or a snapshot in the cache of huggingface_hub."""

    def __init__(self, folder: Path) -> None:
        self.path = folder
        self._roots = [folder.resolve()]
        self.repo: str | None = None
        self.revision: str | None = None
        repo = folder.resolve().parent.parent
        if folder.resolve().parent.name == "snapshots" and repo.name.startswith("models--"):
            # There the files of a snapshot are links to the repository's blobs, or to shared ones.
            self._roots += [repo / "blobs", repo.parent / "blobs"]
            self.repo = repo.name.removeprefix("models--").replace("--", "/")
            self.revision = folder.resolve().name

    @property
    def title(self) -> str:
        """A name for the model: the repository's, or the folder's."""
        return self.repo.split("/")[-1] if self.repo else self.path.resolve().name

    def find(self, name: str) -> Path | None:
        """The file `name`, None where there is none. UserError where it is a link out of here."""
        path = self.path / name
        if not path.is_symlink() and not path.exists():
            return None
        target = path.resolve()
        if not any(target.is_relative_to(root) for root in self._roots):
            raise UserError(f"{path}: is a link out of its folder; put the file itself there")
        if not target.is_file():
            raise UserError(f"{path}: is not a file; download it again")
        return path

    def text(self, name: str) -> str | None:
        """A small text file, None where there is none."""
        path = self.find(name)
        if path is None:
            return None
        limit = _LIMITS.get(name, _MEGA)
        if path.stat().st_size > limit:
            raise UserError(f"{path}: larger than {limit // _MEGA} MB, which no such file is")
        try:
            return path.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise UserError(f"{path}: not UTF-8 ({error.reason})") from error

    def json(self, name: str) -> dict[str, Any] | None:
        """A JSON object, None where there is no such file. UserError where it is not one."""
        text = self.text(name)
        if text is None:
            return None
        try:
            data = json.loads(text, parse_constant=_no_constant)
        except (ValueError, RecursionError) as error:
            reason = "nested too deeply" if isinstance(error, RecursionError) else error
            raise UserError(f"{self.path / name}: damaged ({reason})") from error
        if not isinstance(data, dict):
            raise UserError(f"{self.path / name}: damaged (not a JSON object)")
        return data

    def config(self) -> dict[str, Any]:
        """config.json."""
        data = self.json(CONFIG)
        if data is None:
            raise UserError(f"{self.path}: holds no {CONFIG}, so it is not a model's folder")
        return data

    def weights(self) -> WeightFiles:
        """The weight files, each within the folder and plausible from its first bytes."""
        single, index = self.find(WEIGHTS), self.json(INDEX)
        if single is not None:
            found = WeightFiles((single,), None)
        elif index is not None:
            found = self._shards(index)
        else:
            self._refuse_without_weights()
        for file in found.files:
            _check_header(file)
        return found

    def licence(self) -> str:
        """The short name of the licence, from the model card or from timm's config.json."""
        card, timm = _front_matter(self.text(CARD) or ""), self.config().get("pretrained_cfg")
        named = [card.get("license"), timm.get("license") if isinstance(timm, dict) else None]
        if named[0] == "other":  # the hub's word for a licence that it has no tag for
            named.insert(0, card.get("license_name"))
        return next((name for name in named if isinstance(name, str) and name), NOT_STATED)

    def _shards(self, index: dict[str, Any]) -> WeightFiles:
        path, table = self.path / INDEX, index.get("weight_map")
        if not isinstance(table, dict) or not table:
            raise UserError(f"{path}: damaged (no weight_map)")
        for tensor, file in table.items():
            if not isinstance(file, str) or not file.endswith(".safetensors"):
                raise UserError(f"{path}: {tensor} is in {file!r}, which is not safetensors")
            if Path(file).name != file or "\\" in file:
                raise UserError(f"{path}: {tensor} is in {file!r}, outside of the folder")
        files = {name: self.find(name) for name in sorted(set(table.values()))}
        for name, file in files.items():
            if file is None:
                raise UserError(f"{self.path}: {name}, named by its index, is missing; pull again")
        return WeightFiles(tuple(f for f in files.values() if f is not None), table)

    def _refuse_without_weights(self) -> NoReturn:
        pickles = sorted(p.name for p in self.path.iterdir() if p.suffix in _PICKLES)
        if pickles:
            raise UserError(
                f"{self.path}: its weights are pickled ({pickles[0]}), which can run code; "
                f"only safetensors are read"
            )
        raise UserError(f"{self.path}: holds neither {WEIGHTS} nor {INDEX}")


def _no_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is not JSON")


def _check_header(path: Path) -> None:
    """The length that a safetensors file begins with, before a parser allocates it."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
    size = path.stat().st_size
    if length + 8 > size:
        raise UserError(f"{path}: damaged or not safetensors (ends within its header)")
    if length > _HEADER_LIMIT:
        raise UserError(f"{path}: its header is larger than {_HEADER_LIMIT // _MEGA} MB")


def _front_matter(card: str) -> dict[str, str]:
    """The plain `key: value` lines between the two `---` that a model card may begin with."""
    head, *rest = card.replace("\r\n", "\n").split("\n---", 1)
    if not head.startswith("---") or not rest:
        return {}
    pairs = (line.partition(":") for line in head.splitlines()[1:] if not line.startswith(" "))
    return {key.strip(): value.strip().strip("\"'") for key, found, value in pairs if found}
