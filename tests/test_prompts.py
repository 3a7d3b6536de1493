"""Prompts: what a template may do, what it must say when it cannot, and that data stays data."""

import itertools
import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evalrunner.plan.prompts import Conversation, Prompt, Text, check_template
from evalrunner.plan.sandbox import LOOK_EVERY, Sandbox

ROW = {"question": "2 + 2?", "answer": 4, "nothing": None, "items": [1, 2], "inner": {"x": "y"}, "long": "a" * 1000, "html": "<b> ü"}
DOUBLED = 40


def render(text: str) -> str:
    return Text(check_template(text)).render(ROW)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{{ question }} Answer with the number only.", "2 + 2? Answer with the number only."),
        ("no holes, {one brace}", "no holes, {one brace}"),
        ("{% for item in items %}{{ loop.index }}: {{ item }};{% endfor %}", "1: 1;2: 2;"),
        ("{% if missing is defined %}a{% else %}{{ missing | default('b') }}{% endif %}", "b"),
        ("{{ inner.x }}{{ inner['x'] }}{{ nothing or '-' }}", "yy-"),
        ("{{ inner | tojson }} {{ html | tojson }}", '{"x": "y"} "<b> ü"'),
        ("{{ question ~ '=' ~ answer }} {{ items | join(', ') }} {{ '%.2f' | format(answer) }}", "2 + 2?=4 1, 2 4.00"),
        ("{{ long | replace('a', 'b') | length }} {{ 'a\nb' | indent(2) }}", "1000 a\n  b"),
        ("{% macro twice(x) %}{{ x }}{{ x }}{% endmacro %}{{ twice(answer) }}", "44"),
        ("{% set x %}{{ answer }}!{% endset %}{{ x }}{{ question.upper() }}", "4!2 + 2?"),
        ("{{ items | map('string') | join }}{{ (3.14159 * answer) | round(1) }}{{ 2 ** answer }}", "1212.616"),
        ("{% raw %}{{ question }}{% endraw %}", "{{ question }}"),
    ],
)
def test_templates_are_jinja(text, expected):
    """What people know from Jinja works."""
    assert render(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{{ qestion }}", "no field is called 'qestion' (hint: did you mean 'question'?)"),
        ("{{ zork }}", "no field is called 'zork' (hint: it has question, answer, nothing, items, inner, long, html)"),
        ("{{ inner.z }}", "'dict object' has no attribute 'z'"),
        ("{{ nothing }}", "a value is null: 'nothing' (hint: give it a default, like {{ field or '' }})"),
        ("{{ answer / 0 }}", "ZeroDivisionError: division by zero"),
        ("{{ items + answer }}", "TypeError: "),
        ("{{ ''.__class__.__mro__ }}", "'__class__' of a str is not available in prompts"),
        ("{{ cycler.__init__.__globals__ }}", "'__init__' of a StrictUndefined is not available in prompts"),
        ("{{ question | attr('__class__') }}", "'__class__' of a str is not available in prompts"),
        ("{{ items.append(3) }}", "'append' of a list is not available in prompts"),
        ("{{ '{0.__class__}'.format(items) }}", "'format' of a str is not available in prompts"),
        ("{{ 'a' * 10**9 }}", "the template makes more than"),
        ("{{ [1] * 10**9 }}", "the template makes more than"),
        ("{{ long * 10**9 }}", "the template makes more than"),
        ("{{ answer ** answer ** 99 ** 99 }}", "the template makes a number of more than"),
        ("{{ '%999999999d' % answer }}", "a format may not be wider than 1000"),
        ("{{ '%999999999d' | format(answer) }}", "a format may not be wider than 1000"),
        ("{{ '%*d' | format(10**9, 1) }}", "a format may not be wider than 1000"),
        ("{{ long | replace('a', long) | replace('a', long) }}", "the template makes more than"),
        ("{{ items | join(long * 60000) }}", "the template makes more than"),
        ("{% for a in range(10**9) %}{% endfor %}", "a range of more than 100,000 steps"),
        ("{% for a in range(9999) %}{% for b in range(9999) %}{% endfor %}{% endfor %}", "the template takes more than 100,000 steps"),
        ("{% macro f(n) %}{% if n %}{{ f(n-1) }}{{ f(n-1) }}{% endif %}{% endmacro %}{{ f(40) }}", "the template takes more than"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "the template calls itself without end"),
        ("{% set a = long %}" + "{% set a = a ~ a %}" * DOUBLED, "the template makes more than"),
        ("{% set a = long %}" + "{% set a = a + a %}" * DOUBLED, "the template makes more than"),
        ("{% set a = long %}" + "{% set a %}{{ a }}{{ a }}{% endset %}" * DOUBLED, "the template makes more than"),
        ("{% set n = namespace(a=long) %}{% for i in range(60) %}{% set n.a = n.a ~ n.a %}{% endfor %}", "the template makes more than"),
        ("{% for i in range(99999) %}" + "x" * 9999 + "{% endfor %}", "the template makes more than"),
        ("{% include 'x' %}", "line 1 of the template: include is not available in prompts"),
        ("{% import 'x' as y %}", "line 1 of the template: import is not available in prompts"),
        ("a\n{% extends 'x' %}", "line 2 of the template: extends is not available in prompts"),
        ("{{ items | random }}", "line 1 of the template: no filter is called 'random'"),
        ("{{ question", "line 1 of the template: unexpected end of template"),
        ("{{ " + "(" * 5000 + ")" * 5000 + " }}", "the template is nested too deeply"),
        ("x" * 1_000_001 + "{{ question }}", "a template of 1,000,015 characters is too long"),
    ],
)
def test_what_a_template_cannot_do_is_one_message_soon(text, expected):
    """No way out of the sandbox, no bomb of time or memory; each is one sentence."""
    began = time.perf_counter()
    with pytest.raises(ValueError, match="^" + re.escape(expected)):
        render(text)
    assert time.perf_counter() - began < 10


MANY = 4 * LOOK_EVERY


@pytest.mark.parametrize("text", ["{{ (q|sort)|length }}" * MANY, "{% for i in range(MANY) %}{% endfor %}", "{% set x = q.upper() %}" * MANY])
def test_a_template_has_two_seconds_of_cpu(text):
    """A template that works too long is one sentence, whether it loops, filters or calls; and every row has its own time."""
    seconds = itertools.count(1)
    sandbox = Sandbox(cpu_s=lambda: next(seconds))
    with pytest.raises(ValueError, match=r"^the template takes more than 2 s of CPU"):
        sandbox.render_template(sandbox.compile_template(text.replace("MANY", str(MANY))), {"q": "ab"})
    small = sandbox.compile_template("{{ q|upper }}" * LOOK_EVERY)
    assert {sandbox.render_template(small, {"q": "ab"}) for _ in range(10)} == {"AB" * LOOK_EVERY}


@settings(deadline=None)
@given(st.text())
def test_data_is_never_read_as_a_template(value):
    """Whatever a row holds arrives as it is."""
    assert Text("<{{ field }}>").render({"field": value}) == f"<{value}>"
    assert Text("{{ field }}").render({"field": "{{ 1 + 1 }}{% raw %}"}) == "{{ 1 + 1 }}{% raw %}"


def test_a_prompt_is_its_messages_with_the_holes_filled():
    """Roles and further keys stay, parts are filled one by one."""
    prompt = Prompt("p", [{"role": "system", "content": "Be {{ inner.x }}"}, {"role": "user", "content": [{"text": "{{ question }}"}], "name": "n"}])
    assert prompt.messages(ROW) == [{"role": "system", "content": "Be y"}, {"role": "user", "content": [{"text": "2 + 2?"}], "name": "n"}]


def test_an_empty_message_is_a_mistake():
    """A prompt that says nothing is a wrong column, not a question."""
    with pytest.raises(ValueError, match=r"message 1 \(user\) is empty"):
        Prompt("p", [{"role": "user", "content": " {{ '' }}"}]).messages(ROW)


TALK = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}, {"role": "user", "content": [{"type": "text", "text": "{{ x }}"}]}]


@pytest.mark.parametrize("value", [TALK, '[{"role": "user", "content": "Hi"}]'])
def test_a_conversation_comes_out_of_the_data(value):
    """As a list, or as JSON text where a format has no lists; nothing in it is a template."""
    messages = Conversation("talk").messages({"talk": value})
    assert messages[0] == {"role": "user", "content": "Hi"}
    assert messages[-1]["content"] in ("Hi", [{"text": "{{ x }}"}])


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("nonsense", "'talk' is not a JSON list of messages"),
        ([], "'talk' is not a list of messages"),
        (["hi"], "message 1 is not a mapping"),
        ([{"role": "user", "text": "x"}], "message 1: unknown key 'text'"),
        ([{"role": "bot", "content": "x"}], "message 1: role 'bot' should be one of system, user, assistant, tool"),
        ([{"role": "user", "content": 3}], "message 1: content must be text or a list of parts"),
        ([{"role": "user", "content": ""}], r"message 1 \(user\) is empty"),
        ([{"role": "tool", "content": "x"}], "message 1: a tool message needs tool_call_id"),
        ([{"role": "user", "content": "a"}, {"role": "assistant", "content": "x"}], "'talk' must end with a user or tool message, not assistant"),
        ([{"role": "user", "content": [{"image": "x", "audio": "y"}]}], "message 1: a part must be {text: …}, {image: path or URL}"),
        ([{"role": "user", "content": [{"type": "image_url", "image_url": {"uri": "x"}}]}], "message 1: a part must be"),
        ([{"role": "user", "content": ["x"]}], "message 1: a part must be {text: …}"),
    ],
)
def test_a_conversation_that_cannot_be_sent_is_a_mistake(value, expected):
    """The row is refused before it is sent, with the message's number."""
    with pytest.raises(ValueError, match=expected):
        Conversation("talk").messages({"talk": value})


def test_a_conversation_needs_its_column():
    """The nearest column is offered."""
    with pytest.raises(ValueError, match=r"no field is called 'talk' \(hint: did you mean 'talks'\?\)"):
        Conversation("talk").messages({"talks": []})
