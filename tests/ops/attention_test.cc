// Attention against the formula in double precision: grouped heads, windows, soft caps, caches in 16 bits.
#include "ops/attention.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "core/error.h"
#include "core/parallel.h"
#include "support/random.h"

namespace nibble {
namespace {

using test::gaussian;

/// Which keys a query sees.
struct Range {
  int64_t begin, end;
};

/// A key head and its width.
struct Head {
  int64_t index, dim;
};

/// One head's result for one query: softmax(score * scale) over the keys of the range, times their values.
std::vector<double> exact(const float* q, const Tensor& k, const Tensor& v, Head head, const AttentionOptions& options,
                          Range range) {
  const auto [kv_head, head_dim] = head;
  std::vector<double> weights, out(static_cast<size_t>(head_dim));
  double sum = 0;
  for (int64_t j = range.begin; j < range.end; ++j) {
    double score = 0;
    for (int64_t d = 0; d < head_dim; ++d)
      score += static_cast<double>(q[d]) * k.f32()[j * k.cols() + kv_head * head_dim + d];
    score *= options.scale;
    if (options.softcap > 0) score = options.softcap * std::tanh(score / options.softcap);
    weights.push_back(std::exp(score));
    sum += weights.back();
  }
  for (int64_t j = range.begin; j < range.end; ++j) {
    const double weight = weights[static_cast<size_t>(j - range.begin)] / sum;
    for (int64_t d = 0; d < head_dim; ++d) {
      out[static_cast<size_t>(d)] += weight * v.f32()[j * v.cols() + kv_head * head_dim + d];
    }
  }
  return out;
}

struct Shapes {
  int64_t heads, kv_heads, head_dim, tokens;
};

void expect_causal(const Shapes& s, const AttentionOptions& options, DType dtype, double tolerance) {
  const Tensor q = gaussian({s.tokens, s.heads * s.head_dim}, 1);
  const Tensor k = gaussian({s.tokens, s.kv_heads * s.head_dim}, 2),
               v = gaussian({s.tokens, s.kv_heads * s.head_dim}, 3);
  KvCache cache(1, s.kv_heads, s.head_dim, s.tokens, dtype);
  const int64_t first = s.tokens / 3;  // in two calls: a prompt, then the rest
  std::vector<float> got;
  for (const Range part : {Range{0, first}, Range{first, s.tokens}}) {
    if (part.begin == part.end) continue;
    cache.write(0, k.slice_rows(part.begin, part.end), v.slice_rows(part.begin, part.end));
    const Tensor out = attention(q.slice_rows(part.begin, part.end), cache, 0, options);
    got.insert(got.end(), out.f32(), out.f32() + out.count());
    cache.advance(part.end - part.begin);
  }
  for (int64_t t = 0; t < s.tokens; ++t) {
    const Range range = {options.window ? std::max<int64_t>(0, t - options.window + 1) : 0, t + 1};
    for (int64_t h = 0; h < s.heads; ++h) {
      const int64_t at = (t * s.heads + h) * s.head_dim;
      const auto expected = exact(q.f32() + at, k, v, {h / (s.heads / s.kv_heads), s.head_dim}, options, range);
      for (int64_t d = 0; d < s.head_dim; ++d) {
        ASSERT_NEAR(got[static_cast<size_t>(at + d)], expected[static_cast<size_t>(d)], tolerance)
            << "token " << t << " head " << h;
      }
    }
  }
}

constexpr Shapes kShapes[] = {{1, 1, 2, 1},   {4, 2, 16, 5},  {6, 2, 24, 70}, {3, 1, 64, 33},
                              {8, 8, 8, 100}, {4, 2, 6, 530}, {40, 1, 4, 9},  {3, 3, 5, 40}};

TEST(Attention, EqualsTheFormula) {
  for (const Shapes& s : kShapes) {
    const float scale = 1.0f / std::sqrt(static_cast<float>(s.head_dim));
    expect_causal(s, {.heads = s.heads, .scale = scale}, DType::f32, 1e-5);
    expect_causal(s, {.heads = s.heads, .scale = scale, .window = 3}, DType::f32, 1e-5);
    expect_causal(s, {.heads = s.heads, .scale = scale, .window = 40}, DType::f32, 1e-5);
    expect_causal(s, {.heads = s.heads, .scale = scale, .softcap = 1.5f}, DType::f32, 1e-5);
  }
}

// Keys and values are rounded once, by at most 2^-11 (f16) or 2^-8 (bf16): scores move by that times |q| |k|, results
// by that times |v| (at most about 5 here).
TEST(Attention, CachesInSixteenBitsRoundOnce) {
  for (const Shapes& s : kShapes) {
    const float scale = 1.0f / std::sqrt(static_cast<float>(s.head_dim));
    expect_causal(s, {.heads = s.heads, .scale = scale}, DType::f16, 0.02);
    expect_causal(s, {.heads = s.heads, .scale = scale}, DType::bf16, 0.16);
  }
}

/// Where a block of keys has component d of its position t, and where values have it.
size_t key_place(const KvCache&, int64_t t, int64_t d) { return static_cast<size_t>(d * KvCache::kKeyColumns + t); }
size_t value_place(const KvCache& cache, int64_t t, int64_t d) { return static_cast<size_t>(t * cache.head_dim() + d); }

/// What the heads of an int8 cache hold, [tokens, kv_heads * head_dim]; every component within half a code of x.
Tensor decoded(const KvCache& cache, KvCache::Rows (KvCache::*side)(int64_t, int64_t, int64_t) const,
               size_t (*place)(const KvCache&, int64_t, int64_t), const Tensor& x) {
  Tensor values(DType::f32, x.shape);
  for (int64_t h = 0; h < cache.kv_heads(); ++h) {
    for (int64_t t = 0; t < x.rows(); ++t) {
      const int64_t first = t / KvCache::kKeyColumns * KvCache::kKeyColumns;
      const KvCache::Rows rows = (cache.*side)(0, h, first);
      const float scale = rows.scales[t - first];
      for (int64_t d = 0; d < cache.head_dim(); ++d) {
        const auto code = static_cast<int8_t>(rows.data[place(cache, t - first, d)]);
        const int64_t at = t * x.cols() + h * cache.head_dim() + d;
        values.f32()[at] = static_cast<float>(code) * scale;
        EXPECT_NEAR(values.f32()[at], x.f32()[at], 0.5001f * scale) << t;
      }
    }
  }
  return values;
}

// Half a code away when written, and from there like any other values.
TEST(Attention, CachesInEightBitsRoundToHalfACode) {
  for (const Shapes& s : kShapes) {
    const Shape shape = {s.tokens, s.kv_heads * s.head_dim};
    const Tensor q = gaussian({s.tokens, s.heads * s.head_dim}, 1), k = gaussian(shape, 2), v = gaussian(shape, 3);
    KvCache rounded(1, s.kv_heads, s.head_dim, s.tokens, DType::i8), same(1, s.kv_heads, s.head_dim, s.tokens);
    rounded.write(0, k, v);
    same.write(0, decoded(rounded, &KvCache::keys, key_place, k), decoded(rounded, &KvCache::values, value_place, v));
    for (const int64_t window : {0, 40}) {
      const AttentionOptions options = {
          .heads = s.heads, .scale = 1.0f / std::sqrt(static_cast<float>(s.head_dim)), .window = window};
      const Tensor got = attention(q, rounded, 0, options), expected = attention(q, same, 0, options);
      for (int64_t i = 0; i < got.count(); ++i) ASSERT_NEAR(got.f32()[i], expected.f32()[i], 1e-5) << i;
    }
  }
}

std::vector<uint32_t> bits_of(const Tensor& t) {
  std::vector<uint32_t> bits(static_cast<size_t>(t.count()));
  std::memcpy(bits.data(), t.f32(), bits.size() * sizeof(uint32_t));
  return bits;
}

/// The last `tokens` of a sequence through a cache, so many at a time.
std::vector<uint32_t> in_steps(const Shapes& s, const AttentionOptions& options, DType dtype, int64_t tokens,
                               int64_t step) {
  const Tensor q = gaussian({s.tokens, s.heads * s.head_dim}, 11);
  const Tensor k = gaussian({s.tokens, s.kv_heads * s.head_dim}, 12),
               v = gaussian({s.tokens, s.kv_heads * s.head_dim}, 13);
  KvCache cache(1, s.kv_heads, s.head_dim, s.tokens, dtype);
  std::vector<uint32_t> bits;
  for (int64_t at = 0; at < s.tokens;) {
    const int64_t end = at < s.tokens - tokens ? s.tokens - tokens : std::min(s.tokens, at + step);
    cache.write(0, k.slice_rows(at, end), v.slice_rows(at, end));
    if (at >= s.tokens - tokens) {
      const std::vector<uint32_t> more = bits_of(attention(q.slice_rows(at, end), cache, 0, options));
      bits.insert(bits.end(), more.begin(), more.end());
    }
    cache.advance(end - at);
    at = end;
  }
  return bits;
}

TEST(Attention, ATokenHasTheSameBitsAloneAndWithOthers) {
  for (const Shapes& s : {Shapes{6, 2, 24, 300}, Shapes{4, 4, 8, 530}}) {
    for (const DType dtype : {DType::f32, DType::f16, DType::bf16, DType::i8}) {
      for (const int64_t window : {0, 3, 100, 270}) {
        const AttentionOptions options = {.heads = s.heads, .scale = 0.3f, .window = window};
        const std::vector<uint32_t> alone = in_steps(s, options, dtype, 60, 1);
        for (const int64_t step : {2, 7, 60}) {
          EXPECT_EQ(in_steps(s, options, dtype, 60, step), alone)
              << dtype_name(dtype) << ", window " << window << ", " << step << " tokens";
        }
      }
    }
  }
}

TEST(Attention, SequencesSeeOnlyThemselves) {
  const std::vector<int64_t> lengths = {3, 1, 20};
  const Shapes s = {4, 4, 16, 24};
  const Tensor q = gaussian({24, 64}, 4), k = gaussian({24, 64}, 5), v = gaussian({24, 64}, 6);
  const AttentionOptions options = {.heads = 4, .scale = 0.25f};
  const Tensor out = bidirectional_attention(q, k, v, lengths, options);
  int64_t begin = 0;
  for (const int64_t length : lengths) {
    for (int64_t t = begin; t < begin + length; ++t) {
      for (int64_t h = 0; h < s.heads; ++h) {
        const int64_t at = (t * s.heads + h) * s.head_dim;
        const auto expected = exact(q.f32() + at, k, v, {h, s.head_dim}, options, {begin, begin + length});
        for (int64_t d = 0; d < s.head_dim; ++d) {
          ASSERT_NEAR(out.f32()[at + d], expected[static_cast<size_t>(d)], 1e-5) << t << " " << h;
        }
      }
    }
    begin += length;
  }
}

TEST(Attention, DoesNotDependOnTheThreadCount) {
  for (const DType dtype : {DType::f32, DType::bf16, DType::i8}) {
    std::vector<std::vector<uint32_t>> results;
    for (const int threads : {1, 2, 3}) {
      set_thread_count(threads);
      results.push_back(in_steps({6, 2, 16, 700}, {.heads = 6, .scale = 0.25f}, dtype, 2, 1));
      const std::vector<uint32_t> prompt = in_steps({6, 2, 16, 70}, {.heads = 6, .scale = 0.25f}, dtype, 70, 70);
      results.back().insert(results.back().end(), prompt.begin(), prompt.end());
    }
    set_thread_count(0);
    EXPECT_EQ(results[0], results[1]);
    EXPECT_EQ(results[0], results[2]);
  }
}

TEST(KvCache, EightBitsKeepTheLargestZeroAndNan) {
  constexpr float kNan = std::numeric_limits<float>::quiet_NaN(), kInf = std::numeric_limits<float>::infinity();
  struct Row {
    std::vector<float> values, kept;
  };
  for (const Row& row : {Row{{0.5f, -2.0f, 1.0f}, {32.0f / 127 * 2, -2.0f, 64.0f / 127 * 2}}, Row{{0, 0, 0}, {0, 0, 0}},
                         Row{{1, kNan, 2}, {kNan, kNan, kNan}}, Row{{1, kInf, 2}, {kNan, kNan, kNan}},
                         Row{{1e-38f, 3e38f, 0}, {0, 3e38f, 0}}}) {
    KvCache cache(1, 1, 3, 1, DType::i8);
    const Tensor x = Tensor::from(row.values, {1, 3});
    cache.write(0, x, x);
    for (const auto& [kept, step] :
         {std::pair(cache.keys(0, 0, 0), size_t{KvCache::kKeyColumns}), {cache.values(0, 0, 0), size_t{1}}}) {
      for (size_t i = 0; i < 3; ++i) {
        const float value = reinterpret_cast<const int8_t*>(kept.data)[i * step] * kept.scales[0];
        if (std::isnan(row.kept[i])) {
          EXPECT_TRUE(std::isnan(value));
        } else {
          EXPECT_NEAR(value, row.kept[i], 1e-6f * std::fabs(row.kept[i])) << i;
        }
      }
    }
  }
}

TEST(KvCache, ForgetsWhatIsTruncatedAndRefusesTooMuch) {
  KvCache cache(1, 1, 2, 3);
  const Tensor two = gaussian({2, 2}, 10);
  cache.write(0, two, two);
  cache.advance(2);
  EXPECT_THROW(cache.write(0, two, two), Error);
  cache.truncate(1);
  cache.write(0, two, two);
  cache.advance(2);
  EXPECT_EQ(cache.length(), 3);
}

}  // namespace
}  // namespace nibble
