"""Writes an agent of a finished run as a folder that Hugging Face's transformers load.

    python experiments/export.py --workdir=W --agent=base|rewriter|ranker|reward|actor --out=DIR

Weights in float32 safetensors, tokenizer, and README.md with the data's fingerprint and the run's figures. The run's
networks must have a form that transformers has: --config.model.published=True when it is trained.
"""

from __future__ import annotations

from pathlib import Path

from absl import flags

import launch
from aco_jax import export


def main() -> None:
    out = Path(flags.FLAGS.out)
    export.export(Path(flags.FLAGS.workdir), flags.FLAGS.agent, out)
    size = sum(path.stat().st_size for path in out.iterdir())
    print(f"{out}: {', '.join(sorted(path.name for path in out.iterdir()))}; {size / 1e6:.1f} MB")


if __name__ == "__main__":
    flags.DEFINE_string("workdir", None, "folder of a finished run", required=True)
    flags.DEFINE_enum("agent", None, list(export.ROLES), "whose language model", required=True)
    flags.DEFINE_string("out", None, "folder to write, new or empty", required=True)
    launch.run(main)
