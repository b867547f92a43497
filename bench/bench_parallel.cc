// The thread pool: what a fork and join costs, and whether N threads stay as fast as one when other programs want the
// processors. It starts the competitors itself: one endless loop per processor.
//   bench_parallel
#include <fmt/core.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <thread>
#include <vector>

#include "core/parallel.h"
#include "kernels/kernels.h"

namespace nibble::bench {
namespace {

using Clock = std::chrono::steady_clock;

double microseconds_since(Clock::time_point start) {
  return std::chrono::duration<double, std::micro>(Clock::now() - start).count();
}

struct Spread {
  double min, median, p99, mean;
};

Spread spread_of(std::vector<double> times) {
  std::sort(times.begin(), times.end());
  double total = 0;
  for (const double t : times) total += t;
  return {times.front(), times[times.size() / 2], times[times.size() * 99 / 100],
          total / static_cast<double>(times.size())};
}

// One product of a token with a matrix whose rows are shared out, as in generation.
class Product {
 public:
  Product(int64_t rows, int64_t k)
      : rows_(rows),
        k_(k),
        w_(static_cast<size_t>(rows * k), 0.01f),
        x_(static_cast<size_t>(k), 1.0f),
        y_(static_cast<size_t>(rows)) {}

  void run() {
    parallel_for(rows_, 16, [&](int64_t begin, int64_t end) {
      kernels().matmul_f32({x_.data(), w_.data() + begin * k_, y_.data() + begin, 1, end - begin, k_, k_, k_, rows_});
    });
  }

 private:
  int64_t rows_, k_;
  std::vector<float> w_, x_, y_;
};

Spread time_product(Product& product, int threads, double seconds) {
  set_thread_count(threads);
  for (int i = 0; i < 20; ++i) product.run();
  std::vector<double> times;
  for (const auto start = Clock::now(); microseconds_since(start) < seconds * 1e6;) {
    const auto one = Clock::now();
    product.run();
    times.push_back(microseconds_since(one));
  }
  return spread_of(std::move(times));
}

void print(const char* what, int threads, const Spread& s) {
  fmt::print("{:<44} {:>3} threads   min {:9.1f}   median {:9.1f}   p99 {:9.1f}   mean {:9.1f} us\n", what, threads,
             s.min, s.median, s.p99, s.mean);
}

void measure(const char* condition) {
  struct Size {
    const char* name;
    int64_t rows, k;
  };
  constexpr Size kSizes[] = {{"fork and join, 32 rows of 64", 32, 64},
                             {"product 1536 x 576 (3.5 MB)", 1536, 576},
                             {"product 11008 x 2048 (90 MB)", 11008, 2048}};
  for (const Size& size : kSizes) {
    Product product(size.rows, size.k);
    for (int round = 0; round < 2; ++round) {  // interleaved, so that a change of the machine's load hits both
      for (const int threads : {1, available_threads(), 2 * available_threads()}) {
        print(fmt::format("{}, {}", size.name, condition).c_str(), threads, time_product(product, threads, 0.5));
      }
    }
  }
}

}  // namespace
}  // namespace nibble::bench

int main() {
  using namespace nibble;
  fmt::print("{} processors, kernels: {}\n", available_threads(), kernels().isa);
  bench::measure("alone");
  std::atomic<bool> stop = false;
  std::vector<std::thread> competitors;
  for (int i = 0; i < available_threads(); ++i) {
    competitors.emplace_back([&stop] {
      while (!stop.load(std::memory_order_relaxed)) {
      }
    });
  }
  bench::measure("competitors");
  stop = true;
  for (std::thread& competitor : competitors) competitor.join();
}
