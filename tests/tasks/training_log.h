#pragma once
// What a training run has logged.
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "core/json.h"

namespace nibble::test {

inline std::vector<Json> read_log(const std::filesystem::path& out) {
  std::vector<Json> lines;
  std::ifstream file(out / "log.jsonl");
  for (std::string line; std::getline(file, line);) lines.push_back(Json::parse(line, "log.jsonl"));
  return lines;
}

inline double number(const Json& object, const char* key) { return object.find(key)->as_double(key); }

}  // namespace nibble::test
