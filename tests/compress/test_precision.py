"""Rules and ties on module paths."""

import pytest

from autoneural.compress.precision import PRECISIONS, Rule, bits_for, tie_groups


def test_first_matching_rule_decides() -> None:
    rules = (Rule("a.*.norm", None), Rule("a.*", 4), Rule("*", 8))
    assert bits_for(rules, "a.0.norm") is None
    assert bits_for(rules, "a.0.w1") == 4
    assert bits_for(rules, "b") == 8
    assert bits_for(rules[:2], "b") is None


def test_ties_are_per_layer() -> None:
    paths = ["m.0.k", "m.0.keys", "m.1.k", "m.1.keys", "m.2.k", "out", "mx0.k"]
    groups = tie_groups([("m.{layer}.k", "m.{layer}.keys"), ("out", "in")], paths)
    assert groups == [["m.0.k", "m.0.keys"], ["m.1.k", "m.1.keys"]]


@pytest.mark.parametrize(
    ("path", "bits"),
    [
        ("vision_encoder.blocks.0.0.conv_exp", 8),
        ("projector.linear_1", 8),
        ("language_model.model.embed_tokens", 8),
        ("language_model.model.layers.0.conv.conv", 8),
        ("language_model.model.layers.0.conv.in_proj", 4),
        ("language_model.model.layers.11.feed_forward.w2", 4),
        ("vision_encoder.embeddings.position_embedding", 16),
    ],
)
def test_default_recipe(path: str, bits: int) -> None:
    assert bits_for(PRECISIONS["w4a16"].weights, path) == bits
