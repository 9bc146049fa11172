// linear: y[t,o] = Σ_k x[t,k]·W[o,k] + bias[o] in float32 (lib/program/ir.ts, LinearOp).
//
// x [images, rows, K] and y [images, rows, N] are strided views (channel slices of wider tensors); the rows
// of all images form one matrix of M = images·rows. Weights: logical [N, K], packed by pack() below into the
// layout of gemm/f32.h. Items, tiles and the order of summation: gemm/plan.h, gemm/f32.h.
#include "entries.h"
#include "gemm/f32.h"
#include "gemm/pack.h"

namespace ptq4vm {
namespace cpu {
namespace PTQ4VM_ISA {

namespace {

size_t packed_bytes(int32_t out, int32_t in) { return packed_size<float>(out, in, vf::W, 1); }

void pack(const float* weight, int32_t out, int32_t in, void* packed) {
  pack_panels(weight, out, in, F32Shape::kColumns, vf::W, 1, 1, static_cast<float*>(packed));
}

Plan plan(const LinearArgs& a) {
  return f32_plan(static_cast<int64_t>(a.x.images) * a.x.rows, a.y.channels, a.x.channels, /*min_group=*/1);
}

int64_t items(const LinearArgs& a) { return plan(a).items(); }

size_t scratch(const LinearArgs&) { return 0; }

void run(const LinearArgs& a, Span span, void*) {
  const Plan p = plan(a);
  F32Rows rows;
  int64_t prepared = -1;
  for (int64_t item = span.begin; item < span.end; ++item) {
    const Tile t = tile_of(p, item);
    if (t.chunk != prepared) {
      RowCursor at(t.row_begin, a.x.rows);
      for (int64_t m = 0; m < t.row_end - t.row_begin; ++m, at.next()) {
        rows.x[m] = a.x.row(at.image, at.row);
        rows.y[m] = a.y.row(at.image, at.row);
      }
      prepared = t.chunk;
    }
    f32_tile(t, rows, a.y.channels, a.x.channels, static_cast<const float*>(a.weight), a.bias);
  }
}

}  // namespace

OpEntry<LinearArgs> linear_entry() { return {items, scratch, run}; }
Packer<float> linear_packer() { return {packed_bytes, pack}; }

}  // namespace PTQ4VM_ISA
}  // namespace cpu
}  // namespace ptq4vm
