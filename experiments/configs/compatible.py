"""A folder of tables of which is sought what fits what, and nothing else.

    python experiments/aco.py --config=experiments/configs/compatible.py --config.data.path=DIR --workdir=W \
        --config.train.rounds=0 --config.train.pretrain_rounds=0
"""

from __future__ import annotations

from ml_collections import ConfigDict

from configs import folder, relations


def get_config() -> ConfigDict:
    """folder.py with the one relation `compatible`."""
    config = folder.get_config()
    config.data.relations = ConfigDict({"compatible": relations.relation("One thing fits the other.")})
    return config
