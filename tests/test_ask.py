"""Requests in plain language, answered by agents that have learned nothing: what holds whatever they know."""

from __future__ import annotations

import dataclasses
import importlib
import json
import re
import runpy
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl import flags

from aco_jax import ask, checkpoints, configuration, inquiry, learner_state, settings, train
from aco_jax import desk as desks
from aco_jax.agents import ranker
from aco_jax.data import catalogue, retrieval, telling
from aco_jax.data.records import InputError
from aco_jax.models import quantization
from aco_jax.settings import TrainConfig
from aco_jax.types import Params

LAUNCHER = Path(__file__).parents[1] / "experiments" / "ask.py"


@dataclasses.dataclass(frozen=True)
class Parts:
    workdir: Path
    config: TrainConfig
    agents: learner_state.Config
    desk: desks.Desk
    params: dict[str, Params]

    def reply(self, request: str, k: int) -> ask.Reply:
        return ask.reply(self.desk, self.config, self.agents, self.params, request, k)

    def rare_words(self, record: int) -> str:
        """The three rarest words of a record, in any table."""
        texts = self.words()
        counts = {word: sum(word in text for text in texts) for word in texts[record]}
        return " ".join(sorted(counts, key=lambda word: counts[word])[:3])

    def words(self) -> list[list[str]]:
        """Of each record."""
        return [words_of(self.desk.dataset.text(record)) for record in range(self.desk.dataset.size)]


def words_of(text: str) -> list[str]:
    return re.findall(r"[^\W_]+", text.lower())


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Parts:
    """A saved run of the smoke config, smaller still, in which nothing was learned."""
    folder, workdir = tmp_path_factory.mktemp("shops"), tmp_path_factory.mktemp("run")
    catalogue.generate(0, shops=2, size=24, difficulty=0.2).write(folder)
    smoke = importlib.import_module("configs.smoke").get_config()
    smoke.data.path = str(folder)
    smoke.train.update(rewrites=2, candidates=3)
    smoke.model.update(width=16, mlp_width=16)
    config = configuration.from_dict(TrainConfig, smoke.to_dict())
    dataset = configuration.open_run(config, workdir)
    desk = train.open_desk(config, dataset, workdir)
    agents = settings.learner_config(config, dataset, desk.tokenizer)
    run = train.start(config, agents, desk)
    checkpoints.save(workdir / "checkpoints", 0, run)
    (workdir / "summary.json").write_text("{}\n")
    return Parts(workdir, config, agents, desk, train.parameters(run, agents))


def records_of(parts: Parts, found: ask.Reply) -> list[int]:
    return [parts.desk.dataset.index[one.table, one.id] for one in found.answers]


def test_rare_words_find_their_record(parts: Parts) -> None:
    """Among the first five of 48 records, though two subqueries are the words of a stranger to the language."""
    for record in range(0, parts.desk.dataset.size, 7):
        assert record in records_of(parts, parts.reply(parts.rare_words(record), k=5))


@pytest.mark.parametrize("k", [1, 5])
def test_answers_are_distinct_records_best_first(parts: Parts, k: int) -> None:
    """Of equals the better read stands first; and there are equals."""
    found = parts.reply(parts.desk.dataset.text(3), k)
    assert len(found.answers) == k
    assert len(set(records_of(parts, found))) == k
    order = [(-one.score, -one.reading) for one in found.answers]
    assert order == sorted(order)
    assert k < 5 or len({one.score for one in found.answers}) < k
    for one, record in zip(found.answers, records_of(parts, found), strict=True):
        assert one.text == parts.desk.dataset.text(record)


def test_fewer_records_than_asked_for(parts: Parts) -> None:
    """No more records are found than hold a word of the texts."""
    found = parts.reply(parts.desk.dataset.text(5), k=48)
    assert parts.config.train.candidates < len(found.answers) < 48
    words = set(words_of(" ".join([found.request, *found.subqueries])))
    holding = {record for record, text in enumerate(parts.words()) if words & set(text)}
    assert set(records_of(parts, found)) == holding


def test_score_is_the_fusion_of_all_texts_in_all_tables(parts: Parts) -> None:
    """A plain sum of 1 / (60 + rank) over request and subqueries, each different text once."""
    found = parts.reply(parts.desk.dataset.text(30), k=5)
    assert len(found.subqueries) == 2
    expected: dict[int, float] = {}
    for text in {found.request, *found.subqueries}:
        for table in range(2):
            ids, _ = retrieval.search(parts.desk.lexical, [text], table, 5)
            for rank, record in enumerate(ids[0][ids[0] >= 0].tolist(), start=1):
                expected[record] = expected.get(record, 0.0) + 1 / (60 + rank)
    for record, one in zip(records_of(parts, found), found.answers, strict=True):
        np.testing.assert_allclose(one.score, expected.pop(record), rtol=1e-5)
    assert max(expected.values()) <= found.answers[-1].score * (1 + 1e-5)


def test_a_request_may_be_in_a_tables_own_language(parts: Parts) -> None:
    """Its words are read as those of the first table that they stand for."""
    request = parts.rare_words(9)
    foreign = {f"{word[::-1]}zz": word for word in words_of(request)}
    desk = dataclasses.replace(parts.desk, words=({}, foreign))
    found = ask.reply(desk, parts.config, parts.agents, parts.params, " ".join(foreign), 5)
    assert found.request == " ".join(foreign)
    assert found.answers == parts.reply(" ".join(foreign.values()), 5).answers


def test_a_text_counts_once(parts: Parts) -> None:
    request = parts.rare_words(9)
    chex.assert_trees_all_equal(
        ask.search(parts.desk, [request], 5), ask.search(parts.desk, [request, request, request], 5)
    )


def test_readings_are_of_the_request_given_the_record(parts: Parts) -> None:
    found = parts.reply(parts.rare_words(12), k=5)
    reader = quantization.dequantize(quantization.quantize(parts.params["ranker"]["reader"]))
    query, record = parts.desk.tokenizer.encode_lists([found.request]), records_of(parts, found)
    assert len(query[0]) < parts.agents.base.query_length
    read = jax.jit(partial(ranker.read, reader, parts.agents.ranker))
    expected = read(jnp.asarray(query * len(record)), parts.desk.asks[record])
    np.testing.assert_allclose([one.reading for one in found.answers], expected, rtol=1e-4)


def test_reasons_use_only_what_request_and_record_both_say(parts: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the actor would like to say: it is made to guess."""
    given, give_reason = [], inquiry.actor.give_reason

    def listen(*args: object, temperature: float) -> tuple[chex.Array, chex.Array]:
        assert temperature == 0
        tokens, log_prob = give_reason(*args, temperature=100.0)
        given.append((np.asarray(args[2]), np.asarray(tokens)))
        return tokens, log_prob

    monkeypatch.setattr(inquiry.actor, "give_reason", listen)
    request, tokenizer = " ".join(parts.words()[20][:4]), parts.desk.tokenizer
    found = parts.reply(request, k=5)
    assert len(found.answers) == 5
    ((sources, reasons),) = given
    asked, special = set(tokenizer.encode_lists([request])[0]), tokenizer.special
    for one, record, source, tokens in zip(found.answers, records_of(parts, found), sources, reasons, strict=True):
        own = set(parts.desk.texts[record].tolist())
        assert {0, *source[1:].tolist()} == own | asked | {0, special.sep}
        assert set(tokens.tolist()) <= (own & asked) | {0, special.eos}
        assert one.reason == telling.said_by_both(tokenizer.decode(tokens), request, parts.desk.dataset.text(record))
    assert not special.contains(reasons).all()


def test_a_request_longer_than_a_query_is_answered(parts: Parts) -> None:
    every = " ".join(parts.desk.dataset.text(record) for record in range(8))
    assert len(parts.reply(every, k=5).answers) == 5


@pytest.mark.parametrize("request_", ["qqxzzy", "?!", "", "\n"])
def test_unknown_words_are_refused(parts: Parts, request_: str) -> None:
    with pytest.raises(InputError, match=r"^--request: .*expected at least one$") as error:
        parts.reply(request_, k=3)
    assert repr(request_) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_workdir_without_a_finished_run_is_refused_and_left_alone(parts: Parts, tmp_path: Path) -> None:
    configuration.claim(tmp_path / "begun", parts.config)
    for workdir in (tmp_path / "absent", tmp_path / "begun"):
        with pytest.raises(InputError, match=r"^--workdir: .*summary\.json: no such file, expected"):
            ask.ask(workdir, "a lamp", 3)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["begun", "config.json"]


@pytest.fixture
def launch(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Runs the launcher as a file, in this process: (exit code, stdout, stderr)."""

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["ask.py", *arguments])
        try:
            with pytest.raises(SystemExit) as stop:
                runpy.run_path(str(LAUNCHER), run_name="__main__")
        finally:
            for name in ("workdir", "request", "k"):
                delattr(flags.FLAGS, name)
            flags.FLAGS.unparse_flags()
        return stop.value.code, *capsys.readouterr()

    return run


def test_the_launcher_answers_from_a_workdir(parts: Parts, launch: Callable[..., tuple[int, str, str]]) -> None:
    """The restored run answers as the run that was saved; the last line is JSON, the lines before name each answer."""
    request = parts.rare_words(17)
    code, out, err = launch(f"--workdir={parts.workdir}", f"--request={request}", "--k=5")
    assert (code, err) == (None, "")
    *lines, last = out.splitlines()
    expected = parts.reply(request, k=5)
    assert json.loads(last) == json.loads(json.dumps(dataclasses.asdict(expected)))
    for number, one in enumerate(expected.answers, start=1):
        assert any(line.startswith(f"{number}. {one.table} {one.id}, score {one.score:.4f}") for line in lines)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--workdir=w", "--request=lamp", "--k=0"), ["--k", "positive"]),
        (("--workdir=w", "--request= "), ["--request", "empty, expected"]),
        (("--workdir=absent", "--request=lamp"), ["--workdir", "absent", "expected"]),
        (("--workdir=w",), ["--request", "--help"]),
    ],
)
def test_wrong_input_is_one_line(
    launch: Callable[..., tuple[int, str, str]], arguments: tuple[str, ...], words: list[str]
) -> None:
    code, out, err = launch(*arguments)
    assert (code, out, err.count("\n")) == (2, "", 1), err
    assert err.startswith("ask.py: ")
    for word in words:
        assert word in err
