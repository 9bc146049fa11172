// Which instruction sets were compiled in, which can run here, and the choice between them: see table.h.
//
// PTQ4VM_HAVE_AVX2, PTQ4VM_HAVE_AVX512 and PTQ4VM_HAVE_NEON come from the build, which knows what it compiled.
// A further set (AMX) is one line in kSets, one predicate, and its flags in CMakeLists.txt and binding.gyp.
//
// The environment variable PTQ4VM_ISA replaces the automatic choice; it is read here and nowhere else. A name that is
// unknown or not usable selects nothing: the caller reports it, we never fall back silently.
#include <cstdlib>
#include <cstring>

#include "cpu/table.h"
#include "platform/platform.h"

namespace ptq4vm {
namespace cpu {

namespace {

using platform::Feature;
using platform::has;

bool always() { return true; }

#if defined(PTQ4VM_HAVE_AVX2)
bool avx2_usable() { return has(Feature::avx2) && has(Feature::fma) && has(Feature::f16c); }
#endif

#if defined(PTQ4VM_HAVE_AVX512)
// Every flag that the kernels are compiled with; a processor with AVX-512 but without VNNI takes avx2.
bool avx512_usable() {
  return has(Feature::avx512f) && has(Feature::avx512bw) && has(Feature::avx512dq) && has(Feature::avx512vl) &&
         has(Feature::avx512vnni) && has(Feature::fma) && has(Feature::f16c);
}
#endif

#if defined(PTQ4VM_HAVE_NEON)
bool neon_usable() {
#if defined(PTQ4VM_NEON_I8MM)
  if (!has(Feature::i8mm)) return false;
#endif
  return has(Feature::neon) && has(Feature::dotprod);
}
#endif

// Weakest first.
constexpr IsaInfo kSets[] = {
    {"reference", table_reference, always},  {"portable", table_portable, always},
#if defined(PTQ4VM_HAVE_AVX2)
    {"avx2", table_avx2, avx2_usable},
#endif
#if defined(PTQ4VM_HAVE_AVX512)
    {"avx512", table_avx512, avx512_usable},
#endif
#if defined(PTQ4VM_HAVE_NEON)
    {"neon", table_neon, neon_usable},
#endif
};
constexpr int kSetCount = static_cast<int>(sizeof(kSets) / sizeof(kSets[0]));

}  // namespace

// Declared for every set in table.h; those that this build does not have answer nullptr.
#if !defined(PTQ4VM_HAVE_AVX2)
const OpTable* table_avx2() { return nullptr; }
#endif
#if !defined(PTQ4VM_HAVE_AVX512)
const OpTable* table_avx512() { return nullptr; }
#endif
#if !defined(PTQ4VM_HAVE_NEON)
const OpTable* table_neon() { return nullptr; }
#endif

const IsaInfo* isa_list(int* count) {
  *count = kSetCount;
  return kSets;
}

const OpTable* select_table(const char* name) {
  if (name == nullptr) {
    const char* forced = std::getenv("PTQ4VM_ISA");
    if (forced != nullptr && forced[0] != '\0') name = forced;
  }
  if (name == nullptr) {
    int best = kSetCount - 1;
    while (!kSets[best].usable()) best--;  // the first one always is
    return kSets[best].table();
  }
  for (const IsaInfo& set : kSets) {
    if (std::strcmp(set.name, name) == 0) return set.usable() ? set.table() : nullptr;
  }
  return nullptr;
}

}  // namespace cpu
}  // namespace ptq4vm
