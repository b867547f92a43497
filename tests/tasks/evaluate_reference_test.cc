// Saved predictions give exactly what the reference itself gives, and nothing is believed of such a file.
#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "nibble/evaluate.h"
#include "tasks/tiny.h"

namespace nibble {
namespace {

using namespace nibble::test;
using Chunks = std::vector<std::vector<int32_t>>;

const EvaluateOptions kOptions{.context = 64, .max_tokens = 320};

Chunks chunks_for(const EvaluateOptions& options) { return evaluation_chunks(tiny(), heldout(), options); }

/// The predictions of the bundled model.
std::string saved(const TempFolder& folder, EvaluateOptions options = kOptions) {
  options.save_reference = (folder / "tiny.ref").string();
  evaluate(tiny(), nullptr, chunks_for(options), options);
  return options.save_reference;
}

void expect_same(const EvaluateReport& a, const EvaluateReport& b) {
  ASSERT_EQ(a.figures.size(), b.figures.size());
  for (size_t i = 0; i < a.figures.size(); ++i) {
    EXPECT_EQ(a.figures[i].value, b.figures[i].value) << a.figures[i].name;
    EXPECT_EQ(a.figures[i].name, b.figures[i].name);
  }
  EXPECT_EQ(a.verdict, b.verdict);
  EXPECT_EQ(a.reference_bytes, b.reference_bytes);
}

TEST(SavedReference, GivesWhatTheModelGivesToTheLastBit) {
  const CausalLM model = load(tiny_folder(), {.format = "nf4"});
  for (const EvaluateOptions& options :
       {kOptions, EvaluateOptions{.context = 64, .max_tokens = 150, .stride = 24},
        EvaluateOptions{.context = 64, .max_tokens = 200, .scored = ScoredPart::second_half}}) {
    const TempFolder folder;
    const Chunks chunks = chunks_for(options);
    const EvaluateReport direct = evaluate(model, &tiny(), chunks, options);
    EXPECT_GT(direct.kl_mean, 0);
    expect_same(evaluate(model, SavedReference::open(saved(folder, options)), chunks, options), direct);
  }
}

TEST(SavedReference, IsSavedWhileComparing) {
  const TempFolder folder;
  const CausalLM model = load(tiny_folder(), {.format = "nf4"});
  EvaluateOptions options = kOptions;
  options.save_reference = (folder / "a.ref").string();
  const EvaluateReport direct = evaluate(model, &tiny(), chunks_for(options), options);
  EXPECT_EQ(read_file(folder / "a.ref"), read_file(saved(folder)));  // the reference's, not the model's
  expect_same(evaluate(model, SavedReference::open(options.save_reference), chunks_for(options), kOptions), direct);
  options.save_reference = (folder / "b.ref").string();
  expect_error(ErrorCode::invalid_argument, "save_reference", [&] {
    evaluate(model, SavedReference::open((folder / "a.ref").string()), chunks_for(options), options);
  });
}

TEST(SavedReference, IsSmall) {
  const TempFolder folder;
  const auto bytes = static_cast<int64_t>(read_file(saved(folder)).size());
  const int64_t head = 512 * 128 * 2, hidden = 5 * 63 * 128 * 4;  // bf16, f32
  EXPECT_GT(bytes, head + hidden);
  EXPECT_LT(bytes, head + hidden + 2000);
}

TEST(SavedReference, RefusesWhatItWasNotMadeFor) {
  const TempFolder folder;
  const SavedReference reference = SavedReference::open(saved(folder));
  const auto expect_refusal = [&](const std::string& says, const EvaluateOptions& options) {
    expect_error(ErrorCode::invalid_argument, says, [&] { evaluate(tiny(), reference, chunks_for(options), options); });
  };
  expect_refusal("another way of cutting the text (found chunks, expected stride 24)",
                 {.context = 64, .max_tokens = 320, .stride = 24});
  expect_refusal("another context (found 64, expected 32)", {.context = 32, .max_tokens = 320});
  expect_refusal("for another text", {.context = 64, .max_tokens = 256});
  NIBBLE_NEED_SHARED("goldens/gguf/f32.gguf");
  const CausalLM other = load(shared_folder() / "goldens/gguf/f32.gguf");
  expect_error(ErrorCode::invalid_argument, "vocabulary of 512", [&] { evaluate(other, reference, {{1, 2, 3}}); });
}

TEST(SavedReference, RefusesAQuantizedHeadThatRoundsActivations) {
  const TempFolder folder;
  NIBBLE_NEED_SHARED("goldens/models");
  const std::filesystem::path untied = shared_folder() / "goldens/models/llama";
  if (!std::filesystem::exists(untied)) GTEST_SKIP() << "no model with a head of its own";
  const CausalLM model = load(untied, {.format = "int8-dynamic", .quantize_head = true});
  const EvaluateOptions options{.context = 8, .save_reference = (folder / "x.ref").string()};
  expect_error(ErrorCode::unsupported, "cannot be saved", [&] {
    evaluate(model, nullptr, {{1, 2, 3, 4, 5, 6, 7, 8}}, options);
  });
  EXPECT_TRUE(std::filesystem::is_empty(folder.path()));
}

TEST(SavedReference, KeepsTheCapOfGemmasLogits) {
  NIBBLE_NEED_SHARED("goldens/models/gemma2");
  const CausalLM model = load(shared_folder() / "goldens/models/gemma2");
  const TempFolder folder;
  const Chunks chunks = {{1, 5, 9, 2, 7, 3}, {4, 8, 6, 5, 2, 1}};
  const EvaluateOptions options{.save_reference = (folder / "g.ref").string()};
  evaluate(model, nullptr, chunks, options);
  EXPECT_EQ(evaluate(model, SavedReference::open(options.save_reference), chunks).kl_max, 0);
}

TEST(SavedReference, NothingIsLeftWhenAPassFails) {
  const TempFolder folder, broken_folder;
  const CausalLM broken = load(patched_tiny(broken_folder, {{"model.layers.1.mlp.down_proj.weight", {{7, 0x7fc0}}}}));
  const std::string path = saved(folder);
  const std::string before = read_file(path);
  EvaluateOptions options = kOptions;
  options.save_reference = path;
  expect_error(ErrorCode::format, "down_proj", [&] { evaluate(tiny(), &broken, chunks_for(options), options); });
  EXPECT_EQ(read_file(path), before);
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder.path()), {}), 1);
}

TEST(SavedReference, BrokenFilesAreErrors) {
  const TempFolder folder;
  const std::string good = read_file(saved(folder));
  const auto open = [&](const std::string& bytes) {
    return SavedReference::open(folder.write("broken.ref", bytes).string());
  };
  const auto edited = [&](const std::string& from, const std::string& to) {
    std::string bytes = good;
    bytes.replace(bytes.find(from), from.size(), to);
    EXPECT_EQ(from.size(), to.size());
    return bytes;
  };
  for (const auto& [from, to] : {std::pair{R"("vocab_size":"512")", R"("vocab_size":"511")"},
                                 {R"("vocab_size":"512")", R"("vocab_size":"-12")"},
                                 {R"("chunks":"5")", R"("chunks":"x")"},
                                 {R"("context":)", R"("contexx":)"},
                                 {"nibble evaluation reference 1", "nibble evaluation reference 9"},
                                 {R"("head.weight")", R"("head.weighs")"},
                                 {R"("shape":[512,128])", R"("shape":[128,512])"}}) {
    const std::string bytes = edited(from, to);
    expect_error(ErrorCode::format, "broken.ref", [&] { open(bytes); });
  }
  expect_error(ErrorCode::format, "hidden.3", [&] {
    evaluate(tiny(), open(edited(R"("hidden.3")", R"("hidden.X")")), chunks_for(kOptions), kOptions);
  });
  expect_error(ErrorCode::format, "tiny-llama",
               [&] { SavedReference::open((tiny_folder() / "model.safetensors").string()); });
  for (size_t size = 0; size < good.size(); size += good.size() / 50) {
    expect_error(ErrorCode::format, "broken.ref", [&] { open(good.substr(0, size)); });
  }
}

size_t header_bytes(const std::string& file) {
  return 8 + static_cast<size_t>(static_cast<unsigned char>(file[0])) +
         256 * static_cast<size_t>(static_cast<unsigned char>(file[1]));
}

// Whatever the bytes of the header are, the answer is an error or a report.
TEST(SavedReference, SurvivesFlippedBytes) {
  const TempFolder folder;
  const std::string good = read_file(saved(folder));
  std::mt19937 random(3);
  int refused = 0;
  for (int i = 0; i < 200; ++i) {
    std::string bytes = good;
    bytes[random() % header_bytes(good)] ^= static_cast<char>(1 << random() % 8);
    try {
      evaluate(tiny(), SavedReference::open(folder.write("flipped.ref", bytes).string()), chunks_for(kOptions),
               kOptions);
    } catch (const Error&) {
      ++refused;
    }
  }
  EXPECT_GT(refused, 150);  // the others hit the path of the model, or spaces
}

TEST(SavedReference, NanInTheFileIsAnError) {
  const TempFolder folder;
  std::string bytes = read_file(saved(folder));
  const size_t header = header_bytes(bytes);
  for (size_t i = 0; i < 4; ++i) bytes[header + i] = '\xff';  // the first value of hidden.0
  const SavedReference reference = SavedReference::open(folder.write("nan.ref", bytes).string());
  expect_error(ErrorCode::format, "nan.ref: chunk 0",
               [&] { evaluate(tiny(), reference, chunks_for(kOptions), kOptions); });
}

}  // namespace
}  // namespace nibble
