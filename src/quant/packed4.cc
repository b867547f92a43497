#include "quant/packed4.h"

#include <algorithm>
#include <cstring>
#include <new>
#include <type_traits>

#include "core/checked.h"
#include "core/parallel.h"
#include "kernels/kernels.h"
#include "quant/matmul.h"

namespace nibble {
namespace {

/// The kernels of each kind of activations.
struct Arithmetic {
  PanelType panels;
  decltype(Kernels::activations4_f32) prepare;
  decltype(Kernels::matmul_packed4_f32) multiply;
};

Arithmetic arithmetic_of(Activations activations) {
  const Kernels& k = kernels();
  switch (activations) {
    case Activations::i8: return {PanelType::i8, k.activations4_i8, k.matmul_packed4_i8};
    case Activations::i16: return {PanelType::i16, k.activations4_i16, k.matmul_packed4_i16};
    case Activations::f32: break;
  }
  return {PanelType::f32, k.activations4_f32, k.matmul_packed4_f32};
}

/// The weights of a model share one codebook, and the search for its best rounding takes as long as packing a small
/// one.
const Levels4& rounded_levels(const float* levels) {
  static thread_local Levels4 last{};
  if (std::memcmp(last.exact, levels, sizeof last.exact) != 0) last = make_levels4(levels);
  return last;
}

/// What a product has to know of records, beside the records.
struct RecordTable {
  RecordLayout layout;
  Levels4 levels;

  explicit RecordTable(const Packing& packing) : layout(packing.layout), levels() {
    if (packing.levels != nullptr) levels = rounded_levels(packing.levels);
  }
};

static_assert(std::is_trivially_copyable_v<RecordTable>);  // it lives in a tensor

const RecordTable& table_of(const QuantizedTensor& w) {
  return *reinterpret_cast<const RecordTable*>(w.part("record_table").data<uint8_t>());
}

Packed4 view(const QuantizedTensor& w, const RecordTable& table, const uint8_t* records, int64_t rows) {
  return {.records = records, .levels = &table.levels, .rows = rows, .k = w.cols(), .layout = table.layout};
}

Packed4 view(const QuantizedTensor& w) { return view(w, table_of(w), w.part("records").data<uint8_t>(), w.rows()); }

/// The input of a call in the form that the kernels want, made once for all products.
Tensor prepare(const Arithmetic& a, const MatmulArgs& args, int64_t cols, const PanelLayout& layout) {
  const int64_t words = block_words(a.panels, layout);
  Tensor panels = Tensor::scratch(DType::i32, {panel_words(args.tokens, cols, words)});
  auto* out = panels.data<uint32_t>();
  parallel_for(args.tokens, kPanelTokens, [&](int64_t begin, int64_t end) {
    a.prepare({.x = args.x + begin * cols,
               .panels = out + panel_words(begin, cols, words),
               .tokens = end - begin,
               .k = cols,
               .ldx = cols,
               .layout = layout});
  });
  return panels;
}

/// One call: its products, and the rows of all of them counted through in groups of 16.
class PackedCall {
 public:
  PackedCall(std::span<const Product> products, Activations activations, PackingOf packing_of)
      : products_(products), arithmetic_(arithmetic_of(activations)), packing_of_(packing_of) {
    for (const Product& p : products) {
      tables_.push_back(p.w->has("records") ? table_of(*p.w) : RecordTable(packing_of(*p.w)));
    }
    panels_ = prepare(arithmetic_, products[0].args, products[0].w->cols(), kernels().panel_layout(tables_[0].layout));
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
    const RecordTable& table = tables_[static_cast<size_t>(&p - products_.data())];
    const PackRows pack_rows = packing_of_(w).pack_rows;
    std::vector<uint8_t> records(static_cast<size_t>(packed4_bytes(kPackRows, w.cols(), table.layout)));
    for (int64_t r = begin; r < end; r += kPackRows) {
      const int64_t stop = std::min(end, r + kPackRows);
      pack_rows(w, table.layout, r, stop, records.data());
      multiply(p, view(w, table, records.data(), stop - r), r);
    }
  }

  void multiply(const Product& p, const Packed4& w, int64_t first_row) const {
    arithmetic_.multiply({.w = w,
                          .panels = panels_.data<uint32_t>(),
                          .y = p.args.y + first_row,
                          .tokens = p.args.tokens,
                          .ldy = p.w->rows()});
  }

  std::span<const Product> products_;
  Arithmetic arithmetic_;
  PackingOf packing_of_;
  std::vector<RecordTable> tables_;  // of each product
  Tensor panels_;                    // words of 32 bits
};

}  // namespace

void pack_records(QuantizedTensor& w, const Packing& packing) {
  const RecordLayout& layout = packing.layout;
  Tensor records = Tensor::lasting(DType::u8, {packed4_bytes(w.rows(), w.cols(), layout)});
  parallel_for(w.rows(), kPackRows, [&](int64_t begin, int64_t end) {
    packing.pack_rows(w, layout, begin, end, records.data<uint8_t>() + packed4_bytes(begin, w.cols(), layout));
  });
  Tensor table(DType::u8, {int64_t{sizeof(RecordTable)}});
  new (table.data<uint8_t>()) RecordTable(packing);
  w.parts.clear();
  w.parts["records"] = std::move(records);
  w.parts["record_table"] = std::move(table);
}

void decode_record_rows(const QuantizedTensor& w, int64_t begin, int64_t end, float* out) {
  kernels().decode_packed4(view(w), begin, end - begin, out);
}

void multiply_records(std::span<const Product> products, Activations activations, PackingOf packing_of) {
  if (products[0].args.tokens == 0) return;
  PackedCall(products, activations, packing_of).run();
}

}  // namespace nibble
