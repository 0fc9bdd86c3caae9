"""Answers a request in plain language with what a run has learnt: ranked records, each with a reason. Trains nothing.

    python experiments/ask.py --workdir=W --request="..." [--k=10]

The last line is one JSON object: the request, the subqueries it was split into, and the answers, best first.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

from absl import flags

import launch
from aco_jax import ask


def main() -> None:
    found = ask.ask(Path(flags.FLAGS.workdir), flags.FLAGS.request, flags.FLAGS.k)
    print(describe(found))
    print(json.dumps(dataclasses.asdict(found), ensure_ascii=False))


def describe(found: ask.Reply) -> str:
    """The answers as lines to read."""
    lines = [f"{found.request}: searched as", *(f"    {text}" for text in found.subqueries)]
    for number, one in enumerate(found.answers, start=1):
        lines += [
            f"{number}. {one.table} {one.id}, score {one.score:.4f}, {one.reading:.2f} nats a token",
            f"    {one.text}",
        ]
        if one.reason:  # the actor may have nothing to say
            lines.append(f"    both say: {one.reason}")
    return "\n".join(lines)


if __name__ == "__main__":
    flags.DEFINE_string("workdir", None, "folder of a finished run", required=True)
    flags.DEFINE_string("request", None, "what is sought, in plain language", required=True)
    flags.DEFINE_integer("k", 10, "most answers", lower_bound=1)
    launch.run(main)
