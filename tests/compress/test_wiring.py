"""Which modules a module reads."""

import pytest
import torch
from torch import Tensor, nn

from autoneural.compress.fake_quant import quantize
from autoneural.compress.precision import PRECISIONS, Precision, Rule
from autoneural.compress.quantize import Sample
from autoneural.compress.wiring import encodings_of, engine_modules, trace
from autoneural.errors import UserError
from autoneural.model.layers import Add, MatMul, Range
from autoneural.model.vlm import VLM

PLAIN = Precision(name="plain", weights=(Rule("*", 8),))
LAYER = "language_model.model.layers.1"


class Toy(nn.Module):
    """Two linears; `between` is what happens to values on the way from one to the other."""

    def __init__(self, between) -> None:
        super().__init__()
        self.x = Range()
        self.first = nn.Linear(4, 4)
        self.second = nn.Linear(4, 4)
        self.between = between

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.between(self.first(self.x(x))))


def traced(between):
    model = quantize(Toy(between), PLAIN)
    return trace(model, [lambda m: m(torch.ones(2, 3, 4))])


@pytest.mark.parametrize(
    "between",
    [
        lambda x: x,
        lambda x: x.transpose(0, 1).reshape(2, 3, 4),
        lambda x: x.chunk(3, dim=1)[1],
        lambda x: x[:, :2].contiguous(),
        lambda x: torch.nn.functional.pad(x, (0, 0, 1, 1)),
        lambda x: torch.cat((x, x), 1),
        lambda x: x.flatten(0, 1).unsqueeze(0).permute(1, 0, 2),
    ],
    ids=["nothing", "transpose", "chunk", "slice", "pad", "cat", "permute"],
)
def test_moves_are_followed(between) -> None:
    assert traced(between) == {"first": ("x",), "second": ("first",)}


@pytest.mark.parametrize(
    "between", [lambda x: x * 2, lambda x: x + x, lambda x: x.sigmoid()], ids=["*", "+", "sigmoid"]
)
def test_arithmetic_without_a_range_is_an_error(between) -> None:
    with pytest.raises(UserError, match=r"^second: its input comes from no module with a range"):
        traced(between)


def test_a_concatenation_of_two_ranges_has_none() -> None:
    class Two(Toy):
        def forward(self, x: Tensor) -> Tensor:
            x = self.x(x)
            return self.second(torch.cat((x, self.first(x)), 1))

    model = quantize(Two(None), PLAIN)
    with pytest.raises(UserError, match="second"):
        trace(model, [lambda m: m(torch.ones(2, 3, 4))])


def test_every_engine_module_of_the_model_is_wired(model: VLM, samples: list[Sample]) -> None:
    quantize(model, PRECISIONS["w4a16"])
    wiring = trace(model, samples)
    assert wiring.keys() == engine_modules(model).keys()
    attention, vision = f"{LAYER}.self_attn", "vision_encoder.blocks"
    assert wiring[f"{attention}.scores"] == (f"{attention}.scale", f"{attention}.keys")
    assert wiring[f"{attention}.mix"] == (f"{attention}.softmax", f"{attention}.values")
    assert wiring[f"{attention}.out_proj"] == (f"{attention}.mix",)
    assert wiring["language_model.lm_head"] == ("language_model.model.embedding_norm",)
    assert wiring[f"{LAYER}.feed_forward.w1"] == (f"{LAYER}.ffn_norm",)
    # Behind a SamePad, and behind a picture of one channel order or the other.
    assert wiring["vision_encoder.conv_stem.conv"] == ("vision_encoder.pixels",)
    assert wiring[f"{vision}.2.1.attn.mix"][1] == f"{vision}.2.1.attn.value.proj"
    assert wiring["projector.linear_1"] == ("vision_encoder.msfa.norm",)


def test_strided_depthwise_convolutions_are_none_of_the_engine(
    model: VLM, samples: list[Sample]
) -> None:
    quantize(model, PRECISIONS["w4a16"])
    depthwise = {p: m for p, m in model.named_modules() if getattr(m, "groups", 1) > 1}
    on_engine = {p for p in depthwise if p in engine_modules(model)}
    strides = {p: set(m.stride) for p, m in depthwise.items()}
    assert on_engine == {p for p, stride in strides.items() if stride == {1}}
    assert len(on_engine) < len(depthwise)


def test_a_second_operand_may_be_read_in_a_range_of_its_own() -> None:
    class Product(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.mul, self.add = Range(), Range(), MatMul(), Add()

        def forward(self, x: Tensor) -> Tensor:
            return self.add(self.mul(self.a(x), self.b(x).transpose(0, 1)), x)

    precision = Precision(name="p", weights=(), activations=(Rule("*.second", 8), Rule("*", 16)))
    model = quantize(Product(), precision)
    wiring = trace(model, [lambda m: m(torch.eye(3))])
    assert wiring == {"mul": ("a", "b")}
    with pytest.raises(UserError, match="a: its output has no encoding yet"):
        encodings_of(model, "mul", wiring)
