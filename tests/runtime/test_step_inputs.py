"""Inputs that stay in place between steps, and sessions that bind them once."""

from __future__ import annotations

import numpy as np
import onnxruntime as ort
import pytest

from autoneural.bundle import Bundle
from autoneural.runtime.backend import Backend
from autoneural.runtime.devices import place
from autoneural.runtime.session import GraphSession, TargetSessions
from autoneural.runtime.step_inputs import Positions, StepInputs


@pytest.fixture(scope="module")
def sessions(tiny_bundle: Bundle) -> TargetSessions:
    return TargetSessions.load(tiny_bundle, place(tiny_bundle, "float"), threads=1)


def inputs(bundle: Bundle, sessions: TargetSessions, width: int) -> StepInputs:
    spec = sessions.decoder_for(width).spec
    return StepInputs(spec, Positions(spec, bundle.model.text, width), -1e4, width)


def rows(count: int) -> np.ndarray:
    return np.random.default_rng(count).standard_normal((count, 32)).astype(np.float32)


@pytest.mark.parametrize("width", [1, 8])
def test_forth_and_back_is_as_new(
    tiny_bundle: Bundle, sessions: TargetSessions, width: int
) -> None:
    """To the end of the context, where padded rows lie beyond it, and back again."""
    used = inputs(tiny_bundle, sessions, width)
    for position, count in ((0, width), (5, 1), (127, 1), (60, width), (59, 1), (0, 1)):
        fresh = inputs(tiny_bundle, sessions, width).fill(rows(count), position)
        found = used.fill(rows(count), position)
        assert found.keys() == fresh.keys()
        for name, array in found.items():
            assert np.array_equal(array, fresh[name]), (name, position)
        mask = found["mask"][0, 0]
        assert [(row == 0).sum() for row in mask] == [position + r + 1 for r in range(width)]


def test_an_interrupted_mask_is_made_anew(tiny_bundle: Bundle, sessions: TargetSessions) -> None:
    used = inputs(tiny_bundle, sessions, 8)
    used.fill(rows(1), 90)
    mask = used._arrays["mask"]

    class Interrupted(np.ndarray):
        """Stops after the first write."""

        def __setitem__(self, key: object, value: object) -> None:
            mask[key] = value  # pyright: ignore[reportArgumentType]
            raise KeyboardInterrupt

    used._arrays["mask"] = mask.view(Interrupted)
    with pytest.raises(KeyboardInterrupt):
        used.fill(rows(1), 100)
    used._arrays["mask"] = mask
    wanted = inputs(tiny_bundle, sessions, 8).fill(rows(1), 30)["mask"]
    assert np.array_equal(used.fill(rows(1), 30)["mask"], wanted)


def test_the_cache_is_handed_over_once(
    tiny_bundle: Bundle, sessions: TargetSessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And read again in every run, as it is then."""
    graph, given = sessions.decoder_for(1), []
    hand_over = ort.OrtValue.ortvalue_from_numpy

    def counted(array: np.ndarray) -> ort.OrtValue:
        given.append(array)
        return hand_over(array)

    monkeypatch.setattr(ort.OrtValue, "ortvalue_from_numpy", staticmethod(counted))
    feeds = {n: np.zeros(t.shape, np.float32) for n, t in graph.inputs.items()}
    feeds["inputs_embeds"][:] = rows(1)
    first = graph.run(feeds)
    kept = {name: array.copy() for name, array in first.items()}
    assert len(given) == len(feeds)
    feeds["past_key_values.1.value"][:] = 3.0
    second = graph.run(feeds)
    assert len(given) == len(feeds)
    assert not np.array_equal(second["hidden_states"], kept["hidden_states"])
    for name, array in first.items():  # what a run returned is not written to again
        assert np.array_equal(array, kept[name])
    third = graph.run({**feeds, "inputs_embeds": feeds["inputs_embeds"] * 2})
    assert len(given) == len(feeds) + 1
    fresh = GraphSession(
        tiny_bundle.path(graph.spec.file), graph.spec, Backend.of(sessions.placement, 1)
    )
    again = fresh.run({**feeds, "inputs_embeds": feeds["inputs_embeds"] * 2})
    assert all(np.array_equal(array, third[name]) for name, array in again.items())


def test_arrays_in_pieces_are_taken(sessions: TargetSessions) -> None:
    hidden = np.random.default_rng(0).standard_normal((1, 32, 2)).astype(np.float32)
    in_pieces = hidden.transpose(0, 2, 1)[:, :1]
    assert not hidden.transpose(0, 2, 1).flags.c_contiguous
    whole = sessions.head.run({"hidden_states": in_pieces.copy()})
    assert np.array_equal(
        sessions.head.run({"hidden_states": in_pieces})["logits"], whole["logits"]
    )


def test_missing_inputs_are_named(sessions: TargetSessions) -> None:
    with pytest.raises(ValueError, match=r"head.*takes \['hidden_states'\], not \[\]"):
        sessions.head.run({})
