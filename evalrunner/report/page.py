"""Summary and records -> one HTML file that needs no network, runs nothing but its own script, and is the same bytes for the same input."""

from __future__ import annotations

import base64
import hashlib
import json
import shlex
from collections.abc import Callable
from functools import cache
from importlib import resources
from typing import Any

import msgspec
from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup, escape

from evalrunner.analysis.gates import gates_state
from evalrunner.analysis.tables import Notice, Summary
from evalrunner.report import charts, quantities, sections
from evalrunner.report.flips import card, for_viewer, said, tone, unanswered
from evalrunner.report.judged import Judged
from evalrunner.report.samples import SampleRows, pack
from evalrunner.report.words import LANGUAGES, WORDS, both, word

__all__ = ["Judged", "SampleRows", "render"]

_HERE = resources.files("evalrunner.report")


def render(summary: Summary, rows: SampleRows, *, lang: str = "en", judged: Judged = Judged()) -> str:  # noqa: B008 - immutable
    """The report as one page of HTML, in English and Chinese; `lang` is the one it opens in. Pure: writing it is the caller's."""
    if lang not in LANGUAGES:
        raise ValueError(f"lang is {lang!r}; known: {', '.join(LANGUAGES)}")
    style, script = _asset("report.css"), _asset("report.js")
    packed = pack(rows, summary.cells, summary.scorers)
    shown = sections.build(summary, judged)
    return (
        _environment(lang)
        .get_template("page.html.j2")
        .render(
            lang=lang,
            summary=summary,
            gates=judged.gates,
            gates_state=gates_state(judged.gates),
            chosen=packed,
            payload=packed.blocks,
            facts=in_script(_facts(summary, lang, shown, told=bool(judged.runs))),
            style=Markup(style),  # noqa: S704 - our own file
            script=Markup(script),  # noqa: S704 - our own file
            style_hash=_hash(style),
            script_hash=_hash(script),
            **{name: getattr(shown, name) for name in shown.__dataclass_fields__},
        )
    )


def in_script(value: Any) -> Markup:
    """JSON that can stand inside <script>: no character of it can end the element, open a comment or break a line."""
    text = msgspec.json.encode(value).decode()
    for letter in "<>&\u2028\u2029":
        text = text.replace(letter, f"\\u{ord(letter):04x}")
    return Markup(text)  # noqa: S704 - escaped above


@cache
def _environment(lang: str) -> Environment:
    """Compiled once: the templates take longer to compile than to fill in."""
    env = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, loader=FunctionLoader(_template))
    numbers: dict[str, Callable[..., Any]] = {
        name: getattr(quantities, name)
        for name in ("share", "span", "points", "points_span", "percent_points", "change", "chance", "digits", "count", "duration", "money")
    }
    env.globals.update(
        numbers,
        t=both,
        word=lambda key: word(key, lang),
        chart=charts,
        notice=_notice,
        against_card=card,
        said=said,
        tone=tone,
        unanswered=unanswered,
        command=shlex.join,
        repeats=lambda cell, scorer: {one.k: one for one in cell.repeats.get(scorer, ())},
        outcome=lambda name: both(f"o_{name}") if f"o_{name}" in WORDS else escape(name),
        token_bar=lambda cell: charts.stack(sections.token_parts(cell)),
        outcome_bar=lambda model: charts.stack(sections.outcome_parts(model)),
        readable=lambda value: value if isinstance(value, str) else json.dumps(value, indent=2, ensure_ascii=False),
    )
    return env


def _notice(notice: Notice) -> Markup | str:
    """In both languages where its kind is known here; else as it came."""
    key = f"n_{notice.kind}"
    if key not in WORDS:
        return notice.text
    values: dict[str, object] = {}
    for name, value in notice.values.items():
        if name == "share":
            values[name] = quantities.share(value)
        elif isinstance(value, list):
            values[name] = ", ".join(map(str, value))
        else:
            values[name] = quantities.count(value) if isinstance(value, int) else value
    return both(key, **values)


def _facts(summary: Summary, lang: str, shown: sections.Sections, *, told: bool) -> dict[str, Any]:
    """What the script needs beside the samples. `told`: the run is among the parameters, where no request has it."""
    views = sorted(shown.views, key=lambda view: view.cell.index)
    kept = ("label", "prompt_set", "prompt", "model", "model_id", "provider", "stream")
    asked = [{name: value for name, value in view.cell.params.items() if not (told and name == "run")} for view in views]
    return {
        "lang": lang,
        "words": {one: {key: texts[k] for key, texts in WORDS.items()} for k, one in enumerate(LANGUAGES)},
        "cells": [
            {**{name: getattr(view.cell, name) for name in kept}, "params": params, "name": view.label, "colour": view.colour}
            for view, params in zip(views, asked, strict=True)
        ],
        "scorers": {group.name: group.scorer for group in shown.groups},
        "flips": for_viewer(shown.against),
        "shapes": [charts.SHAPES[k] for k in sorted(charts.SHAPES)],
        "trials": max((cell.trials for cell in summary.cells), default=1),
        "providers": {one["name"]: one["base_url"] for one in summary.run.plan.get("providers", []) if one.get("base_url") and one.get("kind") != "dashscope"},
    }


def _asset(name: str) -> str:
    return (_HERE / "assets" / name).read_text("utf-8")


def _template(name: str) -> str:
    return (_HERE / "templates" / name).read_text("utf-8")


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
