// Cores that this process may use, on systems other than Linux: what the C++ library knows. It cannot tell
// hyper-threads from cores, so the physical count may be twice too large there.
#if !defined(__linux__)

#include <algorithm>
#include <thread>

#include "platform/platform.h"

namespace ptq4vm {
namespace platform {

int logical_cores() { return std::max(1, static_cast<int>(std::thread::hardware_concurrency())); }
int physical_cores() { return logical_cores(); }

}  // namespace platform
}  // namespace ptq4vm

#endif
