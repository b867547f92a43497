// Products of a few tokens with weights in memory, as in generation: 10^9 bytes of weights per second, and the share of
// what the best plain read of the same memory reaches. Kernels and the read take turns in short samples. One thread is
// measured in processor time and several by the clock, where the best sample, unlike the median, is one that nothing
// disturbed.
//   bench_decode [part of a name, such as "packed i8" or "matvec_f16 avx2"]
#include <fmt/core.h>
#include <time.h>

#include <algorithm>
#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "core/buffer.h"
#include "core/parallel.h"
#include "kernels/kernels.h"
#include "random_weights.h"
#include "raw_read.h"

namespace nibble::bench {
namespace {

constexpr size_t kMemory = size_t{384} << 20;  // far beyond any cache; the matrices are places in it
constexpr int kRounds = 41;
constexpr size_t kBytesPerSample = size_t{12} << 20;

struct Shape {
  int64_t rows, k;
};

// Rows [begin, end) of a product whose weights begin at w.
using Product = std::function<void(const std::byte* w, int64_t begin, int64_t end)>;

struct Candidate {
  std::string name;
  size_t bytes;
  int64_t rows;
  Product product;
  std::vector<double> gbs = {};
  bool is_limit = false;  // a plain read
};

double seconds_now(int threads) {
  timespec now{};
  clock_gettime(threads == 1 ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

// Reads the next of the matrices that fit the memory each time, so that none is in a cache.
double sample_gbs(const Candidate& c, const Buffer& memory, size_t& position) {
  const size_t calls = std::max<size_t>(1, kBytesPerSample / c.bytes);
  const double start = seconds_now(thread_count());
  for (size_t i = 0; i < calls; ++i) {
    if (position + c.bytes > memory.size()) position = 0;
    const std::byte* w = memory.data() + position;
    parallel_for(c.rows, 16, [&](int64_t begin, int64_t end) { c.product(w, begin, end); });
    position += (c.bytes + 63) / 64 * 64;
  }
  return static_cast<double>(calls * c.bytes) / (seconds_now(thread_count()) - start) / 1e9;
}

// What the products share. x: [8, k], y: [8, rows].
struct Operands {
  Shape shape;
  std::vector<float> x, y, levels;
  Levels4 rounded = make_levels4(levels.data());
  std::vector<int8_t> codes = std::vector<int8_t>(x.size(), 3);
  std::vector<int32_t> sums = std::vector<int32_t>(y.size());
};

Candidate half_product(const Kernels& table, const char* name, void (*kernel)(const MatvecHalf&) noexcept, Operands& o,
                       int64_t tokens) {
  const Shape s = o.shape;
  return {fmt::format("{} {} x{}", name, table.isa, tokens), static_cast<size_t>(2 * s.rows * s.k), s.rows,
          [=, &o](const std::byte* w, int64_t begin, int64_t end) {
            kernel({o.x.data(), reinterpret_cast<const uint16_t*>(w) + begin * s.k, o.y.data() + begin, tokens,
                    end - begin, s.k, s.k, s.k, s.rows});
          }};
}

// Codes, then absmax, one behind the other: 4.5 bits per weight.
Candidate stored_product(const Kernels& table, Operands& o, int64_t tokens) {
  const Shape s = o.shape;
  return {fmt::format("matvec_4bit {} x{}", table.isa, tokens), static_cast<size_t>(s.rows * s.k / 16 * 9), s.rows,
          [=, &o](const std::byte* w, int64_t begin, int64_t end) {
            const auto* packed = reinterpret_cast<const uint8_t*>(w);
            const auto* absmax = reinterpret_cast<const float*>(packed + s.rows * s.k / 2);
            table.matvec_4bit({o.x.data(), packed, absmax, o.levels.data(), o.y.data() + begin, begin * s.k, 64, tokens,
                               end - begin, s.k, s.k, s.rows});
          }};
}

// The same through a decoded tile of 16 rows, which is what there is for a format without a product of its own.
Candidate decoded_product(const Kernels& table, Operands& o, int64_t tokens) {
  const Shape s = o.shape;
  return {fmt::format("decode_4bit + matmul_f32 {} x{}", table.isa, tokens), static_cast<size_t>(s.rows * s.k / 16 * 9),
          s.rows, [=, &o](const std::byte* w, int64_t begin, int64_t end) {
            static thread_local std::vector<float> tile;
            tile.resize(static_cast<size_t>(16 * s.k));
            const auto* packed = reinterpret_cast<const uint8_t*>(w);
            const auto* absmax = reinterpret_cast<const float*>(packed + s.rows * s.k / 2);
            for (int64_t r = begin; r < end; r += 16) {
              const int64_t rows = std::min<int64_t>(16, end - r);
              table.decode_4bit(packed, absmax, o.levels.data(), r * s.k, rows * s.k, 64, tile.data());
              table.matmul_f32({o.x.data(), tile.data(), o.y.data() + r, tokens, rows, s.k, s.k, s.k, s.rows});
            }
          }};
}

// int8 and int8-dynamic: 8 bits per weight, exact sums.
Candidate int8_product(const Kernels& table, Operands& o, int64_t tokens) {
  const Shape s = o.shape;
  return {fmt::format("matmul_i8 {} x{}", table.isa, tokens), static_cast<size_t>(s.rows * s.k), s.rows,
          [=, &o](const std::byte* w, int64_t begin, int64_t end) {
            table.matmul_i8({o.codes.data(), reinterpret_cast<const int8_t*>(w) + begin * s.k, o.sums.data() + begin,
                             tokens, end - begin, s.k, s.k, s.k, s.rows});
          }};
}

struct Precision {
  const char* name;
  PanelType panels;
  void (*Kernels::*activations)(const Activations4&) noexcept;
  void (*Kernels::*multiply)(const MatmulPacked4&) noexcept;
};
constexpr Precision kPrecisions[] = {
    {"i8", PanelType::i8, &Kernels::activations4_i8, &Kernels::matmul_packed4_i8},
    {"i16", PanelType::i16, &Kernels::activations4_i16, &Kernels::matmul_packed4_i16},
    {"f32", PanelType::f32, &Kernels::activations4_f32, &Kernels::matmul_packed4_f32},
};

struct NamedLayout {
  const char* name;
  RecordLayout layout;
};
constexpr NamedLayout kLayouts[] = {
    {"packed", {}},  // nf4 of bf16 weights: 4.25 bits per weight
    {"q4_0", {.groups = 2, .scale_type = ScaleType::f16}},
    {"q4_1", {.groups = 2, .scale_type = ScaleType::f16, .minimums = 1}},
    {"q4_k", {.groups = 2, .scale_type = ScaleType::f16_i8, .minimums = 1}},
    {"q8_0", {.code_bits = 8, .groups = 2, .scale_type = ScaleType::f16}},
    {"q6_k", {.code_bits = 8, .groups = 4, .scale_type = ScaleType::f16_i8}},
};

// The activations are prepared outside the time.
Candidate packed_product(const Kernels& table, const NamedLayout& l, const Precision& p, Operands& o, int64_t tokens) {
  const Shape s = o.shape;
  const PanelLayout panel = table.panel_layout(l.layout);
  auto panels = std::make_shared<std::vector<uint32_t>>(panel_words(tokens, s.k, block_words(p.panels, panel)));
  (table.*p.activations)({o.x.data(), panels->data(), tokens, s.k, s.k, panel});
  return {fmt::format("{} {} {} x{}", l.name, p.name, table.isa, tokens),
          static_cast<size_t>(packed4_bytes(s.rows, s.k, l.layout)), s.rows,
          [=, &o, layout = l.layout](const std::byte* w, int64_t begin, int64_t end) {
            const Packed4 all{reinterpret_cast<const uint8_t*>(w), &o.rounded, s.rows, s.k, layout};
            (table.*p.multiply)({packed4_rows(all, begin, end), panels->data(), o.y.data() + begin, tokens, s.rows});
          }};
}

std::vector<Candidate> candidates(Operands& o) {
  const Shape s = o.shape;
  const auto read_bytes = static_cast<size_t>(2 * s.rows * s.k);
  std::vector<Candidate> all;
  for (const raw::Way& way : raw::kWays) {
    all.push_back({way.name, read_bytes, 64, [=, &o](const std::byte* w, int64_t begin, int64_t end) {
                     const size_t part = read_bytes / 64;
                     o.y[static_cast<size_t>(begin)] =
                         way.read(w + part * static_cast<size_t>(begin), part * static_cast<size_t>(end - begin));
                   }});
    all.back().is_limit = true;
  }
  for (const Kernels& table : supported_kernels()) {
    if (table.isa == "scalar") continue;
    for (const int64_t tokens : {1, 4}) {
      all.push_back(half_product(table, "matvec_f16", table.matvec_f16, o, tokens));
      all.push_back(half_product(table, "matvec_bf16", table.matvec_bf16, o, tokens));
      all.push_back(stored_product(table, o, tokens));
      all.push_back(decoded_product(table, o, tokens));
    }
    for (const int64_t tokens : {1, 2, 4, 8}) all.push_back(int8_product(table, o, tokens));
    for (const NamedLayout& layout : kLayouts) {
      for (const Precision& p : kPrecisions) {
        for (const int64_t tokens : {1, 2, 4, 8}) all.push_back(packed_product(table, layout, p, o, tokens));
      }
    }
  }
  return all;
}

Operands operands_of(Shape shape) {
  return {shape, std::vector<float>(static_cast<size_t>(8 * shape.k), 0.5f),
          std::vector<float>(static_cast<size_t>(8 * shape.rows)), std::vector<float>(16, 0.25f)};
}

bool is_chosen(const Candidate& c, const std::string& filter) { return c.name.find(filter) != std::string::npos; }

void measure(Shape shape, const Buffer& memory, const std::string& filter) {
  Operands o = operands_of(shape);
  for (const int threads : {1, 2}) {
    set_thread_count(threads);
    std::vector<Candidate> all = candidates(o);
    std::erase_if(all, [&](const Candidate& c) { return !c.is_limit && !is_chosen(c, filter); });
    size_t position = 0;
    for (int round = 0; round < kRounds; ++round) {
      for (Candidate& c : all) c.gbs.push_back(sample_gbs(c, memory, position));
    }
    double best_read = 0, median_read = 0;
    for (Candidate& c : all) {
      std::sort(c.gbs.begin(), c.gbs.end());
      if (!c.is_limit) continue;
      best_read = std::max(best_read, c.gbs.back());
      median_read = std::max(median_read, c.gbs[kRounds / 2]);
    }
    for (const Candidate& c : all) {
      const double best = c.gbs.back(), median = c.gbs[kRounds / 2];
      fmt::print("{:>5} x {:<5} {} thread{}  {:<36} {:6.1f} GB/s best {:6.1f} median  {:5.2f} {:5.2f} of the read\n",
                 shape.rows, shape.k, threads, threads == 1 ? " " : "s", c.name, best, median, best / best_read,
                 median / median_read);
    }
  }
}

}  // namespace
}  // namespace nibble::bench

int main(int argc, char** argv) {
  using namespace nibble::bench;
  const std::string filter = argc > 1 ? argv[1] : "";
  Operands o = operands_of({576, 576});
  const std::vector<Candidate> all = candidates(o);
  if (std::none_of(all.begin(), all.end(), [&](const Candidate& c) { return is_chosen(c, filter); })) {
    fmt::print(stderr, "usage: bench_decode [FILTER]   part of a name such as {}\n", all.back().name);
    return 2;
  }
  const auto memory = random_weights(kMemory);
  for (const Shape shape :
       {Shape{576, 576}, Shape{1536, 576}, Shape{576, 1536}, Shape{4096, 4096}, Shape{11008, 4096}}) {
    measure(shape, *memory, filter);
  }
}
