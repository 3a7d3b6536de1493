"""Files for qwen-long: uploaded once per file and client, and named in the conversation by a system message `fileid://…`.

Always through the compatible mode, which is the one documented way in; a model asked natively reads the same ids. What was uploaded stays in the account.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import msgspec

from evalrunner.clients import media
from evalrunner.clients.endpoint import Endpoint
from evalrunner.clients.transport import place
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

    async def _id(self, part: dict[str, Any], request: Request) -> str:
        digest = str(part.get("sha256"))
        async with self._one_at_a_time:
            if digest not in self._ids:
                content = await asyncio.to_thread(media.read, part, request.media)
                self._ids[digest] = await self._upload(Path(str(part["file"])).name, content)
            return self._ids[digest]

    async def _upload(self, name: str, content: bytes) -> str:
        """Through the account's own transport: one deadline for all of it, no cookie, an answer of bounded size."""
        url = f"{self._endpoint.compatible}/files"
        kind, body = await asyncio.to_thread(_form, name, content)
        async with self._endpoint.post(url, body, stream=False, progress=None, headers={"content-type": kind}) as reply:
            if not 200 <= reply.status < 300:
                await self._endpoint.refuse(reply)
            said = bytearray()
            while reads := await reply.reads():
                for read in reads:
                    said += read.data
        try:
            return msgspec.json.decode(said, type=_File).id
        except msgspec.MsgspecError as error:
            raise BadOutputError(f"{place(url)}: the upload's answer cannot be read: {error}", raw=bytes(said)) from None


def _form(name: str, content: bytes) -> tuple[str, bytes]:
    """Content type and body of a form that holds a file."""
    form = httpx.Request("POST", "http://form", data={"purpose": "file-extract"}, files={"file": (name, content)})
    return form.headers["content-type"], form.read()


def holds_files(messages: Sequence[Message]) -> bool:
    """Whether any message has a `{file: …}` part."""
    return any(isinstance(part, dict) and "file" in part for message in messages for part in _parts(message))


def _parts(message: Message) -> list[Any]:
    content = message.get("content")
    return content if isinstance(content, list) else []
