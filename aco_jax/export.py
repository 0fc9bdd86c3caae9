"""A trained agent as a folder that Hugging Face's transformers load: weights, tokenizer, and a card of what it is.

What goes out is the agent's language model: of the ranker its reader, of the reward model its trunk with the text
heads, as a sequence classifier. What reads evidence, the judge and the evidence heads, has no place in such a folder.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import chex

from aco_jax import answer, configuration, learner_state
from aco_jax import train as training
from aco_jax.agents import reward
from aco_jax.data import tokenizer_files
from aco_jax.data.records import InputError
from aco_jax.models import families, lora, pretrained, quantization, transformer
from aco_jax.settings import TrainConfig
from aco_jax.types import Params

ROLES = {
    "base": "asks: reads a record and writes a query, guardrails first, for records that relate to it; "
    "restores records; says how well records go together",
    "rewriter": "splits a query into subqueries that each stand alone",
    "ranker": "reads: how likely a query is given a record. It is the reader of the ranker, whose judge of evidence "
    "is not a language model and not in this folder",
    "reward": "scores the text of a stated relation. The heads on evidence and the rules of the ensemble are not in "
    "this folder",
    "actor": "decides on a candidate, and gives the reason in words that both records say",
}
WAY_OUT = "a run with --config.model.published=True has T5's form, its reward model Llama's"
_TEXT = ("scalar", "dropout", "gaussian")


def export(workdir: Path, agent: str, folder: Path) -> None:
    """Writes an agent of a finished run to a new folder. Raises InputError."""
    if agent not in ROLES:
        raise InputError(f"--agent={agent}: expected one of {', '.join(ROLES)}")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder}: there already, expected a new or empty folder")
    run_config = configuration.read(workdir, TrainConfig)
    dataset = configuration.load(run_config.data, workdir, run_config.seed)
    _, agents, desk, run = answer.restore(workdir, dataset)
    learned = training.parameters(run, agents, desk.trunk)
    model, params = network(agents, learned, agent)
    heads = text_heads(agents.reward, learned["reward"]) if agent == "reward" else {}
    special = desk.tokenizer.special
    ends = {"bos_token_id": special.bos, "eos_token_id": special.eos, "pad_token_id": special.pad}
    try:
        pretrained.to_hugging_face(folder, params, model, ends, heads)
    except ValueError as error:
        raise InputError(f"--agent={agent}: {error}; {WAY_OUT}") from None
    tokenizer_files.write(desk.tokenizer, folder, model.max_length)
    summary = json.loads((workdir / "summary.json").read_text(encoding="utf-8"))
    (folder / "README.md").write_text(card(agent, model, summary, tuple(heads)), encoding="utf-8")


def network(
    agents: learner_state.Config, params: Mapping[str, Params], agent: str
) -> tuple[transformer.Config, Params]:
    """The language model of an agent and its parameters; of adapters and their trunk one network is made."""
    match agent:
        case "ranker":
            return agents.ranker.model, _whole(params["ranker"]["reader"])
        case "reward":
            return agents.reward.model, _whole(params["reward"]["trunk"])
        case "rewriter":
            return agents.rewriter.model, _whole(params["rewriter"])
        case "actor":
            return agents.actor.model, params["actor"]
        case _:
            return agents.base.model, params["base"]


def _whole(params: Params) -> Params:
    return lora.folded(quantization.dequantize(params))


def text_heads(config: reward.Config, params: Params) -> dict[str, chex.Array]:
    """The heads [D] on the last valid token by name: the means, then what the variances are the softplus of."""
    counts = (config.scalar_heads, config.dropout_heads, config.gaussian_heads)
    names = [f"{kind}_{i}" for kind, count in zip(_TEXT, counts, strict=True) for i in range(count)]
    names += [f"gaussian_{i}_spread" for i in range(config.gaussian_heads)]
    return dict(zip(names, params["heads"].T, strict=True))


def card(agent: str, model: transformer.Config, summary: Mapping[str, Any], heads: tuple[str, ...] = ()) -> str:
    """README.md of the folder."""
    family = families.family_of(model)
    kind = "SequenceClassification" if heads else "Seq2SeqLM" if model.encoder_layers else "CausalLM"
    cls, task = f"AutoModelFor{kind}", "text-classification" if heads else "text-generation"
    parts = [
        f"---\nlibrary_name: transformers\npipeline_tag: {task}\ntags:\n- aco_jax\n- {family}\n---\n",
        f"# The {agent} of a run of aco_jax\n",
        f"It {ROLES[agent]}.\n\nIt learned without labels from the records with the fingerprint "
        f"`{summary.get('fingerprint', 'unknown')}`, beside the other agents of its run.\n",
        f"    from transformers import AutoTokenizer, {cls}\n"
        f"    tokenizer, model = (c.from_pretrained(FOLDER) for c in (AutoTokenizer, {cls}))\n",
        "Tasks, relations, tables and columns are tokens such as `<aco:ask>`, which no text can spell: "
        "`tokenizer(text, split_special_tokens=False)` reads them.\n",
    ]
    if heads:
        parts.append(_heads(heads))
    parts += ["## Form\n", _table({"family": family} | _sizes(model)), "## The run\n", _table(_figures(summary))]
    if notes := summary.get("notes"):
        parts.append("\n".join(f"- {note}" for note in notes) + "\n")
    return "\n".join(parts)


def _heads(names: tuple[str, ...]) -> str:
    means = [name for name in names if not name.endswith("_spread")]
    return (
        f"Its logits are {', '.join(names)}, read at the last token that is not padding. The reward of the text is the "
        f"mean of the first {len(means)}; it is unbounded, and only differences between texts mean something. The "
        "softplus of a spread is the variance of that head.\n"
    )


def _sizes(model: transformer.Config) -> dict[str, Any]:
    names = ("vocab_size", "width", "heads", "encoder_layers", "decoder_layers", "mlp_width", "max_length")
    return {name: getattr(model, name) for name in names}


def _figures(summary: Mapping[str, Any], place: str = "") -> dict[str, Any]:
    """The figures of summary.json, one a line; the estimates without labels are called what they are."""
    found: dict[str, Any] = {}
    for name in ("label_free", "counts", "tokens", "seconds", "versions") if not place else summary:
        value = summary.get(name, {})
        label = f"{place}{name.replace('label_free', 'estimated without labels')}"
        found |= _figures(value, f"{label}: ") if isinstance(value, Mapping) else {label: value}
    return found


def _table(rows: Mapping[str, Any]) -> str:
    lines = ["| | |", "|---|---|"]
    for name, value in rows.items():
        lines.append(f"| {name} | {f'{value:.4g}' if isinstance(value, float) else value} |")
    return "\n".join(lines) + "\n"
