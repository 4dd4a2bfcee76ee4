"""Qualcomm's execution provider for ONNX Runtime: where it is, and sessions that run on it.

The wheel `onnxruntime-qnn` (extra [npu]) is loaded as a plugin, and only when a session asks for
it. On Linux x86-64 it holds the HTP compiler and an emulator; elsewhere it drives the chip itself.
"""

from __future__ import annotations

import ctypes
import importlib
import importlib.util
import os
import platform
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import onnxruntime as ort

from autoneural.errors import UserError

PROVIDER = "QNNExecutionProvider"
_MODULE = "onnxruntime_qnn"
_ERRORS_ONLY = 3


@dataclass(frozen=True, kw_only=True)
class Wheel:
    """The installed `onnxruntime-qnn`: its version, Qualcomm's SDK inside, its libraries."""

    version: str
    sdk: str
    library: Path
    backend: Path

    @property
    def compiler(self) -> str:
        """What decides which graphs are accepted and how they are compiled."""
        return f"QNN {self.sdk} (onnxruntime-qnn {self.version})"


def is_installed() -> bool:
    """Whether the wheel is there at all, sound or not; nothing of it is imported."""
    return importlib.util.find_spec(_MODULE) is not None


def find_wheel() -> Wheel | None:
    """The wheel, or None where it is not installed or lacks the HTP library.

    Raises UserError where it is installed and cannot be imported.
    """
    if not is_installed():
        return None
    try:
        module = importlib.import_module(_MODULE)
        info = importlib.import_module(f"{_MODULE}.build_and_package_info")
        backend = Path(module.get_qnn_htp_path())
        wheel = Wheel(
            version=module.__version__,
            sdk=info.qnn_version,
            library=Path(module.get_library_path()),
            backend=backend,
        )
    except (ImportError, AttributeError, OSError) as error:
        raise UserError(f"onnxruntime-qnn is installed but broken ({error!r})") from error
    return wheel if backend.is_file() else None


def require_wheel() -> Wheel:
    """The wheel. Raises UserError saying how to get it."""
    wheel = find_wheel()
    if wheel is None:
        raise UserError(
            "this needs onnxruntime-qnn, Qualcomm's compiler and emulator (Linux x86-64): "
            "pip install 'autoneural[npu]', or `make setup` in a clone"
        )
    return wheel


def emulates() -> bool:
    """Whether the HTP library on this kind of machine is the emulator, not a driver of a chip."""
    return sys.platform == "linux" and platform.machine() in ("x86_64", "AMD64")


def session_options(
    wheel: Wheel,
    soc_model: int | None,
    *,
    provider: Mapping[str, str] | None = None,
    entries: Mapping[str, str] | None = None,
    allow_cpu: bool = False,
) -> ort.SessionOptions:
    """Options that send a graph to the HTP of `soc_model`, whole unless `allow_cpu`.

    None leaves it to the machine's driver to say which chip that is. `provider` and `entries` add
    options of the provider and of the session.
    """
    devices = provider_devices(wheel)
    options = ort.SessionOptions()
    options.log_severity_level = _ERRORS_ONLY
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    options.add_session_config_entry("session.disable_cpu_ep_fallback", str(int(not allow_cpu)))
    for key, value in (entries or {}).items():
        options.add_session_config_entry(key, value)
    if not devices:
        raise UserError(f"{wheel.library.name}: offers no device here; see `autoneural doctor`")
    settings = {"backend_path": str(wheel.backend)}
    if soc_model is not None:
        settings["soc_model"] = str(soc_model)
    options.add_provider_for_devices(devices[:1], {**settings, **(provider or {})})
    return options


def open_session(path: Path, options: ort.SessionOptions) -> ort.InferenceSession:
    """A session, with what Qualcomm's libraries print to stdout kept off it."""
    with _quiet_stdout():
        return ort.InferenceSession(str(path), options)


def provider_devices(wheel: Wheel) -> list[ort.OrtEpDevice]:
    """What the provider offers on this machine, NPUs first; the emulator poses as a CPU.

    Raises UserError with the loader's own words where the library does not load.
    """
    try:
        _register(wheel)
    # ONNX Runtime's exceptions share no base class below Exception.
    except Exception as error:
        reason = str(error).split("\n", 1)[0]
        raise UserError(f"{wheel.library}: cannot be loaded ({reason})") from error
    devices = [d for d in ort.get_ep_devices() if d.ep_name == PROVIDER]
    return sorted(devices, key=lambda d: d.device.type != ort.OrtHardwareDeviceType.NPU)


def nodes_by_provider(session: ort.InferenceSession) -> dict[str, list[str]]:
    """Names of the nodes that each execution provider took."""
    found: dict[str, list[str]] = {}
    for part in session.get_provider_graph_assignment_info():
        found.setdefault(part.ep_name, []).extend(node.name for node in part.get_nodes())
    return found


def _register(wheel: Wheel) -> None:
    if any(device.ep_name == PROVIDER for device in ort.get_ep_devices()):
        return
    with _quiet_stdout():
        ort.register_execution_provider_library(PROVIDER, str(wheel.library))


@contextmanager
def _quiet_stdout() -> Iterator[None]:
    """Send file descriptor 1 to nowhere: the libraries write notes there, `--json` prints there."""
    if sys.platform == "win32":
        yield
        return
    sys.stdout.flush()
    libc, kept = ctypes.CDLL(None), os.dup(1)
    try:
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), 1)
        yield
    finally:
        libc.fflush(None)  # what the libraries left in C's buffer would come out later
        os.dup2(kept, 1)
        os.close(kept)
