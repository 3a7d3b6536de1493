"""What a simulator is told: the options of provider kind `simulator` and of `evalrunner simulate`, read and checked."""

from __future__ import annotations

import csv
import difflib
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from msgspec import DecodeError, Struct, ValidationError, convert, field, json

from evalrunner.simulator.chance import Correlation
from evalrunner.simulator.faults import Fault
from evalrunner.simulator.limits import Limit

BRAINS = ("auto", "arithmetic", "lookup", "echo", "tool_caller")
_QUESTION = ("question", "Question", "input", "prompt", "text")
_ANSWER = ("answer", "target", "golden", "expected", "label", "Best Answer")

_CLIENT_OPTIONS = {"transport", "headers", "terminal", "dialect", "input"}  # what every provider's options may hold is the client's business

_S = TypeVar("_S", bound=Struct)


class Latency(Struct, frozen=True, forbid_unknown_fields=True):
    """Milliseconds to the first token and for each later one; `jitter` is the sigma of a log-normal factor, drawn per request."""

    ttft_ms: float = 0.0
    per_token_ms: float = 0.0
    jitter: float = 0.0


class Effect(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a wording (or a model, or thinking) does: `accuracy` is added where every condition holds, `words` of working come before the answer."""

    contains: str | None = None
    model: str | None = None
    thinking: bool | None = None
    accuracy: float = 0.0
    words: int = 0


class SimulatorSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything a simulator is told; every field is an option of the same name.

    `accuracy`, `judge_accuracy` (share of right verdicts), `latency`, `limits` are by model, `*` stands for all others; one value alone stands for all.
    `limits: false` switches limits off; models without a line have the catalogue's. `answers` are (question, answer) pairs for the lookup and tool-caller
    brains; `brain: {lookup: answers}` says both at once. `brain` may be the base URL of an OpenAI-compatible server that answers instead. `models`: ids to
    accept beside the catalogue's and those named elsewhere here. `blocked`: words that moderation refuses. `cache`: implicit context cache, the one thing
    that makes usage depend on what came before. `clock_scale` multiplies every delay.
    """

    accuracy: dict[str, float] = field(default_factory=dict)
    judge_accuracy: dict[str, float] = field(default_factory=dict)
    brain: str = "auto"
    answers: tuple[tuple[str, Any], ...] = ()
    effects: tuple[Effect, ...] = ()
    correlation: Correlation = Correlation()
    faults: tuple[Fault, ...] = ()
    latency: dict[str, Latency] = field(default_factory=dict)
    limits: dict[str, Limit] | None = field(default_factory=dict)
    seed: int = 0
    api_key: str | None = None
    unauthorised: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    blocked: tuple[str, ...] = ()
    cache: bool = False
    chunk_tokens: int = 4
    batch_seconds: float = 2.0
    clock_scale: float = 1.0
    seed_compat: bool = False

    @property
    def named_models(self) -> frozenset[str]:
        """Every model id these settings speak of: all are accepted."""
        return frozenset({*self.models, *self.accuracy, *self.judge_accuracy, *self.latency, *(self.limits or ())} - {"*"})


def parse_settings(options: Mapping[str, Any], base: Path = Path()) -> SimulatorSettings:
    """Check the options of a simulator. Paths of `answers` are relative to `base`.

    Raises `ValueError` whose message names the option and, where one is near, the name that was meant.
    """
    read = {name: value for name, value in options.items() if name not in _CLIENT_OPTIONS}
    _known(read, SimulatorSettings, "")
    if isinstance(brain := read.get("brain"), Mapping) and len(brain) == 1 and "answers" not in read:
        read["brain"], read["answers"] = next(iter(brain.items()))
    for name, reader in _READERS.items():
        if name in read:
            read[name] = reader(read[name])
    if "answers" in read:
        read["answers"] = tuple(_answers(read["answers"], base))
    try:
        settings = convert(read, SimulatorSettings)
    except ValidationError as error:
        raise ValueError(_said(error, "")) from None
    _check(settings)
    return settings


def _check(settings: SimulatorSettings) -> None:
    if settings.brain not in BRAINS and not settings.brain.startswith(("http://", "https://")):
        raise ValueError(f"brain: {settings.brain!r} is none of {', '.join(BRAINS)}, nor a base URL{_near(settings.brain, BRAINS)}")
    if settings.brain == "lookup" and not settings.answers:
        raise ValueError("brain: lookup needs `answers`")
    for name in ("accuracy", "judge_accuracy"):
        for model, accuracy in getattr(settings, name).items():
            if not 0 <= accuracy <= 1:
                raise ValueError(f"{name}.{model}: {accuracy} is not between 0 and 1")
    if not (settings.correlation.question >= 0 <= settings.correlation.model and settings.correlation.question + settings.correlation.model <= 1):
        raise ValueError("correlation: question and model are parts of 1")
    for name in ("chunk_tokens", "clock_scale", "batch_seconds"):
        if getattr(settings, name) < (1 if name == "chunk_tokens" else 0):
            raise ValueError(f"{name}: {getattr(settings, name)} is too small")


def _by_model(kind: type[Struct], name: str, alone: str) -> Callable[[Any], Any]:
    """`{ttft_ms: 50}` means `{"*": {ttft_ms: 50}}`, and so does 50 for the field `alone`; False is None."""

    def read(given: Any) -> Any:
        if given is False:
            return None
        if isinstance(given, int | float):
            given = {alone: given}
        if not isinstance(given, Mapping):
            return given
        models = given if given and all(isinstance(one, Mapping | kind) for one in given.values()) else {"*": given}
        return {model: _struct(one, kind, f"{name}.{model}") for model, one in models.items()}

    return read


def _listed(kind: type[Struct], name: str) -> Callable[[Any], Any]:
    def read(given: Any) -> Any:
        return tuple(_struct(one, kind, f"{name}[{number}]") for number, one in enumerate(given)) if isinstance(given, list | tuple) else given

    return read


def _struct(given: Any, kind: type[_S], where: str) -> _S:
    if isinstance(given, kind):
        return given
    if isinstance(given, Mapping):
        _known(given, kind, f"{where}.")
    try:
        return convert(given, kind)
    except ValidationError as error:
        raise ValueError(_said(error, where)) from None


def _known(given: Mapping[str, Any], kind: type[Struct], where: str) -> None:
    for name in given:
        if name not in kind.__struct_fields__:
            raise ValueError(f"{where}{name}: there is no such option{_near(str(name), kind.__struct_fields__)}")


def _near(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(known), n=1)
    return f" (did you mean {near[0]!r}?)" if near else ""


def _said(error: ValidationError, where: str) -> str:
    """`Expected `float`, got `str` - at `$.ttft_ms`` as `latency.ttft_ms: expected ...`."""
    what, _, path = str(error).partition(" - at `$")
    name = f"{where}{path.rstrip('`')}".lstrip(".")
    return f"{name}: {what[0].lower()}{what[1:]}"


_READERS: dict[str, Callable[[Any], Any]] = {
    "accuracy": lambda given: {"*": given} if isinstance(given, int | float) else given,
    "judge_accuracy": lambda given: {"*": given} if isinstance(given, int | float) else given,
    "latency": _by_model(Latency, "latency", "ttft_ms"),
    "limits": _by_model(Limit, "limits", "rpm"),
    "faults": _listed(Fault, "faults"),
    "effects": _listed(Effect, "effects"),
    "correlation": lambda given: _struct(given, Correlation, "correlation"),
}


def _answers(given: Any, base: Path) -> Iterator[tuple[str, Any]]:
    """(question, answer) pairs from a path, a mapping {data, question, answer} with a path or rows, rows, pairs, or a list of all these."""
    if isinstance(given, str | Path):
        yield from _answers({"data": given}, base)
    elif isinstance(given, Mapping) and "data" in given:
        data = given["data"]
        for number, row in enumerate(_rows(base / data) if isinstance(data, str | Path) else data, start=1):
            yield (
                str(_column(row, given.get("question"), _QUESTION, "question", f"{data}:{number}")),
                _column(row, given.get("answer"), _ANSWER, "answer", f"{data}:{number}"),
            )
    elif isinstance(given, Mapping):
        yield from _answers({"data": [given]}, base)
    elif isinstance(given, list | tuple):
        for one in given:
            if isinstance(one, tuple | list) and len(one) == 2 and isinstance(one[0], str):
                yield one[0], one[1]
            else:
                yield from _answers(one, base)
    else:
        raise ValueError(f"answers: {type(given).__name__} is neither a path, rows, nor a mapping with data, question and answer")


def _column(row: Any, name: str | None, usual: tuple[str, ...], what: str, where: str) -> Any:
    for candidate in (name,) if name else usual:
        if isinstance(row, Mapping) and candidate in row:
            return row[candidate]
    raise ValueError(f"answers: {where} has no column {name!r}" if name else f"answers: {where}: say which column is the {what}, `{what}: NAME`")


def _rows(path: Path) -> list[Any]:
    if path.suffix not in {".jsonl", ".json", ".csv", ".tsv"}:
        raise ValueError(f"answers: {path} is none of .jsonl, .json, .csv, .tsv")
    try:
        text = path.read_text(encoding="utf-8-sig")
        if path.suffix == ".jsonl":
            return [json.decode(line) for line in text.split("\n") if line.strip()]
        if path.suffix == ".json":
            found = json.decode(text)
            return found if isinstance(found, list) else [found]
        return list(csv.DictReader(text.splitlines(), delimiter="\t" if path.suffix == ".tsv" else ","))
    except (OSError, UnicodeDecodeError, DecodeError) as error:
        raise ValueError(f"answers: {path} cannot be read: {error}") from None
