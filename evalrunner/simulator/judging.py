"""The judge's brain: knows a judging prompt by its JSON verdict and its marks, compares what it is shown, and is wrong as often as it is told to be.

It obeys what stands outside the marks only. Prompts of this form, whoever writes them, are understood: somewhere `verdict is one of "a", "b"`, and parts
between `[title CODE]` and `[end of title CODE]` called conversation, reference, and answer or answer A and answer B.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from msgspec import json
from msgspec.structs import replace

from evalrunner.cost.tokens import texts
from evalrunner.simulator.brains import Brain, Solution
from evalrunner.simulator.calls import Call
from evalrunner.simulator.chance import draw

_WORDS = re.compile(r'verdict is one of ((?:"[^"\n]+"(?:, )?)+)')
_PART = re.compile(r"^\[(conversation|reference|answer(?: [AB])?) ([0-9a-f]{8,})\]\n(.*?)\n\[end of \1 \2\]$", re.DOTALL | re.MULTILINE)
_NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?")


class Judging:
    """Judges with `accuracy` by model; where it is shown no reference, `others` may know the right answer to the conversation."""

    def __init__(self, accuracy: Mapping[str, float], others: tuple[Brain, ...]) -> None:
        self._accuracy = accuracy
        self._others = others

    def __call__(self, call: Call) -> Solution | None:
        said = {role: "\n".join(text for message in call.messages if message.get("role") == role for text in texts(message)) for role in ("system", "user")}
        words = _WORDS.search(said["system"]) or _WORDS.search(said["user"])
        parts = {title: text for title, _, text in _PART.findall(said["user"])}
        if words is None or not parts.keys() & {"answer", "answer A"}:
            return None
        known = re.findall(r'"([^"\n]+)"', words[1])
        right = self._verdict(call, parts, known)
        shown = f"{draw(*sorted(parts.items())):016x}"
        return Solution(
            subject=shown,
            right=_reply(right, "That is what the comparison gives."),
            wrong=lambda number: _reply(*_mistaken(right, known, number)),
            accuracy=self._accuracy.get(call.model, self._accuracy.get("*", 1.0)),
            request=f"{draw(*parts.items()):016x}",
        )

    def _verdict(self, call: Call, parts: Mapping[str, str], known: list[str]) -> str:
        reference = parts.get("reference") or self._solved(call, parts.get("conversation", ""))
        if "answer A" in parts:
            first, second = (_agrees(parts.get(title, ""), reference) for title in ("answer A", "answer B"))
            tie = next((word for word in known if word not in {"A", "B"}), "A")
            return tie if first == second else "A" if first else "B"
        best, worst = (known[-1], known[0]) if all(word.isdigit() for word in known) else (known[0], known[-1])
        return best if _agrees(parts["answer"], reference) else worst

    def _solved(self, call: Call, conversation: str) -> str | None:
        asked = replace(call, messages=[{"role": "user", "content": conversation}])
        found = next((solution for brain in self._others if (solution := brain(asked)) is not None), None)
        return found.right if found is not None and isinstance(found.right, str) else None


def _agrees(answer: str, reference: str | None) -> bool:
    """Whether the reference stands in the answer; of a number, whether it is the answer's last. Without a reference everything is right."""
    if reference is None:
        return True
    if _NUMBER.fullmatch(reference.strip()):
        found = _NUMBER.findall(answer)
        return bool(found) and float(found[-1].replace(",", "")) == float(reference.strip().replace(",", ""))
    return " ".join(reference.casefold().split()) in " ".join(answer.casefold().split())


def _mistaken(right: str, known: list[str], number: int) -> tuple[str, str]:
    others = [word for word in known if word != right]
    return others[number % len(others)] if others else right, "That is how it looks."


def _reply(verdict: str, reason: str) -> str:
    return json.encode({"reason": reason, "verdict": verdict}).decode()
