"""The scaling model: fits recover what synthetic costs were made of, predictions are arithmetic that a hand can do."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from benchmarks.scaling_gpu import NETWORKS, NODE, Device, all_gather_line, all_reduce_line
from benchmarks.scaling_model import (
    Line,
    Links,
    Phases,
    Prediction,
    Work,
    crowding,
    efficiency,
    expected_maximum,
    fit_line,
    links_over_learners,
    owner_loads,
    predict,
    shared_seconds,
    slowed,
    spread_for,
    worst_error,
)
from benchmarks.scaling_records import CollectivePoint, Message, Record, WorkRecord, read, write

SIZES = (24, 1024, 16_384, 131_072, 1_048_576, 4_194_304)
PHASES = Phases(Line(0.001, 1e-5), Line(0.002, 2e-5), Line(0.010, 3e-4), units=(0.004, 0.003, 0.002, 0.001))
WORK = Work(minibatches=16, parameters=1000, unit_numbers=(400, 300, 200, 100), small_messages=(24, 24))
LINKS = Links(all_reduce=Line(1e-4, 1e-9), all_gather=Line(2e-4, 2e-9))


def sharded(owners: tuple[int, ...], group: int) -> Work:
    return Work(16, 1000, (400, 300, 200, 100), (24, 24), owners, group)


def test_a_fit_recovers_alpha_and_beta() -> None:
    alpha, beta = 250e-6, 1.5e-9
    line = fit_line([(size, alpha + beta * size) for size in SIZES])
    assert line.fixed == pytest.approx(alpha) and line.each == pytest.approx(beta)
    assert worst_error(line, [(size, alpha + beta * size) for size in SIZES]) < 1e-9


def test_a_fit_of_noisy_times_is_near() -> None:
    noise = random.Random(1)
    points = [(size, (250e-6 + 1.5e-9 * size) * noise.uniform(0.95, 1.05)) for size in SIZES for _ in range(5)]
    line = fit_line(points)
    assert line.fixed == pytest.approx(250e-6, rel=0.05) and line.each == pytest.approx(1.5e-9, rel=0.05)


@pytest.mark.parametrize("points", [[(1, 1.0), (2, 4.0)], [(1, 4.0), (2, 1.0)]], ids=["steep", "falling"])
def test_neither_part_of_a_fit_is_negative(points: list[tuple[float, float]]) -> None:
    line = fit_line(points)
    assert line.fixed >= 0 and line.each >= 0
    assert line.fixed == 0 or line.each == 0


def test_one_size_gives_a_constant() -> None:
    assert fit_line([(8, 2.0), (8, 2.0)]) == Line(2.0, 0.0)


def test_a_floor_counts_where_it_is_higher() -> None:
    line = Line(1.0, 1.0, floor=5.0)
    assert [line.at(x) for x in (0, 4, 9)] == [5, 5, 10]


def test_links_over_learners_recover_their_law() -> None:
    alpha, beta = links_over_learners({w: Line(1e-4 + 3e-5 * (w - 1), 1e-9 + 2e-10 * (w - 1)) for w in (2, 4, 8)})
    assert (alpha.fixed, alpha.each) == pytest.approx((1e-4, 3e-5))
    assert (beta.fixed, beta.each) == pytest.approx((1e-9, 2e-10))


def test_links_of_one_number_of_learners_grow_in_proportion() -> None:
    alpha, beta = links_over_learners({3: Line(1e-4, 1e-9)})
    assert (alpha.at(4), beta.at(4)) == pytest.approx((2e-4, 2e-9))


def test_one_learner_alone_communicates_nothing() -> None:
    found = predict(PHASES, WORK, LINKS, rows=100, learners=1, cores=2)
    assert found.environment == pytest.approx(0.002)
    assert found.inference == pytest.approx(0.004)
    assert found.learning == pytest.approx(0.040)
    assert found.optimizer == pytest.approx(16 * 0.010)
    assert found.gradient_latency == found.gradient_bandwidth == found.small_messages == found.weights_gather == 0
    assert found.seconds == pytest.approx(0.206)
    assert found.limiting == "optimizer"


def test_four_learners_on_two_cores_take_turns() -> None:
    found = predict(PHASES, WORK, LINKS, rows=100, learners=4, cores=2)
    assert found.environment == pytest.approx(2 * 0.002)
    assert found.learning == pytest.approx(2 * 0.040)
    assert found.optimizer == pytest.approx(2 * 16 * 0.010)
    assert found.gradient_latency == pytest.approx(16 * 1e-4)
    assert found.gradient_bandwidth == pytest.approx(16 * 4000 * 1e-9)
    assert found.small_messages == pytest.approx(2 * (1e-4 + 24e-9))


def test_with_devices_of_their_own_the_fullest_owner_is_waited_for() -> None:
    found = predict(PHASES, sharded((0, 1, 1, 0), 2), LINKS, rows=100, learners=2)
    assert found.optimizer == pytest.approx(16 * 0.005)  # 0.004 + 0.001, and 0.003 + 0.002
    assert found.weights_gather == pytest.approx(16 * (2e-4 + 2e-9 * 4 * 500))
    skewed = predict(PHASES, sharded((0, 0, 0, 1), 2), LINKS, rows=100, learners=2)
    assert skewed.optimizer == pytest.approx(16 * 0.009)
    assert skewed.weights_gather == pytest.approx(16 * (2e-4 + 2e-9 * 4 * 900))


@pytest.mark.parametrize(
    ("loads", "cores", "expected"),
    [
        ([3, 3, 3, 3], 2, 6),  # all take turns
        ([4, 3, 2, 1], float("inf"), 4),  # each has its own: the longest
        ([9, 1], 2, 9),
        ([1, 1, 4], 2, 4.5),  # 1 each at two thirds of the speed, then 3 alone
        ([0, 0, 2], 1, 2),
    ],
)
def test_loads_share_cores_evenly(loads: list[float], cores: float, expected: float) -> None:
    assert shared_seconds(loads, cores) == pytest.approx(expected)
    assert shared_seconds(loads, cores) >= max(max(loads), sum(loads) / cores)


def test_on_shared_cores_a_sharded_step_ends_with_its_last_owner() -> None:
    four = predict(PHASES, sharded((0, 1, 2, 3), 4), LINKS, rows=100, learners=4, cores=2)
    # 1 ms each at half the speed, 1 ms more each at two thirds of it, 1 + 1 ms at full speed
    assert four.optimizer == pytest.approx(16 * (0.002 + 0.0015 + 0.001 + 0.001))
    two = predict(PHASES, sharded((0, 0, 0, 1), 2), LINKS, rows=100, learners=2, cores=2)
    assert two.optimizer == pytest.approx(16 * 0.009)


def test_groups_repeat_each_others_work() -> None:
    found = predict(PHASES, sharded((0, 1, 1, 0), 2), LINKS, rows=100, learners=4, cores=2)
    assert found.optimizer == pytest.approx(16 * 0.010 * 2 / 2)


def test_a_group_of_one_is_replicated() -> None:
    alone = predict(PHASES, sharded((0, 0, 0, 0), 1), LINKS, rows=100, learners=4, cores=2)
    assert alone == predict(PHASES, WORK, LINKS, rows=100, learners=4, cores=2)


def test_stragglers_cost_the_expected_maximum_of_the_rollouts() -> None:
    found = predict(PHASES, WORK, LINKS, rows=100, learners=64, spread=0.1)
    assert found.stragglers == pytest.approx(0.1 * expected_maximum(64) * 0.006)
    assert predict(PHASES, WORK, LINKS, rows=100, learners=1, spread=0.1).stragglers == 0


def test_the_spread_for_an_efficiency_gives_that_efficiency() -> None:
    def pair(spread: float) -> tuple[Prediction, Prediction]:
        eight = predict(PHASES, WORK, LINKS, rows=800, learners=8, spread=spread)
        return eight, predict(PHASES, WORK, LINKS, rows=800, learners=64, spread=spread)

    eight, many = pair(0.01)
    spread = spread_for(0.9, eight, 8, many, 64)
    eight, many = pair(spread)
    assert efficiency(eight, 8, many, 64, weak=True) == pytest.approx(0.9)
    assert spread_for(0.1, eight, 8, many, 64) == float("inf")


@pytest.mark.parametrize(("learners", "expected"), [(2, 0.5642), (8, 1.4236), (64, 2.3880)])
def test_the_expected_maximum_is_near_its_true_value(learners: int, expected: float) -> None:
    draw = random.Random(0)
    simulated = sum(max(draw.gauss(0, 1) for _ in range(learners)) for _ in range(4000)) / 4000
    assert expected_maximum(learners) == pytest.approx(simulated, abs=0.08)
    assert expected_maximum(learners) == pytest.approx(expected, abs=0.06)


def test_a_slower_machine_is_slower_throughout() -> None:
    double = slowed(PHASES, 2)
    one, two = (predict(phases, WORK, LINKS, rows=100, learners=4, cores=2) for phases in (PHASES, double))
    assert two.learning == pytest.approx(2 * one.learning) and two.optimizer == pytest.approx(2 * one.optimizer)
    assert two.environment == pytest.approx(2 * one.environment) and two.inference == pytest.approx(2 * one.inference)
    assert two.gradient_latency == one.gradient_latency


@pytest.mark.parametrize(("learners", "cores", "expected"), [(1, 2, 1), (2, 2, 1), (4, 2, 2), (8, 2, 4), (3, 2, 1.5)])
def test_crowding_is_learners_per_core(learners: int, cores: int, expected: float) -> None:
    assert crowding(learners, cores) == expected


def test_efficiency_is_throughput_per_learner() -> None:
    eight = predict(PHASES, WORK, LINKS, rows=800, learners=8)
    assert efficiency(eight, 8, eight, 8, weak=False) == efficiency(eight, 8, eight, 8, weak=True) == 1
    wide = predict(PHASES, WORK, LINKS, rows=100, learners=64)
    assert efficiency(eight, 8, wide, 64, weak=False) == pytest.approx(eight.seconds / wide.seconds / 8)
    same = predict(PHASES, WORK, LINKS, rows=800, learners=64)
    assert efficiency(eight, 8, same, 64, weak=True) == pytest.approx(eight.seconds / same.seconds)


def test_owner_loads_add_up() -> None:
    assert owner_loads((4.0, 3.0, 2.0, 1.0), (0, 1, 1, 0), 3) == [5.0, 5.0, 0.0]


@pytest.mark.parametrize("gradient", [600_000, 36_000_000])
def test_links_more_gpus_and_slower_networks_take_longer(gradient: int) -> None:
    device = Device()
    for network in NETWORKS:
        times = [all_reduce_line(network, device, gpus, gradient).at(gradient) for gpus in (8, 16, 32, 64)]
        assert times == sorted(times)
    times = [all_reduce_line(network, device, 64, gradient).at(gradient) for network in NETWORKS]
    assert times == sorted(times) and times[0] < times[-1]
    in_a_node = {all_reduce_line(network, device, NODE, gradient).at(gradient) for network in NETWORKS}
    assert len(in_a_node) == 1  # no network is used in one node


def test_large_messages_move_at_the_bandwidth_of_the_slowest_link() -> None:
    device, size = Device(), 1e9
    ethernet = NETWORKS[2]
    assert ethernet.between is not None
    expected = 2 * 7 / 8 * size / (device.nvlink_gbs * 1e9) + 2 * 7 / 8 * (size / 8) / ethernet.between
    assert all_reduce_line(ethernet, device, 64, size).at(size) == pytest.approx(expected, rel=0.01)
    part = 1e8
    assert all_gather_line(device, 8, part).at(part) == pytest.approx(7 * part / (device.nvlink_gbs * 1e9), rel=0.02)


def test_records_survive_their_file(tmp_path: Path) -> None:
    work = WorkRecord(
        "muon", 128, 10, 16, 4, [6, 4], [9, 9], [100, 0], 5, 7, [Message("all_reduce", 24)], {"1": [0, 0], "2": [0, 1]}
    )
    points = [CollectivePoint("all_reduce", 24, 1e-4)]
    record = Record(2, 1, 2, "cpu", "2.13", "breakout", 65_536, 64, works=[work], collectives=points)
    write(record, tmp_path / "record.json")
    assert read(Record, tmp_path / "record.json") == record
