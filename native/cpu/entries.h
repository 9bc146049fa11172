// What every instruction set exports: one entry per member of OpTable, in the namespace of that set.
// Each is defined in cpu/<op>.cpp (linear_packer and linear_i8_packer beside their GEMMs); table.cpp,
// compiled once per set like them, gathers them into the set's OpTable. `reference` defines its own in cpu/reference.
#pragma once
#include "ptq4vm/ops.h"

namespace ptq4vm {
namespace cpu {
namespace PTQ4VM_ISA {

Packer<float> linear_packer();
Packer<int8_t> linear_i8_packer();

OpEntry<PatchEmbedArgs> patch_embed_entry();
OpEntry<AssembleTokensArgs> assemble_tokens_entry();
OpEntry<RopeArgs> rope_entry();
OpEntry<AddNormArgs> add_norm_entry();
OpEntry<LinearArgs> linear_entry();
OpEntry<LinearI8Args> linear_i8_entry();
OpEntry<QuantizeArgs> quantize_entry();
OpEntry<FakeQuantizeArgs> fake_quantize_entry();
OpEntry<ConvSiluArgs> conv_silu_entry();
OpEntry<SelectiveScanArgs> selective_scan_entry();
OpEntry<SelectTokensArgs> select_tokens_entry();
OpEntry<MeanTokensArgs> mean_tokens_entry();

OpEntry<AbsMaxArgs> abs_max_entry();
OpEntry<ActivationStepsArgs> activation_steps_entry();
OpEntry<TensorRangeArgs> tensor_range_entry();
OpEntry<TensorScoresArgs> tensor_scores_entry();
OpEntry<WeightStepsArgs> weight_steps_entry();

}  // namespace PTQ4VM_ISA
}  // namespace cpu
}  // namespace ptq4vm
