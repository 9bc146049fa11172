// Self-checking program for the token ops of one instruction set: the one it is compiled for.
//
//   tokens_test [seed]     checks against the reference table; exit status 1 on a failure
//
// assemble_tokens and select_tokens must equal the reference bit for bit, rope and mean_tokens within float32 rounding.
// Each op runs twice, all items in one call and item by item backwards: equal results.
#include <cinttypes>
#include <cmath>
#include <cstdlib>

#include "cpu/table.h"
#include "entries.h"
#include "test/sample.h"

namespace isa = ptq4vm::cpu::PTQ4VM_ISA;

namespace {

void check_tokens(int images, int rows, int channels) {
  const OpTable& reference = *cpu::table_reference();
  const std::string what =
      "tokens " + std::to_string(images) + "x" + std::to_string(rows) + "x" + std::to_string(channels);
  Sample s(images, rows, channels);
  s.fill([](int, int, int) { return normal(); });
  const int out_rows = rows + 2;
  const size_t size = static_cast<size_t>(images) * out_rows * channels;
  const auto compare = [&](const auto& own, const auto& ref, auto args, double tolerance, const std::string& op) {
    std::vector<float> got(size, -7.0f), again = got, want = got;
    const auto run = [&](const auto& entry, std::vector<float>& y, bool backwards) {
      args.y.data = y.data();
      run_items(entry, args, backwards);
    };
    run(own, got, false);
    run(own, again, true);
    run(ref, want, false);
    check(same_bits(got, again), what + " " + op + ": depends on the order of items");
    for (size_t i = 0; i < size; ++i) check(std::fabs(got[i] - want[i]) <= tolerance, what + " " + op);
  };
  const auto y_view = [&](int y_rows) {
    return View<float>{nullptr, static_cast<int64_t>(y_rows) * channels, channels, images, y_rows, channels};
  };

  const std::vector<float> cls = random_floats(static_cast<size_t>(2 * channels));
  const std::vector<float> pos = random_floats(static_cast<size_t>(out_rows * channels));
  std::vector<int32_t> source(static_cast<size_t>(out_rows));
  for (int r = 0; r < out_rows; ++r) source[static_cast<size_t>(r)] = r == 0 ? -1 : r == out_rows - 1 ? -2 : r - 1;
  for (const float* p : {static_cast<const float*>(nullptr), pos.data()}) {
    compare(isa::assemble_tokens_entry(), reference.assemble_tokens,
            AssembleTokensArgs{s.x, y_view(out_rows), source.data(), cls.data(), p}, 0, "assemble");
  }
  for (int32_t& i : source) i = pick(0, rows - 1);
  compare(isa::select_tokens_entry(), reference.select_tokens, SelectTokensArgs{s.x, y_view(out_rows), source.data()},
          0, "select");
  compare(isa::mean_tokens_entry(), reference.mean_tokens, MeanTokensArgs{s.x, y_view(1)}, 3e-6, "mean");

  if (channels % 2) return;
  const std::vector<float> cos = random_floats(static_cast<size_t>(rows * channels)), sin = random_floats(cos.size());
  for (int first : {0, 1}) {
    RopeArgs args = {s.x, y_view(rows), cos.data(), sin.data(), first};
    compare(isa::rope_entry(), reference.rope, args, 4e-6, "rope");
    // In place.
    std::vector<float> apart(size, -7.0f), memory = s.memory;
    args.y.data = apart.data();
    run_items(isa::rope_entry(), args, false);
    args.x.data = memory.data() + 3;
    args.y = {memory.data() + 3, s.x.image_stride, s.x.row_stride, images, rows, channels};
    run_items(isa::rope_entry(), args, false);
    for (int i = 0; i < images; ++i) {
      for (int r = 0; r < rows; ++r) {
        const float* want = apart.data() + (static_cast<int64_t>(i) * rows + r) * channels;
        check(std::memcmp(args.y.row(i, r), want, static_cast<size_t>(channels) * sizeof(float)) == 0,
              what + " rope in place");
      }
    }
  }
}

}  // namespace

int main(int argc, char** argv) {
  const uint64_t seed = argc > 1 ? std::strtoull(argv[1], nullptr, 10) : std::random_device{}();
  rng.seed(seed);
  std::printf("tokens_test %s, seed %" PRIu64 "\n", NAME(PTQ4VM_ISA), seed);
  const int shapes[][3] = {{1, 1, 1}, {2, 3, 7}, {3, 5, 16}, {1, 17, 66}, {2, 196, 192}};
  for (const auto& shape : shapes) check_tokens(shape[0], shape[1], shape[2]);
  std::printf("  %d failures\n", failures);
  return failures ? 1 : 0;
}
