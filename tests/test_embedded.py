"""What ships in the package: small enough, whole, and a model that answers."""

from __future__ import annotations

from autoneural.bench.answer_bundle import EngineAnswerer
from autoneural.bench.held_out import held_out, trained_tasks
from autoneural.bench.quality import evaluate
from autoneural.bundle import DEFAULT_BUNDLE, Bundle
from autoneural.runtime import Engine

LIMIT = 16 * 2**20


def test_the_embedded_bundle_is_small_and_has_both_targets() -> None:
    bundle = Bundle.load(DEFAULT_BUNDLE)
    files = [path for path in bundle.folder.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= LIMIT
    assert {"cpu", "qdq"} <= set(bundle.targets)
    assert bundle.manifest["licences"] == {"weights": "Apache-2.0"}


def test_the_embedded_model_sees() -> None:
    # A guard, not the figure: that is `autoneural eval` over a thousand questions per task.
    answerer = EngineAnswerer(Engine(DEFAULT_BUNDLE, "cpu"))
    known = trained_tasks(Bundle.load(DEFAULT_BUNDLE).manifest["recipe"])
    report, _ = evaluate(answerer, held_out(known, 60, seed=2))
    assert report["tasks"]
    for name, task in report["tasks"].items():
        assert task["accuracy"] > 0.5, name
        assert task["accuracy"] - task["blind"] > 0.2, name
