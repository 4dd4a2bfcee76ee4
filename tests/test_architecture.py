"""The rules of docs/architecture.md, checked on the source: arrows, torch-free, sizes, safety."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "autoneural"
FILES = sorted(PACKAGE.rglob("*.py"))

# Which stage may import which; `config`, `errors` and `files` are open to all.
ARROWS: dict[str, set[str]] = {
    "config": set(),
    "errors": set(),
    "files": set(),
    "page": set(),
    "target": set(),
    "bundle": set(),
    "data": set(),
    "model": set(),
    "checkpoint": set(),
    "train": {"data", "model", "checkpoint"},
    "compress": {"model", "checkpoint", "train", "target"},
    "export": {"model", "checkpoint", "compress", "target", "bundle"},
    "runtime": {"data", "target", "bundle"},
    "serve": {"runtime", "data", "bundle"},
    "npu": {"target", "bundle", "runtime", "data", "page"},
    "hub": {"checkpoint", "model", "data"},
}
# Files at the top level that belong to one of the stages above.
PART_OF = {
    "config_vision": "config",
    "parts": "config",
    "manifest": "bundle",
    "bundle_graphs": "bundle",
    "onnx_external": "bundle",
    "onnx_save": "bundle",
    "chat": "runtime",
    "conversation": "runtime",
    "demo": "runtime",
    "prompts": "runtime",
}
# These wire the stages together: they may import all, and no stage imports them.
TOP = {
    "bench",
    "recipes",
    "cli",
    "cli_arguments",
    "cli_bench",
    "cli_build",
    "cli_hub",
    "cli_infer",
    "cli_npu",
    "cli_serve",
    "commands",
    "commands_bench",
    "commands_build",
    "commands_hub",
    "commands_infer",
    "commands_npu",
    "commands_serve",
    "commands_show",
    "show",
    "__main__",
    "__init__",
}

EXTRAS = (
    *("torch", "safetensors", "pyarrow", "tensorboard", "onnx", "onnxscript", "onnx_ir"),
    *("llguidance", "av"),
)
EDGE = ("cli", "bundle", "bench.quality")  # modules, besides whole folders below
EDGE_FOLDERS = ("runtime", "serve", "target")
TORCH_FREE = (
    *("data.image", "data.tokenizer", "data.processor", "data.dataset", "data.cockpit"),
    *("data.tiles", "data.video"),
    *("hub.cache", "hub.download", "hub.folder", "hub.lfm2", "hub.mobilenetv5", "hub.words"),
)


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def stage(module: str) -> str:
    """autoneural.data.image -> data; autoneural.manifest -> bundle."""
    parts = module.split(".")
    name = parts[1] if len(parts) > 1 else "__init__"
    return PART_OF.get(name, name)


def imports(path: Path) -> set[str]:
    """Modules of ours that a file imports anywhere, inside functions as well."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            # `from autoneural import x` names a stage or a public name of the root.
            is_root = node.module == "autoneural"
            found |= {f"autoneural.{a.name}" for a in node.names} if is_root else {node.module}
    return {name for name in found if name.split(".")[0] == "autoneural"}


def ident(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", FILES, ids=ident)
def test_arrows_point_one_way(path: Path) -> None:
    own = stage(module_name(path))
    if own in TOP:
        return
    assert own in ARROWS, f"{own} is a new stage: give it its arrows here and in the docs"
    allowed = ARROWS[own] | {own, "config", "errors", "files", "__version__"}
    wrong = {name for name in imports(path) if stage(name) not in allowed}
    assert not wrong, f"{own} must not import {', '.join(sorted(wrong))}"


def test_arrows_have_no_cycle() -> None:
    left = dict(ARROWS)
    while left:
        free = {name for name, targets in left.items() if not targets & left.keys()}
        assert free, f"cycle among {sorted(left)}"
        left = {name: targets for name, targets in left.items() if name not in free}


def edge_modules() -> list[str]:
    folders = [p for f in EDGE_FOLDERS for p in sorted((PACKAGE / f).rglob("*.py"))]
    return [*(f"autoneural.{name}" for name in EDGE), *(module_name(p) for p in folders)]


def torch_free_modules() -> list[str]:
    cockpit = [module_name(p) for p in sorted((PACKAGE / "data" / "cockpit").rglob("*.py"))]
    return [*(f"autoneural.{name}" for name in TORCH_FREE), *cockpit]


@pytest.mark.parametrize(
    ("banned", "modules"),
    [(EXTRAS, edge_modules()), (("torch",), torch_free_modules())],
    ids=["edge", "torch-free"],
)
def test_imports_without(banned: tuple[str, ...], modules: list[str]) -> None:
    code = f"import sys\nfor n in {banned!r}: sys.modules[n] = None\n"
    code += f"import importlib\nfor m in {modules!r}: importlib.import_module(m)\n"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert run.returncode == 0, run.stderr.strip().splitlines()[-1]


UNSAFE_IMPORTS = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
UNSAFE_CALLS = {"torch.load", "torch.save", "eval", "exec"}


@pytest.mark.parametrize("path", FILES, ids=ident)
def test_nothing_on_disk_can_run_code(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = {a.name for a in node.names} | {getattr(node, "module", None) or ""}
            assert not {n.split(".")[0] for n in names} & UNSAFE_IMPORTS, f"line {node.lineno}"
        elif isinstance(node, ast.Call):
            assert ast.unparse(node.func) not in UNSAFE_CALLS, f"line {node.lineno}"
            keywords = {k.arg: ast.unparse(k.value) for k in node.keywords}
            assert keywords.get("allow_pickle") != "True", f"line {node.lineno}"


def repository_files() -> list[Path]:
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    run = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    if run.returncode != 0:
        pytest.skip("not a git checkout: no list of the repository's files")
    return [ROOT / name for name in run.stdout.split("\0") if name]


def test_no_package_registry_is_named() -> None:
    # A host written down here outlives the mirror that a user or a company installs from.
    hosts = ["py" + "pi.org", "python" + "hosted.org", "npm" + "js.org", "npm" + "js.com"]
    hosts += ["download.py" + "torch.org", "conda." + "anaconda.org"]
    pattern = re.compile("|".join(re.escape(host) for host in hosts).encode())
    files = [p for p in repository_files() if p.is_file() and p.stat().st_size < 1_000_000]
    assert [ident(p) for p in files if pattern.search(p.read_bytes())] == []


@pytest.mark.parametrize("path", FILES, ids=ident)
def test_sizes(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 400, "split the file"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            assert lines <= 60, f"{node.name} has {lines} lines"


@pytest.mark.parametrize("path", FILES, ids=ident)
def test_every_module_says_what_it_is(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert not tree.body or ast.get_docstring(tree)


def with_all() -> list[str]:
    return [module_name(p) for p in FILES if re.search(r"^__all__", p.read_text("utf-8"), re.M)]


@pytest.mark.parametrize("name", with_all())
def test_public_names_exist(name: str) -> None:
    module = importlib.import_module(name)
    assert [n for n in module.__all__ if n not in dir(module)] == []
    assert len(set(module.__all__)) == len(module.__all__)
