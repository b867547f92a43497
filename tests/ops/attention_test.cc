// Attention against the formula in double precision: grouped heads, windows, soft caps, caches in 16 bits.
#include "ops/attention.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <vector>

#include "core/error.h"
#include "core/parallel.h"

namespace nibble {
namespace {

Tensor gaussian(const Shape& shape, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  Tensor t(DType::f32, shape);
  for (int64_t i = 0; i < t.count(); ++i) t.f32()[i] = normal(random);
  return t;
}

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

constexpr Shapes kShapes[] = {{1, 1, 2, 1}, {4, 2, 16, 5}, {6, 2, 24, 70}, {3, 1, 64, 33}, {8, 8, 8, 100}};

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
  const Tensor q = gaussian({70, 96}, 7), k = gaussian({70, 32}, 8), v = gaussian({70, 32}, 9);
  std::vector<std::vector<float>> results;
  for (const int threads : {1, 2, 3}) {
    set_thread_count(threads);
    KvCache cache(1, 2, 16, 70);
    cache.write(0, k, v);
    const Tensor out = attention(q, cache, 0, {.heads = 6, .scale = 0.25f});
    results.emplace_back(out.f32(), out.f32() + out.count());
  }
  set_thread_count(0);
  EXPECT_EQ(results[0], results[1]);
  EXPECT_EQ(results[0], results[2]);
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
