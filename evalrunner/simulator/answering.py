"""Replies and faults as bytes in time: when each byte is written, and how it goes wrong when the script says so."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Sequence
from types import ModuleType

from aiohttp import web
from msgspec.structs import replace

from evalrunner.simulator.calls import Call, Choice, Refusal, Reply
from evalrunner.simulator.faults import Fault
from evalrunner.simulator.limits import Limiter
from evalrunner.simulator.settings import Latency, SimulatorSettings
from evalrunner.simulator.streams import Frame

_STREAM = "text/event-stream;charset=UTF-8"
_NO_LATENCY = Latency()


class Answering:
    """Writes answers at the pace of their model."""

    def __init__(self, settings: SimulatorSettings, limiter: Limiter) -> None:
        self._settings, self._limiter = settings, limiter

    async def struck(self, request: web.Request, fault: Fault, dialect: ModuleType, request_id: str, *, stream: bool) -> web.StreamResponse | None:
        """What a fault does before the request is even looked at; None where the request goes on (and the fault may strike its answer)."""
        if fault.kind in {"error", "body_error", "body", "redirect"}:
            return _scripted(fault, dialect, request_id, stream=stream)
        if fault.kind == "slow":
            await asyncio.sleep(fault.delay_ms / 1000)
        elif fault.kind == "hang":
            while request.transport is not None and not request.transport.is_closing():  # noqa: ASYNC110 - a client that leaves sets no event
                await asyncio.sleep(0.05)
            return web.Response()
        elif fault.kind == "disconnect" and fault.after is None:
            _reset(request)
            return web.Response()
        return None

    async def answer(self, request: web.Request, call: Call, reply: Reply, dialect: ModuleType, fault: Fault | None) -> web.StreamResponse:
        """The reply, streamed or whole; its output tokens are settled whatever becomes of it."""
        kind = fault.kind if fault else ""
        headers = {"x-request-id": reply.id, "x-dashscope-call-gateway": "true"}
        if kind == "empty":
            reply = replace(reply, choices=())
        if kind == "partial":
            reply = replace(reply, choices=tuple(_half(choice) for choice in reply.choices))
            headers["x-dashscope-partialresponse"] = "true"
        try:
            if not call.stream:
                return await self._whole(request, call, reply, dialect, fault, headers)
            frames: list[Frame] = dialect.frames(call, reply, self._settings.chunk_tokens, usage=kind != "no_usage")
            return await self._stream(request, call, _broken(frames, fault, dialect, reply.id), reply, fault, headers)
        finally:
            self._limiter.settle(call.model, reply.tokens.completion)

    async def _whole(
        self, request: web.Request, call: Call, reply: Reply, dialect: ModuleType, fault: Fault | None, headers: dict[str, str]
    ) -> web.StreamResponse:
        kind = fault.kind if fault else ""
        due = self._due(call, reply, reply.tokens.completion) + (fault.delay_ms / 1000 if fault and kind == "stall" else 0.0)
        if due > 0:
            await asyncio.sleep(due)
        body: bytes = dialect.whole(call, reply, usage=kind != "no_usage")
        if kind == "invalid_json":
            body = body[: len(body) // 2]
        headers["content-type"] = "application/json"
        if kind != "disconnect":
            return web.Response(body=body, headers=headers)
        half = web.StreamResponse(headers={"content-length": str(len(body)), **headers})
        await half.prepare(request)
        await half.write(body[: len(body) // 2])
        _reset(request)
        return half

    async def _stream(
        self, request: web.Request, call: Call, frames: Sequence[Frame], reply: Reply, fault: Fault | None, headers: dict[str, str]
    ) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": _STREAM, **headers})
        loop = asyncio.get_running_loop()
        began = loop.time()
        stall_at = 1 + (fault.after or 0) if fault and fault.kind == "stall" else 0
        outputs, pending = 0, b""
        try:
            await response.prepare(request)
            for frame in frames:
                outputs += frame.output
                due = began + self._due(call, reply, frame.token)
                stalls = stall_at and frame.output and outputs == stall_at
                if pending and (stalls or due > loop.time()):
                    await response.write(pending)
                    pending = b""
                if stalls and fault:
                    await asyncio.sleep(fault.delay_ms / 1000)
                    began += fault.delay_ms / 1000
                if due > loop.time():
                    await asyncio.sleep(due - loop.time())
                pending += frame.data
            await response.write(pending)
            if fault and fault.kind == "disconnect":
                _reset(request)
            else:
                await response.write_eof()
        except ConnectionResetError:  # the client left; what was generated until then is billed
            pass
        return response

    def _due(self, call: Call, reply: Reply, token: int) -> float:
        """Seconds from the request to its so-many-th token; an opening chunk (0) comes half-way to the first."""
        latency = self._settings.latency.get(call.model) or self._settings.latency.get("*", _NO_LATENCY)
        ms = latency.ttft_ms / 2 if token == 0 else latency.ttft_ms + (token - 1) * latency.per_token_ms
        return ms / 1000 * reply.speed * self._settings.clock_scale


def _scripted(fault: Fault, dialect: ModuleType, request_id: str, *, stream: bool) -> web.Response:
    """A response that is written in the script."""
    headers = {"x-request-id": request_id, **fault.headers}
    if fault.retry_after is not None:
        headers["retry-after"] = str(fault.retry_after)
    refusal = Refusal(fault.code, fault.message, status=fault.status)
    if fault.kind == "redirect":
        return web.Response(status=307, headers={"location": fault.location, **headers})
    if fault.kind == "error":
        body, kind = dialect.refused(refusal, request_id, stream=stream)
        return web.Response(status=refusal.status, body=body, headers={"content-type": kind, **headers})
    if fault.kind == "body":
        body, status = fault.body.encode("utf-8", "surrogatepass"), fault.status or 200
    else:
        body, status = (dialect.error_frame if stream else dialect.error_body)(refusal, request_id), 200
    return web.Response(status=status, body=body, headers={"content-type": _STREAM if stream else "application/json", **headers})


def _broken(frames: list[Frame], fault: Fault | None, dialect: ModuleType, request_id: str) -> list[Frame]:
    """The frames as the fault leaves them: `after` output events, and then what it does."""
    if fault is None or fault.kind not in {"cut", "disconnect", "stream_error", "invalid_json"}:
        return frames
    outputs = [place for place, frame in enumerate(frames) if frame.output]
    after = fault.after or 0
    place = outputs[after] if after < len(outputs) else outputs[-1] + 1 if outputs else len(frames)
    token = frames[place - 1].token if place else 0
    if fault.kind == "stream_error":
        return [*frames[:place], Frame(token, dialect.error_frame(Refusal(fault.code, fault.message, status=fault.status), request_id))]
    if fault.kind == "invalid_json":
        return [*frames[:place], Frame(token, b'data: {"choices":[{"delta":{"content":"half a\n\n'), *frames[place:]]
    return frames[:place]


def _half(choice: Choice) -> Choice:
    return replace(choice, text=choice.text[: (len(choice.text) + 1) // 2], finish_reason=None)


def _reset(request: web.Request) -> None:
    """Close with RST, as a dying server does; lingering for no time is what makes it one."""
    transport = request.transport
    if transport is None:
        return
    sock = transport.get_extra_info("socket")
    if sock is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()
