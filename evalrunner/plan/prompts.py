"""Prompts: named templates that turn a row into messages and a target.

What comes from the data is data: it is put into a template's holes and never read as a template. Every failure is a ValueError about one template or
one row; whoever knows the file and line adds them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from jinja2 import Template

from evalrunner.plan.sandbox import Sandbox, nearest
from evalrunner.records import Message

ROLES = ("system", "user", "assistant", "tool")
_FROM_DATA = frozenset({"role", "content", "name", "tool_calls", "tool_call_id", "reasoning_content", "partial"})
_PARTS = frozenset({"text", "image", "audio", "file"})
_WIRE = {"image_url": "image", "audio_url": "audio", "input_audio": "audio"}
_BESIDE = ("min_pixels", "max_pixels", "cache_control")
_SANDBOX = Sandbox()


def check_template(text: str) -> str:
    """The text itself, if it is a template. Raises ValueError."""
    _SANDBOX.compile_template(text)
    return text


class Text:
    """One template, compiled once."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._template: Template | None = _SANDBOX.compile_template(text) if "{" in text else None

    def render(self, fields: Mapping[str, Any]) -> str:
        """Raises ValueError that says what this row lacks."""
        if self._template is None:
            return self.text
        return _SANDBOX.render_template(self._template, fields)


class Prompt:
    """A named list of messages with holes. `messages` are mappings `role`, `content` (text or parts) and what else the provider takes; `media` says where
    the parts are that name a hash already.
    """

    def __init__(self, name: str, messages: Sequence[Mapping[str, Any]], media: Mapping[str, str] | None = None) -> None:
        self.name = name
        self.media = dict(media or {})
        self.template = [dict(message) for message in messages]
        self._contents = [_compiled(message["content"]) for message in messages]

    def messages(self, fields: Mapping[str, Any]) -> list[Message]:
        """The messages for one row. Raises ValueError."""
        built: list[Message] = []
        for number, (message, content) in enumerate(zip(self.template, self._contents, strict=True), 1):
            if isinstance(content, Text):
                text = content.render(fields)
                if not text.strip():
                    raise ValueError(f"message {number} ({message['role']}) is empty")
                built.append({**message, "content": text})
            else:
                parts = [{kind: text.render(fields) for kind, text in part.items()} for part in content]
                built.append({**message, "content": parts})
        return built


class Conversation:
    """A ready conversation out of a column: a list of messages, or its JSON text. `template` says where it comes from."""

    def __init__(self, column: str) -> None:
        self.name = column
        self.media: dict[str, str] = {}
        self.template = {"messages_from": column}

    def messages(self, fields: Mapping[str, Any]) -> list[Message]:
        """The row's messages, checked. Raises ValueError."""
        if self.name not in fields:
            raise ValueError(f"no field is called {self.name!r}{nearest(self.name, fields)}")
        value = fields[self.name]
        if isinstance(value, str):
            try:
                value = json.loads(value)
            except ValueError:
                raise ValueError(f"{self.name!r} is not a JSON list of messages") from None
        if not isinstance(value, list) or not value:
            raise ValueError(f"{self.name!r} is not a list of messages")
        messages = [_checked(message, number) for number, message in enumerate(value, 1)]
        if messages[-1]["role"] not in {"user", "tool"} and not messages[-1].get("partial"):
            raise ValueError(f"{self.name!r} must end with a user or tool message, not {messages[-1]['role']}")
        return messages


def _compiled(content: str | Sequence[Mapping[str, str]]) -> Text | list[dict[str, Text]]:
    if isinstance(content, str):
        return Text(content)
    return [{kind: Text(text) for kind, text in part.items()} for part in content]


def _checked(message: Any, number: int) -> Message:
    if not isinstance(message, dict):
        raise ValueError(f"message {number} is not a mapping with role and content")  # noqa: TRY004 - every failure here is a ValueError about one row
    if unknown := [key for key in message if key not in _FROM_DATA]:
        raise ValueError(f"message {number}: unknown key {unknown[0]!r}{nearest(unknown[0], _FROM_DATA)}")
    role, content = message.get("role"), message.get("content")
    if role not in ROLES:
        raise ValueError(f"message {number}: role {role!r} should be one of {', '.join(ROLES)}")
    if role == "tool" and not message.get("tool_call_id"):
        raise ValueError(f"message {number}: a tool message needs tool_call_id")
    if isinstance(content, list):
        return {**message, "content": [_part(part, number) for part in content]}
    if not isinstance(content, str) and not (content is None and role == "assistant" and message.get("tool_calls")):
        raise ValueError(f"message {number}: content must be text or a list of parts")
    if not content and role != "assistant":
        raise ValueError(f"message {number} ({role}) is empty")
    return dict(message)


def _part(part: Any, number: int) -> dict[str, Any]:
    """`{text: …}`, `{image: …}`, `{audio: …}` or `{file: …}`; OpenAI's own forms are taken too."""
    if isinstance(part, dict):
        rest = {name: value for name, value in part.items() if name != "type"}
        beside = {name: rest.pop(name) for name in _BESIDE if name in rest}
        [(kind, value)] = rest.items() if len(rest) == 1 else [("", None)]
        if kind in _WIRE and isinstance(value, dict):
            kind, value = _WIRE[kind], _address(kind, value)
        if kind in _PARTS and isinstance(value, str):
            return {kind: value, **beside}
    raise ValueError(f"message {number}: a part must be {{text: …}}, {{image: path or URL}}, {{audio: path or URL}} or {{file: path}}")


def _address(kind: str, value: Mapping[str, Any]) -> Any:
    """The URL of OpenAI's form; bare base64 becomes a data URI."""
    if kind != "input_audio":
        return value.get("url")
    data = value.get("data")
    if not isinstance(data, str) or data.startswith(("http:", "https:", "oss:")):
        return data
    return f"data:audio/{value.get('format') or 'wav'};base64,{data.rpartition(',')[2]}"
