"""Names, fields, presets, and methods from other packages."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import make_dataclass
from importlib.metadata import EntryPoint

import pytest

from omnidrop.errors import UsageError
from omnidrop.pruning import names, registry
from omnidrop.pruning.method import Method
from omnidrop.pruning.methods.fastv import FastV


def test_names_are_sorted_and_classes_match():
    found = registry.methods()
    assert list(found) == sorted(found) == registry.method_names()
    assert tuple(registry.presets()) == names.PRESETS  # known without importing a method
    assert {"fastv", "none", "omnidrop", "random", "uniform"} <= set(found)
    for name, kind in found.items():
        assert issubclass(kind, Method)
        assert kind.name == name


def test_every_method_says_what_it_is():
    for kind in (*registry.methods().values(), *registry.wrappers().values()):
        line = registry.describe(kind)
        assert line.endswith(".")
        assert 20 < len(line) <= 100
        if kind is not Method:
            assert "Based on" in kind.__doc__


def test_none_is_a_word_where_a_setting_always_has_a_value():
    kind = make_dataclass("Worded", [("how", str, "some")], bases=(Method,), frozen=True)
    assert registry._made(kind, "worded", {"how": None}).how == "none"
    assert registry.get_method("omnidrop", t_mid=None).t_mid is None


def test_wrappers_are_no_methods_and_no_package_takes_their_names(monkeypatch):
    offer(monkeypatch, omnidelta="omnidrop.pruning.methods.fastv:FastV")
    assert set(registry.wrappers()) == {"omnidelta"}
    assert "omnidelta" not in registry.methods()
    for kind in registry.wrappers().values():
        assert issubclass(kind, Method)
    with pytest.raises(UsageError, match=r"Write it behind that method: uniform@omnidelta"):
        registry.get_method("omnidelta")


def test_get_method_sets_fields():
    assert registry.get_method("fastv", budget=0.5, after=3) == FastV(budget=0.5, after=3)
    assert registry.get_method("none") == Method()


@pytest.mark.parametrize(
    ("name", "fields", "message"),
    [
        ("omnidrp", {}, "Did you mean omnidrop"),
        ("zzz", {}, "Known: apack.*divprune, dycoke, echoingpixels, evs, fastv"),
        ("omnidrop", {"budgets": 0.3}, "Did you mean budget"),
        ("uniform", {"beta": 3}, r"Known: budget\."),
        ("omnidrop", {"budget": 0}, "above 0"),
    ],
)
def test_mistakes_are_explained(name, fields, message):
    with pytest.raises(UsageError, match=message):
        registry.get_method(name, **fields)


def offer(monkeypatch, **points):
    offered = [EntryPoint(name, value, names.GROUP) for name, value in points.items()]
    monkeypatch.setattr(names, "entry_points", lambda group: offered)


def test_other_packages_offer_methods(monkeypatch):
    offer(monkeypatch, mine="omnidrop.pruning.methods.fastv:FastV", omnidrop="json:loads")
    assert registry.get_method("mine", budget=0.5) == FastV(budget=0.5)
    assert "mine" in registry.methods()
    assert registry.get_method("omnidrop").name == "omnidrop"  # ours cannot be taken over


@pytest.mark.parametrize(
    ("value", "message"),
    [("no_such_package:Thing", "cannot be imported"), ("json:loads", "is not a Method")],
)
def test_a_broken_offer_is_named(monkeypatch, value, message):
    offer(monkeypatch, broken=value)
    with pytest.raises(UsageError, match=message):
        registry.get_method("broken")
    assert registry.get_method("none") == Method()


@pytest.mark.slow
def test_importing_the_registry_loads_no_method():
    code = (
        "import sys; import omnidrop.pruning.registry as r; r.method_names();"
        "assert 'omnidrop.pruning.methods.omnidrop' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_names_that_join_others() -> None:
    joined = ("uniform+omnidrop", "random+random@omnidrop", "omnidrop@omnidelta")
    assert all(map(names.is_composed, joined))
    assert not any(map(names.is_composed, registry.methods()))
