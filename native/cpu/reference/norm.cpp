// Reference: residual addition and RMSNorm / LayerNorm.
#include "reference/reference.h"

namespace ptq4vm {
namespace cpu {
namespace reference {
namespace {

// The float that is normalised: the residual stream after the addition, rounded to float32 as it is stored.
float residual_sum(const AddNormArgs& a, int64_t image, int64_t row, int64_t k) {
  const float x = a.x.row(image, row)[k];
  return a.residual.empty() ? x : x + a.residual.row(image, row)[k];
}

void add_norm_row(const AddNormArgs& a, int64_t image, int64_t row, float* sum) {
  const int64_t channels = a.x.channels;
  for (int64_t k = 0; k < channels; ++k) sum[k] = residual_sum(a, image, row, k);

  double mean = 0.0;  // RMSNorm does not centre
  if (a.layer_norm) {
    for (int64_t k = 0; k < channels; ++k) mean += sum[k];
    mean /= channels;
  }
  double variance = 0.0;
  for (int64_t k = 0; k < channels; ++k) variance += (sum[k] - mean) * (sum[k] - mean);
  variance /= channels;
  const double rscale = 1.0 / std::sqrt(variance + a.epsilon);

  for (int64_t k = 0; k < channels; ++k) {
    const double bias = a.bias ? a.bias[k] : 0.0;
    const float y = static_cast<float>((sum[k] - mean) * rscale * a.weight[k] + bias);
    if (!a.residual_out.empty()) a.residual_out.row(image, row)[k] = sum[k];
    if (!a.y.empty()) a.y.row(image, row)[k] = y;
    put_code(a.out, image, row, k, y);
  }
}

// Item: one row of one image.
void add_norm(const AddNormArgs& a, Span span, void* scratch) {
  for (int64_t item = span.begin; item < span.end; ++item) {
    add_norm_row(a, item / a.x.rows, item % a.x.rows, static_cast<float*>(scratch));
  }
}

int64_t items(const AddNormArgs& a) { return static_cast<int64_t>(a.x.images) * a.x.rows; }
size_t scratch(const AddNormArgs& a) { return static_cast<size_t>(a.x.channels) * sizeof(float); }

}  // namespace

OpEntry<AddNormArgs> add_norm_entry() { return {items, scratch, add_norm}; }

}  // namespace reference
}  // namespace cpu
}  // namespace ptq4vm
