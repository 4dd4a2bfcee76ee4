"""Two parts and a new connector: a model that loads, sees, speaks, and says what it is made of."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from autoneural import cli
from autoneural.checkpoint import load_checkpoint, load_weights
from autoneural.config import preset
from autoneural.data.tokenizer import Tokenizer, default_chat_template
from autoneural.hub.assemble import CONNECTOR_WIDTH
from autoneural.hub.importers import import_folder
from autoneural.model.vlm import VLM, num_parameters
from autoneural.show import facts


def run(vision: Path, language: Path, out: Path, *more: str) -> int:
    argv = ["assemble", "--vision", str(vision), "--language", str(language), "-o", str(out)]
    return cli.main([*argv, "--connector", "24", *more])


@pytest.fixture
def made(lfm2: SimpleNamespace, timm_encoder: SimpleNamespace, tmp_path: Path) -> Path:
    out = tmp_path / "made"
    assert run(timm_encoder.folder, lfm2.folder, out) == 0
    return out


def test_the_parts_are_in_it_bit_for_bit(made: Path, lfm2, timm_encoder) -> None:
    config, tensors, recipe, encodings = load_checkpoint(made)
    assert config.vision == timm_encoder.config
    assert config.text.intermediate_size == 104
    assert config.projector.hidden_size == 24
    assert encodings is None
    for name, tensor in timm_encoder.model.state_dict().items():
        assert torch.equal(tensors[f"vision_encoder.{name}"], tensor)
    for name, tensor in lfm2.model.state_dict().items():
        if name != "lm_head.weight":
            assert torch.equal(tensors[f"language_model.{name}"], tensor)
    assert recipe["seed"] == 0
    assert {part: s["name"] for part, s in recipe["parts"].items()} == {
        "vision_encoder": "timm",
        "language_model": "sharded",
    }


@torch.no_grad()
def test_it_answers_a_picture(made: Path) -> None:
    checkpoint = load_checkpoint(made)
    model = VLM(checkpoint.config).eval()
    load_weights(model, checkpoint.state_dict, made)
    words = Tokenizer.load(made)
    text = words.apply_chat_template(
        [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "what?"}]}]
    )
    images = [words.image_id] * model.config.vision.num_tokens
    ids = [j for i in words.encode(text) for j in (images if i == words.image_id else [i])]
    pictures = [torch.rand(1, 3, 64, 64), torch.zeros(1, 3, 64, 64)]
    logits = [model(torch.tensor([ids]), p, words.image_id)[0, -1] for p in pictures]
    assert logits[0].isfinite().all()
    assert not torch.equal(*logits)


def test_the_template_is_ours_and_reads_text_as_the_models_own(made: Path, lfm2) -> None:
    words = Tokenizer.load(made)
    assert (made / "chat_template.jinja").read_text() == default_chat_template()
    turns = [("system", "Be brief."), ("user", "Why?"), ("assistant", "So."), ("user", "And?")]
    plain = [{"role": role, "content": text} for role, text in turns]
    parts = [{"role": r, "content": [{"type": "text", "text": t}]} for r, t in turns]
    expected = lfm2.tokenizer.apply_chat_template(plain, tokenize=False, add_generation_prompt=True)
    assert words.apply_chat_template(parts) == expected


def test_licences_are_shown(made: Path, capsys) -> None:
    capsys.readouterr()
    assert cli.main(["show", str(made)]) == 0
    shown = capsys.readouterr().out
    assert "  vision_encoder: gemma" in shown
    assert "  language_model: lfm1.0" in shown
    assert facts(str(made))["licences"]["weights"] == "gemma and lfm1.0"


def test_the_seed_decides_the_connector(made: Path, lfm2, timm_encoder, tmp_path: Path) -> None:
    def connector(folder: Path) -> torch.Tensor:
        return load_checkpoint(folder).state_dict["projector.linear_1.weight"]

    torch.manual_seed(99)
    assert run(timm_encoder.folder, lfm2.folder, tmp_path / "same") == 0
    assert run(timm_encoder.folder, lfm2.folder, tmp_path / "other", "--seed", "1") == 0
    assert torch.equal(connector(made), connector(tmp_path / "same"))
    assert not torch.equal(connector(made), connector(tmp_path / "other"))


def test_imported_parts_make_the_same_model(made: Path, lfm2, timm_encoder, tmp_path) -> None:
    import_folder(str(timm_encoder.folder), tmp_path / "see")
    import_folder(str(lfm2.folder), tmp_path / "talk")
    assert run(tmp_path / "see", tmp_path / "talk", tmp_path / "again") == 0
    first, again = load_checkpoint(made), load_checkpoint(tmp_path / "again")
    assert first.recipe == again.recipe
    assert all(torch.equal(first.state_dict[k], v) for k, v in again.state_dict.items())
    assert (made / "tokenizer.json").read_bytes() == (
        tmp_path / "again/tokenizer.json"
    ).read_bytes()


def test_the_other_half_is_refused(lfm2, timm_encoder, tiny_checkpoint, tmp_path, capsys) -> None:
    see, talk, out = timm_encoder.folder, lfm2.folder, tmp_path / "made"
    assert run(talk, see, out) == 2
    assert "is a language_model; --vision needs a vision_encoder" in capsys.readouterr().err
    assert run(see, see, out) == 2
    assert "is a vision_encoder; --language needs a language_model" in capsys.readouterr().err
    assert run(see, tiny_checkpoint.folder, out) == 2
    assert "is a whole model" in capsys.readouterr().err
    assert not out.exists()


def test_a_damaged_part_is_refused(lfm2, timm_encoder, tmp_path: Path, capsys) -> None:
    import_folder(str(lfm2.folder), tmp_path / "talk")
    config = json.loads((tmp_path / "talk/config.json").read_text())
    config["config"]["hidden_size"] = 64
    (tmp_path / "talk/config.json").write_text(json.dumps(config))
    assert run(timm_encoder.folder, tmp_path / "talk", tmp_path / "made") == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "has the shape" in error
    assert not (tmp_path / "made").exists()


def test_published_parts_make_the_paper_s_size() -> None:
    paper = preset("autoneural-1.5b")
    assert paper.projector.hidden_size == CONNECTOR_WIDTH
    with torch.device("meta"):
        # 1.47B in the paper: 294.1M of vision, 1,170.3M of language, 8.4M between them.
        assert num_parameters(VLM(paper)) == 294_126_912 + 1_170_340_608 + 8_392_704
