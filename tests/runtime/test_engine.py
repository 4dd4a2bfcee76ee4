"""The engine against the reference model, and its promises about limits, streams and timings."""

from __future__ import annotations

import dataclasses
import random
from itertools import islice

import numpy as np
import pytest

from autoneural.bundle import Bundle
from autoneural.errors import UserError
from autoneural.runtime.engine import Engine
from autoneural.runtime.generation import Timings
from autoneural.runtime.sampling import Sampling
from tests.runtime.helpers import answer, ask, picture, reply

QUESTION = [ask("what is it?", picture(1))]


def random_conversation(seed: int) -> list:
    rng = random.Random(seed)
    words = ["what", "is", "a", "red", "lamp", "on", "é", "42", "?"]

    def text() -> str:
        return " ".join(rng.choices(words, k=rng.randint(1, 6)))

    images = [picture(rng.randint(0, 99)) for _ in range(rng.randint(0, 3))]
    earlier = [ask(text(), picture(7)), reply(text())] if rng.random() < 0.5 else []
    system = [{"role": "system", "content": text()}] if rng.random() < 0.5 else []
    return [*system, *earlier, ask(text(), *images)]


@pytest.mark.parametrize("seed", range(20))
def test_tokens_are_those_of_the_reference(engine: Engine, reference, seed: int) -> None:
    messages = random_conversation(seed)
    wanted = reference(engine, messages, 12)
    assert list(answer(engine, messages, max_tokens=12).token_ids) == wanted
    assert len(set(wanted)) > 2  # a model that repeats one token would prove nothing


def only_widths(bundle: Bundle, *widths: int) -> Bundle:
    target = bundle.target("float")
    graphs = tuple(
        g for g in target.graphs if g.role not in ("decode", "prefill") or g.width in widths
    )
    return dataclasses.replace(
        bundle, targets={"float": dataclasses.replace(target, graphs=graphs)}
    )


@pytest.mark.parametrize("widths", [(1,), (8,), (32,), (1, 8), (8, 32)], ids=str)
def test_chunks_and_padding_do_not_matter(
    engine: Engine, tiny_bundle: Bundle, widths: tuple[int, ...]
) -> None:
    other = Engine(only_widths(tiny_bundle, *widths), "float", threads=1)
    messages = [ask("what is a red lamp? is it on?", picture(1), picture(2))]
    wanted, found = (
        engine_._prefill(engine_.generate(messages)._prompt, Timings())
        for engine_ in (engine, other)
    )
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)
    expected = answer(engine, messages, max_tokens=16).token_ids
    assert answer(other, messages, max_tokens=16).token_ids == expected


def test_second_turn_reuses_the_first_and_agrees_with_a_fresh_engine(engine: Engine) -> None:
    first = [ask("what is it?", picture(1))]
    said = answer(engine, first, max_tokens=6)
    second = [*first, reply("a red lamp"), ask("is it on?")]
    cached = answer(engine, second, max_tokens=12)
    engine.reset()
    fresh = answer(engine, second, max_tokens=12)
    assert cached.token_ids == fresh.token_ids
    # The prompt ended inside a chunk of 8 or 32: all of it is shared, the answer is not.
    assert cached.usage.cached_tokens == said.usage.prompt_tokens
    assert cached.timings.prompt_n + cached.timings.cache_n == cached.usage.prompt_tokens
    assert fresh.usage.cached_tokens == 0


def test_another_picture_in_the_same_place_is_not_taken_for_the_first(engine: Engine) -> None:
    answer(engine, QUESTION, max_tokens=4)
    other = [ask("what is it?", picture(2))]
    after = answer(engine, other, max_tokens=12)
    engine.reset()
    assert after.token_ids == answer(engine, other, max_tokens=12).token_ids
    image_place = engine.processor(QUESTION).input_ids.tolist().index(engine.tokenizer.image_id)
    assert after.usage.cached_tokens <= image_place


def test_same_question_twice_gives_the_same_answer(engine: Engine) -> None:
    messages = [ask("what is a red lamp? is it on?", picture(1))]  # more than one chunk
    first = answer(engine, messages, max_tokens=12)
    again = answer(engine, messages, max_tokens=12)
    assert again.token_ids == first.token_ids
    assert 0 < again.usage.cached_tokens < again.usage.prompt_tokens


def test_images_of_earlier_turns_are_encoded_once(engine: Engine, monkeypatch) -> None:
    runs = []
    session = engine._encoder._session
    run = session.run
    monkeypatch.setattr(session, "run", lambda feeds: runs.append(1) or run(feeds))
    unseen = picture(123)
    answer(engine, [ask("a", unseen)], max_tokens=1)
    answer(engine, [ask("a", unseen), reply("b"), ask("c", unseen)], max_tokens=1)
    assert len(runs) == 1


def test_image_cache_is_bounded(engine: Engine) -> None:
    for seed in range(200, 240):
        engine._encoder(engine.processor.pixels([picture(seed)]))
    assert len(engine._encoder._cache) == 32


def test_greedy_ends_at_the_end_token(engine: Engine, monkeypatch) -> None:
    tokens = answer(engine, QUESTION, max_tokens=12).token_ids
    monkeypatch.setattr(engine.tokenizer, "eos_id", tokens[3])
    result = answer(engine, QUESTION, max_tokens=12)
    assert result.token_ids == tokens[: tokens.index(tokens[3]) + 1]
    assert result.finish_reason == "stop"


def test_stop_string_across_tokens_is_cut_and_never_shown(engine: Engine) -> None:
    plain = answer(engine, QUESTION, max_tokens=24)
    pieces = [p.text for p in islice(engine.generate(QUESTION, max_tokens=24), 24)]
    border = len("".join(pieces[:3]))
    stop = plain.text[border - 1 : border + 1]
    result = answer(engine, QUESTION, max_tokens=24, stop=(stop, "not in there"))
    assert result.text == plain.text[: plain.text.index(stop)]
    assert result.finish_reason == "stop_sequence"
    assert len(result.token_ids) < len(plain.token_ids)


def test_length_by_max_tokens_and_by_context(engine: Engine) -> None:
    result = answer(engine, QUESTION, max_tokens=3)
    assert (result.finish_reason, len(result.token_ids)) == ("length", 3)
    result = answer(engine, QUESTION)
    assert result.finish_reason == "length"
    assert result.usage.to_dict()["total_tokens"] == engine.context


def test_prompt_that_just_fits_is_right_to_the_last_token(engine: Engine, reference) -> None:
    room = engine.context - 3 - len(engine.processor([ask("1")]).input_ids)
    messages = [ask("1" * (room + 1))]
    result = answer(engine, messages, max_tokens=99)
    assert len(result.token_ids) == 3
    assert list(result.token_ids) == reference(engine, messages, 3)


def test_prompt_beyond_the_context_is_refused_before_work(engine: Engine, monkeypatch) -> None:
    monkeypatch.setattr(engine, "_prefill", None)
    tokens = len(engine.processor([ask("1" * 200, picture(1), picture(2))]).input_ids)
    with pytest.raises(UserError, match=rf"{tokens} tokens, 2 x 4 .* holds {engine.context}"):
        engine.generate([ask("1" * 200, picture(1), picture(2))])


@pytest.mark.parametrize(
    ("messages", "complaint"),
    [
        ([ask(" \n ")], "prompt: empty"),
        ([{"role": "user", "content": ""}], "prompt: empty"),
        ([], "messages: expected a list"),
        ([ask("hi", None)], r"messages: image 0 has no picture"),  # type: ignore[arg-type]
    ],
    ids=["blank", "no text", "no message", "no picture"],
)
def test_bad_prompts_are_one_clear_line(engine: Engine, messages: list, complaint: str) -> None:
    with pytest.raises(UserError, match=complaint) as caught:
        engine.generate(messages)
    assert "\n" not in str(caught.value)


def test_image_alone_is_a_prompt(engine: Engine) -> None:
    message = {"role": "user", "content": [{"type": "image", "image": picture(1)}]}
    assert len(answer(engine, [message], max_tokens=2).token_ids) == 2


def test_an_empty_stop_text_is_refused(engine: Engine) -> None:
    with pytest.raises(UserError, match="stop: an empty text"):
        engine.generate(QUESTION, stop=["now", ""])


def test_max_tokens_zero_is_refused(engine: Engine) -> None:
    with pytest.raises(UserError, match="max_tokens: 0"):
        engine.generate(QUESTION, max_tokens=0)


def test_close_stops_and_leaves_the_engine_usable(engine: Engine) -> None:
    whole = answer(engine, QUESTION, max_tokens=24)
    engine.reset()
    generation = engine.generate(QUESTION, max_tokens=24)
    first = next(generation)
    generation.close()
    result = generation.result
    assert result.finish_reason == "cancelled"
    assert result.text.startswith(first.text)
    assert len(result.token_ids) < 24
    with pytest.raises(StopIteration):
        next(generation)
    assert answer(engine, QUESTION, max_tokens=24).token_ids == whole.token_ids


def test_interrupt_inside_a_step_leaves_the_engine_usable(engine: Engine, monkeypatch) -> None:
    whole = answer(engine, QUESTION, max_tokens=24)
    generation = engine.generate(QUESTION, max_tokens=24)
    next(generation)
    with monkeypatch.context() as patch:
        patch.setattr(np, "ascontiguousarray", _interrupt)  # in the middle of a commit
        with pytest.raises(KeyboardInterrupt):
            list(generation)
    assert generation.result.finish_reason == "cancelled"
    assert answer(engine, QUESTION, max_tokens=24).token_ids == whole.token_ids


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def test_result_before_the_end_is_an_error(engine: Engine) -> None:
    generation = engine.generate(QUESTION)
    with pytest.raises(RuntimeError, match="not finished"):
        _ = generation.result


def test_seeded_sampling_repeats_and_seeds_differ(engine: Engine) -> None:
    def tokens(seed: int) -> tuple[int, ...]:
        sampling = Sampling(temperature=2.0, seed=seed)
        return answer(engine, QUESTION, sampling=sampling, max_tokens=12).token_ids

    assert tokens(1) == tokens(1)
    assert len({tokens(seed) for seed in range(4)}) == 4


def test_timings_have_the_fields_of_llama_cpp(engine: Engine) -> None:
    result = answer(engine, [ask("what is it?", picture(300))], max_tokens=5)
    timings = result.timings.to_dict()
    assert set(timings) == {
        *("cache_n", "prompt_n", "prompt_ms", "prompt_per_token_ms", "prompt_per_second"),
        *("predicted_n", "predicted_ms", "predicted_per_token_ms", "predicted_per_second"),
        *("draft_n", "draft_n_accepted"),
        *("ttft_ms", "image_encode_ms", "image_n"),
    }
    assert (timings["image_n"], timings["predicted_n"]) == (1, 5)
    assert timings["prompt_per_second"] == pytest.approx(
        1000 * timings["prompt_n"] / timings["prompt_ms"]
    )
    assert timings["predicted_per_second"] == pytest.approx(4000 / timings["predicted_ms"])
    assert timings["ttft_ms"] > timings["image_encode_ms"] + timings["prompt_ms"] > 0


def test_rates_that_were_not_measured_are_none(engine: Engine) -> None:
    timings = answer(engine, [ask("hi")], max_tokens=1).timings.to_dict()
    assert timings["predicted_per_second"] is None
    assert timings["image_encode_ms"] == pytest.approx(0, abs=1)


def test_provider_report_says_what_ran_where(engine: Engine) -> None:
    report = engine.provider_report()
    assert [(r["role"], r["width"]) for r in report] == [
        *(("vision", 0), ("decode", 1), ("prefill", 8), ("prefill", 32), ("head", 1))
    ]
    assert all(list(row["nodes"]) == ["CPUExecutionProvider"] for row in report)  # type: ignore[call-overload]


def test_unknown_target_names_those_there_are(tiny_bundle: Bundle) -> None:
    with pytest.raises(UserError, match="no target 'qdq'; it holds float"):
        Engine(tiny_bundle, "qdq")
