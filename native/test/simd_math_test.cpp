// Self-checking program for the words of simd.h and the functions of math.h, of the instruction set it is compiled for.
// Prints the largest relative errors against double; exit status 1 where one is larger than math.h says.
#include <cmath>
#include <cstdio>
#include <cstring>
#include <random>

#include "simd/math.h"
#include "simd/rows.h"

using namespace ptq4vm;
using namespace ptq4vm::cpu::PTQ4VM_ISA;
namespace isa = ptq4vm::cpu::PTQ4VM_ISA;

#define NAME_OF(x) #x
#define NAME(x) NAME_OF(x)

namespace {

int failures = 0;
constexpr int W = vf::W;

void check(bool good, const char* what, double got, double wanted) {
  if (good) return;
  if (++failures <= 30) printf("FAIL %s: got %.9g, expected %.9g\n", what, got, wanted);
}

bool same_bits(float a, float b) { return memcmp(&a, &b, sizeof a) == 0; }

template <class F>
float lane(F f, float x) {
  float y[W];
  store(y, f(set1(x)));
  for (int i = 1; i < W; ++i) check(same_bits(y[i], y[0]), "lanes differ", y[i], y[0]);
  return y[0];
}

// Every `stride`-th float of [lo, hi] with one sign: the bits of such floats are consecutive integers.
template <class F, class G>
double worst_between(F f, G exact, float lo, float hi, double* at) {
  int32_t from, to;
  memcpy(&from, &lo, 4);
  memcpy(&to, &hi, 4);
  if (from > to) {
    const int32_t t = from;
    from = to;
    to = t;
  }
  const int64_t points = 1 << 19;
  const int64_t stride = (static_cast<int64_t>(to) - from) / points + 1;
  double worst = 0;
  float x[W], y[W];
  for (int64_t b = from; b <= to; b += stride * W) {
    for (int i = 0; i < W; ++i) {
      const int64_t next = b + i * stride;
      const int32_t bits = static_cast<int32_t>(next <= to ? next : to);
      memcpy(&x[i], &bits, 4);
    }
    store(y, f(load(x)));
    for (int i = 0; i < W; ++i) {
      const double wanted = exact(static_cast<double>(x[i]));
      const double error = wanted == 0 ? std::fabs(y[i]) : std::fabs(y[i] - wanted) / std::fabs(wanted);
      if (!(error <= worst)) {
        worst = error;
        *at = x[i];
      }
    }
  }
  return worst;
}

struct Range {
  float lo, hi;  // of one sign
};

template <class F, class G>
void probe(const char* name, F f, G exact, double bound, const Range* ranges, int count) {
  double worst = 0, at = 0;
  for (int i = 0; i < count; ++i) {
    double where = 0;
    const double error = worst_between(f, exact, ranges[i].lo, ranges[i].hi, &where);
    if (!(error <= worst)) {
      worst = error;
      at = where;
    }
  }
  printf("  %-10s %.2e at %-12g (limit %.0e)\n", name, worst, at, bound);
  check(worst <= bound, name, worst, bound);
}

// Limits are those that math.h states.
void accuracy() {
  const Range exponent[] = {{1e-30f, 88.7f}, {-1e-30f, -86.9f}};
  probe(
      "exp", [](vf x) { return isa::exp(x); }, [](double x) { return std::exp(x); }, 2e-7, exponent, 2);
  const Range power[] = {{-1e-30f, -125.0f}};
  probe(
      "exp2_decay", [](vf x) { return exp2_decay(x, set1(0.5f)); }, [](double x) { return std::exp2(0.5 * x); }, 2.5e-7,
      power, 1);
  const Range near_one[] = {{-1e-30f, -0.03f}};
  probe(
      "  near 0", [](vf x) { return exp2_decay(x, set1(1.0f)); }, [](double x) { return std::exp2(x); }, 1e-7, near_one,
      1);
  const Range plus[] = {{1e-30f, 1e30f}, {1.0f, 25.0f}, {-1e-30f, -86.9f}, {-1.0f, -25.0f}};
  probe(
      "softplus", [](vf x) { return softplus(x); }, [](double x) { return x > 20 ? x : std::log1p(std::exp(x)); }, 3e-7,
      plus, 4);
  const Range gate[] = {{1e-30f, 1e30f}, {-1e-30f, -86.0f}, {-1.0f, -25.0f}};
  probe(
      "sigmoid", [](vf x) { return sigmoid(x); }, [](double x) { return 1 / (1 + std::exp(-x)); }, 3e-7, gate, 3);
  probe(
      "silu", [](vf x) { return silu(x); }, [](double x) { return x / (1 + std::exp(-x)); }, 3e-7, gate, 3);
}

void special_values() {
  const float inf = INFINITY;
  struct {
    const char* name;
    float got, wanted;
  } exactly[] = {
      {"exp(0)", lane(isa::exp, 0.0f), 1.0f},
      {"exp(inf)", lane(isa::exp, inf), inf},
      {"exp(-inf)", lane(isa::exp, -inf), 0.0f},
      {"exp(-200)", lane(isa::exp, -200.0f), 0.0f},
      {"exp(100)", lane(isa::exp, 100.0f), inf},
      {"softplus(21)", lane(softplus, 21.0f), 21.0f},
      {"softplus(inf)", lane(softplus, inf), inf},
      {"softplus(-inf)", lane(softplus, -inf), 0.0f},
      {"sigmoid(-inf)", lane(sigmoid, -inf), 0.0f},
      {"sigmoid(inf)", lane(sigmoid, inf), 1.0f},
      {"silu(inf)", lane(silu, inf), inf},
      {"decay(0)", lane([](vf x) { return exp2_decay(x, set1(-3.0f)); }, 0.0f), 1.0f},
      {"decay(-1)", lane([](vf x) { return exp2_decay(x, set1(1.0f)); }, -1.0f), 0.5f},
      {"decay(1e38, -1e38)", lane([](vf x) { return exp2_decay(x, set1(-1e38f)); }, 1e38f), 0.0f},
  };
  for (const auto& e : exactly) check(e.got == e.wanted, e.name, e.got, e.wanted);

  vf (*const functions[])(vf) = {isa::exp, softplus, sigmoid, silu, isa::rint, isa::abs};
  for (auto f : functions) check(std::isnan(lane(f, NAN)), "NaN", lane(f, NAN), NAN);
  check(std::isnan(lane([](vf x) { return exp2_decay(x, set1(-1.0f)); }, NAN)), "decay(NaN)", 0, NAN);
}

// Loads and stores of n lanes touch n elements; n = W is allowed.
void partial_rows() {
  for (int n = 0; n <= W; ++n) {
    float in[W], out[W + 2];
    uint8_t codes[W + 2];
    int32_t integers[W];
    for (int i = 0; i < W; ++i) {
      in[i] = 1.5f + i;
      integers[i] = 250 - i;
    }
    store(out, load_n(in, n));
    for (int i = 0; i < W; ++i) check(out[i] == (i < n ? in[i] : 0.0f), "load_n", out[i], in[i]);
    for (float& x : out) x = -7.0f;
    store_n(out, load(in), n);
    for (int i = 0; i < W + 2; ++i) check(out[i] == (i < n ? in[i] : -7.0f), "store_n", out[i], -7);
    memset(codes, 9, sizeof codes);
    store_u8_n(codes, load_i(integers), n);
    for (int i = 0; i < W + 2; ++i) check(codes[i] == (i < n ? 250 - i : 9), "store_u8_n", codes[i], 9);
  }
  uint8_t codes[W + 1];
  codes[W] = 9;
  for (int base : {0, 1, 127, 128, 240}) {
    int32_t integers[W];
    for (int i = 0; i < W; ++i) integers[i] = base + i;
    store_u8(codes, load_i(integers));
    for (int i = 0; i < W; ++i) check(codes[i] == base + i, "store_u8", codes[i], base + i);
  }
  check(codes[W] == 9, "store_u8 wrote past its lanes", codes[W], 9);
}

// Words against plain C, on random numbers and on the awkward ones.
void words() {
  std::mt19937 rng(7);
  const float awkward[] = {0.0f,       -0.0f,      0.5f,        -0.5f,      1.5f,  2.5f,   -2.5f,
                           8388607.5f, 8388609.0f, -8388607.5f, 4194304.5f, 1e30f, -1e-30f};
  constexpr int kAwkward = sizeof awkward / sizeof awkward[0];
  for (int round = 0; round < 2000; ++round) {
    float a[W], b[W], c[W], got[W];
    for (int i = 0; i < W; ++i) {
      a[i] = round % 2 ? awkward[rng() % kAwkward] : std::uniform_real_distribution<float>(-300, 300)(rng);
      b[i] = round % 3 ? a[i] : std::uniform_real_distribution<float>(-300, 300)(rng);
      c[i] = std::uniform_real_distribution<float>(-300, 300)(rng);
      if (round % 50 == 0) (i % 2 ? a : b)[i] = NAN;
    }
    const vf va = load(a), vb = load(b), vc = load(c);
    store(got, isa::rint(va));
    for (int i = 0; i < W; ++i) check(std::isnan(a[i]) || same_bits(got[i], rintf(a[i])), "rint", got[i], rintf(a[i]));
    store(got, isa::min(va, vb));
    for (int i = 0; i < W; ++i)
      check(same_bits(got[i], a[i] < b[i] ? a[i] : b[i]) || got[i] == b[i], "min", got[i], b[i]);
    store(got, isa::max(va, vb));
    for (int i = 0; i < W; ++i)
      check(same_bits(got[i], a[i] > b[i] ? a[i] : b[i]) || got[i] == b[i], "max", got[i], b[i]);
    store(got, clamp(va, set1(-100.0f), set1(100.0f)));
    for (int i = 0; i < W; ++i) check(got[i] == arith::clampf(a[i], -100, 100), "clamp", got[i], a[i]);
    store(got, select_gt(va, vb, vc, va));
    for (int i = 0; i < W; ++i)
      check(std::isnan(got[i]) || got[i] == (a[i] > b[i] ? c[i] : a[i]), "select_gt", got[i], c[i]);
    store(got, isa::sqrt(isa::abs(vc)));
    for (int i = 0; i < W; ++i) check(got[i] == sqrtf(fabsf(c[i])), "sqrt(abs)", got[i], c[i]);
    int32_t n[W], halves[W];
    store_i(n, to_int(vc));
    store_i(halves, sar<1>(shl<3>(to_int(vc)) - set1_i(5) * to_int(vc)) + set1_i(1));
    for (int i = 0; i < W; ++i) {
      const int32_t r = static_cast<int32_t>(rintf(c[i]));
      check(n[i] == r, "to_int", n[i], r);
      const int32_t wanted = static_cast<int32_t>(std::floor((8 * r - 5 * r) / 2.0)) + 1;
      check(halves[i] == wanted, "integer words", halves[i], wanted);
    }
    double sum = 0, largest = c[0], smallest = c[0];
    for (int i = 0; i < W; ++i) {
      sum += c[i];
      largest = std::fmax(largest, c[i]);
      smallest = std::fmin(smallest, c[i]);
    }
    check(std::fabs(reduce_add(vc) - sum) <= 1e-3, "reduce_add", reduce_add(vc), sum);
    check(reduce_max(vc) == largest, "reduce_max", reduce_max(vc), largest);
    check(reduce_min(vc) == smallest, "reduce_min", reduce_min(vc), smallest);
  }
  for (int e = -126; e <= 127; ++e) {
    const float got = lane([e](vf x) { return scale2(x, set1(static_cast<float>(e))); }, 1.0f);
    check(got == ldexpf(1.0f, e), "scale2", got, ldexp(1.0, e));
  }
  check(lane([](vf x) { return scale2(x, set1(-400.0f)); }, 1.0f) == 0.0f, "scale2 flushes", 1, 0);
}

}  // namespace

int main() {
  printf("%s: %d lanes; largest relative errors\n", NAME(PTQ4VM_ISA), W);
  accuracy();
  special_values();
  partial_rows();
  words();
  printf("%s\n", failures == 0 ? "ok" : "FAILED");
  return failures == 0 ? 0 : 1;
}
