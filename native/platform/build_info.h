// How this addon was built; the values behind `BuildInfo` of lib/native/addon-types.ts.
#pragma once

namespace ptq4vm {
namespace platform {

const char* build_version();   // version of package.json at build time
const char* build_compiler();  // e.g. "GCC 12.2.0"
const char* build_type();      // Release, Debug, …

}  // namespace platform
}  // namespace ptq4vm
