#include "core/hash_index.h"

#include <gtest/gtest.h>

#include <string>
#include <unordered_map>
#include <vector>

namespace nibble {
namespace {

TEST(HashIndex, HoldsWhatAMapHoldsWhenManyHashesCollide) {
  constexpr int32_t kCount = 3000;
  std::vector<std::string> keys;
  HashIndex index(kCount);
  std::unordered_map<std::string, int32_t> expected;
  const auto few_hashes = [](const std::string& key) { return hash_of(key) % 40; };
  const auto is = [&](const std::string& key) {
    return [&](int32_t place) { return keys[static_cast<size_t>(place)] == key; };
  };
  for (int32_t i = 0; i < kCount; ++i) {
    const std::string key = std::to_string(i * i % 1777);
    keys.push_back(key);
    const auto earlier = expected.find(key);
    EXPECT_EQ(index.put(few_hashes(key), i, is(key)), earlier == expected.end() ? -1 : earlier->second);
    expected[key] = i;
  }
  for (int32_t i = 0; i < 4000; ++i) {
    const std::string key = std::to_string(i);
    const auto found = expected.find(key);
    EXPECT_EQ(index.find(few_hashes(key), is(key)), found == expected.end() ? -1 : found->second);
  }
}

TEST(HashIndex, IsEmptyWithoutEntries) {
  const HashIndex index;
  EXPECT_EQ(index.find(0, [](int32_t) { return true; }), -1);
}

}  // namespace
}  // namespace nibble
