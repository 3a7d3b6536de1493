"""Every failure, by its fate.

    EvalRunnerError
      RunError (stops the run; carries the exit code)      RequestError (becomes a row; never leaves the runner)
        ConfigError (file, line, column, hint)                RateLimitedError (retry_after)     retry, slow down
        DatasetError · PluginError · StoreError               ServerError · TransportError · DeadlineError (phase)     retry
        RunLockedError (owner) · BudgetError                  BrokenStreamError (cut, or an error after 200)           retry
        UnreachableError                                      BadOutputError                                           retry once
      EndpointError (stops one account, or one model of it)   RejectedError · FilteredError                            no retry
        AuthError · AccountError · UnknownModelError        ScorerError (score is null, with the reason) · UnaskedError (until resume)

A client classifies, the engine acts: clients raise a `RequestError` or an `EndpointError` and know nothing of retries. `FATES`, at the end, is the
one table that says what each class becomes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from evalrunner.records import Timing, Usage


class EvalRunnerError(Exception):
    """Any failure this package raises on purpose."""


class RunError(EvalRunnerError):
    """Stops the run. The message says what, where and what to do; `exit_code` is contract.md's."""

    exit_code = 2


class ConfigError(RunError):
    """One or more mistakes in a config; `problems` are complete lines `file:line:column: key: what (hint)`."""

    def __init__(self, *problems: str) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class DatasetError(RunError):
    """A data file that cannot be used; the message begins with `file:line:`. `problems` holds one line per mistake."""

    def __init__(self, *problems: str) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class PluginError(RunError):
    """A client, scorer or loader that cannot be found or does not take the options given."""


class BudgetError(RunError):
    """The next request could exceed the budget; the run stops and can be resumed with a higher one."""

    exit_code = 3


class UnreachableError(RunError):
    """No account is left that could answer: key, account, host or network. Resumable."""

    exit_code = 5


class StoreError(RunError):
    """The run directory cannot be used: damaged beyond repair, disk full, wrong version."""

    exit_code = 6


class RunLockedError(StoreError):
    """A live run owns the directory; `owner` says which (host, process, since when)."""

    def __init__(self, path: str, owner: str) -> None:
        super().__init__(f"{path}: this run is in use by {owner}; wait for it to end, or choose another directory with --out")
        self.owner = owner


class _ProviderError(EvalRunnerError):
    """What the provider or the way to it said. All fields but the message may be unknown (None).

    `code` and `message` are the provider's own words; `timing` has the stamps up to the failure, `usage` what it will bill, `raw` a body that could
    not be read, `retry_after_s` the wait the server asked for, `phase` where it broke (connect, send, wait, stream, body).
    """

    def __init__(  # noqa: PLR0913 - one keyword per field of what was said
        self,
        message: str,
        *,
        http_status: int | None = None,
        code: str | None = None,
        retry_after_s: float | None = None,
        phase: str | None = None,
        response_id: str | None = None,
        usage: Usage | None = None,
        timing: Timing | None = None,
        raw: bytes | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.http_status = http_status
        self.code = code
        self.retry_after_s = retry_after_s
        self.phase = phase
        self.response_id = response_id
        self.usage = usage
        self.timing = timing
        self.raw = raw


class RequestError(_ProviderError):
    """One attempt failed. The engine turns it into a wait or a row; it never leaves the runner."""


class RateLimitedError(RequestError):
    """429 and its relatives. `burst` means the rate grew too fast, not that it is too high."""

    burst = False


class ServerError(RequestError):
    """The provider failed: 5xx, 408, 409, 425, or an error of that kind inside a 200."""


class TransportError(RequestError):
    """No answer from the network: name, connection, reset, protocol."""


class DeadlineError(RequestError):
    """One of the timeouts passed; `phase` names it (connect, first_token, idle, total)."""


class BrokenStreamError(RequestError):
    """A stream that ended without a finish reason or [DONE]."""


class BadOutputError(RequestError):
    """An answer nobody can read, or with neither text nor tool calls."""


class RejectedError(RequestError):
    """The provider will not answer this request, however often it is asked (most 4xx)."""


class FilteredError(RequestError):
    """Refused by the provider's content inspection."""


class EndpointError(_ProviderError):
    """Stops one account (`scope = "account"`) or one model of it (`"model"`); the requests still open there stay unanswered and can be resumed."""

    scope: Literal["account", "model"] = "account"


class AuthError(EndpointError):
    """The key is missing, wrong, revoked or bound to another region or host; TLS that cannot be trusted counts here too."""


class AccountError(EndpointError):
    """The account cannot pay: arrears, free tier used up, product not bought."""


class UnknownModelError(EndpointError):
    """The provider knows no such model, or not for this account."""

    scope = "model"


class ScorerError(EvalRunnerError):
    """A scorer failed on one answer: the score is null and this is its reason."""


class UnaskedError(ScorerError):
    """The model a scorer asks could not be asked now: the score is null, and `resume` asks again."""


Retry = Literal["wait", "backoff", "once", "never"]


class Fate(NamedTuple):
    """What a provider error becomes: the outcome of its row, how it is retried, what it stops.

    `wait` uses up time, not attempts; `backoff` uses up both; `once` allows one more attempt.
    """

    outcome: str
    retry: Retry
    stops: Literal["nothing", "account", "model"] = "nothing"


FATES: dict[type[_ProviderError], Fate] = {
    RateLimitedError: Fate("rate_limited", "wait"),
    ServerError: Fate("server_error", "backoff"),
    TransportError: Fate("transport", "backoff"),
    DeadlineError: Fate("timeout", "backoff"),
    BrokenStreamError: Fate("broken_stream", "backoff"),
    BadOutputError: Fate("bad_output", "once"),
    RejectedError: Fate("rejected", "never"),
    FilteredError: Fate("filtered", "never"),
    AuthError: Fate("auth", "never", "account"),
    AccountError: Fate("auth", "never", "account"),
    UnknownModelError: Fate("auth", "never", "model"),
}
