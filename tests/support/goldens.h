#pragma once
// Reading the reference results: tensors of a .safetensors file as f32, indexes as JSON. A test whose folder is absent
// is skipped with the reason (NIBBLE_NEED_SHARED in files.h).
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <regex>
#include <string>
#include <vector>

#include "core/json.h"
#include "core/tensor.h"
#include "io/safetensors.h"
#include "support/files.h"

namespace nibble::test {

/// Python's json module writes NaN and Infinity, which JSON does not have; they become null.
inline Json shared_json(const std::string& path) {
  const std::string file = (shared_folder() / path).string();
  return Json::parse(std::regex_replace(read_file(file), std::regex("-?\\b(NaN|Infinity)\\b"), "null"), file);
}

/// The folder of a tiny random model with the reference results of it: bundled with the tests, or among the shared
/// ones.
inline std::filesystem::path golden_model(const std::string& name) {
  const auto bundled = std::filesystem::path(NIBBLE_SOURCE_DIR) / "tests/data" / name;
  return std::filesystem::exists(bundled) ? bundled : shared_folder() / "goldens/models" / name;
}

inline int64_t int_at(const Json& object, const std::string& key) { return object.find(key)->as_int(key); }
inline std::string text_at(const Json& object, const std::string& key) { return object.find(key)->as_string(key); }
inline bool flag_at(const Json& object, const std::string& key) { return object.find(key)->as_bool(key); }

inline Shape shape_at(const Json& object, const std::string& key) {
  Shape shape;
  for (const Json& dim : object.find(key)->as_array(key)) shape.push_back(dim.as_int(key));
  return shape;
}

inline std::vector<float> floats(const Tensor& t) {
  const Tensor f = t.cast(DType::f32);
  return {f.f32(), f.f32() + f.count()};
}

inline std::vector<int32_t> ids_of(const Tensor& t) {
  std::vector<int32_t> ids;
  for (int64_t i = 0; i < t.count(); ++i) {
    ids.push_back(t.dtype == DType::i64 ? static_cast<int32_t>(t.data<int64_t>()[i]) : t.data<int32_t>()[i]);
  }
  return ids;
}

/// Largest |a - b| and largest |b|.
struct Difference {
  double largest = 0, scale = 0;
  double relative() const { return scale > 0 ? largest / scale : largest; }
};

inline Difference difference(const std::vector<float>& a, const std::vector<float>& b) {
  Difference d;
  EXPECT_EQ(a.size(), b.size());
  for (size_t i = 0; i < a.size() && i < b.size(); ++i) {
    d.largest = std::max(d.largest, std::abs(static_cast<double>(a[i]) - b[i]));
    if (std::isnan(a[i]) != std::isnan(b[i])) d.largest = INFINITY;
    d.scale = std::max(d.scale, std::abs(static_cast<double>(b[i])));
  }
  return d;
}

}  // namespace nibble::test
