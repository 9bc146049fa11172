// selective_scan: the recurrence of Mamba (Gu & Dao, arXiv 2312.00752, eq. 2) over all directions of a block.
//
// Per direction d, image, channel k, for scan positions t = 0… with row = table[t] (absent: t):
//
//   Δ = softplus(delta[row, k]),  h[n] ← exp(Δ·a[n, k])·h[n] + Δ·u[row, k]·b[row, n]      n < d_state
//   y_d[row, k] = Σ_n c[row, n]·h[n] + d[k]·u[row, k]
//
// and at the end y[row, k] = out_scale·(Σ_d y_d[row, k])·SiLU(z[row, k]), without the last factor where z is absent.
//
// u, delta, z, y f32 [images, rows, d_inner]; b, c f32 [images, rows, d_state]; a f32 [d_state, d_inner], negative;
// d f32 [d_inner]; table i32 [rows]: a permutation in which −1 is padding, read as rows of zeros and not written.
// y and/or u8 codes of y come out. Subnormal states are flushed to zero.
//
// A work item is 16 channels of one image, in all directions: their sum never leaves L1 and L2. A register holds
// neighbouring channels, so that every operation is lane by lane and b, c are broadcast; the states of one register's
// channels stay in registers (AVX-512) or L1. Positions go in chunks: Δ and Δ·u are computed for a chunk ahead of
// the recurrence, because softplus is a long dependent chain that would otherwise stand in its way. The exponential
// dominates; it is exp2 of Δ·(a·log₂e), with the product a·log₂e rounded once per item.
#include "cpu/entries.h"
#include "simd/denormals.h"
#include "simd/math.h"
#include "simd/rows.h"

namespace ptq4vm {
namespace cpu {
namespace PTQ4VM_ISA {
namespace {

constexpr int kItemChannels = 16;
constexpr int64_t kChunk = 32;
static_assert(kItemChannels % vf::W == 0, "an item is a whole number of registers");

#if defined(__GNUC__)
#define PTQ4VM_UNROLL _Pragma("GCC unroll 16")
#else
#define PTQ4VM_UNROLL
#endif

// Scratch of one thread, carved from one allocation; sizes in floats.
struct Scratch {
  float* y;      // [rows + 1, kItemChannels]: sums over directions; the last row takes what padding writes
  float* a;      // [d_state, W]: a·log₂e of the channels at hand
  float* h;      // [d_state, W]
  float* zeros;  // [d_state]: b and c of padding
  float* delta;  // [kChunk, W]: Δ
  float* du;     // [kChunk, W]: Δ·u
};

constexpr int64_t kFloatsPerLine = static_cast<int64_t>(kBufferAlignment / sizeof(float));

// Places the parts one after another from `base` on, each aligned; returns their total size in floats.
int64_t carve(const SelectiveScanArgs& args, float* base, Scratch* s) {
  const int64_t rows = args.directions[0].u.rows;
  const int64_t states = static_cast<int64_t>(args.d_state) * vf::W;
  const int64_t sizes[] = {(rows + 1) * kItemChannels, states, states, args.d_state, kChunk * vf::W, kChunk * vf::W};
  float** parts[] = {&s->y, &s->a, &s->h, &s->zeros, &s->delta, &s->du};
  int64_t used = 0;
  for (int i = 0; i < 6; ++i) {
    *parts[i] = base == nullptr ? nullptr : base + used;
    used += round_up(sizes[i], kFloatsPerLine);
  }
  return used;
}

int64_t groups(const SelectiveScanArgs& args) { return ceil_div(args.directions[0].u.channels, kItemChannels); }

int64_t items(const SelectiveScanArgs& args) { return args.directions[0].u.images * groups(args); }

size_t scratch(const SelectiveScanArgs& args) {
  Scratch unused;
  return static_cast<size_t>(carve(args, nullptr, &unused)) * sizeof(float);
}

// Positions [begin, begin + count) of one direction, in memory rows.
struct Chunk {
  int64_t begin, count, rows, image;
  const int32_t* table;

  int64_t row(int64_t i) const { return table != nullptr ? table[begin + i] : begin + i; }
};

// Δ and Δ·u of a chunk, and D·u into the sums, for channels k… of which `left` exist.
void prepare(const ScanDirection& dir, const Chunk& chunk, int64_t k, int left, float* y, const Scratch& s) {
  const vf d = load_up_to(dir.d + k, left);
  for (int64_t i = 0; i < chunk.count; ++i) {
    const int64_t row = chunk.row(i);
    vf v = zero(), u = zero();
    if (row >= 0) {
      v = load_up_to(dir.delta.row(chunk.image, row) + k, left);
      u = load_up_to(dir.u.row(chunk.image, row) + k, left);
      float* sum = y + row * kItemChannels;
      store(sum, fma(d, u, load(sum)));
    }
    const vf delta = softplus(v);
    store(s.delta + i * vf::W, delta);
    store(s.du + i * vf::W, delta * u);
  }
}

// The recurrence over a chunk. N = d_state, or 0 where only the argument d_state tells.
template <int N>
void recur(const ScanDirection& dir, const Chunk& chunk, int d_state, float* y, const Scratch& s) {
  constexpr int kStates = N > 0 ? N : 1;
  vf h[kStates];
  if (N > 0) {
    PTQ4VM_UNROLL
    for (int n = 0; n < kStates; ++n) h[n] = load(s.h + n * vf::W);
  }
  for (int64_t i = 0; i < chunk.count; ++i) {
    const int64_t row = chunk.row(i);
    const bool padding = row < 0;
    const float* b = padding ? s.zeros : dir.b.row(chunk.image, row);
    const float* c = padding ? s.zeros : dir.c.row(chunk.image, row);
    float* sum = y + (padding ? chunk.rows : row) * kItemChannels;
    const vf delta = load(s.delta + i * vf::W), du = load(s.du + i * vf::W);
    // Two sums: one chain of additions through all the states would be as long as the rest of the work.
    vf even = load(sum), odd = zero();
    if (N > 0) {
      PTQ4VM_UNROLL
      for (int n = 0; n < kStates; ++n) {
        h[n] = fma(exp2_decay(delta, load(s.a + n * vf::W)), h[n], set1(b[n]) * du);
        vf& half = n % 2 == 0 ? even : odd;
        half = fma(set1(c[n]), h[n], half);
      }
    } else {
      for (int n = 0; n < d_state; ++n) {
        const vf next = fma(exp2_decay(delta, load(s.a + n * vf::W)), load(s.h + n * vf::W), set1(b[n]) * du);
        store(s.h + n * vf::W, next);
        even = fma(set1(c[n]), next, even);
      }
    }
    store(sum, even + odd);
  }
  if (N > 0) {
    PTQ4VM_UNROLL
    for (int n = 0; n < kStates; ++n) store(s.h + n * vf::W, h[n]);
  }
}

// One direction of channels k…, added to y.
void scan_direction(const ScanDirection& dir, int64_t image, int64_t k, int left, int d_state, float* y,
                    const Scratch& s) {
  for (int n = 0; n < d_state; ++n) {
    const float* a = dir.a + static_cast<int64_t>(n) * dir.u.channels + k;
    store(s.a + n * vf::W, load_up_to(a, left) * set1(kLog2E));
    store(s.h + n * vf::W, zero());
    s.zeros[n] = 0.0f;
  }
  const int64_t rows = dir.u.rows;
  for (int64_t begin = 0; begin < rows; begin += kChunk) {
    const int64_t count = rows - begin < kChunk ? rows - begin : kChunk;
    const Chunk chunk = {begin, count, rows, image, dir.table};
    prepare(dir, chunk, k, left, y, s);
    if (d_state == 16) {
      recur<16>(dir, chunk, d_state, y, s);
    } else if (d_state == 1) {
      recur<1>(dir, chunk, d_state, y, s);
    } else {
      recur<0>(dir, chunk, d_state, y, s);
    }
  }
}

// Scale, gate and store the sums of the item's channels k0… .
void finish(const SelectiveScanArgs& args, int64_t image, int64_t k0, const Scratch& s) {
  const ScanDirection& first = args.directions[0];
  const int64_t last = k0 + kItemChannels < first.u.channels ? k0 + kItemChannels : first.u.channels;
  const vf out_scale = set1(args.out_scale);
  for (int64_t row = 0; row < first.u.rows; ++row) {
    CodeRow codes = {};
    if (!args.out.q.empty()) codes = code_row(args.out, image, row);
    for (int64_t k = k0; k < last; k += vf::W) {
      const int left = static_cast<int>(last - k);
      vf v = load(s.y + row * kItemChannels + (k - k0)) * out_scale;
      if (!args.z.empty()) v = v * silu(load_up_to(args.z.row(image, row) + k, left));
      if (!args.y.empty()) store_up_to(args.y.row(image, row) + k, v, left);
      if (codes.q != nullptr) store_codes(codes, static_cast<int>(k), v, left);
    }
  }
}

void run(const SelectiveScanArgs& args, Span span, void* scratch_memory) {
  const FlushDenormals guard;
  Scratch s;
  carve(args, static_cast<float*>(scratch_memory), &s);
  const int64_t count = groups(args);
  const int64_t channels = args.directions[0].u.channels;
  const int64_t sums = (args.directions[0].u.rows + 1) * kItemChannels;
  for (int64_t item = span.begin; item < span.end; ++item) {
    const int64_t image = item / count, k0 = item % count * kItemChannels;
    for (int64_t i = 0; i < sums; i += vf::W) store(s.y + i, zero());
    for (int d = 0; d < args.direction_count; ++d) {
      for (int64_t k = k0; k < k0 + kItemChannels && k < channels; k += vf::W) {
        const int left = channels - k < vf::W ? static_cast<int>(channels - k) : vf::W;
        scan_direction(args.directions[d], image, k, left, args.d_state, s.y + (k - k0), s);
      }
    }
    finish(args, image, k0, s);
  }
}

}  // namespace

OpEntry<SelectiveScanArgs> selective_scan_entry() { return {items, scratch, run}; }

}  // namespace PTQ4VM_ISA
}  // namespace cpu
}  // namespace ptq4vm
