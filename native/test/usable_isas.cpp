// Prints the compiled instruction sets that can run on this processor, one a line: scripts/native-tests.js
// asks before it starts a program that might use instructions the processor does not have.
#include <cstdio>

#include "cpu/table.h"

int main() {
  int count = 0;
  const ptq4vm::cpu::IsaInfo* sets = ptq4vm::cpu::isa_list(&count);
  for (int i = 0; i < count; i++) {
    if (sets[i].usable()) std::printf("%s\n", sets[i].name);
  }
  return 0;
}
