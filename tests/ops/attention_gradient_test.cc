// The backward pass of attention: masks, windows, caps, shared key heads, several sequences.
#include <gtest/gtest.h>

#include "ops/attention.h"
#include "ops/gradient_check.h"

namespace nibble {
namespace {

using namespace nibble::test;

struct Heads {
  int64_t heads, kv_heads, dim;
};

size_t at(int64_t i) { return static_cast<size_t>(i); }

/// One query head of one token, and the tokens whose keys it sees.
struct Query {
  int64_t token, head, begin, end;
};

/// Softmax over the keys of a query, times their values.
void attend(const std::vector<Values>& qkv, const Heads& h, const AttentionOptions& options, const Query& query,
            Values& out) {
  const auto [token, head, begin, end] = query;
  const int64_t kv_head = head / (h.heads / h.kv_heads), q_at = (token * h.heads + head) * h.dim;
  Values weights;
  double sum = 0;
  for (int64_t j = begin; j < end; ++j) {
    double score = 0;
    for (int64_t d = 0; d < h.dim; ++d) {
      score += qkv[0][at(q_at + d)] * qkv[1][at((j * h.kv_heads + kv_head) * h.dim + d)];
    }
    score *= options.scale;
    if (options.softcap > 0) score = options.softcap * std::tanh(score / options.softcap);
    weights.push_back(std::exp(score));
    sum += weights.back();
  }
  for (int64_t j = begin; j < end; ++j) {
    for (int64_t d = 0; d < h.dim; ++d) {
      out[at(q_at + d)] += weights[at(j - begin)] / sum * qkv[2][at((j * h.kv_heads + kv_head) * h.dim + d)];
    }
  }
}

struct Case {
  Heads heads;
  std::vector<int64_t> lengths;
  AttentionOptions options;
  bool causal = true;
};

Values exact(const Case& c, const std::vector<Values>& qkv) {
  Values out(qkv[0].size());
  int64_t first = 0;
  for (const int64_t length : c.lengths) {
    for (int64_t t = 0; t < length; ++t) {
      const int64_t window = c.options.window && c.causal ? std::max<int64_t>(0, t - c.options.window + 1) : 0;
      const int64_t end = c.causal ? t + 1 : length;
      for (int64_t h = 0; h < c.heads.heads; ++h) {
        attend(qkv, c.heads, c.options, {first + t, h, first + window, first + end}, out);
      }
    }
    first += length;
  }
  return out;
}

void check(const std::string& name, Case c) {
  c.options.heads = c.heads.heads;
  c.options.scale = 1.0f / std::sqrt(static_cast<float>(c.heads.dim));
  int64_t tokens = 0;
  for (const int64_t length : c.lengths) tokens += length;
  const int64_t width = c.heads.heads * c.heads.dim, kv_width = c.heads.kv_heads * c.heads.dim;
  expect_gradients({name,
                    {gaussian({tokens, width}, 1), gaussian({tokens, kv_width}, 2), gaussian({tokens, kv_width}, 3)},
                    [&](const std::vector<Tensor>& t, Tape* tape) {
                      return c.causal ? causal_attention(t[0], t[1], t[2], c.lengths, c.options, tape)
                                      : bidirectional_attention(t[0], t[1], t[2], c.lengths, c.options, tape);
                    },
                    [&](const std::vector<Values>& v) { return exact(c, v); }});
}

TEST(AttentionGradients, Causal) { check("causal", {{2, 2, 4}, {5, 1, 3}, {}}); }
TEST(AttentionGradients, GroupedHeads) { check("grouped", {{6, 2, 2}, {4}, {}}); }
TEST(AttentionGradients, Window) { check("window", {{2, 1, 4}, {7, 5}, {.window = 3}}); }
TEST(AttentionGradients, CappedScores) { check("capped", {{2, 1, 4}, {6}, {.softcap = 0.7f}}); }
TEST(AttentionGradients, BothDirections) { check("both", {{2, 2, 4}, {3, 5}, {}, false}); }
// More tokens than a block of queries has, forward and back.
TEST(AttentionGradients, SeveralBlocks) { check("blocks", {{1, 1, 2}, {70}, {.window = 40}}); }

TEST(AttentionGradients, SequencesHaveTheBitsThatACacheGives) {
  const Tensor q = gaussian({50, 24}, 1), k = gaussian({50, 12}, 2), v = gaussian({50, 12}, 3);
  const AttentionOptions options = {.heads = 4, .scale = 0.4f, .window = 20};
  const std::vector<int64_t> lengths = {37, 13};
  const Tensor all = causal_attention(q, k, v, lengths, options, nullptr);
  int64_t first = 0;
  for (const int64_t length : lengths) {
    KvCache cache(1, 2, 6, 64);
    cache.write(0, k.slice_rows(first, first + length), v.slice_rows(first, first + length));
    const Tensor one = attention(q.slice_rows(first, first + length), cache, 0, options);
    EXPECT_EQ(values_of(one), values_of(all.slice_rows(first, first + length)));
    first += length;
  }
}

}  // namespace
}  // namespace nibble
