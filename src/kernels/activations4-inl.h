// The walk over panels of activations (packed4.h), and how a block's multiplier follows from its values. Included
// inside an anonymous namespace, so that every instruction set compiles its own. No include guard and no includes: not
// a header of its own.

constexpr float kLargestI16 = 5792.0f;
constexpr float kTiny = 1e-30f;  // blocks of less are quantized as if this were their largest value

inline float multiplier_i16(float largest) { return kLargestI16 / (largest < kTiny ? kTiny : largest); }

// mean: the largest (|x| + |y|) / 2 of neighbours. 2 * 81.4 steps for both become at most 163 when each is rounded.
inline float multiplier_i8(float largest, float mean) {
  const float for_one = 127.0f / (largest < kTiny ? kTiny : largest);
  const float for_two = 81.4f / (mean < kTiny ? kTiny : mean);
  return for_two < for_one ? for_two : for_one;
}

// A token of a panel: word d of a block is at words[d * width].
struct Column {
  uint32_t* words;
  int64_t width;
};

void put(Column column, int64_t word, uint32_t bits) { column.words[word * column.width] = bits; }

// Calls body(x of 64 inputs, column, layout) for every token and block; the tokens that fill a panel are all 0.
template <class Body>
void for_blocks(const Activations4& a, PanelType type, Body body) {
  const int64_t words = block_words(type, a.layout);
  constexpr float kZeros[kPackInputs] = {};
  uint32_t* block = a.panels;
  for (int64_t t = 0; t < a.tokens; t += kPanelTokens) {
    const int64_t width = panel_width(a.tokens - t);
    for (int64_t k = 0; k < a.k; k += kPackInputs, block += width * words) {
      for (int64_t n = 0; n < width; ++n) {
        body(t + n < a.tokens ? a.x + (t + n) * a.ldx + k : kZeros, Column{block + n, width}, a.layout);
      }
    }
  }
}
