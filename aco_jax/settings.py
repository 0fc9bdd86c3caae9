"""The config of a run, typed, and the configs of its parts that follow from it and from the tables."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field

from aco_jax import beginnings, environment, learner_state
from aco_jax.agents import actor, base, critic, null_shift, ranker, reward, rewriter
from aco_jax.configuration import DataConfig, bounded
from aco_jax.data import evidence, tasks
from aco_jax.data.records import Dataset, InputError
from aco_jax.data.tokens import Tokenizer
from aco_jax.models import judge, transformer
from aco_jax.models.config import Architecture
from aco_jax.ops import states

LEAST_ROOM = 8  # tokens of a record beside a query, where both are read


@dataclass(frozen=True)
class ModelConfig:
    """Sizes of the language models; lengths in tokens."""

    vocab_size: int = bounded(2048, 512, 65_536)
    width: int = bounded(96, 8, 1024)
    heads: int = bounded(4, 1, 16)
    encoder_layers: int = bounded(1, 1, 24)
    decoder_layers: int = bounded(1, 1, 24)
    mlp_width: int = bounded(288, 8, 8192)
    record_length: int = bounded(64, 16, 512)
    query_length: int = bounded(28, 12, 128)
    text_length: int = bounded(28, 8, 256)  # of a record as the reward model reads it
    reason_length: int = bounded(12, 4, 64)
    int4: bool = False  # rewriter and reader at inference; else int8
    base: str = ""  # published weights that base and actor begin from: a folder or an installed package
    trunk: str = ""  # those of a decoder that rewriter, reader and reward model learn adapters of; a GGUF file too
    rank: int = bounded(8, 1, 256)  # of these adapters
    published: bool = False  # in T5's form, the reward's in Llama's: what transformers can load
    bf16: bool = False  # compute in bfloat16; what is learned stays float32
    remat: bool = False  # keep less for the backward pass, and compute it again there

    def __post_init__(self) -> None:
        if self.width % self.heads:
            raise ValueError(f"width {self.width}, expected a multiple of the {self.heads} heads")
        if self.record_length < self.query_length + LEAST_ROOM:
            expected = f"query_length {self.query_length} and {LEAST_ROOM} at least"
            raise ValueError(f"record_length {self.record_length}, expected {expected}")


@dataclass(frozen=True)
class RunConfig:
    """Lengths of the stages and shapes of a round."""

    pretrain_rounds: int = bounded(8, 0)
    pretrain_steps: int = bounded(24, 1)  # steps a supervised round
    pretrain_batch: int = bounded(16, 1)  # examples a step, of all replicas together
    pretrain_rate: float = bounded(3e-3, 0, 1)
    begun_rate: float = bounded(3e-4, 0, 1)  # the highest of agents that begin from published weights
    rounds: int = bounded(12, 0)
    warm_up: float = bounded(0.25, 0, 1)  # share of the rounds before the actor learns, one at least
    merge_every: int = bounded(4, 1)
    accumulate: int = bounded(1, 1, 1024)  # steps whose mean gradient moves the agents once
    replicas: int = bounded(2, 1, 1024)
    anchors_per_step: int = bounded(16, 2, 4096)  # B of each replica
    candidates: int = bounded(8, 2, 64)  # K
    ask: bool = True  # search by the base's queries; else by the records' own words
    rewrites: int = bounded(2, 0, tasks.SUBQUERIES)  # M
    planted: float = bounded(0.5, 0, 1)  # share of anchors in other words, whose answers are known
    hidden: float = bounded(0.5, 0, 1)  # share of anchors whose answer is taken out: NULL is right
    temperature: float = bounded(0.5, 0, 10)  # of asking and rewriting
    walks: int = bounded(1024, 1)  # lists that the actor walks at most when tables are related, the most open first
    keep: int = bounded(3, 1)  # checkpoints

    @property
    def warm_up_rounds(self) -> int:
        return max(1, round(self.warm_up * self.rounds))


@dataclass(frozen=True)
class AgentsConfig:
    """What learning is weighed by."""

    rates: learner_state.Rates = field(default_factory=learner_state.Rates)
    clip: float = bounded(1.0, 0)
    judge_steps: int = bounded(300, 1)
    replay_capacity: int = bounded(4096, 16)
    replay_batch: int = bounded(128, 1)
    priority_exponent: float = bounded(0.6, 0, 1)
    priority_ranks: bool = False
    importance_exponent: float = bounded(0.4, 0, 1)
    n_step: int = bounded(1, 1, 64)
    smoothing: float = bounded(1.0, 1e-6)
    smoothing_decay: float = bounded(0.0, 0, 4)
    epsilon_last: float = bounded(0.02, 0, 1)
    kl_target: float = bounded(0.02, 1e-6)
    credit_weight: float = bounded(1.0, 0)
    policy_weight: float = bounded(0.05, 0)
    shared_weight: float = bounded(0.05, 0)
    penalty_weight: float = bounded(1.0, 0)
    target_every: int = bounded(0, 0)
    label_smoothing: float = bounded(0.0, 0, 0.5)
    reward_margin: float = bounded(0.0, 0)
    reward_centring: float = bounded(0.0, 0)
    reward_combination: str = "mean"  # one of reward.COMBINATIONS, or of reward.KINDS: of these members alone
    reward_spread: float = bounded(0.5, 0)
    reward_hollow: float = bounded(1.0, 0)
    agreement_weight: float = bounded(1.0, 0)
    share_rate: float = bounded(0.1, 0, 1)
    share_every: int = bounded(4, 0)

    def __post_init__(self) -> None:
        possible = (*reward.COMBINATIONS, *reward.KINDS)
        if self.reward_combination not in possible:
            expected = ", ".join(possible)
            raise ValueError(f"reward_combination {self.reward_combination!r}, expected one of {expected}")


@dataclass(frozen=True)
class WalkConfig:
    """The decision process; costs in units of the reward."""

    max_steps: int = bounded(32, 1, 1024)
    discount: float = bounded(0.99, 0, 1)
    step_cost: float = bounded(0.01, 0)
    token_cost: float = bounded(0.002, 0)
    rewrite_cost: float = bounded(0.1, 0)
    null_shift_limit: float = bounded(0.0, 0, 10)
    null_shift_noise: float = bounded(0.5, 0.05, 10)


@dataclass(frozen=True)
class TrainConfig:
    """Everything a run is made from. `from_dict` reads it, `to_dict` writes it."""

    seed: int = bounded(0, 0)
    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    train: RunConfig = field(default_factory=RunConfig)
    agents: AgentsConfig = field(default_factory=AgentsConfig)
    environment: WalkConfig = field(default_factory=WalkConfig)


DEEP = 6  # layers of a side, from which on they are compiled as one loop
# What attributes say the judge's network has read as well, so that it counts half.
WITNESSES = (judge.Witness("amounts", evidence.AMOUNTS), judge.Witness("attributes", evidence.ATTRIBUTES, credit=0.5))
T5 = Architecture(
    position="relative",
    norm="scaled_rms",
    activation="gelu_tanh",
    gated=True,
    attention_scale=False,
    source_match=False,
    embedding_scale=False,
    logit_scale=True,
)


def llama(width: int) -> Architecture:
    """Llama's form with heads of at least this width, which must be even to be rotated in pairs."""
    return Architecture(
        position="rotary",
        norm="scaled_rms",
        activation="silu",
        gated=True,
        source_match=False,
        embedding_scale=False,
        head_width=width + 1 if width % 2 else 0,
    )


def learner_config(config: TrainConfig, dataset: Dataset, tokenizer: Tokenizer) -> learner_state.Config:
    """The configs of all agents and of the process for these tables."""
    special, sizes = tokenizer.special, config.model
    relations = 1  # the loop decides which records are the same; other relations are judged beside it, pair by pair
    models = _networks(sizes, tokenizer)
    bins = states.config_for(relations)
    agents = config.agents
    walk = config.environment
    return learner_state.Config(
        base=base.Config(
            model=models.base,
            special=special,
            tables=len(dataset.tables),
            columns=len(tokenizer.columns),
            query_length=sizes.query_length,
        ),
        rewriter=rewriter.Config(
            model=models.small,
            special=special,
            source_length=sizes.record_length,
            length=sizes.query_length,
            bits=4 if sizes.int4 else 8,
            rank=models.rank,
        ),
        ranker=ranker.Config(
            model=models.small,
            judge=judge.Config(
                columns=evidence.JUDGED, witnesses=WITNESSES, relations=relations, steps=config.agents.judge_steps
            ),
            bits=4 if sizes.int4 else 8,
            rank=models.rank,
        ),
        reward=reward.Config(
            model=models.text,
            evidence_size=len(evidence.NAMES),
            relations=relations,
            rank=models.rank,
            label_smoothing=agents.label_smoothing,
            margin=agents.reward_margin,
            centring=agents.reward_centring,
            combination=agents.reward_combination,
            spread_coefficient=agents.reward_spread,
            hollow_weight=agents.reward_hollow,
        ),
        critic=critic.Config(
            factor_sizes=bins.factor_sizes,
            actions=bins.action_count,
            discount=walk.discount,
            target_every=agents.target_every,
        ),
        actor=actor.Config(
            model=models.base,
            factor_sizes=bins.factor_sizes,
            actions=bins.action_count,
            special=special,
            reason_length=sizes.reason_length,
        ),
        environment=environment.Config(
            bins=bins,
            max_steps=walk.max_steps,
            discount=walk.discount,
            step_cost=walk.step_cost,
            token_cost=walk.token_cost,
            rewrite_cost=walk.rewrite_cost,
        ),
        null_shift=null_shift.Config(bins.factor_sizes, limit=walk.null_shift_limit, noise=walk.null_shift_noise)
        if walk.null_shift_limit
        else None,
        rates=agents.rates,
        clip=agents.clip,
        accumulate=config.train.accumulate,
        steps=config.train.rounds * config.train.merge_every,
        merge_every=config.train.merge_every,
        warm_up=config.train.merge_every * config.train.warm_up_rounds,
        pretrain_steps=max(1, config.train.pretrain_rounds * config.train.pretrain_steps),
        replay_capacity=max(
            agents.replay_capacity // config.train.replicas, config.train.anchors_per_step * walk.max_steps
        ),
        replay_batch=agents.replay_batch,
        priority_exponent=agents.priority_exponent,
        priority_ranks=agents.priority_ranks,
        importance_exponent=agents.importance_exponent,
        n_step=agents.n_step,
        smoothing=agents.smoothing,
        smoothing_decay=agents.smoothing_decay,
        epsilon_last=agents.epsilon_last,
        kl_target=agents.kl_target,
        temperature=config.train.temperature or 1.0,  # what is greedy has no distribution
        credit_weight=agents.credit_weight,
        policy_weight=agents.policy_weight,
        shared_weight=agents.shared_weight,
        penalty_weight=agents.penalty_weight,
        agreement_weight=agents.agreement_weight,
        share_rate=agents.share_rate,
        share_every=agents.share_every,
        begun=models.begun,
        begun_rate=config.train.begun_rate,
    )


@dataclass(frozen=True)
class _Networks:
    """The language models of all agents."""

    base: transformer.Config  # and the actor
    small: transformer.Config  # rewriter and reader
    text: transformer.Config  # the reward model
    rank: int = 0  # of the adapters that small and text then are
    begun: tuple[str, ...] = ()


def _networks(sizes: ModelConfig, tokenizer: Tokenizer) -> _Networks:
    full = transformer.Config(
        vocab_size=tokenizer.vocab_size,
        width=sizes.width,
        heads=sizes.heads,
        encoder_layers=sizes.encoder_layers,
        decoder_layers=sizes.decoder_layers,
        mlp_width=sizes.mlp_width,
        max_length=max(sizes.record_length, sizes.query_length, 2 * sizes.text_length + sizes.reason_length + 4),
        bos=tokenizer.special.bos,
    )
    if sizes.published:
        full = dataclasses.replace(full, copy=False, architecture=T5)
    small = rewriter.smaller(full)
    text = dataclasses.replace(small, encoder_layers=0, copy=False)
    if sizes.published:
        text = dataclasses.replace(text, architecture=llama(text.width // text.heads))
    found = _Networks(full, small, text)
    if sizes.base:
        begun = beginnings.base_config(sizes.base, tokenizer, sizes.decoder_layers)
        found = dataclasses.replace(
            found, base=_long_enough(begun, full.max_length, sizes.base), begun=("base", "actor")
        )
    if sizes.trunk:
        trunk = _long_enough(beginnings.trunk_config(sizes.trunk, tokenizer), full.max_length, sizes.trunk)
        begun_too = (*found.begun, "rewriter", "ranker", "reward")
        found = dataclasses.replace(found, small=trunk, text=trunk, rank=sizes.rank, begun=begun_too)
    base, small, text = (_computed(model, sizes) for model in (found.base, found.small, found.text))
    return dataclasses.replace(found, base=base, small=small, text=text)


def _computed(model: transformer.Config, sizes: ModelConfig) -> transformer.Config:
    """The network, and how it is to be computed."""
    deep = max(model.encoder_layers, model.decoder_layers) >= DEEP
    return dataclasses.replace(model, compute="bfloat16" if sizes.bf16 else "float32", scan=deep, remat=sizes.remat)


def _long_enough(model: transformer.Config, length: int, name: str) -> transformer.Config:
    """The network of a name, which must know as many positions as the longest text has tokens. Raises InputError."""
    if model.max_length < length:
        raise InputError(f"{name}: reads {model.max_length} tokens, expected {length}, the longest of model.*_length")
    return model
