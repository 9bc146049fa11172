// The float32 register tile: y[rows × columns] = x·Wᵀ + bias, shared by linear and patch_embed.
//
// Packed weights: panels of kColumns output channels, one after another; within a panel, for each k the
// panel's columns side by side. The last panel is as wide as the remaining channels need in whole vectors,
// zero-filled. So the tile reads whole vectors of W and single elements of x, each broadcast to a vector:
// kRows × kVectors sums stay in registers (the outer-product tile of Goto and van de Geijn,
// "Anatomy of high-performance matrix multiplication", 2008).
//
// Each sum runs over k = 0, 1, … in order, one fma per term, then the bias is added: a result depends
// neither on the tile that computed it nor on how items are grouped. K is walked in blocks that keep a
// panel's weights in the L1 cache; between blocks the sums rest in y, which loses nothing.
#pragma once
#include <cstring>

#include "gemm/plan.h"
#include "simd/simd.h"

namespace ptq4vm {
namespace cpu {
namespace PTQ4VM_ISA {

struct F32Shape {
#if defined(PTQ4VM_ISA_AVX512)
  static constexpr int kRows = 8, kVectors = 3;  // 24 sums + 3 of W + 1 of x, of 32 registers
#elif defined(PTQ4VM_ISA_AVX2)
  static constexpr int kRows = 6, kVectors = 2;  // 12 + 2 + 1, of 16
#elif defined(PTQ4VM_ISA_NEON)
  static constexpr int kRows = 5, kVectors = 4;  // 20 + 4 + 5 (all x of a k are loaded early), of 32
#else
  static constexpr int kRows = 4, kVectors = 8 / vf::W > 0 ? 8 / vf::W : 1;  // 8 + 2 + 1, of 16, with vectors of 4
#endif
  static constexpr int kColumns = kVectors * vf::W;
  static constexpr int64_t kDepthBlock = 24 * 1024 / (kColumns * static_cast<int>(sizeof(float)));  // L1: 32 or 48 KiB
  static_assert(kMaxChunkRows % kRows == 0, "F32Rows has no room for a chunk rounded up");
};

static inline int32_t f32_panels(int32_t out) { return static_cast<int32_t>(ceil_div(out, F32Shape::kColumns)); }

static inline Plan f32_plan(int64_t rows, int32_t out, int32_t in, int32_t min_group) {
  const int64_t cost = static_cast<int64_t>(F32Shape::kVectors) * (in + 4);
  return make_plan(rows, F32Shape::kRows, static_cast<int64_t>(in) * 4, f32_panels(out), cost, min_group);
}

// Where the rows of a chunk lie: channel 0 of x and y.
struct F32Rows {
  const float* x[kMaxChunkRows];
  float* y[kMaxChunkRows];
};

struct F32Block {
  const float* const* x;  // one pointer per row
  float* const* y;
  const float* weight;  // at the block's first k
  const float* bias;    // of the op, or nullptr; added if `last`
  int64_t depth_begin, depth;
  int64_t column;   // the panel's first
  int32_t columns;  // to be stored: (vectors − 1)·W < columns ≤ vectors·W
  bool first, last;
};

// acc[i][j] += Σ_k x[i][k0 + k]·w[k][j·W …], k in order.
template <int MR, int NV>
static inline void f32_accumulate(vf (&acc)[MR][NV], const float* const* rows, int64_t k0, int64_t depth,
                                  const float* w) {
  constexpr int W = vf::W;
  const float* x[MR];
#pragma GCC unroll 16
  for (int i = 0; i < MR; ++i) x[i] = rows[i] + k0;
#if defined(PTQ4VM_ISA_PORTABLE) && defined(__GNUC__)
  // Compilers do not keep vf, a plain array here, in registers across the loop; they do keep vectors of 16 bytes, which
  // every baseline has.
  typedef float Quad __attribute__((vector_size(16)));
  constexpr int Q = NV * W / 4;
  Quad sum[MR][Q];
  memcpy(&sum, &acc, sizeof sum);
  for (int64_t k = 0; k < depth; ++k, w += NV * W) {
    Quad wk[Q];
#pragma GCC unroll 16
    for (int j = 0; j < Q; ++j) memcpy(&wk[j], w + j * 4, sizeof wk[j]);
#pragma GCC unroll 16
    for (int i = 0; i < MR; ++i) {
#pragma GCC unroll 16
      for (int j = 0; j < Q; ++j) sum[i][j] = x[i][k] * wk[j] + sum[i][j];
    }
  }
  memcpy(&acc, &sum, sizeof sum);
#else
  for (int64_t k = 0; k < depth; ++k, w += NV * W) {
    vf wk[NV];
#pragma GCC unroll 16
    for (int j = 0; j < NV; ++j) wk[j] = load(w + j * W);
#pragma GCC unroll 16
    for (int i = 0; i < MR; ++i) {
      const vf xk = set1(x[i][k]);
#pragma GCC unroll 16
      for (int j = 0; j < NV; ++j) acc[i][j] = fma(xk, wk[j], acc[i][j]);
    }
  }
#endif
}

template <int MR, int NV>
static void f32_block(const F32Block& b) {
  constexpr int W = vf::W;
  vf acc[MR][NV];
  float* y[MR];
#pragma GCC unroll 16
  for (int i = 0; i < MR; ++i) y[i] = b.y[i] + b.column;
  const int tail = b.columns - (NV - 1) * W;
  const bool whole = tail == W;
  if (b.first) {
#pragma GCC unroll 16
    for (int i = 0; i < MR; ++i) {
#pragma GCC unroll 16
      for (int j = 0; j < NV; ++j) acc[i][j] = zero();
    }
  } else {
#pragma GCC unroll 16
    for (int i = 0; i < MR; ++i) {
#pragma GCC unroll 16
      for (int j = 0; j < NV - 1; ++j) acc[i][j] = load(y[i] + j * W);
      acc[i][NV - 1] = whole ? load(y[i] + (NV - 1) * W) : load_n(y[i] + (NV - 1) * W, tail);
    }
  }
  f32_accumulate<MR, NV>(acc, b.x, b.depth_begin, b.depth, b.weight);
  if (b.last && b.bias != nullptr) {
#pragma GCC unroll 16
    for (int j = 0; j < NV; ++j) {
      const vf bias = j < NV - 1 || whole ? load(b.bias + b.column + j * W) : load_n(b.bias + b.column + j * W, tail);
#pragma GCC unroll 16
      for (int i = 0; i < MR; ++i) acc[i][j] = acc[i][j] + bias;
    }
  }
#pragma GCC unroll 16
  for (int i = 0; i < MR; ++i) {
#pragma GCC unroll 16
    for (int j = 0; j < NV - 1; ++j) store(y[i] + j * W, acc[i][j]);
    if (whole) {
      store(y[i] + (NV - 1) * W, acc[i][NV - 1]);
    } else {
      store_n(y[i] + (NV - 1) * W, acc[i][NV - 1], tail);
    }
  }
}

using F32Kernel = void (*)(const F32Block&);

// The tile of that many rows (1…kRows) and vectors (1…kVectors). A pointer, not a call: inlined into one function, the
// tiles would compete for registers with each other's constants.
template <int MR = F32Shape::kRows>
static inline F32Kernel f32_kernel(int64_t rows, int vectors) {
  if constexpr (MR > 1) {
    if (rows < MR) return f32_kernel<MR - 1>(rows, vectors);
  }
  if constexpr (F32Shape::kVectors > 3) {
    if (vectors == 4) return f32_block<MR, 4>;
  }
  if constexpr (F32Shape::kVectors > 2) {
    if (vectors == 3) return f32_block<MR, 3>;
  }
  if constexpr (F32Shape::kVectors > 1) {
    if (vectors == 2) return f32_block<MR, 2>;
  }
  return f32_block<MR, 1>;
}
static_assert(F32Shape::kVectors <= 4, "f32_kernel lists the widths");

// Computes a tile of the plan. rows: those of its chunk; out, in: N and K; weight, bias: the op's.
static inline void f32_tile(const Tile& t, const F32Rows& rows, int32_t out, int32_t in, const float* weight,
                            const float* bias) {
  constexpr int MR = F32Shape::kRows, NR = F32Shape::kColumns;
  const int64_t depth_blocks = ceil_div(in, F32Shape::kDepthBlock);
  const int64_t depth_block = ceil_div(in, depth_blocks);
  const int64_t count = t.row_end - t.row_begin;
  F32Block b;
  b.bias = bias;
  for (int32_t panel = t.panel_begin; panel < t.panel_end; ++panel) {
    b.column = static_cast<int64_t>(panel) * NR;
    b.columns = out - b.column < NR ? static_cast<int32_t>(out - b.column) : NR;
    const int vectors = static_cast<int>(ceil_div(b.columns, vf::W));
    const F32Kernel whole = f32_kernel(MR, vectors);
    for (int64_t k = 0; k < in; k += depth_block) {
      b.weight = weight + b.column * in + k * vectors * vf::W;
      b.depth_begin = k;
      b.depth = in - k < depth_block ? in - k : depth_block;
      b.first = k == 0;
      b.last = k + b.depth == in;
      for (int64_t m = 0; m < count; m += MR) {
        b.x = rows.x + m;
        b.y = rows.y + m;
        (m + MR <= count ? whole : f32_kernel(count - m, vectors))(b);
      }
    }
  }
}

}  // namespace PTQ4VM_ISA
}  // namespace cpu
}  // namespace ptq4vm
