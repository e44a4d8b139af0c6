// The action noise of many environments at once: the same numbers as Rng's, several streams in the lanes of a register.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "rng.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace dist_trainer {

// The streams (seed, first_env + i, steps[i], Purpose::kNoise) for i in [0, envs), `draws` numbers of each.
struct NoiseStreams {
  std::uint64_t seed;
  std::uint32_t first_env;
  const std::uint64_t* steps;
  int envs;
  int draws;
};

// Those of environments [first, envs): out[i * draws + k] is draw k of stream i.
inline void draw_noise_singly(const NoiseStreams& streams, int first, float* out) {
  for (int i = first; i < streams.envs; ++i) {
    Rng rng(streams.seed, streams.first_env + static_cast<std::uint32_t>(i), streams.steps[i], Purpose::kNoise);
    for (int k = 0; k < streams.draws; ++k) out[static_cast<std::ptrdiff_t>(i) * streams.draws + k] = rng.uniform();
  }
}

#if defined(__x86_64__)

// philox4x32 in 8 lanes, two registers of 4. Each word of a counter is the lower half of a 64-bit lane. The
// multiplication reads only that half, so what else is left in the upper half does no harm and is not cleared.
__attribute__((target("avx2"))) inline void philox4x32_in_8_lanes(__m256i (&counter)[4][2], std::uint64_t seed) {
  const __m256i multiplier0 = _mm256_set1_epi64x(kPhiloxMultiplier0);
  const __m256i multiplier1 = _mm256_set1_epi64x(kPhiloxMultiplier1);
  __m256i key0 = _mm256_set1_epi64x(static_cast<std::int64_t>(seed));
  __m256i key1 = _mm256_set1_epi64x(static_cast<std::int64_t>(seed >> 32));
#pragma GCC unroll 1
  for (int round = 0; round < 10; ++round) {
#pragma GCC unroll 2
    for (int i = 0; i < 2; ++i) {
      const __m256i product0 = _mm256_mul_epu32(multiplier0, counter[0][i]);
      const __m256i product1 = _mm256_mul_epu32(multiplier1, counter[2][i]);
      counter[0][i] = _mm256_xor_si256(_mm256_xor_si256(_mm256_srli_epi64(product1, 32), counter[1][i]), key0);
      counter[1][i] = product1;
      counter[2][i] = _mm256_xor_si256(_mm256_xor_si256(_mm256_srli_epi64(product0, 32), counter[3][i]), key1);
      counter[3][i] = product0;
    }
    key0 = _mm256_add_epi64(key0, _mm256_set1_epi64x(kPhiloxWeyl0));
    key1 = _mm256_add_epi64(key1, _mm256_set1_epi64x(kPhiloxWeyl1));
  }
}

// Those of as many environments as fill the lanes; returns how many. `Rng::uniform` is exact, hence the same in lanes.
__attribute__((target("avx2"))) inline int draw_noise_in_lanes(const NoiseStreams& streams, float* out) {
  const __m256i lanes = _mm256_setr_epi64x(0, 1, 2, 3), lower_halves = _mm256_setr_epi32(0, 2, 4, 6, 0, 2, 4, 6);
  const __m256i purpose = _mm256_set1_epi64x(static_cast<int>(Purpose::kNoise));
  int env = 0;
  for (; env + 8 <= streams.envs; env += 8) {
    for (int block = 0; 4 * block < streams.draws; ++block) {
      __m256i counter[4][2];
      for (int i = 0; i < 2; ++i) {
        const std::uint32_t id = streams.first_env + static_cast<std::uint32_t>(env + 4 * i);
        const auto* steps = reinterpret_cast<const __m256i*>(streams.steps + env + 4 * i);
        counter[0][i] = _mm256_set1_epi64x(block);
        counter[1][i] = _mm256_loadu_si256(steps);
        counter[2][i] = _mm256_or_si256(_mm256_slli_epi64(_mm256_srli_epi64(counter[1][i], 32), 8), purpose);
        counter[3][i] = _mm256_add_epi64(_mm256_set1_epi64x(id), lanes);
      }
      philox4x32_in_8_lanes(counter, streams.seed);
      const int words = std::min(4, streams.draws - 4 * block);
      for (int word = 0; word < words; ++word) {
        alignas(16) float drawn[8];
        for (int i = 0; i < 2; ++i) {
          const __m128i bits = _mm256_castsi256_si128(_mm256_permutevar8x32_epi32(counter[word][i], lower_halves));
          const __m128 whole = _mm_cvtepi32_ps(_mm_srli_epi32(bits, 9));
          _mm_store_ps(drawn + 4 * i, _mm_mul_ps(_mm_add_ps(whole, _mm_set1_ps(0.5F)), _mm_set1_ps(0x1p-23F)));
        }
        float* at = out + static_cast<std::ptrdiff_t>(env) * streams.draws + 4 * block + word;
        for (int lane = 0; lane < 8; ++lane) at[static_cast<std::ptrdiff_t>(lane) * streams.draws] = drawn[lane];
      }
    }
  }
  return env;
}

inline void draw_noise(const NoiseStreams& streams, float* out) {
  static const bool has_lanes = __builtin_cpu_supports("avx2");
  draw_noise_singly(streams, has_lanes ? draw_noise_in_lanes(streams, out) : 0, out);
}

#else

inline void draw_noise(const NoiseStreams& streams, float* out) { draw_noise_singly(streams, 0, out); }

#endif

}  // namespace dist_trainer
