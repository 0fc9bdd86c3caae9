"""MiniLM and SmolLM2-135M, as their packages carry them, say here what they say in torch; see `make oracle`."""

from __future__ import annotations

import json
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aco_jax.models import generate, gguf_files, installed, pretrained, transformer

pytestmark = pytest.mark.oracle

SENTENCES = (
    "lid",
    "Glass lid, 24 cm",
    "A frying pan of 24 cm",
    "Frying pan with riveted handle, 24 cm, forged aluminium, suitable for induction",
    "Sony VAIO VGN-CS215J/W 14.1-inch laptop (white)",
    "sony cs series white notebook computer vgncs215jw",
    "The restaurant serves breakfast from seven, lunch from twelve and nothing in the evening.",
    "art's delicatessen, 12224 ventura blvd., studio city, 818/762-1221, american",
    "Adaptive query processing in relational databases. SIGMOD Record 27(2), 1998.",
    "T. Kraska",
    "Why is the sky blue?",
    "Because short waves are scattered more than long ones are, and the eye sees little violet.",
    "$ 349.00",
    "8 GB, 16 GB or 32 GB of DDR4-3200 memory",
    "ein Topf und sein Deckel",
    "une casserole et son couvercle",
    "A catalogue of two thousand parts " + "with the sockets that they fit and the screws that hold them " * 4,
    "printer",
    "a quiet printer for the office that takes heavy paper",
    "x",
)
PROMPTS = (
    "The capital of France is",
    "<|im_start|>user\nWhich lid fits a frying pan of 24 cm?<|im_end|>\n<|im_start|>assistant\n",
    "1, 2, 3, 5, 8,",
    "Query: quiet laser printer\nRecord: HP LaserJet M110we, 38 dB, white\nDoes the record answer the query? Answer:",
)
NEW = 24  # tokens

EMBED = """
import sys, json, numpy as np, torch, transformers
place, out, sentences = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
tokenizer = transformers.AutoTokenizer.from_pretrained(place)
model = transformers.AutoModel.from_pretrained(place).eval()
with torch.no_grad():
    alone = [model(**tokenizer([text], return_tensors="pt")).last_hidden_state[0].mean(0) for text in sentences]
ids = tokenizer(sentences, padding=True, return_tensors="np")["input_ids"]
np.savez(out, tokens=ids, vectors=torch.stack(alone).numpy())
"""

CONTINUE = """
import sys, json, numpy as np, tokenizers, torch, transformers
place, out, prompts, new = sys.argv[1], sys.argv[2], json.loads(sys.argv[3]), int(sys.argv[4])
read = tokenizers.Tokenizer.from_file(f"{place}/tokenizer.json")
model, loading = transformers.AutoModelForCausalLM.from_pretrained(place, output_loading_info=True)
assert not any(loading[name] for name in ("missing_keys", "unexpected_keys", "mismatched_keys")), loading
model.eval()
rows = [read.encode(prompt).ids for prompt in prompts]
assert [read.decode(row, skip_special_tokens=False) for row in rows] == prompts
with torch.no_grad():
    for number, row in enumerate(rows):
        tokens = torch.tensor([row])
        given = {"attention_mask": torch.ones_like(tokens), "do_sample": False, "pad_token_id": 0}
        rows[number] = [row, model.generate(tokens, max_new_tokens=new, **given)[0, len(row):].tolist()]
json.dump(rows, open(out, "w"))
"""


def in_torch(script, *arguments):
    done = subprocess.run([sys.executable, "-c", script, *map(str, arguments)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_embeddings_of_minilm(tmp_path):
    place = installed.weights_of(installed.MINILM)
    in_torch(EMBED, place, tmp_path / "said.npz", json.dumps(SENTENCES))
    said = np.load(tmp_path / "said.npz")
    params, config = pretrained.from_hugging_face(place)
    found = jax.jit(transformer.embed, static_argnames="config")(params, config, jnp.asarray(said["tokens"]))
    expected = said["vectors"] / np.linalg.norm(said["vectors"], axis=1, keepdims=True)
    assert len({row.astype(bool).sum() for row in said["tokens"]}) > 8  # lengths
    assert np.min(np.sum(found * expected, axis=1)) > 0.9999
    assert np.max(np.abs(found - expected)) < 1e-5
    np.testing.assert_allclose(found @ found.T, expected @ expected.T, atol=1e-5)


def test_continuations_of_smollm2(tmp_path):
    """Weights go from the file through here to torch, so that reading, writing and decoding all have to be right."""
    path = installed.weights_of(installed.SMOLLM2)
    params, config = gguf_files.from_gguf(path)
    pretrained.to_hugging_face(tmp_path, params, config, {"eos_token_id": 2})
    (tmp_path / "tokenizer.json").write_text(gguf_files.tokenizer_of(path), encoding="utf-8")
    in_torch(CONTINUE, tmp_path, tmp_path / "said.json", json.dumps(PROMPTS), NEW)
    rows = json.loads((tmp_path / "said.json").read_text())
    longest = max(len(prompt) for prompt, _ in rows)
    prefix = np.full((len(rows), longest), config.pad, np.int32)
    for row, (prompt, _) in zip(prefix, rows, strict=True):
        row[: len(prompt)] = prompt
    written, _ = generate.generate(
        *(params, config, None),
        bos=None,
        eos=2,
        length=longest + NEW,
        key=jax.random.key(0),
        temperature=0.0,
        prefix=jnp.asarray(prefix),
    )
    for row, (prompt, expected) in zip(np.asarray(written), rows, strict=True):
        found = row[len(prompt) :][: len(expected)]
        np.testing.assert_array_equal(found, expected)
    assert len({tuple(expected) for _, expected in rows}) == len(rows)
