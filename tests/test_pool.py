"""The pool: the same numbers however it is threaded, cut or interrupted."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.pools import ALL, ENVS, assert_same_streams, choose_actions, contents, make_pool, step, stream


@pytest.mark.parametrize("threads", [2, 7])
@pytest.mark.parametrize("name", ALL)
def test_threads_do_not_change_the_streams(name: str, threads: int) -> None:
    alone, threaded = make_pool(name), make_pool(name, threads=threads)
    assert_same_streams(stream(name, [alone], 320), stream(name, [threaded], 320))
    assert alone.take_statistics() == threaded.take_statistics()


@pytest.mark.parametrize("name", ALL)
def test_cutting_the_environments_over_pools_does_not_change_the_streams(name: str) -> None:
    whole = make_pool(name, first_env=5)
    parts = [make_pool(name, num_envs=7, first_env=5), make_pool(name, num_envs=5, first_env=12, threads=2)]
    assert_same_streams(stream(name, [whole], 320), stream(name, parts, 320))


@pytest.mark.parametrize("name", ALL)
def test_seeds_environments_and_episodes_differ(name: str) -> None:
    one, other = make_pool(name, seed=1), make_pool(name, seed=2)
    ours, theirs = list(stream(name, [one], 30)), list(stream(name, [other], 30))
    assert any((a["observations"] != b["observations"]).any() for a, b in zip(ours, theirs, strict=True))
    assert (ours[0]["noise"] != theirs[0]["noise"]).all()
    assert len(np.unique(ours[0]["noise"])) == ours[0]["noise"].size
    assert any((a["observations"] != a["observations"][0]).any() for a in ours)


@pytest.mark.parametrize("name", ALL)
def test_reset_begins_again(name: str) -> None:
    used, fresh = make_pool(name, threads=2), make_pool(name)
    for _ in range(50):
        step(name, used)
    used.reset()
    assert_same_streams(stream(name, [used], 50), stream(name, [fresh], 50))


# --- Probe: every number is known in advance -------------------------------------------------------------------------

PROBES = {"probe_discrete": (1, 1), "probe_multi_discrete": (3, 2), "probe_continuous": (1, 2), "probe_image": (2, 1)}


def read_probe(name: str, observations: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The targets (rows, components) and the steps (rows,) that the observations show."""
    if name == "probe_image":
        columns = observations[:, 0, 0, :]
        assert (observations[:, 0, :-1, :] == columns[:, None, :]).all() and set(np.unique(columns)) == {0, 255}
        assert (columns[:, :4].sum(axis=1, dtype=int) == 255).all() and not columns[:, 4:].any()
        assert not observations[:, 0, -1, :-1].any()
        return columns.argmax(axis=1)[:, None], observations[:, 0, -1, -1].astype(np.int64)
    one_hot = observations[:, :-1].reshape(len(observations), -1, 4)
    assert (one_hot.sum(axis=2) == 1).all()
    return one_hot.argmax(axis=2), observations[:, -1].astype(np.int64)


@pytest.mark.parametrize("truncate", [0, 1])
@pytest.mark.parametrize("name", PROBES)
def test_probe_rewards_ends_and_final_observations(name: str, truncate: int) -> None:
    length, (agents, components) = 5, PROBES[name]
    pool = make_pool(name, threads=2, episode_steps=length, truncate=truncate)
    buffers = pool.buffers()
    rows = ENVS * agents
    dtype = np.uint8 if name == "probe_image" else np.float32
    assert buffers["observations"].dtype == buffers["final_observations"].dtype == dtype
    assert buffers["actions"].shape == buffers["noise"].shape == (rows, components)
    hits = np.zeros(rows, int)
    expected_statistics = np.zeros(4)
    returns = np.zeros(rows)
    for index in range(1, 4 * length + 1):
        targets, steps = read_probe(name, buffers["observations"])
        assert (steps == (index - 1) % length).all()
        old_final = buffers["final_observations"].copy()
        buffers["actions"][:] = choose_actions(name, buffers)
        buffers["actions"][::2] = (targets - 1.5 if name == "probe_continuous" else targets)[::2]  # these hit
        pool.send()
        pool.recv()
        if name == "probe_continuous":
            misses = np.abs(np.clip(buffers["actions"].astype(np.float64), -2, 2) - (targets - 1.5))
            rewards = (1 - misses).sum(axis=1)
        else:
            rewards = (buffers["actions"] == targets).sum(axis=1)
        assert buffers["rewards"] == pytest.approx(rewards, abs=1e-6)
        hits += rewards > 0.9 * components
        returns += rewards
        over = index % length == 0
        assert (buffers["truncated"] == (over and truncate == 1)).all()
        assert (buffers["terminated"] == (over and truncate == 0)).all()
        if over and truncate:
            _, final_steps = read_probe(name, buffers["final_observations"])
            assert (final_steps == length).all()
        else:
            assert (buffers["final_observations"] == old_final).all()
        if over:
            expected_statistics += [rows, returns.sum(), rows * length, hits.sum()]
            hits[:], returns[:] = 0, 0
    assert 0.5 * expected_statistics[2] <= expected_statistics[3] < expected_statistics[2]  # hits, of all steps
    assert pool.take_statistics() == pytest.approx(expected_statistics, rel=1e-6)
    assert pool.take_statistics() == [0, 0, 0, 0]


def test_continuous_actions_are_clipped_to_their_bounds() -> None:
    pool = make_pool("probe_continuous")
    buffers = pool.buffers()
    for action, bound in ((100.0, 2.0), (-100.0, -2.0), (np.inf, 2.0), (-np.inf, -2.0), (2.0, 2.0)):
        targets, _ = read_probe("probe_continuous", buffers["observations"])
        buffers["actions"][:] = action
        pool.send()
        pool.recv()
        assert buffers["rewards"].tolist() == (1 - np.abs(bound - (targets - 1.5))).sum(axis=1).tolist()


# --- Statistics ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ALL)
def test_episode_statistics_equal_an_independent_sum(name: str) -> None:
    pool = make_pool(name, threads=2)
    buffers = pool.buffers()
    rows = len(buffers["rewards"])
    returns, lengths, total = np.zeros(rows), np.zeros(rows), np.zeros(3)
    ended = 0.0
    for index in range(1, 1051):
        acts = ~buffers["resting"] if "resting" in buffers else np.ones(rows, bool)
        step(name, pool)
        returns += buffers["rewards"]
        lengths += acts
        done = (buffers["terminated"] | buffers["truncated"]) & acts
        total += [done.sum(), returns[done].sum(), lengths[done].sum()]
        returns[done] = lengths[done] = 0
        if index % 150 == 0:
            assert pool.take_statistics()[:3] == pytest.approx(total, rel=1e-12, abs=1e-12)
            ended += total[0]
            total[:] = 0
    assert ended > 0


# --- Snapshots -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ALL)
def test_a_restored_pool_goes_on_bit_for_bit(name: str) -> None:
    original = make_pool(name, threads=2)
    for _ in range(37):  # in the middle of episodes
        step(name, original)
    rows = original.snapshot()
    before = contents(original.buffers())
    other = make_pool(name, seed=1)  # the seed is the pool's, not the snapshot's
    step(name, other)
    other.restore(rows)
    parts = [make_pool(name, num_envs=4), make_pool(name, num_envs=8, first_env=4, threads=3)]
    parts[0].restore(rows[:4])
    parts[1].restore(rows[4:])
    for pools in ([other], parts):
        now = [contents(pool.buffers()) for pool in pools]
        for key in ("observations", "noise"):
            assert np.concatenate([part[key] for part in now]).tobytes() == before[key].tobytes()
    assert np.concatenate([part.snapshot() for part in parts]).tobytes() == rows.tobytes()
    original_stream, other_stream, parts_stream = (list(stream(name, p, 200)) for p in ([original], [other], parts))
    assert_same_streams(iter(original_stream[1:]), iter(other_stream[1:]))
    assert_same_streams(iter(original_stream[1:]), iter(parts_stream[1:]))
    totals = np.sum([part.take_statistics() for part in parts], axis=0)
    assert original.take_statistics() == other.take_statistics() == pytest.approx(totals, rel=1e-12)


def test_a_snapshot_of_another_shape_is_refused() -> None:
    pool = make_pool("cartpole")
    rows = pool.snapshot()
    assert rows.shape[0] == ENVS and rows.dtype == np.uint8
    for wrong in (rows[:-1], rows[:, :-1], np.concatenate([rows, rows]), rows[0], rows[None]):
        with pytest.raises(ValueError, match=rf"shape \({ENVS}, {rows.shape[1]}\)"):
            pool.restore(wrong)
    with pytest.raises(TypeError):
        pool.restore(rows.astype(np.float32))
    assert pool.snapshot().tobytes() == rows.tobytes()
