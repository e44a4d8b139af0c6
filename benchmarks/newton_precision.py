"""How exact is the finite-difference Hessian-vector product? Relative errors against float64, as a Markdown table.

    python -m benchmarks.newton_precision [--hidden 128 512] [--env breakout] [--device cpu]

The loss is that of one minibatch after one update, the unclipped surrogate that training differentiates. The truth is
an exact double backward in float64 through an LSTM that is not fused, and the same differences in float64. The
encoder's activation matters: differences see the kinks of ReLUs within reach, a second derivative does not.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from dist_trainer.cli import compose_train
from dist_trainer.distributed import World
from dist_trainer.learner import Learner, make_learner, warm_up_normalizer
from dist_trainer.minibatch import my_minibatch_rows
from dist_trainer.optimizers.newton import Newton, finite_difference_product
from dist_trainer.ppo import ppo_loss
from dist_trainer.rollout import Minibatch, take_minibatch
from dist_trainer.update import learn

EPSILONS = (1e-4, 3.45e-4, 1e-3, 3e-3, 5e-3, 1e-2)
SCHEMES = (("float32", "central"), ("float32", "forward"), ("bfloat16", "central"), ("bfloat16", "forward"))
SEED = 7


def learner_and_batch(hidden: int, activation: str, env: str, world: World) -> tuple[Learner, Minibatch]:
    """After an update, so that today's policy is not the one that acted."""
    sizes = ["total_envs=512", "ppo.minibatches=16", f"policy.hidden_size={hidden}", f"policy.activation={activation}"]
    config = compose_train([f"env={env}", "policy=lstm", "optimizer=adamw", *sizes])[0]
    learner = make_learner(config, world)
    warm_up_normalizer(learner)
    rollout = learner.collector.collect()
    learn(learner, rollout)
    generator = torch.Generator().manual_seed(SEED)
    advantages = torch.randn(rollout.rewards.shape, generator=generator).to(world.device)
    rows = my_minibatch_rows(learner, 0)[0]
    most = int(rollout.done_counts[rows.numpy()].max())
    targets = rollout.values + advantages
    return learner, take_minibatch(rollout, advantages, targets, rows.to(world.device), most)


def loss_of(learner: Learner, batch: Minibatch) -> Tensor:
    unclipped = replace(learner.config.ppo, clip=math.inf, value_clip=None)
    return ppo_loss(learner.policy, learner.observations, batch, unclipped, batch.done.numel())[0]


@dataclass
class Twin:
    """The learner's policy and its minibatch on the CPU in float64, where torch's LSTM is made of plain operations."""

    learner: Learner
    batch: Minibatch
    vector: Tensor  # the same probe

    @property
    def weights(self) -> list[nn.Parameter]:
        return list(self.learner.policy.parameters())

    def exact(self) -> Tensor:
        """The product by a double backward."""
        gradients = torch.autograd.grad(loss_of(self.learner, self.batch), self.weights, create_graph=True)
        along = torch.cat([gradient.flatten() for gradient in gradients]) @ self.vector
        return torch.cat([column.flatten() for column in torch.autograd.grad(along, self.weights)])

    def differences(self, epsilon: float) -> Tensor:
        """The product by central differences of this size: what is left of their error in float32 is rounding."""
        base, sides = [weight.detach().clone() for weight in self.weights], []
        parts = self.vector.split([weight.numel() for weight in base])
        for distance in (epsilon, -epsilon):
            with torch.no_grad():
                for weight, start, part in zip(self.weights, base, parts, strict=True):
                    weight.copy_(start + distance * part.view_as(start))
            sides.append(flat_gradient(self.learner, self.batch))
        with torch.no_grad():
            for weight, start in zip(self.weights, base, strict=True):
                weight.copy_(start)
        return (sides[0] - sides[1]) / (2 * epsilon)


def twin_of(learner: Learner, batch: Minibatch, activation: str, hidden: int, env: str) -> Twin:
    cpu = World(0, 1, 0, 1, torch.device("cpu"))
    sizes = ["total_envs=512", "dtype=float64", f"policy.hidden_size={hidden}", f"policy.activation={activation}"]
    twin = make_learner(compose_train([f"env={env}", "policy=lstm", "optimizer=adamw", *sizes])[0], cpu)
    twin.policy.load_state_dict({name: x.double().cpu() for name, x in learner.policy.state_dict().items()})
    twin.observations.load_state_dict(learner.observations.state_dict())
    doubled: Any = {
        name: x.cpu().double() if x.dtype == torch.float32 and name != "observations" else x.cpu()
        for name, x in vars(batch).items()
        if isinstance(x, Tensor)
    }
    weights = list(learner.policy.parameters())
    vector, _ = finite_difference_product(weights, lambda: torch.zeros(1, device=weights[0].device), newton(), SEED)
    return Twin(twin, replace(batch, **doubled), vector.double().cpu())


def flat_gradient(learner: Learner, batch: Minibatch) -> Tensor:
    gradients = torch.autograd.grad(loss_of(learner, batch), list(learner.policy.parameters()))
    return torch.cat([part.flatten() for part in gradients])


def newton(precision: str = "float32", product: str = "central", epsilon: float = 1e-3) -> Newton:
    return Newton(every=1, product=product, precision=precision, sub_batch=1, epsilon=epsilon)


def product_of(learner: Learner, batch: Minibatch, how: Newton) -> Tensor:
    weights = list(learner.policy.parameters())
    return finite_difference_product(weights, lambda: flat_gradient(learner, batch), how, SEED)[1].double().cpu()


def error(product: Tensor, expected: Tensor) -> str:
    return f"{float((product - expected).norm() / expected.norm()):.4f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hidden", type=int, nargs="+", default=[128, 512])
    parser.add_argument("--env", default="breakout")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    world = World(0, 1, 0, 1, torch.device(options.device))
    print(f"torch {torch.__version__}, {options.env}, {options.device}\n")
    columns = ["hidden", "encoder", "precision", "difference", "against", *(f"eps {e:g}" for e in EPSILONS)]
    print("| " + " | ".join(columns) + " |")
    print("|" + "---|" * (5 + len(EPSILONS)), flush=True)
    for hidden in options.hidden:
        for activation in ("tanh", "silu", "relu"):
            learner, batch = learner_and_batch(hidden, activation, options.env, world)
            twin = twin_of(learner, batch, activation, hidden, options.env)
            exact, differences = twin.exact(), [twin.differences(epsilon) for epsilon in EPSILONS]
            for precision, product in SCHEMES:
                products = [product_of(learner, batch, newton(precision, product, e)) for e in EPSILONS]
                start = f"| {hidden} | {activation} | {precision} | {product} |"
                print(start, "second derivative | " + " | ".join(error(x, exact) for x in products) + " |")
                if product == "central":
                    errors = [error(x, y) for x, y in zip(products, differences, strict=True)]
                    print(start, "float64 differences | " + " | ".join(errors) + " |", flush=True)


if __name__ == "__main__":
    main()
