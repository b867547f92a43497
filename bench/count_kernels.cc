// One kernel on fixed data, once, for instruction_counts.py, which counts what happens inside count_this().
//   count_kernels            names of the kernels, one per line
//   count_kernels NAME       runs it
//   count_kernels --build    the compiler with the build type, and the instruction set
#include <cstdio>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "kernels/kernels.h"

namespace {

using namespace nibble;

constexpr int64_t kCount = 4096;                          // of the kernels that go over an array
constexpr int64_t kRows = 64, kInputs = 512, kMost = 16;  // of the products; tokens
constexpr int64_t kHeadKeys = 256;                        // that attention looks at

constexpr RecordLayout kCodes = {.code_bits = 4, .groups = 1, .scale_type = ScaleType::f32};  // nf4
constexpr RecordLayout kWithMinimums = {.code_bits = 4, .groups = 2, .scale_type = ScaleType::f16, .minimums = 1};
constexpr RecordLayout kBytes = {.code_bits = 8, .groups = 2, .scale_type = ScaleType::f16};  // q8_0
constexpr int64_t kMostWords = block_words(PanelType::f32, {.groups = 4, .sums = 1});

std::vector<float> gaussian(int64_t count) {
  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  std::vector<float> x(static_cast<size_t>(count));
  for (float& value : x) value = normal(random);
  return x;
}

/// Whatever a case needs; every array is as long as the longest use of it.
struct Data {
  const Kernels& k = kernels();
  std::vector<float> x = gaussian(kMost * kInputs), w = gaussian(kRows * kInputs), y = gaussian(kRows * kInputs);
  std::vector<float> scales = std::vector<float>(kRows * kInputs / 32, 0.5f);
  std::vector<uint8_t> bytes = std::vector<uint8_t>(kRows * kInputs, 0x35);
  std::vector<uint8_t> records = std::vector<uint8_t>(packed4_bytes(kRows, kInputs, kBytes), 0x35);  // the largest
  std::vector<uint16_t> halves = std::vector<uint16_t>(kRows * kInputs, 0x2e66);
  std::vector<uint32_t> panels = std::vector<uint32_t>(panel_words(kMost, kInputs, kMostWords), 0);
  Codebook4 book = {};
  Levels4 levels = {};

  Data() {
    for (int i = 0; i < 16; ++i) book.levels[i] = static_cast<float>(i) / 7.5f - 1.0f;
    for (int i = 0; i < 15; ++i) book.thresholds[i] = (book.levels[i] + book.levels[i + 1]) / 2.0f;
    for (int i = 0; i < 16; ++i) book.codes[i] = static_cast<uint8_t>(i);
    levels = make_levels4(book.levels);
  }

  /// A group of heads over keys or values, as attention has them when it decodes.
  template <class W>
  RowSums<W> heads(const W* w) {
    return {x.data(), w, y.data(), 3, kHeadKeys, kRows, kHeadKeys, kRows, kRows};
  }
  int8_t* signed_bytes() { return reinterpret_cast<int8_t*>(bytes.data()); }
  Packed4 packed(const RecordLayout& layout) const { return {records.data(), &levels, kRows, kInputs, layout}; }
  Activations4 activations(int64_t tokens) { return {x.data(), panels.data(), tokens, kInputs, kInputs}; }
  MatmulPacked4 product(int64_t tokens, const RecordLayout& layout = kCodes) {
    return {packed(layout), panels.data(), y.data(), tokens, kRows};
  }
};

struct Case {
  const char* name;
  void (*run)(Data& d);
};

constexpr Case kCases[] = {
    {"matmul_f32 x1",
     [](Data& d) {
       d.k.matmul_f32({d.x.data(), d.w.data(), d.y.data(), 1, kRows, kInputs, kInputs, kInputs, kRows});
     }},
    {"matmul_f32 x16",
     [](Data& d) {
       d.k.matmul_f32({d.x.data(), d.w.data(), d.y.data(), 16, kRows, kInputs, kInputs, kInputs, kRows});
     }},
    {"matmul_i8 x16",
     [](Data& d) {
       auto* sums = reinterpret_cast<int32_t*>(d.y.data());
       d.k.matmul_i8({d.signed_bytes(), d.signed_bytes(), sums, 16, kRows, kInputs, kInputs, kInputs, kRows});
     }},
    {"matvec_f16 x1",
     [](Data& d) {
       d.k.matvec_f16({d.x.data(), d.halves.data(), d.y.data(), 1, kRows, kInputs, kInputs, kInputs, kRows});
     }},
    {"matvec_bf16 x1",
     [](Data& d) {
       d.k.matvec_bf16({d.x.data(), d.halves.data(), d.y.data(), 1, kRows, kInputs, kInputs, kInputs, kRows});
     }},
    {"matvec_4bit x1",
     [](Data& d) {
       const float* levels = d.book.levels;
       d.k.matvec_4bit(
           {d.x.data(), d.bytes.data(), d.scales.data(), levels, d.y.data(), 0, 64, 1, kRows, kInputs, kInputs, kRows});
     }},
    {"matvec_i8 x1",
     [](Data& d) {
       d.k.matvec_i8({d.x.data(), d.signed_bytes(), d.y.data(), 1, kRows, kInputs, kInputs, kInputs, kRows});
     }},
    {"sum_rows_f32 x16",
     [](Data& d) {
       d.k.sum_rows_f32({d.x.data(), d.w.data(), d.y.data(), 16, kRows, kInputs, kRows, kInputs, kInputs});
     }},
    {"sum_rows_f32 turned x16",
     [](Data& d) {
       d.k.sum_rows_f32({d.x.data(), d.w.data(), d.y.data(), 16, kRows, kInputs, 1, kInputs, kInputs, false, 16});
     }},
    {"sum_rows_f32 x3", [](Data& d) { d.k.sum_rows_f32(d.heads(d.w.data())); }},
    {"sum_rows_f16 x3", [](Data& d) { d.k.sum_rows_f16(d.heads(d.halves.data())); }},
    {"sum_rows_bf16 x3", [](Data& d) { d.k.sum_rows_bf16(d.heads(d.halves.data())); }},
    {"sum_rows_i8 x3", [](Data& d) { d.k.sum_rows_i8(d.heads<int8_t>(d.signed_bytes())); }},
    {"sum_codes x32",
     [](Data& d) {
       auto* sums = reinterpret_cast<int32_t*>(d.y.data());
       const auto* codes = reinterpret_cast<const uint32_t*>(d.bytes.data());
       d.k.sum_codes({d.signed_bytes(), codes, sums, 32, 256, kRows, 256, kRows, kRows});
     }},
    {"sum_pairs x16",
     [](Data& d) {
       const auto* x = reinterpret_cast<const int16_t*>(d.panels.data());
       const float* scales = d.scales.data();
       d.k.sum_pairs({x, d.panels.data(), scales, scales, d.y.data(), 16, kPairTerms, 64, kPairTerms, 64, 64});
     }},
    {"pair_columns",
     [](Data& d) {
       d.k.pair_columns({d.w.data(), d.panels.data(), d.scales.data(), kPairTerms, 64, 64, 64});
     }},
    {"transpose",
     [](Data& d) {
       d.k.transpose({d.w.data(), d.y.data(), kRows, kInputs, kInputs, kRows});
     }},
    {"activations4_i8 x1", [](Data& d) { d.k.activations4_i8(d.activations(1)); }},
    {"activations4_i16 x1", [](Data& d) { d.k.activations4_i16(d.activations(1)); }},
    {"activations4_i8 x16", [](Data& d) { d.k.activations4_i8(d.activations(16)); }},
    {"matmul_packed4_i8 x1", [](Data& d) { d.k.matmul_packed4_i8(d.product(1)); }},
    {"matmul_packed4_i8 x16", [](Data& d) { d.k.matmul_packed4_i8(d.product(16)); }},
    {"matmul_packed4_i8 q4_1 x1", [](Data& d) { d.k.matmul_packed4_i8(d.product(1, kWithMinimums)); }},
    {"matmul_packed4_i8 8 bit x16", [](Data& d) { d.k.matmul_packed4_i8(d.product(16, kBytes)); }},
    {"matmul_packed4_i8 8 bit x1", [](Data& d) { d.k.matmul_packed4_i8(d.product(1, kBytes)); }},
    {"matmul_packed4_i16 x1", [](Data& d) { d.k.matmul_packed4_i16(d.product(1)); }},
    {"matmul_packed4_i16 x16", [](Data& d) { d.k.matmul_packed4_i16(d.product(16)); }},
    {"matmul_packed4_i16 8 bit x16", [](Data& d) { d.k.matmul_packed4_i16(d.product(16, kBytes)); }},
    {"matmul_packed4_i16 8 bit x1", [](Data& d) { d.k.matmul_packed4_i16(d.product(1, kBytes)); }},
    {"matmul_packed4_f32 x1", [](Data& d) { d.k.matmul_packed4_f32(d.product(1)); }},
    {"matmul_packed4_f32 x16", [](Data& d) { d.k.matmul_packed4_f32(d.product(16)); }},
    {"matmul_packed4_f32 8 bit x1", [](Data& d) { d.k.matmul_packed4_f32(d.product(1, kBytes)); }},
    {"pack_4bit",
     [](Data& d) {
       d.k.pack_4bit({d.bytes.data(), d.scales.data(), d.records.data(), 0, 64, kRows, kInputs, kCodes});
     }},
    {"decode_packed4", [](Data& d) { d.k.decode_packed4(d.packed(kCodes), 0, kRows, d.y.data()); }},
    {"encode_4bit",
     [](Data& d) { d.k.encode_4bit(d.x.data(), kCount / 64, 64, d.book, d.bytes.data(), d.scales.data()); }},
    {"encode_4bit_bf16",
     [](Data& d) { d.k.encode_4bit_bf16(d.halves.data(), kCount / 64, 64, d.book, d.bytes.data(), d.scales.data()); }},
    {"decode_4bit",
     [](Data& d) { d.k.decode_4bit(d.bytes.data(), d.scales.data(), d.book.levels, 0, kCount, 64, d.y.data()); }},
    {"f16_to_f32", [](Data& d) { d.k.f16_to_f32(d.halves.data(), d.y.data(), kCount); }},
    {"f32_to_bf16", [](Data& d) { d.k.f32_to_bf16(d.x.data(), d.halves.data(), kCount); }},
    {"quantize_i8", [](Data& d) { d.k.quantize_i8(d.x.data(), 30.0f, d.signed_bytes(), kCount); }},
    {"quantize_i16",
     [](Data& d) { d.k.quantize_i16(d.x.data(), 30.0f, reinterpret_cast<int16_t*>(d.halves.data()), kCount); }},
    {"quantize_affine",
     [](Data& d) {
       d.k.quantize_affine(d.x.data(), {30.0f, -128.0f, 127.0f, 3.0f}, d.signed_bytes(), kCount);
     }},
    {"scale_sums",
     [](Data& d) {
       const auto* sums = reinterpret_cast<const int32_t*>(d.bytes.data());
       d.k.scale_sums({sums, sums + kCount, 3, 0.5f, d.x.data(), d.w.data(), d.y.data()}, kCount);
     }},
    {"extent", [](Data& d) { d.y[0] = d.k.extent(d.x.data(), kCount).high; }},
    {"layer_norm",
     [](Data& d) {
       d.k.layer_norm({d.x.data(), d.w.data(), d.w.data() + kCount, 1e-5f, d.y.data()}, kCount);
     }},
    {"rms_norm", [](Data& d) { d.k.rms_norm(d.x.data(), d.w.data(), 1e-5f, d.y.data(), kCount); }},
    {"softmax", [](Data& d) { d.k.softmax(d.x.data(), kCount); }},
    {"softmax_part", [](Data& d) { d.k.softmax_part(d.x.data(), kCount); }},
    {"silu_mul", [](Data& d) { d.k.silu_mul(d.x.data(), d.w.data(), d.y.data(), kCount); }},
    {"silu_mul_backward",
     [](Data& d) {
       const float *gate = d.x.data(), *up = d.w.data();
       d.k.silu_mul_backward({gate, up, up + kCount, d.y.data(), d.y.data() + kCount}, kCount);
     }},
    {"gelu_erf", [](Data& d) { d.k.gelu_erf(d.x.data(), d.y.data(), kCount); }},
    {"gelu_tanh", [](Data& d) { d.k.gelu_tanh(d.x.data(), d.y.data(), kCount); }},
    {"dot", [](Data& d) { d.y[0] = d.k.dot(d.x.data(), d.w.data(), kCount); }},
    {"axpy", [](Data& d) { d.k.axpy(0.5f, d.x.data(), d.y.data(), kCount); }},
};

}  // namespace

extern "C" __attribute__((noinline)) void count_this(const Case& chosen, Data& data) { chosen.run(data); }

int main(int argc, char** argv) {
  if (argc < 2) {
    for (const Case& c : kCases) std::puts(c.name);
    return 0;
  }
  if (std::strcmp(argv[1], "--build") == 0) {
    std::printf("g++ %s, %s\n%s\n", __VERSION__, NIBBLE_BUILD_TYPE, std::string(kernels().isa).c_str());
    return 0;
  }
  for (const Case& c : kCases) {
    if (std::strcmp(argv[1], c.name) != 0) continue;
    Data data;
    count_this(c, data);
    return 0;
  }
  std::fprintf(stderr, "unknown kernel '%s'\n", argv[1]);
  return 2;
}
