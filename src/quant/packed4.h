#pragma once
// Products over the packed layout of kernels/packed4.h, for all formats whose rows it has a place for.
#include "kernels/packed4.h"
#include "quant/format.h"

namespace nibble {

/// Rows [begin, end) of a weight in its stored form, into records; begin is a multiple of 16.
using PackRows = void (*)(const QuantizedTensor& w, const RecordLayout& layout, int64_t begin, int64_t end,
                          uint8_t* records);

/// How a weight becomes records.
struct Packing {
  RecordLayout layout;
  const float* levels;  // 16, by code; not used with codes of 8 bits
  PackRows pack_rows;
};

/// Of a weight that is not packed; any layout that its rows can be put into.
using PackingOf = Packing (*)(const QuantizedTensor& w);

/// Puts the parts "records" and "record_table" (how to read them) in the place of all others.
void pack_records(QuantizedTensor& w, const Packing& packing);

/// Rows of a packed weight, see Format::decode_rows: the floats that the stored ones decode to.
void decode_record_rows(const QuantizedTensor& w, int64_t begin, int64_t end, float* out);

/// Products of weights of one format and one number of groups. Those that are not packed are packed piece by piece:
/// slow, the same bits.
void multiply_records(std::span<const Product> products, Activations activations, PackingOf packing_of);

}  // namespace nibble
