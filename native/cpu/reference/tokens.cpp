// Reference: ops that move, rotate or average whole token rows.
#include "reference/reference.h"

namespace ptq4vm {
namespace cpu {
namespace reference {
namespace {

// Item: one token of one image.
void assemble_tokens(const AssembleTokensArgs& a, Span span, void*) {
  const int64_t channels = a.y.channels;
  for (int64_t item = span.begin; item < span.end; ++item) {
    const int64_t image = item / a.y.rows, row = item % a.y.rows;
    const int32_t source = a.source[row];
    const float* from = source >= 0 ? a.x.row(image, source) : a.cls + (-1 - source) * channels;
    for (int64_t k = 0; k < channels; ++k) {
      a.y.row(image, row)[k] = a.pos ? from[k] + a.pos[row * channels + k] : from[k];
    }
  }
}

// Item: one token of one image. Pair (p, q) at table row r becomes (p·cos − q·sin, q·cos + p·sin), each element with
// its own column of the tables.
void rope(const RopeArgs& a, Span span, void*) {
  const int64_t channels = a.x.channels;
  for (int64_t item = span.begin; item < span.end; ++item) {
    const int64_t row = item % a.x.rows;
    const float* x = a.x.row(item / a.x.rows, row);
    float* y = a.y.row(item / a.x.rows, row);
    for (int64_t k = 0; k + 1 < channels; k += 2) {
      const float p = x[k], q = x[k + 1];  // read before writing: y may be x
      if (row < a.first_token) {
        y[k] = p, y[k + 1] = q;
        continue;
      }
      const float* cos = a.cos + (row - a.first_token) * channels;
      const float* sin = a.sin + (row - a.first_token) * channels;
      y[k] = static_cast<float>(static_cast<double>(p) * cos[k] - static_cast<double>(q) * sin[k]);
      y[k + 1] = static_cast<float>(static_cast<double>(q) * cos[k + 1] + static_cast<double>(p) * sin[k + 1]);
    }
  }
}

// Item: one row of the result.
void select_tokens(const SelectTokensArgs& a, Span span, void*) {
  for (int64_t item = span.begin; item < span.end; ++item) {
    const int64_t image = item / a.y.rows, row = item % a.y.rows;
    for (int64_t k = 0; k < a.y.channels; ++k) a.y.row(image, row)[k] = a.x.row(image, a.indices[row])[k];
  }
}

// Item: one image.
void mean_tokens(const MeanTokensArgs& a, Span span, void*) {
  for (int64_t image = span.begin; image < span.end; ++image) {
    for (int64_t k = 0; k < a.x.channels; ++k) {
      double sum = 0.0;
      for (int64_t row = 0; row < a.x.rows; ++row) sum += a.x.row(image, row)[k];
      a.y.row(image, 0)[k] = static_cast<float>(sum / a.x.rows);
    }
  }
}

template <class Args>
int64_t rows_of_y(const Args& a) {
  return static_cast<int64_t>(a.y.images) * a.y.rows;
}

}  // namespace

OpEntry<AssembleTokensArgs> assemble_tokens_entry() {
  return {rows_of_y<AssembleTokensArgs>, no_scratch<AssembleTokensArgs>, assemble_tokens};
}
OpEntry<RopeArgs> rope_entry() { return {rows_of_y<RopeArgs>, no_scratch<RopeArgs>, rope}; }
OpEntry<SelectTokensArgs> select_tokens_entry() {
  return {rows_of_y<SelectTokensArgs>, no_scratch<SelectTokensArgs>, select_tokens};
}
OpEntry<MeanTokensArgs> mean_tokens_entry() {
  return {rows_of_y<MeanTokensArgs>, no_scratch<MeanTokensArgs>, mean_tokens};
}

}  // namespace reference
}  // namespace cpu
}  // namespace ptq4vm
