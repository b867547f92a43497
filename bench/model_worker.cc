// One model in memory, measured as often as compare.py asks. A line on stdin is a request, a line on stdout its answer:
//   generate PROMPT NEW  ->  seconds of the prefill, seconds of the NEW - 1 tokens after the first
//   continue CONTEXT     ->  seconds of a pass over 1 token and over 4 that continue so many: medians, taking turns
//   encode BATCH TOKENS  ->  seconds of one forward pass over BATCH sequences of TOKENS ids
//   train TOKENS         ->  seconds of a step of AdamW on one sequence, adapters of rank 16; peak memory
//   read                 ->  seconds of reading as many bytes as the weights have, by all threads; the bytes
// Usage: model_worker MODEL THREADS [FORMAT [ACTIVATIONS [HEAD]]]
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <memory>
#include <optional>
#include <sstream>

#include "core/parallel.h"
#include "nibble/nibble.h"
#include "raw_read.h"
#include "tasks/adapter.h"
#include "tasks/loaded_model.h"
#include "train/train_step.h"

namespace nibble {
namespace {

double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

/// The same ids as in compare.py.
std::vector<int32_t> some_ids(int64_t count, int64_t vocab_size) {
  std::vector<int32_t> ids(static_cast<size_t>(count));
  for (int64_t i = 0; i < count; ++i)
    ids[static_cast<size_t>(i)] = static_cast<int32_t>(100 + i * 7919 % (vocab_size - 200));
  return ids;
}

void generate(const CausalLM& model, int64_t prompt, int64_t fresh) {
  const Generation g = model.generate(some_ids(prompt, model.vocab_size()), {.max_tokens = fresh, .ignore_eos = true});
  std::printf("%.6f %.6f\n", g.prefill_seconds, g.decode_seconds);
}

void continue_context(const LoadedModel& loaded, int64_t context) {
  constexpr int64_t kPasses = 15, kMost = 4;
  const Model& model = *loaded.model;
  const std::vector<int32_t> ids = some_ids(context + kMost, model.info().vocab_size);
  KvCache cache = model.new_cache(context + kMost, loaded.kv_dtype);
  const auto pass = [&](int64_t first, int64_t count) {
    cache.truncate(first);
    const double start = now();
    const std::span<const int32_t> some(ids.data() + first, static_cast<size_t>(count));
    model.logits(model.hidden({.ids = some}, &cache, nullptr), nullptr);
    return now() - start;
  };
  pass(0, context);
  std::vector<double> one, four;
  for (int64_t i = 0; i < kPasses; ++i) {
    one.push_back(pass(context, 1));
    four.push_back(pass(context, kMost));
  }
  for (auto* times : {&one, &four}) std::nth_element(times->begin(), times->begin() + kPasses / 2, times->end());
  std::printf("%.6f %.6f\n", one[kPasses / 2], four[kPasses / 2]);
}

void encode(const LoadedModel& loaded, int64_t batch, int64_t tokens) {
  const std::vector<int32_t> ids = some_ids(batch * tokens, loaded.model->info().vocab_size);
  const std::vector<int64_t> lengths(static_cast<size_t>(batch), tokens);
  const double start = now();
  loaded.model->hidden({.ids = ids, .lengths = lengths}, nullptr, nullptr);
  std::printf("%.6f\n", now() - start);
}

/// Of the weights that decoding a token reads; of an embedding that is not the head too, that is next to nothing.
uint64_t bytes_of_a_step(Model& model) {
  uint64_t bytes = 0;
  for_each_linear(model, [&](Linear& layer) { bytes += weight_bytes(layer.weight); });
  return bytes;
}

/// The best of a few: the limit, not what a disturbed reading comes to.
void read_weights(const Buffer& buffer) {
  constexpr int64_t kPieces = 64;
  const size_t part = buffer.size() / kPieces / 64 * 64;
  double best = 1e9;
  for (int round = 0; round < 5 * static_cast<int>(std::size(raw::kWays)); ++round) {
    const raw::Way& way = raw::kWays[static_cast<size_t>(round) % std::size(raw::kWays)];
    const double start = now();
    parallel_for(kPieces, 1, [&](int64_t begin, int64_t end) {
      volatile float largest =
          way.read(buffer.data() + part * static_cast<size_t>(begin), part * static_cast<size_t>(end - begin));
      (void)largest;
    });
    best = std::min(best, now() - start);
  }
  std::printf("%.6f %zu\n", best, part * kPieces);
}

/// An adapter on the model and what trains it.
class Training {
 public:
  Training(LoadedModel& model, bool in_pairs)
      : model_(model),
        adapter_(new_adapter(model, {.r = 16, .lora_alpha = 32, .target_modules = "all-linear"}, 1)),
        tape_(tape_for(adapter_.parameters)),
        optimizer_(adapter_.parameters, {}) {
    tape_.in_pairs = in_pairs;
  }

  void step(int64_t tokens) {
    LabelledBatch batch = {.ids = some_ids(tokens, model_.model->info().vocab_size)};
    batch.labels = batch.ids;
    const double start = now();
    train_step(*model_.model, {batch}, tape_, optimizer_, {.rate = 1e-5, .max_norm = 1});
    std::printf("%.6f %llu\n", now() - start, static_cast<unsigned long long>(peak_rss_bytes()));
  }

 private:
  LoadedModel& model_;
  AttachedAdapter adapter_;
  Tape tape_;
  Optimizer optimizer_;
};

int serve(int threads, int argc, char** argv) {
  LoadModelOptions options;
  set_threads(threads);
  if (argc > 3) options.format = argv[3];
  if (argc > 4) options.activations = argv[4];
  if (argc > 5) options.head = argv[5];
  const std::shared_ptr<LoadedModel> loaded = load_model(argv[1], options);
  const CausalLM model(loaded);
  std::optional<Training> training;
  std::shared_ptr<Buffer> room;
  std::printf("ready\n");
  for (std::string line, what; std::fflush(stdout), std::getline(std::cin, line);) {
    std::istringstream words(line);
    int64_t a = 0, b = 0;
    words >> what >> a >> b;
    if (what == "generate") {
      generate(model, a, b);
    } else if (what == "continue") {
      continue_context(*loaded, a);
    } else if (what == "encode") {
      encode(model.internal(), a, b);
    } else if (what == "train") {
      if (!training) training.emplace(*loaded, options.activations == "int16");
      training->step(a);
    } else if (what == "read") {
      if (!room) {
        room = Buffer::allocate(bytes_of_a_step(*loaded->model));
        std::fill_n(room->data(), room->size(), std::byte{1});
      }
      read_weights(*room);
    } else {
      std::fprintf(stderr, "unknown request: %s\n", line.c_str());
      return 2;
    }
  }
  return 0;
}

}  // namespace
}  // namespace nibble

int main(int argc, char** argv) {
  char* end = nullptr;
  const long threads = argc < 3 ? 0 : std::strtol(argv[2], &end, 10);
  if (threads < 1 || threads > 4096 || *end != 0) {
    std::fprintf(stderr, "usage: model_worker MODEL THREADS [FORMAT [ACTIVATIONS [HEAD]]]   (THREADS: at least 1)\n");
    return 2;
  }
  try {
    return nibble::serve(static_cast<int>(threads), argc, argv);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
