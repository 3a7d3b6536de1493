"""The one question before much money may be spent: only on a terminal, only where somebody has to pay."""

from __future__ import annotations

import io

import pytest

from evalrunner.cli.confirmation import confirmed
from evalrunner.plan.config import load_config

CONFIG = """
name: study
models: [{models}]
grid: {{max_tokens: 100}}
trials: {trials}
prompt_sets:
  - {{name: s, samples: [{{q: one}}], prompts: {{p: "{{{{ q }}}}"}}}}
"""
PAID = "{id: m, provider: openai, price: {input: 1, output: 10000, currency: USD}}"


class Terminal(io.StringIO):
    """A terminal on which somebody types."""

    def isatty(self):
        return True


@pytest.fixture
def asked(tmp_path, monkeypatch):
    """`asked(typed, …)`: whether the run goes on, and what was asked."""

    def ask(typed, models=PAID, trials=20, extra="", terminal=Terminal):
        path = tmp_path / "study.yaml"
        path.write_text(CONFIG.format(models=models, trials=trials) + extra)
        screen = terminal()
        monkeypatch.setattr("sys.stdin", terminal(typed))
        monkeypatch.setattr("sys.stderr", screen)
        return confirmed(load_config(path)), screen.getvalue()

    return ask


@pytest.mark.parametrize(("typed", "goes_on"), [("y\n", True), ("Yes\n", True), ("n\n", False), ("\n", False), ("", False)])
def test_a_dear_plan_is_asked_about(asked, typed, goes_on):
    """Twenty requests that may cost a dollar each: the number and the worst case are named, and nothing but yes is a yes."""
    answer, question = asked(typed)
    assert answer is goes_on
    assert question.startswith("Send 20 requests (worst case USD 20.0")


def test_a_large_plan_is_asked_about_without_adding_it_up(asked):
    """A million requests are not rendered for a question."""
    assert asked("n\n", trials=10_001) == (False, "Send 10,001 requests (no budget is set; --max-cost sets a budget)? [y/N] ")


@pytest.mark.parametrize(
    "given",
    [
        {"trials": 5},
        {"models": "{id: m, provider: local}"},
        {"extra": "budget: {cost: 100}\n"},
        {"terminal": io.StringIO},
    ],
    ids=["cheap", "free", "with a budget", "without a terminal"],
)
def test_nobody_else_is_asked(asked, given):
    """Cheap plans, models without a price, plans with a budget, and scripts go on without a word."""
    assert asked("n\n", **given) == (True, "")
