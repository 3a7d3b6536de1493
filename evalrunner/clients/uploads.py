"""Files for qwen-long: uploaded once per file and client, and named in the conversation by a system message `fileid://…`.

Always through the compatible mode, which is the one documented way in; a model asked natively reads the same ids. What was uploaded stays in the account.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import msgspec

from evalrunner.clients.endpoint import Endpoint
from evalrunner.clients.failures import from_exception, refusal
from evalrunner.clients.media import read
from evalrunner.clients.transport import place, proxy_for, refuse_redirect
from evalrunner.errors import BadOutputError
from evalrunner.records import Message, Request


class _File(msgspec.Struct):
    id: str


class Uploads:
    """The files one account has been given."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._ids: dict[str, str] = {}
        self._one_at_a_time = asyncio.Lock()  # the service takes three a second
        self._client: httpx.AsyncClient | None = None

    async def placed(self, request: Request) -> list[Message]:
        """The messages with every `{file: …}` part replaced by its id, in one system message behind those there are. Raises what an upload may come to."""
        messages: list[Message] = []
        ids: list[str] = []
        for message in request.messages:
            content = message.get("content")
            if not isinstance(content, list) or not holds_files([message]):
                messages.append(message)
                continue
            ids += [await self._id(part, request) for part in content if "file" in part]
            rest = [part for part in content if "file" not in part]
            if any("text" not in part for part in rest):
                messages.append({**message, "content": rest})
            elif rest:
                messages.append({**message, "content": "\n".join(part["text"] for part in rest)})
        at = next((index for index, message in enumerate(messages) if message.get("role") != "system"), len(messages))
        messages.insert(at, {"role": "system", "content": ",".join(f"fileid://{one}" for one in dict.fromkeys(ids))})
        return messages

    async def aclose(self) -> None:
        if self._client is not None:
            await self._client.aclose()
            self._client = None

    async def _id(self, part: dict[str, Any], request: Request) -> str:
        digest = str(part.get("sha256"))
        async with self._one_at_a_time:
            if digest not in self._ids:
                content = await asyncio.to_thread(read, part, request.media)
                self._ids[digest] = await self._upload(Path(str(part["file"])).name, content)
            return self._ids[digest]

    async def _upload(self, name: str, content: bytes) -> str:
        url = f"{self._endpoint.compatible}/files"
        client = self._client or self._open(url)
        try:
            reply = await client.post(url, headers=self._endpoint.account_headers, data={"purpose": "file-extract"}, files={"file": (name, content)})
        except (httpx.HTTPError, OSError) as error:
            raise from_exception(error, host=place(url), phase="send") from None
        refuse_redirect(url, reply.status_code, reply.headers.get("location"))
        if not reply.is_success:
            raise refusal(reply.status_code, reply.headers, reply.content, dashscope=self._endpoint.dashscope, now_s=self._endpoint.now_s())
        try:
            return msgspec.json.decode(reply.content, type=_File).id
        except msgspec.MsgspecError as error:
            raise BadOutputError(f"{place(url)}: the upload's answer cannot be read: {error}", raw=reply.content) from None

    def _open(self, url: str) -> httpx.AsyncClient:
        self._client = httpx.AsyncClient(trust_env=False, verify=ssl.create_default_context(), proxy=proxy_for(url), timeout=self._endpoint.timeouts.total)
        return self._client


def holds_files(messages: Sequence[Message]) -> bool:
    """Whether any message has a `{file: …}` part."""
    return any(isinstance(part, dict) and "file" in part for message in messages for part in _parts(message))


def _parts(message: Message) -> list[Any]:
    content = message.get("content")
    return content if isinstance(content, list) else []
