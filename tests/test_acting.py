"""The step of acting, without a GPU: what it does to the state, what it would do as a recorded graph, and that
collecting never reads from the device. With a GPU: tests/gpu/test_acting_cuda.py."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from dist_trainer import acting, collector
from dist_trainer.acting import forget_
from dist_trainer.cli import compose_train
from dist_trainer.collector import Collector
from dist_trainer.device_link import DeviceLink, Incoming, PageLocked
from dist_trainer.distributed import connect
from dist_trainer.envs import EnvPool
from dist_trainer.errors import ConfigError
from dist_trainer.learner import Learner, make_learner, make_observation_normalizer, make_pool, warm_up_normalizer
from dist_trainer.rollout import Rollout

SETTINGS = [
    *("total_envs=12", "horizon=16", "ppo.minibatches=2", "policy.hidden_size=16", "normalize.warmup_steps=5"),
    *("torch_threads=1", "env_threads=1", "device=cpu"),
]
CARTPOLE = ["env=cartpole", "env.params.max_steps=12"]  # episodes that are truncated and episodes that fall
IMAGE = ["env=probe_image", "env.params.episode_steps=5"]
TENSORS = (
    *("observations", "actions", "log_probs", "values", "rewards", "terminated", "done", "final_values"),
    *("last_values", "initial_state"),
)


def learner_for(*overrides: str) -> Learner:
    learner = make_learner(compose_train([*SETTINGS, *overrides])[0], connect("cpu", 60))
    warm_up_normalizer(learner)
    return learner


@pytest.mark.parametrize("shape", [(2, 5, 3), (0, 5, 0), (1, 5, 4)])
@pytest.mark.parametrize("ended", [[], [2], [0, 3, 4], [0, 1, 2, 3, 4]])
def test_a_state_is_forgotten_whatever_was_in_it(shape: tuple[int, ...], ended: list[int]) -> None:
    state = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    state[:, 3] = torch.nan
    mask = torch.tensor([row in ended for row in range(5)])
    expected = torch.where(mask[:, None], 0.0, state)
    forget_(state, mask)
    torch.testing.assert_close(state, expected, rtol=0, atol=0, equal_nan=True)
    assert not state[:, mask].signbit().any()


class Unreadable(DeviceLink):
    """To a device whose memory nobody can read: torch raises where a value would have to be known."""

    def __init__(self, pool: EnvPool, device: torch.device):
        super().__init__(pool, torch.device("cpu"))
        self.device = device
        moved: dict[str, Any] = {name: x if x is None else x.to(device) for name, x in vars(self.incoming).items()}
        self.incoming = Incoming(**moved)

    def answer(self, actions: Tensor) -> None:
        assert actions.device == self.device  # and the environments go on with the actions that they have


def collector_on_meta(*overrides: str) -> Collector:
    config = compose_train([*SETTINGS, *overrides])[0]
    meta = torch.device("meta")
    learner = learner_for(*overrides)
    normalizer = make_observation_normalizer(config, learner.pool.spec, meta)
    pool = make_pool(config, learner.world, 1)
    pool.reset()
    return Collector(pool, copy.deepcopy(learner.policy).to(meta), normalizer, config.horizon, meta)


@pytest.mark.parametrize("policy", ["lstm", "mlp"])
@pytest.mark.parametrize(
    "env",
    [["env=cartpole", "env.params.max_steps=6"], ["env=probe_continuous", "env.params.episode_steps=5"], IMAGE],
    ids=str,
)
@pytest.mark.parametrize("groups", [1, 2])
def test_collecting_never_reads_from_the_device(
    env: list[str], policy: str, groups: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Truncated episodes' values included: which they are is read from the pool."""
    monkeypatch.setattr(collector, "DeviceLink", Unreadable)
    collects = collector_on_meta(*env, f"policy={policy}", f"env_groups={groups}")
    truncated = 0
    for _ in range(2):
        rollout = collects.collect()
        assert rollout.final_values.is_meta
        assert rollout.done_counts.sum() > 0
        truncated += sum(len(part.where) for group in collects.groups for part in group.cut_off)
    assert truncated > 0


def test_a_read_would_be_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collector, "DeviceLink", Unreadable)
    collects = collector_on_meta(*CARTPOLE)
    act = collects.policy.act

    def reading(observations: Tensor, state: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        assert observations.sum() != 1
        return act(observations, state)

    monkeypatch.setattr(collects.policy, "act", reading)
    with pytest.raises(RuntimeError, match="meta"):
        collects.collect()


class Graph(TorchDispatchMode):
    """A CUDA graph on the CPU: notes each operator with the very tensors that it was given and that it made, and does
    them again without the Python around them, into the same memory."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, Any, Any, Any]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self.calls.append((func, args, kwargs or {}, result))
        return result

    @torch.no_grad()
    def replay(self) -> None:
        for func, args, kwargs, result in self.calls:
            again = func(*args, **kwargs)
            for old, new in zip(tree_leaves(result), tree_leaves(again), strict=True):
                if isinstance(old, Tensor) and old.data_ptr() != new.data_ptr():
                    old.copy_(new)


class Stream:
    def wait_stream(self, other: object) -> None:
        assert isinstance(other, Stream)


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> list[Graph]:
    """torch.cuda's graphs and streams, for the CPU. The graphs that were recorded."""
    made: list[Graph] = []

    @contextmanager
    def recording(graph: Graph, capture_error_mode: str) -> Iterator[None]:
        made.append(graph)
        with graph:
            yield

    for name, value in {
        "CUDAGraph": Graph,
        "graph": recording,
        "Stream": Stream,
        "current_stream": Stream,
        "stream": lambda _: nullcontext(),
    }.items():
        monkeypatch.setattr(torch.cuda, name, value)
    # As a GPU does it: which rows have ended cannot be asked in a graph
    monkeypatch.setattr(acting, "forget_", lambda state, ended: state.masked_fill_(ended[:, None], 0))
    return made


def act_by_graph(learner: Learner) -> None:
    for group in learner.collector.groups:
        group.step.graph = True


def assert_same_bits(one: Rollout, other: Rollout) -> None:
    for name in TENSORS:
        assert torch.equal(getattr(one, name), getattr(other, name)), name
    assert one.done_counts.tolist() == other.done_counts.tolist()


def new_weights(learner: Learner, seed: int) -> None:
    """In place, as optimizers and checkpoints change them; and new statistics."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in learner.policy.parameters():
            weight.add_(0.1 * torch.randn(weight.shape, generator=generator, dtype=weight.dtype))
    if learner.observations.moments:
        learner.observations.moments.mean.add_(0.1 * seed)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("env", [CARTPOLE, IMAGE, ["env=probe_continuous", "policy=mlp"]], ids=str)
def test_a_recorded_step_acts_like_the_plain_one(
    env: list[str], groups: int, precision: str, graphs: list[Graph]
) -> None:
    """It is recorded once, and goes on with the weights, statistics and recurrent states that there are."""
    settings = [*env, f"env_groups={groups}", f"precision={precision}"]
    plain, recorded = learner_for(*settings), learner_for(*settings)
    act_by_graph(recorded)
    ended = 0
    for iteration in range(3):
        rollout = plain.collector.collect()
        assert_same_bits(recorded.collector.collect(), rollout)
        assert torch.equal(recorded.collector.state, plain.collector.state)
        ended += int(rollout.done.sum())
        for learner in (plain, recorded):
            new_weights(learner, iteration)
    assert ended > 0
    assert len(graphs) == groups


def test_a_step_is_recorded_anew_when_the_weights_have_moved(graphs: list[Graph]) -> None:
    """Else it would go on with the old ones."""
    plain, recorded = learner_for(*CARTPOLE), learner_for(*CARTPOLE)
    act_by_graph(recorded)
    assert_same_bits(recorded.collector.collect(), plain.collector.collect())
    for learner in (plain, recorded):
        weight = learner.policy.action_head.get_parameter("logits.weight")
        weight.data = weight.data + 1
    assert_same_bits(recorded.collector.collect(), plain.collector.collect())
    assert len(graphs) == 2


def test_a_state_that_is_put_back_is_acted_from(graphs: list[Graph]) -> None:
    learner = learner_for(*CARTPOLE)
    act_by_graph(learner)
    learner.collector.collect()
    state, snapshot = learner.collector.state.clone(), learner.pool.snapshot()
    rollout = learner.collector.collect()
    kept = copy.deepcopy(rollout)
    assert not torch.equal(learner.collector.state, state)
    learner.pool.restore(snapshot)
    learner.collector.state = state
    assert_same_bits(learner.collector.collect(), kept)


def test_a_policy_that_cannot_be_recorded_is_named(graphs: list[Graph], monkeypatch: pytest.MonkeyPatch) -> None:
    learner = learner_for(*CARTPOLE)
    act_by_graph(learner)

    @contextmanager
    def refusing(graph: Graph, capture_error_mode: str) -> Iterator[None]:
        yield
        raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(torch.cuda, "graph", refusing)
    with pytest.raises(
        ConfigError, match=r"cuda_graphs=True: RecurrentPolicy cannot .*not permitted.*cuda_graphs=false"
    ):
        learner.collector.collect()


def cudart(status: int, locked: dict[int, int]) -> SimpleNamespace:
    """CUDA's page-locking, which works if the status is 0. `locked`: bytes by address."""

    def register(address: int, size: int, _flags: int) -> int:
        if status == 0:
            locked[address] = size
        return status

    return SimpleNamespace(cudaHostRegister=register, cudaHostUnregister=locked.pop)


def test_pages_are_locked_until_nobody_needs_them(monkeypatch: pytest.MonkeyPatch) -> None:
    locked: dict[int, int] = {}
    monkeypatch.setattr(torch.cuda, "cudart", lambda: cudart(0, locked))
    buffer = np.arange(100)
    page_locked = PageLocked(buffer, torch.device("cpu"))
    assert page_locked.in_place and locked == {buffer.ctypes.data: 800}
    assert page_locked.for_device().data_ptr() == buffer.ctypes.data
    page_locked.tensor.fill_(3)
    page_locked.to_pool()
    assert (buffer == 3).all()
    del page_locked
    assert not locked


def test_without_locked_pages_a_copy_stands_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "cudart", lambda: cudart(1, {}))
    asked = []

    def page_locked_copy(tensor: Tensor, pin_memory: bool) -> Tensor:
        asked.append(pin_memory)
        return torch.zeros_like(tensor)

    monkeypatch.setattr(torch, "empty_like", page_locked_copy)
    buffer = np.arange(100)
    page_locked = PageLocked(buffer, torch.device("cpu"))
    assert asked == [True] and not page_locked.in_place
    assert page_locked.for_device().tolist() == list(range(100))
    assert page_locked.for_device().data_ptr() != buffer.ctypes.data
    page_locked.tensor.fill_(5)
    assert buffer.tolist() == list(range(100))
    page_locked.to_pool()
    assert (buffer == 5).all()
