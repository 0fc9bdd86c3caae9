"""Wrong input to the launchers: one line that names the place, exit code 2, no traceback, nothing lost."""

from __future__ import annotations

import dataclasses
import importlib
import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
from absl import flags

import compilation
from aco_jax import configuration, settings
from aco_jax.data import catalogue, tokens

pytestmark = pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")  # ml_collections'

ROOT = Path(__file__).parents[1]
GOOD = "id,name\n0,red lamp\n1,blue chair\n"
FOLDERS = {  # what tableB.csv holds in each
    "good": GOOD,
    "no_id": "key,name\n0,red lamp\n",
    "repeated_id": "id,name\n0,red lamp\n0,blue chair\n",
    "empty": "id,name\n",
    "ragged": "id,name\n0,red lamp,extra\n",
    "latin": "id,name\n0,caf\xe9\n",
    "semicolons": "id;name\n0;red lamp\n",
    "only_ids": "id,name\n0,\n1, \n",
    "unclosed": 'id,name\n0,"red lamp\n1,blue chair\n',
}
FOLDER = "--config=experiments/configs/folder.py"
# Flags of the launchers.
OURS = ["config", "workdir", "data", "split", "out", "pairs", "clusters", "seeds", "change", "changes", "switches"]
OURS += ["coordinator", "processes", "process"]
SMOKE = "--config=experiments/configs/smoke.py"
ACO = "aco.py --workdir=new"
RELATE = "relate.py --workdir=run --data=good --out=out.csv"
CASES = {  # name -> command, what the line must say
    "missing id column": (f"{ACO} {FOLDER} --config.data.path=no_id", ["no_id/tableB.csv", "'id'", "expected"]),
    "repeated id": (f"{ACO} {FOLDER} --config.data.path=repeated_id", ["repeated_id/tableB.csv", "line 3", "'0'"]),
    "empty table": (f"{ACO} {FOLDER} --config.data.path=empty", ["empty/tableB.csv", "expected at least one"]),
    "ragged row": (f"{ACO} {FOLDER} --config.data.path=ragged", ["ragged/tableB.csv", "line 2", "expected 2"]),
    "wrong encoding": (f"{ACO} {FOLDER} --config.data.path=latin", ["latin/tableB.csv", "line 2", "UTF-8"]),
    "missing folder": (f"{ACO} {FOLDER} --config.data.path=absent", ["absent", "no such folder"]),
    "no folder named": (f"{ACO} {FOLDER}", ["config.data.path", "--config.data.path=DIR"]),
    "unknown flag": (f"{ACO} {SMOKE} --wrokdir=x", ["wrokdir", "--help"]),
    "unknown field": (f"{ACO} {SMOKE} --config.train.ruonds=3", ["--config.train.ruonds=3", "unknown field"]),
    "wrong type": (f"{ACO} {SMOKE} --config.train.rounds=many", ["--config.train.rounds=many"]),
    "impossible size": (f"{ACO} {SMOKE} --config.data.generator.size=-3", ["generator.size", "-3", "expected 8"]),
    "no config file": (f"{ACO} --config=absent.py", ["--config", "absent.py"]),
    "no flag at all": ("aco.py", ["--config", "--workdir"]),
    "a word too many": (f"{ACO} {SMOKE} more", ["'more'", "expected --flag=value"]),
    "half a process": (f"{ACO} {SMOKE} --processes=2", ["--coordinator", "--process", "expected all three"]),
    "a cluster and a number": (f"{ACO} {SMOKE} --coordinator=cluster --process=1", ["--coordinator=cluster alone"]),
    "one process too many": (
        f"{ACO} {SMOKE} --coordinator=localhost:1 --processes=2 --process=2",
        ["--process: 2", "less than the 2"],
    ),
    "another config's workdir": (
        f"aco.py --workdir=run {SMOKE} --config.seed=1",
        ["run/config.json", "config.seed is 0 there, expected 1"],
    ),
    "unknown id in pairs": (f"{RELATE} --pairs=unknown_id.csv", ["unknown_id.csv", "line 2", "rtable_id", "'9'"]),
    "labels in pairs": (f"{RELATE} --pairs=labelled.csv", ["labelled.csv", "'label'", "refused"]),
    "no folder to write to": (
        "relate.py --workdir=run --data=good --out=absent/out.csv --pairs=good_pairs.csv",
        ["absent/out.csv", "expected a file in a folder that exists"],
    ),
    "no folder for the clusters": (
        "relate.py --workdir=run --data=good --out=out.csv --clusters=absent/c.csv",
        ["absent/c.csv", "expected a file in a folder that exists"],
    ),
    "no workdir": ("relate.py --workdir=absent --data=good --out=o.csv", ["absent/config.json", "no such file"]),
    "unfinished run": ("evaluate.py --workdir=run --data=good --split=valid", ["run/summary.json", "finished"]),
    "semicolons": (f"{ACO} {FOLDER} --config.data.path=semicolons", ["tableB.csv, line 1", "'id;name'", "commas"]),
    "nothing but ids": (f"{ACO} {FOLDER} --config.data.path=only_ids", ["only_ids/tableB.csv", "nothing but ids"]),
    "a cell never closed": (f"{ACO} {FOLDER} --config.data.path=unclosed", ["line 2", "never closed"]),
    "an empty path": (f"aco.py --workdir= {FOLDER} --config.data.path=good", ["--workdir: empty", "expected a path"]),
    "a workdir among the tables": (f"aco.py --workdir=good {FOLDER} --config.data.path=good", ["good", "of its own"]),
    "heads that do not fit": (f"{ACO} {SMOKE} --config.model.heads=7", ["config.model", "multiple of the 7 heads"]),
    "no room for a record": (f"{ACO} {SMOKE} --config.model.record_length=20", ["record_length 20", "query_length 20"]),
    "no program": (f"{ACO} --config=no_program.py", ["--config", "no_program.py", "experiments/configs"]),
    "pairs overwritten": (
        "relate.py --workdir=run --data=good --out=good_pairs.csv --pairs=good_pairs.csv",
        ["--out", "is --pairs too", "of its own"],
    ),
    "a table overwritten": (
        "relate.py --workdir=run --data=good --out=good/tableA.csv",
        ["--out", "a file of good too", "of its own"],
    ),
    "one file for two": (f"{RELATE} --clusters=out.csv", ["--clusters", "--out too", "of its own"]),
    "unknown split": ("evaluate.py --workdir=run --split=some", ["split", "some"]),
    "unknown change": ("robustness.py --data=good --changes=same,worse", ["--changes", "worse", "same, swapped"]),
    "unknown switch": ("ablate.py --data=good --switches=luck", ["--switches", "luck", "no agents"]),
}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with tables good and bad, pairs, and the workdir `run` of the smoke config."""
    folder = tmp_path_factory.mktemp("launchers")
    for name, content in FOLDERS.items():
        (folder / name).mkdir()
        (folder / name / "tableA.csv").write_text(GOOD)
        (folder / name / "tableB.csv").write_bytes(content.encode("latin-1"))
    (folder / "unknown_id.csv").write_text("ltable_id,rtable_id\n0,9\n")
    (folder / "labelled.csv").write_text("ltable_id,rtable_id,label\n0,0,1\n")
    (folder / "good_pairs.csv").write_text("ltable_id,rtable_id\n0,0\n")
    (folder / "no_program.py").write_text("# Words\n\n  indented\n")
    smoke = configuration.from_dict(settings.TrainConfig, config_of("smoke").to_dict())
    configuration.claim(folder / "run", smoke)
    return folder


@pytest.fixture
def launch(place, monkeypatch, capsys):
    """Runs a launcher as a file, in this process: (exit code, stdout, stderr)."""
    monkeypatch.chdir(place)

    def run(command):
        script, *arguments = command.split()
        arguments = [word.replace("experiments/", f"{ROOT}/experiments/") for word in arguments]
        monkeypatch.setattr(sys, "argv", [script, *arguments])
        try:
            with pytest.raises(SystemExit) as stop:
                runpy.run_path(str(ROOT / "experiments" / script), run_name="__main__")
        finally:
            for name in list(flags.FLAGS):
                if name.split(".")[0] in OURS:
                    delattr(flags.FLAGS, name)
            flags.FLAGS.unparse_flags()
        return stop.value.code, *capsys.readouterr()

    return run


@pytest.mark.parametrize("case", CASES)
def test_wrong_input_is_one_line(place, launch, case):
    command, words = CASES[case]
    before = contents(place)
    code, out, err = launch(command)
    lines = err.splitlines()
    assert (code, out, len(lines)) == (2, "", 1), err
    assert lines[0].startswith(command.split()[0] + ": ")
    for word in words:
        assert word in lines[0]
    assert contents(place) == before


@pytest.mark.parametrize("script", ["aco.py", "evaluate.py", "relate.py"])
def test_wrong_input_from_a_shell(place, script):
    done = subprocess.run(
        [sys.executable, ROOT / "experiments" / script, "--wrong=1"],
        cwd=place,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    assert done.stderr.startswith(f"{script}: Unknown command line flag 'wrong'")
    assert done.stderr.count("\n") == 1


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def config_of(name):
    return importlib.import_module(f"configs.{name}").get_config()


@pytest.mark.parametrize("name", ["builtin", "compatible", "folder", "relations", "smoke"])
def test_configs_are_typed(name):
    """Each knob of a config file is a field of the program's, of the right type and within its bounds."""
    typed = configuration.from_dict(settings.TrainConfig, config_of(name).to_dict())
    assert configuration.from_dict(settings.TrainConfig, configuration.to_dict(typed)) == typed
    assert (typed.data.generator is None) == (name in ("compatible", "folder"))


def test_every_knob_can_be_turned():
    """What is not in the config file cannot be changed from the command line."""
    config = config_of("builtin").to_dict()
    fields = configuration.to_dict(configuration.from_dict(settings.TrainConfig, config))
    for section in ("model", "train", "agents", "environment"):
        assert set(config[section]) == set(fields[section])
    assert set(config["data"]["generator"]) == set(fields["data"]["generator"])


def flat(config, place=""):
    """Every plain value of nested dataclasses by its place."""
    if not dataclasses.is_dataclass(config):
        return {place: config}
    found = {}
    for field in dataclasses.fields(config):
        found |= flat(getattr(config, field.name), f"{place}.{field.name}")
    return found


@pytest.mark.parametrize("section", ["agents", "environment"])
def test_every_knob_moves_what_it_names(section):
    """Turned one by one: the agents' configs change by the value given, under the knob's name where they have it."""
    dataset = catalogue.generate(0, shops=2, size=24, difficulty=0.2).dataset
    config = configuration.from_dict(settings.TrainConfig, config_of("builtin").to_dict())
    config = dataclasses.replace(config, environment=dataclasses.replace(config.environment, null_shift_limit=0.5))
    tokenizer = tokens.train((dataset.text(record) for record in range(dataset.size)), 512)
    before = flat(settings.learner_config(config, dataset, tokenizer))
    knobs = getattr(config, section)
    for field in dataclasses.fields(knobs):
        old = getattr(knobs, field.name)
        if isinstance(old, bool) or not isinstance(old, int | float):
            continue
        new = 2 * old + 1 if isinstance(old, int) else old / 2 + 1 / 64
        turned = dataclasses.replace(config, **{section: dataclasses.replace(knobs, **{field.name: new})})
        after = flat(settings.learner_config(turned, dataset, tokenizer))
        moved = {place.rpartition(".")[2]: after[place] for place in before if before[place] != after[place]}
        assert moved, field.name
        named = {name for name in (place.rpartition(".")[2] for place in before) if name == field.name}
        assert not named or set(moved) == named, (field.name, moved)
        if field.name != "replay_capacity":  # is parted among the replicas
            assert set(moved.values()) == {new}, (field.name, moved)


def test_a_folder_has_the_settings_of_the_built_in_catalogues():
    """One configuration serves every data set."""
    builtin, folder = config_of("builtin"), config_of("folder")
    del builtin.data, folder.data
    assert builtin == folder


EMITTERS, LESS = "--xla_cpu_use_fusion_emitters=false", "--xla_backend_optimization_level=1"


@pytest.mark.parametrize(
    ("jaxlib", "plugins", "tpu", "given", "expected"),
    [
        ("0.10.2", [], None, "", f"{EMITTERS} {LESS}"),
        ("0.10.2", ["cuda"], None, "--xla_a=1", f"--xla_a=1 {EMITTERS}"),
        ("0.10.2", [], "libtpu", "", EMITTERS),
        ("0.10.2", [], None, "--xla_cpu_use_fusion_emitters=true", f"--xla_cpu_use_fusion_emitters=true {LESS}"),
        ("0.12.0", [], None, "--xla_a=1", f"--xla_a=1 {LESS}"),
        ("0.12.0", [], None, "--xla_backend_optimization_level=0", "--xla_backend_optimization_level=0"),
    ],
)
def test_fast_compilation_only_where_it_is_known_to_be_no_loss(monkeypatch, jaxlib, plugins, tpu, given, expected):
    monkeypatch.setattr(compilation.metadata, "version", lambda _: jaxlib)
    monkeypatch.setattr(compilation.metadata, "entry_points", lambda group: plugins)
    monkeypatch.setattr(compilation.util, "find_spec", lambda _: tpu)
    assert compilation.fast_flags(given) == expected


def test_a_reader_that_goes_is_no_error() -> None:
    program = "import launch; launch.run(lambda: print('line\\n' * 100_000))"
    with subprocess.Popen(
        [sys.executable, "-c", program],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(map(str, (ROOT, ROOT / "experiments")))},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as running:
        assert running.stdout is not None
        assert running.stderr is not None
        running.stdout.readline()
        running.stdout.close()
        said = running.stderr.read()
    assert (running.returncode, said) == (141, b"")  # 128 and the number of SIGPIPE, as shells say it
