#include "quant/packed4.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "core/checked.h"
#include "core/parallel.h"
#include "kernels/kernels.h"
#include "quant/matmul.h"

namespace nibble {
namespace {

/// The kernels of each kind of activations.
struct Arithmetic {
  int64_t block_words;
  decltype(Kernels::activations4_f32) prepare;
  decltype(Kernels::matmul_packed4_f32) multiply;
};

Arithmetic arithmetic_of(Activations activations) {
  const Kernels& k = kernels();
  switch (activations) {
    case Activations::i8: return {kWordsI8, k.activations4_i8, k.matmul_packed4_i8};
    case Activations::i16: return {kWordsI16, k.activations4_i16, k.matmul_packed4_i16};
    case Activations::f32: break;
  }
  return {kWordsF32, k.activations4_f32, k.matmul_packed4_f32};
}

const Levels4& levels_of(const QuantizedTensor& w) {
  return *reinterpret_cast<const Levels4*>(w.part("levels4").data<uint8_t>());
}

Packed4 view(const QuantizedTensor& w) {
  return {.records = w.part("records").data<uint8_t>(),
          .levels = &levels_of(w),
          .rows = w.rows(),
          .k = w.cols(),
          .scale_bytes = w.part("records").count() == packed4_bytes(w.rows(), w.cols(), 2) ? 2 : 4};
}

/// The f32 scales of blocks from `first_block` on.
struct BlockScales {
  const float* values;
  int64_t first_block;
};

/// Rows [begin, end) of a weight in its stored form, into records.
void pack_rows(const QuantizedTensor& w, const BlockScales& scales, int64_t begin, int64_t end, int64_t scale_bytes,
               uint8_t* records) {
  const int64_t first = begin * w.cols(), skipped = scales.first_block * w.block;
  kernels().pack_4bit({.packed = w.part("data").data<uint8_t>() + skipped / 2,
                       .absmax = scales.values,
                       .records = records,
                       .first = first - skipped,
                       .block = w.block,
                       .rows = end - begin,
                       .k = w.cols(),
                       .scale_bytes = scale_bytes});
}

/// The input of a call in the form that the kernels want, made once for all products.
std::vector<uint32_t> prepare(const Arithmetic& a, const MatmulArgs& args, int64_t cols) {
  std::vector<uint32_t> panels(static_cast<size_t>(panel_words(args.tokens, cols, a.block_words)));
  parallel_for(args.tokens, kPanelTokens, [&](int64_t begin, int64_t end) {
    a.prepare({.x = args.x + begin * cols,
               .panels = panels.data() + panel_words(begin, cols, a.block_words),
               .tokens = end - begin,
               .k = cols,
               .ldx = cols});
  });
  return panels;
}

/// One call: its products, and the rows of all of them counted through in groups of 16.
class PackedCall {
 public:
  PackedCall(std::span<const Product> products, Activations activations, ScalesOf scales_of)
      : products_(products), arithmetic_(arithmetic_of(activations)), scales_of_(scales_of) {
    panels_ = prepare(arithmetic_, products[0].args, products[0].w->cols());
    for (const Product& p : products) {
      levels_.push_back(p.w->has("records") ? Levels4() : make_levels4(p.w->part("quant_map").f32()));
    }
  }

  void run() const {
    int64_t groups = 0;
    for (const Product& p : products_) groups += ceil_div(p.w->rows(), kPackRows);
    parallel_for(groups, 1, [&](int64_t begin, int64_t end) { multiply_groups(begin, end); });
  }

 private:
  void multiply_groups(int64_t begin, int64_t end) const {
    int64_t first = 0;  // group of the product
    for (const Product& p : products_) {
      const int64_t groups = ceil_div(p.w->rows(), kPackRows);
      const int64_t from = std::max(begin - first, int64_t{0}), to = std::min(end - first, groups);
      if (from < to) multiply_rows(p, from * kPackRows, std::min(to * kPackRows, p.w->rows()));
      first += groups;
    }
  }

  void multiply_rows(const Product& p, int64_t begin, int64_t end) const {
    if (p.w->has("records")) {
      multiply(p, packed4_rows(view(*p.w), begin, end), begin);
    } else {
      multiply_unpacked(p, begin, end);
    }
    add_bias(p.args, p.w->rows(), begin, end);
  }

  void multiply_unpacked(const Product& p, int64_t begin, int64_t end) const {
    const QuantizedTensor& w = *p.w;
    const Levels4& levels = levels_[static_cast<size_t>(&p - products_.data())];
    std::vector<uint8_t> records(static_cast<size_t>(packed4_bytes(kPackRows, w.cols(), 4)));
    std::vector<float> room;
    for (int64_t r = begin; r < end; r += kPackRows) {
      const int64_t stop = std::min(end, r + kPackRows);
      const int64_t first_block = r * w.cols() / w.block, last_block = (stop * w.cols() - 1) / w.block;
      const float* scales = scales_of_(w, first_block, last_block - first_block + 1, room);
      pack_rows(w, {scales, first_block}, r, stop, 4, records.data());
      multiply(p, {.records = records.data(), .levels = &levels, .rows = stop - r, .k = w.cols(), .scale_bytes = 4}, r);
    }
  }

  void multiply(const Product& p, const Packed4& w, int64_t first_row) const {
    arithmetic_.multiply(
        {.w = w, .panels = panels_.data(), .y = p.args.y + first_row, .tokens = p.args.tokens, .ldy = p.w->rows()});
  }

  std::span<const Product> products_;
  Arithmetic arithmetic_;
  ScalesOf scales_of_;
  std::vector<uint32_t> panels_;
  std::vector<Levels4> levels_;  // of each product that is not packed
};

}  // namespace

bool fits_packed4(const QuantizedTensor& w) { return w.cols() % kPackInputs == 0 && w.block % kPackInputs == 0; }

void pack4(QuantizedTensor& w, ScalesOf scales_of) {
  std::vector<float> room;
  const int64_t blocks = w.part("absmax").count();
  const float* scales = scales_of(w, 0, blocks, room);
  const int64_t scale_bytes = fits_bf16(scales, blocks) ? 2 : 4;
  Tensor records(DType::u8, {packed4_bytes(w.rows(), w.cols(), scale_bytes)});
  parallel_for(w.rows(), kPackRows, [&](int64_t begin, int64_t end) {
    pack_rows(w, {scales, 0}, begin, end, scale_bytes,
              records.data<uint8_t>() + packed4_bytes(begin, w.cols(), scale_bytes));
  });
  Tensor levels(DType::u8, {int64_t{sizeof(Levels4)}});
  const Levels4 made = make_levels4(w.part("quant_map").f32());
  std::memcpy(levels.data<uint8_t>(), &made, sizeof made);
  w.parts.clear();
  w.parts["records"] = std::move(records);
  w.parts["levels4"] = std::move(levels);
}

void decode_packed4_rows(const QuantizedTensor& w, int64_t begin, int64_t end, float* out) {
  kernels().decode_packed4(view(w), begin, end - begin, out);
}

void multiply_packed4(std::span<const Product> products, Activations activations, ScalesOf scales_of) {
  if (products[0].args.tokens == 0) return;
  PackedCall(products, activations, scales_of).run();
}

}  // namespace nibble
