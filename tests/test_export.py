"""Agents as folders of Hugging Face's: what is written is read back to the bit, and torch says the same."""

from __future__ import annotations

import dataclasses
import json
import runpy
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl import flags
from transformers import AutoTokenizer

from aco_jax import checkpoints, configuration, export, learner_state, settings, train
from aco_jax import desk as desks
from aco_jax.agents import reward
from aco_jax.data.records import InputError
from aco_jax.models import generate, pretrained, transformer
from aco_jax.types import Params

LAUNCHER = Path(__file__).parents[1] / "experiments" / "export.py"
FIGURES = {"fingerprint": "a1b2c3", "label_free": {"catalogue": {"f1": 0.91234}}, "counts": {"records": 48}}


@dataclasses.dataclass(frozen=True)
class Made:
    workdir: Path
    agents: learner_state.Config
    desk: desks.Desk
    params: dict[str, Params]


def run_of(tiny, workdir, published):
    """A saved run in which nothing was learned; every parameter is moved, or a norm's scale would be 1 anywhere."""
    model = dataclasses.replace(tiny.model, width=24, mlp_width=24, published=published)
    config = dataclasses.replace(tiny, model=model)
    desk = train.open_desk(config, configuration.open_run(config, workdir), workdir)
    agents = settings.learner_config(config, desk.dataset, desk.tokenizer)
    run = train.start(config, agents, desk)
    averaged = run.state.averaged
    moved = jax.tree.map(
        lambda x: x + 0.2 * jnp.sin(jnp.arange(x.size, dtype=x.dtype)).reshape(x.shape), averaged.params
    )
    run = dataclasses.replace(run, state=run.state.replace(averaged=averaged.replace(params=moved)))
    checkpoints.save(workdir / "checkpoints", 0, run)
    (workdir / "summary.json").write_text(json.dumps(FIGURES))
    return Made(workdir, agents, desk, train.parameters(run, agents))


@pytest.fixture(scope="module")
def made(tiny, tmp_path_factory) -> Made:
    return run_of(tiny, tmp_path_factory.mktemp("run"), published=True)


@pytest.fixture(scope="module")
def folders(made, tmp_path_factory) -> dict[str, Path]:
    place = tmp_path_factory.mktemp("out")
    for agent in export.ROLES:
        export.export(made.workdir, agent, place / agent)
    return {agent: place / agent for agent in export.ROLES}


@pytest.mark.parametrize("agent", [agent for agent in export.ROLES if agent != "reward"])
def test_what_is_written_is_read_back_bit_for_bit(made, folders, agent):
    params, config = pretrained.from_hugging_face(folders[agent])
    expected, tree = export.network(made.agents, made.params, agent)
    assert config == expected
    jax.tree.map(np.testing.assert_array_equal, params, tree)


def test_the_reward_model_is_read_back_bit_for_bit(made, folders):
    params, config, heads = pretrained.classifier_from_hugging_face(folders["reward"])
    own = made.params["reward"]
    assert config == made.agents.reward.model
    jax.tree.map(np.testing.assert_array_equal, params, own["trunk"])
    np.testing.assert_array_equal(heads, own["heads"])
    said = json.loads((folders["reward"] / "config.json").read_text())
    assert said["architectures"] == ["LlamaForSequenceClassification"]
    assert list(said["id2label"].values()) == ["scalar_0", "dropout_0", "dropout_1", "gaussian_0", "gaussian_0_spread"]
    response = rows(made, length=12)
    read = own | {"trunk": params, "heads": heads}
    np.testing.assert_array_equal(
        reward.text_value(read, made.agents.reward, response), reward.text_value(own, made.agents.reward, response)
    )


def test_the_tokenizer_goes_with_it(made, folders):
    texts = made.desk.dataset.text(0), made.desk.dataset.text(30)
    for folder in folders.values():
        assert AutoTokenizer.from_pretrained(folder)(list(texts))["input_ids"] == made.desk.tokenizer.encode_lists(
            texts
        )


def test_the_card_says_what_it_is_and_of_what_run(folders):
    for agent, folder in folders.items():
        card = (folder / "README.md").read_text()
        assert f"# The {agent} " in card
        for part in ("a1b2c3", "| estimated without labels: catalogue: f1 | 0.9123 |", "| counts: records | 48 |"):
            assert part in card
    assert (
        "scalar_0, dropout_0, dropout_1, gaussian_0, gaussian_0_spread" in (folders["reward"] / "README.md").read_text()
    )


def test_a_network_of_this_project_alone_is_refused_in_one_line(tiny, tmp_path):
    own = run_of(tiny, tmp_path / "run", published=False)
    with pytest.raises(InputError, match=r"--agent=base: .*'squared_relu'.*--config.model.published=True"):
        export.export(own.workdir, "base", tmp_path / "out")
    with pytest.raises(InputError, match=r"--agent=reward: .*activation is 'squared_relu'"):
        export.export(own.workdir, "reward", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_nothing_is_written_over(made, folders):
    before = (folders["base"] / "README.md").read_bytes()
    with pytest.raises(InputError, match="there already, expected a new or empty folder"):
        export.export(made.workdir, "actor", folders["base"])
    assert (folders["base"] / "README.md").read_bytes() == before
    with pytest.raises(InputError, match="--agent=critic: expected one of base"):
        export.export(made.workdir, "critic", folders["base"])


@pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")  # ml_collections'
def test_launcher(made, tmp_path, monkeypatch, capsys):
    given = [f"--workdir={made.workdir}", "--agent=rewriter", f"--out={tmp_path / 'out'}"]
    monkeypatch.setattr(sys, "argv", ["export.py", *given])
    try:
        with pytest.raises(SystemExit) as stop:
            runpy.run_path(str(LAUNCHER), run_name="__main__")
    finally:
        for name in ("workdir", "agent", "out"):
            delattr(flags.FLAGS, name)
        flags.FLAGS.unparse_flags()
    assert not stop.value.code
    assert "README.md, config.json, model.safetensors, tokenizer.json" in capsys.readouterr().out


def test_heads_of_a_network_with_an_encoder_are_refused(tmp_path, made):
    with pytest.raises(ValueError, match="t5 has an encoder; scores are kept by decoders only"):
        pretrained.to_hugging_face(tmp_path, made.params["base"], made.agents.base.model, None, {"a": np.zeros(24)})
    pretrained.to_hugging_face(tmp_path / "base", made.params["base"], made.agents.base.model)
    with pytest.raises(ValueError, match=r"score.weight has shape \(0,\), expected \({labels}, 24\)"):
        pretrained.classifier_from_hugging_face(tmp_path / "base")


def rows(made, length):
    """Texts of several lengths, padded on the right."""
    return jnp.asarray(made.desk.tokenizer.encode([made.desk.dataset.text(i)[: 4 + 9 * i] for i in range(4)], length))


SPEAK = """
import sys, json, numpy as np, torch, transformers
place, out, tokens = sys.argv[1], sys.argv[2], torch.tensor(json.loads(sys.argv[3]))
found = {}
with torch.no_grad():
    for agent in ("base", "rewriter", "ranker", "actor"):
        model = transformers.AutoModelForSeq2SeqLM.from_pretrained(f"{place}/{agent}").eval()
        mask = (tokens != 0).long()
        start = torch.full_like(tokens[:, :1], model.config.decoder_start_token_id)
        inputs = torch.cat([start, tokens[:, :5]], 1)
        found[agent] = model(tokens, attention_mask=mask, decoder_input_ids=inputs).logits.numpy()
        found[agent + "_greedy"] = model.generate(
            tokens, attention_mask=mask, do_sample=False, max_length=9, suppress_tokens=[0]
        ).numpy()
    model, loading = transformers.AutoModelForSequenceClassification.from_pretrained(
        f"{place}/reward", output_loading_info=True
    )
    assert not any(loading[name] for name in ("missing_keys", "unexpected_keys", "mismatched_keys")), loading
    model.eval()
    found["labels"] = np.array([model.config.id2label[i] for i in range(model.config.num_labels)])
    found["right"] = model(tokens, attention_mask=(tokens != 0).long()).logits.numpy()
    left = torch.stack([torch.cat([row[row == 0], row[row != 0]]) for row in tokens])
    found["left"] = model(left, attention_mask=(left != 0).long()).logits.numpy()
np.savez(out, **found)
"""


@pytest.mark.oracle
def test_live_torch_loads_every_agent_and_says_the_same(made, folders, tmp_path):
    tokens = rows(made, length=12)
    arguments = [folders["base"].parent, tmp_path / "said.npz", json.dumps(np.asarray(tokens).tolist())]
    subprocess.run([sys.executable, "-c", SPEAK, *map(str, arguments)], check=True)
    said = np.load(tmp_path / "said.npz")
    for agent in ("base", "rewriter", "ranker", "actor"):
        config, params = export.network(made.agents, made.params, agent)
        memory = transformer.encode(params, config, tokens)
        inputs = jnp.concatenate([jnp.full((4, 1), config.bos), tokens[:, :5]], axis=1)
        found = transformer.log_probs(params, config, inputs, memory, tokens)
        np.testing.assert_allclose(found, jax.nn.log_softmax(said[agent]), atol=1e-4)
        special, greedy = made.desk.tokenizer.special, said[f"{agent}_greedy"]
        written, _ = generate.generate(
            *(params, config, tokens),
            bos=special.bos,
            eos=special.eos,
            length=greedy.shape[1] - 1,
            key=jax.random.key(0),
            temperature=0.0,
        )
        np.testing.assert_array_equal(written, greedy[:, 1:])
    own, config = made.params["reward"], made.agents.reward
    np.testing.assert_allclose(said["left"], said["right"], atol=1e-4)
    means = [i for i, name in enumerate(said["labels"]) if not name.endswith("_spread")]
    value = reward.text_value(own, config, tokens)
    np.testing.assert_allclose(said["right"][:, means].mean(axis=1), value, atol=1e-4)
