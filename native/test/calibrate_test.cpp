// Self-checking program for calibration of one instruction set: the one it is compiled for.
//
//   calibrate_test [seed]     checks against the reference table; exit status 1 on a failure
//   calibrate_test speed      cost of the grid search on one core
//
// Everything must equal the reference bit for bit, but for grid searches in which two candidates score the same within
// 3e-6: either may then be found, and these rows are counted.
// Each op runs twice, all items in one call and item by item backwards, on scratch memory full of NaN: equal results.
#include <chrono>
#include <cinttypes>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "calibrate/score.h"
#include "cpu/table.h"
#include "entries.h"
#include "ptq4vm/calibration.h"
#include "test/sample.h"

using namespace ptq4vm;
namespace isa = ptq4vm::cpu::PTQ4VM_ISA;

namespace {

int64_t rows_searched = 0, near_ties = 0;

struct Steps {
  std::vector<float> scale;
  std::vector<uint8_t> zero, grid_index;
  explicit Steps(size_t n) : scale(n, -1.0f), zero(n, 77), grid_index(n, 77) {}
  bool equals(const Steps& o, size_t i) const {
    return (scale[i] == o.scale[i] || (std::isnan(scale[i]) && std::isnan(o.scale[i]))) && zero[i] == o.zero[i] &&
           grid_index[i] == o.grid_index[i];
  }
};

// Score of a symmetric (zero = 0, codes −qmax…qmax) or asymmetric quantizer, float32 residues, summed in double.
double score(const std::vector<float>& v, float step, float zero, float low, float high) {
  double sum = 0;
  for (float x : v) {
    const float kept = step * (arith::clampf(rintf(x / step) + zero, low, high) - zero);
    sum += std::pow(std::fabs(static_cast<double>(x - kept)), 2.4);
  }
  return sum;
}

double activation_score(const std::vector<float>& v, int index, int bits) {
  float lo = INFINITY, hi = -INFINITY;
  for (float x : v) lo = std::fmin(lo, x), hi = std::fmax(hi, x);
  const int qmax = (1 << bits) - 1;
  const auto c = calibration::candidate_quantizer(calibration::candidate_range(lo, hi, index), qmax);
  return score(v, c.step, c.zero, 0, static_cast<float>(qmax));
}

double weight_score(const std::vector<float>& v, int index, int bits) {
  float absmax = 0;
  for (float x : v) absmax = std::fmax(absmax, std::fabs(x));
  const int qmax = (1 << (bits - 1)) - 1;
  return score(v, calibration::weight_candidate(absmax, index, qmax), 0, -static_cast<float>(qmax),
               static_cast<float>(qmax));
}

// Equal to the reference, or a tie between two candidates.
template <class Score>
void check_search(const Steps& got, const Steps& want, size_t i, const std::string& what, Score score_of) {
  ++rows_searched;
  if (got.equals(want, i)) return;
  bool tie = false;
  if (got.grid_index[i] != want.grid_index[i] && got.grid_index[i] && want.grid_index[i]) {
    const double a = score_of(got.grid_index[i]), b = score_of(want.grid_index[i]);
    tie = std::fabs(a - b) <= 3e-6 * b;
    near_ties += tie;
  }
  check(tie, what + " [" + std::to_string(i) + "]: scale " + std::to_string(got.scale[i]) + " zero " +
                 std::to_string(got.zero[i]) + " index " + std::to_string(got.grid_index[i]) + ", expected " +
                 std::to_string(want.scale[i]) + " " + std::to_string(want.zero[i]) + " " +
                 std::to_string(want.grid_index[i]));
}

Steps run_activation(const OpEntry<ActivationStepsArgs>& entry, const Sample& s, int bits, int grid, bool backwards) {
  Steps r(static_cast<size_t>(s.x.rows));
  run_items(
      entry,
      ActivationStepsArgs{s.x, s.divisor, bits, grid, r.scale.data(), r.zero.data(), r.grid_index.data(), nullptr},
      backwards);
  return r;
}

// This instruction set's calibration entries as a table for tensor_steps.
const OpTable& own_table() {
  static const OpTable table = [] {
    OpTable t = {};
    t.tensor_range = isa::tensor_range_entry();
    t.tensor_scores = isa::tensor_scores_entry();
    return t;
  }();
  return table;
}

Steps run_tensor(const OpTable& table, const Sample& s, int bits, int grid, bool backwards) {
  Steps r(1);
  std::vector<double> workspace(calibration::tensor_steps_workspace(s.x) / sizeof(double) + 1, NAN);
  const bool done = calibration::tensor_steps(
      table, s.x, s.divisor, bits, grid, workspace.data(), nullptr, r.scale.data(), r.zero.data(), r.grid_index.data(),
      [&](const auto& entry, const auto& args) { run_items(entry, args, backwards); });
  check(done, "tensor_steps reports a cancellation that was not asked for");
  return r;
}

// Every row alone and the tensor as a whole, with and without search, and the channel maxima.
void check_sample(Sample& s, int bits, const std::string& name) {
  const OpTable& reference = *cpu::table_reference();
  for (int grid = 0; grid <= 1; ++grid) {
    const std::string what = name + " bits " + std::to_string(bits) + " grid " + std::to_string(grid);
    const Steps want = run_activation(reference.activation_steps, s, bits, grid, false);
    const Steps got = run_activation(isa::activation_steps_entry(), s, bits, grid, false);
    const Steps again = run_activation(isa::activation_steps_entry(), s, bits, grid, true);
    for (int row = 0; row < s.x.rows; ++row) {
      const size_t i = static_cast<size_t>(row);
      check(again.equals(got, i), what + ": depends on the order of items");
      check_search(got, want, i, what, [&](int index) { return activation_score(s.values(row), index, bits); });
    }

    // The whole tensor is one row of one image, once x/smooth is done: full scores of all candidates.
    const std::vector<float> all = s.values(-1);
    Sample flat(1, 1, static_cast<int>(all.size()));
    flat.fill([&](int, int, int k) { return all[static_cast<size_t>(k)]; });
    const Steps full = run_activation(reference.activation_steps, flat, bits, grid, false);
    const Steps tensor = run_tensor(own_table(), s, bits, grid, false);
    check(run_tensor(own_table(), s, bits, grid, true).equals(tensor, 0),
          what + " tensor: depends on the order of items");
    const auto tensor_score = [&](int index) { return activation_score(all, index, bits); };
    check_search(tensor, full, 0, what + " tensor", tensor_score);
    check_search(run_tensor(reference, s, bits, grid, false), full, 0, what + " tensor, reference", tensor_score);
  }

  std::vector<float> want(static_cast<size_t>(s.x.channels), -1.0f), got = want, again = want;
  run_items(reference.abs_max, AbsMaxArgs{s.x, want.data()}, false);
  run_items(isa::abs_max_entry(), AbsMaxArgs{s.x, got.data()}, false);
  run_items(isa::abs_max_entry(), AbsMaxArgs{s.x, again.data()}, true);
  check(same_values(got, want) && same_bits(got, again), name + " abs_max");
}

void check_activations() {
  const int shapes[][3] = {{1, 1, 1},   {1, 3, 7},   {2, 5, 16},   {3, 4, 131},
                           {1, 2, 512}, {5, 3, 200}, {16, 2, 521}, {40, 2, 613}};
  int n = 0;
  for (const auto& shape : shapes) {
    for (int bits : {8, 6, 4}) {
      Sample s(shape[0], shape[1], shape[2]);
      const std::string name =
          "activations " + std::to_string(shape[0]) + "x" + std::to_string(shape[1]) + "x" + std::to_string(shape[2]);
      if (++n % 2) s.add_smooth();
      s.fill([](int, int, int) { return normal(); });
      check_sample(s, bits, name + " normal");
      s.fill(
          [](int, int r, int k) { return normal() * std::exp(0.8 * (k % 11) - 3) + r; });  // channels of unlike width
      for (int i = 0; i < 3; ++i) s.at(pick(0, shape[0] - 1), pick(0, shape[1] - 1), pick(0, shape[2] - 1)) *= 60.0f;
      check_sample(s, bits, name + " outliers");
      s.fill([](int, int, int) {
        const double v = normal();
        return v / (1 + std::exp(-v));
      });
      check_sample(s, bits, name + " SiLU");
    }
  }
}

void check_extremes() {
  const auto with = [](const std::string& name, auto value) {
    for (int bits : {8, 4, 2}) {
      Sample s(2, 3, 300);
      s.fill(value);
      check_sample(s, bits, name);
    }
  };
  with("zero", [](int, int, int) { return 0.0; });
  with("constant", [](int, int r, int) { return r == 0 ? 3.7 : r == 1 ? -0.013 : 1e6; });
  with("two values", [](int i, int, int) { return i ? -1.0 : 2.0; });
  with("half steps", [](int, int, int k) { return (k % 64) * 0.5; });
  with("tiny", [](int, int, int) { return normal() * 1e-9; });
  with("far below the smallest step", [](int, int, int) { return normal() * 1e-30; });
  with("large", [](int, int, int) { return normal() * 1e20; });
  with("near overflow", [](int, int r, int) { return normal() * (r ? 1e30 : 1e37); });
  with("overflowing range", [](int, int, int k) { return k % 2 ? 3e38 : -3e38; });
  with("one outlier among zeros", [](int i, int, int k) { return i == 1 && k == 17 ? 5e4 : 0.0; });
  with("NaN", [](int, int r, int k) { return r == 1 && k == 299 ? NAN : normal(); });
  with("infinity", [](int, int r, int k) { return r == 2 && k == 0 ? -INFINITY : normal(); });

  // Several slices, one of them with a NaN.
  Sample s(3, 90, 700);
  s.add_smooth();
  s.fill([](int, int, int k) { return normal() * (1 + k % 5); });
  check_sample(s, 4, "several slices");
  s.at(2, 88, 650) = NAN;
  const Steps r = run_tensor(own_table(), s, 8, 1, false);
  check(std::isnan(r.scale[0]) && r.zero[0] == 0 && r.grid_index[0] == 0, "NaN in a late slice");
}

void check_weights() {
  const int shapes[][2] = {{1, 1}, {5, 4}, {7, 48}, {9, 193}, {6, 768}, {3, 1536}, {2, 9001}};
  for (const auto& shape : shapes) {
    for (int bits : {8, 6, 4, 2}) {
      const int out = shape[0], in = shape[1];
      std::vector<float> w(static_cast<size_t>(out) * in), smooth;
      for (float& v : w) v = static_cast<float>(normal() * 0.05);
      for (int i = 0; i < 3; ++i) w[static_cast<size_t>(pick(0, out * in - 1))] *= 30.0f;
      for (int k = 0; k < in; ++k) smooth.push_back(static_cast<float>(uniform(0.02, 5)));
      if (out > 4) {
        for (int k = 0; k < in; ++k) w[static_cast<size_t>(k)] = 0.0f;
        for (int k = 0; k < in; ++k) w[static_cast<size_t>(in + k)] = 0.3f;
        w[static_cast<size_t>(2 * in + in - 1)] = NAN;
        w[static_cast<size_t>(3 * in)] = INFINITY;
      }
      for (int grid = 0; grid <= 1; ++grid) {
        for (const float* m : {static_cast<const float*>(nullptr), static_cast<const float*>(smooth.data())}) {
          Steps want(static_cast<size_t>(out)), got = want, again = want;
          const auto args = [&](Steps& s) {
            return WeightStepsArgs{w.data(), m, out, in, bits, grid, s.scale.data(), s.grid_index.data(), nullptr};
          };
          run_items(cpu::table_reference()->weight_steps, args(want), false);
          run_items(isa::weight_steps_entry(), args(got), false);
          run_items(isa::weight_steps_entry(), args(again), true);
          for (size_t o = 0; o < static_cast<size_t>(out); ++o) {
            const std::string what =
                "weights " + std::to_string(out) + "x" + std::to_string(in) + " bits " + std::to_string(bits);
            check(again.equals(got, o), what + ": depends on the order of items");
            check_search(got, want, o, what, [&](int index) {
              std::vector<float> row(w.begin() + static_cast<int64_t>(o) * in,
                                     w.begin() + (static_cast<int64_t>(o) + 1) * in);
              for (int k = 0; m && k < in; ++k) row[static_cast<size_t>(k)] *= m[k];
              return weight_score(row, index, bits);
            });
          }
        }
      }
    }
  }
}

void check_cancellation() {
  const volatile int32_t cancelled = 1;
  Sample s(4, 6, 300);
  s.fill([](int, int, int) { return normal(); });
  Steps r(6);
  run_items(isa::activation_steps_entry(),
            ActivationStepsArgs{s.x, nullptr, 8, 1, r.scale.data(), r.zero.data(), r.grid_index.data(), &cancelled},
            false);
  check(r.equals(Steps(6), 0) && r.equals(Steps(6), 5), "cancelled activation_steps still wrote");
  std::vector<double> workspace(calibration::tensor_steps_workspace(s.x) / sizeof(double) + 1);
  check(!calibration::tensor_steps(own_table(), s.x, nullptr, 8, 1, workspace.data(), &cancelled, r.scale.data(),
                                   r.zero.data(), r.grid_index.data(),
                                   [&](const auto& entry, const auto& args) { run_items(entry, args, false); }),
        "cancelled tensor_steps claims success");
}

// The power 2.4 against double, and quotients against the division.
void check_arithmetic() {
  constexpr int W = isa::vf::W;
  double worst = 0;
  float x[W], y[W];
  for (int round = 0; round < 200000; ++round) {
    for (float& v : x) v = static_cast<float>((pick(0, 1) ? 1 : -1) * std::exp2(uniform(-50, 45)));
    isa::store(y, isa::abs_pow_2_4(isa::load(x)));
    for (int i = 0; i < W; ++i) {
      const double want = std::pow(std::fabs(static_cast<double>(x[i])), 2.4);
      worst = std::fmax(worst, std::fabs(y[i] - want) / want);
    }
  }
  check(worst <= 1e-6, "abs_pow_2_4: relative error " + std::to_string(worst * 1e6) + "e-6");
  isa::store(y, isa::abs_pow_2_4(isa::zero()));
  check(y[0] == 0.0f, "abs_pow_2_4(0)");
  isa::store(y, isa::abs_pow_2_4(isa::set1(NAN)));
  check(std::isnan(y[0]), "abs_pow_2_4(NaN)");

  int64_t unequal = 0;
  for (int round = 0; round < 200000; ++round) {
    const float step = static_cast<float>(std::exp2(uniform(-20, 5)));
    for (float& v : x) v = static_cast<float>(step * uniform(-600, 600));
    isa::store(y, isa::quotient(isa::load(x), isa::set1(step), isa::set1(1.0f / step)));
    for (int i = 0; i < W; ++i) unequal += y[i] != x[i] / step;
  }
  check(unequal <= 200000 * W / 100000, "quotient: " + std::to_string(unequal) + " differ from the division");
  std::printf("  |d|^2.4 relative error %.1e, unequal quotients %" PRId64 " of %d\n", worst, unequal, 200000 * W);
}

// Cost of the search for rows of the widths of Vim-base, 256 images, on plausible activations.
void speed() {
  const auto seconds = [](auto work) {
    double best = 1e9;
    for (int repeat = 0; repeat < 3; ++repeat) {
      const auto start = std::chrono::steady_clock::now();
      work();
      best = std::fmin(best, std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
    }
    return best;
  };
  std::vector<float> block = random_floats(isa::kScoreBlock);
  double sink = 0;
  for (float& v : block) v *= 0.2f;
  const double one = seconds([&] {
    const isa::ScaledQuantizer q = isa::scaled_quantizer(0.01f, 128, 0, 255, 1.0f);
    for (int i = 0; i < 20000; ++i) sink += isa::score_values(block.data(), 0, isa::kScoreBlock, q);
  });
  std::printf("%s: %.3f ns per value and candidate\n", NAME(PTQ4VM_ISA), one * 1e9 / (20000.0 * isa::kScoreBlock));
  for (int bits : {8, 6, 4}) {
    double total = 0;
    for (int channels : {768, 1536, 48}) {
      for (int heavy = 0; heavy <= 1; ++heavy) {
        Sample s(256, 2, channels);
        std::vector<double> width(static_cast<size_t>(channels));
        for (double& w : width) w = heavy ? std::exp(normal()) : 1.0;
        s.fill([&](int, int, int k) { return normal() * width[static_cast<size_t>(k)]; });
        Steps r(2);
        const double t = seconds([&] { r = run_activation(isa::activation_steps_entry(), s, bits, 1, false); }) / 2;
        const double values = 256.0 * channels;
        std::printf("  bits %d, %4d channels, %s: %.2f ms a row, %.2f ns a value = %.1f candidates' worth, index %d\n",
                    bits, channels, heavy ? "unlike channels" : "normal", t * 1e3, t * 1e9 / values,
                    t * 1e9 / values / (one * 1e9 / (20000.0 * isa::kScoreBlock)), r.grid_index[0]);
        if (heavy) total += t * 197 * (channels == 768 ? 1 : channels == 1536 ? 3 : 2);
      }
    }
    std::printf("  bits %d: Vim-base, 256 images: %.1f s a block, %.0f s for 24 blocks on one core\n", bits, total,
                24 * total);
  }
  if (sink < 0) std::printf("%g\n", sink);
}

}  // namespace

int main(int argc, char** argv) {
  const bool timing = argc > 1 && std::strcmp(argv[1], "speed") == 0;
  const uint64_t seed = argc > 1 && !timing ? std::strtoull(argv[1], nullptr, 10) : std::random_device{}();
  rng.seed(timing ? 1 : seed);
  if (timing) {
    speed();
    return 0;
  }
  std::printf("calibrate_test %s, seed %" PRIu64 "\n", NAME(PTQ4VM_ISA), seed);
  check_arithmetic();
  check_activations();
  check_extremes();
  check_weights();
  check_cancellation();
  std::printf("  %" PRId64 " searches and ranges, %" PRId64 " near ties, %d failures\n", rows_searched, near_ties,
              failures);
  return failures ? 1 : 0;
}
