// The instruction set that a call asked for, or an error that says what is wrong with it.
#pragma once
#include <string>

#include "cpu/table.h"
#include "engine/error.h"

namespace ptq4vm {
namespace bindings {

// Kernels of the named set; an empty name takes the strongest usable one, or what PTQ4VM_ISA says.
inline const OpTable& kernels(const std::string& name = "") {
  const OpTable* table = cpu::select_table(name.empty() ? nullptr : name.c_str());
  if (table != nullptr) return *table;
  const std::string what = name.empty() ? "the instruction set that PTQ4VM_ISA names" : "instruction set '" + name + "'";
  throw engine::EngineError("ERR_DEVICE", what + " is not compiled in or not usable on this processor");
}

}  // namespace bindings
}  // namespace ptq4vm
