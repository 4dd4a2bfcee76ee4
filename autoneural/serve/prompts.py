"""Requests -> what the model reads. Runs on a thread: pictures and long texts take their time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from autoneural.data.messages import Message as Turn
from autoneural.data.messages import is_blank
from autoneural.data.processor import ModelInputs
from autoneural.data.tool_calls import normalise_tool_calls, render_calls
from autoneural.errors import UserError
from autoneural.runtime import Sampling
from autoneural.serve.errors import ApiError, invalid, of_user_error
from autoneural.serve.forms import PLAIN, Form
from autoneural.serve.images import ImageReader
from autoneural.serve.models import Served
from autoneural.serve.schemas import ChatRequest, CompletionRequest, Generate, Message, Part
from autoneural.serve.settings import MAX_CHOICES, MAX_IMAGES
from autoneural.serve.worker import Run

_IMAGE_PARTS = ("image_url", "input_image")


def chat_runs(
    served: Served, request: ChatRequest, read: ImageReader, form: Form = PLAIN
) -> list[Run]:
    """One run per answer that was asked for. Raises ApiError (400) naming the field."""
    _check_images(served, request.messages)
    texts = [text for i, m in enumerate(request.messages) for text in _texts(m, f"messages[{i}]")]
    _check_length(served, sum(len(text.encode("utf-8", "replace")) for text in texts), "messages")
    turns = [_turn(served, m, f"messages[{i}]", read) for i, m in enumerate(request.messages)]
    _require_question(turns)
    try:
        inputs = served.processor(turns, tools=form.tools)
    except UserError as error:
        raise of_user_error(error, "messages") from error
    _check_fits(served, inputs, "messages")
    return [Run(inputs, sampling(request, number), form) for number in range(request.n or 1)]


def image_urls(request: Generate) -> Iterator[str]:
    """Where the pictures of a request are."""
    for message in request.messages if isinstance(request, ChatRequest) else ():
        for part in message.content or ():
            if part.type in _IMAGE_PARTS and part.image_url is not None:
                yield part.image_url.url


def completion_runs(served: Served, request: CompletionRequest, form: Form = PLAIN) -> list[Run]:
    """One run per prompt and answer; texts are read with their special tokens."""
    prompts = _prompts(request.prompt)
    count = request.n or 1
    if not prompts or len(prompts) * count > MAX_CHOICES:
        raise invalid("prompt", f"1 to {MAX_CHOICES} answers at once, not {len(prompts) * count}")
    inputs = [_plain_inputs(served, prompt) for prompt in prompts]
    samplings = [sampling(request, number) for number in range(count)]
    return [Run(each, how, form) for each in inputs for how in samplings]


def sampling(request: Generate, number: int = 0) -> Sampling:
    """The settings of answer `number`: with a seed, each answer has its own."""
    seed = None if request.seed is None else (request.seed + number) % 2**64
    return Sampling(
        temperature=request.temperature or 0.0,
        top_k=max(request.top_k or 0, 0),
        # OpenAI allows 0, which keeps the most likely token alone, as the smallest share does.
        top_p=max(1.0 if request.top_p is None else request.top_p, 1e-9),
        min_p=request.min_p or 0.0,
        repetition_penalty=request.repetition_penalty or 1.0,
        presence_penalty=request.presence_penalty or 0.0,
        frequency_penalty=request.frequency_penalty or 0.0,
        seed=seed,
    )


def _check_images(served: Served, messages: Sequence[Message]) -> None:
    """Before anything is decoded: not more pictures than are allowed, or than could ever fit."""
    found = 0
    for at, message in enumerate(messages):
        for number, part in enumerate(message.content or ()):
            found += part.type in _IMAGE_PARTS
            if found > MAX_IMAGES:
                where = f"messages[{at}].content[{number}]"
                raise invalid(where, f"more than {MAX_IMAGES} images", "too_many_images")
    least = found * served.bundle.processor.tokens_per_image
    if least >= served.context:
        raise _too_long(served, "messages", f"{found} images have {least} tokens")


def _check_length(served: Served, size: int, param: str) -> None:
    """Refuse what cannot fit before it is tokenised, which takes long for megabytes."""
    least = -(-size // served.longest_token)
    if least >= served.context:
        raise _too_long(served, param, f"{size} bytes have at least {least} tokens")


def _check_fits(served: Served, inputs: ModelInputs, param: str) -> None:
    tokens = len(inputs.input_ids)
    if tokens >= served.context:
        raise _too_long(served, param, f"the prompt has {tokens} tokens")


def _too_long(served: Served, param: str, found: str) -> ApiError:
    text = f"{found}, but the context of {served.name} holds {served.context}, answer included"
    return invalid(param, text, "context_length_exceeded")


def _turn(served: Served, message: Message, where: str, read: ImageReader) -> Turn:
    if message.content is None and not message.tool_calls:
        raise invalid(f"{where}.content", "missing; expected a text or a list of parts")
    parts = [
        _part(served, part, f"{where}.content[{number}]", read)
        for number, part in enumerate(message.content or ())
    ]
    role = "system" if message.role == "developer" else message.role
    if role == "assistant" and any(part["type"] == "image" for part in parts):
        raise invalid(f"{where}.content", "a turn of the assistant cannot hold an image")
    calls = {"tool_calls": message.tool_calls} if message.tool_calls else {}
    return {"role": role, "content": parts, **calls}


def _texts(message: Message, where: str) -> list[str]:
    """The texts of a turn, as the prompt will have them at least."""
    texts = [part.text or "" for part in message.content or ()]
    try:
        calls = normalise_tool_calls(message.tool_calls or (), f"{where}.tool_calls")
    except UserError as error:
        raise of_user_error(error, where) from error
    return [*texts, render_calls(calls)] if calls else texts


def _part(served: Served, part: Part, where: str, read: ImageReader) -> dict[str, Any]:
    if part.type in _IMAGE_PARTS:
        if part.image_url is None:
            raise invalid(f"{where}.image_url", "missing")
        picture = read(part.image_url.url, served.processor, f"{where}.image_url")
        return {"type": "image", "image": picture}
    if part.text is None:
        raise invalid(f"{where}.text", "missing")
    return {"type": "text", "text": part.text}


def _require_question(turns: Sequence[Turn]) -> None:
    last = turns[-1]
    if last["role"] == "tool":  # may well have found nothing
        return
    if is_blank(last):
        param = f"messages[{len(turns) - 1}].content"
        raise invalid(param, "empty; write a question or add an image")


def _prompts(prompt: str | list[str] | list[int] | list[list[int]]) -> list[str] | list[list[int]]:
    if isinstance(prompt, str):
        return [prompt]
    if prompt and isinstance(prompt[0], int):
        return [prompt]  # type: ignore[list-item]
    return prompt  # type: ignore[return-value]


def _plain_inputs(served: Served, prompt: str | list[int]) -> ModelInputs:
    """Inputs of a prompt without a chat template. A text gets the first token of all prompts."""
    tokenizer = served.processor.tokenizer
    if isinstance(prompt, str):
        _check_length(served, len(prompt.encode("utf-8", "replace")), "prompt")
        ids = tokenizer.encode(prompt)
        if ids[:1] != [tokenizer.bos_id]:
            ids = [tokenizer.bos_id, *ids]
    else:
        ids = prompt
        _check_ids(served, ids, "prompt")
    if tokenizer.image_id in ids:
        raise invalid("prompt", "holds the token of an image; pictures go with chat completions")
    inputs = ModelInputs(np.array(ids, dtype=np.int64), served.processor.pixels([]))
    _check_fits(served, inputs, "prompt")
    return inputs


def _check_ids(served: Served, ids: Sequence[int], param: str) -> None:
    vocabulary = served.processor.tokenizer.vocab_size
    if not ids:
        raise invalid(param, "empty")
    if max(ids) >= vocabulary:
        raise invalid(param, f"token ids go from 0 to {vocabulary - 1}")


def tokens_of(served: Served, text: str, *, add_special: bool, parse_special: bool) -> list[int]:
    """Token ids of a text. `add_special` puts the first token of every prompt in front."""
    tokenizer = served.processor.tokenizer
    ids = tokenizer.encode(text, parse_special=parse_special)
    return [tokenizer.bos_id, *ids] if add_special else ids


def text_of(served: Served, ids: Sequence[int]) -> str:
    """The text of token ids, special tokens included. Raises ApiError (400) for unknown ids."""
    if ids:
        _check_ids(served, ids, "tokens")
    return served.processor.tokenizer.decode(ids, skip_special=False)
