#pragma once
// ggml's blocks as records have them (kernels/packed4.h): 32 or 16 codes of a row in the order of a record's lines,
// with their scale and minimum. The value of a weight stays the same.
#include "quant/packed4.h"

namespace nibble {

struct StoredGroup {
  uint32_t words[8];                    // one per line: 8 codes of 4 bits or 4 of 8 bits
  uint16_t scale, minimum;              // f16, or bf16 where the layout says so
  int8_t scale_factor, minimum_factor;  // with ScaleType::f16_i8
};

/// Group `group` of a block, into the fields that the layout has.
using ReadGroup = void (*)(const uint8_t* block, int64_t group, StoredGroup& out);

/// How blocks of a type become records.
struct GgmlPacking {
  RecordLayout layout;
  const float* levels;  // null: codes of 8 bits
  ReadGroup read_group;
};

void read_q4_0(const uint8_t* block, int64_t group, StoredGroup& out);
void read_q4_1(const uint8_t* block, int64_t group, StoredGroup& out);
void read_q4_k(const uint8_t* block, int64_t group, StoredGroup& out);
void read_iq4_xs(const uint8_t* block, int64_t group, StoredGroup& out);
void read_mxfp4(const uint8_t* block, int64_t group, StoredGroup& out);
void read_q8_0(const uint8_t* block, int64_t group, StoredGroup& out);
void read_q5_0(const uint8_t* block, int64_t group, StoredGroup& out);
void read_q5_1(const uint8_t* block, int64_t group, StoredGroup& out);
void read_q2_k(const uint8_t* block, int64_t group, StoredGroup& out);
void read_q3_k(const uint8_t* block, int64_t group, StoredGroup& out);
void read_q5_k(const uint8_t* block, int64_t group, StoredGroup& out);
void read_q6_k(const uint8_t* block, int64_t group, StoredGroup& out);

inline constexpr float kLevelsFromMinus8[16] = {-8, -7, -6, -5, -4, -3, -2, -1, 0, 1, 2, 3, 4, 5, 6, 7};
inline constexpr float kLevelsFrom0[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
inline constexpr float kLevelsOf3Bits[16] = {-4, -3, -2, -1, 0, 1, 2, 3};
inline constexpr float kLevelsOf2Bits[16] = {0, 1, 2, 3};
/// The 16 values of IQ4_NL and IQ4_XS.
inline constexpr float kIq4Levels[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};
/// E2M1, doubled so that the values are integers; the scales make up for it.
inline constexpr float kE2m1Doubled[16] = {0, 1, 2, 3, 4, 6, 8, 12, -0.0f, -1, -2, -3, -4, -6, -8, -12};

inline constexpr RecordLayout kLayout32 = {.groups = 2, .scale_type = ScaleType::f16};
inline constexpr GgmlPacking kPackingQ4_0 = {kLayout32, kLevelsFromMinus8, read_q4_0};
inline constexpr GgmlPacking kPackingIq4Nl = {kLayout32, kIq4Levels, read_q4_0};
inline constexpr GgmlPacking kPackingQ4_1 = {
    {.groups = 2, .scale_type = ScaleType::f16, .minimums = 1}, kLevelsFrom0, read_q4_1};
inline constexpr GgmlPacking kPackingQ4K = {
    {.groups = 2, .scale_type = ScaleType::f16_i8, .minimums = 1}, kLevelsFrom0, read_q4_k};
inline constexpr GgmlPacking kPackingIq4Xs = {{.groups = 2, .scale_type = ScaleType::f16_i8}, kIq4Levels, read_iq4_xs};
inline constexpr GgmlPacking kPackingMxfp4 = {{.groups = 2, .scale_type = ScaleType::bf16}, kE2m1Doubled, read_mxfp4};
inline constexpr GgmlPacking kPackingQ8_0 = {
    {.code_bits = 8, .groups = 2, .scale_type = ScaleType::f16}, nullptr, read_q8_0};
inline constexpr GgmlPacking kPackingQ5_0 = {
    {.code_bits = 8, .groups = 2, .scale_type = ScaleType::f16}, nullptr, read_q5_0};
inline constexpr GgmlPacking kPackingQ5_1 = {
    {.code_bits = 8, .groups = 2, .scale_type = ScaleType::f16, .minimums = 1}, nullptr, read_q5_1};
inline constexpr GgmlPacking kPackingQ2K = {
    {.groups = 4, .scale_type = ScaleType::f16_i8, .minimums = 1}, kLevelsOf2Bits, read_q2_k};
inline constexpr GgmlPacking kPackingQ3K = {{.groups = 4, .scale_type = ScaleType::f16_i8}, kLevelsOf3Bits, read_q3_k};
inline constexpr GgmlPacking kPackingQ5K = {
    {.code_bits = 8, .groups = 2, .scale_type = ScaleType::f16_i8, .minimums = 1}, nullptr, read_q5_k};
inline constexpr GgmlPacking kPackingQ6K = {
    {.code_bits = 8, .groups = 4, .scale_type = ScaleType::f16_i8}, nullptr, read_q6_k};

/// One row's group, to its places in a record.
void put_group(const StoredGroup& stored, const RecordLayout& layout, int64_t row, int64_t group, uint8_t* record);

}  // namespace nibble
