// Every kernel of every instruction set that this processor has, one thread. Beside the time: 10^9 operations or bytes
// per second, and for the products the share of the peak of their arithmetic, for those that read weights from memory
// the share of a plain read of it too, measured in the same program.
//   bench_kernels [--benchmark_filter=matmul] ...
#include <benchmark/benchmark.h>

#include <algorithm>
#include <cstdint>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include "bench_kernels.h"
#include "core/buffer.h"
#include "kernels/kernels.h"
#include "peaks.h"

namespace nibble::bench {
namespace {

void run_matmul_f32(benchmark::State& state, const Kernels& table, Shape s, double fma_peak) {
  const std::vector<float> x = gaussian(s.tokens * s.k), w = gaussian(s.rows * s.k);
  std::vector<float> y(static_cast<size_t>(s.tokens * s.rows));
  for (auto _ : state) {
    table.matmul_f32({x.data(), w.data(), y.data(), s.tokens, s.rows, s.k, s.k, s.k, s.rows});
    benchmark::ClobberMemory();
  }
  const auto operations = static_cast<double>(2 * s.tokens * s.rows * s.k);
  set_rate(state, "GFLOP", operations);
  set_rate(state, "weight_GB", static_cast<double>(4 * s.rows * s.k));
  set_share(state, operations, fma_peak);
}

void run_matmul_i8(benchmark::State& state, const Kernels& table, Shape s) {
  std::mt19937 random(1);
  std::vector<int8_t> x(static_cast<size_t>(s.tokens * s.k)), w(static_cast<size_t>(s.rows * s.k));
  for (int8_t& value : x) value = static_cast<int8_t>(random());
  for (int8_t& value : w) value = static_cast<int8_t>(random());
  std::vector<int32_t> y(static_cast<size_t>(s.tokens * s.rows));
  for (auto _ : state) {
    table.matmul_i8({x.data(), w.data(), y.data(), s.tokens, s.rows, s.k, s.k, s.k, s.rows});
    benchmark::ClobberMemory();
  }
  set_rate(state, "GOP", static_cast<double>(2 * s.tokens * s.rows * s.k));
  set_rate(state, "weight_GB", static_cast<double>(s.rows * s.k));
}

// Panels of 64 columns, as training has them; and for three rows, as attention has them when it decodes.
void run_sum_rows(benchmark::State& state, const Kernels& table, Shape s, double fma_peak) {
  const std::vector<float> x = gaussian(s.tokens * s.k), w = gaussian(s.rows * s.k);
  std::vector<float> y(static_cast<size_t>(s.tokens * s.rows));
  for (auto _ : state) {
    table.sum_rows_f32({x.data(), w.data(), y.data(), s.tokens, s.k, s.rows, s.k, s.rows, s.rows});
    benchmark::ClobberMemory();
  }
  const auto operations = static_cast<double>(2 * s.tokens * s.rows * s.k);
  set_rate(state, "GFLOP", operations);
  set_share(state, operations, fma_peak);
}

void run_sum_codes(benchmark::State& state, const Kernels& table, Shape s, double i8_peak) {
  std::mt19937 random(1);
  std::vector<int8_t> x(static_cast<size_t>(s.tokens * s.k));
  std::vector<uint32_t> w(static_cast<size_t>(s.rows * s.k / 4));
  for (int8_t& value : x) value = static_cast<int8_t>(random());
  for (uint32_t& value : w) value = static_cast<uint32_t>(random());
  std::vector<int32_t> y(static_cast<size_t>(s.tokens * s.rows));
  for (auto _ : state) {
    table.sum_codes({x.data(), w.data(), y.data(), s.tokens, s.k, s.rows, s.k, s.rows, s.rows});
    benchmark::ClobberMemory();
  }
  const auto operations = static_cast<double>(2 * s.tokens * s.rows * s.k);
  set_rate(state, "GOP", operations);
  set_share(state, operations, i8_peak);
}

// As training has them: groups of kPairTerms, the sums of the second on top of the first.
void run_sum_pairs(benchmark::State& state, const Kernels& table, Shape s, double i16_peak) {
  std::mt19937 random(1);
  std::vector<int16_t> x(static_cast<size_t>(s.tokens * s.k));
  std::vector<uint32_t> w(static_cast<size_t>(s.rows * s.k / 2));
  for (int16_t& value : x) value = static_cast<int16_t>(static_cast<int>(random() % (2 * kPairX + 1)) - kPairX);
  for (uint32_t& pair : w) pair = static_cast<uint32_t>((random() % kPairW) | (random() % kPairW) << 16);
  const std::vector<float> x_scale = gaussian(s.tokens), w_scale = gaussian(s.rows);
  std::vector<float> y(static_cast<size_t>(s.tokens * s.rows));
  for (auto _ : state) {
    for (int64_t k = 0; k < s.k; k += kPairTerms) {
      table.sum_pairs({x.data() + k, w.data() + k / 2 * s.rows, x_scale.data(), w_scale.data(), y.data(), s.tokens,
                       std::min(kPairTerms, s.k - k), s.rows, s.k, s.rows, s.rows, k > 0});
    }
    benchmark::ClobberMemory();
  }
  const auto operations = static_cast<double>(2 * s.tokens * s.rows * s.k);
  set_rate(state, "GOP", operations);
  set_share(state, operations, i16_peak);
}

void run_pair_columns(benchmark::State& state, const Kernels& table) {
  const std::vector<float> x = gaussian(kPairTerms * 64);
  std::vector<uint32_t> w(x.size() / 2);
  std::vector<float> scale(64);
  for (auto _ : state) {
    table.pair_columns({x.data(), w.data(), scale.data(), kPairTerms, 64, 64, 64});
    benchmark::ClobberMemory();
  }
  set_rate(state, "G", static_cast<double>(x.size()));
}

Codebook4 evenly_spaced_codebook() {
  Codebook4 book{};
  for (int i = 0; i < 16; ++i) book.levels[i] = static_cast<float>(i) / 7.5f - 1.0f;
  for (int i = 0; i < 15; ++i) book.thresholds[i] = (book.levels[i] + book.levels[i + 1]) / 2.0f;
  for (int i = 0; i < 16; ++i) book.codes[i] = static_cast<uint8_t>(i);
  return book;
}

constexpr int64_t kCount = 2'048;  // arrays of 8 KiB: those that a kernel takes stay in the first-level cache

using Arrays = std::vector<std::vector<float>>;  // Gaussian; the last one starts with as many in bf16

// A kernel over arrays of kCount elements, and how many bytes it reads and writes for each element.
struct Streaming {
  const char* name;
  double bytes_per_element;
  std::function<void(const Kernels&, Arrays&)> call;
};

uint16_t* halves(std::vector<float>& memory) { return reinterpret_cast<uint16_t*>(memory.data()); }
int8_t* codes(std::vector<float>& memory) { return reinterpret_cast<int8_t*>(memory.data()); }
int32_t* integers(std::vector<float>& memory) { return reinterpret_cast<int32_t*>(memory.data()); }
uint8_t* bytes(std::vector<float>& memory) { return reinterpret_cast<uint8_t*>(memory.data()); }

std::vector<Streaming> streaming_kernels() {
  static const Codebook4 book = evenly_spaced_codebook();
  return {
      {"f16_to_f32", 6, [](auto& k, auto& a) { k.f16_to_f32(halves(a[0]), a[1].data(), kCount); }},
      {"bf16_to_f32", 6, [](auto& k, auto& a) { k.bf16_to_f32(halves(a[0]), a[1].data(), kCount); }},
      {"f32_to_f16", 6, [](auto& k, auto& a) { k.f32_to_f16(a[0].data(), halves(a[1]), kCount); }},
      {"f32_to_bf16", 6, [](auto& k, auto& a) { k.f32_to_bf16(a[0].data(), halves(a[1]), kCount); }},
      {"decode_4bit", 4.5625,
       [](auto& k, auto& a) { k.decode_4bit(bytes(a[0]), a[2].data(), book.levels, 0, kCount, 64, a[1].data()); }},
      {"encode_4bit", 4.5625,
       [](auto& k, auto& a) { k.encode_4bit(a[0].data(), kCount / 64, 64, book, bytes(a[1]), a[2].data()); }},
      {"encode_4bit_bf16", 2.5625,
       [](auto& k, auto& a) { k.encode_4bit_bf16(halves(a[5]), kCount / 64, 64, book, bytes(a[1]), a[2].data()); }},
      {"pack_4bit", 1.0625,
       [](auto& k, auto& a) {
         k.pack_4bit({bytes(a[0]), a[2].data(), bytes(a[1]), 0, 64, 16, kCount / 16, 4});
       }},
      {"decode_packed4", 4.5625,
       [](auto& k, auto& a) {
         static const Levels4 levels = make_levels4(book.levels);
         k.decode_packed4({bytes(a[0]), &levels, 16, kCount / 16, 4}, 0, 16, a[1].data());
       }},
      {"absmax", 4, [](auto& k, auto& a) { benchmark::DoNotOptimize(k.absmax(a[0].data(), kCount)); }},
      {"quantize_i8", 5, [](auto& k, auto& a) { k.quantize_i8(a[0].data(), 30.0f, codes(a[1]), kCount); }},
      {"quantize_i16", 6,
       [](auto& k, auto& a) { k.quantize_i16(a[0].data(), 30.0f, reinterpret_cast<int16_t*>(a[1].data()), kCount); }},
      {"quantize_affine", 5,
       [](auto& k, auto& a) {
         k.quantize_affine(a[0].data(), {30.0f, -100, 155, -28}, codes(a[1]), kCount);
       }},
      {"scale_sums", 16,
       [](auto& k, auto& a) {
         k.scale_sums({integers(a[0]), integers(a[1]), 3, 0.1f, a[2].data(), nullptr, a[3].data()}, kCount);
       }},
      {"extent", 4, [](auto& k, auto& a) { benchmark::DoNotOptimize(k.extent(a[0].data(), kCount)); }},
      {"transpose", 8,
       [](auto& k, auto& a) {
         k.transpose({a[0].data(), a[1].data(), 32, kCount / 32, kCount / 32, 32});
       }},
      {"layer_norm", 16,
       [](auto& k, auto& a) {
         k.layer_norm({a[0].data(), a[1].data(), a[2].data(), 1e-5f, a[3].data()}, kCount);
       }},
      {"rms_norm", 12, [](auto& k, auto& a) { k.rms_norm(a[0].data(), a[1].data(), 1e-5f, a[2].data(), kCount); }},
      {"softmax", 8, [](auto& k, auto& a) { k.softmax(a[0].data(), kCount); }},
      {"softmax_part", 8, [](auto& k, auto& a) { benchmark::DoNotOptimize(k.softmax_part(a[0].data(), kCount).sum); }},
      {"silu_mul", 12, [](auto& k, auto& a) { k.silu_mul(a[0].data(), a[1].data(), a[2].data(), kCount); }},
      {"silu_mul_backward", 20,
       [](auto& k, auto& a) {
         k.silu_mul_backward({a[0].data(), a[1].data(), a[2].data(), a[3].data(), a[4].data()}, kCount);
       }},
      {"gelu_erf", 8, [](auto& k, auto& a) { k.gelu_erf(a[0].data(), a[1].data(), kCount); }},
      {"gelu_tanh", 8, [](auto& k, auto& a) { k.gelu_tanh(a[0].data(), a[1].data(), kCount); }},
      {"dot", 8, [](auto& k, auto& a) { benchmark::DoNotOptimize(k.dot(a[0].data(), a[1].data(), kCount)); }},
      {"axpy", 12, [](auto& k, auto& a) { k.axpy(1e-9f, a[0].data(), a[1].data(), kCount); }},
  };
}

void run_streaming(benchmark::State& state, const Kernels& table, const Streaming& kernel) {
  Arrays arrays(6, gaussian(kCount));
  table.f32_to_bf16(arrays[0].data(), halves(arrays[5]), kCount);
  for (auto _ : state) {
    kernel.call(table, arrays);
    benchmark::ClobberMemory();
  }
  set_rate(state, "G", static_cast<double>(kCount));
  set_rate(state, "GB", static_cast<double>(kCount) * kernel.bytes_per_element);
}

void register_table(const Kernels& table, double fma_peak, double dram_peak) {
  const std::string isa = "/" + std::string(table.isa);
  // Sixteen decoded rows against a prompt; one token against rows in the second-level cache, and in memory.
  for (const Shape s : {Shape{256, 16, 576}, Shape{256, 16, 4096}, Shape{256, 576, 576}, Shape{1, 64, 576},
                        Shape{1, 16, 4096}, Shape{1, 8192, 4096}}) {
    const std::string sizes = "/" + std::to_string(s.tokens) + "x" + std::to_string(s.rows) + "x" + std::to_string(s.k);
    benchmark::RegisterBenchmark(("BM_matmul_f32" + isa + sizes).c_str(), run_matmul_f32, table, s, fma_peak);
    benchmark::RegisterBenchmark(("BM_matmul_i8" + isa + sizes).c_str(), run_matmul_i8, table, s);
  }
  const double i8_peak = dot_peak_gops(table.isa, 8), i16_peak = dot_peak_gops(table.isa, 16);
  for (const Shape s : {Shape{96, 64, 256}, Shape{96, 64, 1536}, Shape{3, 64, 256}}) {
    const std::string sizes = "/" + std::to_string(s.tokens) + "x" + std::to_string(s.rows) + "x" + std::to_string(s.k);
    benchmark::RegisterBenchmark(("BM_sum_rows_f32" + isa + sizes).c_str(), run_sum_rows, table, s, fma_peak);
    benchmark::RegisterBenchmark(("BM_sum_codes" + isa + sizes).c_str(), run_sum_codes, table, s, i8_peak);
    benchmark::RegisterBenchmark(("BM_sum_pairs" + isa + sizes).c_str(), run_sum_pairs, table, s, i16_peak);
  }
  register_weight_kernels(table, {.i8 = i8_peak, .i16 = i16_peak, .f32 = fma_peak, .dram = dram_peak});
  benchmark::RegisterBenchmark(("BM_pair_columns" + isa).c_str(), run_pair_columns, table);
  for (const Streaming& kernel : streaming_kernels()) {
    benchmark::RegisterBenchmark(("BM_" + std::string(kernel.name) + isa).c_str(), run_streaming, table, kernel);
  }
}

}  // namespace
}  // namespace nibble::bench

int main(int argc, char** argv) {
  using namespace nibble;
  const double dram_peak = bench::dram_read_gbs();
  benchmark::AddCustomContext("DRAM read, 1 thread", std::to_string(dram_peak) + " GB/s");
  for (const Kernels& table : supported_kernels()) {
    const double peak = bench::dot_peak_gops(table.isa, 32);
    if (peak > 0) benchmark::AddCustomContext("FMA peak, " + std::string(table.isa), std::to_string(peak) + " GFLOP/s");
    bench::register_table(table, peak, dram_peak);
  }
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  benchmark::RunSpecifiedBenchmarks();
}
