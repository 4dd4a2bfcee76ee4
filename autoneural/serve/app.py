"""The routes. Another feature is another router: give it to `create_app` or include it here."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from fastapi import APIRouter, FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.telemetry import TelemetryConfig
from starlette.exceptions import HTTPException
from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from autoneural import __version__
from autoneural.data.tokenizer import BOS, EOS
from autoneural.runtime.schema import MAX_BYTES
from autoneural.runtime.tools import MAX_TOOLS
from autoneural.serve import settings as limits
from autoneural.serve.answering import Answer, Request, Threads
from autoneural.serve.answers import Answers, ChatAnswers, CompletionAnswers
from autoneural.serve.errors import ApiError, Json, error_reply, invalid, path_of, unavailable
from autoneural.serve.forms import Form, asks_for_form
from autoneural.serve.images import DECODING, ImageReader
from autoneural.serve.metrics import CONTENT_TYPE, Metrics
from autoneural.serve.models import Models, Served
from autoneural.serve.prompts import chat_runs, completion_runs, image_urls, text_of, tokens_of
from autoneural.serve.remote import Fetcher
from autoneural.serve.replies import (
    ERRORS,
    ChatCompletion,
    Completion,
    Content,
    Health,
    ModelList,
    ModelObject,
    Props,
    Tokens,
    answered,
    plain,
    replied,
)
from autoneural.serve.safety import Guard
from autoneural.serve.schemas import (
    ChatRequest,
    CompletionRequest,
    DetokenizeRequest,
    Generate,
    TokenizeRequest,
)
from autoneural.serve.settings import Settings
from autoneural.serve.unsupported import refuse_unsupported
from autoneural.serve.web import PAGE_PATHS
from autoneural.serve.web import router as page_router
from autoneural.serve.worker import Run

_FETCHING = 4
_LEGACY_MAX_TOKENS = 16
_NO_TELEMETRY: TelemetryConfig = {
    "tracing": False,
    "metrics": False,
    "logs": False,
    "operation_spans": False,
    "auto_configure": False,
}


class Server:
    """What the routes share: `request.app.state.server`."""

    def __init__(self, models: Models, settings: Settings, fetch: Fetcher | None) -> None:
        self.models = models
        self.settings = settings
        self.metrics = Metrics(models)
        self.read_image = ImageReader(settings.media_path, fetch)
        self.threads = Threads(
            prepare=ThreadPoolExecutor(DECODING, thread_name_prefix="prepare"),
            compile=ThreadPoolExecutor(1, thread_name_prefix="compile"),
            fetch=ThreadPoolExecutor(_FETCHING, thread_name_prefix="fetch"),
        )

    def answer(self, request: Request) -> Answer:
        """The response to a request for answers."""
        return Answer(request, self.metrics, self.threads, self.settings.timeout)

    def close(self) -> None:
        """End all threads."""
        self.models.stop()
        self.threads.close()


def create_app(models: Models, settings: Settings, fetch: Fetcher | None = None) -> FastAPI:
    """The ASGI app over loaded models. Whoever runs it sees to its address: `run.serve`.

    `fetch` is how pictures come from `settings.image_hosts`, unless told: from the internet alone.
    """
    if fetch is None and settings.image_hosts:
        fetch = Fetcher(hosts=settings.image_hosts)
    server = Server(models, settings, fetch)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        server.close()

    app = FastAPI(
        title="autoneural",
        version=__version__,
        lifespan=lifespan,
        # The pages of FastAPI load scripts from elsewhere.
        docs_url=None,
        redoc_url=None,
        telemetry=_NO_TELEMETRY,
        default_response_class=Json,
        redirect_slashes=False,
    )
    app.state.server = server
    app.add_middleware(Guard, settings=settings, keyless=("/health", *PAGE_PATHS))
    app.add_exception_handler(ApiError, _on_api_error)
    app.add_exception_handler(RequestValidationError, _on_invalid)
    app.add_exception_handler(HTTPException, _on_http_error)
    app.include_router(router)
    app.include_router(page_router)
    return app


router = APIRouter(responses=ERRORS)


def _server(request: HttpRequest) -> Server:
    return request.app.state.server


@router.get("/health", responses=replied(Health, "Requests are taken"))
async def health(request: HttpRequest) -> Json:
    """Whether requests are taken. Needs no key."""
    if _server(request).models.closing:
        raise unavailable("the server is shutting down", "shutting_down")
    return Json({"status": "ok"})


@router.get("/metrics", responses=plain(CONTENT_TYPE, "Prometheus' text"), response_class=Response)
async def metrics(request: HttpRequest) -> Response:
    """Figures for Prometheus."""
    return Response(_server(request).metrics.text(), media_type=CONTENT_TYPE)


@router.get("/props", responses=replied(Props, "Of the model, and of this server"))
async def props(request: HttpRequest, model: str | None = None) -> Json:
    """What a model and this server can do, as llama.cpp says it, and the limits."""
    served = _server(request).models.find(model)
    defaults = {
        "n_ctx": served.context,
        "params": {"temperature": 0.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0, "n_predict": -1},
        "speculate": _server(request).settings.speculate,
    }
    return Json(
        {
            "default_generation_settings": defaults,
            "total_slots": 1,
            "model_alias": served.name,
            "modalities": {"vision": True, "audio": False},
            "bos_token": BOS,
            "eos_token": EOS,
            "build_info": f"autoneural {__version__}",
            "target": served.target,
            "tokens_per_image": served.bundle.processor.tokens_per_image,
            "limits": _limits(_server(request).settings),
        }
    )


def _limits(settings: Settings) -> dict[str, Any]:
    return {
        "body_bytes": settings.max_body,
        "images": limits.MAX_IMAGES,
        "answers": limits.MAX_CHOICES,
        "stop_strings": limits.MAX_STOPS,
        "schema_bytes": MAX_BYTES,
        "tools": MAX_TOOLS,
        "queue": settings.max_queue,
        "seconds": settings.timeout,
    }


@router.get("/v1/models", responses=replied(ModelList, "All of them"))
async def list_models(request: HttpRequest) -> Json:
    """The models that are served."""
    return Json({"object": "list", "data": [each.to_dict() for each in _server(request).models]})


@router.get("/v1/models/{model_id:path}", responses=replied(ModelObject, "The model"))
async def get_model(request: HttpRequest, model_id: str) -> Json:
    """One of them."""
    return Json(_server(request).models.find(model_id).to_dict())


@router.post("/v1/chat/completions", responses=answered(ChatCompletion))
async def chat_completions(body: ChatRequest, request: HttpRequest) -> Response:
    """Answer a conversation, with pictures in any turn of the user."""
    server = _server(request)
    refuse_unsupported(body)
    served = server.models.find(body.model)
    top = (body.top_logprobs or 0) if body.logprobs else None
    answers = ChatAnswers(
        model=served.name,
        n=body.n or 1,
        logprobs=top is not None,
        include_usage=_include_usage(body),
    )
    form = partial(served.forms.chat, body)
    prepare = partial(chat_runs, served, body, server.read_image)
    max_tokens = body.max_completion_tokens or body.max_tokens
    return server.answer(
        _ask(request, body, served, form, prepare, answers, top=top, max_tokens=max_tokens)
    )


@router.post("/v1/completions", responses=answered(Completion))
async def completions(body: CompletionRequest, request: HttpRequest) -> Response:
    """Continue a text, or token ids, without a chat template."""
    server = _server(request)
    refuse_unsupported(body)
    served = server.models.find(body.model)
    answers = CompletionAnswers(
        model=served.name,
        n=body.n or 1,
        logprobs=body.logprobs is not None,
        include_usage=_include_usage(body),
    )
    form = partial(served.forms.plain, body)
    prepare = partial(completion_runs, served, body)
    max_tokens = body.max_tokens or _LEGACY_MAX_TOKENS
    return server.answer(
        _ask(
            request, body, served, form, prepare, answers, top=body.logprobs, max_tokens=max_tokens
        )
    )


def _ask(
    http: HttpRequest,
    body: Generate,
    served: Served,
    form: Callable[[], Form],
    prepare: Callable[[Form], Sequence[Run]],
    answers: Answers,
    *,
    top: int | None,
    max_tokens: int | None,
) -> Request:
    return Request(
        served=served,
        form=form if asks_for_form(body) else None,
        prepare=prepare,
        answers=answers,
        stream=bool(body.stream),
        max_tokens=max_tokens,
        stop=tuple(body.stop or ()),
        top_logprobs=top,
        client=(http.client.host if http.client else "", http.scope["tenant"], body.user),
        tenant=http.scope["tenant"],
        speculate=body.speculate or _server(http).settings.speculate,
        fetches=any(map(_server(http).read_image.fetches, image_urls(body))),
    )


def _include_usage(body: Generate) -> bool:
    return bool(body.stream_options and body.stream_options.include_usage)


@router.post("/tokenize", responses=replied(Tokens, "Token ids"))
async def tokenize(body: TokenizeRequest, request: HttpRequest) -> Json:
    """Token ids of a text."""
    server = _server(request)
    served = server.models.find(body.model)
    work = partial(
        tokens_of,
        served,
        body.content,
        add_special=body.add_special,
        parse_special=body.parse_special,
    )
    ids = await asyncio.get_running_loop().run_in_executor(server.threads.prepare, work)
    if not body.with_pieces:
        return Json({"tokens": ids})
    return Json({"tokens": [{"id": i, "piece": _piece(served, i)} for i in ids]})


def _piece(served: Served, token: int) -> str | list[int]:
    """A token as text, or its bytes where they are a part of a character."""
    data = served.processor.tokenizer.token_bytes(token)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return list(data)


@router.post("/detokenize", responses=replied(Content, "The text"))
async def detokenize(body: DetokenizeRequest, request: HttpRequest) -> Json:
    """The text of token ids."""
    server = _server(request)
    served = server.models.find(body.model)
    work = partial(text_of, served, body.tokens)
    text = await asyncio.get_running_loop().run_in_executor(server.threads.prepare, work)
    return Json({"content": text})


async def _on_api_error(request: HttpRequest, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    return error_reply(error)


async def _on_invalid(request: HttpRequest, error: Exception) -> Response:
    """Pydantic's first complaint, as OpenAI would word it; never what was sent."""
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    place = [at for at in first["loc"] if at not in ("body", "query", "path")]
    if first["type"] == "json_invalid":
        message = f"body: not valid JSON ({first['ctx']['error']} at character {place[-1]})"
        return error_reply(invalid(None, message, "invalid_json"))
    if not place:
        return error_reply(invalid(None, "body: expected a JSON object"))
    return error_reply(invalid(path_of(place), first["msg"], first["type"]))


async def _on_http_error(request: HttpRequest, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    message = f"{request.method} {request.url.path}: {error.detail}"
    return error_reply(ApiError(error.status_code, message, headers=error.headers))
