#pragma once
// The arguments of commands that read a file of texts with labels.
#include <optional>
#include <string>

#include "cli/args.h"
#include "nibble/classify.h"

namespace nibble::cli {

struct LabelArgs {
  std::optional<std::string> file;
  LabelledColumns columns;
  bool truncate = false;

  /// @param file_help  what --file is for
  void declare(Args& args, const std::string& file_help);
  /// The file's rows.
  LabelledTexts read() const;
  ClassifyOptions options(const Common& common) const;
};

}  // namespace nibble::cli
