"""One small request per model before the grid: are the key, the host and the model's name right?"""

import asyncio
from collections.abc import Mapping, Sequence

from msgspec.structs import replace

from evalrunner.clock import Clock
from evalrunner.errors import (
    AccountError,
    AuthError,
    BadOutputError,
    BrokenStreamError,
    ConfigError,
    DeadlineError,
    EndpointError,
    FilteredError,
    RateLimitedError,
    RejectedError,
    RequestError,
    RunError,
    ServerError,
    TransportError,
    UnknownModelError,
    UnreachableError,
)
from evalrunner.plugins import Client
from evalrunner.records import Model, Plan, Request

TRIES = 3
NOT_FOUND = 404
SENT_ALONG = ("enable_thinking", "thinking_budget", "reasoning_effort", "extra_body")
"""Parameters of the first request that decide whether, or for how long, a model thinks."""


async def preflight(plan: Plan, models: Sequence[Model], clients: Mapping[str, Client], clock: Clock) -> None:
    """Ask each model for one token; `clients` by account name. Whatever shows that host, key and name are right passes, a refusal of the question too.

    The models of an account are asked in turn, so that a wrong key costs one request. Raises ConfigError for unknown models (exit 2), else
    UnreachableError (exit 5), with one line for every model that failed.
    """
    accounts = {model.provider: [other for other in models if other.provider == model.provider] for model in models}
    found = await asyncio.gather(*(_ask_account(plan, account, clients[name], clock) for name, account in accounts.items()))
    failures = [failure for group in found for failure in group]
    if not failures:
        return
    lines = "\n".join(f"preflight: {model.name} ({model.provider}): {_explained(error)}" for model, error in failures)
    if all(isinstance(error, UnknownModelError) for _, error in failures):
        raise ConfigError(lines)
    raise UnreachableError(lines)


async def _ask_account(plan: Plan, models: Sequence[Model], client: Client, clock: Clock) -> list[tuple[Model, Exception]]:
    failures: list[tuple[Model, Exception]] = []
    for model in models:
        request = next(plan.requests(model), None)
        if request is None:
            continue
        error = await ask(small(request), client, clock)
        if error is not None and not shows_it_is_right(error):
            failures.append((model, error))
        if isinstance(error, AuthError | AccountError):
            break
    return failures


def _explained(error: Exception) -> str:
    if isinstance(error, BadOutputError | BrokenStreamError):
        return f"somebody answers there, but not as this API does: {error}; check base_url and kind"
    if isinstance(error, TransportError | DeadlineError) or getattr(error, "http_status", None) == NOT_FOUND:
        return f"{str(error).rstrip('.')}; check base_url"
    return str(error)


def small(request: Request) -> Request:
    """The least that can be asked of the request's model in its way."""
    params = {name: value for name, value in request.cell.params.items() if name in SENT_ALONG} | {"max_tokens": 1}
    hello = [{"role": "user", "content": "Hi"}]
    return replace(request, cell=replace(request.cell, params=params), messages=hello, media={}, tools=None, tool_choice=None)


def shows_it_is_right(error: Exception | None) -> bool:
    """Whether what came of a small question shows that host, key and name are right. An answer without text does, if it is an answer of this API."""
    if isinstance(error, BadOutputError):
        return error.response_id is not None or error.usage is not None
    return error is None or isinstance(error, RejectedError | FilteredError | RateLimitedError)


async def ask(request: Request, client: Client, clock: Clock) -> RequestError | EndpointError | None:
    """Ask until something but a passing fault is the answer, at most `TRIES` times; the last error, None for an answer."""
    for again in reversed(range(TRIES)):
        try:
            await client.complete(request)
        except (TransportError, DeadlineError, ServerError, BrokenStreamError, BadOutputError) as error:
            if not again or shows_it_is_right(error):
                return error
            await clock.sleep(1)
        except (RequestError, EndpointError) as error:
            return error
        except RunError:
            raise
        except Exception as error:  # noqa: BLE001 - somebody's client: as in the run, its mistake is one answer that cannot be used
            return BadOutputError(f"the client failed: {type(error).__name__}: {error}")
        else:
            return None
    return None
