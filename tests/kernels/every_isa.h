#pragma once
// Tests that run once for every table of kernels that this processor supports.
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "kernels/kernels.h"

namespace nibble {

class EveryIsa : public testing::TestWithParam<size_t> {
 protected:
  const Kernels& table() const { return supported_kernels()[GetParam()]; }
  static const Kernels& scalar() { return supported_kernels().back(); }
};

inline std::string isa_name(const testing::TestParamInfo<size_t>& info) {
  return std::string(supported_kernels()[info.param].isa);
}

#define NIBBLE_EVERY_ISA(Suite) \
  INSTANTIATE_TEST_SUITE_P(, Suite, testing::Range(size_t{0}, supported_kernels().size()), isa_name)

/// 1 to 67 and a few large ones.
inline std::vector<int64_t> test_sizes() {
  std::vector<int64_t> sizes(67);
  for (size_t i = 0; i < sizes.size(); ++i) sizes[i] = static_cast<int64_t>(i) + 1;
  sizes.insert(sizes.end(), {128, 576, 1000, 4099});
  return sizes;
}

/// An array that starts `offset` elements behind an aligned address and ends in guards that must survive.
template <class T>
class Guarded {
 public:
  explicit Guarded(int64_t count, int64_t offset = 1)
      : count_(static_cast<size_t>(count)),
        offset_(static_cast<size_t>(offset)),
        memory_(offset_ + count_ + 64, kGuard) {}
  T* data() { return memory_.data() + offset_; }
  T& operator[](int64_t i) { return memory_[offset_ + static_cast<size_t>(i)]; }
  std::vector<T> values() const { return {begin(), begin() + static_cast<std::ptrdiff_t>(count_)}; }
  bool guards_intact() const {
    const auto is_guard = [](T x) { return x == kGuard; };
    return std::all_of(memory_.begin(), begin(), is_guard) &&
           std::all_of(begin() + static_cast<std::ptrdiff_t>(count_), memory_.end(), is_guard);
  }

 private:
  static constexpr T kGuard = T{77};
  auto begin() const { return memory_.begin() + static_cast<std::ptrdiff_t>(offset_); }

  size_t count_, offset_;
  std::vector<T> memory_;
};

inline Guarded<float> gaussian(int64_t count, uint32_t seed, float scale = 1.0f) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0.0f, scale);
  Guarded<float> x(count);
  for (int64_t i = 0; i < count; ++i) x[i] = normal(random);
  return x;
}

inline std::vector<uint32_t> bits(const std::vector<float>& values) {
  std::vector<uint32_t> result(values.size());
  std::transform(values.begin(), values.end(), result.begin(), [](float x) { return std::bit_cast<uint32_t>(x); });
  return result;
}

}  // namespace nibble
