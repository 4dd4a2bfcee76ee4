"""Where a bundle's graphs run: the CPU, Qualcomm's emulator of a chip, or an NPU in this machine.

cpu           the target asked for (`cpu` unless told) on ONNX Runtime's own CPU provider
htp-emulator  the `qdq` graphs, compiled in memory for a chip and emulated (Linux x86-64). Not
              the bundle's own binaries: they share weights, which the emulator does not load
npu           the binaries for this machine's chip where the bundle holds them, else the `qdq`
              graphs, compiled here. Written without a board: untested on hardware
cuda          the `float` graphs, else those of `cpu`, on ONNX Runtime's CUDA provider, and what it
              does not take on the CPU; needs onnxruntime-gpu. Untested on hardware
auto          `npu` where there is one, else `cpu`; never the emulator

`vision=npu,language=cpu` puts the encoder on one device and the language model on another.
"""

from __future__ import annotations

import platform
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

import onnxruntime as ort

from autoneural.bundle import Bundle
from autoneural.errors import UserError
from autoneural.runtime.qnn import emulates, find_wheel, provider_devices, require_wheel
from autoneural.target.chips import DEFAULT_CHIP, Chip, find_chip, recognise

Device = Literal["cpu", "htp-emulator", "npu", "cuda", "auto"]
DEVICES: tuple[str, ...] = get_args(Device)

CUDA = "CUDAExecutionProvider"
_INTEGER_TARGET = "qdq"
_NO_NPU = ("cpu", "cuda")
# Where Linux says what it runs on; Android and the automotive boards have the first.
_IDENTITY = (
    "/sys/devices/soc0/machine",
    "/proc/device-tree/compatible",
    "/proc/device-tree/model",
)


@dataclass(frozen=True, kw_only=True)
class Placement:
    """The device that was settled on, which target of the bundle it opens, and why.

    `whole`: no node may run on the CPU instead. `chip` None: the CPU, or a chip we do not know.
    `vision` None: the encoder runs there too.
    """

    device: Literal["cpu", "htp-emulator", "npu", "cuda"]
    target: str
    why: str
    chip: Chip | None = None
    whole: bool = False
    vision: Placement | None = None

    @property
    def label(self) -> str:
        """For people: `cpu`, `qdq, emulated SA8295P`, `htp/SA8295P on the NPU`."""
        return self._own_label + (f"; vision: {self.vision.label}" if self.vision else "")

    @property
    def _own_label(self) -> str:
        if self.device == "cpu":
            return self.target
        if self.device in ("npu", "cuda"):
            return f"{self.target} on {'the NPU' if self.device == 'npu' else 'CUDA'}"
        return f"{self.target}, emulated {self.chip.name if self.chip else ''}"


def place(
    bundle: Bundle,
    target: str | None = None,
    device: str = "cpu",
    chip: str | None = None,
    *,
    require_npu: bool = False,
) -> Placement:
    """Settle where to run. Raises UserError, one line, where that cannot be had here."""
    if "=" in device:
        return _place_apart(bundle, target, device, chip, require_npu=require_npu)
    known = find_chip(chip) if chip is not None else None
    if device not in DEVICES:
        known_ones = f"{', '.join(DEVICES)}, or vision=ONE,language=ANOTHER"
        raise UserError(f"no device called {device!r}; one of {known_ones}")
    if require_npu and device in (*_NO_NPU, "htp-emulator"):
        raise UserError(f"an NPU is required, and {device} is none: choose the device npu")
    if device in _NO_NPU and known:
        raise UserError(f"a chip ({known.name}) goes with the devices htp-emulator and npu")
    if device == "cpu":
        return Placement(device="cpu", target=target or _cpu_target(bundle), why="asked for")
    if device == "cuda":
        return _on_cuda(bundle, target)
    binaries = target is not None and target.startswith("htp/")
    on_cpu_only = target not in (None, _INTEGER_TARGET) and not binaries
    if device == "auto" and on_cpu_only and not require_npu:
        return Placement(device="cpu", target=target or "cpu", why=f"{target} runs there only")
    if on_cpu_only or (binaries and device == "htp-emulator"):
        raise UserError(f"{device} does not run the target {target}; it takes {_INTEGER_TARGET}")
    if device == "htp-emulator":
        return _emulated(bundle, known or find_chip(DEFAULT_CHIP))
    try:
        found, why = find_npu()
        if not found:
            raise UserError(f"no NPU to run on: {why} (see `autoneural doctor`)")
        return _on_npu(bundle, target, known or machine_chip(), why, require_npu)
    except UserError as error:
        if device != "auto" or require_npu or binaries:
            raise
        return Placement(device="cpu", target=target or _cpu_target(bundle), why=str(error))


def _place_apart(
    bundle: Bundle, target: str | None, devices: str, chip: str | None, *, require_npu: bool
) -> Placement:
    """The language model's placement, with the encoder's in it."""
    pairs = [part.partition("=") for part in devices.split(",")]
    chosen = {role.strip(): device.strip() for role, _, device in pairs}
    if sorted(chosen) != ["language", "vision"] or len(pairs) != 2:
        raise UserError(f"device {devices!r}: expected one, or vision=ONE,language=ANOTHER")
    if target is not None:
        raise UserError(f"target {target}: each device takes its own; leave target out")
    chips = {role: None if device in _NO_NPU else chip for role, device in chosen.items()}
    if chip is not None and not any(chips.values()):
        raise UserError(f"a chip ({chip}) goes with the devices htp-emulator and npu")
    found = {
        role: place(bundle, None, device, chips[role], require_npu=require_npu)
        for role, device in chosen.items()
    }
    return replace(found["language"], vision=found["vision"])


def _cpu_target(bundle: Bundle) -> str:
    """The CPU's own graphs, or where there are none those of the NPU, which it computes as well."""
    return next((name for name in ("cpu", _INTEGER_TARGET) if name in bundle.targets), "cpu")


def _on_cuda(bundle: Bundle, target: str | None) -> Placement:
    offered = ort.get_available_providers()
    if CUDA not in offered:
        raise UserError(
            f"cuda: this onnxruntime offers {', '.join(offered)}; install onnxruntime-gpu in its "
            "place"
        )
    found = next((name for name in ("float", "cpu") if name in bundle.targets), "cpu")
    return Placement(device="cuda", target=target or found, why="asked for")


def find_npu() -> tuple[bool, str]:
    """Whether Qualcomm's provider finds an NPU in this machine; and what was found, or why not."""
    if emulates():
        return False, "this is Linux x86-64, where Qualcomm's library is an emulator"
    if platform.machine().lower() not in ("arm64", "aarch64"):
        return False, f"{sys.platform} {platform.machine()} is no machine with a Qualcomm NPU"
    try:
        wheel = find_wheel()
        if wheel is None:
            return False, "onnxruntime-qnn is not installed (extra [npu])"
        devices = provider_devices(wheel)
    except UserError as error:
        return False, str(error)
    if devices and devices[0].device.type == ort.OrtHardwareDeviceType.NPU:
        return True, f"Qualcomm's provider {wheel.version} offers an NPU"
    where = "" if sys.platform == "win32" else " (no /dev/fastrpc-cdsp* that this user may see)"
    return False, f"Qualcomm's provider finds no NPU{where}"


def machine_chip() -> Chip | None:
    """The chip this machine says it is, where it is one of our table."""
    texts = [_read(Path(name)) for name in _IDENTITY] if sys.platform != "win32" else [_windows()]
    return next((chip for text in texts if (chip := recognise(text))), None)


def _emulated(bundle: Bundle, chip: Chip) -> Placement:
    if not emulates():
        machine = f"{sys.platform} {platform.machine()}"
        raise UserError(f"htp-emulator: it exists for Linux x86-64 only, and this is {machine}")
    require_wheel()
    if _INTEGER_TARGET not in bundle.targets:
        raise UserError(
            f"bundle {bundle.name}: no target {_INTEGER_TARGET}, which the emulator compiles; "
            f"it holds {', '.join(bundle.targets)}"
        )
    return Placement(
        device="htp-emulator", target=_INTEGER_TARGET, chip=chip, why="asked for", whole=True
    )


def _on_npu(
    bundle: Bundle, target: str | None, chip: Chip | None, why: str, whole: bool
) -> Placement:
    """The chip's binaries, unless `target` or the bundle's contents say the integer graphs."""
    binaries = (name for name in bundle.targets if chip and _is_for(name, chip))
    name = target or next(binaries, _INTEGER_TARGET)
    if name not in bundle.targets:
        wanted = f"binaries for {chip.name}" if chip else "binaries for a chip that is known here"
        raise UserError(
            f"bundle {bundle.name}: neither {wanted} nor the target {name}; "
            f"it holds {', '.join(bundle.targets)}"
        )
    compiled = f"{name} graphs compiled on this machine"
    what = compiled if name == _INTEGER_TARGET else f"binaries {name}"
    return Placement(device="npu", target=name, chip=chip, why=f"{why}; {what}", whole=whole)


def _is_for(target: str, chip: Chip) -> bool:
    """Whether a target of a bundle holds binaries that `chip` loads: one soc_model, one binary."""
    kind, _, name = target.partition("/")
    other = recognise(name) if kind == "htp" else None
    return other is not None and other.soc_model == chip.soc_model


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _windows() -> str:
    """The name of the processor, as in `Snapdragon(R) X Elite - X1E80100`."""
    if sys.platform != "win32":
        return ""
    import winreg

    key = r"HARDWARE\DESCRIPTION\System\CentralProcessor\0"
    with winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, key) as processor:
        return str(winreg.QueryValueEx(processor, "ProcessorNameString")[0])
