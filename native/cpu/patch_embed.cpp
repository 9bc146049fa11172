// patch_embed: Conv2d(C → dim, kernel patch × patch, stride) on [images, C, height·width] planes, flattened row-major
// to tokens: y[image, gy·grid_w + gx, o] = bias[o] + Σ_{c,py,px} W[o,c,py,px]·x[image, c, (gy·stride + py)·width +
// gx·stride + px].
//
// A chunk of tokens is gathered into scratch, each patch a row of K = C·patch² contiguous floats in the order of the
// weights (c, py, px), and multiplied by the float32 tile of gemm/f32.h. Patches may overlap (stride < patch). float32;
// the order of summation is that of k.
#include "entries.h"
#include "gemm/f32.h"

namespace ptq4vm {
namespace cpu {
namespace PTQ4VM_ISA {

namespace {

int32_t depth(const PatchEmbedArgs& a) { return a.x.rows * a.patch * a.patch; }

// A patch is gathered once for eight panels or more, unless only splitting them gives threads enough to do.
Plan plan(const PatchEmbedArgs& a) {
  return f32_plan(static_cast<int64_t>(a.y.images) * a.grid_h * a.grid_w, a.y.channels, depth(a), /*min_group=*/8);
}

int64_t items(const PatchEmbedArgs& a) { return plan(a).items(); }

size_t scratch(const PatchEmbedArgs& a) { return static_cast<size_t>(plan(a).chunk_rows) * depth(a) * sizeof(float); }

void gather(const PatchEmbedArgs& a, int64_t image, int64_t token, float* row) {
  const int64_t gy = token / a.grid_w, gx = token % a.grid_w;
  for (int32_t c = 0; c < a.x.rows; ++c) {
    const float* from = a.x.row(image, c) + gy * a.stride * a.width + gx * a.stride;
    for (int32_t py = 0; py < a.patch; ++py, from += a.width) {
      int32_t px = 0;
      for (; px + vf::W <= a.patch; px += vf::W) store(row + px, load(from + px));
      for (; px < a.patch; ++px) row[px] = from[px];
      row += a.patch;
    }
  }
}

void run(const PatchEmbedArgs& a, Span span, void* scratch_memory) {
  const Plan p = plan(a);
  const int64_t k = depth(a);
  float* patches = static_cast<float*>(scratch_memory);
  F32Rows rows;
  int64_t prepared = -1;
  for (int64_t item = span.begin; item < span.end; ++item) {
    const Tile t = tile_of(p, item);
    if (t.chunk != prepared) {
      RowCursor at(t.row_begin, a.y.rows);
      for (int64_t m = 0; m < t.row_end - t.row_begin; ++m, at.next()) {
        gather(a, at.image, at.row, patches + m * k);
        rows.x[m] = patches + m * k;
        rows.y[m] = a.y.row(at.image, at.row);
      }
      prepared = t.chunk;
    }
    f32_tile(t, rows, a.y.channels, static_cast<int32_t>(k), static_cast<const float*>(a.weight), a.bias);
  }
}

}  // namespace

OpEntry<PatchEmbedArgs> patch_embed_entry() { return {items, scratch, run}; }

}  // namespace PTQ4VM_ISA
}  // namespace cpu
}  // namespace ptq4vm
