// Self-checking program for conv_silu, add_norm, quantize and fake_quantize of the instruction set it is compiled
// for, against double-precision loops written here.
//
//   elementwise_test [seed] [largest number of channels]
//
// Each case runs item by item in random order and all at once; the results must be equal bit for bit, nothing around
// an output may change, and what lies around an input is NaN (kernel_tensors.h). Codes must be those that
// arith::quantize_code gives for the float output. Prints the largest errors; exit status 1 on a failure.
#include <cstdlib>

#include "entries.h"
#include "kernel_tensors.h"
#include "ptq4vm/arith.h"

using namespace kernel_test;
namespace isa = ptq4vm::cpu::PTQ4VM_ISA;

#define NAME_OF(x) #x
#define NAME(x) NAME_OF(x)

namespace {

double conv_case(int channels, int rows, int width) {
  const int images = pick(1, 2);
  char shape[80];
  snprintf(shape, sizeof shape, "images %d rows %d channels %d width %d", images, rows, channels, width);
  Tensor<float> x, y;
  x.shape(images, rows, channels);
  y.shape(images, rows, channels);
  x.set([] { return 2 * normal(); });
  const std::vector<float> weight = numbers(size_t(width) * channels, normal), bias = numbers(channels, normal);
  const std::vector<int32_t> table = make_table(pick(0, 3), rows);
  ConvSiluArgs args = {x.read(), {}, {}, weight.data(), coin() ? bias.data() : nullptr, pointer(table), width};
  Expected e(images, rows, channels);
  e.written.assign(e.written.size(), 0);
  for (int image = 0; image < images; ++image) {
    for (int t = 0; t < rows; ++t) {
      const int out = args.table ? table[t] : t;
      for (int k = 0; k < channels && out >= 0; ++k) {
        double sum = args.bias ? bias[k] : 0, magnitude = std::fabs(sum);
        for (int j = 0; j < width; ++j) {
          const int position = t - (width - 1) + j;
          const int row = position < 0 ? -1 : args.table ? table[position] : position;
          if (row < 0) continue;
          const double product = double(weight[size_t(j) * channels + k]) * x.view.row(image, row)[k];
          sum += product;
          magnitude += std::fabs(product);
        }
        const size_t i = (size_t(image) * rows + out) * channels + k;
        e.value[i] = silu(sum);
        e.magnitude[i] = magnitude + 1e-3;
        e.written[i] = 1;
      }
    }
  }
  Quantizer quantizer;
  quantizer.shape(images, rows, channels, 2);
  run_outputs("conv_silu", shape, isa::conv_silu_entry(), args, y, quantizer);
  compare_codes("conv_silu", shape, y, quantizer, e);
  return compare("conv_silu", shape, y, e, 2e-6);
}

double norm_case(int channels, int rows, bool layer_norm) {
  const int images = pick(1, 2), residuals = pick(0, 3);  // 1 input, 2 output, 3 both
  const bool in_place = residuals == 3 && coin();
  const double center = layer_norm ? 30 * normal() : 0;
  char shape[100];
  snprintf(shape, sizeof shape, "%s images %d rows %d channels %d residuals %d%s", layer_norm ? "LayerNorm" : "RMSNorm",
           images, rows, channels, residuals, in_place ? " in place" : "");
  Tensor<float> x, residual, residual_out, y;
  for (Tensor<float>* t : {&x, &residual, &residual_out, &y}) t->shape(images, rows, channels);
  x.set([&] { return center + 2 * normal(); });
  residual.set(normal);
  const std::vector<float> weight = numbers(channels, normal), bias = numbers(channels, normal);
  AddNormArgs args = {x.read(),          {}, {}, {}, {}, weight.data(), coin() ? bias.data() : nullptr, 1e-5f,
                      layer_norm ? 1 : 0};
  if (residuals & 1) args.residual = residual.read();
  if ((residuals & 2) && !in_place) args.residual_out = residual_out.view;
  residual_out.fill(guard<float>());

  Expected e(images, rows, channels);
  size_t i = 0;
  std::vector<double> s(channels);
  std::vector<float> sums;
  for (int image = 0; image < images; ++image) {
    for (int row = 0; row < rows; ++row) {
      double mean = 0, square = 0;
      for (int k = 0; k < channels; ++k) {
        const float sum = args.residual.empty() ? x.view.row(image, row)[k]
                                                : x.view.row(image, row)[k] + residual.view.row(image, row)[k];
        sums.push_back(sum);
        s[k] = sum;
        mean += s[k] / channels;
      }
      if (!layer_norm) mean = 0;
      for (int k = 0; k < channels; ++k) square += (s[k] - mean) * (s[k] - mean) / channels;
      const double rscale = 1 / std::sqrt(square + 1e-5);
      for (int k = 0; k < channels; ++k, ++i) {
        e.value[i] = (s[k] - mean) * rscale * weight[k] + (args.bias ? bias[k] : 0);
        // The mean is off by its own rounding, which a small variance magnifies.
        e.magnitude[i] =
            (std::fabs(s[k]) + std::fabs(mean)) * rscale * std::fabs(weight[k]) + (args.bias ? std::fabs(bias[k]) : 0);
      }
    }
  }
  Quantizer quantizer;
  quantizer.shape(images, rows, channels, 2);
  run_outputs("add_norm", shape, isa::add_norm_entry(), args, y, quantizer);
  if (in_place) {  // once only: it changes its input
    const std::vector<float> before = y.all();
    args.residual_out = residual.view;
    args.y = y.view;
    y.fill(guard<float>());
    std::vector<char> scratch(isa::add_norm_entry().scratch(args) + 64);
    isa::add_norm_entry().run(args, Span{0, isa::add_norm_entry().items(args)}, scratch.data());
    if (memcmp(before.data(), y.memory, before.size() * 4) != 0) fail("add_norm", shape, "in place differs");
  }
  if (residuals & 2) {
    const Tensor<float>& kept = in_place ? residual : residual_out;
    i = 0;
    for (int image = 0; image < images; ++image) {
      for (int row = 0; row < rows; ++row) {
        if (memcmp(kept.view.row(image, row), &sums[i], sizeof(float) * channels) != 0)
          fail("add_norm", shape, "residual differs");
        i += channels;
      }
    }
    if (!in_place && !residual_out.guards_intact()) fail("add_norm", shape, "wrote outside residual_out");
  }
  compare_codes("add_norm", shape, y, quantizer, e);
  return compare("add_norm", shape, y, e, 3e-6);
}

// quantize and fake_quantize are exact: every bit is that of arith.h. Values include ties, NaN and infinities.
void quantize_case(int channels, int rows) {
  const int images = pick(1, 2);
  char shape[60];
  snprintf(shape, sizeof shape, "images %d rows %d channels %d", images, rows, channels);
  Tensor<float> x, y;
  x.shape(images, rows, channels);
  y.shape(images, rows, channels);
  const double unusual[] = {NAN, INFINITY, -INFINITY, 0.0, -0.0, 0.5, -1.5, 2.5, 1e30, -1e30, 1e-42};
  x.set([&] { return pick(0, 5) == 0 ? unusual[pick(0, 10)] : 3 * normal(); });
  Quantizer z;
  z.shape(images, rows, channels, coin() ? 2 : 40);
  if (coin()) z.act.assign(z.act.size(), 1.0f);  // ties stay ties
  z.out.act_rscale = z.act.data();
  z.q.fill(guard<uint8_t>());
  QuantizeArgs args = {x.read(), z.out};
  std::vector<uint8_t> first;
  run_both_ways<QuantizeArgs>(isa::quantize_entry(), args, [&] {
    first = z.q.all();
    z.q.fill(guard<uint8_t>());
  });
  if (first != z.q.all()) fail("quantize", shape, "items depend on their grouping");
  if (!z.q.guards_intact()) fail("quantize", shape, "wrote outside its output");
  compare_codes("quantize", shape, x, z, Expected(images, rows, channels));

  FakeQuantizeArgs fake = {x.read(),     y.view,        z.smooth.empty() ? nullptr : z.smooth.data(),
                           z.act.data(), z.zero.data(), z.out.per_token,
                           z.out.qmax};
  y.fill(guard<float>());
  run_both_ways<FakeQuantizeArgs>(isa::fake_quantize_entry(), fake, [&] { y.fill(guard<float>()); });
  if (!y.guards_intact()) fail("fake_quantize", shape, "wrote outside its output");
  for (int image = 0; image < images; ++image) {
    for (int row = 0; row < rows; ++row) {
      const int token = fake.per_token ? row : 0;
      for (int k = 0; k < channels; ++k) {
        const float wanted =
            arith::fake_quantize(x.view.row(image, row)[k], fake.smooth ? fake.smooth[k] : 1, z.act[token],
                                 static_cast<float>(z.zero[token]), static_cast<float>(fake.qmax));
        if (memcmp(&wanted, &y.view.row(image, row)[k], sizeof wanted) != 0) {
          fail("fake_quantize", shape, "not bit-equal to arith::fake_quantize");
          return;
        }
      }
    }
  }
}

// NaN in the input: nothing crashes, y is NaN, and a NaN gets code 0.
void nan_cases() {
  const int rows = 5, channels = 19;
  Tensor<float> x, y;
  x.shape(1, rows, channels);
  y.shape(1, rows, channels);
  x.fill(NAN);
  Quantizer z;
  z.shape(1, rows, channels, 1);
  const std::vector<float> weight = numbers(size_t(4) * channels, normal);
  for (int layer_norm = 0; layer_norm < 2; ++layer_norm) {
    const AddNormArgs args = {x.read(), {}, {}, {}, {}, weight.data(), nullptr, 1e-5f, layer_norm};
    run_outputs("add_norm", "NaN", isa::add_norm_entry(), args, y, z);
    expect_nan("add_norm", y, z);
  }
  const ConvSiluArgs args = {x.read(), {}, {}, weight.data(), nullptr, nullptr, 4};
  run_outputs("conv_silu", "NaN", isa::conv_silu_entry(), args, y, z);
  expect_nan("conv_silu", y, z);
}

}  // namespace

int main(int argc, char** argv) {
  const uint64_t seed = argc > 1 ? strtoull(argv[1], nullptr, 10) : std::random_device()();
  const int largest_channels = argc > 2 ? atoi(argv[2]) : 384;
  rng.seed(seed);
  printf("%s: seed %llu\n", NAME(PTQ4VM_ISA), static_cast<unsigned long long>(seed));
  double conv = 0, norm = 0;
  for (int channels : kChannels) {
    if (channels > largest_channels) continue;
    for (int rows : kRows) {
      for (int width = 1; width <= 8; ++width) conv = std::fmax(conv, conv_case(channels, rows, width));
      for (int i = 0; i < 8; ++i) {
        norm = std::fmax(norm, norm_case(channels, rows, i % 2 == 1));
        quantize_case(channels, rows);
      }
    }
  }
  nan_cases();
  printf("largest errors: conv_silu %.2e, add_norm %.2e (relative to what is added up)\n", conv, norm);
  printf("%s\n", failures == 0 ? "ok" : "FAILED");
  return failures == 0 ? 0 : 1;
}
