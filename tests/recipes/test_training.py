import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from autoneural.checkpoint import load_checkpoint, weights_hash
from autoneural.config import preset
from autoneural.errors import UserError
from autoneural.model.vlm import VLM
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
        ("stages.general.mixture.captions=0", "mixture: needs sources with positive weights"),
        ("stages.vision.objective=vison", "objective: 'vison' is not language or vision"),
        ("stages=3", "no stage '3'"),
    ],
)
def test_wrong_overrides_are_explained(override: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        with_overrides(recipe("tiny"), [override])


def test_the_twin_differs_in_its_encoder_alone() -> None:
    ours, twin = (recipe(name).to_dict() for name in ("tiny", "tiny-vit"))
    assert {key for key in ours if ours[key] != twin[key]} == {"name", "preset"}
    models = [VLM(preset(sides["preset"])) for sides in (ours, twin)]
    weights = [sum(p.numel() for p in m.parameters()) for m in models]
    encoders = [sum(p.numel() for p in m.vision_encoder.parameters()) for m in models]
    assert weights[1] == pytest.approx(weights[0], rel=0.01)
    assert encoders[1] == pytest.approx(encoders[0], rel=0.05)
    tokens = [m.config.vision.num_tokens for m in models]
    assert tokens[0] == tokens[1]


def test_the_twin_learns_by_both_objectives(
    tiny_checkpoint: TinyCheckpoint, cockpit: Path, tmp_path: Path
) -> None:
    full = recipe("tiny-vit")
    stages = [stage for stage in full.stages if stage.name in ("vision", "domain")]
    short = replace(
        full,
        data={"all": DataSource()},
        stages=tuple(replace(s, mixture={"all": 1.0}, steps=1, batch_size=2) for s in stages),
    )
    assert run_small(short, cockpit, tmp_path, tokenizer=tiny_checkpoint.folder)
    made = load_checkpoint(tmp_path / "out")
    assert made.config.vision.type == "vit"
    assert all(result["steps"] == 1 for result in made.recipe["stages"].values())


def test_unknown_names_are_refused() -> None:
    with pytest.raises(UserError, match="no recipe 'huge'; one of tiny, tiny-vit, connector"):
        recipe("huge")
    data = recipe("tiny").to_dict()
    data["stages"] = [{"name": "s", "train": [], "speed": 1}]
    with pytest.raises(UserError, match=r"stages\.s\.speed: no such setting"):
        Recipe.from_dict(data)


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


def run_small(chosen: Recipe, cockpit: Path, folder: Path, **arguments: Any) -> bool:
    names = {"tokenizer": folder / "tokenizer", "run": folder / "run", "output": folder / "out"}
    return run_recipe(chosen, data=cockpit, **{"options": OPTIONS, **names, **arguments}).finished


def test_training_starts_from_a_name_in_the_clone(
    tiny_checkpoint: TinyCheckpoint,
    cockpit: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        "autoneural.checkpoint.SHIPPED", tiny_checkpoint.folder.parent, raising=True
    )
    start, words = tiny_checkpoint.folder.name, tiny_checkpoint.folder
    assert run_small(SMALL, cockpit, tmp_path, start=start, tokenizer=words)
    with pytest.raises(UserError, match="nowhere: no such checkpoint folder"):
        run_small(SMALL, cockpit, tmp_path, start="nowhere", tokenizer=words)


def test_a_part_begins_anew_under_the_rest_of_a_model(
    tiny_checkpoint: TinyCheckpoint, cockpit: Path, tmp_path: Path
) -> None:
    words, start = tiny_checkpoint.folder, tiny_checkpoint.folder
    domain = replace(SMALL.stages[1], steps=1, lr={"projector": 1e-9}, weight_decay=0.0)
    twin = replace(
        SMALL, preset="vit-tiny", stages=(domain,), fresh=("vision_encoder", "projector")
    )
    assert run_small(twin, cockpit, tmp_path, tokenizer=words, start=start)
    made, begun = load_checkpoint(tmp_path / "out"), load_checkpoint(start)
    assert (made.config.name, made.config.vision.type) == ("vit-tiny", "vit")
    assert made.config.text == begun.config.text
    name = "language_model.model.layers.0.feed_forward.w1.weight"
    assert made.state_dict[name].equal(begun.state_dict[name])
    with pytest.raises(UserError, match="fresh: no part 'eyes'; one of vision_encoder, projector"):
        run_small(
            replace(twin, fresh=("eyes",)), cockpit, tmp_path / "a", tokenizer=words, start=start
        )
    alone = replace(twin, fresh=("vision_encoder",))
    with pytest.raises(UserError, match=r"projector\.linear_1\.weight"):
        run_small(alone, cockpit, tmp_path / "b", tokenizer=words, start=start)


def test_what_would_fail_at_the_end_fails_at_the_start(
    tiny_checkpoint: TinyCheckpoint, cockpit: Path, tmp_path: Path
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a.txt").touch()
    words = tiny_checkpoint.folder
    with pytest.raises(UserError, match=r"holds a\.txt, so it is no checkpoint"):
        run_small(SMALL, cockpit, tmp_path, tokenizer=words)
    domain = replace(SMALL.stages[1], lr={"projector.linear_1": 1e-3})
    uncovered = replace(SMALL, stages=(SMALL.stages[0], domain))
    with pytest.raises(UserError, match=r"stage domain: lr: no prefix covers projector\.linear_2"):
        run_small(uncovered, cockpit, tmp_path, tokenizer=words, output=tmp_path / "other")
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


def test_other_data_is_another_run(
    tiny_checkpoint: TinyCheckpoint, cockpit: Path, tmp_path: Path
) -> None:
    words = tiny_checkpoint.folder
    options = replace(OPTIONS, minutes=1e-9)
    assert not run_small(SMALL, cockpit, tmp_path, tokenizer=words, options=options)
    other = tmp_path / "other"
    shutil.copytree(cockpit, other)
    path = other / "train.jsonl"
    path.write_text(path.read_text().replace("Is there", "Do you see"))
    with pytest.raises(UserError, match=r"holds another run \(files\.captions was"):
        run_small(SMALL, other, tmp_path, tokenizer=words)
    with pytest.raises(UserError, match=r"holds another run \("):
        run_small(
            with_overrides(SMALL, ["stages=domain,align"]), cockpit, tmp_path, tokenizer=words
        )
    (tmp_path / "run" / "run.json").write_text("{")
    with pytest.raises(UserError, match=r"run\.json: damaged"):
        run_small(SMALL, cockpit, tmp_path, tokenizer=words)
