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


@pytest.mark.parametrize("name", PICTURED)
def test_agents_are_where_the_picture_says(name: str) -> None:
    """Those of many agents; there is something to be seen."""
    pool = make_pool(name)
    height, width = _cpp_envs.spec(name, {}).picture
    if name not in ("snake", "quadrotors", "moba", "mmo"):
        assert pool.places(0) is None
        return
    for _ in range(5):
        places, picture = pool.places(0), pool.render(0)
        assert places is not None and places.shape == (_cpp_envs.spec(name, {}).num_agents, 2)
        shown = places[places[:, 0] >= 0]
        assert len(shown) >= 5 and (shown < [width, height]).all() and (shown[:, 1] > 26).all()
        panel = (30, 39, 58)  # kPanel of palette.h: where nothing is
        x, y = shown.astype(int).T
        assert (picture[y, x] != panel).any(1).mean() > 0.9
        if name == "snake":
            assert (pool.buffers()["resting"][: len(places)] == (places[:, 0] < 0)).all()
        step(name, pool)


@pytest.mark.parametrize("name", ["cartpole", "connect4", "probe_masks", "snake"])
def test_how_an_episode_ended_can_be_seen(name: str) -> None:
    pool = make_pool(name, num_envs=1)
    pictured = name in PICTURED
    with pytest.raises(RuntimeError if pictured else ValueError, match=r"no episode has ended|no render"):
        pool.render(0, at_end=True)
    pool.keep_ends()
    for _ in range(1100):
        before = pool.render(0) if pictured else None
        buffers = step(name, pool)
        if "resting" not in buffers:
            assert pool.ends(0) == (buffers["terminated"] | buffers["truncated"]).all()
        if pool.ends(0):
            break
    assert pool.ends(0) == 1
    if before is not None:
        last, now = pool.render(0, at_end=True), pool.render(0)
        assert (last != before).any() and (last != before).sum() < (now != before).sum()  # one step later; a new start
