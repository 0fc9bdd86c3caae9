"""Any folder of tables; rewriter, reader and reward model are adapters of SmolLM2-135M, and all agents have its tokens.

    make setup-pretrained
    python experiments/aco.py --config=experiments/configs/smollm2.py --config.data.path=DIR --workdir=W

Machine: 2 cores, no accelerator. Time and result: see RESULTS.md.
"""

from __future__ import annotations

from ml_collections import ConfigDict

from aco_jax.models import installed
from configs import folder


def get_config() -> ConfigDict:
    """folder.py with a trunk of 135M parameters, and so small and few rounds; the 300 most open lists are walked."""
    config = folder.get_config()
    config.model.trunk = installed.SMOLLM2
    config.model.remat = True
    config.train.update(pretrain_rounds=2, pretrain_steps=4, pretrain_batch=4)
    config.train.update(rounds=2, merge_every=2, anchors_per_step=2, candidates=4, walks=300)
    config.environment.max_steps = 16
    return config
