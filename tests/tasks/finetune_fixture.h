#pragma once
// Short runs over the tiny model.
#include <gtest/gtest.h>

#include <algorithm>

#include "nibble/finetune.h"
#include "tasks/tiny.h"

namespace nibble::test {

inline std::vector<std::string> names_in(const std::filesystem::path& folder) {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(folder))
    names.push_back(entry.path().filename().string());
  std::sort(names.begin(), names.end());
  return names;
}

class FinetuneTest : public ::testing::Test {
 protected:
  /// Ten short texts.
  std::string data() {
    std::string lines;
    for (int i = 0; i < 10; ++i) {
      lines +=
          Json::object({{"text", heldout().substr(static_cast<size_t>(i) * 60, 60 + static_cast<size_t>(i))}}).dump() +
          "\n";
    }
    return temp_.write("data.jsonl", lines).string();
  }
  FinetuneOptions options() {
    return {.data = data(),
            .lora = {.r = 4, .target_modules = "all-linear"},
            .steps = 6,
            .batch = 2,
            .learning_rate = 1e-2};
  }
  FinetuneReport run(const std::string& out, const FinetuneOptions& o) {
    return finetune(tiny_folder().string(), at(out), o);
  }
  std::string at(const std::string& name) const { return (temp_ / name).string(); }
  std::string bytes(const std::string& out) const {
    const std::filesystem::path adapter = temp_ / (out + "/adapter_model.safetensors");
    return read_file(std::filesystem::exists(adapter) ? adapter : temp_ / (out + "/model.safetensors"));
  }

  TempFolder temp_;
};

}  // namespace nibble::test
