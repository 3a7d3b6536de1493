"""The model behind the API: a call becomes a reply with thoughts, text or tool calls, a finish reason and usage, all drawn from the call's content."""

from __future__ import annotations

import itertools
import math
import time
from typing import Any

import aiohttp
from msgspec import DecodeError, json

from evalrunner.cost.tokens import count_text, texts, truncate
from evalrunner.simulator.brains import Brain, Calls, Lookup, arithmetic, echo, last_text
from evalrunner.simulator.calls import Call, Choice, Refusal, Reply, Tokens, ToolCall
from evalrunner.simulator.chance import draw, is_right, normal, unit
from evalrunner.simulator.judging import Judging
from evalrunner.simulator.media import media_of
from evalrunner.simulator.settings import SimulatorSettings
from evalrunner.simulator.tool_caller import ToolCaller, fill

_TOOL_CALL = 19
_EFFORT = {"minimal": 0, "none": 0, "low": 1, "medium": 2, "high": 4, "xhigh": 4, "max": 4}
_THOUGHT = (
    "Let me think about what is asked. The question is plain, but it is worth reading twice. First I take what is given, then what is wanted. "
    "I go through it one step at a time and check each of them. That looks right so far. Let me check it once more from the other end. "
)
_THOUGHT_ZH = "让我想一想这个问题。先看已知条件，再看要求什么。一步一步来，每一步都检查一遍。到这里看起来没有问题，再从另一头验算一次。"
_SAMPLING = ("temperature", "top_p", "top_k", "seed", "presence_penalty", "repetition_penalty", "response_format")


class Engine:
    """Answers calls with the brain the settings name. `right` and `wrong` count its answers by model, so that a report can be held against the truth."""

    def __init__(self, settings: SimulatorSettings) -> None:
        self._settings = settings
        self._brains = _brains(settings)
        self._numbers = itertools.count(1)
        self._session: aiohttp.ClientSession | None = None
        self.right: dict[str, int] = {}
        self.wrong: dict[str, int] = {}

    async def aclose(self) -> None:
        if self._session:
            await self._session.close()

    def new_id(self) -> str:
        """A uuid that no other request of this simulator has."""
        digits = f"{draw(self._settings.seed, 'id', number := next(self._numbers)):016x}{number:016x}"
        return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-9{digits[17:20]}-{digits[20:]}"

    async def reply(self, call: Call, request_id: str) -> Reply:
        """Raises `Refusal` where moderation stops the answer of a call that is not streamed."""
        identity = _identity(call)
        spoken = await self._upstream(call) if self._settings.brain.startswith("http") else None
        choices = tuple(self._choice(call, identity, number, spoken) for number in range(int(call.params.get("n") or 1)))
        if not call.stream and self.blocks(*(choice.text for choice in choices)):
            raise Refusal("data_inspection_failed", "Output data may contain inappropriate content.")
        reasoning = sum(count_text(choice.reasoning) for choice in choices)
        tool_calls = [one for choice in choices for one in choice.tool_calls]
        completion = sum(count_text(choice.text) for choice in choices) + sum(_TOOL_CALL + count_text(one.name + one.arguments) for one in tool_calls)
        tokens = Tokens(
            prompt=call.prompt_tokens,
            completion=completion + reasoning,
            reasoning=reasoning,
            cached=call.cached_tokens,
            written=call.written_tokens,
            explicit=call.explicit_cache,
            media=call.media_tokens,
        )
        latency = self._settings.latency.get(call.model) or self._settings.latency.get("*")
        speed = math.exp(latency.jitter * normal(self._settings.seed, "latency", call.model, identity)) if latency and latency.jitter else 1.0
        return Reply(id=request_id, created=int(time.time()), choices=choices, tokens=tokens, speed=speed)

    def blocks(self, *said: str) -> bool:
        return any(word in text for word in self._settings.blocked for text in said)

    def _choice(self, call: Call, identity: str, number: int, spoken: str | None) -> Choice:
        draws = f"{identity}/{number}"
        accuracy, words = self._chances(call)
        answer: str | Calls = spoken if spoken is not None else self._answer(call, draws, accuracy)
        reasoning = self._thoughts(call, draws) if call.thinking else ""
        if not isinstance(answer, str):
            tool_calls = tuple(ToolCall(f"call_{draw(draws, place):016x}", name, _arguments(given)) for place, (name, given) in enumerate(answer))
            return Choice(text="", reasoning=reasoning, tool_calls=tool_calls, finish_reason="tool_calls")
        text = _formatted(answer, call)
        if words and text is answer:
            text = f"{_words(last_text(call), words)}\n{text}"
        return _ended(call, text, reasoning)

    def _answer(self, call: Call, draws: str, accuracy: float) -> str | Calls:
        solution = next(found for brain in self._brains if (found := brain(call)) is not None)
        seed = self._settings.seed
        if solution.wrong is None:
            return solution.right
        if solution.accuracy is not None:
            accuracy, draws = solution.accuracy, solution.request or draws
        right = is_right(accuracy, seed=seed, subject=solution.subject, model=call.model, request=draws, correlation=self._settings.correlation)
        if solution.accuracy is not None:  # a verdict is no answer to count
            return solution.right if right else solution.wrong(draw(seed, "wrong", call.model, draws))
        if right:
            self.right[call.model] = self.right.get(call.model, 0) + 1
            return solution.right
        self.wrong[call.model] = self.wrong.get(call.model, 0) + 1
        return solution.wrong(draw(seed, "wrong", call.model, draws))

    def _chances(self, call: Call) -> tuple[float, int]:
        """(accuracy, words of working) after every effect that matches."""
        accuracy, words = self._settings.accuracy.get(call.model, self._settings.accuracy.get("*", 1.0)), 0
        if self._settings.effects:
            said = "\n".join(text for message in call.messages for text in texts(message))
            for effect in self._settings.effects:
                if (
                    (effect.contains is None or effect.contains in said)
                    and (effect.model is None or effect.model == call.model)
                    and (effect.thinking is None or effect.thinking == call.thinking)
                ):
                    accuracy, words = accuracy + effect.accuracy, words + effect.words
        return min(1.0, max(0.0, accuracy)), words

    def _thoughts(self, call: Call, draws: str) -> str:
        effort = _EFFORT.get(str(call.params.get("reasoning_effort") or "medium"), 2)
        text = _words(last_text(call), effort * (10 + int(20 * unit(draws, "thought"))))
        budget = call.params.get("thinking_budget")
        return text if budget is None else truncate(text, int(budget))

    async def _upstream(self, call: Call) -> str:
        """The answer of the real model that stands behind this simulator."""
        self._session = self._session or aiohttp.ClientSession()
        body = {
            "model": call.model,
            "messages": call.messages,
            **{name: call.params[name] for name in (*_SAMPLING, "max_tokens", "stop") if name in call.params},
        }
        try:
            async with self._session.post(f"{self._settings.brain.rstrip('/')}/chat/completions", json=body) as response:
                data = json.decode(await response.read())
                return str(data["choices"][0]["message"]["content"] or "")
        except (aiohttp.ClientError, DecodeError, KeyError, IndexError, TypeError) as error:
            raise Refusal("ModelServingError", f"The model behind the simulator did not answer: {error!r}") from error


def _brains(settings: SimulatorSettings) -> tuple[Brain, ...]:
    """In the order they are asked; the echo always answers."""
    lookup = Lookup(settings.answers)
    caller = ToolCaller(lookup, eager=settings.brain == "tool_caller")
    by_name: dict[str, tuple[Brain, ...]] = {"arithmetic": (arithmetic,), "lookup": (lookup,), "echo": (), "tool_caller": (caller, lookup, arithmetic)}
    return (Judging(settings.judge_accuracy, (lookup, arithmetic)), *by_name.get(settings.brain, (caller, lookup, arithmetic)), echo)


def _identity(call: Call) -> str:
    """What makes two calls the same question to the same model, in either dialect and streamed or not."""
    said: list[Any] = [call.thinking]
    for message in call.messages:
        content = message.get("content")
        media = [one.url for one in media_of(message)] if isinstance(content, list) else []
        spoken = [text for text in texts(message) if text]  # beside tool calls one dialect says "", the other []
        said.append([message.get("role"), spoken, media, [one.get("function") for one in message.get("tool_calls") or ()]])
    said.append({name: float(value) if isinstance(value := call.params[name], int) else value for name in _SAMPLING if name in call.params})
    return f"{draw(json.encode(said, order='sorted').decode()):016x}"


def _arguments(given: dict[str, Any]) -> str:
    """A tool without parameters gets "", as the service does it."""
    return json.format(json.encode(given), indent=0).decode() if given else ""


def _words(prompt: str, words: int) -> str:
    if any("\u4e00" <= sign <= "\u9fff" for sign in prompt[:200]):
        return "".join(itertools.islice(itertools.cycle(_THOUGHT_ZH), 2 * words))
    return " ".join(itertools.islice(itertools.cycle(_THOUGHT.split()), words))


def _formatted(answer: str, call: Call) -> str:
    """The answer as `response_format` wants it: JSON stays as it is, anything else becomes a field of an object."""
    wanted = call.params.get("response_format")
    kind = wanted.get("type") if isinstance(wanted, dict) else None
    if kind not in {"json_object", "json_schema"} or answer.lstrip()[:1] == "{":
        return answer
    if kind == "json_schema" and isinstance(wanted, dict):
        schema = (wanted.get("json_schema") or {}).get("schema") or {}
        return json.encode(fill(schema, f'"{answer}" {last_text(call)}')).decode()
    return json.encode({"answer": answer}).decode()


def _ended(call: Call, text: str, reasoning: str) -> Choice:
    """Cut at a stop string and at the limits: `max_tokens` bounds the answer, `max_completion_tokens` thoughts and answer together."""
    finish, stops = "stop", call.params.get("stop") or ()
    for stop in [stops] if isinstance(stops, str) else [one for one in stops if isinstance(one, str)]:
        text = text.partition(stop)[0]
    if (both := call.params.get("max_completion_tokens")) is not None:
        shortened = truncate(reasoning, int(both))
        text, finish = _shorter(text, int(both) - count_text(shortened), "length" if shortened != reasoning else finish)
        reasoning = shortened
    caps = [int(cap) for cap in (call.params.get("max_tokens"), call.facts.max_output) if cap is not None]
    text, finish = _shorter(text, min(caps), finish) if caps else (text, finish)
    return Choice(text=text, reasoning=reasoning, finish_reason=finish)


def _shorter(text: str, cap: int, finish: str) -> tuple[str, str]:
    cut = truncate(text, max(0, cap))
    return cut, finish if cut == text else "length"
