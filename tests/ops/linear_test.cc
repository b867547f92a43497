#include "ops/linear.h"

#include <gtest/gtest.h>

#include <vector>

#include "core/error.h"

namespace nibble {
namespace {

TEST(Linear, MultipliesAndAddsTheBias) {
  const Linear layer = {.name = "layer",
                        .weight = Tensor::from(std::vector<float>{1, 2, 3, 4, 5, 6}, {3, 2}),
                        .bias = Tensor::from(std::vector<float>{10, 20, 30})};
  const Tensor y = linear(Tensor::from(std::vector<float>{1, -1, 2, 0}, {2, 2}), layer, {});
  EXPECT_EQ(std::vector<float>(y.f32(), y.f32() + 6), (std::vector<float>{9, 19, 29, 12, 26, 40}));
}

TEST(Linear, NamesTheLayerWhoseInputDoesNotFit) {
  const Linear layer = {.name = "model.layers.3.mlp.up_proj", .weight = Tensor(DType::f32, {3, 2}), .bias = {}};
  try {
    linear(Tensor(DType::f32, {1, 5}), layer, {});
    FAIL();
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("model.layers.3.mlp.up_proj"), std::string::npos);
  }
}

TEST(Embedding, TakesRowsOfAnyFormat) {
  const Tensor table = Tensor::from(std::vector<float>{0, 1, 2, 3, 4, 5, 6, 7}, {4, 2});
  const std::vector<int32_t> ids = {3, 0, 3};
  for (const std::string format : {"fp32", "fp16", "bf16", "int8"}) {
    const Tensor rows = embedding(ids, {.name = "e", .weight = encode(table, find_format(format), {})});
    const std::vector<float> expected = {6, 7, 0, 1, 6, 7};
    for (size_t i = 0; i < expected.size(); ++i) EXPECT_NEAR(rows.f32()[i], expected[i], 0.05) << format;
  }
}

TEST(Embedding, RefusesIdsOutsideTheTable) {
  const Embedding table = {.name = "e", .weight = Tensor(DType::f32, {4, 2})};
  for (const int32_t id : {-1, 4}) EXPECT_THROW(embedding(std::span(&id, 1), table), Error);
}

}  // namespace
}  // namespace nibble
