// Tensors for the native tests: views on slices of wider memory whose surroundings are watched.
//
// What lies around an input slice is NaN, so that reading beside it shows in the result; what lies around an output
// slice is a guard value that must survive.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <functional>
#include <random>
#include <vector>

#include "ptq4vm/arith.h"
#include "ptq4vm/ops.h"

namespace kernel_test {

using namespace ptq4vm;

inline std::mt19937_64 rng;
inline int failures = 0;

inline double uniform(double lo, double hi) { return std::uniform_real_distribution<double>(lo, hi)(rng); }
inline double normal() { return std::normal_distribution<double>()(rng); }
inline int pick(int lo, int hi) { return std::uniform_int_distribution<int>(lo, hi)(rng); }
inline bool coin() { return pick(0, 1) == 1; }

template <class T>
T guard();
template <>
inline float guard<float>() {
  return -12345.0f;
}
template <>
inline uint8_t guard<uint8_t>() {
  return 0xA5;
}

template <class T>
struct Tensor {
  std::vector<char> bytes;
  T* memory = nullptr;  // 64-byte aligned
  size_t count = 0;
  View<T> view = {};

  Tensor() = default;
  Tensor(const Tensor&) = delete;
  Tensor& operator=(const Tensor&) = delete;

  // u8 rows have the stride that the engine promises (kCodeRowAlignment).
  void shape(int images, int rows, int channels) {
    const int from = pick(0, 3), slack = pick(0, 9);
    const int64_t row = round_up(from + channels + slack, sizeof(T) == 1 ? kCodeRowAlignment : 1);
    const int64_t image = row * (rows + pick(0, 1));
    count = static_cast<size_t>(row + image * images) + 64;  // a row of guard before row 0, too
    bytes.assign(count * sizeof(T) + 64, 0);
    memory = reinterpret_cast<T*>((reinterpret_cast<uintptr_t>(bytes.data()) + 63) / 64 * 64);
    view = {memory + row + from, image, row, images, rows, channels};
  }
  void fill(T value) {
    for (size_t i = 0; i < count; ++i) memory[i] = value;
  }
  // Everything NaN, then the slice from `next`.
  void set(const std::function<double()>& next) {
    fill(static_cast<T>(NAN));
    for (int i = 0; i < view.images; ++i) {
      for (int r = 0; r < view.rows; ++r) {
        for (int k = 0; k < view.channels; ++k) view.row(i, r)[k] = static_cast<T>(next());
      }
    }
  }
  View<const T> read() const {
    return {view.data, view.image_stride, view.row_stride, view.images, view.rows, view.channels};
  }
  bool guards_intact() const {
    std::vector<char> inside(count, 0);
    for (int i = 0; i < view.images; ++i) {
      for (int r = 0; r < view.rows; ++r) memset(&inside[view.row(i, r) - memory], 1, view.channels);
    }
    for (size_t i = 0; i < count; ++i) {
      if (!inside[i] && memory[i] != guard<T>()) return false;
    }
    return true;
  }
  std::vector<T> all() const { return std::vector<T>(memory, memory + count); }
};

inline std::vector<float> numbers(size_t n, const std::function<double()>& next) {
  std::vector<float> v(n);
  for (float& x : v) x = static_cast<float>(next());
  return v;
}

// A random quantizer for an output of `rows` by `channels`, and the memory behind it.
struct Quantizer {
  Tensor<uint8_t> q;
  std::vector<float> smooth, act;
  std::vector<int32_t> zero;
  QuantizeOut out = {};

  void shape(int images, int rows, int channels, double typical) {
    q.shape(images, rows, channels);
    const int qmax = (1 << (2 * pick(2, 4))) - 1;
    const bool per_token = coin();
    const size_t steps = per_token ? rows : 1;
    smooth = coin() ? numbers(channels, [] { return uniform(0.5, 2); }) : std::vector<float>();
    act = numbers(steps, [&] { return qmax / (6 * typical) * uniform(0.5, 2); });
    zero.resize(steps);
    for (int32_t& z : zero) z = pick(0, qmax);
    out = {q.view, smooth.empty() ? nullptr : smooth.data(), act.data(), zero.data(), per_token ? 1 : 0, qmax};
  }
};

inline void fail(const char* what, const char* shape, const char* why) {
  ++failures;
  if (failures <= 30) printf("FAIL %s, %s: %s\n", what, shape, why);
}

// Runs the items one by one in random order, calls `between`, then runs all at once. False where the op wrote beyond
// its scratch.
template <class Args>
bool run_both_ways(const OpEntry<Args>& op, const Args& args, const std::function<void()>& between) {
  const int64_t items = op.items(args);
  const size_t bytes = op.scratch(args);
  std::vector<char> memory(bytes + 192, 0x5A);
  char* scratch = reinterpret_cast<char*>((reinterpret_cast<uintptr_t>(memory.data()) + 63) / 64 * 64);
  memset(scratch, 0xFF, bytes);  // NaN
  std::vector<int64_t> order(items);
  for (int64_t i = 0; i < items; ++i) order[i] = i;
  std::shuffle(order.begin(), order.end(), rng);
  for (int64_t i : order) op.run(args, Span{i, i + 1}, scratch);
  between();
  op.run(args, Span{0, items}, scratch);
  for (int i = 0; i < 64; ++i) {
    if (scratch[bytes + i] != 0x5A) return false;
  }
  return true;
}

constexpr int kChannels[] = {1, 7, 16, 17, 31, 64, 384};
constexpr int kRows[] = {1, 2, 17, 197};

inline double silu(double v) { return v / (1 + std::exp(-v)); }

// Scan order: 0 absent, 1 reversed, 2 random, 3 random with some entries −1.
inline std::vector<int32_t> make_table(int kind, int rows) {
  std::vector<int32_t> table(kind == 0 ? 0 : rows);
  for (size_t t = 0; t < table.size(); ++t) table[t] = rows - 1 - static_cast<int32_t>(t);
  if (kind >= 2) std::shuffle(table.begin(), table.end(), rng);
  if (kind == 3) {
    for (int32_t& row : table) row = pick(0, 4) == 0 ? -1 : row;
  }
  return table;
}
inline const int32_t* pointer(const std::vector<int32_t>& table) { return table.empty() ? nullptr : table.data(); }

// Double-precision results beside the size of what was added up, which is what float32 errors are relative to.
struct Expected {
  std::vector<double> value, magnitude;
  std::vector<char> written;
  Expected(int images, int rows, int channels)
      : value(size_t(1) * images * rows * channels), magnitude(value.size()), written(value.size(), 1) {}
};

inline double compare(const char* what, const char* shape, const Tensor<float>& y, const Expected& e, double bound) {
  double worst = 0;
  size_t i = 0;
  for (int image = 0; image < y.view.images; ++image) {
    for (int row = 0; row < y.view.rows; ++row) {
      for (int k = 0; k < y.view.channels; ++k, ++i) {
        const float got = y.view.row(image, row)[k];
        if (!e.written[i]) {
          if (got != guard<float>()) fail(what, shape, "wrote a row that is not in the table");
          continue;
        }
        const double error = std::fabs(got - e.value[i]) / (e.magnitude[i] + 1e-35);
        if (!(error <= worst)) worst = error;
      }
    }
  }
  char why[80];
  snprintf(why, sizeof why, "error %.3g of the magnitude, limit %.3g", worst, bound);
  if (!(worst <= bound)) fail(what, shape, why);
  return worst;
}

// Codes are those of the float output; rows that are not written keep their guard.
inline void compare_codes(const char* what, const char* shape, const Tensor<float>& y, const Quantizer& z,
                          const Expected& e) {
  size_t i = 0;
  for (int image = 0; image < y.view.images; ++image) {
    for (int row = 0; row < y.view.rows; ++row) {
      for (int k = 0; k < y.view.channels; ++k, ++i) {
        const int token = z.out.per_token ? row : 0;
        const int wanted = e.written[i]
                               ? arith::quantize_code(y.view.row(image, row)[k], z.smooth.empty() ? 1 : z.smooth[k],
                                                      z.act[token], z.zero[token], z.out.qmax)
                               : guard<uint8_t>();
        if (z.q.view.row(image, row)[k] != wanted) {
          fail(what, shape, "codes are not those of the float output");
          return;
        }
      }
    }
  }
}

// Runs the op into y and codes, both ways, then into each alone; `args` has members y and out.
template <class Args>
void run_outputs(const char* what, const char* shape, const OpEntry<Args>& op, Args args, Tensor<float>& y,
                 Quantizer& z) {
  const auto clear = [&] {
    y.fill(guard<float>());
    z.q.fill(guard<uint8_t>());
  };
  std::vector<float> first_y;
  std::vector<uint8_t> first_q;
  args.y = y.view;
  args.out = z.out;
  clear();
  const bool inside = run_both_ways<Args>(op, args, [&] {
    first_y = y.all();
    first_q = z.q.all();
    clear();
  });
  if (!inside) fail(what, shape, "wrote beyond its scratch memory");
  const std::vector<float> both_y = y.all();
  const std::vector<uint8_t> both_q = z.q.all();
  if (memcmp(first_y.data(), both_y.data(), both_y.size() * 4) != 0 || first_q != both_q)
    fail(what, shape, "items depend on their grouping");
  if (!y.guards_intact() || !z.q.guards_intact()) fail(what, shape, "wrote outside its output");

  clear();
  args.y = {};
  run_both_ways<Args>(op, args, [] {});
  if (z.q.all() != both_q) fail(what, shape, "codes depend on whether y is wanted");
  clear();
  args.y = y.view;
  args.out = {};
  run_both_ways<Args>(op, args, [] {});
  if (memcmp(y.memory, both_y.data(), both_y.size() * 4) != 0)
    fail(what, shape, "y depends on whether codes are wanted");
  args.out = z.out;
  clear();
  run_both_ways<Args>(op, args, [] {});  // leaves both for the comparisons
}

inline void expect_nan(const char* what, const Tensor<float>& y, const Quantizer& z) {
  for (int r = 0; r < y.view.rows; ++r) {
    for (int k = 0; k < y.view.channels; ++k) {
      if (!std::isnan(y.view.row(0, r)[k])) fail(what, "NaN", "lost");
      if (z.q.view.row(0, r)[k] != 0) fail(what, "NaN", "its code is not 0");
    }
  }
}

}  // namespace kernel_test
