"""How graphs are opened on a device: the CPU, CUDA, Qualcomm's emulator, an NPU."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType

import onnxruntime as ort

from autoneural.runtime.chain import Arrays
from autoneural.runtime.devices import CUDA, Placement
from autoneural.runtime.interrupt import interruptible
from autoneural.runtime.processor import adds_bytes_in_16_bits
from autoneural.runtime.qnn import open_session, require_wheel
from autoneural.runtime.qnn import session_options as qnn_options
from autoneural.target.rows import SEVEN_BITS

_ERRORS_ONLY = 3
_SILENT = 4  # ONNX Runtime's "fatal": what goes wrong is raised as well
_CPU = "CPUExecutionProvider"


@dataclass(frozen=True, kw_only=True)
class Backend:
    """How graphs are opened on a device, and how their long native calls are made."""

    placement: Placement
    open: Callable[[Path], ort.InferenceSession]
    call: Callable[[Callable[[], Arrays]], Arrays]
    binds: bool
    """Whether inputs stay bound from run to run: an NPU's provider may move what it is given."""

    @classmethod
    def of(
        cls, placement: Placement, threads: int, tuned: Mapping[Path, int] = MappingProxyType({})
    ) -> Backend:
        """`threads` of a CPU, but for the graphs that `tuned` knows better.

        Raises UserError where the device's libraries are not there.
        """
        if placement.device == "cpu":

            def on_cpu(path: Path) -> ort.InferenceSession:
                options = cpu_options(placement.target, tuned.get(path, threads))
                return ort.InferenceSession(path, options, providers=[_CPU])

            # Graphs of several widths may be one file: one session, one copy of its weights.
            return cls(
                placement=placement,
                open=cache(on_cpu),
                call=lambda work: work(),
                binds=True,
            )
        if placement.device == "cuda":
            own = cpu_options(placement.target, threads)
            return cls(
                placement=placement,
                open=cache(lambda path: _on_cuda(path, own)),
                call=lambda work: work(),
                binds=False,
            )
        options = _htp_options(placement)
        return cls(
            placement=placement,
            open=lambda path: interruptible(lambda: open_session(path, options)),
            call=interruptible,
            binds=False,
        )


def cpu_options(target: str, threads: int) -> ort.SessionOptions:
    """How the graphs of a target run on a CPU."""
    options = ort.SessionOptions()
    options.log_severity_level = _ERRORS_ONLY
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Threads wait for each other's parts of a run in a loop, and stop that when the run has ended:
    # the head's would find the decoder's on their cores.
    options.add_session_config_entry("session.intra_op.allow_spinning", "1" if threads > 1 else "0")
    options.add_session_config_entry("session.force_spinning_stop", "1")
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    if target == "qdq":
        # The graph says what the NPU computes, and is run as written: fused QDQ groups round
        # elsewhere, and even folded weights move integers (by up to 11, for a step 4x as fast).
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    else:
        # Weights of convolutions become floats once, not in every run: no other kernels are used.
        options.add_session_config_entry("session.disable_quant_qdq", "1")
    if adds_bytes_in_16_bits():
        for name, value in _seven_bits().items():
            options.add_initializer(name, value)  # of graphs that have it; others take no notice
    return options


def _on_cuda(path: Path, options: ort.SessionOptions) -> ort.InferenceSession:
    session = ort.InferenceSession(path, options, providers=[CUDA, _CPU])
    if CUDA not in session.get_providers():  # ONNX Runtime goes on without, and says so on stderr
        raise RuntimeError("its CUDA provider does not start: CUDA and cuDNN of its version?")
    return session


@cache
def _seven_bits() -> dict[str, ort.OrtValue]:
    """Kept: sessions do not keep what their options name."""
    return {n: ort.OrtValue.ortvalue_from_numpy(v) for n, v in SEVEN_BITS.items()}


def _htp_options(placement: Placement) -> ort.SessionOptions:
    entries, provider = {}, {}
    if placement.device == "npu":
        provider["htp_performance_mode"] = "burst"
    if placement.target.startswith("htp/"):
        entries["ep.share_ep_contexts"] = "1"  # prefill, verify and decode are in one binary
    chip = placement.chip
    options = qnn_options(
        require_wheel(),
        chip.soc_model if chip else None,
        provider=provider,
        entries=entries,
        allow_cpu=not placement.whole,
    )
    options.log_severity_level = _SILENT
    return options
