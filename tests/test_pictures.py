"""Pictures of environments: a function of the state alone, which changes nothing. For the canvas see tests/cpp."""

import numpy as np
import pytest

from dist_trainer import _cpp_envs
from dist_trainer.config import EnvConfig
from dist_trainer.envs import EnvPool, env_spec
from tests.pools import ALL, ENVS, contents, make_pool, step

PICTURED = [name for name in ALL if any(_cpp_envs.spec(name, {}).picture)]
PLAIN = [name for name in ALL if name not in PICTURED]


def pictures(pool: _cpp_envs.Pool) -> bytes:
    return b"".join(pool.render(env).tobytes() for env in (0, 5, ENVS - 1))


@pytest.mark.parametrize("name", PICTURED)
def test_a_picture_is_a_function_of_the_state(name: str) -> None:
    pool, same = make_pool(name), make_pool(name, threads=3)
    seen = set()
    for _ in range(12):
        picture = pool.render(0)
        assert picture.dtype == np.uint8 and picture.shape == (*_cpp_envs.spec(name, {}).picture, 3)
        assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 2
        seen.add(picture.tobytes())
        assert pictures(pool) == pictures(pool) == pictures(same)
        step(name, pool)
        step(name, same)
    assert len(seen) > 6


@pytest.mark.parametrize("name", PICTURED)
def test_rendering_changes_nothing(name: str) -> None:
    pool = make_pool(name)
    for _ in range(10):
        step(name, pool)
    rows, before = pool.snapshot(), contents(pool.buffers())
    first = pictures(pool)
    assert pool.snapshot().tobytes() == rows.tobytes()
    for key, after in contents(pool.buffers()).items():
        assert after.tobytes() == before[key].tobytes(), key
    step(name, pool)
    assert pictures(pool) != first
    other = make_pool(name, seed=7)
    for restored in (pool, other):
        restored.restore(rows)
        assert pictures(restored) == first


def test_what_cannot_be_rendered_is_named() -> None:
    assert env_spec(EnvConfig(name="cartpole")).picture == (240, 320)
    assert env_spec(EnvConfig(name=PLAIN[0])).picture is None
    with pytest.raises(ValueError, match=rf"env\.name={PLAIN[0]}: has no render"):
        make_pool(PLAIN[0]).render(0)
    for env in (-1, ENVS):
        with pytest.raises(IndexError, match=rf"render\({env}\): the environments of this pool are 0 to {ENVS - 1}"):
            make_pool("cartpole").render(env)
    pool = EnvPool(EnvConfig(name="cartpole"), num_envs=2, first_env=0, seed=0, threads=2)
    with pytest.raises(RuntimeError, match=r"render\(\) on a pool that is new"):
        pool.render(0)
    pool.reset()
    pool.actions[:] = 0
    pool.send()
    with pytest.raises(RuntimeError, match=r"render\(\) while a step is in flight"):
        pool.render(0)
    pool.recv()
    assert pool.render(1).shape == (240, 320, 3)
