"""Learns only what is new: goes on from a finished run where records or attributes have come, changed or gone.

    python experiments/adapt.py --workdir=W --data=NEWDIR [--rounds=N]

NEWDIR holds the tables as they are now, under their old names. W stays as it is; W/adapted becomes a workdir like any
other, for evaluate.py, relate.py and adapt.py too. Stopped anywhere, the same command goes on from the last
checkpoint. Several processes do it together as in aco.py.
"""

from __future__ import annotations

from pathlib import Path

from absl import flags

import launch
from aco_jax import adapt, processes


def main() -> None:
    launch.join()
    found = adapt.adapt(Path(flags.FLAGS.workdir), Path(flags.FLAGS.data), flags.FLAGS.rounds)
    if not processes.is_first():
        return
    if found.rows is None:
        print(f"{found.folder}: adapted to these tables before, nothing was done")
        return
    counts = found.summary["counts"]
    print(
        f"records: {counts['records new']} new, {counts['records changed']} changed, {counts['records gone']} gone; "
        f"attributes new: {', '.join(found.news.attributes) or 'none'}; "
        f"lists: {counts['lists new']} new of {counts['lists']}"
    )
    if counts["lists new"]:
        print(f"rounds played on the new lists: {counts['rounds of adapting']}")
    else:
        print("nothing is new: no round was played")
    estimate = 100 * found.summary["label_free"]["catalogue"]["f1"]
    stated = found.folder / "relations.csv"
    print(f"{len(found.rows)} pairs in {stated}; F1 as estimated without labels: {estimate:.1f}")


if __name__ == "__main__":
    flags.DEFINE_string("workdir", None, "folder of a finished run", required=True)
    flags.DEFINE_string("data", None, "folder of the tables as they are now", required=True)
    flags.DEFINE_integer("rounds", None, "rounds over the new lists; a quarter of the run's by default", lower_bound=0)
    launch.define_processes()
    launch.run(main)
