"""What a frozen encoder makes of a picture, kept on disk, so that it looks at each picture once.

    FOLDER/<encoder>/<ab>/<picture>.safetensors    tokens [N,C], with a digest in the header

<picture> is a digest of the pixels after preprocessing, so a picture that was changed or prepared
in another way is another one; <encoder> one of the encoder's configuration, weights and arithmetic.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from autoneural.errors import UserError
from autoneural.files import writable_folder
from autoneural.model.vlm import VLM, VisualTokens
from autoneural.train.curriculum import Stage, longest_prefix
from autoneural.train.progress import say


class FeatureCache:
    """The visual tokens of pictures by `model`'s encoder, which must not train meanwhile.

    A file that is damaged is made again, with one line. Several processes may share a folder.
    """

    def __init__(
        self, folder: Path, model: VLM, tell: Callable[[str], object] | None = None
    ) -> None:
        self._folder = writable_folder(folder, folder)
        self._model, self._tell = model, tell or say
        self._encoder = _encoder_digest(model)

    @torch.no_grad()
    def see(self, pixels_BCHW: Tensor) -> VisualTokens:
        """uint8 [B,3,S,S] -> visual tokens [B,N,C] on the same device."""
        folder = self._folder / f"{self._encoder}-{_arithmetic(pixels_BCHW.device)}"
        paths = [_place(folder, pixels_CHW) for pixels_CHW in pixels_BCHW]
        tokens = {path: self._read(path) for path in paths}
        new = {path: i for i, path in enumerate(paths) if tokens[path] is None}
        if new:
            made_BNC = self._encode(pixels_BCHW[list(new.values())]).tokens_BNC.cpu()
            for path, tokens_NC in zip(new, made_BNC, strict=True):
                _write(path, tokens_NC)
                tokens[path] = tokens_NC
        kept = [tensor for path in paths if (tensor := tokens[path]) is not None]
        if not kept:
            return self._encode(pixels_BCHW)
        return VisualTokens(torch.stack(kept).to(pixels_BCHW.device))

    def _encode(self, pixels_BCHW: Tensor) -> VisualTokens:
        # Where weights are spread over processes, the whole encoder is still on the CPU.
        self._model.vision_encoder.to(pixels_BCHW.device)
        return self._model.encode(pixels_BCHW)

    def _read(self, path: Path) -> Tensor | None:
        """The tokens of a file; None where there is none, or, after a line, where it is damaged."""
        if not path.is_file():
            return None
        try:
            with safe_open(path, framework="pt") as file:
                tokens_NC, digest = file.get_tensor("tokens"), (file.metadata() or {})["digest"]
        except (SafetensorError, OSError, KeyError):
            digest = tokens_NC = None
        if tokens_NC is None or digest != _digest(tokens_NC):
            self._tell(f"features: {path}: damaged, made again")
            return None
        return tokens_NC


def check_frozen(stage: Stage) -> None:
    """UserError where features cannot be kept: the encoder trains, or pictures change each time."""
    trains = any(longest_prefix(p, ["vision_encoder"]) for p in stage.train)
    if trains or stage.objective == "vision":
        raise UserError(f"features: stage {stage.name} trains the vision encoder; none can be kept")
    if stage.jitter:
        setting = f"--set stages.{stage.name}.jitter=0"
        raise UserError(f"features: stage {stage.name} changes every picture; {setting}")


def _place(folder: Path, pixels_CHW: Tensor) -> Path:
    name = hashlib.sha256(f"{list(pixels_CHW.shape)}".encode() + _bytes(pixels_CHW)).hexdigest()
    return folder / name[:2] / f"{name}.safetensors"


def _write(path: Path, tokens_NC: Tensor) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file({"tokens": tokens_NC.clone()}, temporary, metadata={"digest": _digest(tokens_NC)})
        # Not flushed: what a crash leaves behind has the wrong digest and is made again.
        os.replace(temporary, path)
    except (SafetensorError, OSError) as error:
        raise UserError(f"features: {path}: cannot be written ({error})") from error
    finally:
        temporary.unlink(missing_ok=True)


def _encoder_digest(model: VLM) -> str:
    digest = hashlib.sha256(json.dumps(model.config.to_dict()["vision"], sort_keys=True).encode())
    for name, tensor in model.vision_encoder.state_dict().items():
        digest.update(f"{name} {tensor.dtype}".encode())
        digest.update(_bytes(tensor))
    return digest.hexdigest()[:32]


def _arithmetic(device: torch.device) -> str:
    half = torch.is_autocast_enabled(device.type)
    return str(torch.get_autocast_dtype(device.type) if half else torch.float32).split(".")[1]


def _digest(tensor: Tensor) -> str:
    return hashlib.sha256(f"{tensor.shape}".encode() + _bytes(tensor)).hexdigest()


def _bytes(tensor: Tensor) -> bytes:
    return tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes()
