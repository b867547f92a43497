// The list of instruction sets, best first, and the choice between them. A new one is one more file, one line in
// tables.h and one line here.
#include <algorithm>
#include <cstdlib>
#include <string>

#include "kernels/tables.h"

namespace nibble {
namespace {

constexpr const Kernels* kTables[] = {
#if defined(__x86_64__)
    &kAvx512Kernels,
    &kAvxVnniKernels,
    &kAvx2Kernels,
#endif
    &kScalarKernels,
};

template <class... Members>
void fill(Kernels& table, const Kernels& below, Members... members) {
  ((table.*members = table.*members != nullptr ? table.*members : below.*members), ...);
}

Kernels filled(const Kernels& table, const Kernels& below) {
  using K = Kernels;
  Kernels result = table;
  fill(result, below, &K::matmul_f32, &K::matmul_i8, &K::matvec_f16, &K::matvec_bf16, &K::matvec_i8, &K::matvec_4bit,
       &K::sum_rows_f32, &K::sum_rows_f16, &K::sum_rows_bf16, &K::sum_rows_i8, &K::transpose, &K::sum_codes,
       &K::sum_pairs, &K::pair_columns, &K::quantize_i16, &K::quantize_affine, &K::scale_sums, &K::extent,
       &K::layer_norm, &K::f16_to_f32, &K::bf16_to_f32, &K::f32_to_f16, &K::f32_to_bf16, &K::decode_4bit,
       &K::encode_4bit, &K::encode_4bit_bf16, &K::absmax, &K::quantize_i8, &K::rms_norm, &K::softmax, &K::softmax_part,
       &K::silu_mul, &K::silu_mul_backward, &K::gelu_erf, &K::gelu_tanh, &K::dot, &K::axpy, &K::panel_layout,
       &K::pack_4bit, &K::decode_packed4, &K::activations4_i8, &K::activations4_i16, &K::activations4_f32,
       &K::matmul_packed4_i8, &K::matmul_packed4_i16, &K::matmul_packed4_f32);
  return result;
}

std::vector<Kernels> fill_supported_tables() {
  std::vector<Kernels> tables = {kScalarKernels};
  for (auto it = std::rbegin(kTables) + 1; it != std::rend(kTables); ++it) {
    if ((*it)->supported()) tables.push_back(filled(**it, tables.back()));
  }
  std::reverse(tables.begin(), tables.end());
  return tables;
}

struct Choice {
  const Kernels* table;
  std::string problem;
};

Choice choose() {
  const std::vector<Kernels>& tables = supported_kernels();
  const char* name = std::getenv("NIBBLE_ISA");
  if (name == nullptr || *name == '\0') return {&tables.front(), ""};
  std::string available;
  for (const Kernels& table : tables) {
    if (table.isa == name) return {&table, ""};
    available += (available.empty() ? "" : ", ") + std::string(table.isa);
  }
  const bool known = std::any_of(std::begin(kTables), std::end(kTables), [&](auto* t) { return t->isa == name; });
  return {&tables.front(), "NIBBLE_ISA=" + std::string(name) +
                               (known ? " is not supported by this processor" : " is unknown") +
                               "; available here: " + available};
}

const Choice& choice() {
  static const Choice result = choose();
  return result;
}

}  // namespace

const std::vector<Kernels>& supported_kernels() {
  static const std::vector<Kernels> tables = fill_supported_tables();
  return tables;
}

const Kernels& kernels() noexcept { return *choice().table; }

std::string_view isa_choice_problem() { return choice().problem; }

}  // namespace nibble
