"""A budget against the prices of a plan: a limit in money is kept only where every price is known, and in one currency."""

from __future__ import annotations

from collections.abc import Sequence

from evalrunner.errors import ConfigError
from evalrunner.plan.config import Config
from evalrunner.plan.config_types import BudgetBlock
from evalrunner.plan.mistakes import Mistake
from evalrunner.records import Model


def budget_of(config: Config, models: Sequence[Model]) -> BudgetBlock | None:
    """The config's budget with its currency filled in. Raises `ConfigError` where it could not be kept."""
    budget = config.settings.budget
    if budget is None or budget.cost is None:
        return budget
    prices = {model.name: model.price.currency if model.price is not None else None for model in models}
    if unknown := [name for name, currency in prices.items() if currency is None]:
        hint = "write `price: {input: …, output: …, currency: …}` beside the model, 0 where it costs nothing"
        raise _refused(config, "cost", f"needs the price of every model, and that of {', '.join(unknown)} is not known (hint: {hint})")
    wanted = budget.currency or next(iter(prices.values()))
    if foreign := [f"{name} ({currency})" for name, currency in prices.items() if currency != wanted]:
        raise _refused(config, "currency", f"is {wanted}, and currencies are never mixed: {', '.join(foreign)} (hint: give each model a price in {wanted})")
    return budget.model_copy(update={"currency": wanted})


def _refused(config: Config, key: str, what: str) -> ConfigError:
    return ConfigError(config.places.line(Mistake(("budget", key), what)))
