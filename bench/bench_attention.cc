// Attention of one decoding step, layer after layer as in a model: microseconds per layer and 10^9 bytes of keys and
// values per second, beside a plain read of as much memory. The shape is that of SmolLM2-135M: 9 heads of 64 over 3 key
// heads, 30 layers. Candidates take turns; one thread is measured in processor time, two by the clock, where the best
// round is one that nothing disturbed.
//   bench_attention [context...]
#include <fmt/core.h>
#include <time.h>

#include <algorithm>
#include <cstdlib>
#include <random>
#include <string>
#include <vector>

#include "core/parallel.h"
#include "kernels/kernels.h"
#include "ops/attention.h"

namespace nibble::bench {
namespace {

constexpr int64_t kLayers = 30, kHeads = 9, kKvHeads = 3, kHeadDim = 64;
constexpr int kRounds = 41;

struct Candidate {
  std::string name;
  KvCache cache;
  std::vector<double> seconds = {};  // of all layers
};

Tensor gaussian(const Shape& shape) {
  static std::mt19937 random(1);
  std::normal_distribution<float> normal;
  Tensor t(DType::f32, shape);
  for (int64_t i = 0; i < t.count(); ++i) t.f32()[i] = normal(random);
  return t;
}

/// All positions but the last count as complete, as in a step of decoding.
KvCache filled(int64_t context, DType dtype) {
  KvCache cache(kLayers, kKvHeads, kHeadDim, context, dtype);
  const Tensor k = gaussian({context, kKvHeads * kHeadDim}), v = gaussian({context, kKvHeads * kHeadDim});
  for (int64_t layer = 0; layer < kLayers; ++layer) cache.write(layer, k, v);
  cache.advance(context - 1);
  return cache;
}

/// One thread is measured in processor time, several by the clock.
double seconds_now() {
  timespec now{};
  clock_gettime(thread_count() == 1 ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

double step(const KvCache& cache, const Tensor& q) {
  const double start = seconds_now();
  for (int64_t layer = 0; layer < kLayers; ++layer) {
    attention(q, cache, layer, {.heads = kHeads, .scale = 0.125f});
  }
  return seconds_now() - start;
}

/// The bytes of an f32 cache by a kernel that does nothing else.
double read(const KvCache& cache, int64_t context) {
  const int64_t piece = kHeadDim * 256, pieces = (context * kHeadDim + piece - 1) / piece;
  const double start = seconds_now();
  for (int64_t layer = 0; layer < kLayers; ++layer) {
    parallel_for(2 * kKvHeads * pieces, 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const int64_t head = i / pieces / 2, at = i % pieces * piece;
        const auto rows = i / pieces % 2 == 0 ? cache.keys(layer, head, 0) : cache.values(layer, head, 0);
        const int64_t count = std::min(piece, context * kHeadDim - at);
        if (kernels().absmax(reinterpret_cast<const float*>(rows.data) + at, count) < 0) std::abort();
      }
    });
  }
  return seconds_now() - start;
}

void report(const std::string& name, std::vector<double> seconds, double bytes) {
  std::sort(seconds.begin(), seconds.end());
  const double median = seconds[seconds.size() / 2] / kLayers, best = seconds.front() / kLayers;
  fmt::print("  {:<8} {:8.1f} us median {:8.1f} us best  {:6.1f} GB/s median {:6.1f} GB/s best\n", name, 1e6 * median,
             1e6 * best, bytes / kLayers / median / 1e9, bytes / kLayers / best / 1e9);
}

void measure(int64_t context) {
  std::vector<Candidate> all;
  for (const DType dtype : {DType::f32, DType::f16, DType::bf16, DType::i8}) {
    all.push_back({std::string(dtype_name(dtype)), filled(context, dtype)});
  }
  const Tensor q = gaussian({1, kHeads * kHeadDim});
  for (const int threads : {1, 2}) {
    set_thread_count(threads);
    std::vector<double> plain;
    for (int round = 0; round < kRounds; ++round) {
      plain.push_back(read(all[0].cache, context));
      for (Candidate& c : all) c.seconds.push_back(step(c.cache, q));
    }
    fmt::print("context {}, {} thread{}\n", context, threads, threads == 1 ? "" : "s");
    report("read", plain, static_cast<double>(all[0].cache.bytes()));
    for (Candidate& c : all) report(c.name, c.seconds, static_cast<double>(c.cache.bytes()));
    for (Candidate& c : all) c.seconds.clear();
  }
}

}  // namespace
}  // namespace nibble::bench

int main(int argc, char** argv) {
  std::vector<int64_t> contexts;
  for (int i = 1; i < argc; ++i) contexts.push_back(std::atoll(argv[i]));
  if (std::any_of(contexts.begin(), contexts.end(), [](int64_t context) { return context < 1; })) {
    fmt::print(stderr, "usage: bench_attention [CONTEXT...]   positions, at least 1; default 512 2048 8192\n");
    return 2;
  }
  if (contexts.empty()) contexts = {512, 2048, 8192};
  for (const int64_t context : contexts) nibble::bench::measure(context);
}
