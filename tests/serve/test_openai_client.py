"""The official client against the server: what it reads is what the engine says."""

from __future__ import annotations

import base64
import dataclasses
import io

import openai
import pytest
from PIL import Image

from autoneural.data.video import read_frames
from autoneural.demo import EXAMPLES
from autoneural.runtime import Engine
from autoneural.serve.prompts import sampling
from autoneural.serve.schemas import ChatRequest
from tests.serve.helpers import ask, data_url, picture_bytes, said

DRIVER = (EXAMPLES / "driver.jpg").read_bytes()
CLUSTER = (EXAMPLES / "cluster.jpg").read_bytes()
STATE = "Is the driver alert, drowsy, asleep or distracted?"
MODEL = "cockpit-tiny"


def jpeg(data: bytes) -> str:
    return data_url(data, "image/jpeg")


def engine_says(engine: Engine, messages: list) -> str:
    """The engine's own answer to messages in OpenAI's form."""

    def part(each: dict) -> dict:
        if each["type"] == "text":
            return each
        data = each["image_url"]["url"].partition(",")[2]
        return {"type": "image", "image": base64.b64decode(data)}

    def turn(message: dict) -> dict:
        content = message["content"]
        plain = isinstance(content, str)
        return {**message, "content": content if plain else [part(each) for each in content]}

    generation = engine.generate([turn(message) for message in messages])
    return "".join(piece.text for piece in generation)


def test_models_are_listed_and_found(oai: openai.OpenAI) -> None:
    assert [model.id for model in oai.models.list()] == [MODEL]
    found = oai.models.retrieve(MODEL)
    assert found.architecture["input_modalities"] == ["text", "image"]  # type: ignore[attr-defined]
    with pytest.raises(openai.NotFoundError) as caught:
        oai.models.retrieve("org/other")
    assert (caught.value.param, caught.value.code) == ("model", "model_not_found")


def test_an_answer_about_a_picture(oai: openai.OpenAI, alone: Engine) -> None:
    messages = [ask(STATE, jpeg(DRIVER))]
    reply = oai.chat.completions.create(model=MODEL, messages=messages)
    assert reply.choices[0].message.content == engine_says(alone, messages) == "drowsy"
    assert reply.choices[0].message.role == "assistant"
    assert reply.choices[0].finish_reason == "stop"
    assert reply.object == "chat.completion"
    usage = reply.usage
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
    assert usage.prompt_tokens > 64  # the picture is among them
    timings = reply.timings  # type: ignore[attr-defined]
    assert timings["ttft_ms"] >= timings["prompt_ms"] > 0
    assert timings["prompt_n"] + timings["cache_n"] == usage.prompt_tokens
    assert {"image_encode_ms", "image_n", "queue_ms", "predicted_per_second"} <= set(timings)


def test_pictures_in_two_turns_and_several_in_one(oai: openai.OpenAI, alone: Engine) -> None:
    messages = [
        ask(STATE, jpeg(DRIVER)),
        said("drowsy"),
        ask("What speed is shown?", jpeg(CLUSTER)),
    ]
    reply = oai.chat.completions.create(model=MODEL, messages=messages)
    assert reply.choices[0].message.content == engine_says(alone, messages)
    # The first picture counts: with another one in its place the model reads another prompt.
    swapped = [ask(STATE, jpeg(CLUSTER)), *messages[1:]]
    logprobs = [
        oai.chat.completions.create(model=MODEL, messages=each, logprobs=True).choices[0].logprobs
        for each in (messages, swapped)
    ]
    assert logprobs[0] != logprobs[1]
    both = [ask(STATE, jpeg(CLUSTER), jpeg(DRIVER))]
    reply = oai.chat.completions.create(model=MODEL, messages=both)
    assert reply.choices[0].message.content == engine_says(alone, both)
    assert reply.usage.prompt_tokens > 128


def test_the_names_of_responses_mean_the_same(oai: openai.OpenAI, http) -> None:
    content = [
        {"type": "input_image", "image_url": jpeg(DRIVER)},
        {"type": "input_text", "text": STATE},
    ]
    body = {"messages": [{"role": "user", "content": content}]}
    reply = http.post("/v1/chat/completions", json=body)
    wanted = oai.chat.completions.create(model=MODEL, messages=[ask(STATE, jpeg(DRIVER))])
    assert reply.json()["choices"][0]["message"]["content"] == wanted.choices[0].message.content
    assert reply.json()["usage"]["prompt_tokens"] == wanted.usage.prompt_tokens


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "BMP", "GIF"])
def test_every_allowed_format_is_read(oai: openai.OpenAI, form: str) -> None:
    url = data_url(picture_bytes(form=form), f"image/{form.lower()}")
    reply = oai.chat.completions.create(model=MODEL, messages=[ask("what?", url)], max_tokens=1)
    assert reply.usage.completion_tokens == 1


def test_a_stream_says_the_same_in_pieces(oai: openai.OpenAI) -> None:
    messages = [ask("What speed is shown?", jpeg(CLUSTER))]
    whole = oai.chat.completions.create(model=MODEL, messages=messages)
    chunks = list(
        oai.chat.completions.create(
            model=MODEL, messages=messages, stream=True, stream_options={"include_usage": True}
        )
    )
    *texts, last, usage = chunks
    assert "".join(c.choices[0].delta.content or "" for c in texts) == (
        whole.choices[0].message.content
    )
    assert texts[0].choices[0].delta.role == "assistant"
    assert all(chunk.choices[0].delta.role is None for chunk in texts[1:])
    assert last.choices[0].finish_reason == "stop"
    assert last.timings["predicted_n"] == usage.usage.completion_tokens  # type: ignore[attr-defined]
    assert usage.choices == []
    assert usage.usage.total_tokens == whole.usage.total_tokens
    assert {chunk.id for chunk in chunks} == {chunks[0].id}


def test_a_stream_without_usage_has_none(oai: openai.OpenAI) -> None:
    chunks = list(
        oai.chat.completions.create(
            model=MODEL, messages=[ask("What is it?", jpeg(DRIVER))], stream=True, max_tokens=1
        )
    )
    assert chunks[-1].choices[0].finish_reason == "length"
    assert all(chunk.usage is None for chunk in chunks)


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
def test_both_names_of_the_limit_hold(oai: openai.OpenAI, name: str) -> None:
    messages = [ask("What speed is shown?")]
    reply = oai.chat.completions.create(model=MODEL, messages=messages, **{name: 1})
    assert reply.usage.completion_tokens == 1
    assert reply.choices[0].finish_reason == "length"


def test_stop_strings_end_an_answer_and_are_not_shown(oai: openai.OpenAI) -> None:
    messages = [ask(STATE, jpeg(DRIVER))]
    reply = oai.chat.completions.create(model=MODEL, messages=messages, stop=["ow"], logprobs=True)
    assert reply.choices[0].message.content == "dr"
    assert reply.choices[0].finish_reason == "stop"
    shown = b"".join(bytes(t.bytes) for t in reply.choices[0].logprobs.content)
    assert b"drowsy".startswith(shown)
    chunks = oai.chat.completions.create(model=MODEL, messages=messages, stop="ow", stream=True)
    assert "".join(c.choices[0].delta.content or "" for c in chunks) == "dr"


def test_seeds_repeat_and_answers_of_one_request_differ(oai: openai.OpenAI) -> None:
    def answers(seed: int) -> list:
        reply = oai.chat.completions.create(
            model=MODEL,
            messages=[ask("What is the plate?")],
            temperature=2,
            seed=seed,
            n=4,
            max_tokens=8,
        )
        assert [choice.index for choice in reply.choices] == [0, 1, 2, 3]
        return [choice.message.content for choice in reply.choices]

    first = answers(1)
    assert first == answers(1)
    assert first != answers(9)
    assert len(set(first)) > 1


def test_sampling_fields_reach_the_engine(oai: openai.OpenAI, http) -> None:
    def text(**fields) -> str:
        body = {"messages": [ask("What is the plate?")], "max_tokens": 12, "seed": 3, **fields}
        return http.post("/v1/chat/completions", json=body).json()["choices"][0]["message"][
            "content"
        ]

    greedy = text()
    hot = text(temperature=2)
    assert hot != greedy
    assert text(temperature=2, top_k=1) == greedy
    assert text(temperature=2, top_p=0) == greedy
    assert text(temperature=2, min_p=1) == greedy
    assert text(repetition_penalty=10) != greedy


def test_penalties_of_openai_reach_the_engine(oai: openai.OpenAI) -> None:
    def text(**fields) -> str:
        reply = oai.chat.completions.create(
            model=MODEL, messages=[ask("Say it again and again.")], max_tokens=24, **fields
        )
        return reply.choices[0].message.content

    def both(penalty: float) -> dict[str, float]:
        return {"presence_penalty": penalty, "frequency_penalty": penalty}

    assert len({text(**both(penalty)) for penalty in (-2.0, 0.0, 2.0)}) == 3
    completion = oai.completions.create(model=MODEL, prompt="a a a", max_tokens=4, **both(1.5))
    assert completion.usage.completion_tokens > 0


def test_every_sampling_field_has_its_place() -> None:
    fields = {"temperature": 0.5, "top_k": 3, "top_p": 0.25, "min_p": 0.125, "seed": 4}
    fields |= {"repetition_penalty": 1.5, "presence_penalty": -0.5, "frequency_penalty": 0.75}
    request = ChatRequest.model_validate({"messages": [ask("a")], **fields})
    assert dataclasses.asdict(sampling(request)) == fields


def test_logprobs_are_those_of_the_model(oai: openai.OpenAI) -> None:
    messages = [ask(STATE, jpeg(DRIVER))]
    reply = oai.chat.completions.create(
        model=MODEL, messages=messages, logprobs=True, top_logprobs=3
    )
    tokens = reply.choices[0].logprobs.content
    assert "".join(token.token for token in tokens) == "drowsy"
    for token in tokens:
        assert token.top_logprobs[0].token == token.token  # greedy
        assert len(token.top_logprobs) == 3
        ordered = [rival.logprob for rival in token.top_logprobs]
        assert ordered == sorted(ordered, reverse=True)
        assert token.logprob <= 0
    chunks = oai.chat.completions.create(
        model=MODEL, messages=messages, logprobs=True, top_logprobs=3, stream=True
    )
    streamed = [t for c in chunks if c.choices[0].logprobs for t in c.choices[0].logprobs.content]
    assert streamed == tokens


def test_plain_completions(oai: openai.OpenAI) -> None:
    reply = oai.completions.create(model=MODEL, prompt="The driver", logprobs=2)
    choice = reply.choices[0]
    assert reply.usage.completion_tokens <= 16  # OpenAI's default for this route
    assert "".join(choice.logprobs.tokens) == choice.text
    assert choice.logprobs.text_offset[0] == 0
    assert all(len(top) == 2 for top in choice.logprobs.top_logprobs)
    chunks = oai.completions.create(model=MODEL, prompt="The driver", stream=True)
    assert "".join(chunk.choices[0].text for chunk in chunks) == choice.text


def test_completions_of_ids_and_of_several_prompts(oai: openai.OpenAI, http) -> None:
    tokens = http.post("/tokenize", json={"content": "The driver", "add_special": True})
    ids = tokens.json()["tokens"]
    one = oai.completions.create(model=MODEL, prompt="The driver")
    assert oai.completions.create(model=MODEL, prompt=ids).choices[0].text == one.choices[0].text
    other = oai.completions.create(model=MODEL, prompt="Speed")
    both = oai.completions.create(model=MODEL, prompt=["The driver", "Speed"], n=2)
    texts = [choice.text for choice in both.choices]
    assert texts == [one.choices[0].text] * 2 + [other.choices[0].text] * 2
    assert both.usage.prompt_tokens == one.usage.prompt_tokens + other.usage.prompt_tokens


def test_the_chat_template_by_hand_gives_the_chat_answer(oai: openai.OpenAI, served) -> None:
    turns = [{"role": "user", "content": "Is the driver alert?"}]
    prompt = served.processor.tokenizer.apply_chat_template(turns)
    plain = oai.completions.create(model=MODEL, prompt=prompt)
    chat = oai.chat.completions.create(model=MODEL, messages=turns)
    assert plain.choices[0].text == chat.choices[0].message.content
    assert plain.usage.prompt_tokens == chat.usage.prompt_tokens


def test_errors_have_the_clients_types(oai: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        oai.chat.completions.create(model=MODEL, messages=[ask("a")], temperature=3)
    assert caught.value.param == "temperature"
    with pytest.raises(openai.NotFoundError) as caught:
        oai.chat.completions.create(model="gpt-x", messages=[ask("a")])
    assert caught.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError) as caught:
        oai.chat.completions.create(model=MODEL, messages=[ask("word " * 2000)])
    assert caught.value.code == "context_length_exceeded"
    assert caught.value.param == "messages"


def test_answers_do_not_depend_on_who_asked_before(oai: openai.OpenAI, alone: Engine) -> None:
    long = [ask("Describe. " * 20 + STATE, jpeg(DRIVER), jpeg(CLUSTER))]
    follow = [*long, said("drowsy"), ask("Should the car suggest a break now?")]

    def bits(messages: list) -> list:
        reply = oai.chat.completions.create(
            model=MODEL, messages=messages, logprobs=True, top_logprobs=5
        )
        return [t.model_dump() for t in reply.choices[0].logprobs.content]

    oai.chat.completions.create(model=MODEL, messages=[ask("something else")])
    first = bits(follow)
    oai.chat.completions.create(model=MODEL, messages=long)
    assert bits(follow) == first
    again = oai.chat.completions.create(model=MODEL, messages=follow)
    assert again.usage.prompt_tokens_details.cached_tokens > 0  # and yet something is kept
    assert again.choices[0].message.content == engine_says(alone, follow)


def test_an_upright_photograph_is_what_the_engine_sees(oai: openai.OpenAI, alone: Engine) -> None:
    # Exif orientation: what a phone writes for a picture that is to be turned.
    image = Image.open(io.BytesIO(DRIVER))
    exif = image.getexif()
    exif[0x0112] = 6
    file = io.BytesIO()
    image.save(file, "JPEG", exif=exif)
    messages = [ask(STATE, jpeg(file.getvalue()))]
    reply = oai.chat.completions.create(model=MODEL, messages=messages)
    assert reply.choices[0].message.content == engine_says(alone, messages)


def test_frames_of_a_clip_are_an_ordered_list_and_cost_once(http, alone: Engine, tmp_path) -> None:
    first, *rest = [Image.new("RGB", (64, 64), (40 * n, 90, 0)) for n in range(4)]
    first.save(tmp_path / "a.gif", save_all=True, append_images=rest, duration=1000)
    frames = list(read_frames(tmp_path / "a.gif", 1))
    urls = []
    for frame in frames:
        file = io.BytesIO()
        frame.save(file, "PNG")
        urls.append(data_url(file.getvalue()))
    body = {"messages": [ask("What changes?", *urls)], "max_tokens": 8}
    reply = http.post("/v1/chat/completions", json=body).json()
    content = reply["choices"][0]["message"]["content"]
    assert content == engine_says(alone, body["messages"])
    assert reply["timings"]["image_n"] == 4
    body["messages"] = [ask("And now?", *urls[1:], data_url(picture_bytes(77)))]
    assert http.post("/v1/chat/completions", json=body).json()["timings"]["image_n"] == 1
