#include "ops/svd.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/counter_random.h"
#include "core/error.h"
#include "core/parallel.h"
#include "kernels/kernels.h"
#include "ops/matrix.h"

namespace nibble {
namespace {

constexpr int64_t kExtra = 8;        // vectors beyond twice the rank
constexpr int64_t kMaxPasses = 100;  // for spectra so flat that it matters little which vectors are found
constexpr double kSettled = 1e-6;    // of the largest singular value; sums in f32 move them by about 1e-7
constexpr double kDependent = 1e-5;  // of a vector's length: what rounding leaves of one that lies in the others' span
constexpr double kVanishing = 1e-6;  // of the largest singular value: rounding of the products alone
constexpr int kMaxSweeps = 40;       // of Jacobi's method, which needs about 8
constexpr int64_t kGrainElements = 64 * 1024;  // less work is not worth another thread
constexpr double kSquare = 1e-9;               // cosine between two vectors that count as perpendicular; f32 has 1e-7

double length_of(const float* x, int64_t count) {
  double squares = 0;
  for (int64_t i = 0; i < count; ++i) squares += static_cast<double>(x[i]) * x[i];
  return std::sqrt(squares);
}

/// One pass of Gram and Schmidt's method over the rows. A row that depends on those above it becomes zero.
void orthonormalize_once(Tensor& x) {
  const int64_t rows = x.rows(), cols = x.cols(), grain = 1 + kGrainElements / cols;
  std::vector<double> before;
  for (int64_t r = 0; r < rows; ++r) before.push_back(length_of(x.f32() + r * cols, cols));
  for (int64_t r = 0; r < rows; ++r) {
    float* row = x.f32() + r * cols;
    const double length = length_of(row, cols);
    const bool dependent = length <= kDependent * before[static_cast<size_t>(r)];
    const auto factor = static_cast<float>(dependent ? 0.0 : 1.0 / length);
    for (int64_t c = 0; c < cols; ++c) row[c] *= factor;
    parallel_for(rows - r - 1, grain, [&](int64_t begin, int64_t end) {
      for (int64_t i = r + 1 + begin; i < r + 1 + end; ++i) {
        float* other = x.f32() + i * cols;
        kernels().axpy(-kernels().dot(row, other, cols), row, other, cols);
      }
    });
  }
}

/// The second pass takes away what rounding has left of the others' directions.
void orthonormalize(Tensor& x) {
  orthonormalize_once(x);
  orthonormalize_once(x);
}

/// A square matrix in double.
struct Square {
  int64_t n;
  std::vector<double> values;

  explicit Square(int64_t size) : n(size), values(static_cast<size_t>(size * size)) {}
  double& at(int64_t r, int64_t c) { return values[static_cast<size_t>(r * n + c)]; }
};

/// Products of all pairs of rows.
Square gram(const Tensor& z) {
  const int64_t n = z.rows(), cols = z.cols();
  Square g(n);
  parallel_for(n, 1, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      for (int64_t q = 0; q <= r; ++q) {
        const float *a = z.f32() + r * cols, *b = z.f32() + q * cols;
        double sum = 0;
        for (int64_t c = 0; c < cols; ++c) sum += static_cast<double>(a[c]) * b[c];
        g.at(r, q) = g.at(q, r) = sum;
      }
    }
  });
  return g;
}

/// Rotates rows p and q of a symmetric matrix, and its columns, so that element (p, q) becomes zero. @returns whether
/// it was more than rounding.
bool rotate(Square& g, Square& vectors, int64_t p, int64_t q) {
  const double cross = g.at(p, q);
  if (std::fabs(cross) <= kSquare * std::sqrt(std::fabs(g.at(p, p) * g.at(q, q)))) return false;
  const double theta = (g.at(q, q) - g.at(p, p)) / (2 * cross);
  const double t = std::copysign(1.0, theta) / (std::fabs(theta) + std::sqrt(1 + theta * theta));
  const double c = 1 / std::sqrt(1 + t * t), s = t * c;
  const auto turn = [c, s](double& a, double& b) {
    const double old = a;
    a = c * old - s * b;
    b = s * old + c * b;
  };
  for (int64_t i = 0; i < g.n; ++i) turn(g.at(i, p), g.at(i, q));
  for (int64_t i = 0; i < g.n; ++i) turn(g.at(p, i), g.at(q, i));
  for (int64_t i = 0; i < g.n; ++i) turn(vectors.at(p, i), vectors.at(q, i));
  return true;
}

/// Jacobi's method for a symmetric matrix: leaves the eigenvalues on the diagonal. @returns the eigenvectors as rows
Square diagonalize(Square& g) {
  Square vectors(g.n);
  for (int64_t i = 0; i < g.n; ++i) vectors.at(i, i) = 1;
  for (int sweep = 0; sweep < kMaxSweeps; ++sweep) {
    bool rotated = false;
    for (int64_t p = 0; p < g.n; ++p) {
      for (int64_t q = p + 1; q < g.n; ++q) rotated |= rotate(g, vectors, p, q);
    }
    if (!rotated) break;
  }
  return vectors;
}

/// W = p^T z for orthonormal rows p, in singular vectors.
PartialSvd from_factors(const Tensor& p, const Tensor& z) {
  Square g = gram(z);
  Square vectors = diagonalize(g);
  std::vector<int64_t> order(static_cast<size_t>(g.n));
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return g.at(a, a) > g.at(b, b); });
  const double largest = std::sqrt(std::max(0.0, g.at(order[0], order[0])));
  PartialSvd svd;
  Tensor left(DType::f32, {g.n, g.n}), right(DType::f32, {g.n, g.n});
  for (int64_t i = 0; i < g.n; ++i) {
    const int64_t from = order[static_cast<size_t>(i)];
    const double sigma = std::sqrt(std::max(0.0, g.at(from, from)));
    const bool vanishes = sigma <= kVanishing * largest;
    svd.s.push_back(vanishes ? 0.0f : static_cast<float>(sigma));
    for (int64_t j = 0; j < g.n && !vanishes; ++j) {
      left.f32()[i * g.n + j] = static_cast<float>(vectors.at(from, j));
      right.f32()[i * g.n + j] = static_cast<float>(vectors.at(from, j) / sigma);
    }
  }
  svd.u = matmul_by_columns(left, p);
  svd.v = matmul_by_columns(right, z);
  return svd;
}

bool is_settled(const std::vector<float>& before, const std::vector<float>& now, int64_t rank) {
  if (before.empty()) return false;
  for (int64_t i = 0; i < rank; ++i) {
    const auto at = static_cast<size_t>(i);
    if (std::fabs(static_cast<double>(now[at]) - before[at]) > kSettled * now[0]) return false;
  }
  return true;
}

Tensor random_rows(int64_t rows, int64_t cols, uint64_t seed) {
  Tensor x(DType::f32, {rows, cols});
  const CounterRandom random(seed, 0);
  for (int64_t i = 0; i < x.count(); ++i) x.f32()[i] = 2 * random.unit(static_cast<uint64_t>(i)) - 1;
  return x;
}

}  // namespace

PartialSvd partial_svd(const Tensor& w, const SvdOptions& options) {
  const int64_t smaller = std::min(w.rows(), w.cols());
  if (options.rank < 1 || options.rank > smaller) {
    fail(ErrorCode::invalid_argument, "svd: rank " + std::to_string(options.rank) + " of a matrix " +
                                          shape_text(w.shape) + ", expected 1 to " + std::to_string(smaller));
  }
  const int64_t vectors = std::min(smaller, 2 * options.rank + kExtra);
  PartialSvd svd = {.u = {}, .s = {}, .v = random_rows(vectors, w.cols(), options.seed)};
  const int64_t passes = options.passes > 0 ? options.passes : kMaxPasses;
  for (int64_t pass = 0; pass < passes; ++pass) {
    Tensor p = matmul(svd.v, w);
    orthonormalize(p);
    const std::vector<float> before = svd.s;
    svd = from_factors(p, matmul_by_columns(p, w));
    if (options.passes == 0 && is_settled(before, svd.s, options.rank)) break;
  }
  svd.u = svd.u.slice_rows(0, options.rank);
  svd.v = svd.v.slice_rows(0, options.rank);
  svd.s.resize(static_cast<size_t>(options.rank));
  return svd;
}

}  // namespace nibble
