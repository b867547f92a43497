#include "nibble/bench.h"

#include <gtest/gtest.h>

#include "nibble/quantize.h"
#include "tasks/meters.h"
#include "tasks/tiny.h"

namespace nibble {
namespace {

using namespace nibble::test;

TEST(Bench, MeasuresEveryRowAndItsLoss) {
  const TempFolder folder;
  const std::string nf4 = (folder / "nf4").string();
  quantize(tiny_folder().string(), nf4, {.format = "nf4"});
  int64_t calls = 0;
  const BenchReport report = bench(tiny_folder().string(), {.formats = {"fp32", "nf4", "nf4+dq"},
                                                            .against = {nf4},
                                                            .text = heldout(),
                                                            .max_tokens = 512,
                                                            .context = 128,
                                                            .prompt_tokens = 32,
                                                            .gen_tokens = 4,
                                                            .repeat = 2,
                                                            .progress = [&](const Progress& p) {
                                                              EXPECT_EQ(p.done, ++calls);
                                                              EXPECT_EQ(p.total, 4 * 2 + 4);
                                                            }});
  EXPECT_EQ(calls, 12);
  ASSERT_EQ(report.rows.size(), 4u);
  EXPECT_EQ(report.rows[3].name, nf4);
  for (const BenchRow& row : report.rows) {
    for (const Spread& s : {row.load_seconds, row.prefill_tokens_per_second, row.decode_tokens_per_second}) {
      EXPECT_GT(s.low, 0) << row.name;
      EXPECT_LE(s.low, s.median) << row.name;
      EXPECT_LE(s.median, s.high) << row.name;
    }
    ASSERT_TRUE(row.perplexity && row.kl_mean && row.top1_agreement) << row.name;
  }
  const BenchRow &fp32 = report.rows[0], &quantized = report.rows[1];
  EXPECT_NEAR(*fp32.kl_mean, 0, 1e-9);  // bf16 weights widened: the same numbers
  EXPECT_GT(*quantized.kl_mean, 1e-3);
  EXPECT_NE(*report.rows[2].kl_mean, *quantized.kl_mean);  // scales rounded to 8 bits
  EXPECT_LT(quantized.bytes, fp32.bytes);
  // The folder is the same model as nf4 on load.
  EXPECT_EQ(report.rows[3].bytes, quantized.bytes);
  EXPECT_EQ(*report.rows[3].kl_mean, *quantized.kl_mean);
}

TEST(Bench, AQuantizedModelIsMeasuredAsItIs) {
  const TempFolder folder;
  const std::string nf4 = (folder / "nf4").string();
  quantize(tiny_folder().string(), nf4, {.format = "nf4"});
  const BenchReport report = bench(nf4, {.prompt_tokens = 8, .gen_tokens = 2, .repeat = 1});
  ASSERT_EQ(report.rows.size(), 1u);
  EXPECT_EQ(report.rows[0].name, "stored");
  EXPECT_FALSE(report.rows[0].perplexity.has_value());
}

TEST(Bench, RefusesWhatCannotBeMeasured) {
  const auto refuse = [](const std::string& fragment, const BenchOptions& options) {
    expect_error(ErrorCode::invalid_argument, fragment, [&] { bench(tiny_folder().string(), options); });
  };
  refuse("unknown format 'nf5', did you mean 'nf4'", {.formats = {"nf5"}});
  refuse("double_quant", {.formats = {"int8+dq"}});
  refuse("repeat: found 0", {.repeat = 0});
  refuse("gen_tokens: found 1", {.gen_tokens = 1});
  refuse("prompt_tokens: found 0", {.prompt_tokens = 0});
}

TEST(Meters, EnergyIsTheSumOfThePackages) {
  const TempFolder root;
  EXPECT_EQ(energy_joules(root.path()), std::nullopt);
  root.write("intel-rapl:0/energy_uj", "1500000\n");
  root.write("intel-rapl:1/energy_uj", "500000\n");
  root.write("intel-rapl:0:0/energy_uj", "700000\n");  // a part of package 0
  root.write("dtpm/energy_uj", "700000\n");
  EXPECT_EQ(energy_joules(root.path()), 2.0);
  EXPECT_EQ(energy_joules(root / "absent"), std::nullopt);
}

TEST(Meters, ThePeakBeginsAnew) {
  reset_peak_rss();
  if (peak_rss_since_reset() == 0) GTEST_SKIP() << "the system does not reset the peak of the resident set";
  const uint64_t before = peak_rss_since_reset();
  {
    const std::vector<char> held(64 << 20, 1);
    EXPECT_GT(peak_rss_since_reset(), before + (32u << 20)) << held.size();
  }
#if !defined(__SANITIZE_ADDRESS__)  // which keeps freed memory for a while
  reset_peak_rss();
  EXPECT_LT(peak_rss_since_reset(), before + (32u << 20));
#endif
}

}  // namespace
}  // namespace nibble
