// One pool of threads for the whole process.
//
// A job is a function that several participants call at once, each taking work items from a shared
// counter until none is left. The caller is always a participant, so a job ends even when every
// worker is busy with other sessions' jobs: several models in one process share the workers and
// never run more threads than the pool has plus one caller each.
#pragma once
#include <functional>

#include "ptq4vm/view.h"

namespace ptq4vm {
namespace engine {

// Largest number of threads that a session may ask for.
constexpr int kMaxThreads = 256;

// Calls fn(participant) on up to `threads` participants 0…threads−1 (0 = the calling thread) and
// returns when all that began have ended. fn must not throw.
void run_parallel(int threads, const std::function<void(int participant)>& fn);

// Calls fn(span, participant) for ranges that cover items [0, items), on up to `threads` participants.
void parallel_for(int threads, int64_t items, const std::function<void(Span span, int participant)>& fn);

}  // namespace engine
}  // namespace ptq4vm
