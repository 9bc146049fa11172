// Lowering: each op kind of lib/program/ir.ts checked and bound to the backend's kernel.
#include <map>
#include <type_traits>

#include "engine/node.h"
#include "engine/op_reader.h"

namespace ptq4vm {
namespace engine {

namespace {

using Lower = std::unique_ptr<Node> (*)(OpReader& op, const OpTable& table);

// Largest K whose integer sum minus zero-point correction stays inside int32 for any codes.
constexpr int32_t kMaxIntegerK = 32768;

// Largest number of values in one patch (planes · patch · patch).
constexpr int64_t kMaxTaps = int64_t{1} << 24;

bool present(const Ref& ref) { return ref.tensor >= 0; }

template <class T>
View<T> view_or_empty(const Frame& frame, const Ref& ref) {
  return present(ref) ? frame.view<T>(ref) : View<T>{};
}

// The quantized output `q` that producers may have (QuantizeConstants in ir.ts).
struct QuantizeOutput {
  Ref q{-1, 0, 0};
  QuantizeOut out{};

  QuantizeOut at(const Frame& frame) const {
    QuantizeOut o = out;
    o.q = view_or_empty<uint8_t>(frame, q);
    return o;
  }
};

// The node of an op with one input and one output: `base` holds everything but the two views.
template <class Args>
std::unique_ptr<Node> x_to_y(OpReader& op, const OpEntry<Args>& entry, const Args& base, const Ref& x, const Ref& y) {
  using In = std::remove_pointer_t<decltype(Args{}.x.data)>;
  using Out = std::remove_pointer_t<decltype(Args{}.y.data)>;
  return op.node<Args>(entry, [base, x, y](const Frame& frame) {
    Args a = base;
    a.x = frame.view<In>(x);
    a.y = frame.view<Out>(y);
    return a;
  });
}

// Length of the step vector `key`: one per row, or one for the tensor.
size_t step_count(const OpReader& op, const char* key, int32_t rows) {
  const size_t steps = op.count(key);
  if (steps != 1 && steps != static_cast<size_t>(rows)) {
    op.fail(std::string("'") + key + "' must have 1 or " + std::to_string(rows) + " elements");
  }
  return steps;
}

const int32_t* zero_points(OpReader& op, const char* key, size_t count, int32_t qmax) {
  const int32_t* zero = op.ints(key, count);
  for (size_t i = 0; i < count; i++) {
    if (zero[i] < 0 || zero[i] > qmax) op.fail(std::string("'") + key + "' must lie in 0…qmax");
  }
  return zero;
}

QuantizeOutput quantize_output(OpReader& op, int32_t rows, int32_t channels, bool optional) {
  QuantizeOutput r;
  r.q = optional ? op.optional_output("q", DType::u8, rows, channels) : op.output("q", DType::u8, rows, channels);
  if (!present(r.q)) return r;
  if (r.q.from != 0) op.fail("'q' must be a whole tensor");
  const size_t steps = step_count(op, "qActRscale", rows);
  r.out.qmax = op.integer("qmax", 1, 255);
  r.out.smooth_rscale = op.optional_floats("qSmoothRscale", static_cast<size_t>(channels));
  r.out.act_rscale = op.floats("qActRscale", steps);
  r.out.act_zero = zero_points(op, "qActZero", steps, r.out.qmax);
  r.out.per_token = steps == static_cast<size_t>(rows) ? 1 : 0;
  return r;
}

// weight is logical [out, in] in the backend's packing.
const void* packed_floats(OpReader& op, const OpTable& table, int32_t out, int32_t in) {
  const float* weight = op.borrowed_floats("weight", static_cast<size_t>(out) * static_cast<size_t>(in));
  void* packed = op.store(table.pack_linear.bytes(out, in));
  table.pack_linear.pack(weight, out, in, packed);
  return packed;
}

// [rows, cols] → [cols, rows].
const float* transposed(OpReader& op, const char* key, int32_t rows, int32_t cols) {
  const size_t count = static_cast<size_t>(rows) * static_cast<size_t>(cols);
  const float* from = op.borrowed_floats(key, count);
  float* to = static_cast<float*>(op.store(count * sizeof(float)));
  for (int32_t r = 0; r < rows; r++) {
    for (int32_t c = 0; c < cols; c++) to[static_cast<size_t>(c) * rows + r] = from[static_cast<size_t>(r) * cols + c];
  }
  return to;
}

std::unique_ptr<Node> lower_patch_embed(OpReader& op, const OpTable& table) {
  PatchEmbedArgs base{};
  base.height = op.integer("height", 1, 1 << 15);
  base.width = op.integer("width", 1, 1 << 15);
  base.patch = op.integer("patch", 1, 1 << 10);
  base.stride = op.integer("stride", 1, 1 << 10);
  const Ref x = op.input("x", DType::f32, -1, base.height * base.width);
  if (base.patch > base.height || base.patch > base.width) op.fail("'patch' exceeds the picture");
  base.grid_h = (base.height - base.patch) / base.stride + 1;
  base.grid_w = (base.width - base.patch) / base.stride + 1;
  const Ref y = op.output("y", DType::f32, base.grid_h * base.grid_w);
  const int64_t taps = int64_t{op.rows(x)} * base.patch * base.patch;
  if (taps > kMaxTaps) op.fail("a patch has more than " + std::to_string(kMaxTaps) + " values");
  base.weight = packed_floats(op, table, y.channels, static_cast<int32_t>(taps));
  base.bias = op.optional_floats("bias", static_cast<size_t>(y.channels));
  return x_to_y(op, table.patch_embed, base, x, y);
}

std::unique_ptr<Node> lower_assemble_tokens(OpReader& op, const OpTable& table) {
  AssembleTokensArgs base{};
  const Ref x = op.input("x", DType::f32);
  const Ref y = op.output("y", DType::f32, -1, x.channels);
  const int32_t rows = op.rows(y);
  const size_t cls_count = op.count("cls");
  if (cls_count % static_cast<size_t>(y.channels) != 0) op.fail("'cls' must be [k, channels]");
  const int32_t cls_rows = static_cast<int32_t>(cls_count / static_cast<size_t>(y.channels));
  base.source = op.ints("source", static_cast<size_t>(rows));
  base.cls = op.optional_floats("cls", 0);
  base.pos = op.optional_floats("pos", static_cast<size_t>(rows) * static_cast<size_t>(y.channels));
  for (int32_t i = 0; i < rows; i++) {
    if (base.source[i] >= op.rows(x) || base.source[i] < -cls_rows) op.fail("'source' points outside patches and class tokens");
  }
  return x_to_y(op, table.assemble_tokens, base, x, y);
}

std::unique_ptr<Node> lower_rope(OpReader& op, const OpTable& table) {
  RopeArgs base{};
  const Ref x = op.input("x", DType::f32);
  const int32_t rows = op.rows(x);
  const Ref y = op.output("y", DType::f32, rows, x.channels);
  if (x.channels % 2 != 0) op.fail("channels must be even");
  base.first_token = op.integer("firstToken", 0, rows);
  const size_t count = static_cast<size_t>(rows - base.first_token) * static_cast<size_t>(x.channels);
  base.cos = op.floats("cos", count);
  base.sin = op.floats("sin", count);
  return x_to_y(op, table.rope, base, x, y);
}

std::unique_ptr<Node> lower_add_norm(OpReader& op, const OpTable& table) {
  AddNormArgs base{};
  const Ref x = op.input("x", DType::f32);
  const int32_t rows = op.rows(x);
  const Ref residual = op.optional_input("residual", DType::f32, rows, x.channels);
  const Ref residual_out = op.optional_output("residual", DType::f32, rows, x.channels);
  const Ref y = op.optional_output("y", DType::f32, rows, x.channels);
  const QuantizeOutput q = quantize_output(op, rows, x.channels, true);
  if (!present(y) && !present(q.q)) op.fail("needs an output 'y' or 'q'");
  base.weight = op.floats("weight", static_cast<size_t>(x.channels));
  base.bias = op.optional_floats("bias", static_cast<size_t>(x.channels));
  base.epsilon = static_cast<float>(op.number("epsilon"));
  base.layer_norm = op.integer("norm", 0, 1);
  return op.node<AddNormArgs>(table.add_norm, [=](const Frame& f) {
    AddNormArgs a = base;
    a.x = f.view<const float>(x);
    a.residual = view_or_empty<const float>(f, residual);
    a.residual_out = view_or_empty<float>(f, residual_out);
    a.y = view_or_empty<float>(f, y);
    a.out = q.at(f);
    return a;
  });
}

std::unique_ptr<Node> lower_linear(OpReader& op, const OpTable& table) {
  LinearArgs base{};
  const Ref x = op.input("x", DType::f32);
  const Ref y = op.output("y", DType::f32, op.rows(x));
  base.weight = packed_floats(op, table, y.channels, x.channels);
  base.bias = op.optional_floats("bias", static_cast<size_t>(y.channels));
  return x_to_y(op, table.linear, base, x, y);
}

std::unique_ptr<Node> lower_linear_i8(OpReader& op, const OpTable& table) {
  LinearI8Args base{};
  const Ref x = op.input("x", DType::u8);
  const Ref y = op.output("y", DType::f32, op.rows(x));
  const int32_t rows = op.rows(x), in = x.channels, out = y.channels;
  if (x.from != 0) op.fail("'x' must be a whole tensor");
  if (in > kMaxIntegerK) op.fail("more than " + std::to_string(kMaxIntegerK) + " input channels would overflow the integer sum");
  op.integer("bits", 2, 8);  // of the weights; every width runs from int8 codes on this backend
  const int8_t* weight = op.borrowed_codes("weight", static_cast<size_t>(out) * static_cast<size_t>(in));
  void* packed = op.store(table.pack_linear_i8.bytes(out, in));
  table.pack_linear_i8.pack(weight, out, in, packed);
  base.weight = packed;
  auto* col_sum = static_cast<int32_t*>(op.store(static_cast<size_t>(out) * sizeof(int32_t)));
  for (int32_t o = 0; o < out; o++) {
    int32_t sum = 0;
    for (int32_t k = 0; k < in; k++) sum += weight[static_cast<size_t>(o) * in + k];
    col_sum[o] = sum;
  }
  base.col_sum = col_sum;
  const size_t steps = step_count(op, "actScale", rows);
  base.per_token = steps == static_cast<size_t>(rows) ? 1 : 0;
  base.act_scale = op.floats("actScale", steps);
  base.act_zero = zero_points(op, "actZero", steps, 255);
  base.weight_scale = op.floats("weightScale", static_cast<size_t>(out));
  base.bias = op.optional_floats("bias", static_cast<size_t>(out));
  return x_to_y(op, table.linear_i8, base, x, y);
}

std::unique_ptr<Node> lower_quantize(OpReader& op, const OpTable& table) {
  const Ref x = op.input("x", DType::f32);
  const QuantizeOutput q = quantize_output(op, op.rows(x), x.channels, false);
  return op.node<QuantizeArgs>(table.quantize, [x, q](const Frame& f) {
    return QuantizeArgs{f.view<const float>(x), q.at(f)};
  });
}

std::unique_ptr<Node> lower_fake_quantize(OpReader& op, const OpTable& table) {
  FakeQuantizeArgs base{};
  const Ref x = op.input("x", DType::f32);
  const int32_t rows = op.rows(x);
  const Ref y = op.output("y", DType::f32, rows, x.channels);
  const size_t steps = step_count(op, "actScale", rows);
  base.qmax = op.integer("qmax", 1, 255);
  base.per_token = steps == static_cast<size_t>(rows) ? 1 : 0;
  base.act_scale = op.floats("actScale", steps);
  base.act_zero = zero_points(op, "actZero", steps, base.qmax);
  base.smooth = op.optional_floats("smooth", static_cast<size_t>(x.channels));
  return x_to_y(op, table.fake_quantize, base, x, y);
}

std::unique_ptr<Node> lower_conv_silu(OpReader& op, const OpTable& table) {
  ConvSiluArgs base{};
  const Ref x = op.input("x", DType::f32);
  const int32_t rows = op.rows(x);
  const Ref y = op.optional_output("y", DType::f32, rows, x.channels);
  const QuantizeOutput q = quantize_output(op, rows, x.channels, true);
  if (!present(y) && !present(q.q)) op.fail("needs an output 'y' or 'q'");
  base.width = op.integer("width", 1, 8);
  base.weight = transposed(op, "weight", x.channels, base.width);
  base.bias = op.optional_floats("bias", static_cast<size_t>(x.channels));
  base.table = op.table("table", rows);
  return op.node<ConvSiluArgs>(table.conv_silu, [=](const Frame& f) {
    ConvSiluArgs a = base;
    a.x = f.view<const float>(x);
    a.y = view_or_empty<float>(f, y);
    a.out = q.at(f);
    return a;
  });
}

std::unique_ptr<Node> lower_selective_scan(OpReader& op, const OpTable& table) {
  struct Direction { Ref u, delta, b, c; };
  SelectiveScanArgs base{};
  base.direction_count = op.integer("directions", 1, kMaxDirections);
  base.d_state = op.integer("dState", 1, 256);
  base.out_scale = static_cast<float>(op.number("outScale"));
  std::vector<Direction> refs;
  int32_t rows = 0, inner = 0;
  for (int32_t i = 0; i < base.direction_count; i++) {
    const std::string n = std::to_string(i);
    Direction d{};
    d.u = op.input("u" + n, DType::f32);
    if (i == 0) {
      rows = op.rows(d.u);
      inner = d.u.channels;
    } else if (op.rows(d.u) != rows || d.u.channels != inner) {
      op.fail("directions differ in shape");
    }
    d.delta = op.input("delta" + n, DType::f32, rows, inner);
    d.b = op.input("b" + n, DType::f32, rows, base.d_state);
    d.c = op.input("c" + n, DType::f32, rows, base.d_state);
    base.directions[i].a = transposed(op, ("a" + n).c_str(), inner, base.d_state);
    base.directions[i].d = op.floats("d" + n, static_cast<size_t>(inner));
    base.directions[i].table = op.table("table" + n, rows);
    refs.push_back(d);
  }
  const Ref z = op.optional_input("z", DType::f32, rows, inner);
  const Ref y = op.optional_output("y", DType::f32, rows, inner);
  const QuantizeOutput q = quantize_output(op, rows, inner, true);
  if (!present(y) && !present(q.q)) op.fail("needs an output 'y' or 'q'");
  return op.node<SelectiveScanArgs>(table.selective_scan, [=](const Frame& f) {
    SelectiveScanArgs a = base;
    for (size_t i = 0; i < refs.size(); i++) {
      a.directions[i].u = f.view<const float>(refs[i].u);
      a.directions[i].delta = f.view<const float>(refs[i].delta);
      a.directions[i].b = f.view<const float>(refs[i].b);
      a.directions[i].c = f.view<const float>(refs[i].c);
    }
    a.z = view_or_empty<const float>(f, z);
    a.y = view_or_empty<float>(f, y);
    a.out = q.at(f);
    return a;
  });
}

std::unique_ptr<Node> lower_select_tokens(OpReader& op, const OpTable& table) {
  const Ref x = op.input("x", DType::f32);
  const Ref y = op.output("y", DType::f32, -1, x.channels);
  const int32_t* indices = op.ints("indices", static_cast<size_t>(op.rows(y)));
  for (int32_t i = 0; i < op.rows(y); i++) {
    if (indices[i] < 0 || indices[i] >= op.rows(x)) op.fail("'indices' points outside the tokens");
  }
  SelectTokensArgs base{};
  base.indices = indices;
  return x_to_y(op, table.select_tokens, base, x, y);
}

std::unique_ptr<Node> lower_mean_tokens(OpReader& op, const OpTable& table) {
  const Ref x = op.input("x", DType::f32);
  const Ref y = op.output("y", DType::f32, 1, x.channels);
  return x_to_y(op, table.mean_tokens, MeanTokensArgs{}, x, y);
}

const std::map<std::string, Lower>& lowerings() {
  static const std::map<std::string, Lower> all = {
      {"patchEmbed", lower_patch_embed},   {"assembleTokens", lower_assemble_tokens},
      {"rope", lower_rope},                {"addNorm", lower_add_norm},
      {"linear", lower_linear},            {"linearI8", lower_linear_i8},
      {"quantize", lower_quantize},        {"fakeQuantize", lower_fake_quantize},
      {"convSilu", lower_conv_silu},       {"selectiveScan", lower_selective_scan},
      {"selectTokens", lower_select_tokens}, {"meanTokens", lower_mean_tokens},
  };
  return all;
}

}  // namespace

std::unique_ptr<Node> lower_op(const Program& program, const OpSpec& op, const OpTable& table) {
  const auto it = lowerings().find(op.kind);
  if (it == lowerings().end()) fail("op '" + op.name + "': unknown kind '" + op.kind + "'");
  OpReader reader(program, op);
  return it->second(reader, table);
}

}  // namespace engine
}  // namespace ptq4vm
