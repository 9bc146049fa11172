// Self-checking program for linear, linear_i8 and patch_embed of one instruction set: the one it is compiled for.
//
//   g++ -std=c++17 -O3 -ffp-contract=off -fno-math-errno -fno-trapping-math
//       -DPTQ4VM_ISA=avx2 -DPTQ4VM_ISA_AVX2=1 -mavx2 -mfma -mf16c -I native/include -I native -I native/cpu
//       native/test/gemm_test.cpp native/cpu/gemm_{f32,i8}.cpp native/cpu/patch_embed.cpp -o gemm_test
//   ./gemm_test [seed]         checks; exit status 1 on a failure
//   ./gemm_test speed          single-core rates on the shapes of Vim
//
// Expected values come from plain loops over the logical weights: int64 for the integer sums; for float32 double
// (within the bound of a float32 sum) and float32 in the promised order (equal). Every output has guard values around
// it, padding of inputs is filled with garbage (NaN in floats), and each case runs twice, all items in one call and one
// by one in random order: the results must be equal bit for bit.
#include <chrono>
#include <cinttypes>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <vector>

#include "entries.h"
#include "ptq4vm/arith.h"

using namespace ptq4vm;
namespace isa = ptq4vm::cpu::PTQ4VM_ISA;

#define NAME_OF(x) #x
#define NAME(x) NAME_OF(x)

namespace {

std::mt19937_64 rng;
int failures = 0;
double worst = 0;  // float32 cases: error relative to Σ|x·w|

double uniform(double lo, double hi) { return std::uniform_real_distribution<double>(lo, hi)(rng); }
int64_t pick(int64_t lo, int64_t hi) { return std::uniform_int_distribution<int64_t>(lo, hi)(rng); }

constexpr float kGuard = -12345.0f;

template <class T>
struct Aligned {
  std::vector<char> bytes;
  T* data;
  explicit Aligned(size_t count) : bytes(count * sizeof(T) + 128) {
    const uintptr_t p = reinterpret_cast<uintptr_t>(bytes.data());
    data = reinterpret_cast<T*>((p + 63) / 64 * 64);
  }
};

// A view on a slice of a wider, guarded tensor. `slack` channels lie around the slice.
template <class T>
struct Tensor {
  Aligned<T> memory;
  size_t count;
  View<T> view;
  Tensor(int32_t images, int32_t rows, int32_t channels, int64_t from, int64_t slack, int64_t stride_multiple,
         int64_t gap_rows)
      : memory(0), count(0) {
    const int64_t row = round_up(from + channels + slack, stride_multiple);
    const int64_t image = row * (rows + gap_rows);
    count = static_cast<size_t>(image * images) + 64;
    memory = Aligned<T>(count);
    view = {memory.data + from, image, row, images, rows, channels};
  }
  void fill(T v) {
    for (size_t i = 0; i < count; ++i) memory.data[i] = v;
  }
  View<const T> read() const {
    return {view.data, view.image_stride, view.row_stride, view.images, view.rows, view.channels};
  }
};

// Everything outside the slice still holds the guard.
bool guards_intact(const Tensor<float>& t) {
  std::vector<char> inside(t.count, 0);
  for (int i = 0; i < t.view.images; ++i) {
    for (int r = 0; r < t.view.rows; ++r) {
      memset(&inside[t.view.row(i, r) - t.memory.data], 1, t.view.channels);
    }
  }
  for (size_t i = 0; i < t.count; ++i) {
    if (!inside[i] && t.memory.data[i] != kGuard) return false;
  }
  return true;
}

template <class T>
struct Packed {
  Aligned<char> memory;
  Packed(const Packer<T>& packer, const T* weight, int32_t out, int32_t in) : memory(packer.bytes(out, in)) {
    const size_t bytes = packer.bytes(out, in);
    if (bytes % 64 != 0) {
      printf("FAIL packed size %zu of %d×%d is no multiple of 64\n", bytes, out, in);
      ++failures;
    }
    memset(memory.data, 0x55, bytes);
    packer.pack(weight, out, in, memory.data);
  }
};

// Runs all items at once into y, then one by one in random order, and compares. False if they differ.
template <class Args>
bool run_both_ways(const OpEntry<Args>& op, const Args& args, Tensor<float>& y) {
  const int64_t items = op.items(args);
  const size_t scratch_bytes = op.scratch(args);
  Aligned<char> scratch(scratch_bytes + 64);
  memset(scratch.data, 0xff, scratch_bytes);  // NaN, −1
  memset(scratch.data + scratch_bytes, 0x5a, 64);
  y.fill(kGuard);
  std::vector<int64_t> order(items);
  for (int64_t i = 0; i < items; ++i) order[i] = i;
  for (int64_t i = items - 1; i > 0; --i) std::swap(order[i], order[pick(0, i)]);
  for (int64_t i : order) op.run(args, Span{i, i + 1}, scratch.data);
  const std::vector<float> first(y.memory.data, y.memory.data + y.count);
  y.fill(kGuard);
  op.run(args, Span{0, items}, scratch.data);
  for (int i = 0; i < 64; ++i) {
    if (scratch.data[scratch_bytes + i] != 0x5a) return false;
  }
  return memcmp(first.data(), y.memory.data, y.count * sizeof(float)) == 0;
}

void fail(const char* what, int images, int rows, int n, int k, const char* why) {
  ++failures;
  if (failures <= 30) printf("FAIL %s images %d rows %d N %d K %d: %s\n", what, images, rows, n, k, why);
}

struct Case {
  int images, rows, n, k;
  int layout;  // 0 dense, 1 slices of wider tensors, 2 also gaps between images
  bool bias;
};

// The bound of a float32 sum of k products and a bias, added in any order.
double float_bound(double magnitude, int k) { return magnitude * (k + 1) * ldexp(1.0, -24); }

// One step of the sum as the kernels promise it: k = 0, 1, … in order, fused where the set has a fused multiply-add.
float step(float x, float w, float sum) {
#if defined(PTQ4VM_ISA_PORTABLE)
  return x * w + sum;
#else
  return fmaf(x, w, sum);
#endif
}

void check_f32(const Case& c) {
  const int from = c.layout ? 3 : 0, slack = c.layout ? 5 : 0, gap = c.layout == 2 ? 2 : 0;
  Tensor<float> x(c.images, c.rows, c.k, from, slack, 1, gap), y(c.images, c.rows, c.n, from, slack, 1, gap);
  x.fill(NAN);
  for (int i = 0; i < c.images; ++i) {
    for (int r = 0; r < c.rows; ++r) {
      for (int k = 0; k < c.k; ++k)
        x.view.row(i, r)[k] = static_cast<float>(uniform(-1, 1) * (pick(0, 99) == 0 ? 1000 : 1));
    }
  }
  std::vector<float> w(static_cast<size_t>(c.n) * c.k), bias(c.n);
  for (float& v : w) v = static_cast<float>(uniform(-1, 1));
  for (float& v : bias) v = static_cast<float>(uniform(-10, 10));
  const Packed<float> packed(isa::linear_packer(), w.data(), c.n, c.k);
  const LinearArgs args{x.read(), y.view, packed.memory.data, c.bias ? bias.data() : nullptr};
  if (!run_both_ways(isa::linear_entry(), args, y))
    return fail("linear", c.images, c.rows, c.n, c.k, "grouping changes the result");
  if (!guards_intact(y)) return fail("linear", c.images, c.rows, c.n, c.k, "wrote outside y");
  for (int i = 0; i < c.images; ++i) {
    for (int r = 0; r < c.rows; ++r) {
      for (int n = 0; n < c.n; ++n) {
        double sum = c.bias ? bias[n] : 0, magnitude = std::fabs(sum);
        float ordered = 0;
        for (int k = 0; k < c.k; ++k) {
          const float xk = x.view.row(i, r)[k], wk = w[static_cast<size_t>(n) * c.k + k];
          const double p = static_cast<double>(xk) * wk;
          sum += p;
          magnitude += std::fabs(p);
          ordered = step(xk, wk, ordered);
        }
        if (c.bias) ordered += bias[n];
        if (y.view.row(i, r)[n] != ordered) return fail("linear", c.images, c.rows, c.n, c.k, "not summed in order");
        const double error = std::fabs(y.view.row(i, r)[n] - sum);
        if (!(error <= float_bound(magnitude, c.k))) return fail("linear", c.images, c.rows, c.n, c.k, "inexact");
        worst = std::max(worst, error / magnitude);
      }
    }
  }
}

// extreme: 0 random; 1: codes 255, weights ±127 per channel; 2: codes 0 and 255, weights ±127 at random.
void check_i8(const Case& c, bool per_token, int extreme) {
  const int from = c.layout ? 64 : 0, slack = c.layout ? 70 : 0, gap = c.layout == 2 ? 2 : 0;
  Tensor<uint8_t> x(c.images, c.rows, c.k, from, slack, kCodeRowAlignment, gap);
  Tensor<float> y(c.images, c.rows, c.n, c.layout ? 3 : 0, c.layout ? 5 : 0, 1, gap);
  for (size_t i = 0; i < x.count; ++i) x.memory.data[i] = static_cast<uint8_t>(rng());  // padding is arbitrary
  for (int i = 0; i < c.images && extreme; ++i) {
    for (int r = 0; r < c.rows; ++r) {
      for (int k = 0; k < c.k; ++k) x.view.row(i, r)[k] = extreme == 1 || pick(0, 1) ? 255 : 0;
    }
  }
  std::vector<int8_t> w(static_cast<size_t>(c.n) * c.k);
  std::vector<int32_t> col_sum(c.n, 0);
  std::vector<float> weight_scale(c.n), bias(c.n);
  for (int n = 0; n < c.n; ++n) {
    for (int k = 0; k < c.k; ++k) {
      int v = static_cast<int>(pick(-127, 127));
      if (extreme == 1) v = n % 2 ? -127 : 127;
      if (extreme == 2) v = pick(0, 1) ? -127 : 127;
      w[static_cast<size_t>(n) * c.k + k] = static_cast<int8_t>(v);
      col_sum[n] += v;
    }
    weight_scale[n] = static_cast<float>(uniform(0.001, 0.1));
    bias[n] = static_cast<float>(uniform(-10, 10));
  }
  const int steps = per_token ? c.rows : 1;
  std::vector<float> act_scale(steps);
  std::vector<int32_t> act_zero(steps);
  for (int i = 0; i < steps; ++i) {
    act_scale[i] = static_cast<float>(uniform(0.001, 0.1));
    act_zero[i] = static_cast<int32_t>(pick(0, 3) == 0 ? 255 * pick(0, 1) : pick(0, 255));
  }
  const Packed<int8_t> packed(isa::linear_i8_packer(), w.data(), c.n, c.k);
  const LinearI8Args args{x.read(),
                          y.view,
                          packed.memory.data,
                          col_sum.data(),
                          weight_scale.data(),
                          act_scale.data(),
                          act_zero.data(),
                          c.bias ? bias.data() : nullptr,
                          per_token ? 1 : 0};
  if (!run_both_ways(isa::linear_i8_entry(), args, y))
    return fail("linear_i8", c.images, c.rows, c.n, c.k, "grouping changes the result");
  if (!guards_intact(y)) return fail("linear_i8", c.images, c.rows, c.n, c.k, "wrote outside y");
  for (int i = 0; i < c.images; ++i) {
    for (int r = 0; r < c.rows; ++r) {
      const int step = per_token ? r : 0;
      for (int n = 0; n < c.n; ++n) {
        int64_t sum = 0;
        const uint8_t* codes = x.view.row(i, r);
        const int8_t* weights = &w[static_cast<size_t>(n) * c.k];
        for (int k = 0; k < c.k; ++k) sum += static_cast<int64_t>(codes[k]) * weights[k];
        const int64_t difference = sum - static_cast<int64_t>(act_zero[step]) * col_sum[n];
        // The definition, from the exact sum; equal bit for bit.
        const float expected =
            (act_scale[step] * weight_scale[n]) * static_cast<float>(difference) + (c.bias ? bias[n] : 0.0f);
        if (y.view.row(i, r)[n] != expected)
          return fail("linear_i8", c.images, c.rows, c.n, c.k, "not equal to the definition");
      }
    }
  }
}

void check_patches(int images, int channels, int height, int width, int patch, int stride, int dim, int layout,
                   bool with_bias) {
  const int grid_h = (height - patch) / stride + 1, grid_w = (width - patch) / stride + 1,
            depth = channels * patch * patch;
  Tensor<float> x(images, channels, height * width, layout ? 3 : 0, layout ? 5 : 0, 1, layout ? 1 : 0);
  Tensor<float> y(images, grid_h * grid_w, dim, layout ? 3 : 0, layout ? 5 : 0, 1, layout ? 2 : 0);
  x.fill(NAN);
  for (int i = 0; i < images; ++i) {
    for (int c = 0; c < channels; ++c) {
      for (int p = 0; p < height * width; ++p) x.view.row(i, c)[p] = static_cast<float>(uniform(-2, 2));
    }
  }
  std::vector<float> w(static_cast<size_t>(dim) * depth), bias(dim);
  for (float& v : w) v = static_cast<float>(uniform(-1, 1));
  for (float& v : bias) v = static_cast<float>(uniform(-10, 10));
  const Packed<float> packed(isa::linear_packer(), w.data(), dim, depth);
  const PatchEmbedArgs args{
      x.read(), y.view, packed.memory.data, with_bias ? bias.data() : nullptr, height, width, patch, stride,
      grid_h,   grid_w};
  const char* what = "patch_embed";
  if (!run_both_ways(isa::patch_embed_entry(), args, y))
    return fail(what, images, grid_h * grid_w, dim, depth, "grouping changes the result");
  if (!guards_intact(y)) return fail(what, images, grid_h * grid_w, dim, depth, "wrote outside y");
  for (int i = 0; i < images; ++i) {
    for (int t = 0; t < grid_h * grid_w; ++t) {
      for (int o = 0; o < dim; ++o) {
        double sum = with_bias ? bias[o] : 0, magnitude = std::fabs(sum);
        float ordered = 0;
        for (int c = 0; c < channels; ++c) {
          for (int py = 0; py < patch; ++py) {
            for (int px = 0; px < patch; ++px) {
              const int at = (t / grid_w * stride + py) * width + t % grid_w * stride + px;
              const float xk = x.view.row(i, c)[at],
                          wk = w[((static_cast<size_t>(o) * channels + c) * patch + py) * patch + px];
              const double p = static_cast<double>(xk) * wk;
              sum += p;
              magnitude += std::fabs(p);
              ordered = step(xk, wk, ordered);
            }
          }
        }
        if (with_bias) ordered += bias[o];
        if (y.view.row(i, t)[o] != ordered)
          return fail(what, images, grid_h * grid_w, dim, depth, "not summed in order");
        const double error = std::fabs(y.view.row(i, t)[o] - sum);
        if (!(error <= float_bound(magnitude, depth)))
          return fail(what, images, grid_h * grid_w, dim, depth, "inexact");
        worst = std::max(worst, error / magnitude);
      }
    }
  }
}

int check(uint64_t seed) {
  printf("%s: seed %" PRIu64 "\n", NAME(PTQ4VM_ISA), seed);
  rng.seed(seed);
  const int ms[] = {1, 2, 3, 5, 16, 17, 63, 197}, ns[] = {1, 7, 12, 44, 48, 80, 384, 768};
  const int ks[] = {1, 3, 4, 12, 48, 63, 64, 192, 384, 1536, 3072};
  int cases = 0;
  for (int m : ms) {
    for (int n : ns) {
      for (int k : ks) {
        // The whole grid up to a size; of the large ones a random eighth, so that the program also runs under
        // emulation.
        if (static_cast<int64_t>(m) * n * k > 2'000'000 && pick(0, 7) != 0) continue;
        const Case c{1, m, n, k, static_cast<int>(pick(0, 2)), pick(0, 3) != 0};
        check_f32(c);
        check_i8(c, pick(0, 1) != 0, static_cast<int>(pick(0, 2)));
        cases += 2;
      }
    }
  }
  for (int i = 0; i < 200; ++i, cases += 2) {
    const Case c{static_cast<int>(pick(1, 9)),   static_cast<int>(pick(1, 40)), static_cast<int>(pick(1, 130)),
                 static_cast<int>(pick(1, 200)), static_cast<int>(pick(0, 2)),  pick(0, 1) != 0};
    check_f32(c);
    check_i8(c, pick(0, 1) != 0, 0);
  }
  for (int k : {3072, 4096, 20000, 65536}) {
    for (int extreme = 1; extreme <= 2; ++extreme, ++cases) check_i8({2, 5, 50, k, 1, true}, true, extreme);
  }
  check_f32({0, 5, 20, 30, 0, true});
  check_i8({0, 5, 20, 30, 0, true}, true, 0);
  // Many items: more chunks than one, panels in groups.
  check_f32({3, 197, 100, 40, 2, true});
  check_i8({3, 197, 100, 40, 2, true}, true, 0);
  check_patches(2, 3, 32, 32, 16, 16, 48, 0, true);
  check_patches(2, 3, 32, 40, 16, 8, 50, 1, true);
  check_patches(3, 1, 28, 28, 5, 3, 7, 1, false);
  check_patches(1, 3, 14, 14, 2, 2, 96, 0, true);
  check_patches(1, 3, 112, 112, 16, 8, 192, 1, true);
  check_patches(1, 2, 9, 7, 1, 1, 20, 0, false);
  cases += 10;
  printf("%s: %d cases, %d failures; float32: largest error %.2g of Σ|x·w| (2⁻²⁴ = %.2g)\n", NAME(PTQ4VM_ISA), cases,
         failures, worst, ldexp(1.0, -24));
  return failures == 0 ? 0 : 1;
}

template <class Args>
double best_seconds(const OpEntry<Args>& op, const Args& args) {
  Aligned<char> scratch(op.scratch(args) + 64);
  const Span all{0, op.items(args)};
  double best = 1e9;
  const auto begin = std::chrono::steady_clock::now();
  for (int i = 0; i < 5 || std::chrono::steady_clock::now() - begin < std::chrono::milliseconds(300); ++i) {
    const auto t0 = std::chrono::steady_clock::now();
    op.run(args, all, scratch.data);
    best = std::min(best, std::chrono::duration<double>(std::chrono::steady_clock::now() - t0).count());
  }
  return best;
}

int speed() {
  const int shapes[][3] = {{197, 192, 768},  {197, 384, 192},   {197, 384, 44},    {197, 12, 384},  {197, 384, 768},
                           {197, 768, 384},  {197, 768, 3072},  {197, 1536, 768},  {197, 1536, 80}, {197, 48, 1536},
                           {1576, 192, 768}, {1576, 768, 3072}, {1576, 1536, 768}, {1, 192, 1000},  {1, 768, 1000}};
  printf("%s, one core, best of many\n%-20s %14s %8s %14s %8s\n", NAME(PTQ4VM_ISA), "M K×N", "f32 GFLOP/s", "items",
         "i8 GOP/s", "items");
  for (const auto& s : shapes) {
    const int m = s[0], k = s[1], n = s[2];
    Tensor<float> x(1, m, k, 0, 0, 16, 0), y(1, m, n, 0, 0, 16, 0);
    Tensor<uint8_t> q(1, m, k, 0, 0, kCodeRowAlignment, 0);
    x.fill(0.5f);
    q.fill(3);
    std::vector<float> w(static_cast<size_t>(n) * k, 0.25f), ones(std::max(n, m), 1.0f);
    std::vector<int8_t> wq(w.size(), 7);
    std::vector<int32_t> sums(n, 7 * k), zeros(m, 3);
    const Packed<float> packed(isa::linear_packer(), w.data(), n, k);
    const Packed<int8_t> packed_i8(isa::linear_i8_packer(), wq.data(), n, k);
    const LinearArgs f{x.read(), y.view, packed.memory.data, ones.data()};
    const LinearI8Args i{
        q.read(), y.view, packed_i8.memory.data, sums.data(), ones.data(), ones.data(), zeros.data(), ones.data(), 1};
    const double ops = 2.0 * m * k * n * 1e-9;
    char name[40];
    snprintf(name, sizeof name, "M%d %dx%d", m, k, n);
    printf("%-20s %14.0f %8" PRId64 " %14.0f %8" PRId64 "\n", name, ops / best_seconds(isa::linear_entry(), f),
           isa::linear_entry().items(f), ops / best_seconds(isa::linear_i8_entry(), i),
           isa::linear_i8_entry().items(i));
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc > 1 && strcmp(argv[1], "speed") == 0) return speed();
  const uint64_t seed = argc > 1 ? strtoull(argv[1], nullptr, 10)
                                 : static_cast<uint64_t>(std::chrono::steady_clock::now().time_since_epoch().count());
  return check(seed);
}
