"""The whole program at its smallest: tests and notebooks use it, and nothing it learns is of interest.

    python experiments/aco.py --config=experiments/configs/smoke.py --workdir=runs/smoke

Machine: 2 cores, no accelerator. Time: under a minute once compiled.
"""

from __future__ import annotations

from ml_collections import ConfigDict

from configs import builtin


def get_config() -> ConfigDict:
    """builtin.py with everything small."""
    config = builtin.get_config()
    config.data.generator.update(shops=2, size=40, difficulty=0.2)
    config.model.update(vocab_size=512, width=32, heads=2, encoder_layers=1, decoder_layers=1, mlp_width=64)
    config.model.update(record_length=32, query_length=20, text_length=16, reason_length=6)
    config.train.update(pretrain_rounds=2, pretrain_steps=2, pretrain_batch=8)
    config.train.update(rounds=3, merge_every=2, anchors_per_step=8, candidates=4)
    config.agents.update(judge_steps=30, replay_capacity=256, replay_batch=16)
    config.environment.max_steps = 16
    return config
