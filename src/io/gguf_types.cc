// ggml's element types by number. Those without a block size are known by name only.
#include <array>
#include <string>

#include "core/error.h"
#include "io/gguf_reader.h"

namespace nibble {
namespace {

constexpr std::array<GgufType, 37> kTypes = {{
    {0, "f32", 1, 4},       {1, "f16", 1, 2},         {2, "q4_0", 32, 18},    {3, "q4_1", 32, 20},
    {6, "q5_0", 32, 22},    {7, "q5_1", 32, 24},      {8, "q8_0", 32, 34},    {9, "q8_1", 0, 0},
    {10, "q2_k", 256, 84},  {11, "q3_k", 256, 110},   {12, "q4_k", 256, 144}, {13, "q5_k", 256, 176},
    {14, "q6_k", 256, 210}, {15, "q8_k", 0, 0},       {16, "iq2_xxs", 0, 0},  {17, "iq2_xs", 0, 0},
    {18, "iq3_xxs", 0, 0},  {19, "iq1_s", 0, 0},      {20, "iq4_nl", 32, 18}, {21, "iq3_s", 0, 0},
    {22, "iq2_s", 0, 0},    {23, "iq4_xs", 256, 136}, {24, "i8", 1, 1},       {25, "i16", 1, 2},
    {26, "i32", 1, 4},      {27, "i64", 1, 8},        {28, "f64", 1, 8},      {29, "iq1_m", 0, 0},
    {30, "bf16", 1, 2},     {34, "tq1_0", 0, 0},      {35, "tq2_0", 0, 0},    {39, "mxfp4", 32, 17},
    {40, "nvfp4", 64, 36},  {41, "q1_0", 0, 0},       {42, "q2_0", 0, 0},
}};

}  // namespace

const GgufType& find_gguf_type(uint32_t id, const std::string& where) {
  std::string known, name = "number " + std::to_string(id);
  for (const GgufType& type : kTypes) {
    if (type.id == id && type.block_values > 0) return type;
    if (type.id == id) name = type.name;
    if (type.block_values > 0) known += (known.empty() ? "" : ", ") + std::string(type.name);
  }
  fail(ErrorCode::unsupported, where + ": elements of type " + name + " are not supported; " + known + " are");
}

}  // namespace nibble
