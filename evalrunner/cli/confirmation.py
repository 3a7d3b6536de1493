"""The one question before much money may be spent."""

import sys
from collections.abc import Iterable

from evalrunner.engine.budget import WorstCase
from evalrunner.plan.config import Config
from evalrunner.plan.grid import Plan, make_plan
from evalrunner.records import Model

MANY = 10_000
"""Requests; a plan of more is not added up either."""
DEAR = 10.0
"""Worst case, in any currency."""


def confirmed(config: Config) -> bool:
    """Whether to go on. Asks on a terminal only, and only where a price is known, no budget in money is set, and the plan is large or may be dear."""
    plan = make_plan(config)
    paid = [model for model in plan.models if model.price is not None]
    limited = plan.budget is not None and plan.budget.cost is not None
    if limited or not paid or not (sys.stdin.isatty() and sys.stderr.isatty()):
        return True
    worst = _worst_cases(plan, paid) if plan.size <= MANY else {}
    if worst and max(worst.values()) <= DEAR:
        return True
    amounts = ", ".join(f"{currency} {amount:,.2f}" for currency, amount in worst.items())
    case = f"worst case {amounts}, without retries" if worst else "no budget is set"
    print(f"Send {plan.size:,} requests ({case}; --max-cost sets a budget)? [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in {"y", "yes"}


def _worst_cases(plan: Plan, models: Iterable[Model]) -> dict[str, float]:
    """By currency, if every request needs one attempt."""
    worst: dict[str, float] = {}
    for model in models:
        case = WorstCase(model)
        if model.price is not None:
            cost = sum(case.of(request) for request in plan.requests(model))
            worst[model.price.currency] = worst.get(model.price.currency, 0.0) + cost
    return worst
