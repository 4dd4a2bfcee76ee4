"""Our decoder is transformers' LFM2, and cached decoding is the full forward."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from transformers import Lfm2Config, Lfm2ForCausalLM

from autoneural.config import TextConfig, preset
from autoneural.model.language_model import LanguageModel, causal_mask, rotary_tables
from autoneural.model.state import DecoderState
from autoneural.model.vlm import num_parameters

CONFIGS = {
    "grouped": TextConfig(
        hidden_size=64,
        intermediate_size=96,
        layer_types=("conv", "full_attention", "conv", "full_attention"),
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        vocab_size=128,
    ),
    "wide-conv": TextConfig(
        hidden_size=32,
        intermediate_size=64,
        layer_types=("full_attention", "conv", "conv"),
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=16,
        conv_L_cache=4,
        rope_theta=10_000.0,
        vocab_size=96,
    ),
}


def reference_config(config: TextConfig) -> Lfm2Config:
    return Lfm2Config(
        vocab_size=config.vocab_size,
        hidden_size=config.hidden_size,
        intermediate_size=config.intermediate_size,
        num_hidden_layers=config.num_hidden_layers,
        num_attention_heads=config.num_attention_heads,
        num_key_value_heads=config.num_key_value_heads,
        conv_L_cache=config.conv_L_cache,
        norm_eps=config.norm_eps,
        rope_parameters={"rope_type": "default", "rope_theta": config.rope_theta},
        layer_types=list(config.layer_types),
        block_auto_adjust_ff_dim=False,
        tie_word_embeddings=True,
    )


def random_model(config: TextConfig) -> LanguageModel:
    """Weights large enough for attention to be far from uniform; norms away from one."""
    torch.manual_seed(0)
    model = LanguageModel(config).eval()
    for parameter in model.parameters():
        if parameter.ndim == 1:
            torch.nn.init.uniform_(parameter, 0.5, 3.0)
    return model


def relative_error(actual: Tensor, expected: Tensor) -> float:
    return float((actual - expected).norm() / expected.norm())


def embed(model: LanguageModel, ids_BT: Tensor) -> Tensor:
    return model.model.embed_tokens(ids_BT)


@pytest.fixture(params=CONFIGS.values(), ids=list(CONFIGS))
def model(request: pytest.FixtureRequest) -> LanguageModel:
    return random_model(request.param)


@torch.no_grad()
def test_logits_equal_transformers_whole_and_step_by_step(model: LanguageModel) -> None:
    reference = Lfm2ForCausalLM(reference_config(model.config)).eval()
    reference.load_state_dict({**model.state_dict(), "lm_head.weight": model.lm_head.weight})
    ids = torch.randint(0, model.config.vocab_size, (2, 12))
    expected = reference(ids).logits
    assert relative_error(model.lm_head(model(embed(model, ids))), expected) < 1e-4

    state, cache, steps, theirs = DecoderState.zeros(model.config, 2, 16), None, [], []
    for position in range(ids.shape[1]):
        token = ids[:, position : position + 1]
        steps.append(model.lm_head(model.extend(embed(model, token), state, position, 1)))
        output = reference(token, past_key_values=cache, use_cache=True)
        cache = output.past_key_values
        theirs.append(output.logits)
    assert relative_error(torch.cat(steps, 1), torch.cat(theirs, 1)) < 1e-4
    assert relative_error(torch.cat(steps, 1), expected) < 1e-4


@pytest.mark.parametrize(
    ("name", "parameters"),
    [("autoneural-1.5b", 1_170_340_608), ("autoneural-0.6b", 354_483_968)],
)
def test_full_size_has_transformers_names_and_shapes(name: str, parameters: int) -> None:
    config = preset(name).text
    with torch.device("meta"):
        ours = LanguageModel(config)
        theirs = Lfm2ForCausalLM(reference_config(config))
    expected = {key: tensor.shape for key, tensor in theirs.state_dict().items()}
    del expected["lm_head.weight"]
    assert {key: tensor.shape for key, tensor in ours.state_dict().items()} == expected
    assert num_parameters(ours) == parameters


@pytest.mark.parametrize("with_head", [False, True], ids=["tied", "head-too"])
@pytest.mark.parametrize("assign", [False, True], ids=["copy", "assign"])
def test_head_stays_tied_after_loading(with_head: bool, assign: bool) -> None:
    source, target = random_model(CONFIGS["grouped"]), LanguageModel(CONFIGS["grouped"])
    tensors = source.state_dict()
    assert "lm_head.weight" not in tensors
    if with_head:
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"]
    target.load_state_dict(tensors, assign=assign)
    assert target.lm_head.weight is target.model.embed_tokens.weight
    assert torch.equal(target.lm_head.weight, source.lm_head.weight)


@torch.no_grad()
@pytest.mark.parametrize("width", [1, 3, 5, 8])
def test_padded_chunks_equal_one_prefill(model: LanguageModel, width: int) -> None:
    length = 11
    embeds = embed(model, torch.randint(0, model.config.vocab_size, (2, length)))
    whole = DecoderState.zeros(model.config, 2, 32)
    expected = model.extend(embeds, whole, 0, length)
    chunked = DecoderState.zeros(model.config, 2, 32)
    for buffer in (t for layer in chunked.layers if len(layer) == 2 for t in layer):
        buffer.fill_(1e3)  # what an earlier conversation may have left behind
    pieces = []
    for start in range(0, length, width):
        count = min(width, length - start)
        chunk = torch.full((2, width, embeds.shape[2]), 100.0)
        chunk[:, :count] = embeds[:, start : start + count]
        pieces.append(model.extend(chunk, chunked, start, count))
    assert relative_error(torch.cat(pieces, 1), expected) < 1e-5
    assert relative_error(model(embeds), expected) < 1e-5
    for ours, theirs in zip(chunked.tensors(), whole.tensors(), strict=True):
        kept = slice(None) if ours.shape[2] < length else slice(0, length)
        assert relative_error(ours[:, :, kept], theirs[:, :, kept]) < 1e-5


@torch.no_grad()
def test_rejected_tokens_leave_no_trace(model: LanguageModel) -> None:
    embeds = embed(model, torch.randint(0, model.config.vocab_size, (1, 9)))
    state = DecoderState.zeros(model.config, 1, 16)
    draft = torch.cat((embeds[:, :5], torch.randn_like(embeds[:, :3])), 1)
    model.extend(draft, state, 0, 5)
    rest = model.extend(embeds[:, 5:], state, 5, 4)
    assert relative_error(rest, model(embeds)[:, 5:]) < 1e-5


@torch.no_grad()
def test_context_may_start_anywhere_within_the_rotary_range(model: LanguageModel) -> None:
    cos, sin = rotary_tables(model.config, torch.tensor([0, 7]))
    assert torch.equal(cos[0, 0, 0], torch.ones(model.config.head_dim))
    half = model.config.head_dim // 2
    assert torch.equal(sin[0, 0, 1, :half], -sin[0, 0, 1, half:])
    assert sin[0, 0, 1, half] == pytest.approx(torch.sin(torch.tensor(7.0)).item())


def test_mask_opens_the_committed_slots_and_the_causal_half() -> None:
    opened = (causal_mask(2, committed=1, context=3)[0, 0] == 0).int().tolist()
    assert opened == [[1, 0, 0, 1, 0], [1, 0, 0, 1, 1]]


@torch.no_grad()
def test_bf16_weights_run_whole_and_cached() -> None:
    model = random_model(CONFIGS["grouped"])
    embeds = embed(model, torch.randint(0, model.config.vocab_size, (1, 6)))
    expected = model(embeds)
    model.bfloat16()
    state = DecoderState.zeros(model.config, 1, 8, dtype=torch.bfloat16)
    assert relative_error(model(embeds.bfloat16()).float(), expected) < 0.05
    assert relative_error(model.extend(embeds.bfloat16(), state, 0, 6).float(), expected) < 0.05


def test_gradients_reach_every_parameter_under_autocast() -> None:
    model = random_model(CONFIGS["grouped"]).train()
    ids = torch.randint(0, model.config.vocab_size, (2, 7))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = model.lm_head(model(embed(model, ids)))
    torch.nn.functional.cross_entropy(logits.float().flatten(0, 1), ids.flatten()).backward()
    assert [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []
