"""Models within a budget: who is loaded, who goes, who waits, and that nobody waits for ever."""

from __future__ import annotations

import dataclasses
import gc
import threading
import weakref
from math import prod

import pytest
from prometheus_client.utils import floatToGoString

from autoneural.bundle import Bundle
from autoneural.errors import UserError
from autoneural.runtime import Engine
from autoneural.runtime.footprint import footprint
from autoneural.serve.app import create_app
from autoneural.serve.memory import Loadable, Memory
from autoneural.serve.models import Models, Placing, Served
from autoneural.serve.settings import Settings
from autoneural.serve.worker import Worker
from tests.serve.helpers import SlowEngine, ask, call, wait_until

CHAT = "/v1/chat/completions"


class GivenUp(Exception):
    pass


def loadable(memory: Memory, size: int, loads: list[int] | None = None) -> Loadable:
    def load() -> Engine:
        if loads is not None:
            loads.append(size)
        return SlowEngine()  # type: ignore[return-value]

    return Loadable(load, size, memory)


def use(*models: Loadable) -> None:
    for model in models:
        with model.used():
            pass


def loaded(*models: Loadable) -> list[bool]:
    return [model.loaded for model in models]


def test_the_least_recently_used_goes_and_no_more_than_must() -> None:
    memory = Memory(10)
    a, b, c = (loadable(memory, size) for size in (4, 4, 5))
    use(a, b, a)
    assert loaded(a, b, c) == [True, True, False]
    use(c)
    assert loaded(a, b, c) == [True, False, True]
    use(b)
    assert loaded(a, b, c) == [False, True, True]
    big = loadable(memory, 10)
    use(big)
    assert loaded(a, b, c, big) == [False, False, False, True]


def test_without_a_budget_all_stay_and_load_once() -> None:
    memory, loads = Memory(), []
    models = [loadable(memory, 10**15, loads) for _ in range(5)]
    use(*models, *models)
    assert all(loaded(*models))
    assert len(loads) == 5


def test_what_was_dropped_or_never_came_takes_no_room() -> None:
    memory = Memory(10)
    a, b = loadable(memory, 6), loadable(memory, 6)

    def fail() -> Engine:
        raise UserError("no such file")

    broken = Loadable(fail, 10, memory)
    with pytest.raises(UserError, match="no such file"):
        use(broken)
    use(a)
    a.drop()
    with b.used():
        b.drop()
        assert loaded(a, b) == [False, False]
    use(a)
    assert loaded(a, b) == [True, False]


def test_busy_models_stay_and_the_next_waits_for_them() -> None:
    memory = Memory(10)
    a, b = loadable(memory, 6), loadable(memory, 6)
    answered = threading.Event()

    def other() -> None:
        use(b)
        answered.set()

    with a.used():
        thread = threading.Thread(target=other)
        thread.start()
        assert not answered.wait(0.3)
        assert loaded(a, b) == [True, False]
    assert answered.wait(10)
    thread.join()
    assert loaded(a, b) == [False, True]


def test_whoever_gives_up_leaves_the_line() -> None:
    memory = Memory(10)
    a, b, c = (loadable(memory, size) for size in (6, 6, 4))

    def gone() -> None:
        raise GivenUp

    with a.used():
        with pytest.raises(GivenUp), b.used(gone):
            pass
        use(c)  # fits beside a
    use(b)
    assert loaded(a, b, c) == [False, True, True]


def test_a_busy_model_cannot_keep_another_out() -> None:
    memory = Memory(10)
    a, b = loadable(memory, 6), loadable(memory, 6)
    done = threading.Event()
    times = 0

    def greedy() -> None:
        nonlocal times
        while not done.is_set():
            use(a)
            times += 1

    thread = threading.Thread(target=greedy)
    thread.start()
    wait_until(lambda: times > 0)
    use(b)
    done.set()
    thread.join(10)
    assert not thread.is_alive()


def test_what_counts_is_weights_per_graph_the_table_and_the_state(bundle: Bundle) -> None:
    files = {
        name.removeprefix("cpu/"): entry["bytes"]
        for name, entry in bundle.manifest["files"].items()
        if name.startswith("cpu/")
    }
    # The decoder, one graph for any width, and the head both refer to the language model's.
    weights = sum(files.values()) - files["embedding.bin"] + files["language.data"]
    decode = next(graph for graph in bundle.target("cpu").graphs if graph.role == "decode")
    state = sum(4 * prod(t.shape) for t in decode.inputs if t.name.startswith("past"))
    assert state > 0
    assert footprint(bundle, "cpu") == weights + files["embedding.bin"] + state
    with pytest.raises(UserError, match="no target 'float'"):
        footprint(bundle, "float")


def test_a_bundle_over_the_budget_is_refused_at_the_start(bundle: Bundle) -> None:
    with pytest.raises(UserError) as error:
        Models.start([bundle], Placing(), Settings(memory_budget=1_000_000))
    assert str(error.value).startswith("--memory-budget 0.001 GB: cockpit-tiny (cpu) alone counts")


def test_two_bundles_take_turns_in_one_place(bundle: Bundle) -> None:
    other = dataclasses.replace(bundle, name="other")
    assert footprint(bundle, "cpu", "cpu") == footprint(bundle, "cpu")
    size = footprint(bundle, "cpu")
    settings = Settings(memory_budget=2 * size - 1, keepalive=0)
    models = Models.start([bundle, other], Placing(threads=1), settings)
    app = create_app(models, settings)

    def state() -> list[tuple[bool, int]]:
        found = call(app, "GET", "/v1/models").json()["data"]
        return [(model["meta"]["loaded"], model["meta"]["size"]) for model in found]

    def answer(name: str) -> str:
        body = {"messages": [ask("What is it?")], "model": name, "max_tokens": 3}
        reply = call(app, "POST", CHAT, json=body)
        assert reply.status_code == 200, reply.text
        return reply.json()["choices"][0]["message"]["content"]

    assert state() == [(False, size), (False, size)]
    first = answer("cockpit-tiny")
    assert state() == [(True, size), (False, size)]
    assert answer("other") == first
    assert state() == [(False, size), (True, size)]
    assert answer("cockpit-tiny") == first
    text = app.state.server.metrics.text().decode()
    assert f'autoneural_memory_bytes{{model="cockpit-tiny"}} {floatToGoString(size)}' in text
    assert 'autoneural_memory_bytes{model="other"} 0.0' in text
    models.stop()


def test_a_model_that_is_not_loaded_knows_its_context(bundle: Bundle, served: Served) -> None:
    budget = Settings(memory_budget=10**9)
    lazy = Served.start(bundle, Placing(), budget)
    assert not lazy.worker.loaded
    assert (lazy.context, lazy.target) == (served.context, served.target) == (1024, "cpu")
    assert lazy.context == Engine(bundle, threads=1).context
    lazy.worker.stop()


def test_an_unloaded_engine_is_gone_from_memory() -> None:
    engines: list[weakref.ref] = []

    def load() -> Engine:
        engine = SlowEngine(letters=1)
        engines.append(weakref.ref(engine))
        return engine  # type: ignore[return-value]

    worker = Worker("slow", load, keepalive=0.05)
    worker.start()
    wait_until(lambda: not worker.loaded)
    gc.collect()
    assert engines[0]() is None
    worker.stop()
