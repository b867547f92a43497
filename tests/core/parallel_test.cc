#include "core/parallel.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <mutex>
#include <set>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "core/error.h"
#include "support/files.h"

namespace nibble {
namespace {

class Parallel : public testing::Test {
 protected:
  void TearDown() override { set_thread_count(0); }
};

// How often each element was visited, and whether every piece kept to the grain.
void expect_covers_once(int64_t count, int64_t grain) {
  std::vector<std::atomic<int>> visits(static_cast<size_t>(count));
  std::atomic<int> misaligned = 0;
  parallel_for(count, grain, [&](int64_t begin, int64_t end) {
    misaligned += begin % grain != 0 || (end % grain != 0 && end != count) || begin >= end;
    for (int64_t i = begin; i < end; ++i) ++visits[static_cast<size_t>(i)];
  });
  EXPECT_EQ(misaligned, 0) << count << " by " << grain;
  for (const auto& v : visits) ASSERT_EQ(v, 1) << count << " by " << grain;
}

TEST_F(Parallel, IsSerialWithinASerialScope) {
  set_thread_count(4);
  int calls = 0;
  const auto count = [&](int64_t begin, int64_t end) { calls += begin == 0 && end == 1000; };
  {
    const SerialScope outer;
    { const SerialScope inner; }
    parallel_for(1000, 1, count);
  }
  EXPECT_EQ(calls, 1);
  expect_covers_once(1000, 1);
}

TEST_F(Parallel, CoversEveryElementOnceInMultiplesOfTheGrain) {
  for (const int threads : {1, 2, 3, 8}) {
    set_thread_count(threads);
    for (const int64_t count : {1, 2, 7, 16, 17, 100, 1000, 4097}) {
      for (const int64_t grain : {1, 2, 16, 64, 5000}) expect_covers_once(count, grain);
    }
  }
}

TEST_F(Parallel, OfNothingCallsNothing) {
  int calls = 0;
  for (const int64_t count : {int64_t{0}, int64_t{-5}}) parallel_for(count, 4, [&](int64_t, int64_t) { ++calls; });
  EXPECT_EQ(calls, 0);
}

TEST_F(Parallel, CountsBeyond32BitsAreCovered) {
  set_thread_count(2);
  std::atomic<int64_t> total = 0;
  parallel_for(int64_t{1} << 40, 1, [&](int64_t begin, int64_t end) { total += end - begin; });
  EXPECT_EQ(total, int64_t{1} << 40);
}

TEST_F(Parallel, RunsOnSeveralThreads) {
  set_thread_count(3);
  std::mutex mutex;
  std::set<std::thread::id> threads;
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(20);
  while (threads.size() < 3 && std::chrono::steady_clock::now() < deadline) {
    parallel_for(64, 1, [&](int64_t, int64_t) {
      {
        const std::lock_guard lock(mutex);
        threads.insert(std::this_thread::get_id());
      }
      std::this_thread::sleep_for(std::chrono::microseconds(200));
    });
  }
  EXPECT_EQ(threads.size(), 3u);
}

// Thread 0's range holds one slow element; the rest of the work must not wait for it.
TEST_F(Parallel, OthersTakeOverTheRangeOfASlowThread) {
  set_thread_count(2);
  std::atomic<int> done = 0;
  std::atomic<bool> waited_in_vain = false;
  parallel_for(64, 1, [&](int64_t begin, int64_t end) {
    if (begin == 0) {
      const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(20);
      while (done < 64 - (end - begin) && std::chrono::steady_clock::now() < deadline) std::this_thread::yield();
      waited_in_vain = done < 64 - (end - begin);
    }
    done += static_cast<int>(end - begin);
  });
  EXPECT_FALSE(waited_in_vain);
  EXPECT_EQ(done, 64);
}

// The wait for the last of a few pieces is no contention.
TEST_F(Parallel, SharesOnAfterWorkThatDoesNotDivideEvenly) {
  using namespace std::chrono_literals;
  set_thread_count(4);
  for (int round = 0; round < 3; ++round) {
    parallel_for(5, 1, [](int64_t begin, int64_t end) { std::this_thread::sleep_for((end - begin) * 4ms); });
    std::mutex mutex;
    std::set<std::thread::id> threads;
    parallel_for(16, 1, [&](int64_t begin, int64_t end) {
      std::this_thread::sleep_for((end - begin) * 1ms);
      const std::lock_guard lock(mutex);
      threads.insert(std::this_thread::get_id());
    });
    EXPECT_GT(threads.size(), 1u);
  }
}

TEST_F(Parallel, CallsFromInsideRunSerially) {
  set_thread_count(4);
  std::atomic<int> total = 0, split = 0;
  parallel_for(8, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      parallel_for(100, 1, [&](int64_t b, int64_t e) {
        split += e - b != 100;
        total += static_cast<int>(e - b);
      });
    }
  });
  EXPECT_EQ(total, 800);
  EXPECT_EQ(split, 0);
}

TEST_F(Parallel, RethrowsAnExceptionAndWorksAfterwards) {
  for (const int threads : {1, 4}) {
    set_thread_count(threads);
    for (int round = 0; round < 50; ++round) {
      const auto throw_at_57 = [](int64_t begin, int64_t end) {
        if (begin <= 57 && 57 < end) throw std::runtime_error("at 57");
      };
      EXPECT_THROW(parallel_for(100, 1, throw_at_57), std::runtime_error);
      expect_covers_once(100, 1);
    }
  }
}

TEST_F(Parallel, SeveralThreadsOfTheProgramMayCallAtOnce) {
  set_thread_count(2);
  std::atomic<int64_t> total = 0;
  std::vector<std::thread> callers;
  for (int caller = 0; caller < 4; ++caller) {
    callers.emplace_back([&] {
      for (int round = 0; round < 200; ++round) {
        parallel_for(97, 2, [&](int64_t begin, int64_t end) { total += end - begin; });
      }
    });
  }
  for (std::thread& caller : callers) caller.join();
  EXPECT_EQ(total, 4 * 200 * 97);
}

TEST_F(Parallel, ThreadCountCanChangeBetweenCalls) {
  for (int round = 0; round < 30; ++round) {
    set_thread_count(round % 5 + 1);
    EXPECT_EQ(thread_count(), round % 5 + 1);
    expect_covers_once(200, 3);
  }
  set_thread_count(0);
  EXPECT_EQ(thread_count(), available_threads());
}

// Sleeping workers must hear of a job, however long after the last one it comes.
TEST_F(Parallel, WakesWorkersThatSleep) {
  set_thread_count(4);
  for (int round = 0; round < 20; ++round) {
    std::this_thread::sleep_for(std::chrono::milliseconds(3));
    expect_covers_once(64, 1);
  }
}

TEST_F(Parallel, RejectsImpossibleThreadCounts) {
  for (const int threads : {-1, 1025}) {
    test::expect_error(ErrorCode::invalid_argument, std::to_string(threads), [&] { set_thread_count(threads); });
  }
  EXPECT_GE(available_threads(), 1);
  EXPECT_LE(available_threads(), 1024);
}

}  // namespace
}  // namespace nibble
