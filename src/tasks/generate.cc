// Generation: prefill, then one token at a time, or several that are guessed.
#include "nibble/generate.h"

#include <algorithm>
#include <chrono>

#include "core/error.h"
#include "core/profile.h"
#include "core/progress.h"
#include "nibble/model.h"
#include "tasks/loaded_model.h"
#include "tasks/prompt_lookup.h"
#include "tasks/sampler.h"
#include "text/chat_template.h"

namespace nibble {
namespace {

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

/// Holds back text that may turn out to be the beginning of a stop string.
class StopFilter {
 public:
  explicit StopFilter(const std::vector<std::string>& stops) : stops_(stops) {}

  /// Text that is final now. stopped() is true once a stop string was completed; the rest is dropped.
  std::string push(const std::string& text) {
    held_ += text;
    size_t cut = std::string::npos;
    for (const std::string& stop : stops_) cut = std::min(cut, stop.empty() ? std::string::npos : held_.find(stop));
    if (cut != std::string::npos) {
      stopped_ = true;
      return release(cut, held_.size());
    }
    size_t keep = 0;
    for (const std::string& stop : stops_) keep = std::max(keep, overlap(stop));
    return release(held_.size() - keep, held_.size() - keep);
  }
  std::string flush() { return stopped_ ? std::string() : release(held_.size(), held_.size()); }
  bool stopped() const { return stopped_; }

 private:
  /// The longest end of the held text that begins `stop`.
  size_t overlap(const std::string& stop) const {
    for (size_t n = std::min(held_.size(), stop.empty() ? 0 : stop.size() - 1); n > 0; --n) {
      if (held_.compare(held_.size() - n, n, stop, 0, n) == 0) return n;
    }
    return 0;
  }
  std::string release(size_t count, size_t drop) {
    std::string out = held_.substr(0, count);
    held_.erase(0, drop);
    return out;
  }

  const std::vector<std::string>& stops_;
  std::string held_;
  bool stopped_ = false;
};

/// Text of the generated ids as it becomes final.
class TextOut {
 public:
  TextOut(const LoadedModel& model, const GenerateOptions& options) : filter_(options.stop), on_text_(options.on_text) {
    if (model.tokenizer) decoder_.emplace(*model.tokenizer, DecodeOptions{.skip_special_tokens = true});
  }

  void push(int32_t id) {
    if (decoder_) emit(filter_.push(decoder_->push(id)));
  }
  void finish() {
    if (!decoder_) return;
    emit(filter_.push(decoder_->flush()));
    emit(filter_.flush());
  }
  bool stopped() const { return filter_.stopped(); }
  std::string take() { return std::move(text_); }

 private:
  void emit(const std::string& piece) {
    if (piece.empty()) return;
    text_ += piece;
    if (on_text_) on_text_(piece);
  }

  std::optional<StreamDecoder> decoder_;
  StopFilter filter_;
  const std::function<void(std::string_view)>& on_text_;
  std::string text_;
};

void require_room(int64_t prompt, int64_t context) {
  if (prompt <= context) return;
  fail(ErrorCode::invalid_argument,
       "the prompt has " + std::to_string(prompt) + " tokens, the context " + std::to_string(context));
}

int64_t context_for(const LoadedModel& model, const GenerateOptions& options, int64_t prompt) {
  const int64_t limit = model.model->info().context_length;
  if (options.max_tokens < 0) fail(ErrorCode::invalid_argument, "max_tokens: expected an integer >= 0");
  if (options.context < 0 || options.context > limit) {
    fail(ErrorCode::invalid_argument, "context: found " + std::to_string(options.context) + ", expected 1 to " +
                                          std::to_string(limit) + ", the length this model was made for");
  }
  const int64_t fresh = std::min(limit, options.max_tokens);  // max_tokens may be any number
  const int64_t context = options.context ? options.context : std::min(limit, prompt + fresh);
  require_room(prompt, context);
  return context;
}

constexpr int64_t kMaxPromptLookup = 1024;

void check_prompt_lookup(int64_t tokens) {
  if (tokens >= 0 && tokens <= kMaxPromptLookup) return;
  fail(ErrorCode::invalid_argument,
       "prompt_lookup: found " + std::to_string(tokens) + ", expected 0 (off) to " + std::to_string(kMaxPromptLookup));
}

int32_t next_id(Sampler& sampler, std::span<float> logits, const std::vector<int32_t>& seen) {
  const ProfileScope scope("sampling");
  return sampler.next(logits, seen);
}

std::vector<OperationTime> take(std::optional<Profile>& profile) {
  std::vector<OperationTime> rows;
  if (!profile) return rows;
  for (ProfileRow& row : profile->take()) rows.push_back({std::move(row.name), row.calls, row.seconds, row.bytes});
  return rows;
}

void add_rates(const GuessedDecoding& decoding, Generation& result) {
  // The first new id comes out of the prefill, so one step fewer was decoded.
  const auto steps = static_cast<double>(result.ids.size()) - 1;
  result.prefill_tokens_per_second =
      static_cast<double>(result.prompt_ids.size()) / std::max(result.prefill_seconds, 1e-9);
  result.decode_tokens_per_second = steps > 0 ? steps / std::max(result.decode_seconds, 1e-9) : 0;
  result.drafted = decoding.drafted();
  result.accepted = decoding.accepted();
  result.tokens_per_forward = decoding.forwards() > 0 ? steps / static_cast<double>(decoding.forwards()) : 0;
}

Generation run(const LoadedModel& loaded, std::span<const int32_t> prompt, const GenerateOptions& options) {
  if (prompt.empty()) fail(ErrorCode::invalid_argument, "the prompt is empty: at least one token is needed");
  const Model& model = *loaded.model;
  const DType kv_dtype = options.kv_dtype.value_or(loaded.kv_dtype);
  check_kv_dtype(kv_dtype);
  check_prompt_lookup(options.prompt_lookup);
  Sampler sampler(options);
  const std::vector<int32_t> end_ids = options.ignore_eos ? std::vector<int32_t>() : loaded.end_ids();
  const int64_t context = context_for(loaded, options, static_cast<int64_t>(prompt.size()));
  KvCache cache = model.new_cache(context, kv_dtype);
  TextOut text(loaded, options);
  Generation result;
  result.prompt_ids.assign(prompt.begin(), prompt.end());
  result.kv_dtype = kv_dtype;
  std::vector<int32_t> seen = result.prompt_ids;

  std::optional<Profile> profile;
  if (options.profile) profile.emplace();
  auto start = std::chrono::steady_clock::now();
  GuessedDecoding decoding(model, cache, prompt);
  result.prefill_seconds = seconds_since(start);
  result.prefill_profile = take(profile);
  start = std::chrono::steady_clock::now();
  while (static_cast<int64_t>(result.ids.size()) < options.max_tokens) {
    check_interrupt();
    const int32_t id = next_id(sampler, decoding.logits(), seen);
    const bool guessed = decoding.is_guessed(id);
    result.ids.push_back(id);
    seen.push_back(id);
    if (std::find(end_ids.begin(), end_ids.end(), id) != end_ids.end()) {
      result.finish_reason = FinishReason::stop;
      break;
    }
    text.push(id);
    if (text.stopped()) {
      result.finish_reason = FinishReason::stop;
      break;
    }
    // The last id needs no place in the cache; those that are guessed behind it do.
    const int64_t wanted = options.max_tokens - static_cast<int64_t>(result.ids.size());
    const int64_t room = context - static_cast<int64_t>(seen.size());
    if (wanted == 0 || room < 0) break;
    if (!guessed) decoding.forward(seen, std::min({options.prompt_lookup, wanted - 1, room}));
  }
  text.finish();
  result.decode_seconds = seconds_since(start);
  result.decode_profile = take(profile);
  result.text = text.take();
  add_rates(decoding, result);
  return result;
}

void require_ids(const Model& model, std::span<const int32_t> ids) {
  if (ids.empty()) fail(ErrorCode::invalid_argument, "ids: at least one is needed");
  require_room(static_cast<int64_t>(ids.size()), model.info().context_length);
}

constexpr int64_t kHeadRows = 64;  // positions whose logits exist at a time

}  // namespace

CausalLM AutoModelForCausalLM::from_pretrained(const std::string& path, const LoadModelOptions& options) {
  std::shared_ptr<LoadedModel> model = load_model(path, options);
  const ModelInfo& info = model->model->info();
  if (!info.predicts_text()) {
    fail(ErrorCode::unsupported, path + (info.is_encoder ? ": is an encoder and predicts no text; use classify or embed"
                                                         : ": is a classifier and predicts no text; use classify"));
  }
  return CausalLM(std::move(model));
}

Generation CausalLM::generate(std::string_view prompt, const GenerateOptions& options) const {
  return generate(encode(prompt), options);
}

Generation CausalLM::generate(std::span<const int32_t> prompt_ids, const GenerateOptions& options) const {
  return run(*model_, prompt_ids, options);
}

Generation CausalLM::chat(const std::vector<ChatMessage>& messages, const GenerateOptions& options) const {
  return generate(encode(apply_chat_template(messages), false), options);
}

std::string CausalLM::apply_chat_template(const std::vector<ChatMessage>& messages) const {
  if (!model_->chat_template) {
    fail(ErrorCode::invalid_argument, model_->path + ": has no chat template; give a plain prompt");
  }
  Json list = Json::array();
  for (const ChatMessage& message : messages) {
    list.push_back(Json::object({{"role", message.role}, {"content", message.content}}));
  }
  return ChatTemplate(*model_->chat_template, model_->path + ": chat template")
      .render(list, {.add_generation_prompt = true, .variables = model_->chat_variables()});
}

std::vector<float> CausalLM::logits(std::span<const int32_t> ids) const {
  require_ids(*model_->model, ids);
  const Tensor out = model_->model->forward({.ids = ids}, nullptr, nullptr);
  return {out.f32(), out.f32() + out.count()};
}

void CausalLM::logits_in_portions(std::span<const int32_t> ids,
                                  const std::function<void(int64_t, std::span<const float>)>& take) const {
  const Model& model = *model_->model;
  require_ids(model, ids);
  const Tensor hidden = model.hidden({.ids = ids}, nullptr, nullptr);
  for (int64_t first = 0; first < hidden.rows(); first += kHeadRows) {
    const Tensor out = model.logits(hidden.slice_rows(first, std::min(hidden.rows(), first + kHeadRows)));
    take(first, {out.f32(), static_cast<size_t>(out.count())});
  }
}

bool CausalLM::has_tokenizer() const { return model_->tokenizer.has_value(); }

std::vector<int32_t> CausalLM::encode(std::string_view text, bool add_special_tokens) const {
  return model_->require_tokenizer().encode(text, {.add_special_tokens = add_special_tokens});
}

std::string CausalLM::decode(std::span<const int32_t> ids) const { return model_->require_tokenizer().decode(ids); }
int64_t CausalLM::vocab_size() const { return model_->model->info().vocab_size; }
int64_t CausalLM::context_length() const { return model_->model->info().context_length; }
uint64_t CausalLM::weight_bytes() const { return model_->weight_bytes; }
const DeviceMap& CausalLM::device_map() const { return model_->device_map; }

}  // namespace nibble
