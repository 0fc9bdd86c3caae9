"""Makes golden/: a tiny checkpoint of every published family, and what torch's transformers say of it.

    python tests/models/make_golden.py                      needs torch; a minute
    python tests/models/make_golden.py FOLDER SEED [read]   elsewhere; or of checkpoints that are there

golden/<name>/ is what `save_pretrained` writes, in bfloat16 to keep it small, llama's in shards; expected.npz holds
  tokens [3, 8], types [3, 8] of bert   padded with 0 on the right, lengths [3]; what the encoder or the decoder reads
  inputs [3, 5]                         of t5, what its decoder reads
  values                                logits [3, T, V]; bert: hidden states [3, T, D]. Each row was run alone
  greedy [3, L]                         of all but bert: prompt and continuation, or the decoder's output of t5
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
import transformers

GOLDEN = Path(__file__).parent / "golden"
VOCAB, WIDTH, HEADS, LENGTHS = 64, 32, 4, (8, 3, 5)
EOS, LENGTH = 2, 14
PLAIN = {"vocab_size": VOCAB, "hidden_size": WIDTH, "num_hidden_layers": 2, "num_attention_heads": HEADS}
PLAIN |= {"intermediate_size": 48, "max_position_embeddings": 40, "bos_token_id": 1, "eos_token_id": EOS}
T5 = {"vocab_size": VOCAB, "d_model": WIDTH, "d_kv": 6, "d_ff": 48, "num_layers": 2, "num_heads": HEADS}
T5 |= {"relative_attention_num_buckets": 8, "relative_attention_max_distance": 12, "decoder_start_token_id": 0}
T5 |= {"eos_token_id": EOS, "pad_token_id": 0}
GROUPED = {"num_key_value_heads": 2, "tie_word_embeddings": True, "rope_parameters": {"rope_theta": 500.0}}


def models() -> dict[str, transformers.PreTrainedModel]:
    """Models in general position: what starts as zero or one is moved too."""
    made = {
        "t5": transformers.T5ForConditionalGeneration(transformers.T5Config(**T5)),
        "flan_t5": transformers.T5ForConditionalGeneration(
            transformers.T5Config(**T5, feed_forward_proj="gated-gelu", tie_word_embeddings=False)
        ),
        "bert": transformers.BertModel(transformers.BertConfig(**PLAIN)),
        "llama": transformers.LlamaForCausalLM(transformers.LlamaConfig(**PLAIN, tie_word_embeddings=False)),
        "smollm2": transformers.LlamaForCausalLM(transformers.LlamaConfig(**PLAIN, **GROUPED)),
        "qwen2": transformers.Qwen2ForCausalLM(transformers.Qwen2Config(**PLAIN, **GROUPED)),
        "qwen3": transformers.Qwen3ForCausalLM(transformers.Qwen3Config(**PLAIN, **GROUPED, head_dim=12)),
    }
    # Flan's output matrix is its own in the file; the class ties it unless it is another tensor.
    made["flan_t5"].lm_head.weight = torch.nn.Parameter(torch.randn(VOCAB, WIDTH))
    return made


def write(folder: Path, seed: int) -> None:
    """Writes every family under `folder`."""
    torch.manual_seed(seed)
    for name, model in models().items():
        for tensor in model.parameters():
            spread = 1.5 / tensor.shape[-1] ** 0.5 if tensor.ndim > 1 else 0.3
            centre = 1.0 if tensor.ndim == 1 and bool((tensor == 1).all()) else 0.0
            tensor.data = (centre + spread * torch.randn(tensor.shape)).bfloat16().float()
        model.eval()
        expected = speak(name, model, np.random.default_rng(seed))
        model.bfloat16().save_pretrained(folder / name, max_shard_size="20KB" if name == "llama" else "1GB")
        np.savez_compressed(folder / name / "expected.npz", **expected)


def read(folder: Path, seed: int) -> None:
    """Reads every family from under `folder`, and writes beside it what it says there."""
    for name, made in models().items():
        model = type(made).from_pretrained(folder / name, dtype=torch.float32).eval()
        np.savez_compressed(folder / name / "expected.npz", **speak(name, model, np.random.default_rng(seed)))


def speak(name: str, model: transformers.PreTrainedModel, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """What the model says of random rows, one at a time and unpadded."""
    tokens = rng.integers(3, VOCAB, size=(3, max(LENGTHS))) * (np.arange(max(LENGTHS)) < np.array(LENGTHS)[:, None])
    found = {"tokens": tokens.astype(np.int32), "lengths": np.array(LENGTHS)}
    rows = [torch.tensor(row[None, :length]) for row, length in zip(tokens, LENGTHS, strict=True)]
    with torch.no_grad():
        if name == "bert":
            types = (np.arange(max(LENGTHS)) >= 2).astype(np.int32) * np.ones((3, 1), np.int32)
            values = [
                model(row, token_type_ids=torch.tensor(types[:1, : row.shape[1]])).last_hidden_state for row in rows
            ]
            return found | {"types": types, "values": stack([v[0].numpy() for v in values])}
        if "t5" in name:
            inputs = rng.integers(3, VOCAB, size=(3, 5)) * (np.arange(5) > 0)
            values = [
                model(row, decoder_input_ids=torch.tensor(i[None])).logits for row, i in zip(rows, inputs, strict=True)
            ]
            found["inputs"] = inputs.astype(np.int32)
        else:
            values = [model(row).logits for row in rows]
        settings = {"do_sample": False, "eos_token_id": EOS, "pad_token_id": 0, "min_length": 0}
        # Our padding of t5 is never sampled; the others' token 0 is a word.
        settings |= {"suppress_tokens": [0], "max_length": LENGTH + 1} if "t5" in name else {"max_length": LENGTH}
        greedy = [model.generate(row, attention_mask=torch.ones_like(row), **settings)[0].numpy() for row in rows]
    return found | {"values": stack([v[0].numpy() for v in values]), "greedy": stack(greedy, fill=-1)}


def stack(rows: list[np.ndarray], fill: int = 0) -> np.ndarray:
    """Rows of several lengths in one array, filled on the right."""
    length = max(len(row) for row in rows)
    return np.stack([np.pad(r, [(0, length - len(r)), *[(0, 0)] * (r.ndim - 1)], constant_values=fill) for r in rows])


if __name__ == "__main__":
    place, number, *reading = sys.argv[1:] or (GOLDEN, 0)
    (read if reading else write)(Path(place), int(number))
