"""Action heads: samples are the inverted distribution, log-probabilities and entropies are torch.distributions'."""

import pytest
import torch
from torch import Tensor
from torch.distributions import Categorical, Normal

from dist_trainer.policies.heads import CategoricalHead, GaussianHead, make_action_head

SMALLEST, LARGEST = 2.0**-24, 1 - 2.0**-24  # of float32 noise in the open interval (0, 1)
LOW, HIGH = (-2.0, 0.0, -1.0), (2.0, 1.0, 5.0)


def normal(*size: int, seed: int = 0) -> Tensor:
    return torch.randn(size, generator=torch.Generator().manual_seed(seed))


def even_noise(count: int) -> Tensor:
    """(count,) the middles of equal parts of (0, 1)."""
    return (torch.arange(count, dtype=torch.float64) + 0.5) / count


@pytest.mark.parametrize("size", [2, 3, 4, 18])
@pytest.mark.parametrize("spread", [0.0, 1.0, 4.0])
def test_categorical_frequencies_are_the_probabilities(size: int, spread: float) -> None:
    """On evenly spaced noise each action comes up as often as its probability says, to one count at each edge."""
    count = 100_000
    head = CategoricalHead(1, (size,))
    logits = spread * normal(size, seed=size).double()
    actions = head.sample(logits.expand(count, size), even_noise(count)[:, None])
    assert actions.shape == (count, 1)
    assert actions.dtype == torch.int32
    frequencies = torch.bincount(actions[:, 0], minlength=size) / count
    torch.testing.assert_close(frequencies.double(), logits.softmax(-1), rtol=0, atol=2 / count)


def test_categorical_sample_by_hand() -> None:
    """The action is the number of steps of the cumulative distribution that lie below the noise."""
    head = CategoricalHead(1, (3,))
    parameters = torch.tensor([0.25, 0.25, 0.5]).log().expand(5, 3)
    actions = head.sample(parameters, torch.tensor([[0.1], [0.24], [0.26], [0.49], [0.51]]))
    assert actions.flatten().tolist() == [0, 0, 1, 1, 2]


def test_components_are_sampled_independently() -> None:
    """On a square grid of noise every pair of actions comes up as often as the product of the probabilities."""
    side = 400
    head = CategoricalHead(1, (3, 4))
    logits = normal(7, seed=1).double()
    noise = torch.cartesian_prod(even_noise(side), even_noise(side))
    actions = head.sample(logits.expand(side * side, 7), noise)
    pairs = torch.bincount(actions[:, 0] * 4 + actions[:, 1], minlength=12).view(3, 4) / side**2
    expected = logits[:3].softmax(-1)[:, None] * logits[3:].softmax(-1)
    torch.testing.assert_close(pairs.double(), expected, rtol=0, atol=8 / side)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("noise", [SMALLEST, LARGEST])
def test_extreme_noise_gives_valid_actions(noise: float, dtype: torch.dtype) -> None:
    """Rounding of the cumulative sum never leads outside the choices, nor, if they are certain, to another one."""
    sizes = (2, 3, 4, 18)
    head = CategoricalHead(1, sizes)
    parameters = torch.cat([scale * normal(500, sum(sizes), seed=2) for scale in (0.0, 1.0, 30.0)]).to(dtype)
    actions = head.sample(parameters, torch.full((len(parameters), len(sizes)), noise))
    assert actions.ge(0).all()
    assert (actions < torch.tensor(sizes)).all()
    assert head.log_prob_and_entropy(parameters, actions)[0].isfinite().all()
    certain = torch.zeros(1, sum(sizes), dtype=dtype)
    certain[0, [1, 3, 7, 14]] = 200
    assert head.sample(certain, torch.full((1, 4), noise)).tolist() == [[1, 1, 2, 5]]


@pytest.mark.parametrize("sizes", [(4,), (3, 2, 5)])
def test_categorical_is_that_of_torch(sizes: tuple[int, ...]) -> None:
    """Log-probabilities and entropies, summed over components, with any leading dimensions."""
    head = CategoricalHead(1, sizes)
    parameters = 3 * normal(6, 5, sum(sizes), seed=3).double()
    actions = head.sample(parameters, torch.rand(6, 5, len(sizes), generator=torch.Generator().manual_seed(4)))
    log_prob, entropy = head.log_prob_and_entropy(parameters, actions)
    parts = [Categorical(logits=part) for part in parameters.split(sizes, -1)]
    expected = torch.stack([part.log_prob(actions[..., i]) for i, part in enumerate(parts)]).sum(0)
    torch.testing.assert_close(log_prob, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(entropy, torch.stack([part.entropy() for part in parts]).sum(0), rtol=1e-12, atol=1e-12)
    assert log_prob.shape == entropy.shape == (6, 5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("sizes", [(2,), (3,), (15,), (16,), (18,), (4, 3, 17)])
def test_samples_come_with_the_log_probability_of_learning(sizes: tuple[int, ...], dtype: torch.dtype) -> None:
    """To the bit for the same rows; a segment (T, S, P) may be rounded otherwise than its steps (S, P)."""
    head = CategoricalHead(1, sizes)
    parameters = 3 * normal(6, 50, sum(sizes), seed=9).to(dtype)
    noise = torch.rand(6, 50, len(sizes), generator=torch.Generator().manual_seed(10))
    actions, log_probs = zip(*map(head.sample_with_log_prob, parameters, noise), strict=True)
    for step in range(6):
        assert torch.equal(log_probs[step], head.log_prob_and_entropy(parameters[step], actions[step])[0])
        assert torch.equal(actions[step], head.sample(parameters[step], noise[step]))
    of_segment = head.log_prob_and_entropy(parameters, torch.stack(actions))[0]
    torch.testing.assert_close(torch.stack(log_probs), of_segment, rtol=4 * torch.finfo(dtype).eps, atol=0)


def test_categorical_mode_is_the_most_likely_action() -> None:
    head = CategoricalHead(1, (3, 2))
    parameters = torch.tensor([[0.0, 2.0, 1.0, 5.0, 4.0], [-1.0, -2.0, -3.0, 0.0, 0.5]])
    mode = head.mode(parameters)
    assert mode.tolist() == [[1, 0], [0, 1]]
    assert mode.dtype == torch.int32


def make_gaussian() -> tuple[GaussianHead, Tensor]:
    """A head in float64 with weights that are not the initial ones, and its parameters for 7 rows."""
    head = GaussianHead(5, LOW, HIGH).double()
    with torch.no_grad():
        head.mean.weight.copy_(normal(3, 5, seed=5))
        head.log_std.copy_(torch.tensor([-1.0, 0.3, 0.0]))
    return head, head(normal(7, 5, seed=6).double()).detach()


def test_gaussian_is_that_of_torch() -> None:
    """Log-probabilities and entropies in the environment's units, summed over components."""
    head, parameters = make_gaussian()
    mean, log_std = parameters.chunk(2, -1)
    actions = head.sample(parameters, torch.rand(7, 3, generator=torch.Generator().manual_seed(7)))
    expected = Normal(mean, log_std.exp())
    log_prob, entropy = head.log_prob_and_entropy(parameters, actions)
    torch.testing.assert_close(log_prob, expected.log_prob(actions).sum(-1), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(entropy, expected.entropy().sum(-1), rtol=1e-12, atol=1e-12)
    assert torch.equal(head.mode(parameters), mean)


def test_gaussian_samples_come_with_the_log_probability_of_learning() -> None:
    head, parameters = make_gaussian()
    actions, log_probs = head.sample_with_log_prob(parameters, torch.rand(7, 3))
    assert torch.equal(log_probs, head.log_prob_and_entropy(parameters, actions)[0])


def test_gaussian_samples_are_the_quantiles() -> None:
    """Noise u gives the u-quantile; over evenly spaced noise mean and variance are the distribution's."""
    head, parameters = make_gaussian()
    mean, log_std = (part[0] for part in parameters.chunk(2, -1))
    noise = even_noise(20_000)[:, None].expand(-1, 3)
    samples = head.sample(parameters[0].expand(len(noise), -1), noise)
    quantiles = Normal(mean, log_std.exp()).icdf(noise)
    torch.testing.assert_close(samples, quantiles, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(samples.mean(0), mean, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(samples.std(0), log_std.exp(), rtol=1e-3, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_extreme_noise_gives_finite_gaussian_samples(dtype: torch.dtype) -> None:
    head = GaussianHead(5, LOW, HIGH).to(dtype)
    parameters = head(torch.zeros(2, 5, dtype=dtype)).detach()
    samples = head.sample(parameters, torch.tensor([[SMALLEST] * 3, [LARGEST] * 3]))
    assert samples.dtype == dtype
    deviations = (samples - head.middle) / parameters[:, 3:].exp()
    expected = torch.tensor([[-5.294704], [5.294704]], dtype=dtype).expand(2, 3)  # the 2^-24 quantile of N(0, 1)
    torch.testing.assert_close(deviations, expected, rtol=1e-5, atol=0)


def test_first_policies() -> None:
    """Before any learning: close to uniform; in the middle of the bounds with a quarter of their range."""
    features = normal(50, 16, seed=8)
    discrete = make_action_head(16, "multi_discrete", (4, 4), (), ())
    probabilities = discrete(features).view(50, 2, 4).softmax(-1)
    torch.testing.assert_close(probabilities, torch.full((50, 2, 4), 0.25), rtol=0, atol=0.02)
    continuous = make_action_head(16, "continuous", (), LOW, HIGH)
    mean, log_std = continuous(torch.zeros(50, 16)).chunk(2, -1)
    torch.testing.assert_close(mean, torch.tensor([0.0, 0.5, 2.0]).expand(50, 3))
    torch.testing.assert_close(log_std.exp(), torch.tensor([1.0, 0.25, 1.5]).expand(50, 3))
