"""Relates the records of a folder of tables with what a run has learnt. Trains nothing.

    python experiments/relate.py --workdir=W --data=DIR --out=relations.csv [--clusters=C.csv] [--pairs=P.csv]

Without --pairs the whole catalogues compete and every relation found is a row. With --pairs, a file with
columns ltable_id, rtable_id (and ltable, rtable where there are more than two tables), every pair gets a row,
"unrelated" where nothing holds; the probability is that of the relation stated. A label column is refused.
--clusters is written beside --out: the records that the stated identities join, directly or over others.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Set
from pathlib import Path

from absl import flags

import launch
from aco_jax import answer, configuration, settings, statements
from aco_jax.data.records import GOLD, InputError, read_pairs


def main() -> None:
    workdir, out = Path(flags.FLAGS.workdir), Path(flags.FLAGS.out)
    clusters = Path(flags.FLAGS.clusters) if flags.FLAGS.clusters else None
    config = configuration.read(workdir, settings.TrainConfig)
    dataset = configuration.load_folder(config.data, Path(flags.FLAGS.data))
    pairs = read_pairs(flags.FLAGS.pairs, dataset, "forbidden") if flags.FLAGS.pairs else None
    _check_written({"out": out, "clusters": clusters}, {*(table.name for table in dataset.tables), *GOLD})
    rows = answer.relate(workdir, dataset, pairs)
    statements.write_relations(out, rows)
    print(f"{out}: {len(rows)} pairs of {dataset.size} records in {len(dataset.tables)} tables")
    if clusters:
        joined = statements.clusters(dataset, rows)
        statements.write_clusters(clusters, dataset, joined)
        print(f"{clusters}: {len(joined)} clusters")


def _check_written(files: Mapping[str, Path | None], kept: Set[str]) -> None:
    """What is to be written must be files, each its own and no table or gold, before anything is computed.

    Args:
        kept: names, without suffix, of what must stay in the folder of the tables.
    """
    data, pairs = Path(flags.FLAGS.data), flags.FLAGS.pairs
    taken = {path.resolve(): f"a file of {data}" for path in data.iterdir() if path.stem in kept}
    taken |= {Path(pairs).resolve(): "--pairs"} if pairs else {}
    for flag, path in files.items():
        if path is None:
            continue
        if not path.parent.is_dir() or path.is_dir() or not os.access(path if path.exists() else path.parent, os.W_OK):
            raise InputError(f"--{flag}: {path} cannot be written, expected a file in a folder that exists")
        if path.resolve() in taken:
            raise InputError(f"--{flag}: {path} is {taken[path.resolve()]} too, expected a file of its own")
        taken[path.resolve()] = f"--{flag}"


if __name__ == "__main__":
    flags.DEFINE_string("workdir", None, "folder of a finished run", required=True)
    flags.DEFINE_string("data", None, "folder of tables", required=True)
    flags.DEFINE_string("out", None, "CSV file to write", required=True)
    flags.DEFINE_string("clusters", None, "CSV file to write the clusters of records to")
    flags.DEFINE_string("pairs", None, "CSV file of pairs, to state a relation for each")
    launch.run(main)
