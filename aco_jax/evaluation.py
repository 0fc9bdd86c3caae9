"""Scores of stated relations against gold: for experiments/evaluate.py only, nothing that learns imports it.

Pairs are compared whichever of their records stands left. A relation or label is positive unless it is one
of NEGATIVE. All figures are fractions; what is undefined is 0.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from aco_jax import baselines, relations
from aco_jax.data.files import read_rows
from aco_jax.data.records import PAIR_COLUMNS, Dataset, InputError, Pairs, read_pairs
from aco_jax.ops import bootstrap, calibration, metrics

Row = tuple[str, str, str, str, str, float]  # ltable, ltable_id, rtable, rtable_id, relation, probability
Pair = tuple[int, int]  # records, the smaller first
Scores = dict[str, Any]

NO_PREDICTION = ("0", "none", "unrelated")
NEGATIVE = (*NO_PREDICTION, "other", "incompatible")
SPLITS = ("train", "valid", "test")
_BINS = 10
_PRF = ("precision", "recall", "f1")
_ESTIMATE = ("label_free_f1", "label_free_f1_low", "label_free_f1_high")


def read_gold(folder: Path, dataset: Dataset, split: str) -> tuple[Pairs | None, Pairs | None]:
    """The split's labelled pairs and the known matches, None where there is no file. Raises InputError.

    Matches are labelled only if the file has a column `relation`.
    """
    found = [name for name in (*SPLITS, "matches") if (folder / f"{name}.csv").is_file()]
    if split not in found and "matches" not in found:
        there = ", ".join(f"{name}.csv" for name in found) or "none"
        raise InputError(f"{folder / split}.csv: no such file, expected labelled pairs (there: {there})")
    labelled = read_pairs(folder / f"{split}.csv", dataset, "required") if split in found else None
    matches = _read_matches(folder / "matches.csv", dataset) if "matches" in found else None
    return labelled, matches


def read_relations(path: Path, dataset: Dataset) -> list[Row]:
    """The rows of a relations.csv; its pairs are checked against the tables. Raises InputError."""
    rows = read_rows(path)
    if not rows.cells:
        return []
    pairs = read_pairs(path, dataset, "forbidden")
    for column in ("relation", "probability"):
        if column not in rows.columns:
            raise InputError(f"{path}: no column {column!r}, expected it among {', '.join(rows.columns)}")
    places = rows.columns.index("relation"), rows.columns.index("probability")
    stated = []
    for i, cells in enumerate(rows.cells):
        probability = _probability(cells[places[1]], rows.places[i])
        left, right = dataset.key(int(pairs.left[i])), dataset.key(int(pairs.right[i]))
        stated.append((*left, *right, cells[places[0]], probability))
    return stated


def evaluate(
    dataset: Dataset,
    labelled: Pairs | None,
    matches: Pairs | None,
    rows: Sequence[Row],
    pair_rows: Sequence[Row],
    estimates: Mapping[str, Mapping[str, float]],
) -> Scores:
    """Everything there is to say of the stated relations, with both baselines on the same pairs.

    Labels that name a relation which the run was not asked for count as "other".

    Args:
      rows: the stated relations, relations.csv.
      pair_rows: a relation and its probability for each pair of `labelled`; "unrelated" is one too.
      estimates: label-free precision, recall and F1, of "catalogue" and of each relation by its name.
    """
    stated = {_pair(dataset, row): row[4].strip().lower() for row in rows}
    labelled = None if labelled is None else _sought(dataset, labelled)
    result: Scores = {"predicted_pairs": len(stated), "pairs": None, "relations": None, "calibration": None}
    if labelled is not None:
        result |= _score_pairs(stated, labelled)
        result["calibration"] = _score_calibration(dataset, labelled, pair_rows)
        expected = _expected_f1(dataset, labelled, pair_rows, stated)
        result["pairs"] |= {f"label_free_{name}": value for name, value in expected.items()}
    result["catalogue"] = None if matches is None else _score_catalogue(stated, matches)
    result["label_free"] = {name: dict(values) for name, values in estimates.items()}
    result["baselines"] = {
        name: _score_baseline(dataset, method, labelled, matches) for name, method in baselines.METHODS.items()
    }
    return result


def lines(result: Scores) -> list[Scores]:
    """The table of precision, recall and F1: a line for each method and set of pairs."""
    table = []
    for of in ("pairs", "catalogue", *_named(result)):
        for method, scores in {"ACO": result, **result["baselines"]}.items():
            found = scores[of] if of in scores else scores["relations"]["labels"][of]
            if found is None or (of not in scores and method != "ACO" and not found["predicted"]):
                continue  # no such gold, or a relation that a baseline does not know
            line = {"method": method, "of": of} | {name: found[name] for name in _PRF}
            table.append(line | (_label_free(result, of) if method == "ACO" else dict.fromkeys(_ESTIMATE)))
    return table


def describe(result: Scores) -> str:
    """The result for people, a table and a few lines."""
    out = [f"{'method':<14}{'of':<16}{'precision':>10}{'recall':>10}{'F1':>10}{'label-free F1':>22}"]
    for line in lines(result):
        figures = "".join(f"{100 * line[name]:>10.1f}" for name in _PRF)
        out.append(f"{line['method']:<14}{line['of']:<16}{figures}{_expected(line):>22}")
    if result["pairs"] is not None:
        nothing = 100 * result["all_negative_weighted_f1"]
        out.append(f"weighted F1 {100 * result['weighted_f1']:.1f} (saying no to all: {nothing:.1f})")
    if result["calibration"] is not None:
        error, brier = result["calibration"]["ece"], result["calibration"]["brier"]
        out.append(f"calibration error {error:.3f}, Brier score {brier:.3f}")
    if result["relations"] is not None:
        out += [f"relations: macro F1 {100 * result['relations']['macro_f1']:.1f}; true by stated:"]
        out += _confusion_lines(result["relations"]["confusion"])
    return "\n".join(out)


def _read_matches(path: Path, dataset: Dataset) -> Pairs:
    """Pairs that are labelled as no match are none. Raises InputError."""
    rows = read_rows(path)
    if not rows.cells:  # it may be known that nothing matches
        for column in PAIR_COLUMNS:
            if column not in rows.columns:
                raise InputError(f"{path}: no column {column!r}, expected it among {', '.join(rows.columns)}")
        nobody = np.zeros(0, np.int32)
        return Pairs(nobody, nobody, None)
    pairs = read_pairs(path, dataset, "optional")
    matched = np.array([label.lower() not in NEGATIVE for label in pairs.label or ("1",) * len(pairs.left)])
    left, right = pairs.left[matched], pairs.right[matched]
    if "relation" not in rows.columns:
        return Pairs(left, right, None)
    place = rows.columns.index("relation")
    kept = (row for row, known in zip(rows.cells, matched, strict=True) if known)
    return Pairs(left, right, tuple(row[place].strip() for row in kept))


def _pair(dataset: Dataset, row: Row) -> Pair:
    left, right = dataset.index[row[0], row[1]], dataset.index[row[2], row[3]]
    return min(left, right), max(left, right)


def _pairs(pairs: Pairs) -> list[Pair]:
    both = zip(pairs.left.tolist(), pairs.right.tolist(), strict=True)
    return [(min(pair), max(pair)) for pair in both]


def _labels(pairs: Pairs) -> list[str]:
    return [label.lower() for label in pairs.label or ()]


def _sought(dataset: Dataset, labelled: Pairs) -> Pairs:
    known = {relation.name.lower() for relation in dataset.relations} | {"1", *NEGATIVE}
    labels = tuple(label if label.lower() in known else "other" for label in labelled.label or ())
    return Pairs(labelled.left, labelled.right, labels)


def _probability(text: str, place: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not 0 <= value <= 1:
        raise InputError(f"{place}, column 'probability': {text!r}, expected a number from 0 to 1")
    return value


def _score_pairs(stated: Mapping[Pair, str], labelled: Pairs) -> Scores:
    labels = _labels(labelled)
    truth = np.array([label not in NEGATIVE for label in labels])
    said = np.array([_is_positive(stated.get(pair)) for pair in _pairs(labelled)])
    positive = {"labelled": len(truth), **_prf(truth, said)}
    nothing = np.zeros_like(said)
    return {
        "pairs": positive,
        "weighted_f1": _weighted_f1_of_both(truth, said),
        "all_negative_weighted_f1": _weighted_f1_of_both(truth, nothing),
        "relations": None if set(labels) <= {"0", "1"} else _score_relations(stated, labelled),
    }


def _score_relations(stated: Mapping[Pair, str], labelled: Pairs) -> Scores:
    """Each label's scores. A pair of which nothing is stated has the label that says so, if there is one."""
    truth = _labels(labelled)
    names = sorted(set(truth))
    unstated = next((name for name in (*NO_PREDICTION, "other") if name in names), "none")
    said = [stated.get(pair, unstated) for pair in _pairs(labelled)]
    said = [unstated if relation in NO_PREDICTION else relation for relation in said]
    count = Counter(zip(truth, said, strict=True))
    columns = names + sorted(set(said) - set(names))
    true, predicted = np.array(truth), np.array(said)
    labels = {name: _prf(true == name, predicted == name) for name in names}
    return {
        "confusion": {name: {column: count[name, column] for column in columns} for name in names},
        "labels": labels,
        "accuracy": float(np.mean(true == predicted)),
        "macro_f1": float(np.mean([scores["f1"] for scores in labels.values()])),
        "weighted_f1": _weighted(labels.values()),
        "label_without_prediction": unstated,
    }


def _score_catalogue(stated: Mapping[Pair, str], matches: Pairs) -> Scores:
    """All positive stated pairs against all matches; only the relations that the matches name, if they do."""
    named = sorted(set(_labels(matches)))
    said = {pair for pair, relation in stated.items() if _is_positive(relation)}
    if named:
        said = {pair for pair in said if stated[pair] in named}
    return {"relations": named, **_prf_of_sets(set(_pairs(matches)), said)}


def _score_calibration(dataset: Dataset, labelled: Pairs, pair_rows: Sequence[Row]) -> Scores:
    """Of the probability that a pair is positive or, where labels have names, of the relation stated."""
    labels, pairs = _labels(labelled), _pairs(labelled)
    if set(labels) <= {"0", "1"}:
        p = _positive_probability(dataset, pairs, pair_rows)
        truth = np.array([label == "1" for label in labels])
    else:
        found = {_pair(dataset, row): (row[4].lower(), row[5]) for row in pair_rows}
        p = np.array([found[pair][1] for pair in pairs])
        truth = np.array([_means(found[pair][0], label) for pair, label in zip(pairs, labels, strict=True)])
    everything = np.ones(len(p), bool)
    bins = (np.asarray(x) for x in calibration.reliability(p, truth, everything, _BINS))
    return {
        "ece": float(calibration.expected_calibration_error(p, truth, everything, _BINS)),
        "brier": float(calibration.brier(p, truth, everything)),
        "bins": [[float(stated), float(true), int(count)] for stated, true, count in zip(*bins, strict=True) if count],
    }


def _expected_f1(
    dataset: Dataset, labelled: Pairs, pair_rows: Sequence[Row], stated: Mapping[Pair, str]
) -> dict[str, float]:
    """F1 of the split's pairs as expected from their probabilities alone, and its interval."""
    pairs = _pairs(labelled)
    p = _positive_probability(dataset, pairs, pair_rows)
    said = np.array([_is_positive(stated.get(pair)) for pair in pairs])
    low, high = bootstrap.f1_interval(p[None], said, np.array([pair[0] for pair in pairs]))
    return {"f1": float(metrics.soft_f1(p, said)), "f1_low": low, "f1_high": high}


def _score_baseline(
    dataset: Dataset, method: baselines.Method, labelled: Pairs | None, matches: Pairs | None
) -> Scores:
    """A baseline states of every pair it finds that it is the same or, where that is not sought, the first relation."""
    name = relations.identity(dataset.relations).name.lower()
    stated = {(i, j): name for i, j, _ in baselines.propose(dataset, method)}
    result: Scores = {"predicted_pairs": len(stated), "pairs": None, "catalogue": None}
    if labelled is not None:
        result |= _score_pairs(stated, labelled)
    if matches is not None:
        result["catalogue"] = _score_catalogue(stated, matches)
    return result


def _positive_probability(dataset: Dataset, pairs: Sequence[Pair], pair_rows: Sequence[Row]) -> np.ndarray:
    found = {_pair(dataset, row): row[5] if _is_positive(row[4]) else 1 - row[5] for row in pair_rows}
    return np.array([found[pair] for pair in pairs])


def _is_positive(relation: str | None) -> bool:
    return relation is not None and relation.lower() not in NEGATIVE


def _means(relation: str, label: str) -> bool:
    return relation == label or (relation in NEGATIVE and label in NEGATIVE)


def _prf(truth: np.ndarray, said: np.ndarray) -> Scores:
    return _prf_of_counts(int((truth & said).sum()), int(said.sum()), int(truth.sum()))


def _prf_of_sets(truth: set[Pair], said: set[Pair]) -> Scores:
    return _prf_of_counts(len(truth & said), len(said), len(truth))


def _prf_of_counts(hits: int, said: int, true: int) -> Scores:
    values = metrics.precision_recall_f1(hits, said - hits, true - hits)
    counts = {"positive": true, "predicted": said, "true_positive": hits}
    return counts | dict(zip(_PRF, map(float, values), strict=True))


def _weighted_f1_of_both(truth: np.ndarray, said: np.ndarray) -> float:
    return _weighted([_prf(truth, said), _prf(~truth, ~said)])


def _weighted(scores: Iterable[Scores]) -> float:
    scores = list(scores)
    return float(np.average([s["f1"] for s in scores], weights=[s["positive"] for s in scores]))


def _named(result: Scores) -> list[str]:
    """The positive labels of the split, where labels have names."""
    return [name for name in (result["relations"] or {}).get("labels", {}) if name not in NEGATIVE]


def _label_free(result: Scores, of: str) -> dict[str, float | None]:
    """The estimate and the ends of its 90% interval, None where not known."""
    if of == "pairs":
        return {name: result["pairs"].get(name) for name in _ESTIMATE}
    compared = result["catalogue"]["relations"] if of == "catalogue" else [of]
    known = result["label_free"].get(compared[0] if len(compared) == 1 else "catalogue", {})
    return {name: known.get(name.removeprefix("label_free_")) for name in _ESTIMATE}


def _expected(line: Scores) -> str:
    f1, low, high = (line[name] for name in _ESTIMATE)
    if f1 is None or low is None or high is None:
        return "-" if f1 is None else f"{100 * f1:.1f}"
    return f"{100 * f1:.1f} ({100 * low:.1f} to {100 * high:.1f})"


def _confusion_lines(confusion: Mapping[str, Mapping[str, int]]) -> list[str]:
    columns = list(next(iter(confusion.values())))
    width = max(map(len, [*columns, *confusion])) + 2
    head = "".ljust(width) + "".join(name.rjust(width) for name in columns)
    body = [name.ljust(width) + "".join(str(n).rjust(width) for n in row.values()) for name, row in confusion.items()]
    return [head, *body]
