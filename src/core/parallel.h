#pragma once
// The thread pool. One pool for the process; work is split into contiguous pieces, and what a piece computes must not
// depend on where the cuts lie, so that results are the same for every number of threads.
#include <cstdint>
#include <memory>
#include <type_traits>

namespace nibble {

/// Threads that the process may use: its affinity mask and cgroup quota.
int available_threads();

/// Sets how many threads parallel_for uses, the caller included; 0 = available_threads().
/// @throws Error{invalid_argument} for a negative number or more than 1024.
void set_thread_count(int threads);
int thread_count();

namespace detail {
using RangeFn = void (*)(void* context, int64_t begin, int64_t end);
void parallel_for_raw(int64_t count, int64_t grain, RangeFn fn, void* context);
}  // namespace detail

/// While it lives, this thread's parallel_for runs serially: for work beside that of another thread, which keeps the
/// pool.
class SerialScope {
 public:
  SerialScope();
  ~SerialScope();
  SerialScope(const SerialScope&) = delete;
  SerialScope& operator=(const SerialScope&) = delete;

 private:
  bool before_;
};

/// Calls body(begin, end) for ranges that cover [0, count) once each. Every begin is a multiple of `grain`, and
/// every range but the last has a multiple of `grain` elements. Returns when all are done. An exception thrown by
/// body is rethrown here after the others have finished. Calls from inside body run serially.
template <class Body>
void parallel_for(int64_t count, int64_t grain, Body&& body) {
  using Callable = std::remove_reference_t<Body>;
  auto call = [](void* context, int64_t begin, int64_t end) { (*static_cast<Callable*>(context))(begin, end); };
  detail::parallel_for_raw(count, grain, call, const_cast<std::remove_const_t<Callable>*>(std::addressof(body)));
}

}  // namespace nibble
