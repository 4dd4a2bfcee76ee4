"""The configuration of a part: half a model, imported from elsewhere, waiting to be assembled.

Its checkpoint holds the tensors under the names that they have in the whole model, so assembling is
a union. Why a part is not a model with holes: docs/decisions/0008-parts-of-a-model.md.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from autoneural.config import TextConfig, VisionConfig, text_from_dict, vision_from_dict

Part = Literal["vision_encoder", "language_model"]


@dataclass(frozen=True, kw_only=True)
class PartConfig:
    """`config` describes the child `part` of a VLM: a VisionConfig or a TextConfig."""

    name: str
    config: VisionConfig | TextConfig

    @property
    def part(self) -> Part:
        return "language_model" if isinstance(self.config, TextConfig) else "vision_encoder"

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON-ready dict; the key `part` tells it from a whole model."""
        return {"name": self.name, "part": self.part, "config": asdict(self.config)}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> PartConfig:
        """Inverse of `to_dict`. Raises ValueError naming the first key that is wrong."""
        readers = {"language_model": text_from_dict, "vision_encoder": vision_from_dict}
        try:
            return cls(name=data["name"], config=readers[data["part"]](data["config"]))
        except (KeyError, TypeError) as error:
            raise ValueError(f"part config: {error}") from error
