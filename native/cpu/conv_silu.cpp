// conv_silu: depthwise convolution, causal in scan order, then SiLU.
//
//   y[row(t), k] = SiLU(bias[k] + Σ_j weight[j, k]·x[row(t − (width − 1) + j), k]),  row(t) = table[t]
//
// x, y f32 [images, rows, channels], rows in memory order; weight f32 [width, channels], width 1…8; table i32
// [rows] or absent (identity). Positions before the start, and positions whose table entry is −1 (padding), read
// as zero; nothing is written for −1. y and/or u8 codes of y come out.
//
// A work item is a tile of scan positions of one image, all channels: the rows of its neighbours stay in
// L1, and a tile needs nothing from the tile before it but to read width − 1 of its rows.
#include "cpu/entries.h"
#include "simd/math.h"
#include "simd/rows.h"

namespace ptq4vm {
namespace cpu {
namespace PTQ4VM_ISA {
namespace {

constexpr int64_t kPositionsPerItem = 16;
constexpr int kMaxWidth = 8;

int64_t tiles(const ConvSiluArgs& args) { return ceil_div(args.x.rows, kPositionsPerItem); }

int64_t items(const ConvSiluArgs& args) { return args.x.images * tiles(args); }

// A row of zeros, to read where there is no row.
size_t scratch(const ConvSiluArgs& args) {
  return static_cast<size_t>(round_up(static_cast<int64_t>(args.x.channels) * 4, kBufferAlignment));
}

// One output row from its `width` input rows, oldest first.
template <int width>
void conv_row(const ConvSiluArgs& args, const float* const* x, float* y, const CodeRow& codes) {
  const int channels = args.x.channels;
  for (int k = 0; k < channels; k += vf::W) {
    const int left = channels - k;
    vf sum = args.bias != nullptr ? load_up_to(args.bias + k, left) : zero();
    for (int j = 0; j < width; ++j) {
      const float* weight = args.weight + static_cast<int64_t>(j) * channels + k;
      sum = fma(load_up_to(weight, left), load_up_to(x[j] + k, left), sum);
    }
    const vf v = silu(sum);
    if (y != nullptr) store_up_to(y + k, v, left);
    if (codes.q != nullptr) store_codes(codes, k, v, left);
  }
}

template <int width>
void conv_tile(const ConvSiluArgs& args, int64_t image, int64_t tile, const float* zeros) {
  const int64_t rows = args.x.rows;
  const int64_t begin = tile * kPositionsPerItem;
  const int64_t end = begin + kPositionsPerItem < rows ? begin + kPositionsPerItem : rows;
  for (int64_t t = begin; t < end; ++t) {
    const float* x[width];
    int64_t row = -1;
    for (int j = 0; j < width; ++j) {
      const int64_t position = t - (width - 1) + j;
      row = position < 0 ? -1 : args.table != nullptr ? args.table[position] : position;
      x[j] = row < 0 ? zeros : args.x.row(image, row);
    }
    if (row < 0) continue;  // the last one is the output's
    CodeRow codes = {};
    if (!args.out.q.empty()) codes = code_row(args.out, image, row);
    conv_row<width>(args, x, args.y.empty() ? nullptr : args.y.row(image, row), codes);
  }
}

using TileFunction = void (*)(const ConvSiluArgs&, int64_t, int64_t, const float*);

void run(const ConvSiluArgs& args, Span span, void* scratch_memory) {
  static constexpr TileFunction kTile[kMaxWidth] = {conv_tile<1>, conv_tile<2>, conv_tile<3>, conv_tile<4>,
                                                    conv_tile<5>, conv_tile<6>, conv_tile<7>, conv_tile<8>};
  float* zeros = static_cast<float*>(scratch_memory);
  for (int k = 0; k < args.x.channels; ++k) zeros[k] = 0.0f;
  const int64_t count = tiles(args);
  for (int64_t i = span.begin; i < span.end; ++i) kTile[args.width - 1](args, i / count, i % count, zeros);
}

}  // namespace

OpEntry<ConvSiluArgs> conv_silu_entry() { return {items, scratch, run}; }

}  // namespace PTQ4VM_ISA
}  // namespace cpu
}  // namespace ptq4vm
