// The part of bench_kernels about weights of 16, 8 and 4 bits. One token reads them from memory, each time another
// place of 256 MiB: weight_GB, and of_dram, its share of the best plain read. Many tokens multiply what lies in a
// cache: GOP, and its share of the peak of their arithmetic.
#include <algorithm>
#include <cstring>
#include <functional>
#include <string>

#include "bench_kernels.h"
#include "random_weights.h"

namespace nibble::bench {
namespace {

constexpr size_t kMemory = size_t{256} << 20;

const Buffer& memory() {
  static const std::shared_ptr<Buffer> filled = random_weights(kMemory);
  return *filled;
}

/// y = x W^T of some tokens, with the weights at w.
using Multiply = std::function<void(const std::byte* w, float* y)>;

struct WeightKernel {
  std::string name;
  Shape shape;
  size_t bytes;  // of the weights
  double peak;
  Multiply multiply;
};

bool is_in_memory(const WeightKernel& kernel) { return kernel.bytes > (size_t{4} << 20); }

void run_weights(benchmark::State& state, const WeightKernel& kernel, double dram_peak) {
  const auto [tokens, rows, k] = kernel.shape;
  const std::byte* const all = memory().data();
  std::vector<float> y(static_cast<size_t>(tokens * rows));
  const size_t step = is_in_memory(kernel) ? (kernel.bytes + 63) / 64 * 64 : 0;
  size_t position = 0;
  for (auto _ : state) {
    kernel.multiply(all + position, y.data());
    benchmark::ClobberMemory();
    position = position + step + kernel.bytes > kMemory ? 0 : position + step;
  }
  const auto operations = static_cast<double>(2 * tokens * rows * k);
  set_rate(state, "GOP", operations);
  set_rate(state, "weight_GB", static_cast<double>(kernel.bytes));
  set_share(state, operations, kernel.peak);
  if (is_in_memory(kernel)) set_share(state, static_cast<double>(kernel.bytes), dram_peak, "of_dram");
}

std::string sizes_of(Shape s) {
  return "/" + std::to_string(s.tokens) + "x" + std::to_string(s.rows) + "x" + std::to_string(s.k);
}

constexpr float kLevels[16] = {-1,    -0.87f, -0.73f, -0.6f, -0.47f, -0.33f, -0.2f, -0.07f,
                               0.07f, 0.2f,   0.33f,  0.47f, 0.6f,   0.73f,  0.87f, 1};

/// Weights as they are stored.
std::vector<WeightKernel> stored_products(const Kernels& table, const Peaks& peaks) {
  std::vector<WeightKernel> all;
  for (const Shape s : {Shape{1, 64, 576}, Shape{1, 8192, 4096}}) {
    const auto x = std::make_shared<std::vector<float>>(gaussian(s.tokens * s.k));
    const auto weights = static_cast<size_t>(s.rows * s.k);
    const auto halves = [=](auto kernel) -> Multiply {
      return [=](const std::byte* w, float* y) {
        const auto* values = reinterpret_cast<const uint16_t*>(w);
        kernel({x->data(), values, y, s.tokens, s.rows, s.k, s.k, s.k, s.rows});
      };
    };
    all.push_back({"matvec_f16", s, 2 * weights, peaks.f32, halves(table.matvec_f16)});
    all.push_back({"matvec_bf16", s, 2 * weights, peaks.f32, halves(table.matvec_bf16)});
    all.push_back({"matvec_i8", s, weights, peaks.f32, [=](const std::byte* w, float* y) {
                     const auto* codes = reinterpret_cast<const int8_t*>(w);
                     table.matvec_i8({x->data(), codes, y, s.tokens, s.rows, s.k, s.k, s.k, s.rows});
                   }});
    all.push_back(
        {"matvec_4bit", s, weights / 2 + weights / 16, peaks.f32, [=](const std::byte* w, float* y) {
           const auto* packed = reinterpret_cast<const uint8_t*>(w);
           const auto* absmax = reinterpret_cast<const float*>(w + weights / 2);
           table.matvec_4bit({x->data(), packed, absmax, kLevels, y, 0, 64, s.tokens, s.rows, s.k, s.k, s.rows});
         }});
  }
  return all;
}

/// What packed weights are multiplied with.
struct Precision {
  const char* name;
  PanelType panels;
  void (*Kernels::*activations)(const Activations4&) noexcept;
  void (*Kernels::*multiply)(const MatmulPacked4&) noexcept;
  double Peaks::*peak;
};
constexpr Precision kPrecisions[] = {
    {"i8", PanelType::i8, &Kernels::activations4_i8, &Kernels::matmul_packed4_i8, &Peaks::i8},
    {"i16", PanelType::i16, &Kernels::activations4_i16, &Kernels::matmul_packed4_i16, &Peaks::i16},
    {"f32", PanelType::f32, &Kernels::activations4_f32, &Kernels::matmul_packed4_f32, &Peaks::f32},
};

struct NamedLayout {
  const char* name;
  RecordLayout layout;
};
constexpr NamedLayout kLayouts[] = {
    {"nf4", {}},
    {"q4_1", {.groups = 2, .scale_type = ScaleType::f16, .minimums = 1}},
    {"q8_0", {.code_bits = 8, .groups = 2, .scale_type = ScaleType::f16}},
};

WeightKernel packed_product(const Kernels& table, const Peaks& peaks, const NamedLayout& l, const Precision& p,
                            Shape s) {
  static const Levels4 levels = make_levels4(kLevels);
  const PanelLayout panel = table.panel_layout(l.layout);
  const auto panels = std::make_shared<std::vector<uint32_t>>(panel_words(s.tokens, s.k, block_words(p.panels, panel)));
  const std::vector<float> x = gaussian(s.tokens * s.k);
  (table.*p.activations)({x.data(), panels->data(), s.tokens, s.k, s.k, panel});
  const auto multiply = table.*p.multiply;
  return {std::string("matmul_packed4_") + p.name + "/" + l.name, s,
          static_cast<size_t>(packed4_bytes(s.rows, s.k, l.layout)), peaks.*p.peak,
          [=, layout = l.layout](const std::byte* w, float* y) {
            const Packed4 packed{reinterpret_cast<const uint8_t*>(w), &levels, s.rows, s.k, layout};
            multiply({packed, panels->data(), y, s.tokens, s.rows});
          }};
}

void run_activations(benchmark::State& state, const Kernels& table, const Precision& p, int64_t tokens, int64_t k) {
  const PanelLayout panel = table.panel_layout({});
  std::vector<uint32_t> panels(static_cast<size_t>(panel_words(tokens, k, block_words(p.panels, panel))));
  const std::vector<float> x = gaussian(tokens * k);
  for (auto _ : state) {
    (table.*p.activations)({x.data(), panels.data(), tokens, k, k, panel});
    benchmark::ClobberMemory();
  }
  set_rate(state, "G", static_cast<double>(tokens * k));
  set_rate(state, "GB", static_cast<double>(4 * x.size() + 4 * panels.size()));
}

/// Three heads over 256 keys or values of one of a group, from a cache that lies in the processor's: attention when it
/// decodes; and 96 rows of queries, of a prompt.
template <class W>
void add_row_sums(std::vector<WeightKernel>& all, const char* name, void (*kernel)(const RowSums<W>&) noexcept,
                  const Peaks& peaks) {
  for (const Shape s : {Shape{3, 64, 256}, Shape{96, 64, 256}}) {
    const auto x = std::make_shared<std::vector<float>>(gaussian(s.tokens * s.k));
    all.push_back(
        {name, s, sizeof(W) * static_cast<size_t>(s.rows * s.k), peaks.f32, [=](const std::byte* w, float* y) {
           const auto* values = reinterpret_cast<const W*>(w);
           kernel({x->data(), values, y, s.tokens, s.k, s.rows, s.k, s.rows, s.rows});
         }});
  }
}

}  // namespace

void register_weight_kernels(const Kernels& table, const Peaks& peaks) {
  std::vector<WeightKernel> all = stored_products(table, peaks);
  for (const NamedLayout& layout : kLayouts) {
    for (const Precision& p : kPrecisions) {
      for (const Shape s : {Shape{1, 4096, 4096}, Shape{256, 64, 576}}) {
        all.push_back(packed_product(table, peaks, layout, p, s));
      }
    }
  }
  add_row_sums(all, "sum_rows_f16", table.sum_rows_f16, peaks);
  add_row_sums(all, "sum_rows_bf16", table.sum_rows_bf16, peaks);
  add_row_sums(all, "sum_rows_i8", table.sum_rows_i8, peaks);
  const std::string isa = "/" + std::string(table.isa);
  for (const WeightKernel& kernel : all) {
    const std::string name = "BM_" + kernel.name + isa + sizes_of(kernel.shape);
    benchmark::RegisterBenchmark(name.c_str(), run_weights, kernel, peaks.dram);
  }
  for (const Precision& p : kPrecisions) {
    for (const int64_t tokens : {1, 16}) {
      const std::string name = std::string("BM_activations4_") + p.name + isa + "/" + std::to_string(tokens) + "x4096";
      benchmark::RegisterBenchmark(name.c_str(), run_activations, table, p, tokens, 4096);
    }
  }
}

}  // namespace nibble::bench
