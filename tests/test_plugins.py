"""How a name in YAML becomes an object."""

import sys

import pytest

from evalrunner.errors import PluginError
from evalrunner.plugins import BUILT_IN, bind, find


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind, table in BUILT_IN.items() for name in table])
def test_every_built_in_name_leads_somewhere(kind, name):
    """No name in the tables is a promise without an object behind it."""
    assert callable(find(kind, name))


def test_a_name_can_be_module_and_attribute():
    """Anything importable can be named in the YAML without being installed as a plug-in."""
    assert find("scorers", "evalrunner.scorers.text:exact") is find("scorers", "exact")


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("exakt", "did you mean 'exact'"),
        ("zzz", "known: .*module:attribute"),
        ("no.such:thing", "cannot be loaded"),
        ("evalrunner.scorers.text:nothing", "cannot be loaded"),
        ("evalrunner.scorers.text:REGEX_SECONDS", "not callable"),
    ],
)
def test_a_wrong_name_says_what_to_do(name, hint):
    """Every way to get a name wrong is one clear message."""
    with pytest.raises(PluginError, match=hint):
        find("scorers", name)


def test_a_missing_extra_is_named(monkeypatch):
    """A scorer whose library is not installed says which extra brings it."""
    monkeypatch.setitem(sys.modules, "rapidfuzz.distance", None)
    monkeypatch.delitem(sys.modules, "evalrunner.scorers.overlap", raising=False)
    with pytest.raises(PluginError, match="cannot be loaded"):
        find("scorers", "rouge")


def test_options_are_bound_before_anything_is_sent():
    """An option a factory does not take is named together with those it takes."""
    bind(find("scorers", "numeric"), "numeric", {"tolerance": 1})
    with pytest.raises(PluginError, match=r"numeric: .*tolerence.*takes: tolerance, relative, take"):
        bind(find("scorers", "numeric"), "numeric", {"tolerence": 1})
