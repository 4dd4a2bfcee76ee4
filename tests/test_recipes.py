import json
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from autoneural.checkpoint import load_checkpoint, weights_hash
from autoneural.data.cockpit import image_name, render, rows
from autoneural.errors import UserError
from autoneural.recipes import DataSource, Recipe, recipe, run_recipe, with_overrides
from autoneural.train.curriculum import Stage
from autoneural.train.trainer import RunOptions
from tests.conftest import TinyCheckpoint

OPTIONS = RunOptions(device="cpu", precision="fp32")


@pytest.mark.parametrize("smoke", [True, False])
def test_recipe_survives_json(smoke: bool) -> None:
    full = recipe("tiny", smoke=smoke)
    assert Recipe.from_dict(json.loads(json.dumps(full.to_dict()))) == full


def test_overrides_reach_every_level() -> None:
    changed = with_overrides(
        recipe("tiny"),
        [
            "stages=vision,domain",
            "stages.vision.steps=10",
            "stages.domain.lr.language_model.model.layers=1",
            "stages.domain.mixture.hmi=2",
            'data.chat.tasks=["hmi"]',
            "seed=7",
            "preset=vit-tiny",
        ],
    )
    vision, domain = changed.stages
    assert (vision.name, vision.steps, domain.name) == ("vision", 10, "domain")
    assert domain.lr["language_model.model.layers"] == 1.0
    assert domain.mixture["hmi"] == 2.0
    assert changed.data["chat"].tasks == ("hmi",)
    assert (changed.seed, changed.preset) == (7, "vit-tiny")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("stages.vision.step=10", "no setting 'step'"),
        ("stages.nothing.steps=10", "no stage 'nothing'; one of vision, language"),
        ("stages.vision.steps=many", "expected int, like"),
        ("stages.vision.steps=1.5", "expected int, like"),
        ("stages=vision,nothing", "no stage 'nothing'"),
        ("colour=red", "no setting 'colour'"),
        ("seed", "expected path=value"),
        ("stages.vision.steps=0", "steps: must be at least 1"),
        ("stages=3", "no stage '3'"),
    ],
)
def test_wrong_overrides_are_explained(override: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        with_overrides(recipe("tiny"), [override])


def test_unknown_names_are_refused() -> None:
    with pytest.raises(UserError, match="no recipe 'huge'; one of tiny"):
        recipe("huge")
    data = recipe("tiny").to_dict()
    data["stages"] = [{"name": "s", "train": [], "speed": 1}]
    with pytest.raises(UserError, match=r"stages\.s\.speed: no such setting"):
        Recipe.from_dict(data)


@pytest.fixture(scope="module")
def cockpit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight fatigue pictures."""
    folder = tmp_path_factory.mktemp("cockpit")
    (folder / "images").mkdir()
    lines: list[str] = []
    for row, scenes in rows("fatigue", "train", 0, 8):
        for scene in scenes:
            Image.fromarray(render(scene, 64)).save(folder / image_name(scene))
        lines.append(json.dumps(row) + "\n")
    (folder / "train.jsonl").write_text("".join(lines))
    return folder


def _language_stage(name: str, source: str) -> Stage:
    return Stage(
        name=name,
        train=("projector",),
        mixture={source: 1.0},
        steps=2,
        batch_size=2,
        lr={"projector": 1e-3},
    )


SMALL = Recipe(
    name="small",
    preset="cockpit-tiny",
    data={"captions": DataSource(form="caption"), "chat": DataSource()},
    stages=(_language_stage("align", "captions"), _language_stage("domain", "chat")),
)


def test_run_writes_a_checkpoint_that_says_what_made_it(
    tiny_checkpoint: TinyCheckpoint, cockpit: Path, tmp_path: Path
) -> None:
    def run(chosen: Recipe, minutes: float | None = None) -> bool:
        return run_recipe(
            chosen,
            data=cockpit,
            tokenizer=tiny_checkpoint.folder,
            run=tmp_path / "run",
            output=tmp_path / "out",
            start=tiny_checkpoint.folder,
            options=replace(OPTIONS, minutes=minutes),
        ).finished

    assert not run(SMALL, minutes=1e-9)
    assert not (tmp_path / "out").exists()
    with pytest.raises(UserError, match=r"holds another run \(recipe\.stages\.align\.steps was 2"):
        run(with_overrides(SMALL, ["stages.align.steps=3"]))
    later = with_overrides(SMALL, ["stages.domain.steps=3"])
    assert run(later)
    config, _, made, _ = load_checkpoint(tmp_path / "out")
    assert config == tiny_checkpoint.model.config
    assert made["recipe"] == later.to_dict()
    assert made["parent"] == weights_hash(tiny_checkpoint.folder)
    assert made["licences"] == {"weights": "CC0-1.0"}
    assert made["rows"]["chat"] == 8
    assert [made["stages"][name]["steps"] for name in ("align", "domain")] == [2, 3]
    assert weights_hash(tmp_path / "run" / "after-domain") == weights_hash(tmp_path / "out")
    assert weights_hash(tmp_path / "run" / "after-align") != weights_hash(tmp_path / "out")
