// Ops on whole token rows: sequence assembly, rotary embedding, selection, mean. All are bound by memory; the channel
// loops are plain and the compiler vectorizes them.
#include "entries.h"
#include "simd/simd.h"

namespace ptq4vm {
namespace cpu {
namespace PTQ4VM_ISA {
namespace {

template <class Args>
size_t no_scratch(const Args&) {
  return 0;
}

// Item: one row of one image of the result.
template <class Args>
int64_t rows_of_y(const Args& a) {
  return static_cast<int64_t>(a.y.images) * a.y.rows;
}

void copy_row(float* __restrict y, const float* __restrict x, int64_t channels) {
  for (int64_t k = 0; k < channels; ++k) y[k] = x[k];
}

void add_rows(float* __restrict y, const float* __restrict x, const float* __restrict pos, int64_t channels) {
  for (int64_t k = 0; k < channels; ++k) y[k] = x[k] + pos[k];
}

// y[t] = (source[t] ≥ 0 ? x[source[t]] : cls[−1 − source[t]]) + pos[t]. y must not overlap x.
void assemble_tokens(const AssembleTokensArgs& a, Span span, void*) {
  const int64_t channels = a.y.channels;
  for (int64_t item = span.begin; item < span.end; ++item) {
    const int64_t image = item / a.y.rows, row = item % a.y.rows;
    const int64_t source = a.source[row];
    const float* from = source >= 0 ? a.x.row(image, source) : a.cls + (-1 - source) * channels;
    if (a.pos) {
      add_rows(a.y.row(image, row), from, a.pos + row * channels, channels);
    } else {
      copy_row(a.y.row(image, row), from, channels);
    }
  }
}

// Pairs (p, q) of a row become (p·cos − q·sin, q·cos + p·sin), each element with its own column of the table row.
void rotate_row(float* y, const float* x, const float* cos, const float* sin, int64_t channels) {
  for (int64_t k = 0; k + 1 < channels; k += 2) {
    const float p = x[k], q = x[k + 1];  // both before writing: y may be x
    y[k] = p * cos[k] - q * sin[k];
    y[k + 1] = q * cos[k + 1] + p * sin[k + 1];
  }
}

// Rows below first_token pass unchanged; row t is rotated by table row t − first_token. y may be x.
void rope(const RopeArgs& a, Span span, void*) {
  const int64_t channels = a.x.channels;
  for (int64_t item = span.begin; item < span.end; ++item) {
    const int64_t image = item / a.y.rows, row = item % a.y.rows;
    const float* x = a.x.row(image, row);
    float* y = a.y.row(image, row);
    if (row >= a.first_token) {
      const int64_t at = (row - a.first_token) * channels;
      rotate_row(y, x, a.cos + at, a.sin + at, channels);
    } else if (y != x) {
      copy_row(y, x, channels);
    }
  }
}

// y[i] = x[indices[i]]. y must not overlap x.
void select_tokens(const SelectTokensArgs& a, Span span, void*) {
  for (int64_t item = span.begin; item < span.end; ++item) {
    const int64_t image = item / a.y.rows, row = item % a.y.rows;
    copy_row(a.y.row(image, row), a.x.row(image, a.indices[row]), a.y.channels);
  }
}

// Means of W channels, two sums for even and odd rows; lanes_wanted < W at the end of a row.
vf mean_of_columns(const View<const float>& x, int64_t image, int64_t k, int lanes_wanted) {
  const auto at = [&](int64_t row) {
    const float* p = x.row(image, row) + k;
    return lanes_wanted == vf::W ? load(p) : load_n(p, lanes_wanted);
  };
  vf even = zero(), odd = zero();
  int64_t row = 0;
  for (; row + 2 <= x.rows; row += 2) {
    even = even + at(row);
    odd = odd + at(row + 1);
  }
  if (row < x.rows) even = even + at(row);
  return (even + odd) / set1(static_cast<float>(x.rows));
}

// Item: one image. y has one row.
int64_t mean_tokens_items(const MeanTokensArgs& a) { return a.x.images; }

void mean_tokens(const MeanTokensArgs& a, Span span, void*) {
  for (int64_t image = span.begin; image < span.end; ++image) {
    float* y = a.y.row(image, 0);
    int64_t k = 0;
    for (; k + vf::W <= a.x.channels; k += vf::W) store(y + k, mean_of_columns(a.x, image, k, vf::W));
    const int rest = static_cast<int>(a.x.channels - k);
    if (rest > 0) store_n(y + k, mean_of_columns(a.x, image, k, rest), rest);
  }
}

}  // namespace

OpEntry<AssembleTokensArgs> assemble_tokens_entry() {
  return {rows_of_y<AssembleTokensArgs>, no_scratch<AssembleTokensArgs>, assemble_tokens};
}
OpEntry<RopeArgs> rope_entry() { return {rows_of_y<RopeArgs>, no_scratch<RopeArgs>, rope}; }
OpEntry<SelectTokensArgs> select_tokens_entry() {
  return {rows_of_y<SelectTokensArgs>, no_scratch<SelectTokensArgs>, select_tokens};
}
OpEntry<MeanTokensArgs> mean_tokens_entry() { return {mean_tokens_items, no_scratch<MeanTokensArgs>, mean_tokens}; }

}  // namespace PTQ4VM_ISA
}  // namespace cpu
}  // namespace ptq4vm
