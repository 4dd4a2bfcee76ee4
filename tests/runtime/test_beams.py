"""Beam search: the algorithm is transformers', the forks leave every beam its own state."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from autoneural.data.tokenizer import Tokenizer
from autoneural.errors import UserError
from autoneural.runtime import Engine, Sampling, Watch
from autoneural.runtime.beams import BeamGeneration
from autoneural.runtime.constraint import Constraint
from autoneural.runtime.generation import Prompt
from tests.runtime.helpers import CONVERSATIONS, answer, ask

WORDS = 24


@dataclass
class Bigrams:
    """An engine whose next token hangs on the last one alone: a table is all of the model."""

    table: np.ndarray
    tokenizer: Tokenizer
    said: tuple[int, ...] = ()
    _decoder: Any = field(init=False)

    def __post_init__(self) -> None:
        self._decoder = SimpleNamespace(
            here=(),
            fork=lambda root: self.said,
            adopt=lambda fork: setattr(self, "said", fork),
        )

    def _prefill(self, prompt: Prompt, timings: Any) -> np.ndarray:
        return self.table[int(prompt.inputs.input_ids[-1])]

    def _decode(self, token: int) -> np.ndarray:
        self.said = (*self.said, token)
        return self.table[token]


def search(table: np.ndarray, tokenizer: Tokenizer, beams: int, most: int) -> list[int]:
    inputs: Any = SimpleNamespace(input_ids=np.array([5]))
    prompt = Prompt(
        inputs=inputs, sampling=Sampling(), max_tokens=most, stop=(), started=0.0, beams=beams
    )
    engine: Any = Bigrams(table, tokenizer)
    generation = BeamGeneration(engine, prompt)
    for _ in generation:
        pass
    tokens = list(generation.result.token_ids)
    assert engine.said == tuple(tokens[:-1])
    return tokens


def theirs(table: np.ndarray, eos: int, beams: int, most: int) -> list[int]:
    """transformers' `generate` over the same table."""
    torch = pytest.importorskip("torch")
    from transformers import GenerationMixin, PretrainedConfig, PreTrainedModel
    from transformers.modeling_outputs import CausalLMOutput

    class Table(PreTrainedModel, GenerationMixin):
        config_class = PretrainedConfig
        main_input_name = "input_ids"

        def __init__(self, config: Any) -> None:
            super().__init__(config)
            self.table = torch.nn.Parameter(torch.from_numpy(table))
            self.post_init()

        def forward(self, input_ids: Any, attention_mask: Any = None, **_: Any) -> Any:
            return CausalLMOutput(logits=self.table[input_ids])

        def prepare_inputs_for_generation(self, input_ids: Any, **kwargs: Any) -> Any:
            return {"input_ids": input_ids}

    model: Any = Table(
        PretrainedConfig(vocab_size=WORDS, num_hidden_layers=1, is_encoder_decoder=False)
    )
    out = model.generate(
        torch.tensor([[5]]),
        attention_mask=torch.ones(1, 1, dtype=torch.long),
        num_beams=beams,
        do_sample=False,
        max_new_tokens=most,
        eos_token_id=eos,
        pad_token_id=eos,
        length_penalty=1.0,
        early_stopping=False,
        use_cache=False,
    )
    return out[0, 1:].tolist()


@pytest.mark.parametrize("beams", [2, 3, 5])
def test_it_is_the_search_of_transformers(tiny_checkpoint, beams: int) -> None:
    tokenizer = tiny_checkpoint.tokenizer
    eos = tokenizer.eos_id
    assert eos < WORDS
    lengths = set()
    for seed in range(12):
        random = np.random.default_rng(seed)
        table = random.normal(size=(WORDS, WORDS)).astype(np.float32) * 2
        table[:, eos] += 1.5 * random.random()
        ours = search(table, tokenizer, beams, 8)
        assert ours == theirs(table, eos, beams, 8)
        lengths.add(len(ours))
    assert len(lengths) > 2  # some ended, and not all at once


def log_probability(engine: Engine, messages: Any, tokens: Any) -> float:
    """Mean over the tokens, each computed anew from the whole beginning."""
    total = 0.0
    for index, token in enumerate(tokens):
        engine.reset()
        logits = engine.logits(messages, tokens[:index]).astype(np.float64)
        total += logits[token] - logits.max() - np.log(np.exp(logits - logits.max()).sum())
    return total / len(tokens)


def test_two_tokens_of_all_beams_are_the_likeliest_pair(engine: Engine) -> None:
    """With a beam per word the search leaves nothing out."""
    messages = CONVERSATIONS[1]
    words = len(engine.logits(messages))
    found = answer(engine, messages, beams=words, max_tokens=2).token_ids
    first = engine.logits(messages).astype(np.float64)
    first -= first.max() + np.log(np.exp(first - first.max()).sum())
    best: tuple[float, tuple[int, ...]] = (
        first[engine.tokenizer.eos_id],
        (engine.tokenizer.eos_id,),
    )
    for token in range(words):
        if token == engine.tokenizer.eos_id:
            continue
        after = engine.logits(messages, [token]).astype(np.float64)
        after -= after.max() + np.log(np.exp(after - after.max()).sum())
        pair = (first[token] + after.max()) / 2, (token, int(after.argmax()))
        best = max(best, pair)
    assert found == best[1]


def test_every_beam_has_a_state_of_its_own(engine: Engine) -> None:
    for messages in CONVERSATIONS:
        engine.reset()
        plain = answer(engine, messages, max_tokens=10)
        engine.reset()
        found = answer(engine, messages, beams=4, max_tokens=10)
        likelier = log_probability(engine, messages, found.token_ids)
        assert likelier >= log_probability(engine, messages, plain.token_ids) - 1e-4
        assert found.timings.predicted_n == len(found.token_ids)


def test_the_next_turn_goes_on_from_the_answer(engine: Engine) -> None:
    first = answer(engine, [ask("what?")], beams=3, max_tokens=6)
    turn = [ask("what?"), {"role": "assistant", "content": first.text}, ask("and now?")]
    kept = answer(engine, turn, max_tokens=6)
    engine.reset()
    anew = answer(engine, turn, max_tokens=6)
    assert kept.token_ids == anew.token_ids
    assert kept.usage.cached_tokens > 0


def test_beams_follow_a_constraint_and_stop_at_stop_strings(engine: Engine) -> None:
    pytest.importorskip("llguidance")
    constraint = Constraint.regex("[0-9]{3}", engine.tokenizer)
    for _ in range(2):  # it may serve again
        found = answer(engine, [ask("what?")], beams=3, constraint=constraint)
        assert found.text.isdigit()
        assert len(found.text) == 3
        assert found.finish_reason == "stop"
    whole = answer(engine, [ask("what?")], beams=3, max_tokens=8)
    stop = whole.text[1:3]
    found = answer(engine, [ask("what?")], beams=3, max_tokens=8, stop=[stop])
    assert stop not in found.text


def test_a_watch_ends_the_search(engine: Engine) -> None:
    class Enough(Exception):
        pass

    class Impatient(Watch):
        steps = 0

        def step(self) -> None:
            self.steps += 1
            if self.steps > 5:
                raise Enough

    inputs = engine.processor([ask("what?")])
    with pytest.raises(Enough):
        list(engine.answer(inputs, beams=3, max_tokens=30, watch=Impatient()))
    assert answer(engine, [ask("what?")], max_tokens=3).token_ids


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"beams": 0}, "beams: 0 is not at least 1"),
        ({"beams": 2, "sampling": Sampling(temperature=0.5)}, "leave temperature, penalties out"),
        ({"beams": 2, "sampling": Sampling(presence_penalty=1)}, "leave temperature, penalties"),
        ({"beams": 2, "speculate": "lookup"}, "leave speculate out"),
    ],
)
def test_what_beams_cannot_have_is_refused(
    engine: Engine, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        engine.generate([ask("what?")], **options)
