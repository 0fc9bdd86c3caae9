"""What `language_models` is measured beside: the same weights in torch, which need not be installed."""

from __future__ import annotations

import importlib
import importlib.util
import tempfile
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np

from aco_jax.data import tokenizer_files, tokens
from aco_jax.models import pretrained, transformer
from aco_jax.types import Params

Network = tuple[Params, transformer.Config]

RATE, CLIP = 1e-4, 1.0  # of AdamW, and the norm that gradients are cut to


def is_installed(name: str = "torch") -> bool:
    return importlib.util.find_spec(name) is not None


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


def reward_step(network: Network, batch: np.ndarray, threads: int) -> tuple[Callable[[], None], Any]:
    """A call that takes a step on responses of which the chosen stand before the rejected, and the model it moves."""
    torch, model = importlib.import_module("torch"), _classifier(network, threads)
    optimiser = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=RATE)
    rows, mask = _padded(batch, network[1].pad)

    def call() -> None:
        optimiser.zero_grad()
        chosen, rejected = model(rows, attention_mask=mask).logits[:, 0].chunk(2)
        (-torch.nn.functional.logsigmoid(chosen - rejected).mean()).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimiser.step()

    return call, model


def trainer_step(network: Network, batch: np.ndarray, threads: int) -> tuple[Callable[[], None], Any]:
    """`reward_step` as TRL's RewardTrainer takes it, which keeps metrics too; its loading and logging are left out.

    In float32 and without computing anything again for the backward pass, both of which it would do by itself.
    """
    trl, datasets = importlib.import_module("trl"), importlib.import_module("datasets")
    rows, mask = _padded(batch, network[1].pad)
    chosen, rejected = ([row.tolist() for row in half] for half in np.split(np.asarray(rows), 2))
    with tempfile.TemporaryDirectory() as folder:
        arguments = trl.RewardConfig(
            folder,
            **{"bf16": False, "activation_checkpointing": False, "use_cpu": True, "report_to": "none"},
            **{"learning_rate": RATE, "weight_decay": RATE, "max_grad_norm": CLIP, "max_steps": 1_000_000},
            per_device_train_batch_size=len(chosen),
        )
        trainer = trl.RewardTrainer(
            _classifier(network, threads),
            arguments,
            train_dataset=datasets.Dataset.from_dict({"chosen_ids": chosen, "rejected_ids": rejected}),
            processing_class=_tokenizer(),
        )
    trainer.create_optimizer_and_scheduler(arguments.max_steps)
    trainer.current_gradient_accumulation_steps = 1  # what its loop would have set
    model = trainer.model.train()

    def call() -> None:
        trainer.training_step(model, {"input_ids": rows, "attention_mask": mask})
        trainer.accelerator.clip_grad_norm_(model.parameters(), arguments.max_grad_norm)
        trainer.optimizer.step()
        trainer.lr_scheduler.step()
        model.zero_grad()

    return call, model


def _classifier(network: Network, threads: int) -> Any:
    """The network with a head of one score, as transformers has it."""
    importlib.import_module("torch").set_num_threads(threads)
    classes = importlib.import_module("transformers").AutoModelForSequenceClassification
    with tempfile.TemporaryDirectory() as folder:
        head = {"score": jnp.zeros((network[1].width,))}
        pretrained.to_hugging_face(folder, *network, settings={"pad_token_id": 0}, heads=head)
        return classes.from_pretrained(folder, num_labels=1).train()


def _padded(batch: np.ndarray, pad: int) -> tuple[Any, Any]:
    """Tokens, padding as 0, and the mask of those that are none."""
    torch = importlib.import_module("torch")
    return tuple(torch.tensor(x, dtype=torch.long) for x in (np.maximum(batch, 0), batch != pad))


def _tokenizer() -> Any:
    """Any one that pads with 0: the responses are tokens already."""
    classes = importlib.import_module("transformers").AutoTokenizer
    with tempfile.TemporaryDirectory() as folder:
        tokenizer_files.write(tokens.train(["nothing"]), folder, length=1)
        return classes.from_pretrained(folder)
