"""The built-in catalogues with every relation that their gold knows: the same, a substitute, a complement.

    python experiments/aco.py --config=experiments/configs/relations.py --workdir=runs/relations \
        --config.train.rounds=0 --config.train.pretrain_rounds=0

What a relation asks for is read from its name and definition. The loop decides which records are the same; the other
relations are judged beside it, with or without its rounds. Machine: 2 cores, no accelerator. Result: see RESULTS.md.
"""

from __future__ import annotations

from ml_collections import ConfigDict, config_dict

from configs import builtin


def get_config() -> ConfigDict:
    """builtin.py with three relations; for a folder of tables set --config.data.path."""
    config = builtin.get_config()
    config.data.relations.update(
        substitute=relation("Two different things of one kind and one main measure: one can stand in for the other."),
        complement=relation("One thing is made to be used with the other and fits it."),
    )
    return config


def relation(definition: str) -> ConfigDict:
    """A symmetric relation that may have many partners."""
    return ConfigDict({"definition": definition, "symmetric": True, "max_partners": config_dict.placeholder(int)})
