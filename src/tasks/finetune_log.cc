// An event file is a row of records: u64 length, u32 masked CRC-32C of the length, the bytes, u32 masked CRC-32C of
// them, all little-endian (TFRecord). The bytes are an Event message: field 1 wall time (double), 2 step (varint),
// 3 file version (text), 5 summary; a summary holds values (1) of tag (1) and simple_value (2, float).
#include "tasks/finetune_log.h"

#include <array>
#include <bit>
#include <chrono>
#include <cmath>
#include <limits>

#include "core/error.h"
#include "core/file.h"
#include "core/limits.h"

namespace nibble {
namespace {

namespace fs = std::filesystem;

FinetuneStep step_of(const Json& line, const std::string& where) {
  // A loss that was not finite is null.
  const auto number = [&](const char* key) {
    const Json* value = line.find_value(key);
    return value ? value->as_double(where + ": " + key) : std::numeric_limits<double>::quiet_NaN();
  };
  const auto count = [&](const char* key) {
    const Json* value = line.find_value(key);
    return value ? value->as_int(where + ": " + key) : 0;
  };
  if (line.find_value("step") == nullptr) fail(ErrorCode::format, where + ": step: is missing");
  FinetuneStep step = {.step = count("step"),
                       .epoch = number("epoch"),
                       .loss = number("loss"),
                       .learning_rate = number("learning_rate"),
                       .grad_norm = number("grad_norm"),
                       .tokens = count("tokens"),
                       .tokens_per_second = number("tokens_per_second")};
  if (line.find_value("eval_loss")) step.eval_loss = number("eval_loss");
  if (const Json* skipped = line.find_value("skipped")) step.skipped = skipped->as_bool(where + ": skipped");
  return step;
}

/// Shows the lines of a log to see(text, step) until that says no. The last one may have been cut off.
template <class See>
void for_each_line(const fs::path& path, See see) {
  const std::string text = read_text_file(path, limits::kMaxJsonBytes);
  int64_t number = 0;
  for (size_t begin = 0, end = 0; (end = text.find('\n', begin)) != std::string::npos; begin = end + 1) {
    const std::string where = path.string() + ":" + std::to_string(++number);
    const std::string line = text.substr(begin, end - begin);
    if (!see(line, step_of(Json::parse(line, where), where))) return;
  }
}

/// The lines of an earlier log that belong to steps 1 to `step`.
std::string kept_lines(const fs::path& path, int64_t step) {
  std::string kept;
  if (step == 0 || !fs::is_regular_file(path)) return kept;
  for_each_line(path, [&](const std::string& line, const FinetuneStep& s) {
    if (s.step > step) return false;
    kept += line + "\n";
    return true;
  });
  return kept;
}

/// CRC-32C (Castagnoli), polynomial 0x1EDC6F41 reflected.
uint32_t crc32c(std::string_view bytes) {
  uint32_t crc = 0xffffffffu;
  for (const char c : bytes) {
    crc ^= static_cast<uint8_t>(c);
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ (0x82f63b78u & (0u - (crc & 1u)));
  }
  return ~crc;
}

uint32_t masked_crc(std::string_view bytes) {
  const uint32_t crc = crc32c(bytes);
  return ((crc >> 15) | (crc << 17)) + 0xa282ead8u;
}

template <class Value>
std::string raw(Value value) {
  return {reinterpret_cast<const char*>(&value), sizeof(value)};
}

std::string record(const std::string& data) {
  const std::string length = raw(static_cast<uint64_t>(data.size()));
  return length + raw(masked_crc(length)) + data + raw(masked_crc(data));
}

std::string varint(uint64_t value) {
  std::string out;
  for (; value >= 0x80; value >>= 7) out += static_cast<char>(0x80 | (value & 0x7f));
  return out + static_cast<char>(value);
}

enum class Wire : uint8_t { varint = 0, fixed64 = 1, bytes = 2, fixed32 = 5 };

std::string field(int number, Wire wire, const std::string& value) {
  const std::string key = varint(static_cast<uint64_t>(number) << 3 | static_cast<uint64_t>(wire));
  return key + (wire == Wire::bytes ? varint(value.size()) : "") + value;
}

std::string event(const std::string& rest) {
  const std::chrono::duration<double> now = std::chrono::system_clock::now().time_since_epoch();
  return record(field(1, Wire::fixed64, raw(now.count())) + rest);
}

std::string scalar(const std::string& tag, double value) {
  return field(1, Wire::bytes, field(1, Wire::bytes, tag) + field(2, Wire::fixed32, raw(static_cast<float>(value))));
}

std::string event_of(const FinetuneStep& s) {
  std::string summary = scalar("train/loss", s.loss) + scalar("train/learning_rate", s.learning_rate) +
                        scalar("train/grad_norm", s.grad_norm) + scalar("train/tokens_per_second", s.tokens_per_second);
  if (s.eval_loss) summary += scalar("eval/loss", *s.eval_loss);
  return event(field(2, Wire::varint, varint(static_cast<uint64_t>(s.step))) + field(5, Wire::bytes, summary));
}

}  // namespace

Json step_json(const FinetuneStep& s) {
  Json step = Json::object({{"step", s.step},
                            {"epoch", s.epoch},
                            {"loss", s.loss},
                            {"learning_rate", s.learning_rate},
                            {"grad_norm", s.grad_norm},
                            {"tokens", s.tokens},
                            {"tokens_per_second", s.tokens_per_second}});
  if (s.eval_loss) step.set("eval_loss", *s.eval_loss);
  if (s.skipped) step.set("skipped", true);
  return step;
}

std::vector<FinetuneStep> read_finetune_log(const std::string& out) {
  std::vector<FinetuneStep> steps;
  for_each_line(fs::path(out) / "log.jsonl", [&](const std::string&, const FinetuneStep& step) {
    steps.push_back(step);
    return true;
  });
  return steps;
}

FinetuneLog::FinetuneLog(const fs::path& out, int64_t step, bool tensorboard) {
  static_assert(std::endian::native == std::endian::little);
  const std::string kept = kept_lines(out / "log.jsonl", step);
  lines_ = std::make_unique<OutputFile>(out / "log.jsonl");
  lines_->write(kept);
  if (!tensorboard) return;
  // TensorBoard reads all event files of a folder; a run that continues begins one of its own.
  events_ = std::make_unique<OutputFile>(out / ("events.out.tfevents." + std::to_string(step) + ".nibble"));
  events_->write(event(field(3, Wire::bytes, "brain.Event:2")));
}

void FinetuneLog::add(const FinetuneStep& step) {
  lines_->write(step_json(step).dump() + "\n");
  if (events_) events_->write(event_of(step));
}

void FinetuneLog::close() {
  lines_->close();
  if (events_) events_->close();
}

}  // namespace nibble
