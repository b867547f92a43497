// The walk over the blocks of a 4-bit tensor. Included inside an instruction set's target region and anonymous
// namespace. No include guard and no includes: not a header of its own.
//
// The instruction set provides: Levels (16 floats in registers), load_levels(levels, scale), and decode_32(packed,
// levels, out) for 32 codes in 16 bytes.

constexpr int64_t kGroup = 32;  // the smallest block, so a group never straddles two

void decode_some(const uint8_t* packed, const float* absmax, const float* levels, int64_t first, int64_t last,
                 int64_t block, float* out) noexcept {
  for (int64_t i = first; i < last; ++i) {
    const int byte = packed[i / 2];
    *out++ = levels[i % 2 == 0 ? byte >> 4 : byte & 15] * absmax[i / block];
  }
}

void decode_4bit(const uint8_t* packed, const float* absmax, const float* levels, int64_t first, int64_t count,
                 int64_t block, float* out) noexcept {
  const int64_t last = first + count;
  const int64_t aligned = (first + kGroup - 1) / kGroup * kGroup;
  int64_t i = aligned < last ? aligned : last;
  decode_some(packed, absmax, levels, first, i, block, out);
  for (int64_t b = i / block; i + kGroup <= last; ++b) {
    const int64_t block_end = (b + 1) * block;
    const int64_t end = block_end < last ? block_end : last;
    const Levels scaled = load_levels(levels, absmax[b]);
    for (; i + kGroup <= end; i += kGroup) decode_32(packed + i / 2, scaled, out + (i - first));
  }
  decode_some(packed, absmax, levels, i, last, block, out + (i - first));
}
