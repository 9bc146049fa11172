// Instruction sets of the CPU backend and how one is chosen.
//
// Every op lives in cpu/<op>.cpp inside `namespace ptq4vm::cpu::PTQ4VM_ISA`. The build compiles these
// files once per instruction set with that set's compiler flags and -DPTQ4VM_ISA=<name>; cpu/table.cpp
// (compiled likewise) gathers an instruction set's functions into one OpTable. `reference` is a further
// member of the list: readable scalar code, double accumulation, the specification of every op.
#pragma once
#include "ptq4vm/ops.h"

namespace ptq4vm {
namespace cpu {

// Filled tables; nullptr when that set is not compiled in. Their code must only run where usable() says so.
const OpTable* table_reference();
const OpTable* table_portable();
const OpTable* table_avx2();
const OpTable* table_avx512();
const OpTable* table_neon();

struct IsaInfo {
  const char* name;
  const OpTable* (*table)();
  bool (*usable)();
};

// All compiled instruction sets, weakest first; *count gets their number.
const IsaInfo* isa_list(int* count);

// The table of the named set, of the strongest usable set for name == nullptr, or nullptr when the
// name is unknown, not compiled in, or not usable on this processor.
const OpTable* select_table(const char* name);

}  // namespace cpu
}  // namespace ptq4vm
