"""Training that leaves most of a model as it is: kept features, low-rank adapters."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from autoneural.checkpoint import save_checkpoint
from autoneural.data.tokenizer import Tokenizer
from autoneural.errors import UserError
from autoneural.model.vlm import VLM
from autoneural.recipes.recipe import Recipe
from autoneural.recipes.training import Method
from autoneural.train.curriculum import Stage, longest_prefix
from autoneural.train.features import FeatureCache, check_frozen
from autoneural.train.objectives import LanguageObjective, Objective

_ADAPTED = "language_model"


def frozen_parts(
    chosen: Recipe, tokenizer: Path, *, features: Path | None = None, lora: int | None = None
) -> Method | None:
    """How to train `chosen` with visual tokens kept in `features`, with adapters of rank `lora`.

    None where neither is asked for. Raises UserError where a stage would not allow it.
    """
    if features is None and lora is None:
        return None
    if features is not None:
        for stage in chosen.stages:
            check_frozen(stage)
    if lora is not None and not any(longest_prefix(_ADAPTED, s.train) for s in chosen.stages):
        raise UserError(f"--lora {lora}: no stage of {chosen.name} trains the {_ADAPTED}")
    return _Frozen(tokenizer, features, lora).method()


class _Frozen:
    """The parts of such a method, which share the model."""

    def __init__(self, tokenizer: Path, features: Path | None, lora: int | None) -> None:
        self._tokenizer, self._features, self._lora = tokenizer, features, lora

    def method(self) -> Method:
        return Method(
            facts={} if self._lora is None else {"lora": {"rank": self._lora}},
            prepare=self._prepare,
            objective=None if self._features is None else self._objective,
            save=None if self._lora is None else self._save,
            alone=False,
        )

    def _prepare(self, model: VLM) -> None:
        self._model = model
        if self._lora is not None:
            from autoneural.train.adapters import add_adapters

            add_adapters(model, self._lora)

    def _objective(self, stage: Stage) -> Objective:
        assert self._features is not None
        cache = FeatureCache(self._features, self._model)
        return LanguageObjective(Tokenizer.load(self._tokenizer).image_id, cache.see)

    def _save(self, folder: Path, model: VLM, made: dict[str, Any]) -> None:
        from autoneural.train.adapters import merged

        save_checkpoint(folder, merged(model), model.config, self._tokenizer, made)
