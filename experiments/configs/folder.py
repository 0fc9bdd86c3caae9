"""Any folder of tables, with the settings of the built-in catalogues: nothing is chosen for one data set.

    python experiments/aco.py --config=experiments/configs/folder.py --config.data.path=DIR --workdir=W

Machine: 2 cores, no accelerator. Time and result: see RESULTS.md.
"""

from __future__ import annotations

from ml_collections import ConfigDict

from configs import builtin


def get_config() -> ConfigDict:
    """builtin.py on --config.data.path. For other relations than `same`, copy this file and name them."""
    config = builtin.get_config()
    del config.data.generator
    return config
