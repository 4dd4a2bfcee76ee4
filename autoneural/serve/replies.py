"""What responses hold, for /openapi.json; nothing is checked against it when it is sent.

The tests hold the server to it: tests/serve/test_openapi.py.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel

Responses = dict[int | str, dict[str, Any]]


class ErrorObject(BaseModel):
    """`param` is the place in the request, `code` one of those in docs/server.md."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorReply(BaseModel):
    """OpenAI's form."""

    error: ErrorObject


class Health(BaseModel):
    """The server takes requests."""

    status: Literal["ok"]


class Architecture(BaseModel):
    """What goes in and comes out."""

    input_modalities: list[str]
    output_modalities: list[str]


class ModelMeta(BaseModel):
    """`n_ctx` is the context in tokens, prompt and answer together."""

    n_ctx: int
    n_vocab: int
    target: str
    loaded: bool


class ModelObject(BaseModel):
    """A bundle that is served."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    architecture: Architecture
    meta: ModelMeta


class ModelList(BaseModel):
    """The first is meant where a request names none."""

    object: Literal["list"]
    data: list[ModelObject]


class Props(BaseModel):
    """llama.cpp's properties, and the limits of requests."""

    default_generation_settings: dict[str, Any]
    total_slots: int
    model_alias: str
    modalities: dict[str, bool]
    bos_token: str
    eos_token: str
    build_info: str
    target: str
    tokens_per_image: int
    limits: dict[str, float]


class TokenPiece(BaseModel):
    """A token as text, or its bytes where they are a part of a character."""

    id: int
    piece: str | list[int]


class Tokens(BaseModel):
    """Ids, with their texts where `with_pieces` asked for them."""

    tokens: list[int] | list[TokenPiece]


class Content(BaseModel):
    """The text of token ids."""

    content: str


class CachedTokens(BaseModel):
    """How many tokens of the prompt were not computed again."""

    cached_tokens: int


class UsageObject(BaseModel):
    """Tokens of all answers; the prompt counts once."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: CachedTokens


class TimingsObject(BaseModel):
    """llama.cpp's, and ours: `ttft_ms`, `queue_ms`, `image_encode_ms`, `image_n`."""

    cache_n: int
    prompt_n: int
    prompt_ms: float
    prompt_per_token_ms: float | None
    prompt_per_second: float | None
    predicted_n: int
    predicted_ms: float
    predicted_per_token_ms: float | None
    predicted_per_second: float | None
    draft_n: int
    draft_n_accepted: int
    ttft_ms: float | None
    queue_ms: float
    image_encode_ms: float
    image_n: int


class CalledFunction(BaseModel):
    """`arguments` is JSON text."""

    name: str
    arguments: str


class CallObject(BaseModel):
    """A call of a tool that the answer asks for."""

    id: str
    type: Literal["function"]
    function: CalledFunction


class AnswerMessage(BaseModel):
    """`content` is null where the answer is calls alone."""

    role: Literal["assistant"]
    content: str | None
    refusal: None
    tool_calls: list[CallObject] = []


class RivalToken(BaseModel):
    """A token, its log-probability, its bytes."""

    token: str
    logprob: float
    bytes: list[int]


class SaidToken(RivalToken):
    """A token of the answer, and the likeliest in its place."""

    top_logprobs: list[RivalToken]


class ChatLogprobs(BaseModel):
    """All tokens that were said."""

    content: list[SaidToken]
    refusal: None


class ChatChoice(BaseModel):
    """One answer."""

    index: int
    message: AnswerMessage
    logprobs: ChatLogprobs | None
    finish_reason: Literal["stop", "length", "tool_calls"]


class _Whole(BaseModel):
    id: str
    created: int
    model: str
    system_fingerprint: str
    usage: UsageObject
    timings: TimingsObject


class ChatCompletion(_Whole):
    """The answers of a request that does not stream."""

    object: Literal["chat.completion"]
    choices: list[ChatChoice]


class PlainLogprobs(BaseModel):
    """OpenAI's older form: a list per figure."""

    tokens: list[str]
    token_logprobs: list[float]
    top_logprobs: list[dict[str, float]]
    text_offset: list[int]


class PlainChoice(BaseModel):
    """One continuation."""

    index: int
    text: str
    logprobs: PlainLogprobs | None
    finish_reason: Literal["stop", "length"]


class Completion(_Whole):
    """The continuations of a request that does not stream."""

    object: Literal["text_completion"]
    choices: list[PlainChoice]


ERRORS: Responses = {
    "4XX": {"model": ErrorReply, "description": "The request is wrong; `error.param` says where"},
    500: {"model": ErrorReply, "description": "The server's fault; its log has more"},
    503: {
        "model": ErrorReply,
        "description": "Busy or ending; `Retry-After` says when to ask again",
    },
    504: {"model": ErrorReply, "description": "The answer took too long"},
}
_EVENTS = {
    "schema": {"type": "string"},
    "example": 'data: {"object": ..., "choices": [...]}\n\ndata: [DONE]\n\n',
}


def replied(model: type[BaseModel], text: str) -> Responses:
    """What a route answers where all is well."""
    return {200: {"model": model, "description": text}}


def answered(model: type[BaseModel]) -> Responses:
    """The same for an answer that may come as a stream of events."""
    text = "The whole answer, or with `stream` its events, the last of which is `[DONE]`"
    return {200: {"model": model, "description": text, "content": {"text/event-stream": _EVENTS}}}


def plain(media_type: str, text: str) -> Responses:
    """Text that is no JSON."""
    return {200: {"description": text, "content": {media_type: {"schema": {"type": "string"}}}}}
