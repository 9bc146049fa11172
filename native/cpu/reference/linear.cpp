// Reference: matrix products (float, u8 × s8) and the patch embedding.
#include <cstring>

#include "reference/reference.h"

namespace ptq4vm {
namespace cpu {
namespace reference {
namespace {

template <class T>
size_t packed_bytes(int32_t out, int32_t in) {
  return sizeof(PackedHeader) + static_cast<size_t>(out) * in * sizeof(T);
}

template <class T>
void pack(const T* weight, int32_t out, int32_t in, void* packed) {
  const PackedHeader header = {out, in};
  std::memcpy(packed, &header, sizeof header);
  std::memcpy(static_cast<PackedHeader*>(packed) + 1, weight, static_cast<size_t>(out) * in * sizeof(T));
}

// Item: one row of one image.
void linear(const LinearArgs& a, Span span, void*) {
  const float* weight = packed_weights<float>(a.weight);
  for (int64_t item = span.begin; item < span.end; ++item) {
    const float* x = a.x.row(item / a.x.rows, item % a.x.rows);
    float* y = a.y.row(item / a.x.rows, item % a.x.rows);
    for (int64_t o = 0; o < a.y.channels; ++o) {
      double sum = 0.0;
      for (int64_t k = 0; k < a.x.channels; ++k) sum += static_cast<double>(x[k]) * weight[o * a.x.channels + k];
      y[o] = static_cast<float>(a.bias ? sum + a.bias[o] : sum);
    }
  }
}

// Item: one row of one image.
void linear_i8(const LinearI8Args& a, Span span, void*) {
  const int8_t* weight = packed_weights<int8_t>(a.weight);
  for (int64_t item = span.begin; item < span.end; ++item) {
    const int64_t row = item % a.x.rows;
    const uint8_t* x = a.x.row(item / a.x.rows, row);
    float* y = a.y.row(item / a.x.rows, row);
    const int64_t step = a.per_token ? row : 0;
    for (int64_t o = 0; o < a.y.channels; ++o) {
      int32_t sum = 0;
      for (int64_t k = 0; k < a.x.channels; ++k) sum += static_cast<int32_t>(x[k]) * weight[o * a.x.channels + k];
      y[o] = arith::dequantize(sum, a.act_zero[step], a.col_sum[o], a.act_scale[step], a.weight_scale[o],
                               a.bias ? a.bias[o] : 0.0f);
    }
  }
}

// Conv2d of square kernel `patch` and the given stride, without padding. Item: one grid cell of one image.
void patch_embed(const PatchEmbedArgs& a, Span span, void*) {
  const float* weight = packed_weights<float>(a.weight);
  const int64_t cells = static_cast<int64_t>(a.grid_h) * a.grid_w;
  const int64_t planes = a.x.rows;
  for (int64_t item = span.begin; item < span.end; ++item) {
    const int64_t image = item / cells, cell = item % cells;
    const int64_t top = cell / a.grid_w * a.stride, left = cell % a.grid_w * a.stride;
    float* y = a.y.row(image, cell);
    for (int64_t o = 0; o < a.y.channels; ++o) {
      double sum = 0.0;
      for (int64_t plane = 0; plane < planes; ++plane) {
        for (int64_t i = 0; i < a.patch; ++i) {
          for (int64_t j = 0; j < a.patch; ++j) {
            const float pixel = a.x.row(image, plane)[(top + i) * a.width + left + j];
            sum += static_cast<double>(pixel) * weight[((o * planes + plane) * a.patch + i) * a.patch + j];
          }
        }
      }
      y[o] = static_cast<float>(a.bias ? sum + a.bias[o] : sum);
    }
  }
}

template <class Args>
int64_t rows_of_x(const Args& a) {
  return static_cast<int64_t>(a.x.images) * a.x.rows;
}

int64_t patch_embed_items(const PatchEmbedArgs& a) { return static_cast<int64_t>(a.x.images) * a.grid_h * a.grid_w; }

}  // namespace

Packer<float> linear_packer() { return {packed_bytes<float>, pack<float>}; }
Packer<int8_t> linear_i8_packer() { return {packed_bytes<int8_t>, pack<int8_t>}; }
OpEntry<LinearArgs> linear_entry() { return {rows_of_x<LinearArgs>, no_scratch<LinearArgs>, linear}; }
OpEntry<LinearI8Args> linear_i8_entry() { return {rows_of_x<LinearI8Args>, no_scratch<LinearI8Args>, linear_i8}; }
OpEntry<PatchEmbedArgs> patch_embed_entry() { return {patch_embed_items, no_scratch<PatchEmbedArgs>, patch_embed}; }

}  // namespace reference
}  // namespace cpu
}  // namespace ptq4vm
