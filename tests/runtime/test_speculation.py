"""Speculation changes the speed, never the tokens: every answer against the plain one.

In blocks (`exact`) the two are the same to the last bit, so equality is asked for without
tolerance: of tokens, and of the state that is left behind.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from autoneural.bundle import DEFAULT_BUNDLE, Bundle
from autoneural.chat import user_message
from autoneural.demo import load_demo
from autoneural.errors import UserError
from autoneural.runtime import drafting
from autoneural.runtime.constraint import Constraint
from autoneural.runtime.engine import Engine
from autoneural.runtime.sampling import Sampling
from autoneural.runtime.speculation import MEMORY, PATIENCE, Speculation, StepCosts
from tests.runtime.helpers import CONVERSATIONS, answer, ask, picture, reply
from tests.runtime.test_engine import only_widths, random_conversation

QUESTION = CONVERSATIONS[0]
FREE = StepCosts(width=8, plain_ms=1e3, wide_ms=1.0, head_ms=0.0)
KINDS = ("lookup", "lookahead")


@pytest.fixture(scope="session")
def exact_engine(tiny_bundle: Bundle) -> Engine:
    engine = Engine(tiny_bundle, "float", threads=1, exact=True)
    engine._costs = FREE
    return engine


@pytest.fixture
def engine(exact_engine: Engine) -> Engine:
    """Exact, without memory of earlier tests, and never tired of drafts."""
    exact_engine.reset()
    return exact_engine


class Oracle:
    """Knows the answer, and lies at chosen places of it."""

    reads_answers = False

    def __init__(self, prompt: int, tokens: Sequence[int], wrong: Callable[[int], bool]) -> None:
        self._prompt, self._tokens, self._wrong = prompt, tokens, wrong
        self.proposed = 0

    def propose(self, tokens: Sequence[int], most: int) -> list[int]:
        start = len(tokens) - self._prompt
        drafts = [
            token ^ 1 if self._wrong(place) else token
            for place, token in enumerate(self._tokens[start : start + most], start)
        ]
        self.proposed += len(drafts)
        return drafts

    def learn(self, drafts: Sequence[int], accepted: int, answers: Sequence[int]) -> None:
        pass


Oracles = Callable[[Sequence, Sequence[int], Callable[[int], bool]], Oracle]


@pytest.fixture
def oracle(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> Oracles:
    """Makes `lookup` an oracle for one conversation and its answer."""

    def install(messages: Sequence, tokens: Sequence[int], wrong=lambda place: False) -> Oracle:
        prompt = len(engine.processor(messages).input_ids)
        made = Oracle(prompt, tokens, wrong)
        monkeypatch.setitem(drafting.DRAFTERS, "lookup", lambda image_id: made)
        return made

    return install


def state(engine: Engine) -> dict[str, np.ndarray]:
    """All that is committed: convolution columns, and rows up to the position."""
    at = engine._decoder.position
    feeds = engine._decoder._state.feeds()
    return {n: (a[:, :, :at] if "key_values" in n else a).copy() for n, a in feeds.items()}


def assert_same_state(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> None:
    for name, array in a.items():
        np.testing.assert_array_equal(array, b[name], err_msg=name)


WRONG = {
    "none": lambda place: False,
    "all": lambda place: True,
    "odd": lambda place: place % 2 == 1,
    "every 5th": lambda place: place % 5 == 4,
    "from 7 on": lambda place: place >= 7,
}


@pytest.mark.parametrize("wrong", WRONG)
def test_forced_rejections_leave_no_trace(engine: Engine, oracle: Oracles, wrong: str) -> None:
    plain = answer(engine, QUESTION, max_tokens=40)
    left = state(engine)
    engine.reset()
    made = oracle(QUESTION, plain.token_ids, WRONG[wrong])
    found = answer(engine, QUESTION, max_tokens=40, speculate="lookup")
    assert found.token_ids == plain.token_ids
    assert found.text == plain.text
    assert_same_state(state(engine), left)
    timings = found.timings
    assert timings.draft_n == made.proposed > 20
    assert {"none": timings.draft_n, "all": 0}.get(wrong, timings.draft_n_accepted) == (
        timings.draft_n_accepted
    )
    assert timings.to_dict()["draft_n_accepted"] <= timings.draft_n


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(12))
def test_drafters_say_what_plain_decoding_says(engine: Engine, kind: str, seed: int) -> None:
    messages = random_conversation(seed)
    sampling = Sampling(temperature=0.5, seed=seed) if seed % 2 else Sampling()
    options = {"sampling": sampling, "max_tokens": 30}
    plain = answer(engine, messages, **options)
    left = state(engine)
    engine.reset()
    found = answer(engine, messages, speculate=kind, **options)
    assert found.token_ids == plain.token_ids
    assert_same_state(state(engine), left)
    assert kind == "lookup" or found.timings.draft_n > 0


@pytest.mark.parametrize("seed", range(6))
def test_sampling_draws_the_same_with_and_without(
    engine: Engine, oracle: Oracles, seed: int
) -> None:
    penalties = {"repetition_penalty": 1.3, "presence_penalty": 0.4, "frequency_penalty": 0.7}
    sampling = Sampling(temperature=2.0, top_k=20, seed=seed, **penalties)
    plain = answer(engine, QUESTION, sampling=sampling, max_tokens=30)
    engine.reset()
    oracle(QUESTION, plain.token_ids, lambda place: place % 4 == 3)
    found = answer(engine, QUESTION, sampling=sampling, max_tokens=30, speculate="lookup")
    assert found.token_ids == plain.token_ids
    assert 0 < found.timings.draft_n_accepted < found.timings.draft_n


def test_end_token_inside_a_draft_ends_there(
    engine: Engine, oracle: Oracles, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens = answer(engine, QUESTION, max_tokens=20).token_ids
    monkeypatch.setattr(engine.tokenizer, "eos_id", tokens[4])
    engine.reset()
    plain = answer(engine, QUESTION, max_tokens=20)
    left = state(engine)
    engine.reset()
    oracle(QUESTION, tokens)
    found = answer(engine, QUESTION, max_tokens=20, speculate="lookup")
    assert found.token_ids == plain.token_ids == tokens[: tokens.index(tokens[4]) + 1]
    assert found.finish_reason == "stop"
    assert found.timings.draft_n > found.timings.draft_n_accepted > 0
    assert_same_state(state(engine), left)


def test_stop_string_inside_a_draft_ends_there(engine: Engine, oracle: Oracles) -> None:
    whole = answer(engine, QUESTION, max_tokens=24)
    stop = whole.text[len(whole.text) // 3 :][:2]
    engine.reset()
    plain = answer(engine, QUESTION, max_tokens=24, stop=(stop,))
    engine.reset()
    oracle(QUESTION, whole.token_ids)
    found = answer(engine, QUESTION, max_tokens=24, stop=(stop,), speculate="lookup")
    assert (found.text, found.token_ids) == (plain.text, plain.token_ids)
    assert found.finish_reason == "stop_sequence"
    assert found.timings.draft_n > found.timings.draft_n_accepted


@pytest.mark.parametrize("kind", [*KINDS, "oracle"])
@pytest.mark.parametrize("room", [1, 2, 3, 11])
def test_answers_end_at_the_context(engine: Engine, oracle: Oracles, kind: str, room: int) -> None:
    used = len(engine.processor([ask("1")]).input_ids)
    messages = [ask("1" * (engine.context - room - used + 1))]
    plain = answer(engine, messages)
    engine.reset()
    if kind == "oracle":
        oracle(messages, [*plain.token_ids, *[5] * 20])
    found = answer(engine, messages, speculate="lookup" if kind == "oracle" else kind)
    assert found.token_ids == plain.token_ids
    assert len(found.token_ids) == room
    assert found.finish_reason == "length"
    assert engine._decoder.position == engine.context - 1


def test_max_tokens_is_not_overshot(engine: Engine, oracle: Oracles) -> None:
    plain = answer(engine, QUESTION, max_tokens=20)
    for most in range(1, 12):
        engine.reset()
        oracle(QUESTION, plain.token_ids)
        found = answer(engine, QUESTION, max_tokens=most, speculate="lookup")
        assert found.token_ids == plain.token_ids[:most]


def test_turns_after_speculation_are_right_and_reuse_as_much(engine: Engine) -> None:
    def talk(speculate: drafting.Speculate) -> list:
        engine.reset()
        messages, results = [], []
        for text, images in (("what is it?", [picture(1)]), ("is it on?", []), ("why?", [])):
            messages.append(ask(text, *images))
            results.append(answer(engine, messages, max_tokens=14, speculate=speculate))
            messages.append(reply(results[-1].text[:8]))
        return results

    plain, found = talk("off"), talk("lookahead")
    assert [r.token_ids for r in found] == [r.token_ids for r in plain]
    assert [r.usage for r in found] == [r.usage for r in plain]
    assert all(r.usage.cached_tokens for r in found[1:])
    assert all(r.timings.draft_n for r in found)


def test_interrupt_inside_a_step_leaves_the_engine_usable(
    engine: Engine, oracle: Oracles, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = answer(engine, QUESTION, max_tokens=24)
    oracle(QUESTION, whole.token_ids, lambda place: place % 4 == 3)
    generation = engine.generate(QUESTION, max_tokens=24, speculate="lookup")
    next(generation)
    next(generation)
    with monkeypatch.context() as patch:
        patch.setattr(engine._decoder, "logits", _interrupt)
        with pytest.raises(KeyboardInterrupt):
            list(generation)
    assert generation.result.finish_reason == "cancelled"
    assert answer(engine, QUESTION, max_tokens=24).token_ids == whole.token_ids


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize(("target", "every"), [("cpu", 3), ("qdq", 12)])
def test_the_embedded_model_says_the_same_with_and_without(target: str, every: int) -> None:
    engine = Engine(DEFAULT_BUNDLE, target, threads=1, exact=True)
    engine._costs = FREE
    drafted, accepted = dict.fromkeys(KINDS, 0), dict.fromkeys(KINDS, 0)
    for messages in _examples()[::every]:
        engine.reset()
        plain = answer(engine, messages, max_tokens=24)
        for kind in KINDS:
            engine.reset()
            found = answer(engine, messages, max_tokens=24, speculate=kind)
            assert found.token_ids == plain.token_ids
            drafted[kind] += found.timings.draft_n
            accepted[kind] += found.timings.draft_n_accepted
    assert all(0 < accepted[kind] < drafted[kind] for kind in KINDS)


def _examples() -> list[list]:
    """Questions about the packaged pictures, one as JSON per picture, and some without any."""
    json_please = 'Answer as JSON with the keys "eyes", "mouth" and "state".'
    pictured = [
        [user_message(text, case.images)]
        for case in load_demo()
        for text in (json_please, case.turns[0].prompt)
    ]
    texts = ("one two one two one two", "What is the number plate?", 'Report {"a": ..., "b": ...}.')
    return [*pictured, *([user_message(text, [])] for text in texts)]


def test_fast_agrees_but_for_rounding(tiny_bundle: Bundle, oracle: Oracles) -> None:
    fast = Engine(tiny_bundle, "float", threads=1)
    fast._costs = FREE
    plain = answer(fast, QUESTION, max_tokens=40)
    left = state(fast)
    fast.reset()
    oracle(QUESTION, plain.token_ids, WRONG["every 5th"])
    found = answer(fast, QUESTION, max_tokens=40, speculate="lookup")
    assert found.token_ids == plain.token_ids
    for name, array in state(fast).items():
        np.testing.assert_allclose(array, left[name], rtol=1e-3, atol=1e-5, err_msg=name)
    assert found.timings.draft_n_accepted > 10


def test_costs_are_measured_once_and_leave_no_trace(tiny_bundle: Bundle) -> None:
    engine = Engine(tiny_bundle, "float", threads=1)
    plain = answer(engine, QUESTION, max_tokens=12)
    assert engine._costs is None
    left = state(engine)
    costs = engine.step_costs()
    assert_same_state(state(engine), left)
    assert min(costs.plain_ms, costs.wide_ms, costs.head_ms) > 0
    assert costs.width == 8
    found = answer(engine, QUESTION, max_tokens=12, speculate="lookup")
    assert engine.step_costs() is costs
    assert found.token_ids == plain.token_ids


def test_a_bundle_of_narrow_graphs_says_so(tiny_bundle: Bundle) -> None:
    engine = Engine(only_widths(tiny_bundle, 1), "float", threads=1)
    result = answer(engine, QUESTION, max_tokens=4, speculate="lookup")
    assert result.timings.draft_n == 0
    assert result.to_dict()["speculation_off"].startswith("the bundle has no graph for more than")


def test_an_unknown_way_is_refused(engine: Engine) -> None:
    with pytest.raises(UserError, match="speculate: 'magic' is none of off, forced, lookup, look"):
        engine.generate(QUESTION, speculate="magic")  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["forced", *KINDS])
@pytest.mark.parametrize("seed", range(4))
def test_what_a_form_forces_is_said_by_whole_steps(engine: Engine, kind: str, seed: int) -> None:
    schema = {
        "type": "object",
        "properties": {"warning lamp": {"enum": ["oil", "brake"]}, "on": {"type": "boolean"}},
        "required": ["warning lamp", "on"],
        "additionalProperties": False,
    }
    constraint = Constraint.json_schema(schema, engine.tokenizer)
    sampling = Sampling(temperature=0.7, seed=seed) if seed else Sampling()
    plain = answer(engine, QUESTION, sampling=sampling, constraint=constraint)
    left = state(engine)
    engine.reset()
    found = answer(engine, QUESTION, sampling=sampling, constraint=constraint, speculate=kind)
    assert found.token_ids == plain.token_ids
    assert_same_state(state(engine), left)
    assert found.timings.draft_n_accepted > 4


def test_without_a_form_nothing_is_forced(engine: Engine) -> None:
    result = answer(engine, QUESTION, max_tokens=8, speculate="forced")
    assert (result.timings.draft_n, result.speculation_off) == (0, None)


def costs(wide: float, head: float = 0.0, pair: float | None = None) -> StepCosts:
    return StepCosts(width=8, plain_ms=1.0, pair_ms=pair, wide_ms=wide, head_ms=head)


def speculation(found: StepCosts, kind: str = "lookup") -> Speculation:
    return Speculation(drafting.DRAFTERS[kind](99), found)


def test_steps_that_cost_too_much_are_never_taken() -> None:
    never = speculation(costs(wide=8.0))
    assert never.off == (
        "not even 8 tokens per step would pay: a step of 8 rows takes 8.0 times a plain one"
    )
    assert never.propose([1, 1, 1], 7) == []
    assert speculation(costs(wide=7.0)).off is None
    # The logits of all rows are what lookahead pays for, right or wrong.
    assert speculation(costs(wide=4.0, head=1.0)).off is None
    assert speculation(costs(wide=8.0, head=10.0), "lookahead").off is not None


def test_drafts_that_could_not_pay_are_not_run() -> None:
    found = speculation(costs(wide=3.0))
    assert found.propose([1, 1, 1], 2) == []
    assert found.propose([1, 1, 1], 3) == [1, 1, 1]
    assert found.propose([1, 1, 1], 0) == []
    assert found.off is None


def test_steps_of_fewer_rows_may_cost_less() -> None:
    found = costs(wide=3.0, pair=1.5)
    assert [found.rows_ms(rows) for rows in (2, 4, 8, 9)] == [1.5, 2.0, 3.0, 3.0]
    assert found.gain(4, tokens=4, logits=4) == 2.0
    assert speculation(found).propose([1, 1, 1], 1) == [1]
    assert speculation(costs(wide=3.0)).propose([1, 1, 1], 1) == []


def test_what_is_forced_comes_before_guesses_and_is_not_given_up() -> None:
    found = speculation(costs(wide=2.0))
    assert found.propose([1, 1, 1], 7, [5, 6]) == [5, 6]
    for _ in range(PATIENCE):
        found.record([5, 6], 0, [])
    assert found.off is None
    for _ in range(PATIENCE):
        assert found.propose([1, 1, 1], 7) == [1] * 7
        found.record([1] * 7, 0, [])
    assert found.off is not None
    assert found.propose([1, 1, 1], 7) == []
    assert found.propose([1, 1, 1], 7, [5, 6]) == [5, 6]
    assert found.propose([1, 1, 1], 7, [5]) == []  # two tokens do not pay for this step
    ahead = speculation(costs(wide=2.0), "lookahead")
    assert ahead.reads_answers
    ahead.propose([1, 1, 1], 7, [5, 6])
    assert not ahead.reads_answers


def test_speculation_ends_when_too_few_drafts_come_true() -> None:
    found = speculation(costs(wide=2.0))
    for accepted in (3, 0, 0):
        found.record([1] * 7, accepted, [])
        assert found.off is None
    assert PATIENCE == 4
    found.record([1] * 7, 0, [])
    assert (
        found.off == "1.8 tokens per step do not pay: a step of 8 rows takes 2.0 times a plain one"
    )
    assert (found.drafted, found.accepted) == (28, 3)
    assert found.propose([1, 1, 1], 7) == []


def test_old_luck_is_forgotten() -> None:
    found = speculation(costs(wide=2.0))
    for _ in range(20):
        found.record([1] * 7, 7, [])
    steps = 0
    while found.off is None:
        found.record([1] * 7, 0, [])
        steps += 1
    assert 0 < steps <= MEMORY
