// The reference's op table.
#include "cpu/table.h"

#include "reference/reference.h"

namespace ptq4vm {
namespace cpu {

const OpTable* table_reference() {
  using namespace reference;
  static const OpTable table = [] {
    OpTable t = {};
    t.name = "reference";
    t.pack_linear = linear_packer();
    t.pack_linear_i8 = linear_i8_packer();
    t.patch_embed = patch_embed_entry();
    t.assemble_tokens = assemble_tokens_entry();
    t.rope = rope_entry();
    t.add_norm = add_norm_entry();
    t.linear = linear_entry();
    t.linear_i8 = linear_i8_entry();
    t.quantize = quantize_entry();
    t.fake_quantize = fake_quantize_entry();
    t.conv_silu = conv_silu_entry();
    t.selective_scan = selective_scan_entry();
    t.select_tokens = select_tokens_entry();
    t.mean_tokens = mean_tokens_entry();
    t.abs_max = abs_max_entry();
    t.activation_steps = activation_steps_entry();
    t.tensor_range = tensor_range_entry();
    t.tensor_scores = tensor_scores_entry();
    t.weight_steps = weight_steps_entry();
    return t;
  }();
  return &table;
}

}  // namespace cpu
}  // namespace ptq4vm
