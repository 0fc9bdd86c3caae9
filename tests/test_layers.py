"""The map of aco_jax/__init__.py, checked on the syntax tree: who imports whom, and who opens gold."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from functools import cache
from pathlib import Path

import optax
import pytest

ROOT = Path(__file__).parents[1]
LAYERS = (
    ("types", "processes", "kernels"),
    ("ops",),
    ("models", "data"),
    ("competition", "mutual"),
    ("agents", "environment", "transitions", "exploration", "replay", "shared_reward", "supervision", "relations"),
    ("learner_state", "play", "hollow", "targets", "learner", "pretraining", "replicas", "stages"),
    (
        *("checkpoints", "configuration", "progress", "svg", "report", "baselines", "evaluation"),
        *(
            "beginnings",
            "settings",
            "desk",
            "inquiry",
            "outcomes",
            "prepare",
            "teaching",
            "self_training",
            "train",
            "adapt",
            "waves",
            "probes",
            "statements",
            "answer",
        ),
        *("ask", "export"),
    ),
)
APART = 4  # rooms of this layer, each agent one, do not import one another
DOORS = {
    "transformers": ("aco_jax/data/tokens.py",),
    "tokenizers": ("aco_jax/data/tokens.py",),
    "orbax": ("aco_jax/checkpoints.py",),
    "tensorboardX": ("aco_jax/progress.py",),
    "tqdm": ("aco_jax/progress.py",),
    "bm25s": ("aco_jax/data/retrieval.py",),
    "sparse_dot_topn": ("aco_jax/data/retrieval.py",),
    "safetensors": ("aco_jax/models/pretrained.py",),
    "gguf": ("aco_jax/models/gguf_files.py",),
    "jax.experimental.pallas": ("kernels/",),
    "flax.linen": ("aco_jax/models/", "aco_jax/agents/"),
    "absl": ("experiments/",),
    "ml_collections": ("experiments/",),
}
PROGRAM = sorted([*ROOT.glob("aco_jax/**/*.py"), *ROOT.glob("kernels/**/*.py"), *ROOT.glob("experiments/**/*.py")])
PROGRAM = [path for path in PROGRAM if "aco_jax/kernels" not in path.as_posix()]
EVERY = [*PROGRAM, ROOT / "setup.py", *sorted(ROOT.glob("tests/**/*.py"))]


def name_of(path: Path) -> str:
    """aco_jax/data/tokens.py -> aco_jax.data.tokens; kernels/ is aco_jax.kernels."""
    parts = list(path.relative_to(ROOT).with_suffix("").parts)
    if parts[0] == "kernels":
        parts.insert(0, "aco_jax")
    return ".".join(parts).removesuffix(".__init__")


@cache
def nodes_of(source: str) -> list[ast.AST]:
    return list(ast.walk(ast.parse(source)))


@cache
def imports_of(source: str) -> set[str]:
    """Every module that may be meant: `from a.b import c` gives a.b and a.b.c."""
    found = set()
    for node in nodes_of(source):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import"
            found.add(node.module)
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def room_of(name: str) -> str:
    """The room of a module or of a name in it, "" where it has none; each agent is a room of its own."""
    if not name.startswith("aco_jax."):
        return ""
    parts = name.split(".")[1:]
    return ".".join(parts[:2]) if parts[0] == "agents" else parts[0]


def layer_of(room: str) -> int | None:
    return next((layer for layer, rooms in enumerate(LAYERS) if room.split(".")[0] in rooms), None)


def faults_of(name: str, source: str) -> list[str]:
    """The rooms that the module `name` imports and must not."""
    mine, faults = layer_of(room_of(name)), []
    for room in sorted({room_of(other) for other in imports_of(source)} - {room_of(name), "agents"}):
        layer = layer_of(room)
        if mine is not None and layer is not None and (layer > mine or layer == mine == APART):
            faults.append(f"{name} (layer {mine}) imports {room} (layer {layer})")
    return faults


def uses(path: Path, library: str) -> bool:
    found = imports_of(path.read_text(encoding="utf-8"))
    return any(name == library or name.startswith(f"{library}.") for name in found)


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def test_every_room_has_a_layer():
    names = [name_of(path) for path in PROGRAM if path.is_relative_to(ROOT / "aco_jax")]
    assert [name for name in names if name != "aco_jax" and layer_of(room_of(name)) is None] == []


def test_imports_go_down():
    faults = []
    for path in PROGRAM:
        faults += faults_of(name_of(path), path.read_text(encoding="utf-8"))
    assert faults == []


def test_nothing_imports_the_launchers():
    launchers = {path.stem for path in ROOT.glob("experiments/*.py")} | {"experiments", "configs"}
    for path in PROGRAM:
        if not relative(path).startswith("experiments/"):
            roots = {name.split(".")[0] for name in imports_of(path.read_text(encoding="utf-8"))}
            assert not roots & launchers, relative(path)


@pytest.mark.parametrize("library", DOORS)
def test_one_door_a_library(library):
    users = [relative(path) for path in PROGRAM if uses(path, library)]
    assert [user for user in users if not user.startswith(DOORS[library])] == []


def test_optimisers_are_the_learners():
    """Elsewhere optax gives losses and types only; a judge is fitted once, on the host, outside the merge.

    Benchmarks train on toy tasks of their own.
    """
    allowed = {*dir(optax.losses), "losses", "OptState", "GradientTransformation"}
    for path in PROGRAM:
        name = relative(path)
        if name in ("aco_jax/pretraining.py", "aco_jax/learner_state.py", "aco_jax/models/judge.py"):
            continue
        if name.startswith("experiments/benchmarks/"):
            continue
        used = {
            node.attr
            for node in nodes_of(path.read_text(encoding="utf-8"))
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "optax"
        }
        assert used <= allowed, name


def test_only_evaluate_opens_gold():
    for path in PROGRAM:
        source, name = path.read_text(encoding="utf-8"), relative(path)
        if uses(path, "aco_jax.evaluation"):
            assert name == "experiments/evaluate.py"
        if uses(path, "evaluate"):
            assert name == "experiments/aco.py"
        if name in ("aco_jax/evaluation.py", "aco_jax/data/records.py"):
            continue
        for call in nodes_of(source):
            if isinstance(call, ast.Call) and ast.unparse(call.func).split(".")[-1] == "read_pairs":
                arguments = [*call.args, *(keyword.value for keyword in call.keywords)]
                assert any(isinstance(a, ast.Constant) and a.value == "forbidden" for a in arguments), name


READERS = {"read_csv", "read_table", "read_fwf", "read_json", "read_excel", "read_parquet", "loadtxt", "genfromtxt"}
GOLD_FILE = re.compile(r"\b(train|valid|test|matches)\.(csv|tsv|jsonl)\b")


def opens_gold(source):
    """Whether a source reads tables by another door than `data.records`, or names a file of gold outside docstrings."""
    nodes = nodes_of(source)
    said = {id(node.value) for node in nodes if isinstance(node, ast.Expr)}  # docstrings
    called = {ast.unparse(node.func).split(".")[-1] for node in nodes if isinstance(node, ast.Call)}
    texts = [node.value for node in nodes if isinstance(node, ast.Constant) and id(node) not in said]
    return bool(called & READERS) or any(isinstance(text, str) and GOLD_FILE.search(text) for text in texts)


def test_gold_is_opened_by_who_scores_and_who_makes_tables():
    """The generator writes what it made; robustness.py changes what there is."""
    allowed = {"aco_jax/evaluation.py", "aco_jax/data/catalogue.py", "experiments/robustness.py"}
    assert {relative(path) for path in PROGRAM if opens_gold(path.read_text(encoding="utf-8"))} <= allowed


@pytest.mark.parametrize(
    ("source", "opens"),
    [
        ("import pandas as pd\npd.read_csv(path)", True),
        ("open(folder / 'matches.csv')", True),
        ('"""Looks like train.csv."""\nx = 1', False),
        ("records.read_folder(path)", False),
    ],
)
def test_opened_gold_is_seen(source, opens):
    assert opens_gold(source) == opens


def test_nothing_is_suppressed():
    marks = re.compile(r"#\s*(noqa|type:\s*ignore|pylint|pragma|pyright|mypy:|ruff:|fmt:|isort:)", re.IGNORECASE)
    for path in EVERY:
        tokens = tokenize.generate_tokens(io.StringIO(path.read_text(encoding="utf-8")).readline)
        found = [t.string for t in tokens if t.type == tokenize.COMMENT and marks.match(t.string)]
        assert found == [], relative(path)


@pytest.mark.parametrize(
    ("name", "source", "faults"),
    [
        ("aco_jax.ops.values", "from aco_jax.ops import masking", 0),
        ("aco_jax.ops.values", "from aco_jax.data import records", 1),
        ("aco_jax.ops.values", "def f():\n    import aco_jax.train", 1),
        ("aco_jax.agents.actor", "from aco_jax.models import transformer", 0),
        ("aco_jax.agents.actor", "from aco_jax.agents import base", 1),
        ("aco_jax.agents.actor", "from aco_jax.agents.base import init", 1),
        ("aco_jax.agents.actor", "import aco_jax.replay as r", 1),
        ("aco_jax.replay", "from aco_jax.replay import State", 0),
        ("aco_jax.learner", "from aco_jax.agents import actor, base\nfrom aco_jax import replay", 0),
        ("aco_jax.kernels.token_log_prob", "from aco_jax import ops", 1),
        ("aco_jax.learner", "from aco_jax import evaluation", 1),
    ],
)
def test_a_fault_is_found(name, source, faults):
    assert len(faults_of(name, source)) == faults
