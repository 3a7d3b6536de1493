"""`evalrunner schema`: the JSON Schema of a config, for editors."""

import argparse
import json

from evalrunner.plan.config import config_schema


def add_arguments(_parser: argparse.ArgumentParser) -> None:
    """It takes none."""


def main(_args: argparse.Namespace) -> int:
    print(json.dumps(config_schema(), indent=2, ensure_ascii=False))
    return 0
