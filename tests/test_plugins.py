"""Discovery: broken plugins stay alone, and every failure can be read."""

from __future__ import annotations

import itertools
import sys
import textwrap
from pathlib import Path

import pytest

from maskedmodel.errors import PluginError
from maskedmodel.plugins import Failure, Registry, load_registry

# A plugin that works: one objective named by the placeholder.
GOOD = """
    from typing import Literal
    from maskedmodel import Objective, Settings, hookimpl

    class GoodSettings(Settings):
        name: Literal["NAME"] = "NAME"

    class Good(Objective[GoodSettings]):
        def width(self, tokenizer):
            return 1

        def target(self, values):
            return values

        def loss(self, prediction, target):
            return (prediction - target).square().mean(-1)

    @hookimpl
    def maskedmodel_objectives():
        return [Good]
"""


_serial = itertools.count()


class Site:
    """A folder on sys.path into which fake distributions are installed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def install(self, point: str, source: str, *, distribution: str = "", module: str = "") -> None:
        module = module or f"fake_{point}_{next(_serial)}"  # never one that another test imported
        distribution = distribution or f"dist-{point}"
        (self.folder / f"{module}.py").write_text(textwrap.dedent(source))
        info = self.folder / f"{distribution.replace('-', '_')}-1.2.3.dist-info"
        info.mkdir(exist_ok=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.2.3\n")
        with (info / "entry_points.txt").open("a") as file:
            file.write(f"[maskedmodel]\n{point} = {module}\n")

    def good(self, point: str, name: str, distribution: str = "") -> None:
        self.install(point, GOOD.replace("NAME", name), distribution=distribution)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delenv("MASKEDMODEL_PLUGINS", raising=False)
    monkeypatch.delenv("MASKEDMODEL_BLOCK_PLUGINS", raising=False)
    return Site(tmp_path)


def load(*points: str, **options: bool) -> Registry:
    """Only these: what else is installed where the tests run is none of their business."""
    return load_registry(allow=points, **options)


def test_a_plugin_is_found_and_described(site: Site) -> None:
    site.good("one", "alpha")
    registry = load("one")
    (plugin,) = registry.plugins
    assert (plugin.name, plugin.distribution, plugin.version) == ("one", "dist-one", "1.2.3")
    assert plugin.components == {"objective": ("alpha",)}
    assert registry.failures == ()
    cls = registry.get("objective", "alpha")
    built = registry.build("objective", cls.settings_class(name="alpha"))
    assert type(built) is cls
    assert built.settings.name == "alpha"


BROKEN = {
    "no such module": ("import a_module_that_is_not_there", "ModuleNotFoundError"),
    "raises at import": ("raise RuntimeError('first line\\n  second')", "RuntimeError: first line second"),
    "exits at import": ("import sys; sys.exit(3)", "SystemExit: 3"),
    "does not parse": ("def broken(:", "SyntaxError"),
    "no hook": ("x = 1", "implements no hook"),
    "unknown hook": (
        "from maskedmodel import hookimpl\n@hookimpl\ndef maskedmodel_tokenizer(): return []",
        "unknown hook maskedmodel_tokenizer. Did you mean 'maskedmodel_tokenizers'?",
    ),
    "wrong arguments": (
        "from maskedmodel import hookimpl\n@hookimpl\ndef maskedmodel_tokenizers(config): return []",
        "PluginValidationError",
    ),
    "hook raises": (
        "from maskedmodel import hookimpl\n@hookimpl\ndef maskedmodel_tokenizers(): raise KeyError('k')",
        "calling maskedmodel_tokenizers failed: KeyError",
    ),
    "returns None": (
        "from maskedmodel import hookimpl\n@hookimpl\ndef maskedmodel_tokenizers(): pass",
        "must return a list of tokenizer classes, got None",
    ),
    "returns a string": (
        "from maskedmodel import hookimpl\n@hookimpl\ndef maskedmodel_tokenizers(): return 'abc'",
        "must return a list of tokenizer classes, got 'abc'",
    ),
    "not a class": (
        "from maskedmodel import hookimpl\n@hookimpl\ndef maskedmodel_tokenizers(): return [3]",
        "3 is no tokenizer",
    ),
    "another kind": (
        GOOD.replace("maskedmodel_objectives", "maskedmodel_tokenizers"),
        "is no tokenizer. expected: a subclass of maskedmodel.Tokenizer",
    ),
    "unfinished": (
        GOOD.replace("def loss", "def lost"),
        "(Good) is unfinished. expected: definitions of loss",
    ),
    "no settings": (GOOD.replace("Objective[GoodSettings]", "Objective"), "has no name"),
    "name without default": (GOOD.replace(' = "NAME"', ""), "has no name"),
    "name not fixed": (GOOD.replace('Literal["NAME"]', "str"), "don't fix their name"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_plugin_stays_alone(site: Site, case: str) -> None:
    source, reason = BROKEN[case]
    site.good("before", "alpha")
    site.install("damaged", source)
    site.good("later", "omega")
    registry = load("before", "damaged", "later")
    assert set(registry.objectives) == {"alpha", "omega"}
    (failure,) = registry.failures
    assert (failure.plugin, failure.distribution, failure.version) == ("damaged", "dist-damaged", "1.2.3")
    assert reason in failure.reason
    assert "\n" not in failure.reason
    with pytest.raises(PluginError, match="'damaged' of dist-damaged"):
        registry.get("tokenizer", "spectrogram")
    with pytest.raises(PluginError, match="'damaged' of dist-damaged"):
        load("before", "damaged", "later", strict=True)


def test_a_bad_hook_or_class_leaves_the_rest_of_its_plugin(site: Site) -> None:
    source = textwrap.dedent(GOOD).replace("return [Good]", "return [Good, 3]")
    site.install("half", source + "\n@hookimpl\ndef maskedmodel_data_sources():\n    raise OSError('gone')\n")
    registry = load("half")
    assert set(registry.objectives) == {"NAME"}
    assert ["OSError: gone" in f.reason or "3 is no objective" in f.reason for f in registry.failures] == [True, True]


def test_a_component_name_with_two_owners_is_given_with_the_plugin(site: Site) -> None:
    site.good("one", "twin")
    site.good("two", "twin", "other-dist")
    site.good("three", "alone")
    registry = load("one", "two", "three")
    assert set(registry.objectives) == {"alone", "one:twin", "two:twin"}
    (failure,) = registry.failures
    assert failure.plugin == "two"
    for name in ("dist-one", "other-dist", "one:twin", "two:twin"):
        assert name in failure.reason
        with pytest.raises(PluginError, match=name):
            registry.get("objective", "twin")
    assert [plugin.components for plugin in registry.plugins] == [
        {"objective": ("one:twin",)},
        {"objective": ("alone",)},
        {"objective": ("two:twin",)},
    ]
    assert set(load_registry(allow=["one", "two"], block=["two"]).objectives) == {"twin"}
    with pytest.raises(PluginError, match="other-dist"):
        load("one", "two", strict=True)


def test_a_plugin_that_gives_one_name_twice_gets_neither(site: Site) -> None:
    site.install("one", GOOD.replace("return [Good]", "return [Good, type('Again', (Good,), {})]"))
    (failure,) = load("one").failures
    assert load("one").objectives == {}
    assert "rename one" in failure.reason
    assert failure.lost == (("objective", "NAME"),)


def test_plugins_of_one_name_are_called_by_their_distributions(site: Site) -> None:
    site.good("same", "alpha", "dist-a")
    site.good("same", "omega", "dist-b")
    site.good("other", "kept")
    registry = load("same", "other")
    assert set(registry.objectives) == {"alpha", "omega", "kept"}
    assert {plugin.name for plugin in registry.plugins} == {"dist-a", "dist-b", "other"}
    assert [failure.clash for failure in registry.failures] == [True, True]
    assert set(load_registry(allow=["same"], block=["dist-b"]).objectives) == {"alpha"}


def test_lists_from_the_environment(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.good("one", "alpha")
    site.good("two", "omega")
    monkeypatch.setenv("MASKEDMODEL_PLUGINS", " one , two,")
    assert set(load_registry().objectives) == {"alpha", "omega"}
    monkeypatch.setenv("MASKEDMODEL_BLOCK_PLUGINS", "two,not-installed")
    registry = load_registry()
    assert set(registry.objectives) == {"alpha"}
    assert "two" in registry.blocked
    with pytest.raises(PluginError, match=r"MASKEDMODEL_BLOCK_PLUGINS: .*two"):
        registry.get("objective", "omega")
    assert set(load_registry(allow=["two"], block=[]).objectives) == {"omega"}
    monkeypatch.setenv("MASKEDMODEL_PLUGINS", "onne")
    with pytest.raises(PluginError, match=r"'onne'(.|\n)*Did you mean 'one'"):
        load_registry()
    monkeypatch.setenv("MASKEDMODEL_PLUGINS", "")
    monkeypatch.setenv("MASKEDMODEL_BLOCK_PLUGINS", "")
    assert {"alpha", "omega"} <= set(load_registry().objectives)


def test_a_blocked_plugin_is_not_imported(site: Site) -> None:
    site.install("slow", "import time; time.sleep(60)", module="fake_slow_module")
    registry = load_registry(block=["slow"], allow=["slow"])
    assert registry.plugins == ()
    assert "fake_slow_module" not in sys.modules


def test_an_unknown_name_gets_the_nearest_and_all() -> None:
    registry = Registry(objectives={"patch": object, "spectrum": object})  # type: ignore[dict-item]
    with pytest.raises(PluginError, match=r"no objective 'pach'(.|\n)*patch, spectrum(.|\n)*Did you mean 'patch'"):
        registry.get("objective", "pach")
    with pytest.raises(PluginError) as raised:
        registry.get("objective", "nonexistent")
    assert "Did you mean" not in str(raised.value)
    with pytest.raises(PluginError, match=r"no mask scheduler 'uniform'(.|\n)*a plugin that provides"):
        registry.get("mask_scheduler", "uniform")


def test_a_failure_reads_as_a_sentence() -> None:
    failure = Failure("ecg", "ecg-plugin", "0.3", "importing ecg failed: ImportError: no scipy")
    assert str(failure) == "plugin 'ecg' of ecg-plugin 0.3: importing ecg failed: ImportError: no scipy"


def test_nothing_is_installed() -> None:
    assert load_registry(entry_points=[], allow=None) == Registry()
