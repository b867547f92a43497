#include "core/parallel.h"

namespace nibble {
int available_threads() { return 1; }
void set_thread_count(int) {}
int thread_count() { return 1; }
void detail::parallel_for_raw(int64_t count, int64_t, RangeFn fn, void* context) {
  if (count > 0) fn(context, 0, count);
}
}  // namespace nibble
