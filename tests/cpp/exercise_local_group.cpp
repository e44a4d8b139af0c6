// Sums of members that are threads here, with and without spinning. Each has a mapping of its own, as processes have,
// so the thread sanitizer does not see that they share it: what it misses must show in the sums.
#include <cstdint>
#include <cstdio>
#include <exception>
#include <memory>
#include <numeric>
#include <string>
#include <thread>
#include <vector>

#include "local_group.h"

namespace {

using dist_trainer::LocalGroup;

constexpr std::size_t kSlotBytes = 1000;  // most sums below take several parts
constexpr std::int64_t kSums = 200;

// Numbers that are exact in a double, so that every order gives their sum.
double term(std::int64_t rank, std::int64_t sum, std::size_t index) {
  return static_cast<double>((rank + 1) * sum + static_cast<std::int64_t>(index));
}

std::int64_t wrong_sums(LocalGroup& member, std::int64_t rank, std::int64_t size) {
  std::int64_t wrong = 0;
  for (std::int64_t sum = 0; sum < kSums; ++sum) {
    std::vector<double> terms(static_cast<std::size_t>(sum * 7));
    for (std::size_t i = 0; i < terms.size(); ++i) terms[i] = term(rank, sum, i);
    member.sum(terms.data(), terms.size(), LocalGroup::Seconds(60), [] {});
    for (std::size_t i = 0; i < terms.size(); ++i) {
      double expected = 0;
      for (std::int64_t other = 0; other < size; ++other) expected += term(other, sum, i);
      wrong += terms[i] != expected;
    }
  }
  return wrong;
}

std::int64_t wrong_sums_of_all(int size, double spin_s) {
  std::vector<std::unique_ptr<LocalGroup>> members;
  members.push_back(std::make_unique<LocalGroup>(0, size, kSlotBytes));
  for (int rank = 1; rank < size; ++rank) {
    members.push_back(std::make_unique<LocalGroup>(rank, size, kSlotBytes, members[0]->path()));
  }
  std::vector<std::int64_t> wrong(members.size());
  std::vector<std::thread> threads;
  for (std::size_t rank = 0; rank < members.size(); ++rank) {
    members[rank]->spin_for(LocalGroup::Seconds(spin_s));
    threads.emplace_back(
        [&, rank] { wrong[rank] = wrong_sums(*members[rank], static_cast<std::int64_t>(rank), size); });
  }
  for (auto& thread : threads) thread.join();
  return std::accumulate(wrong.begin(), wrong.end(), std::int64_t{0});
}

}  // namespace

int main() {
  std::int64_t failures = 0;
  for (const int size : {1, 2, 3, 4}) {
    for (const double spin_s : {0.0, 1e-4}) {
      try {
        const std::int64_t wrong = wrong_sums_of_all(size, spin_s);
        failures += wrong;
        std::printf("%s  shared sum of %d members, spinning %g s\n", wrong == 0 ? "ok   " : "FAIL ", size, spin_s);
      } catch (const std::exception& error) {
        ++failures;
        std::printf("FAIL  shared sum of %d members: %s\n", size, error.what());
      }
    }
  }
  return failures == 0 ? 0 : 1;
}
