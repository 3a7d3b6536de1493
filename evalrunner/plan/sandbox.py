"""The Jinja that prompts are written in: sandboxed, strict, repeatable, and unable to fill the memory or spin.

No loader, no includes, no randomness, no mutation; a missing field is an error. Every value put out, every loop step and every operation that multiplies
text is charged to a budget that one rendering may use up; so is CPU time, at every step, filter and call. Not for use from several threads at once.
"""

from __future__ import annotations

import difflib
import json
import re
import time
from collections.abc import Callable, Iterable, Mapping
from functools import wraps
from typing import Any, Literal

from jinja2 import StrictUndefined, Template, TemplateError, Undefined, UndefinedError, nodes
from jinja2.exceptions import SecurityError, TemplateAssertionError, TemplateSyntaxError
from jinja2.filters import FILTERS, do_round
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer

MAX_CHARACTERS = 64_000_000
MAX_STEPS = 100_000
MAX_BITS = 10_000
MAX_TEMPLATE = 1_000_000
MAX_SECONDS = 2.0
"""Of CPU, which a busy machine does not use up: what renders in the validation renders in the run."""
LOOK_EVERY = 16
"""The clock costs as much as a step: most templates never look at it."""


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_FILTERS = _words(
    "abs attr capitalize count d default dictsort e escape first float format groupby indent int items join last length list lower map max min reject "
    "rejectattr replace reverse round select selectattr sort string striptags sum title tojson trim truncate unique upper wordcount"
)
_TEXT_METHODS = _words(
    "capitalize casefold count endswith find index isalnum isalpha isascii isdecimal isdigit isidentifier islower isnumeric isprintable isspace istitle "
    "isupper lower lstrip partition removeprefix removesuffix rfind rindex rpartition rsplit rstrip split splitlines startswith strip swapcase title upper"
)
"""What neither multiplies text nor formats it."""
_REFUSED = (nodes.Include, nodes.Import, nodes.FromImport, nodes.Extends, nodes.Block)


class TooMuchError(SecurityError):
    """One rendering used up its budget."""


class _NullError(Exception):
    """A null would be put out as the text `None`."""


class Sandbox(ImmutableSandboxedEnvironment):
    """Compiles and renders templates. `compile` raises ValueError, `render` ValueError: the message says what is wrong with the template or the row."""

    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def __init__(self, cpu_s: Callable[[], float] = time.thread_time) -> None:
        super().__init__(undefined=StrictUndefined, autoescape=False, finalize=self._finalize)
        self._cpu_s = cpu_s
        self._begin()
        self.globals = {"range": self._range, "namespace": self.globals["namespace"], "dict": dict, "_tick": self._tick}
        self.filters = {name: FILTERS[name] for name in _FILTERS}
        self.filters |= {"join": self._join, "replace": self._replace, "indent": self._indent, "format": self._format, "round": _round}
        self.filters |= {"tojson": _to_json, "_text": self._text}
        self.filters = {name: self._timed(function) for name, function in self.filters.items()}

    def compile_template(self, text: str) -> Template:
        """The template, ready to render. Raises ValueError."""
        if len(text) > MAX_TEMPLATE:
            raise ValueError(f"a template of {len(text):,} characters is too long; text of this size belongs into the data")
        self._begin()  # constant expressions are worked out here
        try:
            tree = _Guards(self).visit(self.parse(text))
            return Template.from_code(self, self.compile(tree), self.globals)
        except TemplateSyntaxError as error:
            raise ValueError(f"line {error.lineno} of the template: {_explain(error)}") from None
        except RecursionError:
            raise ValueError("the template is nested too deeply") from None
        except (TemplateError, ArithmeticError, ValueError, TypeError) as error:
            raise ValueError(str(error)) from None

    def render_template(self, template: Template, fields: Mapping[str, Any]) -> str:
        """The template's text for one row. Raises ValueError."""
        self._begin()
        try:
            return template.render(fields)
        except UndefinedError as error:
            raise ValueError(_missing(error, fields)) from None
        except _NullError:
            names = ", ".join(repr(name) for name, value in fields.items() if value is None)
            raise ValueError(f"a value is null{': ' * bool(names)}{names} (hint: give it a default, like {{{{ field or '' }}}})") from None
        except SecurityError as error:
            raise ValueError(str(error)) from None
        except RecursionError:
            raise ValueError("the template calls itself without end") from None
        except Exception as error:  # noqa: BLE001 - a template may fail in every way its data allows; each is one message about this row
            raise ValueError(f"{type(error).__name__}: {error}") from None

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        if isinstance(obj, str) and attr not in _TEXT_METHODS:
            return False
        return super().is_safe_attribute(obj, attr, value)

    def call(__self, __context: Any, __obj: Any, /, *args: Any, **kwargs: Any) -> Any:  # noqa: N805 - Jinja's own names, so that a template may use any
        __self._check_time()
        return super().call(__context, __obj, *args, **kwargs)

    def wrap_str_format(self, value: Any) -> None:
        """No `"…".format(…)`: its widths cannot be capped; `|format` is there."""

    def unsafe_undefined(self, obj: Any, attribute: str) -> Undefined:
        raise SecurityError(f"{attribute!r} of a {type(obj).__name__} is not available in prompts (hint: use filters)")

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        if operator == "%" and isinstance(left, str):
            return self._format(left, *(right if isinstance(right, tuple) else (right,)))
        if operator == "**":
            _check_bits(_bits(left) * abs(right) if isinstance(right, int) else 1)
        elif operator == "*":
            for text, times in ((left, right), (right, left)):
                if isinstance(text, str | list | tuple) and isinstance(times, int):
                    self._charge(len(text) * max(0, times))
            if isinstance(left, int) and isinstance(right, int):
                _check_bits(_bits(left) + _bits(right))
        elif operator == "+" and isinstance(left, str | list | tuple) and isinstance(right, str | list | tuple):
            self._charge(len(left) + len(right))
        return super().call_binop(context, operator, left, right)

    def _finalize(self, value: Any) -> Any:
        if value is None:
            raise _NullError
        if isinstance(value, str):
            self._charge(len(value))
            return value
        text = str(value)
        self._charge(len(text))
        return text

    def _begin(self) -> None:
        self._characters = self._steps = self._looks = 0
        self._until = 0.0

    def _check_time(self) -> None:
        self._looks += 1
        if self._looks % LOOK_EVERY:
            return
        now = self._cpu_s()
        self._until = self._until or now + MAX_SECONDS
        if now > self._until:
            raise TooMuchError(f"the template takes more than {MAX_SECONDS:g} s of CPU")

    def _timed(self, function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)  # Jinja's marks on it, too
        def timed(*args: Any, **named: Any) -> Any:
            self._check_time()
            return function(*args, **named)

        return timed

    def _charge(self, size: int) -> None:
        self._characters += size
        if self._characters > MAX_CHARACTERS:
            raise TooMuchError(f"the template makes more than {MAX_CHARACTERS:,} characters")

    def _tick(self, size: int) -> str:
        """One step of a loop or call of a macro whose body holds `size` characters of plain text."""
        self._steps += 1
        self._check_time()
        if self._steps > MAX_STEPS:
            raise TooMuchError(f"the template takes more than {MAX_STEPS:,} steps")
        self._charge(size)
        return ""

    def _range(self, *bounds: int) -> range:
        steps = range(*bounds)
        if len(steps) > MAX_STEPS:
            raise TooMuchError(f"a range of more than {MAX_STEPS:,} steps")
        return steps

    def _text(self, value: Any) -> str:
        text = str(value)
        self._charge(len(text))
        return text

    def _join(self, value: Any, d: str = "", attribute: str | int | None = None) -> str:
        items = value if attribute is None else [self.getitem(item, attribute) for item in value]
        texts = [str(item) for item in items]
        self._charge(sum(map(len, texts)) + len(d) * len(texts))
        return d.join(texts)

    def _replace(self, value: Any, old: str, new: str, count: int = -1) -> str:
        text = str(value)
        self._charge(len(text) + max(0, len(new) - len(old)) * text.count(old))
        return text.replace(old, new, count)

    def _indent(self, value: str, width: int | str = 4, first: bool = False, blank: bool = False) -> str:
        pad = width if isinstance(width, str) else " " * min(width, 1000)
        self._charge(len(value) + len(pad) * (value.count("\n") + 1))
        lines = value.split("\n")
        return "\n".join(pad + line if (line or blank) and (first or number) else line for number, line in enumerate(lines))

    def _format(self, value: str, *args: Any, **named: Any) -> str:
        if "*" in value or any(int(width) > 1000 for width in re.findall(r"\d{1,9}", value)):
            raise SecurityError("a format may not be wider than 1000")
        text = str(value) % (named or args)
        self._charge(len(text))
        return text


class _Guards(NodeTransformer):
    """Puts a step counter into every loop and macro, and a size check on every joined text; refuses what needs other files."""

    def __init__(self, sandbox: Sandbox) -> None:
        self.sandbox = sandbox

    def generic_visit(self, node: nodes.Node, *args: Any, **kwargs: Any) -> nodes.Node:
        if isinstance(node, _REFUSED):
            raise TemplateSyntaxError(f"{type(node).__name__.lower()} is not available in prompts: a template stands alone", node.lineno)
        node = super().generic_visit(node, *args, **kwargs)
        if isinstance(node, nodes.For | nodes.Macro | nodes.CallBlock):
            plain = sum(len(text.data) for text in node.find_all(nodes.TemplateData))
            tick = nodes.Call(nodes.Name("_tick", "load"), [nodes.Const(plain)], [], None, None)
            node.body.insert(0, nodes.Output([tick]))
        elif isinstance(node, nodes.Concat):
            return nodes.Filter(nodes.List(node.nodes), "join", [], [], None, None).set_lineno(node.lineno).set_environment(self.sandbox)
        elif isinstance(node, nodes.AssignBlock) and node.filter is None:
            node.filter = nodes.Filter(None, "_text", [], [], None, None)
        for child in node.iter_child_nodes():
            child.set_environment(self.sandbox)
        return node


def nearest(name: str, known: Iterable[Any]) -> str:
    """` (hint: did you mean …)` for a name nobody knows; empty when nothing is near."""
    near = difflib.get_close_matches(name, [str(other) for other in known], n=1)
    return f" (hint: did you mean {near[0]!r}?)" if near else ""


def _bits(value: Any) -> int:
    return value.bit_length() if isinstance(value, int) else 64


def _check_bits(bits: int) -> None:
    if bits > MAX_BITS:
        raise TooMuchError(f"the template makes a number of more than {MAX_BITS:,} bits")


def _round(value: float, precision: int = 0, method: Literal["common", "ceil", "floor"] = "common") -> float:
    return do_round(value, max(-30, min(precision, 30)), method)


def _to_json(value: Any, indent: int | None = None) -> str:
    r"""As text for a model: Jinja's own filter writes `<` as \u003c, for HTML."""
    return json.dumps(value, ensure_ascii=False, indent=None if indent is None else min(indent, 16))


def _explain(error: TemplateSyntaxError) -> str:
    message = error.message or "not a template"
    if isinstance(error, TemplateAssertionError) and (found := re.match(r"No filter named '(.+?)'", message)):
        return f"no filter is called {found[1]!r}{nearest(found[1], _FILTERS)}"
    return message


def _missing(error: UndefinedError, fields: Mapping[str, Any]) -> str:
    message = str(error.message)
    if found := re.match(r"'(.+?)' is undefined", message):
        near = nearest(found[1], fields) or f" (hint: it has {', '.join(map(str, list(fields)[:8]))})"
        return f"no field is called {found[1]!r}{near}"
    return message
