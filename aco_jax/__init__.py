"""Adaptive compatibility learning: language-model agents learn, without labels, which records relate.

The rooms, by layer; a room imports from the layers above it in this list only:

  0  types          what crosses rooms, and the axis letters
     processes      several that learn one run
     kernels        Pallas kernels, each beside its plain reference
  1  ops            the equations, one example at a time
  2  models         one transformer: generation, LoRA, quantisation, distillation, weights in and out
     data           records, wording, fields, columns, tokens, noise, catalogues, retrieval, translation, descriptions,
                    evidence, kinds, telling words, tasks
  3  competition    how pairs compete for their records
     mutual         which pairs are believed first
  4  agents         base, rewriter, ranker, reward, critic, actor, its null_shift: Config, init, a verb, loss
     environment    the decision process; transitions, exploration, replay, shared_reward
     supervision    what is believed without labels; relations: what is thought beyond which records are the same
  5  learner_state  one replica's config and state
     play           its episodes
     hollow         responses that say nothing new, for lessons and probes
     targets        what the losses of a step take as given
     learner        its local step
     pretraining    its supervised start
     replicas       the mesh, the round, the merge
     stages         what happens to all replicas between two stages of a run
  6  checkpoints, configuration, settings, progress, svg, report, evaluation, baselines
     beginnings     the published weights that agents begin from
     desk           what is fitted to the tables once
     inquiry        what the language models do for the host: ask, split, find, read, give reasons
     outcomes       how well the searches of a round did, where the answer is known
     prepare        the host's half of a round: comparing, believing, arrays
     teaching       what the judge is taught of what is believed; self_training: its rounds
     train          the host loop; adapt learns what is new
     probes         what the reward model goes by, and whether its margins mean it
     waves          walks the open lists with a trained actor
     statements     what is stated of pairs that were judged: rows, estimates
     answer         relates records with what was learned; ask answers requests in plain language
"""
