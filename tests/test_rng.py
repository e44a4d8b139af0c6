"""The keyed generator: Philox4x32-10 as published, and the action noise as the documented function of its key."""

import numpy as np
import pytest

from dist_trainer import _cpp_envs

ONES = 0xFFFFFFFF

# "kat_vectors" of Random123, the authors' own implementation.
PUBLISHED = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((ONES, ONES, ONES, ONES), (ONES, ONES), (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]
NOISE = 2  # the purpose of a stream: 0 reset, 1 step, 2 noise


@pytest.mark.parametrize(("counter", "key", "expected"), PUBLISHED)
def test_philox_matches_the_published_vectors(
    counter: tuple[int, ...], key: tuple[int, ...], expected: tuple[int, ...]
) -> None:
    assert tuple(_cpp_envs.philox4x32(counter, key)) == expected


def noise_by_hand(seed: int, env: int, step: int, count: int) -> list[float]:
    """rng.h in Python: the key is the seed, the counter is (block, step, high bits of the step and purpose, env)."""
    key = (seed & ONES, seed >> 32)
    words: list[int] = []
    for block in range(-(-count // 4)):
        words += _cpp_envs.philox4x32((block, step & ONES, ((step >> 32) << 8) | NOISE, env), key)
    return [((word >> 9) + 0.5) / 2**23 for word in words[:count]]


# 3 agents of 2 components: 6 numbers per environment, so that a second block of 4 is needed.
@pytest.mark.parametrize(("name", "per_env"), [("probe_discrete", 1), ("probe_multi_discrete", 6)])
@pytest.mark.parametrize("seed", [7, 0xFEDCBA9876543210])
def test_noise_is_a_function_of_seed_environment_and_step(name: str, per_env: int, seed: int) -> None:
    first_env, num_envs = 1000, 21  # two groups of 8, which are drawn together, and 5 that are drawn singly
    pool = _cpp_envs.Pool(name=name, params={}, num_envs=num_envs, first_env=first_env, seed=seed, threads=1)
    pool.reset()
    noise = pool.buffers()["noise"]
    for step in range(40):  # past the end of an episode: steps count over the whole run
        expected = [noise_by_hand(seed, first_env + env, step, per_env) for env in range(num_envs)]
        assert noise.reshape(num_envs, per_env).tolist() == expected
        pool.send()
        pool.recv()


def test_noise_is_uniform_and_strictly_inside_the_unit_interval() -> None:
    pool = _cpp_envs.Pool(name="probe_multi_discrete", params={}, num_envs=512, first_env=0, seed=3, threads=1)
    pool.reset()
    noise = pool.buffers()["noise"]
    draws = []
    for _ in range(100):
        draws.append(noise.copy())
        pool.send()
        pool.recv()
    values = np.concatenate(draws)  # 153,600 draws of each of 2 components
    assert values.min() > 0 and values.max() < 1
    counts = np.histogram(values, bins=16, range=(0, 1))[0]
    expected = values.size / 16
    assert ((counts - expected) ** 2 / expected).sum() < 45  # chi-squared, 15 degrees of freedom: p < 1e-4 beyond
    assert abs(np.corrcoef(values.T)[0, 1]) < 0.02
    assert abs(np.corrcoef(draws[0][:, 0], draws[1][:, 0])[0, 1]) < 0.1
