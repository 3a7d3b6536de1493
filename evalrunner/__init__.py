"""evalrunner: choose a model, guard a prompt, price a workload.

import evalrunner as er

run = er.run("configs/quickstart.yaml")
run.results()  # a pandas data frame, one row per request
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from evalrunner.api import arun as arun
    from evalrunner.api import run as run
    from evalrunner.clock import Clock as Clock
    from evalrunner.errors import EvalRunnerError as EvalRunnerError
    from evalrunner.errors import RunError as RunError
    from evalrunner.errors import ScorerError as ScorerError
    from evalrunner.plugins import Account as Account
    from evalrunner.plugins import Client as Client
    from evalrunner.plugins import Loader as Loader
    from evalrunner.plugins import Scorer as Scorer
    from evalrunner.records import Completion as Completion
    from evalrunner.records import Request as Request
    from evalrunner.records import Sample as Sample
    from evalrunner.records import Score as Score
    from evalrunner.records import Timing as Timing
    from evalrunner.records import Usage as Usage
    from evalrunner.results import Run as Run
    from evalrunner.results import compare as compare
    from evalrunner.results import make_report as make_report
    from evalrunner.results import open_run as open_run

_HOMES = {
    "api": ("arun", "run"),
    "clock": ("Clock",),
    "errors": ("EvalRunnerError", "RunError", "ScorerError"),
    "plugins": ("Account", "Client", "Loader", "Scorer"),
    "records": ("Completion", "Request", "Sample", "Score", "Timing", "Usage"),
    "results": ("Run", "compare", "make_report", "open_run"),
}
"""Every public name by the module that has it: imported on use, so that `import evalrunner` stays cheap."""


def __getattr__(name: str) -> Any:
    for home, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"evalrunner.{home}"), name)
    raise AttributeError(f"module 'evalrunner' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(name for names in _HOMES.values() for name in names)
