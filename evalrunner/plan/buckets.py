"""What a provider counts together: the models of one host and key, whatever their provider is called in the config."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from urllib.parse import urlsplit

from evalrunner.plugins import Account
from evalrunner.records import Limits, Model


def buckets(limits: Mapping[Model, Limits], accounts: Mapping[str, Account]) -> dict[Model, tuple[str, Limits]]:
    """Model -> its bucket and the limits of that: one for each model id of an account, or one for all where any of them is `shared`. Where several
    limits are declared for one bucket, the strictest of each holds.
    """
    places = _places(accounts.values())
    shared = {places[model.provider] for model, declared in limits.items() if declared.shared}
    names = {model: place if (place := places[model.provider]) in shared else f"{place}/{model.id}" for model in limits}
    return {model: (name, _strictest([limits[other] for other in names if names[other] == name])) for model, name in names.items()}


def _places(accounts: Iterable[Account]) -> dict[str, str]:
    """Provider -> the first provider with its host and key; its own name where the run starts it."""
    first: dict[object, str] = {}
    places = {}
    for account in accounts:
        who = account.api_key or sorted(account.headers.items())
        place = f"{urlsplit(account.base_url).netloc} {who}" if account.base_url else account.name
        places[account.name] = first.setdefault(place, account.name)
    return places


def _strictest(declared: list[Limits]) -> Limits:
    def least(values: Iterable[float | None]) -> float | None:
        return min((value for value in values if value is not None), default=None)

    return Limits(
        concurrency=min(one.concurrency for one in declared),
        rpm=least(one.rpm for one in declared),
        tpm=least(one.tpm for one in declared),
        shared=any(one.shared for one in declared),
    )
