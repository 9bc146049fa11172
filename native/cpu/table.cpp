// Gathers the functions of one instruction set into its OpTable. Compiled once per set: see table.h.
#include "cpu/table.h"

#include "entries.h"

#define PTQ4VM_JOIN2(a, b) a##b
#define PTQ4VM_JOIN(a, b) PTQ4VM_JOIN2(a, b)
#define PTQ4VM_STRING2(x) #x
#define PTQ4VM_STRING(x) PTQ4VM_STRING2(x)

namespace ptq4vm {
namespace cpu {

const OpTable* PTQ4VM_JOIN(table_, PTQ4VM_ISA)() {
  static const OpTable table = [] {
    using namespace PTQ4VM_ISA;  // NOLINT: this set's entries only
    OpTable t = {};
    t.name = PTQ4VM_STRING(PTQ4VM_ISA);
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
