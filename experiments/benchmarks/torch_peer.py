"""What `language_models` is measured beside: the same weights in torch, which need not be installed."""

from __future__ import annotations

import importlib
import importlib.util
import tempfile
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np

from aco_jax.models import pretrained, transformer
from aco_jax.types import Params

Network = tuple[Params, transformer.Config]


def is_installed() -> bool:
    return importlib.util.find_spec("torch") is not None


def decoder(network: Network, threads: int) -> Any:
    """The network as transformers has it."""
    importlib.import_module("torch").set_num_threads(threads)
    with tempfile.TemporaryDirectory() as folder:
        pretrained.to_hugging_face(folder, *network)
        model = importlib.import_module("transformers").AutoModelForCausalLM.from_pretrained(folder).eval()
    model.generation_config.eos_token_id = None  # nothing ends early
    return model


def continued(model: Any, prompts: np.ndarray, pad: int, new: int) -> Any:
    """Prompts [n, T], padded on the right, and `new` tokens after each, greedily, [n, T + new]."""
    torch = importlib.import_module("torch")
    left = np.stack([np.concatenate([row[row == pad], row[row != pad]]) for row in prompts])
    with torch.inference_mode():
        return model.generate(
            torch.tensor(np.maximum(left, 0), dtype=torch.long),
            attention_mask=torch.tensor(left != pad, dtype=torch.long),
            do_sample=False,
            max_new_tokens=new,
            pad_token_id=0,
        )


def reward_step(network: Network, batch: np.ndarray, threads: int) -> Callable[[], None]:
    """A call that takes a step on responses of which the chosen stand before the rejected."""
    torch, config = importlib.import_module("torch"), network[1]
    torch.set_num_threads(threads)
    classes = importlib.import_module("transformers").AutoModelForSequenceClassification
    with tempfile.TemporaryDirectory() as folder:
        head = {"score": jnp.zeros((config.width,))}
        pretrained.to_hugging_face(folder, *network, settings={"pad_token_id": 0}, heads=head)
        model = classes.from_pretrained(folder, num_labels=1).train()
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=1e-4)
    tokens = torch.tensor(np.maximum(batch, 0), dtype=torch.long)
    mask = torch.tensor(batch != config.pad, dtype=torch.long)

    def call() -> None:
        optimiser.zero_grad()
        chosen, rejected = model(tokens, attention_mask=mask).logits[:, 0].chunk(2)
        (-torch.nn.functional.logsigmoid(chosen - rejected).mean()).backward()
        optimiser.step()

    return call
