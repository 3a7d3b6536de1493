"""`evalrunner compare`: two runs, or cells of them, sample by sample: differences, flips, a verdict and an exit code that CI can trust."""

import argparse
from pathlib import Path
from typing import Any

import msgspec

from evalrunner.analysis.compare import Options
from evalrunner.analysis.rules import Rule, rule_of
from evalrunner.cli.saying import command, reader_may_leave
from evalrunner.cli.verdict_files import junit, markdown, tell_github
from evalrunner.cli.verdict_words import decision_lines
from evalrunner.decisions import EXIT_CODES, decide, open_both
from evalrunner.errors import ConfigError
from evalrunner.plain import escaped
from evalrunner.plan.yaml_source import read_yaml
from evalrunner.store.files import whole_file

_LIMITS = ("min", "max", "max_drop")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("baseline", metavar="BASELINE", help="a run's directory, or cells of it: 'RUN[prompt=plain,temperature=0]'")
    parser.add_argument("candidate", metavar="CANDIDATE", help="the same; may be the same run")
    parser.add_argument(
        "--gate",
        action="append",
        default=[],
        metavar="FILE|EXPR",
        help="what must hold, in place of the candidate's own gate: a config (its `gate`), or 'score_exact max_drop=0.02 model=qwen-max'",
    )
    add_pairing(parser)
    parser.add_argument("--allow-changed-data", action="store_true", help="leave out samples whose data differ, instead of refusing")
    parser.add_argument("--allow-changed-scorers", action="store_true", help="leave out scores that were computed differently, instead of refusing")
    add_inconclusive(parser)
    parser.add_argument("--json", action="store_true", help="everything as JSON on stdout")
    parser.add_argument("--junit", type=Path, metavar="FILE", help="write JUnit XML")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write Markdown, for a pull request")


def add_pairing(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--map", action="append", default=[], metavar="OLD=NEW", dest="renames", help="a prompt set, prompt or model has a new name")
    parser.add_argument(
        "--margin", action="append", default=[], metavar="METRIC=X", help="how much worse a metric may be (default 0; only scores and what has a margin decide)"
    )


def margins_of(args: argparse.Namespace) -> dict[str, float]:
    return {name: _number("--margin", name, value) for name, value in (_pair("--margin", text) for text in args.margin)}


def renames_of(args: argparse.Namespace) -> dict[str, str]:
    return dict(_pair("--map", text) for text in args.renames)


def add_inconclusive(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--inconclusive", choices=("pass", "fail"), default="pass", help="what a gate does that too few samples leave open (default: %(default)s)"
    )


def main(args: argparse.Namespace) -> int:
    options = Options(
        margins=margins_of(args),
        renames=renames_of(args),
        leave_out_changed=args.allow_changed_data,
        leave_out_changed_scorers=args.allow_changed_scorers,
    )
    decision = decide(*open_both(args.baseline, args.candidate), [rule for text in args.gate for rule in rules_of(text)], options)
    strict = args.inconclusive == "fail"
    with reader_may_leave():
        if args.json:
            print(escaped(msgspec.json.format(msgspec.json.encode(decision)).decode()))
        else:
            print("\n".join(decision_lines(decision)))
    if args.junit:
        with whole_file(args.junit) as hidden:
            hidden.write_bytes(junit(decision, inconclusive_fails=strict))
    if args.markdown:
        with whole_file(args.markdown) as hidden:
            hidden.write_text(markdown(decision), encoding="utf-8")
    for line in tell_github(decision.gates, markdown(decision), inconclusive_fails=strict):
        command(line)
    return 1 if strict and decision.state == "inconclusive" else EXIT_CODES[decision.state]


def rules_of(text: str) -> list[Rule]:
    """The rules of a file (a config, or a list of rules), or of one expression `METRIC LIMIT=NUMBER… [NAME=VALUE…]`."""
    if Path(text).is_file():
        content = read_yaml(Path(text), text).value
        written = content.get("gate") if isinstance(content, dict) else content
        if not isinstance(written, list) or not written:
            raise ConfigError(f"{text}: has no gate (hint: a config with `gate:`, or a list of rules)")
        return [_rule(one, f"{text}: rule {number}") for number, one in enumerate(written, 1)]
    metric, *words = text.split()
    if not words:
        raise ConfigError(f"--gate {text}: no such file, and no limit (hint: '{metric} max_drop=0.02', '{metric} min=0.9 model=qwen-max')")
    pairs = dict(_pair("--gate", word) for word in words)
    limits = {name: _number("--gate", name, pairs[name]) for name in _LIMITS if name in pairs}
    where = {name: value for name, value in pairs.items() if name not in _LIMITS}
    return [_rule({"metric": metric, **limits, "where": where}, f"--gate {text}")]


def _rule(written: Any, place: str) -> Rule:
    try:
        rule = rule_of(written)
    except (msgspec.ValidationError, AttributeError) as error:
        raise ConfigError(f"{place}: {error}") from None
    if unknown := [name for name in written if name not in {*Rule.__struct_fields__, "baseline"}]:
        raise ConfigError(f"{place}: unknown key {', '.join(map(str, unknown))} (hint: {', '.join((*Rule.__struct_fields__, 'baseline'))})")
    return rule


def _pair(option: str, text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name or not equals or not value:
        raise ConfigError(f"{option} {text}: should be NAME=VALUE")
    return name, value


def _number(option: str, name: str, value: str) -> float:
    try:
        number = float(value)
    except ValueError:
        number = float("nan")
    if not number < float("inf") or (option == "--margin" and number < 0):
        raise ConfigError(f"{option} {name}={value}: should be a number{' of at least 0' if option == '--margin' else ''}")
    return number
