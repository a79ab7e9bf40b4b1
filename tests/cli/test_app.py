"""The command line: which call a line becomes, what it prints, and how it ends."""

from __future__ import annotations

import inspect
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import maskedmodel
from maskedmodel.cli.app import run_cli
from maskedmodel.cli.output import plain_lines
from maskedmodel.errors import DataError
from maskedmodel.training.interrupt import Interrupted

Call = tuple[str, tuple[Any, ...], dict[str, Any]]


class Commands:
    """Stands in for maskedmodel.commands: keeps the calls, raises what it is told to."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.error: BaseException | None = None
        self.result: Any = None

    def __getattr__(self, name: str) -> Any:
        def call(*arguments: Any, **options: Any) -> Any:
            self.calls.append((name, arguments, options))
            if self.error is not None:
                raise self.error
            return self.result

        return call


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Commands:
    """In a folder with the configs `a` and `a.yaml` and the run `r`, which are looked for before anything is called."""
    fake = Commands()
    monkeypatch.chdir(tmp_path)
    for name in ("a", "a.yaml", "r/config.yaml"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("{}")
    monkeypatch.setattr(maskedmodel, "commands", fake, raising=False)
    return fake


LINES: dict[str, Call] = {
    "pretrain": ("pretrain", (None,), {"run": None, "overrides": [], "strict_plugins": False}),
    "pretrain a.yaml train.steps=5 --run r data.x=c": (
        "pretrain",
        ("a.yaml",),
        {"run": Path("r"), "overrides": ["train.steps=5", "data.x=c"], "strict_plugins": False},
    ),
    "pretrain mask.ratio=-1 a.yaml": (
        "pretrain",
        ("a.yaml",),
        {"run": None, "overrides": ["mask.ratio=-1"], "strict_plugins": False},
    ),
    "compare a data.x=c --mask uniform:ratio=0.5 --mask ramped --seeds 2": (
        "compare",
        ("a", ["uniform:ratio=0.5", "ramped"]),
        {
            "vary": (),
            "controls": False,
            "seeds": 2,
            "budget": "flops",
            "scores": None,
            "primary": None,
            "run": None,
            "jobs": None,
            "overrides": ["data.x=c"],
            "strict_plugins": False,
            "quiet": False,
        },
    ),
    "compare --vary model.decoder.depth=2 --vary model.decoder.depth=6 --controls --budget tokens --run d --jobs 2 "
    "--score knn,finetune:1% --score layers --primary knn": (
        "compare",
        (None, ()),
        {
            "vary": ["model.decoder.depth=2", "model.decoder.depth=6"],
            "controls": True,
            "seeds": 3,
            "budget": "tokens",
            "scores": ["knn,finetune:1%", "layers"],
            "primary": "knn",
            "run": Path("d"),
            "jobs": 2,
            "overrides": [],
            "strict_plugins": False,
            "quiet": False,
        },
    ),
    "reconstruct r": ("reconstruct", (Path("r"), []), {"mode": None, "out": None, "count": 8, "overrides": []}),
    "reconstruct r a.tif b.tif data.name=tiff_folder --mode oracle --out x.png": (
        "reconstruct",
        (Path("r"), ["a.tif", "b.tif"]),
        {"mode": "oracle", "out": Path("x.png"), "count": 8, "overrides": ["data.name=tiff_folder"]},
    ),
    "probe r": ("probe", (Path("r"),), {"overrides": (), "probes": None, "encoders": (), "quiet": False}),
    "probe r data.label=x": (
        "probe",
        (Path("r"),),
        {"overrides": ["data.label=x"], "probes": None, "encoders": (), "quiet": False},
    ),
    "probe r --probes knn,layers --encoder e": (
        "probe",
        (Path("r"),),
        {"overrides": (), "probes": ["knn", "layers"], "encoders": [Path("e")], "quiet": False},
    ),
    "embed r val --to f.npz": (
        "embed",
        (Path("r"), "val"),
        {"to": Path("f.npz"), "overrides": [], "pool": None, "layer": "last"},
    ),
    "embed r val --to f.npz --pool concat --layer -2": (
        "embed",
        (Path("r"), "val"),
        {"to": Path("f.npz"), "overrides": [], "pool": "concat", "layer": -2},
    ),
    "embed r folder data.name=array --to f.npz": (
        "embed",
        (Path("r"), "folder"),
        {"to": Path("f.npz"), "overrides": ["data.name=array"], "pool": None, "layer": "last"},
    ),
    "import w": (
        "import_weights",
        ("w",),
        {"to": None, "heads": None, "decoder_heads": None, "image_size": None, "normalise": None},
    ),
    "import w --to r --raw --heads 6 --decoder-heads 8 --image-size 192x256": (
        "import_weights",
        ("w",),
        {"to": Path("r"), "heads": 6, "decoder_heads": 8, "image_size": (192, 256), "normalise": False},
    ),
    "preview a.yaml data.x=c": ("preview", ("a.yaml",), {"overrides": ["data.x=c"], "out": None}),
}


@pytest.mark.parametrize("line", LINES)
def test_a_verb_calls_one_function(commands: Commands, line: str, capsys: pytest.CaptureFixture[str]) -> None:
    commands.result = "what it says of itself"
    assert run_cli(line.split()) == 0
    assert commands.calls == [LINES[line]]
    assert capsys.readouterr().out == "what it says of itself\n"
    commands.result = None  # as on all ranks but the first
    assert run_cli(line.split()) == 0
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("line", LINES)
def test_the_function_takes_the_call(line: str) -> None:
    from maskedmodel import commands

    name, arguments, options = LINES[line]
    inspect.signature(getattr(commands, name)).bind(*arguments, **options)


def test_a_path_with_an_equals_sign_is_a_path(commands: Commands, tmp_path: Path) -> None:
    for config in ("lr=0.1.yaml", "sweep/lr=0.1/my.yaml"):
        (tmp_path / config).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / config).write_text("{}")
        assert run_cli(["pretrain", config, "train.steps=5"]) == 0
        assert commands.calls[-1][1] == (config,)
        assert commands.calls[-1][2]["overrides"] == ["train.steps=5"]
    assert run_cli(["embed", "r", "photos/set=1", "data.path=a/b=c", "--to", "f.npz"]) == 0
    assert commands.calls[-1][1] == (Path("r"), "photos/set=1")
    assert commands.calls[-1][2]["overrides"] == ["data.path=a/b=c"]


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("pretrain image-quikstart", "image-quickstart"),
        ("pretrain a.yaml train.stpes=5", "Did you mean 'steps'?"),
        ("pretrain a.yaml train.steps=0 optim.lr=x", "2 problems"),
        ("compare a.yaml train.steps=yes", "a whole number"),
        ("doctor a.yaml modl.x=1", "Did you mean 'model'?"),
        ("config show a.yaml train.batch=true", "expected a number, got true"),
        ("preview nothing.yaml", "There is no config"),
        ("probe nothing", "There is no run"),
        ("embed nothing val --to x.npz", "There is no run"),
        ("reconstruct a", "is no run"),
    ],
)
def test_what_needs_no_torch_is_said_without_it(commands: Commands, line: str, says: str) -> None:
    """Importing torch takes seconds, so an error in the words of a line must not wait for it."""
    script = (
        "import sys; from maskedmodel.cli.app import run_cli; code = run_cli(sys.argv[1:]); "
        "print([name for name in ('torch', 'numpy') if name in sys.modules]); sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", script, *line.split()], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert says in done.stderr
    assert done.stdout.strip() == "[]"


def test_global_flags_are_welcome_after_the_verb(commands: Commands, monkeypatch: pytest.MonkeyPatch) -> None:
    from maskedmodel import plugins

    loads: list[bool] = []
    monkeypatch.setattr(plugins, "load_registry", lambda *, strict=False: loads.append(strict))
    assert run_cli(["pretrain", "--strict-plugins"]) == 0
    assert commands.calls[0][2]["strict_plugins"] is True
    assert loads == [True]


def test_listings_as_json(commands: Commands, capsys: pytest.CaptureFixture[str]) -> None:
    commands.result = SimpleNamespace(to_dict=lambda: {"rows": [{"name": "trained"}]})
    assert run_cli(["probe", "r", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"rows": [{"name": "trained"}]}
    assert commands.calls == [("probe", (Path("r"),), {"overrides": (), "probes": None, "encoders": (), "quiet": True})]
    commands.result = {"device": "cpu", "failures": []}
    assert run_cli(["doctor", "a", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == commands.result
    assert run_cli(["doctor"]) == 0
    assert capsys.readouterr().out == "device: cpu\nfailures: none\n"


ENDS: list[tuple[BaseException, int, str]] = [
    (
        DataError("No files.", where="a folder", fix="Put some in."),
        2,
        "Error: No files.\n  where: a folder\n  to fix: Put",
    ),
    (KeyError("x"), 1, "Failed: KeyError: 'x' (run with --debug for the traceback)\n"),
    (
        MemoryError(),
        2,
        "Error: There isn't enough memory.\n  got: MemoryError: \n  to fix: a smaller train.batch, "
        "train.accumulate=2 or more, larger tokens, or a smaller model need less.\n",
    ),
    (KeyboardInterrupt(), 130, "Stopped: interrupted\n"),
    (Interrupted(15), 143, "Stopped: Stopped by SIGTERM"),
    (Interrupted(2), 130, "Stopped: Stopped by SIGINT"),
    (SystemExit(7), 7, ""),
]


@pytest.mark.parametrize(("error", "code", "text"), ENDS, ids=lambda value: type(value).__name__)
def test_exit_codes(
    commands: Commands, capsys: pytest.CaptureFixture[str], error: BaseException, code: int, text: str
) -> None:
    commands.error = error
    assert run_cli(["pretrain"]) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert text in err
    assert "Traceback" not in err
    assert run_cli(["pretrain", "--debug"]) == code
    assert "Traceback" in capsys.readouterr().err


USAGE = {
    "pretran": "Did you mean 'pretrain'?",
    "plugins chek": "Did you mean 'check'?",
    "config shw": "Did you mean 'show'?",
    "pretrain a b": "expected one, got a, b",
    "pretrain --steps=5": "No such option",
    "pretrain --train.steps=5": "Settings are written without dashes, as KEY=VALUE.",
    "reconstruct": "RUN",
    "embed r x": "--to",
    "embed r val --to f.npz --layer middle": "--layer is last or a whole number",
    "embed r a=b --to f.npz": "Say what to embed",
    "reconstruct r --count 0": "--count",
    "config": "Missing command",
    "import w --image-size 2x3x4": "--image-size is a number or HEIGHTxWIDTH",
    "import w --image-size 0": "--image-size is a number or HEIGHTxWIDTH",
}


@pytest.mark.parametrize("line", USAGE)
def test_usage_errors(commands: Commands, capsys: pytest.CaptureFixture[str], line: str) -> None:
    assert run_cli(line.split()) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("Error: ")
    assert USAGE[line] in err
    assert "--help tells more" in err
    assert commands.calls == []


def test_config_show_and_schema(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli(["config", "show", "train.steps=7", "mask.name=ramped"]) == 0
    shown = capsys.readouterr().out
    assert "  steps: 7\n" in shown
    path = tmp_path / "shown.yaml"
    path.write_text(shown)
    assert run_cli(["config", "show", str(path)]) == 0
    assert capsys.readouterr().out == shown
    assert run_cli(["config", "show", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["data"]["name"] == "digits"
    assert run_cli(["config", "schema"]) == 0
    assert "tokenizer" in json.loads(capsys.readouterr().out)["properties"]
    assert run_cli(["config", "show", "trian.steps=7"]) == 2
    assert "Did you mean 'train'?" in capsys.readouterr().err


def test_plugins_list_and_show(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli(["plugins"]) == 0
    assert "mask scheduler: " in capsys.readouterr().out
    assert run_cli(["plugins", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    masks = next(plugin for plugin in listed["plugins"] if plugin["name"] == "masks")
    assert "uniform" in masks["components"]["mask_scheduler"]
    assert run_cli(["plugins", "show", "uniform"]) == 0
    assert "Share of a sample's tokens to hide" in capsys.readouterr().out
    assert run_cli(["plugins", "show", "masks", "--json"]) == 0
    names = [component["name"] for component in json.loads(capsys.readouterr().out)["components"]]
    assert {"ramped", "uniform"} <= set(names)
    assert run_cli(["plugins", "show", "unifrm"]) == 2
    assert "Did you mean 'uniform'?" in capsys.readouterr().err


def test_broken_and_blocked_plugins_are_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    info = tmp_path / "torn-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: torn\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[maskedmodel]\ntorn = a_module_that_is_not_there\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("MASKEDMODEL_BLOCK_PLUGINS", "image")
    assert run_cli(["plugins"]) == 0
    out = capsys.readouterr().out
    assert "plugin 'torn' of torn 1.0: importing a_module_that_is_not_there failed: ModuleNotFoundError" in out
    assert "Blocked: image" in out
    assert run_cli(["plugins", "show", "torn"]) == 0
    assert "ModuleNotFoundError" in capsys.readouterr().out
    assert run_cli(["plugins", "--strict-plugins"]) == 2
    assert "ModuleNotFoundError" in capsys.readouterr().err


def test_checks(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    results = [
        SimpleNamespace(component="uniform", check="check_ratio", status="passed", message=""),
        SimpleNamespace(component="uniform", check="check_noise", status="not applicable", message="draws\n none"),
    ]
    fake = SimpleNamespace(run_checks=lambda registry, name, report: results)
    monkeypatch.setattr(maskedmodel, "testing", fake, raising=False)
    monkeypatch.setitem(sys.modules, "maskedmodel.testing", fake)  # type: ignore[misc]
    assert run_cli(["plugins", "check", "uniform"]) == 0
    out = capsys.readouterr().out
    assert "uniform    check_noise  not applicable  draws none\n" in out
    assert "2 checks, 0 failed" in out
    results.append(SimpleNamespace(component="uniform", check="check_seed", status="failed", message="differs"))
    assert run_cli(["plugins", "check", "uniform", "--json"]) == 1
    assert [result["status"] for result in json.loads(capsys.readouterr().out)] == [
        "passed",
        "not applicable",
        "failed",
    ]


def test_nested_values_as_lines() -> None:
    value = {"a": 1, "b": {"c": [1, {"d": "x"}], "e": {}}, "f": None}
    assert plain_lines(value) == ["a: 1", "b:", "  c:", "    - 1", "    -", "      d: x", "  e: none", "f: none"]


# In a process of its own


def start(*arguments: str, script: str = "import maskedmodel.cli.app as c; c.main()", **env: str) -> Any:
    return subprocess.run(
        [sys.executable, "-c", script, *arguments],
        capture_output=True,
        text=True,
        encoding="utf-8",
        env={**os.environ, **env},
        timeout=60,
        check=False,
    )


VERBS = [
    "",
    "pretrain",
    "compare",
    "reconstruct",
    "probe",
    "embed",
    "import",
    "preview",
    "doctor",
    "plugins",
    "plugins show",
    "config",
]


def test_help_imports_no_torch() -> None:
    script = (
        "import sys; from maskedmodel.cli.app import run_cli\n"
        "codes = [run_cli([*verb.split(), '--help']) for verb in sys.argv[1:]]\n"
        "codes += [run_cli(['--version']), run_cli([])]\n"
        "loaded = {'torch', 'numpy', 'maskedmodel.commands', 'maskedmodel.plugins'} & set(sys.modules)\n"
        "sys.exit(f'{codes} {loaded}' if any(codes) or loaded else 0)"
    )
    done = start(*VERBS, script=script)
    assert (done.returncode, done.stderr) == (0, "")
    assert "Usage: maskedmodel pretrain" in done.stdout
    assert f"maskedmodel {maskedmodel.__version__}" in done.stdout


def test_no_locale_and_no_home(tmp_path: Path) -> None:
    settings = {
        "LANG": "C",
        "LC_ALL": "C",
        "HOME": str(tmp_path / "none"),
        "PYTHONIOENCODING": "ascii",
        "PYTHONUTF8": "0",
    }
    assert start("--help", **settings).returncode == 0
    done = start("config", "show", "no-such-\u00e9", **settings)
    assert done.returncode == 2
    assert done.stderr.startswith("Error: There is no config 'no-such-")
    for junk in ("Traceback", "\x1b"):
        assert junk not in done.stderr


def test_a_closed_pipe_gives_no_traceback() -> None:
    long = "import sys, maskedmodel.cli.app as c, maskedmodel.cli.plugins as p\n"
    long += "p._print_all = lambda as_json: [print('x' * 99) for _ in range(9999)]\nc.main()"
    with subprocess.Popen(
        [sys.executable, "-c", long, "plugins"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait(timeout=60) == 1


def test_no_stdout_at_all() -> None:
    script = "import sys; sys.stdout = None\nfrom maskedmodel.cli.app import main; main()"
    done = start("config", "show", script=script)
    assert (done.returncode, done.stderr) == (0, "")
