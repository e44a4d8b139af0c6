// Steps every registered environment with random valid actions, under the sanitizers of sanitize.sh: one thread, many,
// or processes, restored from a snapshot or not, the numbers must be the same, and finite.
//
// Usage: exercise_envs [steps per environment]; the program env_worker must lie beside it.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <limits>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "registry.h"

namespace dist_trainer {
namespace {

constexpr int kEnvs = 13;  // not a multiple of any number of threads
constexpr std::uint64_t kSeed = 0x123456789ABCDEF;

void require(bool holds, const std::string& what) {
  if (!holds) throw std::runtime_error(what);
}

std::unique_ptr<Pool> make_pool(const std::string& name, int threads, int envs = kEnvs) {
  return find_env(name).make_pool({.name = name, .num_envs = envs, .seed = kSeed, .workers = threads}, {});
}

std::string worker_program;

std::unique_ptr<Pool> make_pool_of_processes(const std::string& name, int processes, int envs = kEnvs,
                                             const ParamValues& params = {}) {
  PoolConfig config{.name = name, .num_envs = envs, .seed = kSeed, .workers = processes};
  // A sanitizer slows everything down, and prints a report before a process ends.
  config.processes = ProcessConfig{.program = worker_program, .step_timeout_s = 1, .max_restarts = 1000};
  return find_env(name).make_pool(std::move(config), params);
}

// Environments of so many rows; where one has hundreds of agents, a few more rows.
int envs_of(const std::string& name, int rows) { return std::max(kEnvs, rows / find_env(name).spec({}).num_agents); }

std::size_t observation_bytes(const Pool& pool) {  // of one row
  return static_cast<std::size_t>(pool.spec().observation_size()) * (pool.observations_are_bytes() ? 1 : sizeof(float));
}

// The first legal choice from this one on.
int next_legal(const Pool& pool, std::size_t row, std::size_t component, int choice) {
  const ActionSpec& spec = pool.spec().action;
  const bool* legal = pool.legal + row * static_cast<std::size_t>(spec.choices());
  for (std::size_t i = 0; i < component; ++i) legal += spec.sizes[i];
  while (!legal[choice]) choice = (choice + 1) % spec.sizes[component];
  return choice;
}

// The noise picks the actions; continuous ones go beyond the bounds now and then, where they are clipped.
void choose_actions(Pool& pool) {
  const ActionSpec& spec = pool.spec().action;
  const auto components = static_cast<std::size_t>(spec.components());
  for (std::size_t i = 0; i < static_cast<std::size_t>(pool.rows()) * components; ++i) {
    const std::size_t component = i % components;
    if (spec.kind == ActionKind::kContinuous) {
      const float low = spec.low[component], high = spec.high[component];
      reinterpret_cast<float*>(pool.actions)[i] = low + (high - low) * (1.2F * pool.noise[i] - 0.1F);
    } else {
      const int size = spec.sizes[component];
      int choice = std::min(static_cast<int>(pool.noise[i] * static_cast<float>(size)), size - 1);
      if (pool.features().legal) choice = next_legal(pool, i / components, component, choice);
      reinterpret_cast<std::int32_t*>(pool.actions)[i] = choice;
    }
  }
}

void step(Pool& pool) {
  choose_actions(pool);
  pool.send();
  pool.recv();
}

// Final observations count only where they were written: in truncated rows.
void require_same(const Pool& a, const Pool& b, const std::string& when) {
  const auto rows = static_cast<std::size_t>(a.rows()), row_bytes = observation_bytes(a);
  const auto components = static_cast<std::size_t>(a.spec().action.components());
  const auto same = [](const void* left, const void* right, std::size_t bytes) {
    return std::memcmp(left, right, bytes) == 0;
  };
  require(same(a.observations, b.observations, rows * row_bytes), "observations differ " + when);
  require(same(a.noise, b.noise, rows * components * sizeof(float)), "noise differs " + when);
  require(same(a.rewards, b.rewards, rows * sizeof(float)), "rewards differ " + when);
  require(same(a.terminated, b.terminated, rows), "terminated differs " + when);
  require(same(a.truncated, b.truncated, rows), "truncated differs " + when);
  for (std::size_t row = 0; row < rows; ++row) {
    const std::size_t at = row * row_bytes;
    require(!a.truncated[row] || same(a.final_observations + at, b.final_observations + at, row_bytes),
            "final observations differ " + when);
  }
}

void require_same_pictures(const Pool& a, const Pool& b, const std::string& when) {
  const auto [width, height] = a.spec().picture;
  if (width == 0) return;
  std::vector<std::uint8_t> left(static_cast<std::size_t>(width * height * 3)), right(left.size(), 1);
  std::vector<Point> places(static_cast<std::size_t>(a.spec().num_agents));
  for (int env = 0; env < kEnvs; ++env) {
    a.places(env, places);
    a.render(env, false, left.data());
    b.render(env, false, right.data());
    require(left == right, "pictures differ " + when);
    if (a.ends(env) > 0) a.render(env, true, left.data());
    for (const Point at : places) require(at.x < static_cast<float>(width) && at.y < static_cast<float>(height), when);
  }
}

void require_finite(const Pool& pool, const std::string& when) {
  const auto rows = static_cast<std::size_t>(pool.rows());
  require(std::all_of(pool.rewards, pool.rewards + rows, [](float x) { return std::isfinite(x); }),
          "a reward is not finite " + when);
  if (pool.observations_are_bytes()) return;
  const auto* values = reinterpret_cast<const float*>(pool.observations);
  const std::size_t count = rows * static_cast<std::size_t>(pool.spec().observation_size());
  require(std::all_of(values, values + count, [](float x) { return std::isfinite(x); }),
          "an observation is not finite " + when);
}

// However many environments draw together, at steps beyond 2^32, around the end of the ids and of a block of 4 draws.
void exercise_noise() {
  constexpr int kStreams = 21;
  std::vector<std::uint64_t> steps(kStreams);
  Rng any(kSeed, 0, 0, Purpose::kStep);
  for (std::uint64_t& step : steps) step = std::uint64_t{any.next()} << 24 | any.next() >> 8;
  for (const int draws : {1, 2, 3, 4, 5, 8, 9}) {
    for (const std::uint32_t first_env : {0U, 1000U, 0xFFFFFFF0U}) {
      const NoiseStreams streams{kSeed, first_env, steps.data(), kStreams, draws};
      std::vector<float> together(kStreams * static_cast<std::size_t>(draws)), singly(together.size());
      draw_noise(streams, together.data());
      draw_noise_singly(streams, 0, singly.data());
      require(together == singly, "noise of " + std::to_string(draws) + " draws differs when streams draw together");
    }
  }
}

// Returns the number of episodes that ended.
double exercise(const std::string& name, int steps) {
  const auto alone = make_pool(name, 1), threaded = make_pool(name, 3), restored = make_pool(name, 2);
  const auto apart = make_pool_of_processes(name, 2);
  alone->keep_ends();
  for (Pool* pool : {alone.get(), threaded.get(), apart.get()}) pool->reset();
  require_same(*alone, *threaded, "after reset");
  const int middle = steps / 2;
  for (int i = 0; i < steps; ++i) {
    const std::string when = "at step " + std::to_string(i);
    if (i == middle) {
      std::vector<std::byte> rows(alone->snapshot_bytes() * kEnvs);
      threaded->snapshot(rows.data());
      restored->restore(rows.data());
    }
    for (Pool* pool : {alone.get(), threaded.get(), apart.get()}) step(*pool);
    require_same(*alone, *threaded, when + ", with 1 and 3 threads");
    require_same(*alone, *apart, when + ", with processes");
    require_finite(*alone, when);
    if (i >= middle) {
      step(*restored);
      if (i % 50 == 0) require_same_pictures(*alone, *restored, when + ", restored at step " + std::to_string(middle));
      require_same(*alone, *restored, when + ", restored at step " + std::to_string(middle));
    }
  }
  const std::vector<double> statistics = alone->take_statistics();
  require(statistics == threaded->take_statistics(), "statistics differ with 1 and 3 threads");
  require(statistics == restored->take_statistics(), "statistics differ after restore");
  require(statistics == apart->take_statistics(), "statistics differ with processes");
  require(apart->take_faults().empty(), "a worker process was lost: " + apart->config().name);
  return statistics[0];
}

// A mistake that a thread finds reaches recv(), and the pool can go on after a reset.
void refuse_an_action(const std::string& name) {
  const auto pool = make_pool(name, 3, envs_of(name, 4000));
  for (int attempt = 0; attempt < 8; ++attempt) {
    pool->reset();
    step(*pool);
    const std::size_t last = static_cast<std::size_t>(pool->rows() * pool->spec().action.components()) - 1;
    if (pool->spec().action.kind == ActionKind::kContinuous) {
      reinterpret_cast<float*>(pool->actions)[last] = NAN;
    } else {
      reinterpret_cast<std::int32_t*>(pool->actions)[last] = -1;
    }
    pool->send();
    try {
      pool->recv();
    } catch (const std::out_of_range&) {
      continue;
    }
    throw std::runtime_error("an invalid action was not refused");
  }
}

// Worker processes that are lost in every way, one or two at a time; what is left goes on.
void exercise_faults() {
  const ParamValues often{{"segfault", 1e-3}, {"exception", 1e-3}, {"nan", 1e-3}, {"reset_segfault", 1e-3}};
  const auto one = make_pool_of_processes("probe_faults", 1, 40, often);
  const auto many = make_pool_of_processes("probe_faults", 3, 40, often);
  std::size_t lost = 0;
  for (Pool* pool : {one.get(), many.get()}) pool->reset();
  for (int i = 0; i < 200; ++i) {
    for (Pool* pool : {one.get(), many.get()}) step(*pool);
    require_same(*one, *many, "at step " + std::to_string(i) + " of those with faults");
    require_finite(*one, "at step " + std::to_string(i) + " of those with faults");
    const std::size_t count = one->take_faults().size();
    require(count == many->take_faults().size(), "faults differ with 1 and 3 processes");
    lost += count;
  }
  require(lost > 5, "there were next to no faults");
  const auto hangs = make_pool_of_processes("probe_faults", 2, 40, {{"hang", 3e-3}});
  hangs->reset();
  for (int i = 0; i < 20; ++i) step(*hangs);
  require(!hangs->take_faults().empty(), "nothing hung");
}

// The check of observations, which looks at bits in wide registers, against a comparison of one number after another.
void exercise_check() {
  constexpr float kMost = std::numeric_limits<float>::max(), kInfinite = std::numeric_limits<float>::infinity();
  constexpr std::pair<float, float> kRanges[] = {{0, 1},    {-1, 1},  {-2, 3},         {-3, 2},
                                                 {0.5F, 2}, {-2, -1}, {-kMost, kMost}, {0, 0}};
  Rng random(kSeed, 1, 2, Purpose::kNoise);
  for (const auto& [low, high] : kRanges) {
    Spec spec;
    spec.observation_low = low;
    spec.observation_high = high;
    const ObservationCheck<float> check(spec);
    const float odd[] = {low,
                         high,
                         std::nextafter(low, -kInfinite),
                         std::nextafter(high, kInfinite),
                         0.0F,
                         -0.0F,
                         kInfinite,
                         -kInfinite,
                         std::nanf(""),
                         -std::nanf(""),
                         std::numeric_limits<float>::denorm_min(),
                         -std::numeric_limits<float>::denorm_min()};
    for (int trial = 0; trial < 20000; ++trial) {
      std::vector<float> values(static_cast<std::size_t>(random.below(100)));
      for (float& value : values) value = std::clamp(low * random.uniform() + high * random.uniform(), low, high);
      if (!values.empty() && trial % 4 != 0) {
        values[static_cast<std::size_t>(random.below(static_cast<int>(values.size())))] =
            odd[random.below(std::size(odd))];
      }
      const bool good = std::ranges::all_of(values, [low, high](float x) { return x >= low && x <= high; });
      require(check.all_good(values) == good,
              "the check of observations is wrong from " + number(low) + " to " + number(high));
    }
  }
}

// Destroys pools whose threads or processes have been told to step, are at it, or are done.
void destroy_in_flight(const std::string& name) {
  for (int wait = 0; wait < 8; ++wait) {
    const int envs = envs_of(name, 4000);
    const auto pool = wait % 2 == 0 ? make_pool(name, 3, envs) : make_pool_of_processes(name, 2, envs);
    pool->reset();
    pool->send();
    std::this_thread::sleep_for(std::chrono::microseconds(100 * wait));
  }
}

}  // namespace
}  // namespace dist_trainer

int main(int argc, char** argv) {
  const int steps = argc > 1 ? std::atoi(argv[1]) : 2000;
  if (steps < 1) {
    std::fprintf(stderr, "usage: %s [steps per environment, at least 1]\n", argv[0]);
    return 2;
  }
  const std::string own = argv[0];
  dist_trainer::worker_program = own.substr(0, own.rfind('/') + 1) + "env_worker";
  int failures = 0;
  try {
    dist_trainer::exercise_noise();
    dist_trainer::exercise_check();
    dist_trainer::exercise_faults();
  } catch (const std::exception& error) {
    ++failures;
    std::printf("FAIL  %s\n", error.what());
  }
  for (const auto& [name, entry] : dist_trainer::registry()) {
    try {
      const int fewer = steps * 8 / std::max(entry.spec({}).num_agents, 8);  // of hundreds of agents
      const int taken = std::max(fewer, std::min(steps, 200));
      const double episodes = dist_trainer::exercise(name, taken);
      dist_trainer::refuse_an_action(name);
      dist_trainer::destroy_in_flight(name);
      std::printf("ok    %s: %d steps, %.0f episodes\n", name.c_str(), taken, episodes);
    } catch (const std::exception& error) {
      ++failures;
      std::printf("FAIL  %s: %s\n", name.c_str(), error.what());
    }
  }
  return failures == 0 ? 0 : 1;
}
