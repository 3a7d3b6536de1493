"""`evalrunner simulate`: the Qwen API on this machine, both dialects, until Ctrl-C."""

import argparse
import asyncio
import signal
from pathlib import Path
from typing import Any

from evalrunner.errors import ConfigError
from evalrunner.plan.yaml_source import plain_scalar, read_yaml
from evalrunner.simulator.app import SimulatorSettings, parse_settings, serve

LAST_PORT = 65_535


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--port", type=_port, default=8000, metavar="N", help="port on this machine (default: %(default)s; 0 takes a free one)")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s, which nobody else can reach)")
    parser.add_argument("--options", type=Path, metavar="FILE", help="a YAML file with the options of a `simulator` provider")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides", help="one option, as in brain=echo or accuracy=0.8")
    parser.add_argument("--seed-compat", action="store_true", help="accept what the old API document says and the live service refuses")


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) <= LAST_PORT):
        raise argparse.ArgumentTypeError(f"should be a number from 0 to {LAST_PORT}, not {text!r}")
    return int(text)


def main(args: argparse.Namespace) -> int:
    settings = _settings(args)
    asyncio.run(_serve(settings, args.host, args.port))
    return 0


def _settings(args: argparse.Namespace) -> SimulatorSettings:
    options: dict[str, Any] = {}
    base = Path()
    if args.options:
        source = read_yaml(args.options)
        if source.problems or not isinstance(source.value, dict):
            raise ConfigError(*(source.problems or [f"{args.options}: should be a mapping of options"]))
        options, base = source.value, args.options.parent
    for override in args.overrides:
        name, equals, value = override.partition("=")
        if not equals:
            raise ConfigError(f"--set {override}: should be KEY=VALUE")
        options[name] = plain_scalar(value)
    if args.seed_compat:
        options["seed_compat"] = True
    try:
        return parse_settings(options, base)
    except ValueError as error:
        raise ConfigError(str(error)) from None


async def _serve(settings: SimulatorSettings, host: str, port: int) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    try:
        async with serve(settings, host, port) as base:
            key = "The key is the option api_key" if settings.api_key else "Any key will do"
            print(f"OpenAI dialect   {base}/compatible-mode/v1\nnative dialect   {base}/api/v1\n{key}; Ctrl-C ends it.", flush=True)
            await stop.wait()
    except OSError as error:
        raise ConfigError(f"cannot listen on {host}:{port}: {error.strerror or error}; choose another with --port or --host") from None
