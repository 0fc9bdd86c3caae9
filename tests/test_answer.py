"""Relating by the relations of the run: what was judged of the tables lies in its workdir, and nothing is trained."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from aco_jax import answer, configuration, self_training, settings, statements, supervision, train
from aco_jax import desk as desks
from aco_jax.data import records
from aco_jax.data.records import Dataset, InputError, Pairs, Relation
from aco_jax.settings import TrainConfig

SPARE = Relation("spare", "One fits the other.")


@pytest.fixture
def dataset(kitchens: tuple[records.Table, ...]) -> Dataset:
    """Both kitchens' pans and lids, and which of them fit."""
    return Dataset(kitchens, (SPARE,))


@pytest.fixture
def workdir(tiny: TrainConfig, dataset: Dataset, tmp_path: Path) -> Path:
    """A finished run for spares that has judged these tables."""
    config = dataclasses.replace(tiny, data=dataclasses.replace(tiny.data, relations=(SPARE,)))
    configuration.claim(tmp_path, config)
    (tmp_path / "summary.json").write_text("{}")
    pair, nobody = np.array([[0, 12], [0, 14]], np.int32), np.zeros(2, bool)
    found = statements.Judged(pair, np.zeros(2, np.float32), nobody, nobody, nobody, np.zeros((2, 2), np.float32))
    np.savez(tmp_path / answer.KEPT, fingerprint=np.array(dataset.fingerprint), **dataclasses.asdict(found))
    return tmp_path


def test_other_relations_than_the_runs_are_refused(workdir: Path, dataset: Dataset) -> None:
    with pytest.raises(InputError) as error:
        answer.relate(workdir, Dataset(dataset.tables))
    assert all(word in str(error.value) for word in (str(workdir), "relations same", "expected the run's spare"))


def test_what_a_relation_asks_for_is_what_the_run_was_told(workdir: Path, dataset: Dataset) -> None:
    """A lid fits a pan; that another pan can stand in for it the tables may say, but it was not learned."""
    reworded = dataclasses.replace(SPARE, definition="One can stand in for the other.")
    pairs = Pairs(np.array([0, 0]), np.array([14, 16]), None)
    rows = answer.relate(workdir, Dataset(dataset.tables, (reworded,)), pairs)
    assert [row[4] for row in rows] == ["spare", "unrelated"]


def test_kinds_are_read_from_the_tables_as_they_were_compared(
    workdir: Path, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where what was judged lies in the workdir: else words of another language would be kinds of their own."""
    english, seen = Dataset(dataset.tables, dataset.relations), []
    monkeypatch.setattr(desks, "compared", lambda found: english if found.tables == dataset.tables else None)
    monkeypatch.setattr(statements, "rows_of", lambda found, *_: seen.append(found) or [])
    answer.relate(workdir, dataset)
    assert seen == [english]


def test_the_judge_alone_shows_what_it_found_and_what_it_finds_where_nothing_should_be(
    patient: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = dataclasses.replace(patient, train=dataclasses.replace(patient.train, rounds=0, pretrain_rounds=0))
    configuration.claim(tmp_path, config)
    dataset = configuration.load(config.data, tmp_path, config.seed)
    for own, warned in ((0.01, False), (0.9, True)):
        monkeypatch.setattr(self_training, "said_again", lambda *_, own=own: own)
        _, desk = train.train(config, dataset, tmp_path)  # the second time all is there
        rows, summary = answer.finish(tmp_path, desk)
        assert 0 < len(summary["examples"]) <= len(rows)
        assert {example["reason"] for example in summary["examples"]} == {""}
        other = len({key for row in rows for key in (row[:2], row[2:4])}) / desk.dataset.size
        assert summary["share_with_a_partner"] == {"in another table": other, "in a half of their own": own}
        assert (answer.DECEIVED.format(own, other) in summary["notes"]) == warned


def test_more_examples_than_a_round_has_anchors_are_shown(
    tiny: TrainConfig, kitchens: tuple[records.Table, ...]
) -> None:
    config = dataclasses.replace(tiny, train=dataclasses.replace(tiny.train, replicas=1, anchors_per_step=4))
    desk = desks.open_desk(config, Dataset(kitchens))
    agents = settings.learner_config(config, desk.dataset, desk.tokenizer)
    keys = [(*desk.dataset.key(k), *desk.dataset.key(12 + k)) for k in range(6)]
    rows = [(*key, "same", 0.5) for key in keys]
    said = answer.reasons(config, agents, desk, train.start(config, agents, desk), rows)
    shown = answer.examples(desk.original, rows, said)
    assert [one["left"] for one in shown] == [desk.dataset.text(k) for k in range(6)]


def test_where_partners_are_many_groups_tell_whenever_pairs_are_judged(
    tiny: TrainConfig, kitchens: tuple[records.Table, ...]
) -> None:
    """Both kitchens say everything three times; of the tables as of others."""
    dataset = Dataset(kitchens)
    desk = desks.open_desk(tiny, dataset)
    agents = settings.learner_config(tiny, dataset, desk.tokenizer)
    run = train.start(tiny, agents, desk)
    posterior = np.full(len(desk.problem.pair), 0.9, np.float32)
    many = dataclasses.replace(run.believed, many=np.bool_(True), posterior=posterior)
    run = dataclasses.replace(run, believed=many)
    found = answer.judged(agents, desk, run, None)
    again, _ = train.judge_again(tiny, agents, desk, many.fold, run)
    np.testing.assert_allclose(answer.probability(again.believed), found.posterior, atol=1e-3)
    each = supervision.update(desk.problem, many, again.logits, stating=True)
    assert np.abs(each.posterior - again.believed.posterior).max() > 0.02


@pytest.mark.parametrize(("taken", "left"), [(1.0, 1.75), (1.4, 1.25), (2.0, 1.0)])
def test_a_temperature_is_taken_once(taken: float, left: float) -> None:
    odds, nothing = np.array([9.0, 0.25]), np.zeros(2)
    believed = supervision.State(
        target=nothing,
        weight=nothing,
        fold=nothing,
        posterior=odds / (1 + odds),
        prior=nothing,
        several=nothing,
        checked=supervision.unchecked(2),
        temperature=np.float32(taken),
        many=np.bool_(False),
        round=np.int32(4),
        seed=np.int32(0),
    )
    cooled = odds ** (1 / left)
    np.testing.assert_allclose(answer.probability(believed), cooled / (1 + cooled), rtol=1e-5)
