#include "quant/resident.h"

#include "core/checked.h"

namespace nibble {
namespace {

constexpr int64_t kSampleRows = 16;  // the rows that packed layouts go by

/// A matrix of a format, whatever it holds.
QuantizedTensor sample_of(const Format& format, const EncodeOptions& options, const Shape& shape) {
  if (format.encode == nullptr) {  // read only: of zeros
    QuantizedTensor zeros = format.layout(shape, options);
    zeros.format = &format;
    for (auto& [name, part] : zeros.parts) part = Tensor(part.dtype, part.shape);
    return zeros;
  }
  Tensor sample(DType::f32, shape);
  for (int64_t i = 0; i < sample.count(); ++i) sample.f32()[i] = static_cast<float>(i * 7919 % 1000 - 500) / 1000.0f;
  return std::get<QuantizedTensor>(encode(sample.cast(options.source_dtype), format, options));
}

uint64_t packed_bytes(const Format& format, const EncodeOptions& options, const Shape& shape) {
  QuantizedTensor packed = sample_of(format, options, shape);
  if (format.pack) format.pack(packed, {}, Residency::memory);
  uint64_t total = 0;
  for (const auto& [name, part] : packed.parts) total += part.bytes();
  return total;
}

}  // namespace

uint64_t ResidentSizes::bytes(const Format& format, const EncodeOptions& options, const Shape& shape) {
  const Key key(&format, shape[1], options.block, options.double_quant, options.granularity, options.source_dtype);
  auto found = lines_.find(key);
  if (found == lines_.end()) {
    const uint64_t one = packed_bytes(format, options, {kSampleRows, shape[1]});
    const uint64_t two = packed_bytes(format, options, {2 * kSampleRows, shape[1]});
    found = lines_.emplace(key, Line{one, two - one}).first;
  }
  const auto [first, step] = found->second;
  return first + static_cast<uint64_t>(ceil_div(shape[0], kSampleRows) - 1) * step;
}

}  // namespace nibble
