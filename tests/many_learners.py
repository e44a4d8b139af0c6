"""64 learners on one machine train the run of one: a proof that takes minutes, so not a part of the test suite.

    python -m tests.many_learners [--learners 64] [--optimizer psgd_kron] [--group 8]

Learners are processes joined by gloo, the policy is tiny, everything is float64. After 3 iterations: all learners hold
the same bits, they are those of one learner up to rounding, and every unit of the sharded optimizer has its state on
one learner of each group, and on no other. Prints what it took; exit status 1 if something is not so.
"""

from __future__ import annotations

import argparse
import resource
import sys
import time

import torch
from torch import Tensor

from dist_trainer.cli import compose_train
from dist_trainer.config import TrainConfig
from dist_trainer.distributed import World
from dist_trainer.envs import env_spec
from dist_trainer.identical import check_identical
from dist_trainer.learner import make_learner, make_policy, replicas, warm_up_normalizer
from dist_trainer.optimizers import make_optimizer
from dist_trainer.optimizers.sharding import assign_owners, unit_costs
from dist_trainer.optimizers.state import unit_tensors
from dist_trainer.update import learn
from tests.learners import Learners

ITERATIONS, MINIBATCHES, HORIZON = 3, 4, 8


def config_for(learners: int, optimizer: str, group: int) -> TrainConfig:
    envs = learners * MINIBATCHES
    settings = [f"total_envs={envs}", f"ppo.minibatches={MINIBATCHES}", f"horizon={HORIZON}", "policy.hidden_size=16"]
    exact = ["dtype=float64", "optimizer.storage_dtype=float64", "env=cartpole", "env.params.max_steps=20"]
    alone = ["device=cpu", "torch_threads=1", "env_threads=1", f"total_env_steps={envs * HORIZON * ITERATIONS}"]
    sharded = [f"optimizer={optimizer}", "optimizer.sync=sharded", f"optimizer.shard_group={group}"]
    low = [] if optimizer in ("muon", "soap") else ["optimizer.q_dtype=float64"]
    return compose_train([*settings, *exact, *alone, *sharded, *low])[0]


def train(world: World, config: TrainConfig) -> tuple[Tensor, dict[str, int], float]:
    """The flat weights, bytes of optimizer state by unit, and the learner's peak memory in MiB."""
    learner = make_learner(config, world)
    warm_up_normalizer(learner)
    start = torch.cat([p.detach().flatten() for p in learner.policy.parameters()])
    for _ in range(ITERATIONS):
        assert not learn(learner, learner.collector.collect()).undone
        learner.iteration += 1
        for group, tensors in replicas(learner):
            check_identical(group, tensors)
    weights = torch.cat([p.detach().flatten() for p in learner.policy.parameters()])
    assert (weights - start).norm() > 1e-3 * start.norm()  # weights that do not move would be equal too
    state = {unit.name: sum(x.nbytes for x in unit_tensors(unit).values()) for unit in learner.optimizer.units}
    return weights, state, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--learners", type=int, default=64)
    parser.add_argument("--optimizer", default="psgd_kron")
    parser.add_argument("--group", type=int, default=8)
    options = parser.parse_args()
    began = time.monotonic()
    one = Learners(1)
    (expected, whole, _), *_ = one.run(train, config_for(options.learners, options.optimizer, 1))
    one.close()
    many = Learners(options.learners)
    try:
        results = many.run_within(1500, train, config_for(options.learners, options.optimizer, options.group))
    finally:
        many.close()
    failures = []
    difference = max(float((weights - expected).norm() / expected.norm()) for weights, _, _ in results)
    if not all(torch.equal(weights, results[0][0]) for weights, _, _ in results):
        failures.append("the learners' weights differ")
    if difference > 1e-9:
        failures.append("the weights are not those of one learner")
    for start in range(0, options.learners, options.group):
        members = [state for _, state, _ in results[start : start + options.group]]
        for name, size in whole.items():
            if sorted(state[name] for state in members) != [*[0] * (options.group - 1), size]:
                failures.append(f"the state of {name} is not on one learner of the group that begins with {start}")
    config = config_for(options.learners, options.optimizer, 1)
    policy = make_policy(config, env_spec(config.env), torch.device("cpu"))
    units = make_optimizer(config.optimizer, policy).units
    owners = assign_owners(unit_costs(units), options.group)
    for rank, (_, state, _) in enumerate(results):
        kept = {name for name, size in state.items() if size}
        if kept != {u.name for u, of in zip(units, owners, strict=True) if of == rank % options.group}:
            failures.append(f"learner {rank} keeps other units than the cost model gives it")
    own = [sum(state.values()) for _, state, _ in results]
    total = sum(whole.values())
    if max(own) > total / options.group + max(whole.values()):
        failures.append("a learner holds more than its share and the largest unit")
    print(f"{options.learners} learners, {options.optimizer} in groups of {options.group}, {ITERATIONS} iterations:")
    print(f"  {time.monotonic() - began:.0f} s; peak memory of a learner {max(peak for _, _, peak in results):.0f} MiB")
    print(f"  largest relative difference from one learner {difference:.1e}")
    print(f"  optimizer state in bytes: {total} in all, {min(own)} to {max(own)} on a learner")
    for failure in failures:
        print(f"  FAILED: {failure}", file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
