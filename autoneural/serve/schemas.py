"""What requests may hold. Unknown fields are ignored, as OpenAI does; wrong values are refused.

Fields that OpenAI has and this server has not are declared as well, for `unsupported`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints

from autoneural.runtime.drafting import Speculate
from autoneural.runtime.tools import MAX_CALLS, MAX_TOOLS
from autoneural.serve import settings

_MOST = 2**31 - 1


def _as_parts(value: Any) -> Any:
    return [{"type": "text", "text": value}] if isinstance(value, str) else value


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _as_url(value: Any) -> Any:
    return {"url": value} if isinstance(value, str) else value


def _as_type(value: Any) -> Any:
    return {"type": value} if isinstance(value, str) else value


Count = Annotated[int, Field(ge=1, le=_MOST)]
Share = Annotated[float, Field(ge=0, le=1)]
Penalty = Annotated[float, Field(ge=-2, le=2)]
Name = Annotated[str, StringConstraints(max_length=256)]
_Stop = Annotated[str, StringConstraints(min_length=1, max_length=settings.MAX_STOP_LETTERS)]
_StopList = Annotated[list[_Stop], Field(min_length=1, max_length=settings.MAX_STOPS)]
Stops = Annotated[_StopList, BeforeValidator(_as_list, json_schema_input_type=_Stop | _StopList)]
Ids = Annotated[list[Annotated[int, Field(ge=0, le=_MOST)]], Field(max_length=_MOST)]


class _Strict(BaseModel):
    """No guessing: "1" is no number, true is no integer, NaN is nothing."""

    model_config = ConfigDict(strict=True, extra="ignore", allow_inf_nan=False)


class ImageUrl(_Strict):
    """A data URL, or a file below the server's media path."""

    url: str


class Part(_Strict):
    """One part of a message; `input_*` are the names of OpenAI's Responses."""

    type: Literal["text", "input_text", "image_url", "input_image"]
    text: str | None = None
    image_url: Annotated[
        ImageUrl | None, BeforeValidator(_as_url, json_schema_input_type=ImageUrl | str | None)
    ] = None


Parts = Annotated[list[Part], Field(min_length=1, max_length=settings.MAX_PARTS)]


class Message(_Strict):
    """One turn. `developer` is another name for `system`."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: Annotated[
        Parts | None, BeforeValidator(_as_parts, json_schema_input_type=Parts | str | None)
    ] = None
    tool_calls: Annotated[list[Any], Field(max_length=MAX_CALLS)] | None = None
    function_call: Any = None


class StreamOptions(_Strict):
    """`include_usage`: one more chunk, with the token counts, before the end."""

    include_usage: bool | None = None


class JsonSchema(_Strict):
    """OpenAI's holder of a schema. What it allows always holds, whatever `strict` says."""

    name: Name | None = None
    schema_: Any = Field(default=None, alias="schema")


class ResponseFormat(_Strict):
    """OpenAI's form, and llama.cpp's: a `schema` without a holder, which `json_object` may have."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None
    schema_: Any = Field(default=None, alias="schema")


class NamedFunction(_Strict):
    """The tool that must be called."""

    name: Name


_Choice = Literal["none", "auto", "required", "function"]


class ToolChoice(_Strict):
    """`none`, `auto` and `required` stand alone; `function` names one."""

    type: _Choice
    function: NamedFunction | None = None


class Generate(_Strict):
    """What chat and plain completions share. Greedy unless told otherwise."""

    model: Name | None = None
    max_tokens: Count | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Share | None = None
    top_k: Annotated[int, Field(ge=-1, le=_MOST)] | None = None
    min_p: Share | None = None
    repetition_penalty: Annotated[float, Field(gt=0, le=10)] | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**64)] | None = None
    n: Annotated[int, Field(ge=1, le=settings.MAX_CHOICES)] | None = None
    stop: Stops | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    user: Name | None = None
    response_format: ResponseFormat | None = None
    speculate: Speculate | None = None
    logit_bias: Any = None


class ChatRequest(Generate):
    """`POST /v1/chat/completions`."""

    messages: Annotated[list[Message], Field(min_length=1, max_length=settings.MAX_MESSAGES)]
    max_completion_tokens: Count | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    tools: Annotated[list[Any], Field(max_length=MAX_TOOLS)] | None = None
    tool_choice: Annotated[
        ToolChoice | None,
        BeforeValidator(_as_type, json_schema_input_type=ToolChoice | _Choice | None),
    ] = None
    parallel_tool_calls: bool | None = None
    functions: Any = None
    function_call: Any = None
    modalities: Any = None
    audio: Any = None


class CompletionRequest(Generate):
    """`POST /v1/completions`: texts or token ids, read as they are, special tokens included."""

    prompt: str | list[str] | Ids | list[Ids]
    logprobs: Annotated[int, Field(ge=0, le=5)] | None = None
    best_of: Any = None
    echo: Any = None
    suffix: Any = None


class TokenizeRequest(_Strict):
    """`POST /tokenize`, as llama.cpp has it."""

    model: Name | None = None
    content: Annotated[str, StringConstraints(max_length=settings.MAX_TEXT_LETTERS)]
    add_special: bool = False
    parse_special: bool = True
    with_pieces: bool = False


class DetokenizeRequest(_Strict):
    """`POST /detokenize`, as llama.cpp has it."""

    model: Name | None = None
    tokens: Annotated[Ids, Field(max_length=settings.MAX_TEXT_LETTERS)]
