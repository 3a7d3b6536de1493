"""The Qwen API on this machine: both dialects on one port, with limits, faults and answers as the settings say.

async with serve(SimulatorSettings()) as base:
    # f"{base}/compatible-mode/v1" for the OpenAI dialect, f"{base}/api/v1" for the native one
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from types import ModuleType
from typing import Any

from aiohttp import web
from msgspec import DecodeError, json

from evalrunner.cost.models import ModelFacts, known, lookup
from evalrunner.cost.tokens import count_messages, count_text, texts
from evalrunner.simulator import native_dialect, openai_dialect, validators
from evalrunner.simulator.answering import Answering
from evalrunner.simulator.calls import Call, Refusal
from evalrunner.simulator.context_cache import ContextCache
from evalrunner.simulator.embeddings import embeddings
from evalrunner.simulator.engine import Engine
from evalrunner.simulator.faults import Fault, Script, Subject
from evalrunner.simulator.files import FileRoom
from evalrunner.simulator.limits import Limiter
from evalrunner.simulator.media import media_tokens
from evalrunner.simulator.settings import SimulatorSettings, parse_settings

__all__ = ["SimulatorSettings", "parse_settings", "serve"]

COMPATIBLE, NATIVE = "/compatible-mode/v1", "/api/v1"
_AIGC = f"{NATIVE}/services/aigc"
_LARGEST_BODY = 256 * 2**20
_BLOCKED = Fault(kind="stream_error", code="data_inspection_failed", message="Output data may contain inappropriate content.", after=1)


@asynccontextmanager
async def serve(settings: SimulatorSettings, host: str = "127.0.0.1", port: int = 0) -> AsyncIterator[str]:
    """Run a simulator while the block runs; gives its base URL. Port 0 takes a free one."""
    count_text("")  # loads the vocabulary now: half a second that no request's latency shall hold
    simulator = Simulator(settings)
    runner = web.AppRunner(simulator.application(), access_log=None, shutdown_timeout=0.2)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
        yield f"http://{host}:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()
        await simulator.engine.aclose()


class Simulator:
    """The rooms behind the port, and what happens to a request on its way through them: fault, key, model, body, moderation, rate, answer."""

    def __init__(self, settings: SimulatorSettings) -> None:
        self._settings = settings
        self._script = Script(settings.faults, settings.seed)
        self._limiter = Limiter(settings.limits)
        self._cache = ContextCache(implicit=settings.cache)
        self._answering = Answering(settings, self._limiter)
        self._statuses: dict[int, int] = {}
        self._named = settings.named_models
        self.engine = Engine(settings)
        self.files = FileRoom(settings.batch_seconds, self._batch_answer)

    def application(self) -> web.Application:
        app = web.Application(client_max_size=_LARGEST_BODY)
        for path, dialect, endpoint in (
            (f"{COMPATIBLE}/chat/completions", openai_dialect, ""),
            (f"{_AIGC}/text-generation/generation", native_dialect, "text"),
            (f"{_AIGC}/multimodal-generation/generation", native_dialect, "multimodal"),
        ):
            app.router.add_post(path, self._generation(dialect, endpoint))
        app.router.add_get(f"{COMPATIBLE}/models", self._with_key(self._models))
        app.router.add_get(f"{COMPATIBLE}/models/{{id}}", self._with_key(self._model))
        app.router.add_post(f"{NATIVE}/tokenizer", self._with_key(self._tokenizer, native_dialect))
        app.router.add_post(f"{COMPATIBLE}/embeddings", self._with_key(self._embeddings))
        for method, path, handler in self.files.routes():
            app.router.add_route(method, f"{COMPATIBLE}{path}", self._with_key(handler))
        app.router.add_get("/simulator/stats", self._stats)
        app.router.add_route("*", "/{path:.*}", self._nowhere)
        return app

    def _generation(self, dialect: ModuleType, endpoint: str) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        async def generation(request: web.Request) -> web.StreamResponse:
            raw = await request.read()
            body, broken = _decoded(raw)
            request_id, stream = self.engine.new_id(), dialect.wants_stream(body, request.headers)
            fault = self._fault(request, raw, body, dialect) if self._script else None
            try:
                if fault and (struck := await self._answering.struck(request, fault, dialect, request_id, stream=stream)):
                    return self._counted(struck)
                self._authorise(request)
                if broken:
                    raise Refusal("invalid_request_error")
                call = self._read(body, request.headers, dialect, endpoint)
                await self._limiter.admit(call.model, call.facts, call.prompt_tokens, _wait_s(request))
                reply = await self.engine.reply(call, request_id)
            except Refusal as refusal:
                return self._counted(_refused(refusal, request_id, dialect, stream=stream))
            blocked = call.stream and self.engine.blocks(*(choice.text for choice in reply.choices))
            return self._counted(await self._answering.answer(request, call, reply, dialect, _BLOCKED if blocked else fault))

        return generation

    def _fault(self, request: web.Request, raw: bytes, body: Mapping[str, Any], dialect: ModuleType) -> Fault | None:
        messages = dialect.messages_of(body)
        last = messages[-1] if isinstance(messages, list) and messages and isinstance(messages[-1], dict) else {}
        return self._script.strikes(
            Subject(
                content=raw,
                model=str(body.get("model")),
                last="\n".join(texts(last)),
                key=_key(request),
                dialect="openai" if dialect is openai_dialect else "native",
                stream=dialect.wants_stream(body, request.headers),
            )
        )

    def _authorise(self, request: web.Request) -> None:
        key, wanted = _key(request), self._settings.api_key
        if not key or key in self._settings.unauthorised or (wanted is not None and key != wanted):
            raise Refusal("invalid_api_key")

    def _read(self, body: Mapping[str, Any], headers: Mapping[str, str], dialect: ModuleType, endpoint: str) -> Call:
        """The call, once nothing in it is to be refused but for moderation and rate. In the service's order: model, schema, parameters, messages."""
        facts = self._facts(body, dialect, endpoint)
        params = dialect.params_of(body)
        validators.check_schema(params, dialect.messages_of(body))
        call: Call = dialect.read(body, facts, headers)
        validators.check_params(call, seed_compat=self._settings.seed_compat)
        validators.check_messages(call, seed_compat=self._settings.seed_compat)
        if facts.inputs:
            call.media_tokens = media_tokens(call.messages, facts, high_resolution=call.params.get("vl_high_resolution_images") is True)
        call.prompt_tokens = count_messages(call.messages, call.model, tools=call.tools, thinking=call.thinking) + sum(call.media_tokens.values())
        if call.model.startswith("qwen-long"):
            call.prompt_tokens += self.files.tokens(call.messages)
        validators.check_length(call)
        self._cache.account(call)
        if self._settings.blocked and self.engine.blocks(*validators.said(call)):
            raise Refusal("data_inspection_failed", "Input data may contain inappropriate content.")
        return call

    def _facts(self, body: Mapping[str, Any], dialect: ModuleType, endpoint: str) -> ModelFacts:
        model = body.get("model")
        if not isinstance(model, str) or not model:
            raise Refusal("invalid_request_error", "you must provide a model parameter.")
        facts = lookup(model)
        if facts is None:
            if model not in self._named:
                raise Refusal("model_not_found", f"The model `{model}` does not exist or you do not have access to it.")
            return ModelFacts(id=model, endpoint="multimodal" if endpoint == "multimodal" else "text")
        if dialect is openai_dialect and "openai" not in facts.dialects and not self._settings.seed_compat:
            raise Refusal("model_not_supported", f"Unsupported model {model} for OpenAI compatibility mode.")
        if dialect is native_dialect and endpoint != facts.endpoint:
            raise Refusal("invalid_parameter_error", "url error, please check url！")
        return facts

    async def _batch_answer(self, body: Mapping[str, Any]) -> tuple[int, str, Mapping[str, Any]]:
        """(status, request id, body) of one line of a batch: as a call, but no rate limits hold, and no fault strikes."""
        request_id = self.engine.new_id()
        try:
            call = self._read({**body, "stream": False}, {}, openai_dialect, "")
            reply = await self.engine.reply(call, request_id)
        except Refusal as refusal:
            return refusal.status, request_id, json.decode(openai_dialect.error_body(refusal, request_id))
        return 200, request_id, json.decode(openai_dialect.whole(call, reply))

    def _with_key(self, handler: Callable[[web.Request], Awaitable[web.Response]], dialect: ModuleType = openai_dialect) -> Any:
        async def checked(request: web.Request) -> web.Response:
            try:
                self._authorise(request)
                return await handler(request)
            except Refusal as refusal:
                return _refused(refusal, self.engine.new_id(), dialect, stream=False)

        return checked

    async def _models(self, _: web.Request) -> web.Response:
        return _json({"object": "list", "data": [_listed(model) for model in [*known(), *sorted(self._named - set(known()))]]})

    async def _model(self, request: web.Request) -> web.Response:
        model = request.match_info["id"]
        if lookup(model) is None and model not in self._named:
            raise Refusal("model_not_found", f"The model `{model}` does not exist or you do not have access to it.")
        return _json(_listed(model))

    async def _tokenizer(self, request: web.Request) -> web.Response:
        body, _ = _decoded(await request.read())
        self._facts(body, openai_dialect, "")
        messages = native_dialect.messages_of(body)
        validators.check_schema({}, messages)
        return _json({"output": {}, "usage": {"input_tokens": count_messages(messages, body["model"])}, "request_id": self.engine.new_id()})

    async def _embeddings(self, request: web.Request) -> web.Response:
        body, _ = _decoded(await request.read())
        return _json(embeddings(body))

    async def _stats(self, _: web.Request) -> web.Response:
        return _json({"statuses": {str(status): count for status, count in self._statuses.items()}, "right": self.engine.right, "wrong": self.engine.wrong})

    async def _nowhere(self, request: web.Request) -> web.Response:
        dialect = native_dialect if request.path.startswith(NATIVE) else openai_dialect
        return _refused(Refusal("not_found", f"There is nothing at {request.method} {request.path}."), self.engine.new_id(), dialect, stream=False)

    def _counted(self, response: web.StreamResponse) -> web.StreamResponse:
        self._statuses[response.status] = self._statuses.get(response.status, 0) + 1
        return response


def _decoded(raw: bytes) -> tuple[Mapping[str, Any], bool]:
    """(body, whether it could not be read)."""
    try:
        body = json.decode(raw)
    except (DecodeError, UnicodeDecodeError):
        return {}, True
    return (body, False) if isinstance(body, dict) else ({}, True)


def _key(request: web.Request) -> str:
    scheme, _, key = request.headers.get("Authorization", "").partition(" ")
    return key.strip() if scheme.lower() == "bearer" else ""


def _wait_s(request: web.Request) -> float:
    """X-DashScope-Wait-Timeout: whole seconds, at most two minutes."""
    asked = request.headers.get("X-DashScope-Wait-Timeout", "")
    return min(120.0, float(asked)) if asked.isdigit() else 0.0


def _refused(refusal: Refusal, request_id: str, dialect: ModuleType, *, stream: bool) -> web.Response:
    body, content_type = dialect.refused(refusal, request_id, stream=stream)
    return web.Response(status=refusal.status, body=body, headers={"content-type": content_type, "x-request-id": request_id})


def _listed(model: str) -> dict[str, Any]:
    return {"id": model, "object": "model", "created": 1_700_000_000, "owned_by": "system"}


def _json(body: Any) -> web.Response:
    return web.Response(body=json.encode(body), content_type="application/json")
