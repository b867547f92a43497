// Nearest codes of 4 bits (encode_4bit, encode_4bit_bf16): a search among the 15 thresholds, four steps from the middle
// one. Included inside the target region and anonymous namespace of AVX2, after decode-inl.h. No include guard and no
// includes: not a header of its own.

constexpr int64_t kBlocksTogether = 16;  // their absmax is found first, so that no search waits for one

// The thresholds as a heap: node 1 is the middle one, the children of node n are 2n (values not above) and 2n + 1.
// Four steps from node 1 end at 16 + interval. There is no node 0.
void build_heap(const float* thresholds, float* nodes) noexcept {
  nodes[0] = 1;
  for (int node = 1, level = 8, position = 0; node < 16; ++node) {
    nodes[node] = thresholds[position * 2 * level + level - 1];
    if (++position * level == 8) {
      position = 0;
      level /= 2;
    }
  }
}

struct SearchTree {
  F node1, node2, node3, nodes0to7, nodes8to15;
  __m256i codes;  // by interval, in both halves
};

SearchTree make_tree(const Codebook4& codebook) noexcept {
  float nodes[16];
  build_heap(codebook.thresholds, nodes);
  const __m128i codes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(codebook.codes));
  return {all(nodes[1]),
          all(nodes[2]),
          all(nodes[3]),
          _mm256_loadu_ps(nodes),
          _mm256_loadu_ps(nodes + 8),
          _mm256_broadcastsi128_si256(codes)};
}

// All ones where x is above the threshold or NaN.
NIBBLE_INLINE __m256i above(F x, F threshold) noexcept {
  return _mm256_castps_si256(_mm256_cmp_ps(x, threshold, _CMP_NLE_UQ));
}
NIBBLE_INLINE __m256i child(__m256i node, __m256i up) noexcept {
  return _mm256_sub_epi32(_mm256_add_epi32(node, node), up);
}

// 16 + interval
NIBBLE_INLINE __m256i search(F x, const SearchTree& tree) noexcept {
  const __m256i up = above(x, tree.node1);
  __m256i node = _mm256_sub_epi32(_mm256_set1_epi32(2), up);
  node = child(node, above(x, _mm256_blendv_ps(tree.node2, tree.node3, _mm256_castsi256_ps(up))));
  node = child(node, above(x, _mm256_permutevar8x32_ps(tree.nodes0to7, node)));
  return child(node, above(x, _mm256_permutevar8x32_ps(tree.nodes8to15, node)));
}

NIBBLE_INLINE void encode_32(const F* x, F reciprocal, const SearchTree& tree, uint8_t* packed) noexcept {
  __m256i found[4];
#pragma GCC unroll 4
  for (int j = 0; j < 4; ++j) found[j] = search(x[j] * reciprocal, tree);
  // Packing works within 128-bit halves: bytes 0-3 8-11 16-19 24-27 in the lower, the rest in the upper.
  const __m256i bytes =
      _mm256_packus_epi16(_mm256_packs_epi32(found[0], found[1]), _mm256_packs_epi32(found[2], found[3]));
  const __m256i codes = _mm256_shuffle_epi8(tree.codes, bytes);                  // looks at the low four bits
  const __m256i pairs = _mm256_maddubs_epi16(codes, _mm256_set1_epi16(0x0110));  // 16 * even + odd
  const __m256i packed_pairs = _mm256_packus_epi16(pairs, pairs);
  const __m128i ordered =
      _mm_unpacklo_epi16(_mm256_castsi256_si128(packed_pairs), _mm256_extracti128_si256(packed_pairs, 1));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(packed), ordered);
}

NIBBLE_INLINE float largest_magnitude(const float* x, int64_t count) noexcept {
  Magnitudes found[4] = {magnitudes(all(0)), magnitudes(all(0)), magnitudes(all(0)), magnitudes(all(0))};
  for (int64_t i = 0; i < count; i += kGroup) {
#pragma GCC unroll 4
    for (int v = 0; v < 4; ++v) found[v] = larger(found[v], magnitudes(load(x + i + v * kLanes, Whole{})));
  }
  return max_of(larger(larger(found[0], found[1]), larger(found[2], found[3])));
}

NIBBLE_INLINE float divisor(float absmax) noexcept { return absmax < 1e-38f ? 1e-38f : absmax; }

void encode_4bit(const float* x, int64_t blocks, int64_t block, const Codebook4& codebook, uint8_t* packed,
                 float* absmaxes) noexcept {
  const SearchTree tree = make_tree(codebook);
  for (int64_t b = 0; b < blocks; b += kBlocksTogether, absmaxes += kBlocksTogether) {
    const int64_t some = blocks - b < kBlocksTogether ? blocks - b : kBlocksTogether;
    for (int64_t i = 0; i < some; ++i) absmaxes[i] = largest_magnitude(x + i * block, block);
    for (int64_t i = 0; i < some; ++i) {
      const F reciprocal = all(1.0f / divisor(absmaxes[i]));
      for (int64_t j = 0; j < block; j += kGroup, x += kGroup, packed += kGroup / 2) {
        const F group[4] = {load(x, Whole{}), load(x + kLanes, Whole{}), load(x + 2 * kLanes, Whole{}),
                            load(x + 3 * kLanes, Whole{})};
        encode_32(group, reciprocal, tree, packed);
      }
    }
  }
}

// bf16: once the scale of a block is known, every threshold becomes the last bf16 that is not above it. The search
// among these compares integers of 16 bits, twice as many at once, and widens nothing.

NIBBLE_INLINE __m256i load_16(const uint16_t* x) noexcept {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(x));
}

// The numbers in their order, as integers: magnitudes with a sign.
NIBBLE_INLINE __m256i in_order(__m256i bf16) noexcept {
  return _mm256_sign_epi16(_mm256_and_si256(bf16, _mm256_set1_epi16(0x7fff)), bf16);
}

// Of 8 thresholds the last x, in order, with x * reciprocal <= threshold, in 32 bits each. The bf16 that is nearest to
// threshold * divisor is that one or the next: the product and the reciprocal are off by units of f32 only.
NIBBLE_INLINE __m256i last_not_above(F thresholds, float divisor) noexcept {
  // A threshold of 0 is not passed by what x * reciprocal rounds to 0: up to half the smallest float. So all are taken
  // times two, and that one is the smallest float.
  const F zero = _mm256_cmp_ps(thresholds, all(0), _CMP_EQ_OQ);
  const F twice = _mm256_blendv_ps(thresholds + thresholds, all(std::numeric_limits<float>::denorm_min()), zero);
  const F product = twice * all(0.5f * divisor);
  const __m256i bits = _mm256_add_epi32(_mm256_castps_si256(product), _mm256_set1_epi32(0x8000));
  const F nearest = _mm256_castsi256_ps(_mm256_and_si256(bits, _mm256_set1_epi32(-0x10000)));
  const __m256i magnitude = _mm256_srli_epi32(_mm256_slli_epi32(bits, 1), 17);
  const __m256i order = _mm256_sign_epi32(magnitude, bits);
  return _mm256_add_epi32(order, above(nearest * all(1.0f / divisor), thresholds));
}

// The nodes of a block's heap, 16 bits each.
NIBBLE_INLINE void order_nodes(const F (&nodes)[2], float absmax, uint16_t* out) noexcept {
  const __m256i order =
      _mm256_packs_epi32(last_not_above(nodes[0], divisor(absmax)), last_not_above(nodes[1], divisor(absmax)));
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(out), order);
}

struct OrderTree {
  __m256i node1, node2, node3, nodes0to7, nodes8to15;  // the last two in both halves
};

NIBBLE_INLINE OrderTree load_tree(const uint16_t* nodes) noexcept {
  const auto eight = [&](int first) {
    return _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(nodes + first)));
  };
  const __m256i low = eight(0);
  return {_mm256_shuffle_epi8(low, _mm256_set1_epi16(0x0302)), _mm256_shuffle_epi8(low, _mm256_set1_epi16(0x0504)),
          _mm256_shuffle_epi8(low, _mm256_set1_epi16(0x0706)), low, eight(8)};
}

// The interval in the low byte of every 16 bits. Nodes are looked up by bytes, so places count in twos, in both bytes,
// and the high byte adds 1.
NIBBLE_INLINE __m256i search(__m256i x, const OrderTree& tree) noexcept {
  const __m256i two = _mm256_set1_epi16(0x0202);
  const __m256i up1 = _mm256_cmpgt_epi16(x, tree.node1);
  const __m256i up2 = _mm256_cmpgt_epi16(x, _mm256_blendv_epi8(tree.node2, tree.node3, up1));
  const __m256i place = _mm256_add_epi16(_mm256_and_si256(up1, _mm256_set1_epi16(0x0404)), _mm256_and_si256(up2, two));
  const __m256i node4to7 = _mm256_add_epi16(place, _mm256_set1_epi16(0x0908));
  const __m256i up3 = _mm256_cmpgt_epi16(x, _mm256_shuffle_epi8(tree.nodes0to7, node4to7));
  const __m256i next = _mm256_add_epi16(_mm256_add_epi16(place, place), _mm256_and_si256(up3, two));
  const __m256i node8to15 = _mm256_add_epi16(next, _mm256_set1_epi16(0x0100));
  const __m256i up4 = _mm256_cmpgt_epi16(x, _mm256_shuffle_epi8(tree.nodes8to15, node8to15));
  return _mm256_sub_epi16(next, up4);
}

// 16 * even + odd, of 16 values, in 32 bits each.
NIBBLE_INLINE __m256i encode_16(const uint16_t* x, const OrderTree& tree, __m256i codes) noexcept {
  const __m256i found = _mm256_shuffle_epi8(codes, search(in_order(load_16(x)), tree));
  return _mm256_madd_epi16(_mm256_and_si256(found, _mm256_set1_epi16(0xff)), _mm256_set1_epi32(0x00010010));
}

NIBBLE_INLINE void encode_32(const uint16_t* x, const OrderTree& tree, __m256i codes, uint8_t* packed) noexcept {
  const __m256i words = _mm256_packs_epi32(encode_16(x, tree, codes), encode_16(x + 16, tree, codes));
  const __m256i bytes = _mm256_packus_epi16(words, words);  // 0-3 8-11 in the lower half, the rest in the upper
  _mm_storeu_si128(reinterpret_cast<__m128i*>(packed),
                   _mm_unpacklo_epi32(_mm256_castsi256_si128(bytes), _mm256_extracti128_si256(bytes, 1)));
}

// Where the divisor is infinity or NaN: nothing is in order then.
NIBBLE_INLINE void encode_32(const uint16_t* x, float divisor, const SearchTree& tree, uint8_t* packed) noexcept {
  F group[4];
#pragma GCC unroll 4
  for (int v = 0; v < 4; ++v) group[v] = widen_bf16(load(x + v * kLanes, Whole{}));
  encode_32(group, all(1.0f / divisor), tree, packed);
}

NIBBLE_INLINE float largest_magnitude(const uint16_t* x, int64_t count) noexcept {
  const __m256i no_sign = _mm256_set1_epi16(0x7fff);
  __m256i found = _mm256_setzero_si256();
  for (int64_t i = 0; i < count; i += kGroup) {
    found = _mm256_max_epi16(found, _mm256_max_epi16(_mm256_and_si256(load_16(x + i), no_sign),
                                                     _mm256_and_si256(load_16(x + i + 16), no_sign)));
  }
  const __m128i eight = _mm_max_epi16(_mm256_castsi256_si128(found), _mm256_extracti128_si256(found, 1));
  const __m128i least = _mm_minpos_epu16(_mm_xor_si128(eight, _mm_set1_epi16(-1)));  // the largest, complemented
  return _mm_cvtss_f32(_mm_castsi128_ps(_mm_slli_epi32(_mm_xor_si128(least, _mm_set1_epi32(0xffff)), 16)));
}

void encode_4bit_bf16(const uint16_t* x, int64_t blocks, int64_t block, const Codebook4& codebook, uint8_t* packed,
                      float* absmaxes) noexcept {
  const SearchTree tree = make_tree(codebook);
  float heap[16];
  build_heap(codebook.thresholds, heap);
  const auto four = [&](int first) { return _mm_loadu_ps(heap + first); };
  const F nodes[2] = {_mm256_set_m128(four(8), four(0)), _mm256_set_m128(four(12), four(4))};  // as packs_epi32 packs
  for (int64_t b = 0; b < blocks; b += kBlocksTogether, absmaxes += kBlocksTogether) {
    const int64_t some = blocks - b < kBlocksTogether ? blocks - b : kBlocksTogether;
    uint16_t order[kBlocksTogether][16];
    for (int64_t i = 0; i < some; ++i) absmaxes[i] = largest_magnitude(x + i * block, block);
    for (int64_t i = 0; i < some; ++i) order_nodes(nodes, absmaxes[i], order[i]);
    for (int64_t i = 0; i < some; ++i, x += block, packed += block / 2) {
      if (std::isfinite(absmaxes[i])) {
        const OrderTree ordered = load_tree(order[i]);
        for (int64_t j = 0; j < block; j += kGroup) encode_32(x + j, ordered, tree.codes, packed + j / 2);
      } else {
        for (int64_t j = 0; j < block; j += kGroup) encode_32(x + j, absmaxes[i], tree, packed + j / 2);
      }
    }
  }
}
