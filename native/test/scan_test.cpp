// Self-checking program for selective_scan of the instruction set it is compiled for, against double-precision loops
// written here.
//
//   scan_test [seed] [largest number of channels]
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

double softplus(double v) { return v > 20 ? v : std::log1p(std::exp(v)); }

struct DirectionData {
  Tensor<float> u, delta, b, c;
  std::vector<float> a, d;
  std::vector<int32_t> table;
};

// Adds one direction to the sums of e, in double.
void scan_reference(const ScanDirection& s, int d_state, Expected& e) {
  const int channels = s.u.channels, rows = s.u.rows;
  std::vector<double> h(d_state), size(d_state);
  for (int image = 0; image < s.u.images; ++image) {
    for (int k = 0; k < channels; ++k) {
      for (int n = 0; n < d_state; ++n) h[n] = size[n] = 0;
      for (int t = 0; t < rows; ++t) {
        const int row = s.table ? s.table[t] : t;
        const bool real = row >= 0;
        const double u = real ? s.u.row(image, row)[k] : 0;
        const double delta = softplus(real ? s.delta.row(image, row)[k] : 0);
        double y = s.d[k] * u, magnitude = std::fabs(y);
        for (int n = 0; n < d_state; ++n) {
          const double decay = std::exp(delta * s.a[size_t(n) * channels + k]);
          const double input = real ? delta * u * s.b.row(image, row)[n] : 0;
          h[n] = decay * h[n] + input;
          size[n] = decay * size[n] + std::fabs(input);
          if (!real) continue;
          y += s.c.row(image, row)[n] * h[n];
          magnitude += std::fabs(s.c.row(image, row)[n]) * size[n];
        }
        if (!real) continue;
        const size_t i = (size_t(image) * rows + row) * channels + k;
        e.value[i] += y;
        e.magnitude[i] += magnitude;
      }
    }
  }
}

double scan_case(int channels, int rows, int d_state, int directions) {
  const int images = pick(1, 2), spread = pick(0, 4);
  char shape[120];
  snprintf(shape, sizeof shape, "images %d rows %d channels %d d_state %d directions %d delta %d", images, rows,
           channels, d_state, directions, spread);
  std::vector<DirectionData> data(directions);
  SelectiveScanArgs args = {};
  args.direction_count = directions;
  args.d_state = d_state;
  args.out_scale = coin() ? 1.0f / directions : 0.75f;
  Expected e(images, rows, channels);
  for (int i = 0; i < directions; ++i) {
    DirectionData& d = data[i];
    d.u.shape(images, rows, channels);
    d.delta.shape(images, rows, channels);
    d.b.shape(images, rows, d_state);
    d.c.shape(images, rows, d_state);
    d.u.set(normal);
    d.b.set(normal);
    d.c.set(normal);
    d.delta.set([&]() -> double {
      switch (spread) {
        case 0:
          return -3 + 1.5 * normal();  // as in trained models
        case 1:
          return -12 + 3 * normal();  // states hardly decay
        case 2:
          return 10 * normal();  // anything
        case 3:
          return coin() ? 1e4 : -80;  // forgets everything, or ignores the input
        default:
          return coin() ? -200 : 15 * normal();
      }
    });
    d.a = numbers(size_t(d_state) * channels, [] { return -std::exp(uniform(-3, 3.5)); });
    d.d = numbers(channels, normal);
    d.table = make_table(pick(0, 3), rows);
    args.directions[i] = {d.u.read(), d.delta.read(), d.b.read(), d.c.read(), d.a.data(), d.d.data(), pointer(d.table)};
    scan_reference(args.directions[i], d_state, e);
  }
  Tensor<float> z, y;
  z.shape(images, rows, channels);
  y.shape(images, rows, channels);
  z.set([] { return 3 * normal(); });
  if (coin()) args.z = z.read();
  size_t i = 0;
  for (int image = 0; image < images; ++image) {
    for (int row = 0; row < rows; ++row) {
      for (int k = 0; k < channels; ++k, ++i) {
        const double factor = args.out_scale * (args.z.empty() ? 1 : silu(args.z.row(image, row)[k]));
        e.value[i] *= factor;
        e.magnitude[i] *= std::fabs(factor);
      }
    }
  }
  Quantizer quantizer;
  quantizer.shape(images, rows, channels, 2);
  run_outputs("selective_scan", shape, isa::selective_scan_entry(), args, y, quantizer);
  compare_codes("selective_scan", shape, y, quantizer, e);
  return compare("selective_scan", shape, y, e, 1e-5);
}

// NaN in every float input: nothing crashes, y is NaN, and a NaN gets code 0.
void nan_case() {
  const int rows = 5, channels = 19, d_state = 16;
  DirectionData d;
  Tensor<float> y;
  d.u.shape(1, rows, channels);
  d.delta.shape(1, rows, channels);
  d.b.shape(1, rows, d_state);
  for (Tensor<float>* t : {&d.u, &d.delta, &d.b}) t->fill(NAN);
  y.shape(1, rows, channels);
  Quantizer z;
  z.shape(1, rows, channels, 1);
  d.a = numbers(size_t(d_state) * channels, [] { return -1; });
  d.d = numbers(channels, normal);
  SelectiveScanArgs args = {};
  args.directions[0] = {d.u.read(), d.delta.read(), d.b.read(), d.b.read(), d.a.data(), d.d.data(), nullptr};
  args.direction_count = 1;
  args.d_state = d_state;
  args.out_scale = 1;
  run_outputs("selective_scan", "NaN", isa::selective_scan_entry(), args, y, z);
  expect_nan("selective_scan", y, z);
}

}  // namespace

int main(int argc, char** argv) {
  const uint64_t seed = argc > 1 ? strtoull(argv[1], nullptr, 10) : std::random_device()();
  const int largest_channels = argc > 2 ? atoi(argv[2]) : 384;
  rng.seed(seed);
  printf("%s: seed %llu\n", NAME(PTQ4VM_ISA), static_cast<unsigned long long>(seed));
  double worst = 0;
  for (int channels : kChannels) {
    for (int rows : kRows) {
      for (int d_state : {1, 2, 5, 16}) {
        for (int directions : {1, 2, 4}) {
          if (channels <= largest_channels) worst = std::fmax(worst, scan_case(channels, rows, d_state, directions));
        }
      }
    }
  }
  nan_case();
  printf("largest error of selective_scan: %.2e (relative to what is added up)\n", worst);
  printf("%s\n", failures == 0 ? "ok" : "FAILED");
  return failures == 0 ? 0 : 1;
}
