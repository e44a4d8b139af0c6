"""Running statistics equal those of all data at once, and the normalizers are what they say."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from dist_trainer.distributed import World, connect
from dist_trainer.normalize import FrozenNormalizer, ObservationNormalizer, ReturnNormalizer, RunningMoments

CPU = torch.device("cpu")


@pytest.fixture
def world() -> World:
    return connect("cpu", 60)


def batches(mean: float, std: float, shape: tuple[int, ...], count: int, seed: int) -> list[Tensor]:
    """Batches of different sizes, in float64."""
    generator = torch.Generator().manual_seed(seed)
    sizes = torch.randint(1, 200, (count,), generator=generator).tolist()
    return [mean + std * torch.randn(size, *shape, generator=generator, dtype=torch.float64) for size in sizes]


def variance(moments: RunningMoments) -> NDArray[np.float64]:
    return np.asarray(moments.std.square().numpy(), np.float64)


@pytest.mark.parametrize("shape", [(), (3,), (2, 3)])
@pytest.mark.parametrize(("mean", "std"), [(0.0, 1.0), (1e6, 1e-2), (-1e6, 1e-2), (1e-6, 1e-8), (3.0, 1e8)])
def test_moments_are_those_of_all_batches_together(
    world: World, shape: tuple[int, ...], mean: float, std: float
) -> None:
    """60 batches of 1 to 199 rows, badly scaled: no cancellation beyond what the first batch's offset costs."""
    data = batches(mean, std, shape, 60, seed=len(shape))
    moments = RunningMoments(shape, CPU)
    for batch in data:
        moments.update(batch, world)
    everything = torch.cat(data).numpy()
    assert moments.count.item() == len(everything)
    # the data themselves are rounded to 1e-16 of their mean; so is the running mean
    np.testing.assert_allclose(moments.mean.numpy(), everything.mean(0), rtol=1e-14, atol=1e-12 * std)
    np.testing.assert_allclose(variance(moments), everything.var(0), rtol=1e-5 if abs(mean) > 1e3 * std else 1e-11)


def test_batches_of_unlike_data_merge_exactly(world: World) -> None:
    """Neither a mean of means nor a mean of variances: sizes and means of the batches differ widely."""
    data = [torch.full((1,), 100.0), torch.tensor([0.0, 2.0, 4.0]), torch.linspace(-50, -40, 1000)]
    moments = RunningMoments((), CPU)
    for batch in data:
        moments.update(batch, world)
    everything = torch.cat(data).double().numpy()
    np.testing.assert_allclose(moments.mean.numpy(), everything.mean(), rtol=1e-11)
    np.testing.assert_allclose(variance(moments), everything.var(), rtol=1e-11)


def test_drift_is_followed(world: World) -> None:
    """The mean moves far between batches."""
    data = [batches(10.0**k, 1.0, (2,), 1, seed=k)[0] for k in range(6)]
    moments = RunningMoments((2,), CPU)
    for batch in data:
        moments.update(batch, world)
    everything = torch.cat(data).numpy()
    np.testing.assert_allclose(moments.mean.numpy(), everything.mean(0), rtol=1e-11)
    np.testing.assert_allclose(variance(moments), everything.var(0), rtol=1e-11)


def test_all_leading_dimensions_are_samples(world: World) -> None:
    """(T, N, *shape) counts T * N samples; float32 data are added up in float64."""
    data = 1000 + torch.randn(50, 7, 3, generator=torch.Generator().manual_seed(0))
    moments = RunningMoments((3,), CPU)
    moments.update(data, world)
    assert moments.count.item() == 350
    np.testing.assert_allclose(moments.mean.numpy(), data.double().mean((0, 1)).numpy(), rtol=1e-14)
    np.testing.assert_allclose(variance(moments), data.double().numpy().var((0, 1)), rtol=1e-9)


def make_observations(
    shape: tuple[int, ...], *, is_bytes: bool = False, enabled: bool = True, clip: float = 10.0
) -> ObservationNormalizer:
    return ObservationNormalizer(shape, is_bytes=is_bytes, enabled=enabled, clip=clip, dtype=torch.float32, device=CPU)


def test_observations_get_mean_0_and_variance_1(world: World) -> None:
    """What was fed in comes out standardized; a feature that never changes comes out as 0."""
    data = torch.randn(400, 8, 3, generator=torch.Generator().manual_seed(1)) * torch.tensor([5.0, 0.01, 0.0])
    data += torch.tensor([-3.0, 7.0, 123.0])
    normalizer = make_observations((3,), clip=100.0)
    normalizer.update(data, world)
    result = normalizer(data).double().flatten(0, 1).numpy()
    np.testing.assert_allclose(result.mean(0), 0, atol=1e-4)
    np.testing.assert_allclose(result.var(0), [1, 1, 0], atol=1e-3)
    assert (result[:, 2] == 0).all()


def test_observations_are_clipped(world: World) -> None:
    normalizer = make_observations((1,), clip=2.5)
    normalizer.update(torch.tensor([[-1.0], [1.0]]), world)
    result = normalizer(torch.tensor([[-100.0], [-2.0], [0.5], [100.0]])).flatten()
    torch.testing.assert_close(result, torch.tensor([-2.5, -2.0, 0.5, 2.5]))


@pytest.mark.parametrize("shape", [(5,), (2, 3)])
def test_normalized_observations_have_the_bits_of_their_formula(world: World, shape: tuple[int, ...]) -> None:
    """In main memory as it is, strided, and where a gradient is wanted; whatever is not a number stays so."""
    generator = torch.Generator().manual_seed(1)
    data = torch.randn(9, 4, *shape, generator=generator)
    normalizer = make_observations(shape, clip=1.5)
    normalizer.update(data, world)
    data[0, 0, 0], data[1, 0, 0], data[2, 0, 0] = torch.nan, torch.inf, -torch.inf
    assert normalizer.moments
    mean, scale = normalizer.mean_and_scale(normalizer.moments)
    expected = ((data - mean) * scale).clamp(-1.5, 1.5)
    strided = data.transpose(0, 1).contiguous().transpose(0, 1)
    for observations in (data, strided, data.clone().requires_grad_()):
        assert torch.equal(normalizer(observations).detach().nan_to_num(7.0), expected.nan_to_num(7.0))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_moments_are_the_same_of_any_memory_layout(world: World, dtype: torch.dtype) -> None:
    data = torch.randn(9, 4, 3, generator=torch.Generator().manual_seed(1), dtype=dtype) + 50
    for batch in (data, data.transpose(0, 1).contiguous().transpose(0, 1)):
        moments = RunningMoments((3,), CPU)
        moments.update(batch, world)
        rows = data.double().flatten(0, 1).numpy()
        np.testing.assert_allclose(moments.mean.numpy(), rows.mean(0), rtol=1e-14)
        np.testing.assert_allclose(variance(moments), rows.var(0), rtol=1e-12)


def test_observations_pass_unchanged_before_any_update() -> None:
    data = torch.tensor([[-3.5, 0.0, 9.0]])
    torch.testing.assert_close(make_observations((3,))(data), data, rtol=1e-7, atol=0)


def test_disabled_normalizer_passes_observations_unchanged(world: World) -> None:
    """Nor does it clip, nor learn."""
    normalizer = make_observations((3,), enabled=False)
    data = torch.tensor([[-350.0, 0.0, 9e9]])
    normalizer.update(data, world)
    assert torch.equal(normalizer(data), data)


def test_bytes_go_to_the_unit_interval(world: World) -> None:
    """uint8 is divided by 255, before and after updates, and has no statistics."""
    normalizer = make_observations((1, 2, 2), is_bytes=True)
    data = torch.tensor([[[[0, 51], [102, 255]]]], dtype=torch.uint8)
    expected = torch.tensor([[[[0.0, 0.2], [0.4, 1.0]]]])
    torch.testing.assert_close(normalizer(data), expected, rtol=1e-7, atol=0)
    normalizer.update(data, world)
    torch.testing.assert_close(normalizer(data), expected, rtol=1e-7, atol=0)
    assert not normalizer.state_dict()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("kind", ["floats", "bytes", "disabled"])
def test_frozen_normalizer_gives_the_same_bits_until_it_is_refreshed(
    world: World, kind: str, dtype: torch.dtype
) -> None:
    normalizer = ObservationNormalizer(
        (2, 3), is_bytes=kind == "bytes", enabled=kind == "floats", clip=1.5, dtype=dtype, device=CPU
    )
    frozen = FrozenNormalizer(normalizer, 50, (2, 3), CPU)
    generator = torch.Generator().manual_seed(1)
    raw = (40 * torch.rand(3, 50, 2, 3, generator=generator)).to(torch.uint8 if kind == "bytes" else torch.float32)
    for batch in raw:
        normalizer.update(batch, world)
        frozen.refresh()
        untouched, expected = batch.clone(), normalizer(batch)
        assert torch.equal(frozen(batch), expected) and frozen(batch).dtype == dtype
        assert torch.equal(batch, untouched)
    normalizer.update(raw.flip(0)[0] // 2, world)
    assert torch.equal(frozen(batch), expected)
    assert torch.equal(normalizer(batch), expected) is (kind != "floats")


def test_observations_are_not_changed_in_place(world: World) -> None:
    """The rollout keeps what the environment showed."""
    normalizer = make_observations((2,))
    data = torch.randn(20, 2, generator=torch.Generator().manual_seed(2))
    normalizer.update(data, world)
    before = data.clone()
    normalizer(data)
    assert torch.equal(data, before)


def returns_of_episodes(rewards: NDArray[np.float64], done: NDArray[np.bool_], gamma: float) -> list[float]:
    """Every discounted return so far, one row and one episode after the other; each sum written out."""
    returns = []
    for row in range(rewards.shape[1]):
        begin = 0
        for t in range(len(rewards)):
            returns.append(sum(gamma ** (t - k) * rewards[k, row] for k in range(begin, t + 1)))
            if done[t, row]:
                begin = t + 1
    return returns


@pytest.mark.parametrize("gamma", [0.99, 0.5])
def test_return_normalizer_is_its_definition(world: World, gamma: float) -> None:
    """Rewards are divided by the std of discounted returns, which go on from rollout to rollout until a done."""
    generator = torch.Generator().manual_seed(3)
    rewards = 3 + 5 * torch.randn(40, 6, generator=generator)
    done = torch.rand(40, 6, generator=generator) < 0.15
    done[9, 0], done[9, 1] = True, False  # at the end of the first rollout
    normalizer = ReturnNormalizer(6, gamma=gamma, enabled=True, clip=1000.0, device=CPU)
    for end in (10, 20, 30, 40):
        normalizer.update(rewards[end - 10 : end], done[end - 10 : end], world)
        returns = returns_of_episodes(rewards[:end].double().numpy(), done[:end].numpy(), gamma)
        np.testing.assert_allclose(normalizer.moments.std.item(), np.std(returns), rtol=1e-11)
        expected = rewards / float(np.std(returns))
        torch.testing.assert_close(normalizer(rewards), expected, rtol=1e-5, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_running_returns_have_the_bits_of_their_recursion(world: World, dtype: torch.dtype) -> None:
    """Written out in numpy, one rounding per operation: the C++ kernel, and what it feeds to the moments."""
    generator = torch.Generator().manual_seed(4)
    rewards = torch.randn(17, 37, generator=generator, dtype=torch.float64).to(dtype)
    done = torch.rand(17, 37, generator=generator) < 0.2
    normalizer = ReturnNormalizer(37, gamma=0.97, enabled=True, clip=10.0, device=CPU)
    moments = RunningMoments((), CPU)
    running = np.zeros(37)
    for first in (0, 9):
        part = slice(first, first + 9)
        returns = []
        for reward, ends in zip(rewards[part].numpy(), done[part].numpy(), strict=True):
            running = running * 0.97 + reward
            returns.append(running)
            running = np.where(ends, 0, running)
        moments.update(torch.from_numpy(np.stack(returns)), world)
        normalizer.update(rewards[part], done[part], world)
        assert normalizer.running.numpy().tobytes() == running.tobytes()
        assert normalizer.moments.state_dict() == moments.state_dict()


def test_rewards_keep_their_sign_and_are_clipped(world: World) -> None:
    """Only the scale changes: no mean is subtracted."""
    normalizer = ReturnNormalizer(2, gamma=0.0, enabled=True, clip=3.0, device=CPU)
    normalizer.update(torch.tensor([[1.0, 5.0]]), torch.tensor([[False, False]]), world)  # std 2
    result = normalizer(torch.tensor([[1.0, 5.0], [-1.0, 0.0], [100.0, -100.0]]))
    torch.testing.assert_close(result, torch.tensor([[0.5, 2.5], [-0.5, 0.0], [3.0, -3.0]]))


def test_disabled_return_normalizer_passes_rewards_unchanged(world: World) -> None:
    normalizer = ReturnNormalizer(2, gamma=0.9, enabled=False, clip=1.0, device=CPU)
    rewards = torch.tensor([[100.0, -7.0]])
    normalizer.update(rewards, torch.tensor([[False, True]]), world)
    assert torch.equal(normalizer(rewards), rewards)
    assert normalizer.moments.count.item() == 0
