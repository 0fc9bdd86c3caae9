"""Any folder of tables, base and actor beginning from MiniLM's encoder; all agents have its vocabulary.

    make setup-pretrained
    python experiments/aco.py --config=experiments/configs/minilm.py --config.data.path=DIR --workdir=W

Machine: 2 cores, no accelerator. Time and result: see RESULTS.md.
"""

from __future__ import annotations

from ml_collections import ConfigDict

from aco_jax.models import installed
from configs import folder


def get_config() -> ConfigDict:
    """folder.py with an encoder of 30 times the work, and so fewer rounds."""
    config = folder.get_config()
    config.model.base = installed.MINILM
    config.train.update(pretrain_rounds=4, rounds=3)
    return config
