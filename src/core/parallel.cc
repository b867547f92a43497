// Each thread owns a contiguous range of the work and takes it in a few pieces from the front; a thread that has
// finished takes pieces from the back of the others' ranges. The caller waits only for threads that are inside a piece:
// a worker that the system has not scheduled yet finds the job closed and is not missed. So a busy machine costs at
// most the piece that a preempted thread is holding; where that happens again and again, the caller works alone for a
// while.
#include "core/parallel.h"

#include <sched.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <exception>
#include <iterator>
#include <mutex>
#include <string>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "core/cgroups.h"
#include "core/contention.h"
#include "core/error.h"

namespace nibble {
namespace {

constexpr int kMaxThreads = 1024;
// About 30 us: longer than the serial gaps between the products of one token, shorter than a scheduler's time slice.
constexpr int kSpins = 2000;
constexpr uint64_t kPiecesPerRange = 4;

thread_local bool inside_piece = false;  // of a job, or of a SerialScope

void relax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// Waits until value differs from old: spinning first, then asleep.
uint32_t wait_for_change(const std::atomic<uint32_t>& value, uint32_t old) {
  for (int i = 0; i < kSpins; ++i) {
    const uint32_t now = value.load(std::memory_order_acquire);
    if (now != old) return now;
    relax();
  }
  value.wait(old, std::memory_order_acquire);
  return value.load(std::memory_order_acquire);
}

// [begin, end) in units, as begin << 32 | end so that owner and thieves change both at once.
struct alignas(64) Range {
  std::atomic<uint64_t> bounds = 0;
};

enum class Side { front, back };

// Takes up to `most` units off one side; false when nothing is left.
bool take(Range& range, Side side, uint64_t most, uint64_t& begin, uint64_t& end) {
  uint64_t old = range.bounds.load(std::memory_order_relaxed);
  for (;;) {
    begin = old >> 32;
    end = old & 0xffffffffu;
    if (begin == end) return false;
    const uint64_t units = std::min(most, end - begin);
    const uint64_t rest = side == Side::front ? (begin + units) << 32 | end : begin << 32 | (end - units);
    if (range.bounds.compare_exchange_weak(old, rest, std::memory_order_relaxed)) {
      (side == Side::front ? end : begin) = side == Side::front ? begin + units : end - units;
      return true;
    }
  }
}

using Clock = Contention::Clock;

struct Job {
  detail::RangeFn fn;
  void* context;
  int64_t count, unit;   // elements in all and per unit
  uint64_t piece_units;  // units that a thread takes at once
};

class Pool {
 public:
  /// False when another thread's job is running, or the job is not worth sharing: the caller then does it alone.
  bool try_run(int64_t count, int64_t grain, detail::RangeFn fn, void* context, int threads);
  /// What was noticed of contention, before the next job.
  void forget() { forgets_ = true; }

 private:
  static constexpr uint32_t kOpen = 1u << 31;

  void resize(int threads);
  void serve(size_t self);
  void work(size_t self);
  void run_piece(uint64_t begin, uint64_t end);
  bool enter();
  void leave();
  void close_and_wait(Clock::time_point start, bool in_small_pieces);

  std::mutex owner_;  // held by the caller whose job it is
  std::vector<std::thread> workers_;
  std::vector<Range> ranges_;  // [0] is the caller's
  Job job_{};
  std::atomic<uint32_t> generation_ = 0;  // changes when there is a new job, or the pool stops
  std::atomic<uint32_t> entry_ = 0;       // kOpen while the job may be joined, plus the number of workers inside
  std::atomic<bool> joined_ = false;      // whether a worker has
  std::atomic<bool> stopping_ = false;
  std::atomic<bool> failed_ = false;
  std::exception_ptr error_;  // written by the thread that set failed_, read after all have left
  Contention contention_;
  std::atomic<bool> forgets_ = false;
};

void Pool::resize(int threads) {
  if (ranges_.size() == static_cast<size_t>(threads)) return;
  stopping_ = true;
  generation_.fetch_add(1, std::memory_order_release);
  generation_.notify_all();
  for (std::thread& worker : workers_) worker.join();
  workers_.clear();
  stopping_ = false;
  ranges_ = std::vector<Range>(static_cast<size_t>(threads));
  try {
    for (size_t self = 1; self < ranges_.size(); ++self) workers_.emplace_back(&Pool::serve, this, self);
  } catch (const std::system_error&) {
    // The system grants no more threads; the ranges without a worker are done by the others.
  }
}

void Pool::serve(size_t self) {
  inside_piece = true;
  for (uint32_t seen = 0;;) {
    seen = wait_for_change(generation_, seen);
    if (stopping_) return;
    if (!enter()) continue;
    work(self);
    leave();
  }
}

bool Pool::enter() {
  uint32_t old = entry_.load(std::memory_order_relaxed);
  while ((old & kOpen) != 0) {
    if (!entry_.compare_exchange_weak(old, old + 1, std::memory_order_acquire)) continue;
    joined_.store(true, std::memory_order_relaxed);
    return true;
  }
  return false;
}

void Pool::leave() {
  if (entry_.fetch_sub(1, std::memory_order_release) == 1) entry_.notify_one();
}

void Pool::close_and_wait(Clock::time_point start, bool in_small_pieces) {
  uint32_t inside = entry_.fetch_and(~kOpen, std::memory_order_acquire) & ~kOpen;
  if (inside == 0) {
    if (!joined_.load(std::memory_order_relaxed)) contention_.missed(start, Clock::now());
    return;
  }
  const auto idle = Clock::now();
  while (inside != 0) inside = wait_for_change(entry_, inside);
  if (in_small_pieces) contention_.waited(start, idle, Clock::now());
}

void Pool::run_piece(uint64_t begin, uint64_t end) {
  if (failed_.load(std::memory_order_relaxed)) return;
  const int64_t first = static_cast<int64_t>(begin) * job_.unit;
  const int64_t last = std::min(static_cast<int64_t>(end) * job_.unit, job_.count);
  try {
    job_.fn(job_.context, first, last);
  } catch (...) {
    if (!failed_.exchange(true)) error_ = std::current_exception();
  }
}

void Pool::work(size_t self) {
  uint64_t begin = 0, end = 0;
  while (take(ranges_[self], Side::front, job_.piece_units, begin, end)) run_piece(begin, end);
  // Ranges only shrink, so one round over the others is enough.
  for (size_t i = 1; i < ranges_.size(); ++i) {
    Range& victim = ranges_[(self + i) % ranges_.size()];
    while (take(victim, Side::back, job_.piece_units, begin, end)) run_piece(begin, end);
  }
}

bool Pool::try_run(int64_t count, int64_t grain, detail::RangeFn fn, void* context, int threads) {
  const std::unique_lock lock(owner_, std::try_to_lock);
  if (!lock) return false;
  const auto start = Clock::now();
  if (forgets_.exchange(false, std::memory_order_relaxed)) contention_ = {};
  if (contention_.is_paused(start)) return false;
  resize(threads);

  constexpr int64_t kMaxUnits = int64_t{1} << 31;
  const int64_t grains = (count - 1) / grain + 1;
  const int64_t unit = grain * ((grains - 1) / kMaxUnits + 1);
  const auto units = static_cast<uint64_t>((count - 1) / unit + 1);
  const uint64_t sharers = ranges_.size();
  job_ = {fn, context, count, unit, std::max<uint64_t>(1, units / (sharers * kPiecesPerRange))};
  for (uint64_t i = 0; i < sharers; ++i) {
    ranges_[i].bounds.store((units * i / sharers) << 32 | units * (i + 1) / sharers, std::memory_order_relaxed);
  }
  failed_ = false;
  joined_ = false;

  entry_.store(kOpen, std::memory_order_release);
  generation_.fetch_add(1, std::memory_order_release);
  generation_.notify_all();
  inside_piece = true;
  work(0);
  inside_piece = false;
  close_and_wait(start, units >= sharers * kPiecesPerRange);  // else the last of few pieces may take as long as all
  if (failed_) std::rethrow_exception(std::exchange(error_, nullptr));
  return true;
}

// Never destroyed: the workers sleep in it until the process ends, whatever the order of static destructors.
Pool& pool() {
  static Pool* const instance = new Pool;
  return *instance;
}

int affinity_threads() {
  for (size_t cpus = 1024; cpus <= size_t{1} << 20; cpus *= 2) {  // the call fails while the set is too small
    std::vector<cpu_set_t> set(cpus / (8 * sizeof(cpu_set_t)));
    const size_t bytes = set.size() * sizeof(cpu_set_t);
    if (sched_getaffinity(0, bytes, set.data()) == 0) return CPU_COUNT_S(bytes, set.data());
  }
  return 1;
}

std::atomic<int>& chosen_thread_count() {
  static std::atomic<int> count = available_threads();
  return count;
}

}  // namespace

int available_threads() {
  const double quota = cpu_quota(cgroup_membership(), kCgroupMount).value_or(kMaxThreads);
  return std::clamp(affinity_threads(), 1, static_cast<int>(std::ceil(std::min(quota, double{kMaxThreads}))));
}

void set_thread_count(int threads) {
  if (threads < 0 || threads > kMaxThreads) {
    fail(ErrorCode::invalid_argument, "threads: the number must be from 0 (all available) to " +
                                          std::to_string(kMaxThreads) + ", not " + std::to_string(threads));
  }
  chosen_thread_count() = threads == 0 ? available_threads() : threads;
  pool().forget();
}

int thread_count() { return chosen_thread_count(); }

SerialScope::SerialScope() : before_(std::exchange(inside_piece, true)) {}
SerialScope::~SerialScope() { inside_piece = before_; }

void detail::parallel_for_raw(int64_t count, int64_t grain, RangeFn fn, void* context) {
  if (count <= 0) return;
  grain = std::max<int64_t>(grain, 1);
  const int threads = thread_count();
  const bool shared = threads > 1 && count > grain && !inside_piece;
  if (!shared || !pool().try_run(count, grain, fn, context, threads)) fn(context, 0, count);
}

}  // namespace nibble
