#pragma once
// One function per subcommand: parses its arguments, runs the task, prints. Returns the exit status.
#include <string>
#include <vector>

namespace nibble::cli {

using Arguments = std::vector<std::string>;

inline constexpr int kGateFailed = 7;

int cmd_formats(const Arguments& arguments);
int cmd_info(const Arguments& arguments);
int cmd_inspect(const Arguments& arguments);
int cmd_quantize(const Arguments& arguments);
int cmd_dequantize(const Arguments& arguments);
int cmd_merge(const Arguments& arguments);
int cmd_finetune(const Arguments& arguments);
int cmd_generate(const Arguments& arguments);
int cmd_chat(const Arguments& arguments);
int cmd_logits(const Arguments& arguments);
int cmd_tokenize(const Arguments& arguments);
int cmd_classify(const Arguments& arguments);
int cmd_embed(const Arguments& arguments);
int cmd_evaluate(const Arguments& arguments);
int cmd_bench(const Arguments& arguments);
int cmd_plan(const Arguments& arguments);
int cmd_recommend(const Arguments& arguments);

}  // namespace nibble::cli
