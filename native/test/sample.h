// What the test programs of calibration and of the token ops share: a seeded generator, a count of failures, running an
// op item by item, and a strided activation tensor.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "ptq4vm/ops.h"

#define NAME_OF(x) #x
#define NAME(x) NAME_OF(x)

namespace {

using namespace ptq4vm;

std::mt19937_64 rng;
int failures = 0;

inline double uniform(double lo, double hi) { return std::uniform_real_distribution<double>(lo, hi)(rng); }
inline double normal() { return std::normal_distribution<double>()(rng); }
inline int pick(int lo, int hi) { return std::uniform_int_distribution<int>(lo, hi)(rng); }

inline void check(bool good, const std::string& what) {
  if (good) return;
  if (++failures <= 20) std::printf("FAIL %s\n", what.c_str());
}

inline bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0);
}

// As same_bits, any NaN equal to any other.
inline bool same_values(const std::vector<float>& a, const std::vector<float>& b) {
  for (size_t i = 0; i < a.size(); ++i) {
    if (!(a[i] == b[i] || (std::isnan(a[i]) && std::isnan(b[i])))) return false;
  }
  return a.size() == b.size();
}

template <class Args>
void run_items(const OpEntry<Args>& entry, const Args& args, bool backwards) {
  std::vector<float> memory(entry.scratch(args) / sizeof(float) + 32, NAN);
  const uintptr_t p = reinterpret_cast<uintptr_t>(memory.data());
  void* scratch = reinterpret_cast<void*>((p + 63) / 64 * 64);
  const int64_t items = entry.items(args);
  if (!backwards) return entry.run(args, {0, items}, scratch);
  for (int64_t i = items; i-- > 0;) entry.run(args, {i, i + 1}, scratch);
}

// Activations as a channel slice of a wider tensor whose other values are NaN.
struct Sample {
  std::vector<float> memory;
  View<const float> x;
  std::vector<float> smooth;
  const float* divisor;

  Sample(int images, int rows, int channels) {
    const int64_t row_stride = channels + 5, image_stride = (rows + 1) * row_stride;
    memory.assign(static_cast<size_t>(images * image_stride + 8), NAN);
    x = {memory.data() + 3, image_stride, row_stride, images, rows, channels};
    divisor = nullptr;
  }
  float& at(int image, int row, int k) { return const_cast<float*>(x.row(image, row))[k]; }
  template <class Value>
  void fill(Value value) {
    for (int i = 0; i < x.images; ++i) {
      for (int r = 0; r < x.rows; ++r) {
        for (int k = 0; k < x.channels; ++k) at(i, r, k) = static_cast<float>(value(i, r, k));
      }
    }
  }
  void add_smooth() {
    for (int k = 0; k < x.channels; ++k) smooth.push_back(static_cast<float>(uniform(0.05, 8)));
    divisor = smooth.data();
  }
  // The values that are searched, of one row or (row < 0) of the whole tensor in the order of lines.
  std::vector<float> values(int row) {
    std::vector<float> v;
    for (int i = 0; i < x.images; ++i) {
      for (int r = row < 0 ? 0 : row; r < (row < 0 ? x.rows : row + 1); ++r) {
        for (int k = 0; k < x.channels; ++k) v.push_back(divisor ? at(i, r, k) / divisor[k] : at(i, r, k));
      }
    }
    return v;
  }
};

inline std::vector<float> random_floats(size_t n) {
  std::vector<float> v(n);
  for (float& x : v) x = static_cast<float>(normal());
  return v;
}

}  // namespace
