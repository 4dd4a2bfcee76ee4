"""Set-up shared by all tests: one compute thread, and reference packages that import on a CPU."""

from __future__ import annotations

import importlib.util
import os
import signal
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from autoneural.bundle import Bundle, write_bundle
from autoneural.checkpoint import save_checkpoint
from autoneural.config import (
    EdgeResidual,
    InvertedResidual,
    MobileNetV5Config,
    ModelConfig,
    MultiQueryAttention,
    ProjectorConfig,
    TextConfig,
)
from autoneural.data.tokenizer import Tokenizer, train_tokenizer
from autoneural.export.graphs import GraphKey, TorchGraph, build_graph
from autoneural.export.onnx import WeightFile, export_graph, save_model
from autoneural.model.vlm import VLM
from autoneural.runtime.qnn import Wheel, find_wheel

CONTEXT = 128
WIDTHS = (1, 8, 32)

torch.set_num_threads(1)
# What this user had measured or probed on this machine is not for tests to find.
os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp(prefix="autoneural-tests-")
# A shell that starts a job with & has it ignore Ctrl-C, and so do all its children: what some
# tests send would be lost.
signal.signal(signal.SIGINT, signal.default_int_handler)


def _let_torchvision_import() -> None:
    """timm and transformers import torchvision, whose PyPI wheel wants CUDA libraries.

    Beside a CPU torch its extension does not load and the import stops at two operators that
    nobody here calls: declaring them is enough.
    """
    spec = importlib.util.find_spec("torchvision")
    if spec is None or spec.origin is None:
        return
    extension = next(Path(spec.origin).parent.glob("_C*"))
    try:
        torch.ops.load_library(str(extension))
    except OSError:
        for name in ("nms", "qnms"):
            schema = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
            torch.library.define(f"torchvision::{name}", schema)


_let_torchvision_import()


@pytest.fixture(scope="session")
def qnn_wheel() -> Wheel:
    """Qualcomm's compiler and emulator; tests that ask for it are skipped where it is missing."""
    wheel = find_wheel()
    if wheel is None:
        pytest.skip("onnxruntime-qnn is not installed (it exists for Linux x86-64 only)")
    return wheel


@dataclass(frozen=True)
class TinyCheckpoint:
    """A model with random weights, a mini tokenizer, and the folder that holds both."""

    folder: Path
    model: VLM
    tokenizer: Tokenizer


@pytest.fixture(scope="session")
def tiny_config() -> ModelConfig:
    """The smallest model with every kind of block: conv and attention layers, four image tokens."""
    return ModelConfig(
        name="tiny-test",
        vision=MobileNetV5Config(
            image_size=64,
            stem_channels=8,
            stages=(
                (EdgeResidual(channels=8, stride=2),),
                (InvertedResidual(channels=16, dw_start=3, dw_mid=3, stride=2),),
                (
                    InvertedResidual(channels=16, dw_mid=3, stride=2),
                    MultiQueryAttention(channels=16, num_heads=2, key_dim=8, kv_stride=2),
                ),
                (InvertedResidual(channels=24, dw_mid=3, stride=2),),
            ),
            fusion_channels=32,
            fusion_size=2,
            layer_scale_init=0.5,
        ),
        projector=ProjectorConfig(hidden_size=32),
        text=TextConfig(
            hidden_size=32,
            intermediate_size=64,
            layer_types=("conv", "full_attention", "conv", "full_attention"),
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=8,
            vocab_size=320,
            max_position_embeddings=256,
        ),
    )


@pytest.fixture(scope="session")
def tiny_checkpoint(
    tiny_config: ModelConfig, tmp_path_factory: pytest.TempPathFactory
) -> TinyCheckpoint:
    """`tiny_config` with seeded random weights, large enough that answers are not constant."""
    torch.manual_seed(0)
    model = VLM(tiny_config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0.0, parameter[0].numel() ** -0.5)
        # Rows of unit length would make every token its own successor.
        embeddings = model.language_model.model.embed_tokens.weight.normal_(0.0, 0.3)
        tokenizer = train_tokenizer(["what is it? a red lamp is on."] * 4, len(embeddings))
        # Its logit is always 0 then: answers are as long as a test asks for.
        embeddings[tokenizer.eos_id] = 0.0
    folder = tmp_path_factory.mktemp("checkpoint")
    tokenizer.save(folder / "tokenizer")
    made = {"seed": 0, "licences": {"weights": "CC0-1.0"}}
    save_checkpoint(folder / "tiny", model, tiny_config, folder / "tokenizer", made)
    return TinyCheckpoint(folder / "tiny", model, tokenizer)


@pytest.fixture(scope="session")
def tiny_bundle(
    tiny_checkpoint: TinyCheckpoint, tmp_path_factory: pytest.TempPathFactory
) -> Bundle:
    """Target `float`, decoders of width 1, 8 and 32; the runtime picks among them."""
    folder = tmp_path_factory.mktemp("bundles") / "tiny"
    vlm: VLM = tiny_checkpoint.model
    tiny_checkpoint.tokenizer.save(folder)
    keys = [
        GraphKey(role="vision", image_size=vlm.config.vision.image_size),
        GraphKey(role="head", width=1),
        GraphKey(role="decode", width=1, context=CONTEXT),
        *(GraphKey(role="prefill", width=w, context=CONTEXT) for w in WIDTHS[1:]),
    ]
    weights = WeightFile(folder / "float" / "weights.data")
    graphs = [_export(build_graph(vlm, key), folder, weights) for key in keys]
    table = vlm.language_model.model.embed_tokens.weight.detach().numpy()
    table.tofile(folder / "float" / "embedding.bin")
    embedding = {"file": "float/embedding.bin", "dtype": "float32", "shape": list(table.shape)}
    target = {"graphs": graphs, "embedding": embedding, "mask_value": -1e4, "precision": {}}
    return write_bundle(folder, {**_manifest(vlm.config), "targets": {"float": target}})


def _export(graph: TorchGraph, folder: Path, weights: WeightFile) -> dict:
    model, key = export_graph(graph), graph.key
    file = f"float/{key.role}-{key.width}.onnx"
    save_model(model, folder / file, weights)

    def specs(values: Sequence) -> list[dict]:
        return [
            {"name": v.name, "dtype": "float32", "shape": [int(n) for n in v.shape]} for v in values
        ]

    return {
        "role": key.role,
        "part": 0,
        "width": key.width,
        "context": key.context,
        "image_size": key.image_size,
        "file": file,
        "inputs": specs(model.graph.inputs),
        "outputs": specs(model.graph.outputs),
    }


def _manifest(config: ModelConfig) -> Mapping[str, object]:
    names = {"conv": ("past_conv", "conv_window"), "attention": ("past_key_values", "present")}
    kinds = ["conv" if kind == "conv" else "attention" for kind in config.text.layer_types]
    return {
        "name": config.name,
        "created_by": "tests",
        "model": config.to_dict(),
        "processor": {
            "image_size": config.vision.image_size,
            "tokens_per_image": config.vision.num_tokens,
            "resize": config.resize,
        },
        "context": CONTEXT,
        "state": [
            {
                "layer": i,
                "kind": kind,
                "past": f"{names[kind][0]}.{i}",
                "present": f"{names[kind][1]}.{i}",
            }
            for i, kind in enumerate(kinds)
        ],
        "tokenizer": {"file": "tokenizer.json", "chat_template": "chat_template.jinja"},
        "chips": [],
        "licences": {},
        "metrics": {},
        "recipe": {},
    }
