// simd.h for any processor: 4 lanes.
//
// GCC and Clang have a vector type that they map to whatever the baseline offers (SSE2, NEON, none); other
// compilers get the same operators as loops over an array. The baseline may have neither FMA nor a rounding
// instruction, and a library call per lane would cost more than all the rest: fma rounds twice here, and rint
// is arithmetic.
#pragma once
#include <cstring>

namespace ptq4vm {
namespace cpu {
namespace PTQ4VM_ISA {

#if defined(__GNUC__)

typedef float lanes_f __attribute__((vector_size(16)));
typedef int32_t lanes_i __attribute__((vector_size(16)));
typedef uint32_t lanes_u __attribute__((vector_size(16)));

// Truncation; the numbers are in the range of int32.
static inline lanes_i truncate(lanes_f a) { return __builtin_convertvector(a, lanes_i); }
static inline lanes_f widen(lanes_i a) { return __builtin_convertvector(a, lanes_f); }

#else

template <class T>
struct Lanes {
  T e[4];
  T& operator[](int i) { return e[i]; }
  T operator[](int i) const { return e[i]; }
};
using lanes_f = Lanes<float>;
using lanes_i = Lanes<int32_t>;
using lanes_u = Lanes<uint32_t>;

#define PTQ4VM_LANES(result, name, operands, expression) \
  static inline result name operands {                   \
    result r;                                            \
    for (int i = 0; i < 4; ++i) r[i] = (expression);     \
    return r;                                            \
  }
PTQ4VM_LANES(lanes_f, operator+, (lanes_f a, lanes_f b), a[i] + b[i])
PTQ4VM_LANES(lanes_f, operator-, (lanes_f a, lanes_f b), a[i] - b[i])
PTQ4VM_LANES(lanes_f, operator*, (lanes_f a, lanes_f b), a[i] * b[i])
PTQ4VM_LANES(lanes_f, operator/, (lanes_f a, lanes_f b), a[i] / b[i])
PTQ4VM_LANES(lanes_i, operator>, (lanes_f a, lanes_f b), a[i] > b[i] ? -1 : 0)
PTQ4VM_LANES(lanes_u, operator+, (lanes_u a, lanes_u b), a[i] + b[i])
PTQ4VM_LANES(lanes_u, operator-, (lanes_u a, lanes_u b), a[i] - b[i])
PTQ4VM_LANES(lanes_u, operator*, (lanes_u a, lanes_u b), a[i] * b[i])
PTQ4VM_LANES(lanes_u, operator<<, (lanes_u a, int n), a[i] << n)
PTQ4VM_LANES(lanes_i, operator>>, (lanes_i a, int n), a[i] >> n)
PTQ4VM_LANES(lanes_i, operator&, (lanes_i a, lanes_i b), a[i] & b[i])
PTQ4VM_LANES(lanes_i, operator|, (lanes_i a, lanes_i b), a[i] | b[i])
PTQ4VM_LANES(lanes_i, operator~, (lanes_i a), ~a[i])
PTQ4VM_LANES(lanes_i, truncate, (lanes_f a), static_cast<int32_t>(a[i]))
PTQ4VM_LANES(lanes_f, widen, (lanes_i a), static_cast<float>(a[i]))
#undef PTQ4VM_LANES

#endif

struct vf {
  static constexpr int W = 4;
  lanes_f v;
};

struct vi {
  lanes_i v;
};

template <class To, class From>
static inline To bit_copy(From a) {
  static_assert(sizeof(To) == sizeof(From), "a change of type, not of size");
  To r;
  memcpy(&r, &a, sizeof r);
  return r;
}
static inline vi bits_of(vf a) { return {bit_copy<lanes_i>(a.v)}; }
static inline vf from_bits(vi a) { return {bit_copy<lanes_f>(a.v)}; }
// Integer arithmetic is unsigned: it wraps around as in the other sets.
static inline lanes_u u32(vi a) { return bit_copy<lanes_u>(a.v); }
static inline vi s32(lanes_u a) { return {bit_copy<lanes_i>(a)}; }

static inline vf set1(float x) { return {lanes_f{x, x, x, x}}; }
static inline vf zero() { return set1(0.0f); }
static inline vf load(const float* p) {
  vf r;
  memcpy(&r.v, p, sizeof r.v);
  return r;
}
static inline vf load_n(const float* p, int n) {
  float lane[4] = {0.0f, 0.0f, 0.0f, 0.0f};
  for (int i = 0; i < n; ++i) lane[i] = p[i];
  return load(lane);
}
static inline void store(float* p, vf a) { memcpy(p, &a.v, sizeof a.v); }
static inline void store_n(float* p, vf a, int n) {
  for (int i = 0; i < n; ++i) p[i] = a.v[i];
}

static inline vf operator+(vf a, vf b) { return {a.v + b.v}; }
static inline vf operator-(vf a, vf b) { return {a.v - b.v}; }
static inline vf operator*(vf a, vf b) { return {a.v * b.v}; }
static inline vf operator/(vf a, vf b) { return {a.v / b.v}; }
static inline vf fma(vf a, vf b, vf c) { return a * b + c; }
static inline vf fnma(vf a, vf b, vf c) { return c - a * b; }

static inline vi set1_i(int32_t x) { return {lanes_i{x, x, x, x}}; }
static inline vi load_i(const int32_t* p) {
  vi r;
  memcpy(&r.v, p, sizeof r.v);
  return r;
}
static inline void store_i(int32_t* p, vi a) { memcpy(p, &a.v, sizeof a.v); }
static inline vi operator+(vi a, vi b) { return s32(u32(a) + u32(b)); }
static inline vi operator-(vi a, vi b) { return s32(u32(a) - u32(b)); }
static inline vi operator*(vi a, vi b) { return s32(u32(a) * u32(b)); }
static inline vi operator&(vi a, vi b) { return {a.v & b.v}; }
template <int n>
static inline vi shl(vi a) {
  return s32(u32(a) << n);
}
template <int n>
static inline vi sar(vi a) {
  return {a.v >> n};
}

static inline vf select_gt(vf a, vf b, vf x, vf y) {
  const lanes_i yes = bit_copy<lanes_i>(a.v > b.v);
  return from_bits({(yes & bits_of(x).v) | (~yes & bits_of(y).v)});
}
static inline vf min(vf a, vf b) { return select_gt(b, a, a, b); }
static inline vf max(vf a, vf b) { return select_gt(a, b, a, b); }
static inline vf clamp(vf x, vf lo, vf hi) { return min(max(x, lo), hi); }
static inline vf abs(vf a) { return from_bits(bits_of(a) & set1_i(0x7fffffff)); }
static inline vf sqrt(vf a) { return {lanes_f{sqrtf(a.v[0]), sqrtf(a.v[1]), sqrtf(a.v[2]), sqrtf(a.v[3])}}; }

// Adding 2^23 to |a| < 2^23 leaves no fraction bits, rounded half to even; larger numbers are integers.
// The sign goes back on, as rintf keeps −0.
static inline vf rint(vf a) {
  const vf magnitude = abs(a);
  const vf big = set1(8388608.0f);
  const vf rounded = select_gt(big, magnitude, (magnitude + big) - big, magnitude);
  return from_bits({bits_of(rounded).v | (bits_of(a) & set1_i(INT32_MIN)).v});
}

// The caller's numbers are in range; the clamp only makes every other number safe to convert.
static inline vi to_int(vf a) { return {truncate(clamp(rint(a), set1(-2147483648.0f), set1(2147483520.0f)).v)}; }
static inline vf to_float(vi a) { return {widen(a.v)}; }

// 2^e is built from its bits; exponent field 0 (e = −127) is the number 0.
static inline vf scale2(vf x, vf e) {
  const vf field = clamp(e, set1(-127.0f), set1(128.0f)) + set1(127.0f);
  return x * from_bits(shl<23>(vi{truncate(field.v)}));
}

static inline void store_u8_n(uint8_t* p, vi a, int n) {
  for (int i = 0; i < n; ++i) p[i] = static_cast<uint8_t>(a.v[i]);
}
static inline void store_u8(uint8_t* p, vi a) { store_u8_n(p, a, vf::W); }

// Halves are combined first: lane i with lane i + 2, then i + 1.
static inline float reduce_add(vf a) { return (a.v[0] + a.v[2]) + (a.v[1] + a.v[3]); }
static inline float larger(float a, float b) { return a > b ? a : b; }
static inline float smaller(float a, float b) { return a < b ? a : b; }
static inline float reduce_max(vf a) { return larger(larger(a.v[0], a.v[2]), larger(a.v[1], a.v[3])); }
static inline float reduce_min(vf a) { return smaller(smaller(a.v[0], a.v[2]), smaller(a.v[1], a.v[3])); }

}  // namespace PTQ4VM_ISA
}  // namespace cpu
}  // namespace ptq4vm
