// linear_i8: y[t,o] = act_scale[t]·weight_scale[o]·(Σ_k x[t,k]·w[o,k] − act_zero[t]·col_sum[o]) + bias[o]
// (ARCHITECTURE "Mathematics"; lib/program/ir.ts, LinearI8Op).
//
// x [images, rows, K] u8 codes and y [images, rows, N] float32 are strided views; the rows of all images form one
// matrix. act_scale and act_zero are indexed by the row within the image (per_token) or have one element. Weights:
// logical [N, K] s8 in −127…127, packed by pack(). Every row of x is read up to the next multiple of kCodeRowAlignment
// at most; what lies beyond K there meets zero weights. Sums are exact for K ≤ 65,536 and the epilogue is
// arith::dequantize, so y is equal bit for bit on every instruction set. Items: gemm/plan.h. Tiles: gemm/i8.h.
#include "entries.h"
#include "gemm/i8.h"

namespace ptq4vm {
namespace cpu {
namespace PTQ4VM_ISA {

namespace {

constexpr bool kWiden = sizeof(I8Dot::Code) > 1;

int64_t padded_depth(const LinearI8Args& a) { return round_up(a.x.channels, I8Dot::kDepth); }

size_t packed_bytes(int32_t out, int32_t in) { return packed_size<I8Dot::Weight>(out, in, vf::W, I8Dot::kDepth); }

void pack(const int8_t* weight, int32_t out, int32_t in, void* packed) {
  const int64_t interleave = I8Dot::kInterleave != 0 ? I8Dot::kInterleave : round_up(in, I8Dot::kDepth);
  pack_panels(weight, out, in, kI8Columns, vf::W, I8Dot::kDepth, interleave, static_cast<I8Dot::Weight*>(packed));
}

Plan plan(const LinearI8Args& a) {
  const int64_t depth = padded_depth(a);
  const int32_t panels = static_cast<int32_t>(ceil_div(a.y.channels, kI8Columns));
  const int64_t cost = I8Dot::kVectors * (depth / 4 + 8);
  return make_plan(static_cast<int64_t>(a.x.images) * a.x.rows, I8Dot::kRows, depth * sizeof(I8Dot::Code), panels, cost,
                   /*min_group=*/kWiden ? 8 : 1);
}

int64_t items(const LinearI8Args& a) { return plan(a).items(); }

size_t scratch(const LinearI8Args& a) {
  return kWiden ? static_cast<size_t>(plan(a).chunk_rows * padded_depth(a)) * sizeof(I8Dot::Code) : 0;
}

void load_columns(const LinearI8Args& a, int32_t first, int32_t count, I8Columns* c) {
  for (int32_t j = 0; j < kI8Columns; ++j) {
    const bool in = j < count;
    const int32_t col_sum = in ? a.col_sum[first + j] : 0;
    c->start[j] = I8Dot::start(col_sum);
    c->word[j] = I8Dot::column_word(col_sum);
    c->weight_scale[j] = in ? a.weight_scale[first + j] : 0.0f;
    c->bias[j] = in && a.bias != nullptr ? a.bias[first + j] : 0.0f;
  }
}

// Codes that are read in place need nothing but their address; others are widened into `codes`.
template <class Dot>
void prepare(const LinearI8Args& a, const Tile& t, typename Dot::Code* codes, I8Rows* rows) {
  RowCursor at(t.row_begin, a.x.rows);
  for (int64_t m = 0; m < t.row_end - t.row_begin; ++m, at.next()) {
    const int64_t step = a.per_token ? at.row : 0;
    const uint8_t* x = a.x.row(at.image, at.row);
    if constexpr (kWiden) {
      rows->x[m] = codes;
      Dot::widen(x, a.x.channels, codes);
      codes += padded_depth(a);
    } else {
      rows->x[m] = x;
    }
    rows->y[m] = a.y.row(at.image, at.row);
    rows->act_scale[m] = a.act_scale[step];
    rows->word[m] = Dot::row_word(a.act_zero[step]);
  }
}

void multiply(const LinearI8Args& a, const Tile& t, const I8Rows& rows) {
  I8Columns columns;
  I8Block b;
  b.rows = &rows;
  b.columns = &columns;
  b.depth = padded_depth(a);
  const int64_t count = t.row_end - t.row_begin;
  for (int32_t panel = t.panel_begin; panel < t.panel_end; ++panel) {
    const int32_t first = panel * kI8Columns;
    b.column = first;
    b.count = a.y.channels - first < kI8Columns ? a.y.channels - first : kI8Columns;
    b.weight = static_cast<const I8Dot::Weight*>(a.weight) + first * b.depth;
    load_columns(a, first, b.count, &columns);
    const int vectors = static_cast<int>(ceil_div(b.count, vf::W));
    const I8Kernel whole = i8_kernel(I8Dot::kRows, vectors);
    for (b.row = 0; b.row + I8Dot::kRows <= count; b.row += I8Dot::kRows) whole(b);
    if (b.row < count) i8_kernel(count - b.row, vectors)(b);
  }
}

void run(const LinearI8Args& a, Span span, void* scratch_memory) {
  const Plan p = plan(a);
  I8Dot::Code* codes = static_cast<I8Dot::Code*>(scratch_memory);
  I8Rows rows;
  int64_t prepared = -1;
  for (int64_t item = span.begin; item < span.end; ++item) {
    const Tile t = tile_of(p, item);
    if (t.chunk != prepared) prepare<I8Dot>(a, t, codes, &rows);
    prepared = t.chunk;
    multiply(a, t, rows);
  }
}

}  // namespace

OpEntry<LinearI8Args> linear_i8_entry() { return {items, scratch, run}; }
Packer<int8_t> linear_i8_packer() { return {packed_bytes, pack}; }

}  // namespace PTQ4VM_ISA
}  // namespace cpu
}  // namespace ptq4vm
