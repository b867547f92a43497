#pragma once
// Random numbers by their index: the same for every order of asking, so that threads and repeated layers agree.
#include <cstdint>

namespace nibble {

class CounterRandom {
 public:
  /// stream: numbers of different streams under one seed have nothing to do with each other.
  CounterRandom(uint64_t seed, uint64_t stream) : start_(mix(mix(seed + kStep) + stream * kStep)) {}

  uint64_t bits(uint64_t index) const { return mix(start_ + index * kStep); }
  /// In [0, 1), a multiple of 2^-24.
  float unit(uint64_t index) const { return static_cast<float>(bits(index) >> 40) * 0x1p-24f; }

 private:
  static constexpr uint64_t kStep = 0x9e3779b97f4a7c15u;

  /// SplitMix64: Steele, Lea and Flood, OOPSLA 2014.
  static constexpr uint64_t mix(uint64_t z) {
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
  }

  uint64_t start_;
};

}  // namespace nibble
