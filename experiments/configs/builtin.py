"""The built-in catalogues of three shops, as `make run` learns to relate them.

    python experiments/aco.py --config=experiments/configs/builtin.py --workdir=runs/builtin

Machine: 2 cores, no accelerator. Time and result: see RESULTS.md.
"""

from __future__ import annotations

from ml_collections import ConfigDict, config_dict


def get_config() -> ConfigDict:
    """Every knob of the program; folder.py and smoke.py change a few."""
    config = ConfigDict()
    config.seed = 0

    # Data
    config.data = data = ConfigDict()
    data.path = ""  # a folder of tables; empty: the generator
    data.tables = ()  # names of tables; (): tableA and tableB, or else all in the folder
    data.relations = ConfigDict()  # name -> what it means
    same = data.relations.same = ConfigDict()
    same.definition = "Both records describe one and the same thing."
    same.symmetric = True
    same.max_partners = config_dict.placeholder(int)  # in each other table: 1, 2, ...; None: to be found out
    data.generator = generator = ConfigDict()
    generator.shops = 3  # tables
    generator.size = 300  # records a shop
    generator.difficulty = 0.5  # 0 all shops speak alike, 1 none does

    # Language models: base and actor; the others are half as wide
    config.model = model = ConfigDict()
    model.vocab_size = 2048  # byte pairs learnt from the tables
    model.width = 96  # with 1 + 1 layers below 1M parameters an agent
    model.heads = 4
    model.encoder_layers = 1
    model.decoder_layers = 1
    model.mlp_width = 288  # 3 x width
    model.record_length = 64  # tokens of a record
    model.query_length = 28  # tokens of a query, guardrails included
    model.text_length = 28  # tokens of a record as the reward model reads it
    model.reason_length = 12  # tokens of a reason
    model.int4 = False  # weights of rewriter and reader at inference; else int8
    model.base = ""  # published weights that base and actor begin from: a folder, or an installed package
    model.trunk = ""  # those of a decoder that rewriter, reader and reward model learn adapters of; a GGUF file too
    model.rank = 8  # of these adapters
    model.bf16 = False  # compute in bfloat16, for accelerators; what is learned stays float32
    model.remat = False  # compute a layer again in the backward pass instead of keeping it: less memory, more time
    model.published = False  # in T5's form, the reward's in Llama's: what experiments/export.py can write

    # Length of the run; budgets are in steps, for clocks would break exact resume
    config.train = train = ConfigDict()
    train.pretrain_rounds = 8  # rounds of supervised start before any play
    train.pretrain_steps = 24  # steps a supervised round
    train.pretrain_batch = 16  # examples a step, of all replicas together
    train.pretrain_rate = 3e-3  # highest learning rate of the supervised start; cosine to 0
    train.begun_rate = 3e-4  # the highest rate of agents that begin from published weights
    train.rounds = 12  # rounds of prepare, play, learn, merge
    train.warm_up = 0.25  # share of the rounds before the actor learns: the reward model knows little yet
    train.merge_every = 4  # local steps a round
    train.accumulate = 1  # steps whose mean gradient moves the agents once: larger batches in the same memory
    train.replicas = 2  # spread over the devices there are
    train.anchors_per_step = 16  # B, of each replica
    train.candidates = 8  # K, of the query and of each rewrite
    train.ask = True  # search by own words and the base's query; else by own words alone
    train.rewrites = 2  # M, subqueries an anchor
    train.planted = 0.5  # share of anchors in other words, whose answers are known
    train.hidden = 0.5  # share of anchors whose answer is taken out: NULL is right
    train.temperature = 0.5  # of asking and rewriting; 0 is greedy
    train.walks = 1024  # lists that the actor walks at most when tables are related, the most open first
    train.keep = 3  # checkpoints

    # Agents
    config.agents = agents = ConfigDict()
    agents.rates = ConfigDict(  # of Adam
        {"base": 1e-4, "rewriter": 1e-4, "ranker": 5e-3, "reward": 3e-3, "critic": 3e-3, "actor": 1e-3}
    )
    agents.clip = 1.0  # greatest norm of an agent's gradient
    agents.judge_steps = 300  # in each round of its self-training
    agents.replay_capacity = 4096  # transitions, of all replicas together
    agents.replay_batch = 128  # transitions a step
    agents.priority_exponent = 0.6  # 0 draws uniformly
    agents.priority_ranks = False  # draw by the rank of a priority, not by its size
    agents.importance_exponent = 0.4  # at the start; 1 at the end
    agents.n_step = 1  # steps of a walk in a target of the critic
    agents.smoothing = 1.0  # counts spread over a row of the transition model
    agents.smoothing_decay = 0.0  # power by which they grow fewer with what was seen of the row; 0 keeps them
    agents.epsilon_last = 0.02  # share of exploring actions at the end
    agents.kl_target = 0.02  # nats a decision and round
    agents.credit_weight = 1.0  # of the shared reward at the end of an episode
    agents.policy_weight = 0.05  # of the episode's advantage in the base's loss
    agents.shared_weight = 0.05  # of the shared reward in the losses of base, rewriter, ranker
    agents.penalty_weight = 1.0  # of an agent's own penalty
    agents.target_every = 0  # steps between copies of the critic to its target; 0 moves it a little every step
    agents.label_smoothing = 0.0  # chance that a preference of the ranker is the wrong way round
    agents.reward_margin = 0.0  # by which a preferred response should be ahead, nats
    agents.reward_centring = 0.0  # weight that holds the offset of the reward's text heads at 0
    agents.reward_combination = "mean"  # of the members; or worst_case, uncertainty_weighted, or one kind of them alone
    agents.reward_spread = 0.5  # k of uncertainty_weighted: the mean less k times the variance of the members
    agents.reward_hollow = 1.0  # weight of the lesson that words which add nothing win nothing
    agents.agreement_weight = 1.0  # of the committee's agreement in the shared reward
    agents.share_rate = 0.1  # Polyak rate between the encoders of base and actor
    agents.share_every = 4  # merges; 0 never shares

    # The decision process; costs are in units of the reward
    config.environment = environment = ConfigDict()
    environment.max_steps = 32  # a longer walk is truncated
    environment.discount = 0.99
    environment.step_cost = 0.01  # every action but STOP
    environment.token_cost = 0.002  # a token read
    environment.rewrite_cost = 0.1  # a row of candidates revealed
    environment.null_shift_limit = 0.0  # by which the actor may shift the logit of "none of these", nats; 0: it may not
    environment.null_shift_noise = 0.5  # standard deviation of that shift at the start, nats; falls to 0.05
    return config
